"""Words for hours that are unusual, one for each incident.

Operations of a service that are unusual in the same way at the same time are one incident, and so
are services, when there are more than two: then something that they share is the cause, or
telemetry is missing. For a week it is not said again of the same service.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Final

from engram.learning.jobs.insight import Insight
from engram.learning.jobs.performance.hours import HOUR, Hour, Operation
from engram.learning.jobs.performance.seasons import QUIET, Unusual, unusual

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

_SHARED: Final = 2
"""Services that are incidents of their own; more are one."""
_NAMED: Final = 10

_WHAT: Final = {
    "more": "more runs than usual", "fewer": "fewer runs than usual",
    "p95": "slower p95 than usual", "errors": "more errors than usual",
}  # fmt: skip


def unusual_hours(
    read: Read, job: str, hours: Mapping[Operation, Mapping[int, Hour]], first: int, end: int
) -> Iterator[Insight]:
    """What is said of the hours from `first` to before `end`."""
    found = sorted(unusual(hours, first, end), key=lambda one: (one.hour, one.what, one.operation))
    if not found:
        return
    told = _told(read, job, found[0].hour - QUIET, end)
    for (hour, what), several in groupby(found, key=lambda one: (one.hour, one.what)):
        fresh = []
        for one in several:
            before = told.get((one.operation[0], what))
            if before is None or not hour - QUIET < before <= hour:
                fresh.append(one)
        services = sorted({one.operation[0] for one in fresh})
        for service in services:
            told[service, what] = hour
        if len(services) > _SHARED:
            yield _said(read, job, None, fresh)
            continue
        for service in services:
            yield _said(read, job, service, [one for one in fresh if one.operation[0] == service])


def _said(read: Read, job: str, service: str | None, some: Sequence[Unusual]) -> Insight:
    first = max(some, key=_size)
    hour, what = first.hour, first.what
    services = sorted({one.operation[0] for one in some})
    where = f" in {service}" if service else f" in {len(services)} services" if not service else ""
    if service == "":
        where = ""
    others = f" and {len(some) - 1} more" if len(some) > 1 else ""
    at = datetime.fromtimestamp(hour * 3600, UTC)
    lines = [
        f"{at:%A %Y-%m-%d %H}:00 to {(hour + 1) % 24:02}:00 UTC, against the same hour of the two "
        f"weeks before and the hours beside it (6 hours, {first.usual_runs:,} runs)"
    ]
    for one in sorted(some, key=_size, reverse=True)[:_NAMED]:
        prefix = f"{one.operation[0]}: " if service is None else ""
        lines.append(f"{prefix}{one.operation[1]}: {_numbers(one)}, {one.runs:,} runs")
    if what == "fewer" and service is None:
        lines.append("several services at once: a common cause, or telemetry that did not arrive")
    traces = _traces(read, first)
    if traces:
        lines.append(f"Traces: {', '.join(traces)}")
    return Insight(
        job=job,
        key=("unusual", what, service if service is not None else "*", str(hour)),
        title=f"{first.operation[1]}{others}: {_WHAT[what]} at this hour{where}"[:300],
        content="\n".join(lines),
        time_unix_nano=(hour + 1) * HOUR,
        service=service or None,
        importance=0.75,
        subject=f"{service or '*'}: {first.operation[1]} unusual",
        tags=("state:unusual",),
        facts={
            "state": "unusual", "operation": first.operation[1], "what": what, "hour": hour,
            "services": services, "operations": sorted({one.operation[1] for one in some})[:50],
            "n": first.runs, "n_before": first.usual_runs, "value": round(first.value, 4),
            "low": round(first.low, 4), "high": round(first.high, 4), "since": hour * HOUR,
            "traces": traces or None,
        },
    )  # fmt: skip


def _size(one: Unusual) -> float:
    """How far from usual."""
    if one.what == "fewer":
        return one.low / max(one.value, 1.0)
    return one.value / max(one.high, 1e-3)


def _numbers(one: Unusual) -> str:
    if one.what == "errors":
        return f"errors {one.value:.1%}; usual at this hour {one.low:.1%} to {one.high:.1%}"
    if one.what == "p95":
        return f"p95 {one.value:,.0f} ms; usual at this hour {one.low:,.0f} to {one.high:,.0f} ms"
    return f"{one.value:,.0f} runs; usual at this hour {one.low:,.0f} to {one.high:,.0f}"


def _traces(read: Read, one: Unusual) -> list[str]:
    """The slowest of the hour, or some that failed."""
    if one.what not in ("p95", "errors"):
        return []
    failed = "AND status_code = 2" if one.what == "errors" else ""
    rows = read(
        "SELECT trace_id FROM lake.spans WHERE kind IN (2, 5) AND start_time_unix_nano >= ? "
        f"AND start_time_unix_nano < ? AND name = ? AND coalesce(service_name, '') = ? {failed} "
        "ORDER BY end_time_unix_nano - start_time_unix_nano DESC, trace_id LIMIT 5",
        [one.hour * HOUR, (one.hour + 1) * HOUR, one.operation[1], one.operation[0]],
    )
    return [str(trace) for trace in rows["trace_id"]]


def _told(read: Read, job: str, since: int, end: int) -> dict[tuple[str, str], int]:
    """The last hour that was said, by service and what."""
    rows = read(
        """
        SELECT unnest(from_json(json_extract(attributes, '$.services'), '["VARCHAR"]')) AS service,
            json_extract_string(attributes, '$.what') AS what,
            try_cast(json_extract_string(attributes, '$.hour') AS BIGINT) AS hour
        FROM lake.memories
        WHERE type = 'ai_insight' AND trust = 'engram' AND list_contains(tags, 'state:unusual')
            AND json_extract_string(attributes, '$.job') = ? AND time_unix_nano >= ?
            AND time_unix_nano < ?
        ORDER BY hour
        """,
        [job, max(0, since) * HOUR, (end + 1) * HOUR],
    )
    return {(service, what): hour for service, what, hour in rows.iter_rows()}


__all__ = ["unusual_hours"]
