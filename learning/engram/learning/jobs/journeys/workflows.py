"""Automations, workflows, background jobs and syncs: those that keep failing, and dead ends.

* **failing**: runs that end with an error, or that began and never ended within a day
  (see `failing`). They are few, so four weeks are looked at.
* **stuck**: an app that tells each state of a run (`workflow_state("order", "paid", run=...)`)
  shows where runs stop. A state is a dead end when most runs move on from it, and yet one in ten
  or more (Wilson, 99 %) has not, though a day and ten times the usual time have passed. Of states
  in which runs usually end nothing is said. Judged at the end of each day over four weeks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from engram.learning.intervals import wilson
from engram.learning.jobs.failing import DAY, FAILURES, FLOOR, FOUR_WEEKS, failing
from engram.learning.jobs.insight import Insight
from engram.learning.jobs.window import Window

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

_RUNS: Final = f"""
SELECT coalesce(service_name, '') AS service, subject AS name, time_unix_nano AS begun,
    CASE WHEN outcome IS NULL THEN time_unix_nano + {DAY} ELSE time_unix_nano END AS moment,
    outcome IS NULL OR outcome = 'error' AS failed, id, NULL::VARCHAR AS trace_id, recorded_at,
    CASE WHEN outcome IS NULL THEN 'never ended'
        WHEN outcome = 'error' THEN (attributes->>'$.error_type') END AS why
FROM lake.memories
WHERE type = {{type}} AND subject IS NOT NULL
    AND time_unix_nano >= $1 - {DAY} AND time_unix_nano < $2
    AND (
        outcome IS NOT NULL AND time_unix_nano >= $1
        OR outcome IS NULL AND time_unix_nano + {DAY} < $2 AND source = 'mark'
            AND (attributes->>'$.started') = 'true' AND (attributes->>'$.state') IS NULL
    )
"""
_KINDS: Final = (
    ("workflow", "{name} keeps failing", "workflow_state"),
    ("sync", "Sync {name} keeps failing", "integration_sync"),
)

_Z: Final = 2.5758293035489004
"""99 %: it is judged once a day, of every state of every workflow."""
_GAPS: Final = 10
"""A run stopped after so many of the usual times in a state, and a day at least."""


def points_of_failure(read: Read, window: Window, job: str) -> Iterator[Insight]:
    """What keeps failing."""
    for kind, title, type_ in _KINDS:
        yield from failing(
            read, window, _RUNS.format(type=f"'{type_}'"), job=job, kind=kind, title=title,
            bucket=FOUR_WEEKS,
        )  # fmt: skip


VISITS: Final = """
SELECT coalesce(service_name, '') AS service, attributes->>'$.workflow' AS workflow,
    attributes->>'$.run' AS run, attributes->>'$.state' AS state, time_unix_nano AS moment, id,
    lead(time_unix_nano) OVER (
        PARTITION BY service_name, attributes->>'$.workflow', attributes->>'$.run'
        ORDER BY time_unix_nano, id
    ) - time_unix_nano AS stayed
FROM lake.memories
WHERE type = 'workflow_state' AND source = 'mark' AND outcome IS NULL
    AND time_unix_nano >= $1 AND time_unix_nano < $2
    AND (attributes->>'$.run') IS NOT NULL AND (attributes->>'$.state') IS NOT NULL
"""
"""Each state that a run was in, from $1 to $2, and for how long; null for the last one."""


def dead_ends(read: Read, end: int, job: str) -> Iterator[Insight]:
    """States in which runs stop that usually move on."""
    found = read(
        f"""
        WITH visits AS MATERIALIZED ({VISITS}),
        usual AS (
            SELECT service, workflow, state, median(stayed) AS stay, count(stayed) AS moved
            FROM visits GROUP BY ALL HAVING moved > 0
        )
        SELECT service, workflow, state, any_value(moved) AS moved, any_value(stay) AS stay,
            count(*) AS stopped, arg_max(v.id, (v.moment, v.id), 5) AS ids,
            arg_max(v.run, (v.moment, v.id), 3) AS runs, min(v.moment) AS first
        FROM usual JOIN visits AS v USING (service, workflow, state)
        WHERE v.stayed IS NULL AND v.moment < $2 - greatest({DAY}, {_GAPS} * stay)
        GROUP BY ALL
        HAVING stopped >= {FAILURES} AND moved >= stopped
        ORDER BY service, workflow, state
        """,
        [max(0, end - FOUR_WEEKS), end],
    )
    for row in found.iter_rows(named=True):
        k, n = row["stopped"], row["stopped"] + row["moved"]
        low, high = wilson(k, n, _Z)
        if low < FLOOR:
            continue
        service, workflow, state = row["service"], row["workflow"], row["state"]
        yield Insight(
            job=job,
            key=("stuck", service, workflow, state, str(end)),
            title=f"{workflow} stops in {state}: {k} of {n} runs"
            f"{f' in {service}' if service else ''}",
            content=(
                f"{k / n:.0%} of the runs that came into {state} went no further, between "
                f"{low:.0%} and {high:.0%} (99 % interval)\n"
                f"those that go on do so after {row['stay'] / 1e9:.3g} s (median)\n"
                f"for example: {', '.join(row['runs'])}"
            ),
            time_unix_nano=end - 1,  # of the day that it is about
            service=service or None,
            importance=0.7,
            tags=("state:stuck",),
            evidence=tuple(row["ids"]),
            facts={
                "state": "stuck", "what": "|".join(("stuck", service, workflow, state)),
                "workflow": workflow, "stuck_in": state, "n": n, "k": k, "low": low, "high": high,
            },
        )  # fmt: skip


__all__ = ["VISITS", "dead_ends", "points_of_failure"]
