"""What roles told of their work, read back from the lake, and what an hour of it cost.

An hour counts for a setting's value when that value was in force in nearly all of it. So whatever
was decided, and whenever it came into force: what is compared is what was.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from engram.exporters import own
from engram.exporters.itself.settings import COMPACT, HOUR, PACE
from engram.exporters.itself.told import STATEMENT, WORK

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

_ROLES: Final = ("collect", "serve", "learn")

_LONGEST_S: Final = 3_600.0
"""A record of more than an hour is of a home that was idle in it; it belongs to no hour."""

_LEAST_S: Final = 1_200.0
"""An hour that less is known of is no observation."""

_PURE: Final = 0.9
"""Share of an hour that a value must have been in force for, to have the hour."""

GUARDED: Final = ("commit", "search", "sql", "known")
"""What must not become slower when maintenance runs less often: milliseconds of each."""


@dataclass(frozen=True, slots=True)
class Work:
    """One record of a role."""

    time: int
    role: str
    seconds: float
    values: Mapping[str, float]

    @property
    def hour(self) -> int:
        """The hour in which most of it was."""
        return (self.time - int(self.seconds * 0.5e9)) // HOUR


@dataclass(frozen=True, slots=True)
class Slow:
    """A statement that was slow in some minute."""

    time: int
    shape: str
    ms: tuple[float, ...]


@dataclass(slots=True)
class Cell:
    """An hour under one value of a setting."""

    value: float
    cost: float = 0.0
    """Milliseconds, or CPU seconds."""
    seconds: float = 0.0
    """That are known of it."""
    guards: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Sum and number, of what must not become worse."""

    @property
    def share(self) -> float:
        """Cost for each second."""
        return self.cost / self.seconds


def told(read: Read, since: int, until: int) -> tuple[list[Work], list[Slow]]:
    """What roles told of a time, in order. Only what came by the control socket counts."""
    rows = read(
        """
        SELECT event_name, time_unix_nano AS time, attributes FROM lake.logs
        WHERE scope_name = $1 AND time_unix_nano >= $2 AND time_unix_nano < $3
            AND json_extract_string(resource, '$."engram.trust"') = 'engram'
        ORDER BY time_unix_nano, content_hash
        """,
        [own.ITSELF, since, until],
    )
    work, slow = list[Work](), list[Slow]()
    for name, time, text in rows.iter_rows():
        told = _object(text)
        if name == WORK and told.get("role") in _ROLES:
            values = {key: float(one) for key, one in told.items() if _number(one)}
            work.append(Work(time, told["role"], values.pop("seconds", 0.0), values))
        elif name == STATEMENT and isinstance(told.get("ms"), list):
            ms = tuple(float(one) for one in told["ms"] if _number(one))
            slow.append(Slow(time, str(told.get("shape", "")), ms))
    return work, slow


def cells(work: Iterable[Work]) -> dict[str, dict[int, Cell]]:
    """Every setting's hours."""
    parts: dict[tuple[str, int], dict[float, Cell]] = defaultdict(dict)
    guards: dict[int, dict[str, tuple[float, float]]] = defaultdict(dict)
    for one in work:
        if not 0 < one.seconds <= _LONGEST_S:
            continue
        if one.role == "collect" and COMPACT in one.values:
            value = one.values[COMPACT]
            cell = parts[COMPACT, one.hour].setdefault(value, Cell(value))
            cell.cost += one.values.get("maintenance.ms", 0.0)
            cell.seconds += one.seconds
        if one.role == "learn":
            for job in jobs(one):
                value = one.values.get(f"job.{job}.pace", 1.0)
                cell = parts[PACE + job, one.hour].setdefault(value, Cell(value))
                cell.cost += one.values.get(f"job.{job}.cpu_s", 0.0)
                cell.seconds += one.seconds
                # One more than there were: the logarithm of none is none.
                cell.guards["over"] = (1.0 + one.values.get(f"job.{job}.over", 0.0), 1.0)
        for name in GUARDED:
            n = one.values.get(f"{name}.n", 0.0)
            if n > 0:
                ms, count = guards[one.hour].get(name, (0.0, 0.0))
                guards[one.hour][name] = (ms + one.values.get(f"{name}.ms", 0.0), count + n)
    found: dict[str, dict[int, Cell]] = defaultdict(dict)
    for (setting, hour), by_value in parts.items():
        cell = max(by_value.values(), key=lambda it: it.seconds)
        known = sum(one.seconds for one in by_value.values())
        if cell.seconds >= max(_LEAST_S, _PURE * known):
            cell.guards |= guards.get(hour, {}) if setting == COMPACT else {}
            found[setting][hour] = cell
    return dict(found)


def jobs(one: Work) -> list[str]:
    """The jobs that a record of `learn` tells of."""
    names = (key.split(".") for key in one.values if key.startswith("job."))
    return sorted({name[1] for name in names if len(name) == 3})


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _object(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


__all__ = ["GUARDED", "Cell", "Slow", "Work", "cells", "jobs", "told"]
