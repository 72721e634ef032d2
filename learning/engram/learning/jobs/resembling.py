"""What else is to be said of a new error: the version it came with, and what it is perhaps.

Patterns are exact on purpose: type and innermost frame. A function that was renamed makes a new
one. So a new error is compared with the older ones of its service by all their frames, and one that
is much alike is named, with the reason, for a person to decide. Nothing is merged by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from engram.learning.similar import SimilarTraces, Trace
from engram.learning.stacks import causes

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

METHOD: Final = "frames-1"
"""Version of the comparison: in the memory, so that a proposal can be understood later."""

ALIKE: Final = 0.65
"""Likeness (0..1) of a proposal. Of errors without an older one of their own bug one in eight is
shown another's at this value; four in five of the others find theirs (docs/benchmarks.md)."""

_MOST: Final = 2_000
"""Older errors of a service that are compared: the newest."""


@dataclass(frozen=True, slots=True)
class Said:
    """More of a new error."""

    version: str
    like: str = ""
    """The pattern that it is perhaps."""
    likeness: float = 0.0
    because: str = ""


def more(
    read: Read, new: Sequence[tuple[str, str, str, int]], pattern: str
) -> dict[tuple[str, str], Said]:
    """For new errors (service, pattern, id of the first memory, its time) what there is to say.

    `pattern` is the SQL that names the pattern of a memory.
    """
    if not new:
        return {}
    versions = _versions(read, [id_ for _, _, id_, _ in new])
    rows = read(
        f"""
        SELECT service, pattern, first, stack, type, message FROM (
            SELECT coalesce(service_name, '') AS service, {pattern} AS pattern,
                min(time_unix_nano) AS first,
                arg_min(json_extract_string(attributes, '$.stacktrace'), (time_unix_nano, id))
                    AS stack,
                arg_min(json_extract_string(attributes, '$.type'), (time_unix_nano, id)) AS type,
                arg_min(json_extract_string(attributes, '$.message'), (time_unix_nano, id))
                    AS message
            FROM lake.memories
            WHERE type IN ('system_error', 'ui_error') AND fingerprint IS NOT NULL
                AND list_contains(?, coalesce(service_name, '')) AND time_unix_nano <= ?
            GROUP BY ALL
        ) QUALIFY row_number() OVER (PARTITION BY service ORDER BY first DESC, pattern) <= {_MOST}
        """,
        [sorted({service for service, *_ in new}), max(at for *_, at in new)],
    )
    traces: dict[tuple[str, str], tuple[int, Trace]] = {}
    for row in rows.iter_rows(named=True):
        trace = _trace(row)
        if trace is not None:
            traces[row["service"], row["pattern"]] = (row["first"], trace)
    said = {}
    for service, name, id_, at in new:
        older = [
            trace for (of, other), (first, trace) in traces.items()
            if of == service and other != name and first < at
        ]  # fmt: skip
        mine = traces.get((service, name))
        version = versions.get(id_, "")
        said[service, name] = Said(version) if mine is None else _like(version, mine[1], older)
    return said


def _like(version: str, mine: Trace, older: Iterable[Trace]) -> Said:
    known = SimilarTraces()
    known.add([mine, *older])
    found = known.search(mine, 1)
    if not found or found[0][1] < ALIKE:
        return Said(version)
    like, score = found[0]
    other = next(one for one in older if one.id == like)
    shared = [one for one in mine.functions if one in set(other.functions)]
    because = f"{len(shared)} of {len(mine.functions)} frames are the same"
    if mine.type == other.type:
        because += f", and the type {mine.type}"
    return Said(version, like, round(score, 3), because)


def _trace(row: Mapping[str, Any]) -> Trace | None:
    chain = causes(row["stack"], type_=row["type"]) if row["stack"] else ()
    if not chain or not chain[0].frames:
        return None
    frames = tuple((one.file.rpartition("/")[2], one.function) for one in chain[0].frames)
    return Trace(row["pattern"], row["type"] or "", row["message"] or "", frames)


def _versions(read: Read, ids: Sequence[str]) -> dict[str, str]:
    """service.version of the span or log that a memory is of."""
    rows = read(
        """
        WITH mine AS (
            SELECT id, trace_id, service_name FROM lake.memories
            WHERE type IN ('system_error', 'ui_error') AND id IN (SELECT unnest(?::VARCHAR[]))
        )
        SELECT m.id, max(json_extract_string(s.resource, '$."service.version"')) AS version
        FROM mine m JOIN lake.spans s
            ON s.trace_id = m.trace_id AND s.service_name IS NOT DISTINCT FROM m.service_name
        GROUP BY m.id
        """,
        [list(ids)],
    )
    return {row["id"]: row["version"] or "" for row in rows.iter_rows(named=True)}


__all__ = ["ALIKE", "METHOD", "Said", "more"]
