"""Registered improvements: a second way to do an operation, tried on a share of its calls.

Off until `ENGRAM_OPTIMIZATIONS=on` or `enabled=True`. Both ways are measured; the new one is given
up when it raises in a row or does not help, and what was found out is an `optimization` memory.
The new way MUST be safe to follow with the old one: when it raises, the old one answers.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal, cast

from engram.instrumentation.api.breaker import Breaker
from engram.instrumentation.api.calls import P, R, quietly
from engram.instrumentation.api.marks import mark
from engram.instrumentation.api.values import text

SWITCH: Final = "ENGRAM_OPTIMIZATIONS"
State = Literal["trying", "helps", "rolled_back"]


class Optimization:
    """A registered improvement, its measurements and its state."""

    def __init__(
        self, name: str, operation: str, canary: float, enabled: bool | None,
        min_samples: int, min_gain: float, key: Callable[..., object] | None,
    ) -> None:  # fmt: skip
        self.name, self.operation, self.canary = name, operation, canary
        self.min_samples, self.min_gain = min_samples, min_gain
        self.state: State = "trying"
        self._key, self._enabled, self._calls = key, enabled, 0
        self._ms: dict[bool, deque[float]] = {
            way: deque(maxlen=max(256, min_samples)) for way in (False, True)
        }
        self._breaker = Breaker(failures=3)
        self._lock = threading.Lock()

    @property
    def enabled(self) -> bool:
        """Whether calls may take the new way at all."""
        if self._enabled is not None:
            return self._enabled
        return os.environ.get(SWITCH, "").strip().lower() in ("on", "true", "1")

    def medians(self) -> tuple[float | None, float | None]:
        """Milliseconds of the old way and of the new, of the newest calls."""
        old, new = (list(self._ms[way]) for way in (False, True))
        return (statistics.median(old) if old else None, statistics.median(new) if new else None)

    def takes(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether this call is in the canary share; the same key always is, or never."""
        if not self.enabled or self.state == "rolled_back":
            return False
        if self._key is not None:
            of = text(self._key(*args, **kwargs))
        else:
            with self._lock:
                self._calls += 1
                of = str(self._calls)
        digest = hashlib.blake2b(f"{self.name}\0{of}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self.canary * 2**64

    def measured(self, new: bool, ms: float) -> None:
        """A call by one of the ways took so long."""
        if not self.enabled:
            return
        self._ms[new].append(ms)
        if new:
            self._breaker.report(True)
        if self.state == "trying":
            self._judge()

    def failed(self, error: BaseException) -> None:
        """The new way raised; the old one answers."""
        if self._breaker.report(False):
            self._end("rolled_back", f"{type(error).__qualname__}: {error}")

    def _judge(self) -> None:
        if min(map(len, self._ms.values())) < self.min_samples:
            return
        old, new = self.medians()
        if old is not None and new is not None:
            helps = new <= old * (1 - self.min_gain)
            self._end("helps" if helps else "rolled_back", "measured")

    def _end(self, state: State, why: str) -> None:
        with self._lock:
            if self.state in (state, "rolled_back"):
                return
            self.state = state
        old, new = self.medians()
        mark(
            "optimization",
            f"{self.name} {'helps' if state == 'helps' else 'was rolled back'}: {self.operation}",
            subject=self.operation,
            outcome=state == "helps",
            payload={"optimization": self.name, "operation": self.operation, "state": state,
                     "why": why, "canary": self.canary, "median_ms_before": old,
                     "median_ms_after": new, "samples_before": len(self._ms[False]),
                     "samples_after": len(self._ms[True])},
        )  # fmt: skip


_registered: dict[str, Optimization] = {}


def optimizations() -> tuple[Optimization, ...]:
    """All that is registered."""
    return tuple(_registered.values())


def optimization(
    name: str,
    *,
    improved: Callable[P, R],
    operation: str | None = None,
    canary: float = 0.1,
    key: Callable[..., object] | None = None,
    enabled: bool | None = None,
    min_samples: int = 50,
    min_gain: float = 0.05,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Of the function as it is: a share of the calls (`canary`, by `key`) takes `improved`."""

    def register(function: Callable[P, R]) -> Callable[P, R]:
        one = Optimization(
            name, operation or function.__qualname__, min(1.0, max(0.0, canary)), enabled,
            min_samples, min_gain, key,
        )  # fmt: skip
        _registered[name] = one

        def since(started: int) -> float:
            return (time.perf_counter_ns() - started) / 1e6

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaiting(*args: P.args, **kwargs: P.kwargs) -> Any:
                if quietly(one.takes, args, kwargs):
                    started = time.perf_counter_ns()
                    try:
                        result = await cast(Any, improved)(*args, **kwargs)
                    except Exception as error:  # noqa: BLE001 - the old way answers
                        quietly(one.failed, error)
                    else:
                        quietly(one.measured, True, since(started))
                        return result
                started = time.perf_counter_ns()
                result = await cast(Any, function)(*args, **kwargs)
                quietly(one.measured, False, since(started))
                return result

            return cast("Callable[P, R]", awaiting)

        @functools.wraps(function)
        def calling(*args: P.args, **kwargs: P.kwargs) -> R:
            if quietly(one.takes, args, kwargs):
                started = time.perf_counter_ns()
                try:
                    result = improved(*args, **kwargs)
                except Exception as error:  # noqa: BLE001 - the old way answers
                    quietly(one.failed, error)
                else:
                    quietly(one.measured, True, since(started))
                    return result
            started = time.perf_counter_ns()
            result = function(*args, **kwargs)
            quietly(one.measured, False, since(started))
            return result

        return calling

    return register
