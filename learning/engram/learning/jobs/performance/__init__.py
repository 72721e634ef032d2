"""Performance: operations that became slower, faster or fail more, and requests that are slow.

`hours` are the numbers, `levels` says what changed, `seasons` what is unusual for its hour of the
week (`unusual` has its words), `slow` looks into slow requests. It looks once an hour has ended.
See docs/jobs/performance.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from engram.learning.jobs.insight import Insight
from engram.learning.jobs.performance.causes import Explained, failing, slower
from engram.learning.jobs.performance.hours import HOUR, Hour, Operation, added, read_hours
from engram.learning.jobs.performance.levels import DAYS, Change, changes
from engram.learning.jobs.performance.seasons import HISTORY
from engram.learning.jobs.performance.slow import (
    LEAST_MS,
    TIMES,
    Difference,
    Share,
    differences,
    examples,
    spent,
)
from engram.learning.jobs.performance.unusual import unusual_hours
from engram.learning.jobs.window import Window

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

NAME: Final = "performance"

SLOW: Final = 3
"""Slow requests of a route that a day must have."""

_LATE: Final = 2
"""Hours that are looked at again: telemetry that comes late."""


class Performance:
    """The job."""

    name = NAME
    about = "operations that became slower or fail more, and what slow requests have in common"

    def run(self, read: Read, window: Window) -> Iterable[Insight]:
        """See the package."""
        end = window.until // HOUR
        if window.since // HOUR == end:
            return  # no hour has ended since
        begin = max(0, window.since // HOUR - _LATE)
        hours = read_hours(
            read, max(0, begin - max(HISTORY + 1, 24 * (DAYS + 4))) * HOUR, end * HOUR
        )
        deploys = _deploys(read, begin, end) if hours else {}
        told = _told(read, begin, end)
        for operation in sorted(hours):
            own = hours[operation]
            first = max(begin, min(own))
            for change in changes(own, first, end):
                why = _why(read, operation, change)
                yield _changed(operation, change, deploys.get(operation[0], {}), why)
            yield from _slow(read, operation, own, range(first, end), told)
        yield from unusual_hours(read, NAME, hours, begin, end)


def _slow(
    read: Read, operation: Operation, hours: Mapping[int, Hour], new: range,
    told: set[tuple[str, str, int]],
) -> Iterator[Insight]:  # fmt: skip
    for day in sorted({hour // 24 for hour in new}):
        service, name = operation
        if (service, name, day) in told:
            continue
        today = added([one for hour, one in hours.items() if hour // 24 == day and hour < new.stop])
        if not today.runs:
            continue
        past = added([one for hour, one in hours.items() if hour < day * 24])
        usual = (past if past.runs >= 100 else today).quantile(0.5)
        limit = max(LEAST_MS, TIMES * usual)
        if today.above(limit) < SLOW:
            continue
        window = (service, name, day * 24 * HOUR, min(new.stop, (day + 1) * 24) * HOUR, limit)
        slow = examples(read, *window, slow=True)
        if len(slow) < SLOW:
            continue
        fast = examples(read, *window, slow=False)
        found = differences([one["attributes"] for one in slow],
                            [one["attributes"] for one in fast])  # fmt: skip
        yield _slow_said(operation, day, today, usual, limit, slow, found, spent(read, slow))


def _slow_said(
    operation: Operation, day: int, today: Hour, usual: float, limit: float,
    slow: list[dict[str, object]], found: list[Difference], shares: list[Share],
) -> Insight:  # fmt: skip
    service, name = operation
    n = max(len(slow), today.above(limit))
    moment = max(int(str(one["start"])) for one in slow)
    worst = max(float(str(one["ms"])) for one in slow)
    lines = [
        f"{n} of {today.runs} requests took more than {limit:,.0f} ms; usual is {usual:,.0f} ms, "
        f"the slowest took {worst:,.0f} ms",
    ]
    if shares:
        lines.append("time went to: " + ", ".join(f"{one.what} {one.share:.0%}" for one in shares))
    for one in found:
        lines.append(
            f"slow ones have {one.name} = {one.value}: {one.slow:.0%} of them, "
            f"{one.fast:.0%} of the others"
        )
    if not found:
        lines.append("what sets them apart is unclear: no attribute tells slow from fast")
    cause = f": {shares[0].what}" if shares else ""
    return Insight(
        job=NAME,
        key=("slow", service, name, str(day)),
        title=f"Slow requests{_in(service)}: {name}, {n} of {today.runs}{cause}"[:300],
        content="\n".join(lines),
        time_unix_nano=moment,
        service=service or None,
        importance=0.75,
        subject=f"{service}: {name} slow",
        tags=("state:slow",),
        facts={
            "state": "slow", "operation": name, "n": today.runs, "slow": n,
            "limit_ms": round(limit, 1), "usual_ms": round(usual, 1), "day": day,
            "traces": [str(one["trace_id"]) for one in slow[:10]],
            "differences": [f"{one.name} = {one.value}" for one in found],
            "time": [f"{one.what} {one.share:.2f}" for one in shares],
        },
    )  # fmt: skip


def _why(read: Read, operation: Operation, change: Change) -> Explained | None:
    """What below the operation changed; of what became faster nobody asks."""
    after = (change.since * HOUR, (change.known + 1) * HOUR)
    if change.what == "errors":
        return failing(read, *operation, *after)
    if change.size < 1:
        return None
    return slower(read, *operation, ((change.since - 24) * HOUR, change.since * HOUR), after)


def _changed(
    operation: Operation, change: Change, deploys: Mapping[str, int], why: Explained | None
) -> Insight:
    service, name = operation
    since, known = change.since * HOUR, (change.known + 1) * HOUR
    near = [
        version for version, first in sorted(deploys.items(), key=lambda one: one[1])
        if since - 2 * HOUR <= first < since + HOUR
    ]  # fmt: skip
    n = change.before.runs + change.after.runs
    if change.what == "latency":
        slower = change.size > 1
        before, after = change.before.quantile(0.5), change.after.quantile(0.5)
        state = "slower" if slower else "faster"
        size = f"{change.size:.2f} times as long ({change.low:.2f} to {change.high:.2f}, 95 %)"
        lines = [
            f"median {before:,.1f} ms -> {after:,.1f} ms: {size} as at the same hours before",
            f"p95 {change.before.quantile(0.95):,.1f} ms -> {change.after.quantile(0.95):,.1f} ms",
        ]
        words = f"{name} is {state}: {before:,.0f} -> {after:,.0f} ms"
    else:
        state = "worse"
        p, q = change.after.errors / change.after.runs, change.before.errors / change.before.runs
        lines = [
            f"errors {q:.2%} -> {p:.2%}: {change.size:+.2%} ({change.low:+.2%} to "
            f"{change.high:+.2%}, 95 %)"
        ]
        words = f"{name} fails more: {q:.1%} -> {p:.1%}"
    lines.append(f"since: {_when(since)}, {change.after.runs:,} runs after and "
                 f"{change.before.runs:,} before")  # fmt: skip
    if near:
        lines.append(f"version {near[-1]} was first seen {_when(deploys[near[-1]])}")
    else:
        lines.append("no new version was seen near it")
    if why is not None:
        lines += why.lines("ms a run" if change.what == "latency" else "runs")
    version = f" with version {near[-1]}" if near else ""
    return Insight(
        job=NAME,
        key=(change.what, service, name, str(change.since)),
        title=f"{words}{_in(service)}{version}"[:300],
        content="\n".join(lines),
        time_unix_nano=known,
        service=service or None,
        importance=0.5 if state == "faster" else 0.85,
        subject=f"{service}: {name} {change.what}",
        tags=(f"state:{state}",),
        facts={
            "state": state, "operation": name, "n": n, "size": round(change.size, 4),
            "low": round(change.low, 4), "high": round(change.high, 4), "since": since,
            "version": near[-1] if near else None,
            "causes": [one.what for one in why.causes] if why else None,
            "unclear": why.unclear if why else None,
        },
    )  # fmt: skip


def _deploys(read: Read, begin: int, end: int) -> dict[str, dict[str, int]]:
    """When each version of a service was first seen, but for those that were there before."""
    rows = read(
        """
        WITH by_resource AS (
            SELECT coalesce(service_name, '') AS service, resource,
                min(start_time_unix_nano) AS first
            FROM lake.spans WHERE start_time_unix_nano >= ? AND start_time_unix_nano < ?
            GROUP BY ALL
        )
        SELECT service, json_extract_string(resource, '$."service.version"') AS version,
            min(first) AS first
        FROM by_resource GROUP BY ALL
        """,
        [max(0, begin - 48) * HOUR, end * HOUR],
    )
    found: dict[str, dict[str, int]] = {}
    for service, version, first in rows.iter_rows():
        if version:
            found.setdefault(service, {})[version] = first
    return {
        service: {v: at for v, at in of.items() if at > min(of.values())}
        for service, of in found.items()
    }


def _told(read: Read, begin: int, end: int) -> set[tuple[str, str, int]]:
    """Days of routes whose slow requests were told."""
    rows = read(
        """
        SELECT coalesce(service_name, '') AS service,
            json_extract_string(attributes, '$.operation') AS operation,
            try_cast(json_extract_string(attributes, '$.day') AS BIGINT) AS day
        FROM lake.memories
        WHERE type = 'ai_insight' AND trust = 'engram' AND list_contains(tags, 'state:slow')
            AND json_extract_string(attributes, '$.job') = ? AND time_unix_nano >= ?
            AND time_unix_nano < ?
        """,
        [NAME, max(0, begin - 48) * HOUR, end * HOUR],
    )
    return {(service, operation, day) for service, operation, day in rows.iter_rows()}


def _in(service: str) -> str:
    return f" in {service}" if service else ""


def _when(at: int) -> str:
    return datetime.fromtimestamp(at / 1e9, UTC).strftime("%Y-%m-%d %H:%M UTC")


JOB: Final = Performance()

__all__ = ["JOB", "NAME", "Performance"]
