"""How often a solution was tried, and how often it worked, by what people and agents said of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

Ask = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]

Record = tuple[int, int]
"""How often it was tried, and how often it worked."""


def attempts(ask: Ask, solutions: Iterable[str]) -> dict[str, Record]:
    """By the solution's id; those of which nobody told a try are left out.

    What pages and unknown senders say is not counted. These are told beside what Engram observed
    itself, and raise no tier.
    """
    ids = list(solutions)
    if not ids:
        return {}
    rows = ask(
        "SELECT attributes ->> 'solution', count(*), count(*) FILTER (outcome = 'ok') "
        "FROM lake.memories WHERE type = 'error_resolution' AND outcome IN ('ok', 'error') "
        "AND coalesce(trust, 'unknown') NOT IN ('browser', 'unknown') "
        "AND list_contains(?, attributes ->> 'solution') GROUP BY ALL",
        [ids],
    )
    return {row[0]: (int(row[1]), int(row[2])) for row in rows}


__all__ = ["Record", "attempts"]
