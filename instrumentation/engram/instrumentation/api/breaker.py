"""When to stop trying: after failures in a row, and after too many runs in an hour."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable


class Breaker:
    """Opens after `failures` in a row, for `pause_s`; then lets one try through."""

    def __init__(
        self,
        failures: int = 3,
        pause_s: float = 300.0,
        per_hour: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures, self._pause_s, self._per_hour, self._clock = (
            failures, pause_s, per_hour, clock,
        )  # fmt: skip
        self._row = 0
        self._opened = 0.0
        self._runs: deque[float] = deque(maxlen=max(1, per_hour or 1))
        self._lock = threading.Lock()

    @property
    def open(self) -> bool:
        """Whether it lets nothing through."""
        return self._row >= self._failures and self._clock() - self._opened < self._pause_s

    def admit(self) -> str | None:
        """None when a run may begin (and counts), else why not."""
        with self._lock:
            now = self._clock()
            if self.open:
                return "circuit open"
            if self._per_hour is not None:
                if self._per_hour < 1 or (
                    len(self._runs) == self._per_hour and now - self._runs[0] < 3600
                ):
                    return "rate limit"
                self._runs.append(now)
            if self._row >= self._failures:
                self._opened = now  # one try; the next ones wait for another pause
            return None

    def report(self, success: bool) -> bool:
        """How a run ended; whether that has just opened the circuit."""
        with self._lock:
            if success:
                self._row = 0
                return False
            self._row += 1
            if self._row >= self._failures:
                self._opened = self._clock()
            return self._row == self._failures
