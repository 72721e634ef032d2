"""Statements about Engram, of one day: what took too long, and what helped.

Thresholds are of what a person would want to know, not of a data set; each is said at most once in
four weeks (`daily.Before`), and none has a tag that alerts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from engram.exporters import own
from engram.learning.intervals import wilson
from engram.learning.jobs.insight import Insight
from engram.learning.jobs.itself.trials import MAINTENANCE, OVER
from engram.learning.jobs.itself.work import Slow, Work, jobs

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

NAME: Final = "engram"
_DAY: Final = 86_400 * 10**9

_SEARCHES: Final = 50
"""Questions of a day that a rate is told of."""

_SLOW: Final = 5
"""Times that a statement was slow in a day: once is no habit."""

_RECALLED: Final = 5
"""Outcomes from which a rate is told, of four weeks; the interval of fewer is nearly everything."""

_RECALL: Final = 28 * _DAY


def insight(
    key: tuple[str, ...], title: str, content: str, at: int, *, importance: float = 0.4,
    evidence: Sequence[str] = (), **facts: Any,
) -> Insight:  # fmt: skip
    """A statement about Engram."""
    return Insight(
        NAME, key, title, content, at, service=own.SERVICE, importance=importance,
        subject=f"engram:{facts['what']}", tags=("about:engram",), evidence=tuple(evidence),
        facts=facts,
    )  # fmt: skip


def of_a_day(work: Sequence[Work], slow: Sequence[Slow], end: int) -> Iterator[Insight]:
    """What is worth saying of the day before `end`."""
    yield from _maintenance([one for one in work if one.role == "collect"], end)
    yield from _searches([one for one in work if one.role == "serve"], end)
    yield from _over([one for one in work if one.role == "learn"], end)
    yield from _slow(slow, end)


def _maintenance(work: Sequence[Work], end: int) -> Iterator[Insight]:
    seconds = sum(one.seconds for one in work)
    if seconds < 12 * 3_600:
        return
    total = {
        name: sum(one.values.get(f"maintenance.{name}", 0.0) for one in work)
        for name in ("n", "ms", "merges")
    }
    share = total["ms"] / 1e3 / seconds
    if share <= MAINTENANCE:
        return
    yield insight(
        ("maintenance", str(end)),
        f"Maintenance of the lake took {share:.1%} of a day",
        f"{total['ms'] / 1e3:,.0f} s in {total['n']:,.0f} slices, {total['merges']:,.0f} of them "
        f"merges, while {seconds / 3600:.0f} h were told of. Commits wait for a slice.",
        end, what="maintenance", n=int(total["n"]), share=round(share, 4),
    )  # fmt: skip


def _searches(work: Sequence[Work], end: int) -> Iterator[Insight]:
    n = int(sum(one.values.get("search.n", 0.0) for one in work))
    nothing = int(sum(one.values.get("search.nothing", 0.0) for one in work))
    low, high = wilson(nothing, n)
    if n < _SEARCHES or low <= 0.5:
        return
    yield insight(
        ("search", str(end)),
        f"Most searches find nothing relevant: {nothing} of {n} in a day",
        f"{nothing} of {n} ({low:.0%} to {high:.0%}, 95 %). Either what is asked for is not sent, "
        "or it is called something else.",
        end, what="search", n=n, nothing=nothing, low=round(low, 4), high=round(high, 4),
    )  # fmt: skip


def _over(work: Sequence[Work], end: int) -> Iterator[Insight]:
    for job in sorted({job for one in work for job in jobs(one)}):
        runs, over = (
            int(sum(one.values.get(f"job.{job}.{name}", 0.0) for one in work))
            for name in ("runs", "over")
        )
        if over >= OVER:
            yield insight(
                ("over", job, str(end)),
                f"Job {job} was over its budget {over} times in a day",
                f"Of {runs} runs. What it finds comes late, as each next run looks at half.",
                end, what=f"over:{job}", about=job, n=runs, over=over,
            )  # fmt: skip


def _slow(slow: Iterable[Slow], end: int) -> Iterator[Insight]:
    by_shape: dict[str, list[float]] = defaultdict(list)
    for one in slow:
        by_shape[one.shape] += one.ms
    worst = sorted(by_shape.items(), key=lambda one: (-sum(one[1]), one[0]))
    for shape, ms in worst[:3]:
        if len(ms) < _SLOW:
            continue
        p95 = sorted(ms)[int(0.95 * (len(ms) - 1))]
        yield insight(
            ("slow", shape, str(end)),
            f"A query took more than 1 s {len(ms)} times in a day",
            f"p95 of these {p95 / 1e3:.1f} s. Its shape, without values: {shape}",
            end, what=f"slow:{shape}", shape=shape, n=len(ms), p95_ms=round(p95, 1),
        )  # fmt: skip


def recalled(read: Read, end: int) -> Iterator[Insight]:
    """What was told and then tried, and how it turned out, by kind of memory.

    Only where somebody said so for the memory that was told (`record_outcome`): that something was
    told and then went well is not that it helped.
    """
    rows = read(
        """
        WITH said AS (
            SELECT id, type, time_unix_nano AS time,
                json_extract_string(attributes, '$.solution') AS solution,
                json_extract_string(attributes, '$.outcome_success') AS success
            FROM lake.memories
            WHERE type IN ('error_resolution', 'error_solution', 'optimization',
                    'business_decision')
                AND time_unix_nano >= $1 AND time_unix_nano < $2
                AND coalesce(trust, '') NOT IN ('browser', 'unknown')
                AND json_extract_string(attributes, '$.outcome_by') IS NOT NULL
        )
        SELECT coalesce(told.type, said.type) AS kind, said.id, said.success, said.time
        FROM said LEFT JOIN lake.memories AS told ON told.id = said.solution
        WHERE said.success IN ('true', 'false')
        ORDER BY kind, said.time, said.id
        """,
        [end - _RECALL, end],
    )
    kinds: dict[str, dict[str, bool]] = defaultdict(dict)
    for kind, id_, success, _ in rows.iter_rows():
        kinds[kind][id_] = success == "true"
    for kind, outcomes in sorted(kinds.items()):
        n, helped = len(outcomes), sum(outcomes.values())
        if n < _RECALLED:
            continue
        low, high = wilson(helped, n)
        yield insight(
            ("recall", kind, str(end)),
            f"What was recalled as {kind} helped in {helped} of {n} cases",
            f"{low:.0%} to {high:.0%} (95 %) of those in four weeks of which somebody said how it "
            "turned out; of the others nothing is known.",
            end, importance=0.5, what=f"recall:{kind}", evidence=list(outcomes)[-20:],
            kind=kind, n=n, helped=helped, low=round(low, 4), high=round(high, 4),
        )  # fmt: skip


__all__ = ["NAME", "insight", "of_a_day", "recalled"]
