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
    import polars as pl

    from engram.learning.jobs.runner import Read

HOUR: Final = 3600 * 10**9
DAY: Final = 24 * HOUR
WEEK: Final = 7 * DAY
FOUR_WEEKS: Final = 28 * DAY
_MONDAY: Final = 4 * DAY
"""1970 began on a Thursday; buckets begin on Mondays."""

LATE: Final = DAY
"""What arrives this late is still looked at."""

_AGAIN: Final = 600 * 10**9

FAILURES: Final = 4
FLOOR: Final = 0.1
Z: Final = 3.2905267314919255


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
    id, trace_id, recorded_at, why, of the times $1 to $2; runs of one trace are tries of one run,
    which its last one decides. `kind` names them for the key, `title` (with {name}) for people,
    and `of` what is counted.
    """
    since = max(0, window.since - LATE, window.until - FOUR_WEEKS)  # older news is none
    first = _first(read, runs, window, since)
    if first is None:
        return
    begin = max(0, bucket_of(first, bucket))
    if not _possible(read, runs, begin, first, window.until):
        return
    rows = read(_TRIED.format(runs=runs), [begin, window.until])
    for row in _enough(rows, first, bucket):
        yield _said(row, job, kind, title.format(name=row["name"]), of, importance)


def _first(read: Read, runs: str, window: Window, since: int) -> int | None:
    """When the first failure happened that an earlier run cannot have seen.

    It happened since then, or it came since then; asked apart, since both orders have statistics
    by which files are left out. A few minutes are looked at again: commits take their time.
    """
    seen = window.since - _AGAIN
    firsts = [
        read(f"SELECT min(moment) AS first FROM ({runs}) WHERE failed {came}", values)["first"][0]
        for came, values in (
            ("", [max(since, seen), window.until]),
            ("AND recorded_at >= $3", [since, window.until, seen]),
        )
    ]
    return min((one for one in firsts if one is not None), default=None)


def _possible(read: Read, runs: str, begin: int, first: int, until: int) -> bool:
    """Whether anything can have failed too often since the first new failure, by counts alone.

    At any run since then the failures of a day or bucket are at most those until now, and what
    worked is at least what worked before: traces, as tries of one run are one, and estimated ones,
    a tenth less.
    """
    day = first // DAY * DAY
    if day != (until - 1) // DAY * DAY:
        return True
    rows = read(
        f"""
        SELECT count(*) FILTER (failed) AS k, count(*) FILTER (failed AND begun >= $4) AS k_day,
            approx_count_distinct(coalesce(trace_id, id))
                FILTER (begun < $3 AND NOT failed) AS good,
            approx_count_distinct(coalesce(trace_id, id))
                FILTER (begun >= $4 AND begun < $3 AND NOT failed) AS good_day
        FROM ({runs}) GROUP BY service, name HAVING k >= {FAILURES}
        """,
        [begin, until, first, day],
    )
    return any(
        k >= FAILURES and wilson(k, 0.9 * good + k, Z).low >= FLOOR
        for row in rows.iter_rows(named=True)
        for k, good in ((row["k"], row["good"]), (row["k_day"], row["good_day"]))
    )


_TRIED: Final = """
WITH tries AS ({runs}),
tried AS (
    SELECT hash(service, name) AS key, max(moment) AS moment, max(begun) AS begun,
        arg_max(failed, (moment, id)) AS failed,
        arg_max(
            CASE WHEN failed THEN {{'service': service, 'name': name, 'id': id,
                'trace_id': trace_id, 'why': why}} END,
            (moment, id)
        ) AS failure
    FROM tries WHERE begun >= $1
    GROUP BY service, name, coalesce(trace_id, id)
)
SELECT key, moment, begun, failed, unnest(CASE WHEN failed THEN failure END) FROM tried
"""
"""A row for each run, with words only where it failed: there are many of them."""


def _enough(rows: pl.DataFrame, since: int, bucket: int) -> Iterator[dict[str, Any]]:
    """The first run of each bucket with which there was enough, with the failures up to it."""
    import polars as pl

    runs = (
        rows.filter(pl.col("failed").sum().over("key") >= FAILURES)
        .sort("moment", "failed", "id", nulls_last=False)
        .with_columns(
            day=pl.col("begun") // DAY * DAY,
            long=(pl.col("begun") - _MONDAY) // bucket * bucket + _MONDAY,
        )
    )
    begun = []
    for part in ("day", "long"):
        over = ["key", part]
        counted = runs.with_columns(
            n=pl.int_range(1, pl.len() + 1).over(over),
            k=pl.col("failed").cast(pl.Int64).cum_sum().over(over),
        ).filter("failed", pl.col("k") >= FAILURES)
        begun.append(counted.with_columns(since=pl.col(part)))
    k, n = (pl.col(one).cast(pl.Float64) for one in ("k", "n"))
    rate = k / n
    spread = Z * (rate * (1 - rate) / n + Z**2 / (4 * n**2)).sqrt()
    low = (rate + Z**2 / (2 * n) - spread) / (1 + Z**2 / n)
    found = (
        pl.concat(begun)
        .filter(low >= FLOOR)
        .sort("moment", "id", "since", descending=[False, False, True])
        .unique(["key", "long"], keep="first", maintain_order=True)
        .filter(pl.col("moment") >= since)
        .sort("moment", "service", "name")
    )
    for row in found.iter_rows(named=True):
        until = runs.filter(
            "failed", pl.col("key") == row["key"], pl.col("begun") >= row["since"],
            pl.col("moment") <= row["moment"],
        ).sort("moment", "id", descending=[True, False])  # fmt: skip
        yield row | {
            "bucket": row["long"],
            "ids": until["id"][:5].to_list(),
            "traces": until["trace_id"].drop_nulls()[:3].to_list(),
            "whys": until["why"].drop_nulls().to_list(),
        }


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


__all__ = [
    "DAY", "FAILURES", "FLOOR", "FOUR_WEEKS", "HOUR", "LATE", "WEEK", "bucket_of", "failing",
    "most",
]  # fmt: skip
