"""The components that the runs of an operation pass through, before and during an incident.

A component is an operation of a service, or the way between two: of a client span that has the
span of another service below it, what the other does not account for is the way (network, queues,
connections). Each has the time that is its own (without its children), and the failures that are
its own (without a failed child). One scan finds the runs, one the spans of their traces; both are
aggregated in DuckDB, by component, caller and slice of time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from engram.learning.jobs.causes.incidents import BEFORE, HOUR, Incident

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

RUNS: Final = 4_000
"""Of each side, drawn by the hash of their trace: 200 a slice are enough for a mean."""

SLICES: Final = (3, 6)
"""Of the incident, at least and at most; the time before has slices as long."""

ENOUGH: Final = 50
"""Runs of a slice, where there are so many: of fewer a share of errors is mostly chance."""

SHORTEST: Final = 300 * 10**9
"""Of a slice: below it a single run would be a level."""

TARGET: Final = "the incident"


@dataclass(slots=True)
class Slice:
    """A component in a slice of time."""

    calls: int = 0
    own_ns: float = 0.0
    failed: int = 0


@dataclass(slots=True)
class Part:
    """A component."""

    what: str
    service: str
    edge: bool
    slices: dict[int, Slice] = field(default_factory=dict)
    traces: dict[int, str] = field(default_factory=dict)
    """The trace with the worst of it, by slice."""


@dataclass(slots=True)
class Observed:
    """The graph and its numbers. Slices count from the first; `start` is the incident's first."""

    slices: int
    start: int
    parts: dict[str, Part] = field(default_factory=dict)
    calls: set[tuple[str, str]] = field(default_factory=set)
    entries: set[str] = field(default_factory=set)
    """The components that are the incident's own operation."""
    runs: dict[int, Slice] = field(default_factory=dict)
    """What the operation took in all, with everything below, and failed."""
    load: tuple[float, float] = (0.0, 0.0)
    """Runs an hour, before and during: all of them, not only those that were drawn."""


def observed(read: Read, incident: Incident) -> Observed:
    """What the traces of an incident and of the time before it look like."""
    whole = incident.until - incident.since
    before, during = _counted(read, incident)
    slices = min(max(during // ENOUGH, SLICES[0]), SLICES[1])
    length = max(SHORTEST, whole // slices)
    start = BEFORE // length
    begin = incident.since - start * length
    seen = Observed(-(-(incident.until - begin) // length), start)
    seen.load = (before / (BEFORE / HOUR), during / (whole / HOUR))
    rows = read(
        _TRACES,
        [incident.service, incident.operation, incident.operation, begin, incident.until,
         incident.since, begin, length, begin - 60 * 10**9, incident.until + 60 * 10**9],
    )  # fmt: skip
    for row in rows.iter_rows(named=True):
        at = int(row["slice"])
        part = seen.parts.setdefault(row["part"], Part(row["part"], row["service"], row["edge"]))
        one = part.slices.setdefault(at, Slice())
        one.calls += row["calls"]
        one.own_ns += row["own"]
        one.failed += row["own_failed"]
        if at not in part.traces or row["trace"] < part.traces[at]:
            part.traces[at] = row["trace"]
        if row["caller"] is not None and row["caller"] != row["part"]:
            seen.calls.add((row["caller"], row["part"]))
        if row["entries"]:
            seen.entries.add(row["part"])
            run = seen.runs.setdefault(at, Slice())
            run.calls += row["entries"]
            run.own_ns += row["entry_ns"]
            run.failed += row["entry_failed"]
    return seen


def _counted(read: Read, incident: Incident) -> tuple[int, int]:
    """All runs before and during."""
    row = read(
        """
        SELECT count(*) FILTER (start_time_unix_nano < ?) AS before,
            count(*) FILTER (start_time_unix_nano >= ?) AS during
        FROM lake.spans WHERE service_name = ? AND (? = '' OR name = ?) AND kind IN (2, 5)
            AND start_time_unix_nano >= ? AND start_time_unix_nano < ?
        """,
        [incident.since, incident.since, incident.service, incident.operation,
         incident.operation, incident.since - BEFORE, incident.until],
    ).row(0)  # fmt: skip
    return int(row[0]), int(row[1])


_TRACES: Final = f"""
WITH runs AS (
    SELECT trace_id, span_id, start_time_unix_nano AS start
    FROM lake.spans
    WHERE service_name = ? AND (? = '' OR name = ?) AND kind IN (2, 5)
        AND start_time_unix_nano >= ? AND start_time_unix_nano < ?
    QUALIFY row_number() OVER (
        PARTITION BY start_time_unix_nano >= ? ORDER BY hash(trace_id), span_id) <= {RUNS}
), drawn AS (
    SELECT trace_id, min((start - ?) // ?) AS slice FROM runs GROUP BY trace_id
), spans AS (
    SELECT s.trace_id, s.span_id, s.parent_span_id AS parent, d.slice,
        coalesce(s.service_name, '') AS service, s.name, s.kind,
        s.start_time_unix_nano AS start, s.end_time_unix_nano AS ends,
        greatest(s.end_time_unix_nano - s.start_time_unix_nano, 0) AS took,
        s.status_code IS NOT DISTINCT FROM 2 OR coalesce(s.http_response_status_code, 0) >= 500
            AS failed
    FROM lake.spans s JOIN drawn d USING (trace_id)
    WHERE s.start_time_unix_nano >= ? AND s.start_time_unix_nano < ?
        AND s.scope_name IS DISTINCT FROM 'engram.learning'
), children AS (
    -- Of each child the part in which none that began before it ran: calls may be parallel.
    SELECT trace_id, parent, service, kind, failed, start, ends, max(ends) OVER (
        PARTITION BY trace_id, parent ORDER BY start, span_id
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS covered
    FROM spans WHERE parent IS NOT NULL
), below AS (
    SELECT trace_id, parent AS span_id, bool_or(failed) AS failed,
        sum(greatest(ends - greatest(start, coalesce(covered, start)), 0)) AS took,
        min(service) FILTER (kind IN (2, 5)) AS callee
    FROM children GROUP BY ALL
), named AS (
    SELECT s.*, greatest(s.took - coalesce(b.took, 0), 0) AS own,
        s.failed AND NOT coalesce(b.failed, false) AS own_failed,
        s.kind IN (3, 4) AND b.callee IS NOT NULL AND b.callee <> s.service AS edge,
        CASE WHEN s.kind IN (3, 4) AND b.callee IS NOT NULL AND b.callee <> s.service
            THEN s.service || ' -> ' || b.callee ELSE s.name || ' (' || s.service || ')' END AS part
    FROM spans s LEFT JOIN below b USING (trace_id, span_id)
)
SELECT n.part, n.service, n.edge, c.part AS caller, n.slice,
    count(*) AS calls, sum(n.own)::DOUBLE AS own, count(*) FILTER (n.own_failed) AS own_failed,
    max_by(n.trace_id, (n.own_failed, n.own, n.trace_id)) AS trace,
    count(r.span_id) AS entries,
    coalesce(sum(n.took) FILTER (r.span_id IS NOT NULL), 0)::DOUBLE AS entry_ns,
    count(*) FILTER (r.span_id IS NOT NULL AND n.failed) AS entry_failed
FROM named n
LEFT JOIN named c ON c.trace_id = n.trace_id AND c.span_id = n.parent
LEFT JOIN runs r ON r.trace_id = n.trace_id AND r.span_id = n.span_id
GROUP BY ALL ORDER BY n.part, n.slice, caller, n.service, n.edge
"""

__all__ = ["TARGET", "Observed", "Part", "Slice", "observed"]
