"""Sums of what a process did since it was last asked: cheap enough to note every request.

A note is a lock and four additions (`bench/learning/itself.py`), and nothing at all while nobody
collects them. Texts of the user are never noted: of a slow statement only its shape is kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from engram.exporters.itself.shape import shape

SLOW_MS: Final = 1_000.0
"""From here on a statement's shape is noted: a person waits (Nielsen's limit for an unbroken train
of thought)."""

_SHAPES: Final = 5
"""Slow statements of a minute that are told, the slowest; a screen of them says no more."""

_DURATIONS: Final = 20
"""Of one of them."""


@dataclass(slots=True)
class Taken:
    """What was noted in some seconds."""

    seconds: float
    values: dict[str, float | int] = field(default_factory=dict)
    slow: dict[str, list[float]] = field(default_factory=dict)
    """Durations in ms, by the shape of the statement."""


class Notes:
    """Of one process. For all threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.on = False
        """Nothing is kept before somebody says that it will be collected."""
        self._clock = clock
        self._lock = threading.Lock()
        self._since = clock()
        self._values: dict[str, float | int] = {}
        self._slow: dict[str, list[float]] = {}

    def note(self, measure: str, ms: float, **counts: int) -> None:
        """Something was done once, in so many milliseconds; `counts` are added up."""
        if not self.on:
            return
        with self._lock:
            values = self._values
            values[f"{measure}.n"] = values.get(f"{measure}.n", 0) + 1
            values[f"{measure}.ms"] = values.get(f"{measure}.ms", 0.0) + ms
            values[f"{measure}.max_ms"] = max(values.get(f"{measure}.max_ms", 0.0), ms)
            for name, count in counts.items():
                key = f"{measure}.{name}"
                values[key] = values.get(key, 0) + count

    @contextmanager
    def timed(self, measure: str) -> Iterator[dict[str, int]]:
        """Note what is inside, with the counts that it puts into what is yielded."""
        counts: dict[str, int] = {}
        began = time.perf_counter()
        try:
            yield counts
        except BaseException:
            counts["failed"] = 1
            raise
        finally:
            self.note(measure, (time.perf_counter() - began) * 1e3, **counts)

    def statement(self, sql: str, ms: float) -> None:
        """A statement of somebody's was run; the shape of a slow one is noted."""
        if not self.on:
            return
        self.note("sql", ms)
        if ms < SLOW_MS:
            return
        what = shape(sql)
        with self._lock:
            self._slow.setdefault(what, []).append(round(ms, 1))
            if len(self._slow) > 4 * _SHAPES:
                self._slow = self._slowest()

    def has(self, measures: frozenset[str]) -> bool:
        """Whether any of these was noted since the last `take`."""
        with self._lock:
            return any(f"{one}.n" in self._values for one in measures)

    def take(self) -> Taken:
        """What was noted since the last time."""
        with self._lock:
            now = self._clock()
            taken = Taken(now - self._since, self._values, self._slowest())
            self._since, self._values, self._slow = now, {}, {}
        return taken

    def _slowest(self) -> dict[str, list[float]]:
        ranked = sorted(self._slow.items(), key=lambda one: -max(one[1]))
        return {what: sorted(ms)[-_DURATIONS:] for what, ms in ranked[:_SHAPES]}


NOTES: Final = Notes()
"""Of this process, where no object of a role is at hand; off unless the role says otherwise."""


__all__ = ["NOTES", "SLOW_MS", "Notes", "Taken"]
