"""Whether an error is known, how often and since when it was seen, and what has helped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from engram.collector.mcp.reader import Reader
from engram.collector.mcp.text import value
from engram.exporters.errors import NotFound
from engram.learning.recall import Item, Recall, Scope
from engram.learning.recall.fence import lines as item_lines
from engram.learning.recall.ranking import tried_and_worked, wilson
from engram.learning.recall.revisions import UNTRUSTED
from engram.learning.recall.suspects import SOLUTIONS, believed, suspicious

_LEAST: Final = 0.35
"""Of a score: below it the words only happen to be alike."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A pattern of failures."""

    fingerprint: str
    title: str
    count: int
    first: datetime
    last: datetime
    services: Sequence[str]
    last_id: str
    trace: str | None


def seen(reader: Reader, fingerprints: Sequence[str], service: str | None) -> list[Seen]:
    """These patterns, with how often and since when, in their order."""
    rows = reader.ask(
        "SELECT fingerprint, arg_max(title, time_unix_nano), count(*), min(time_unix_nano), "
        "max(time_unix_nano), list_sort(list(DISTINCT service_name)), "
        "arg_max(id, time_unix_nano), arg_max(trace_id, time_unix_nano) "
        "FROM lake.memories WHERE type = 'system_error' AND list_contains(?, fingerprint) "
        "AND (? IS NULL OR service_name = ?) GROUP BY fingerprint",
        [list(fingerprints), service, service],
    )
    found = {
        row[0]: Seen(row[0], row[1] or "", row[2], _at(row[3]), _at(row[4]),
                     [one for one in row[5] or () if one], row[6], row[7])
        for row in rows
    }  # fmt: skip
    return [found[one] for one in fingerprints if one in found]


def by_file(reader: Reader, file: str, service: str | None, limit: int) -> list[str]:
    """Fingerprints of failures with a file in their stack, the newest first."""
    rows = reader.ask(
        "SELECT fingerprint FROM lake.memories WHERE type = 'system_error' "
        "AND contains(attributes, ?) AND fingerprint IS NOT NULL "
        "AND (? IS NULL OR service_name = ?) "
        "GROUP BY fingerprint ORDER BY max(time_unix_nano) DESC, fingerprint LIMIT ?",
        [file.replace("\\", "/").removeprefix("./"), service, service, limit],
    )
    return [row[0] for row in rows]


def known_error(
    recall: Recall, reader: Reader, text: str | None, file: str | None, scope: Scope, limit: int = 5
) -> list[str]:
    """The lines about an error, cleaned."""
    found: dict[str, float | None] = {}
    solutions: list[Item] = []
    told: dict[str, tuple[float, float]] = {}
    if file:
        found.update(dict.fromkeys(by_file(reader, file, scope.service, limit)))
    if text:
        try:
            for one in recall.search(text, scope=scope, types=["system_error"], limit=20).items:
                if one.fingerprint and (one.score or 0) >= _LEAST:
                    found.setdefault(one.fingerprint, one.score)
            solutions = [
                one
                for one in recall.search(text, scope=scope, types=SOLUTIONS, limit=20).items
                if (one.score or 0) >= _LEAST and one.memory_type != "error_resolution"
            ]
            told = solved(reader, solutions)
            solutions = [one for one in solutions if offered(one, told.get(one.id))]
        except NotFound:
            return ["Not seen: nothing is indexed yet."]
    patterns = seen(reader, list(found)[:limit], scope.service)
    if not patterns and not solutions:
        return ["Not seen: no error like this is remembered, and no solution for it."]
    lines = []
    for number, pattern in enumerate(patterns, 1):
        score = found[pattern.fingerprint]
        like = "" if score is None else f", similarity {score:.2f}"
        services = ", ".join(map(value, pattern.services)) or "?"
        lines += [
            f"{number}. {value(pattern.title, 200)}",
            f"   seen {pattern.count:,} times from {pattern.first:%Y-%m-%d %H:%M} to "
            f"{pattern.last:%Y-%m-%d %H:%M} UTC in {services}{like}",
            f"   fingerprint={pattern.fingerprint}, last id={pattern.last_id}"
            + (f", trace={pattern.trace}" if pattern.trace else ""),
        ]
    if not patterns:
        lines.append("Not seen as an error itself; what follows was recorded for one like it.")
    if not solutions:
        return [*lines, "No solution is recorded. When you solve it: remember(type=error_solution)"]
    lines += ["", "## Solutions"]
    for solution in solutions[:limit]:
        tried, worked = told.get(solution.id) or tried_and_worked(
            solution.meta_data, solution.outcome
        )
        lines += item_lines(solution, most=600)
        lines.append(f"  {_record(tried, worked)}")
    return lines


def offered(one: Item, record: tuple[float, float] | None) -> bool:
    """Whether it may be told as a solution: believed, or an agent's that has worked since."""
    tried, worked = record or (0.0, 0.0)
    if tried and not worked:
        return False
    if believed(one):
        return True
    return (
        worked > 0 and one.source == "mark" and one.superseded_by is None and not suspicious(one)
        and (one.trust or "unknown") not in UNTRUSTED
    )  # fmt: skip


def solved(reader: Reader, solutions: Sequence[Item]) -> dict[str, tuple[float, float]]:
    """How often each was tried and worked, by the resolutions that name it."""
    rows = reader.ask(
        "SELECT attributes ->> 'solution', count(*), count(*) FILTER (outcome = 'ok') "
        "FROM lake.memories WHERE type = 'error_resolution' AND outcome IN ('ok', 'error') "
        "AND coalesce(trust, 'unknown') NOT IN ('browser', 'unknown') "
        "AND list_contains(?, attributes ->> 'solution') GROUP BY ALL",
        [[one.id for one in solutions]],
    )
    return {row[0]: (float(row[1]), float(row[2])) for row in rows}


def _record(tried: float, worked: float) -> str:
    if not tried:
        return "never tried, as far as is known; record_outcome tells how it went"
    _, low, high = wilson(worked, tried)
    return f"worked {worked:.0f} of {tried:.0f} times (95 %: {low:.0%} to {high:.0%})"


def _at(ns: Any) -> datetime:
    return datetime.fromtimestamp((ns or 0) / 1e9, UTC)


__all__ = ["Seen", "by_file", "known_error", "seen", "solved"]
