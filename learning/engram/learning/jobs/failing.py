"""What keeps failing: an automation, a step of a graph, a tool, a model, a page.

Runs are looked at in the order of time, since the begin of a day and since the begin of a longer
bucket (a week, four of them), and the statement is made at the run with which there was enough of
it: four failures, and a rate that is above one in ten by the lower bound of Wilson's 99.9 %
interval. So a run more or less changes nothing that was said, and what is said once is not
said again within the bucket.

Four and not three: at a usual rate of 3 % three of the first eight runs of a bucket fail in one of
1,000, and there are hundreds of things that run. 99.9 % and not 95: it is looked at with every run,
and of 500 things that fail in 5 % of their runs 99 % named 20 a week (at 1 % none, at 3 % two).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from engram.learning.intervals import wilson
from engram.learning.jobs.insight import Insight
from engram.learning.jobs.window import Window

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

HOUR: Final = 3600 * 10**9
DAY: Final = 24 * HOUR
WEEK: Final = 7 * DAY
FOUR_WEEKS: Final = 28 * DAY
_MONDAY: Final = 4 * DAY
"""1970 began on a Thursday; buckets begin on Mondays."""

LATE: Final = DAY
"""What arrives this late is still looked at."""

FAILURES: Final = 4
FLOOR: Final = 0.1
Z: Final = 3.2905267314919255

_WILSON: Final = (
    f"((k::DOUBLE / n) + {Z**2} / (2 * n) - {Z} * sqrt((k::DOUBLE / n) * (1 - k::DOUBLE / n) / n "
    f"+ {Z**2} / (4 * n * n))) / (1 + {Z**2} / n)"
)


def bucket_of(moment: int, bucket: int) -> int:
    """Begin of the bucket that a moment is in."""
    return (moment - _MONDAY) // bucket * bucket + _MONDAY


def failing(
    read: Read,
    window: Window,
    runs: str,
    *,
    job: str,
    kind: str,
    title: str,
    of: str = "runs",
    bucket: int = WEEK,
    importance: float = 0.75,
) -> Iterator[Insight]:
    """Those that began to fail too often within the window.

    `runs` is a query with the columns service, name, begun, moment (when it was known), failed,
    id, trace_id, why, of the times $1 to $2; runs of one trace are tries of one run, which its
    last one decides. `kind` names them for the key, `title` (with {name}) for people, and `of`
    what is counted.
    """
    since = max(0, window.since - LATE)
    some = f"SELECT service, name FROM ({runs}) WHERE failed GROUP BY ALL"
    if read(f"SELECT EXISTS ({some}) AS any", [since, window.until])["any"][0] is not True:
        return
    found = read(
        f"""
        WITH tries AS ({runs}),
        tried AS MATERIALIZED (
            SELECT service, name, max(moment) AS moment, max(begun) AS begun,
                arg_max(failed, (moment, id)) AS failed,
                arg_max(id, (moment, id)) AS id, arg_max(trace_id, (moment, id)) AS trace_id,
                arg_max(why, (moment, id)) AS why
            FROM tries WHERE begun >= $1 GROUP BY service, name, coalesce(trace_id, id)
        ),
        counted AS (
            SELECT *, (begun - {_MONDAY}) // {bucket} AS bucket,
                unnest([
                    {{'n': count(*) OVER day, 'k': count(*) FILTER (failed) OVER day,
                      'since': begun // {DAY} * {DAY}}},
                    {{'n': count(*) OVER long, 'k': count(*) FILTER (failed) OVER long,
                      'since': (begun - {_MONDAY}) // {bucket} * {bucket} + {_MONDAY}}}
                ], recursive := true)
            FROM tried
            WINDOW day AS (
                PARTITION BY service, name, begun // {DAY} ORDER BY moment, id
                ROWS UNBOUNDED PRECEDING
            ), long AS (
                PARTITION BY service, name, (begun - {_MONDAY}) // {bucket} ORDER BY moment, id
                ROWS UNBOUNDED PRECEDING
            )
        ),
        enough AS (
            SELECT service, name, bucket, moment, n, k, since FROM counted
            WHERE failed AND k >= {FAILURES} AND {_WILSON} >= {FLOOR}
            QUALIFY row_number() OVER (
                PARTITION BY service, name, bucket ORDER BY moment, id, since DESC
            ) = 1
        )
        SELECT e.service, e.name, e.bucket, e.moment, e.n, e.k, e.since,
            list(t.id ORDER BY t.moment DESC, t.id)[:5] AS ids,
            list(t.trace_id ORDER BY t.moment DESC, t.id)
                FILTER (t.trace_id IS NOT NULL)[:3] AS traces,
            list(t.why ORDER BY t.why) FILTER (t.why IS NOT NULL) AS whys
        FROM enough AS e
        JOIN tried AS t ON t.service = e.service AND t.name = e.name AND t.failed
            AND t.begun >= e.since AND t.moment <= e.moment
        GROUP BY ALL
        ORDER BY e.moment, e.service, e.name
        """,
        [max(0, bucket_of(since, bucket)), window.until],
    )
    for row in found.iter_rows(named=True):
        if not since <= row["moment"] < window.until:
            continue
        yield _said(row, job, kind, title.format(name=row["name"]), of, importance)


def _said(
    row: dict[str, Any], job: str, kind: str, title: str, of: str, importance: float
) -> Insight:
    n, k = int(row["n"]), int(row["k"])
    low, high = wilson(k, n, Z)
    name, service = str(row["name"]), str(row["service"])
    lines = [
        f"{k} of {n} {of}: {k / n:.0%}, between {low:.0%} and {high:.0%} (99.9 % interval)",
    ]
    why, times = most(row["whys"] or ())
    if why:
        lines.append(f"most often: {why} ({times} of {k})")
    ids, traces = row["ids"] or (), row["traces"] or ()
    return Insight(
        job=job,
        key=("failing", kind, service, name, str(row["bucket"])),
        title=f"{title}: {k} of {n} {of}{f' in {service}' if service else ''}",
        content="\n".join(lines),
        time_unix_nano=int(row["moment"]),
        service=service or None,
        importance=importance,
        tags=("state:failing",),
        evidence=tuple(ids),
        facts={
            "state": "failing", "kind": kind, "name": name, "n": n, "k": k,
            "rate": k / n, "low": low, "high": high, "why": why or None, "traces": traces,
        },
    )  # fmt: skip


def most(of: Iterable[str]) -> tuple[str, int]:
    """The most frequent one and how often; of equals the first by name."""
    counts: dict[str, int] = {}
    for one in of:
        counts[one] = counts.get(one, 0) + 1
    if not counts:
        return "", 0
    best = min(counts, key=lambda one: (-counts[one], one))
    return best, counts[best]


__all__ = ["DAY", "FOUR_WEEKS", "HOUR", "LATE", "WEEK", "bucket_of", "failing", "most"]
