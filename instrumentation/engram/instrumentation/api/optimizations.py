"""Registered improvements: a second way to do an operation, tried on a share of its calls.

Off until `ENGRAM_OPTIMIZATIONS=on` or `enabled=True`. Both ways are measured, and each verdict is
an `optimization` memory. The new way MUST be safe to follow with the old one: when it raises, the
old one answers.

* **trying**: the canary share takes the new way. Calls of the two ways that are next to each other
  in time are pairs; the new way helps when in more than half of the pairs it is faster by
  `min_gain`, which is: when the median of the ratios is below `1 - min_gain`. That is a bet
  (`sequential`), so it may be looked at after every pair. It ends when it is shown that it helps,
  when it is shown that it does not, or when after many pairs neither is.
* **helps**: all calls take the new way but a few, which stay to compare with. When it is not faster
  any more it is taken back.
* **rolled_back**: for the life of the process. Errors lead here at any time: three in a row, or
  more than one in a hundred, of calls that the old way then answered.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
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
from engram.instrumentation.api.sequential import ALARM, ENOUGH, Bet, Watch, median_between
from engram.instrumentation.api.values import said, text

SWITCH: Final = "ENGRAM_OPTIMIZATIONS"
State = Literal["trying", "helps", "rolled_back"]

FULL: Final = 0.95
"""The largest share of the new way: without calls of the old one nothing can be compared."""
ERRORS: Final = 0.01
"""Share of calls of the new way that may raise where the old one answers."""
PATIENCE: Final = 40
"""Pairs, in `min_samples`, after which what has shown no effect is given up."""
KEYS: Final = 8
"""Different keys that each way must have had: one customer's calls are no sample of all."""
_KEPT: Final = 256


class Optimization:
    """A registered improvement, its measurements and its state."""

    def __init__(
        self, name: str, operation: str, canary: float, enabled: bool | None,
        min_samples: int, min_gain: float, key: Callable[..., object] | None,
    ) -> None:  # fmt: skip
        self.name, self.operation, self.canary = name, operation, min(canary, FULL)
        self.min_samples, self.min_gain = min_samples, min_gain
        self.state: State = "trying"
        self._key, self._enabled, self._calls = key, enabled, 0
        self._ms: dict[bool, deque[float]] = {
            way: deque(maxlen=max(_KEPT, min_samples)) for way in (False, True)
        }
        self._seen = {False: 0, True: 0}
        self._keys: dict[bool, set[bytes]] = {False: set(), True: set()}
        self._waits: dict[bool, float | None] = {False: None, True: None}
        self._ratios: deque[float] = deque(maxlen=_KEPT)
        self._pairs = 0
        self._helps, self._helps_not = Bet(), Bet()
        self._slower, self._raises = Watch(), Watch(ERRORS)
        self._breaker = Breaker(failures=3)
        self._lock = threading.Lock()

    @property
    def enabled(self) -> bool:
        """Whether calls may take the new way at all."""
        if self._enabled is not None:
            return self._enabled
        return os.environ.get(SWITCH, "").strip().lower() in ("on", "true", "1")

    @property
    def share(self) -> float:
        """Of the calls, how many take the new way now."""
        if not self.enabled or self.state == "rolled_back":
            return 0.0
        return FULL if self.state == "helps" else self.canary

    def medians(self) -> tuple[float | None, float | None]:
        """Milliseconds of the old way and of the new, of the newest calls."""
        with self._lock:
            old, new = (list(self._ms[way]) for way in (False, True))
        return (statistics.median(old) if old else None, statistics.median(new) if new else None)

    def takes(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether this call takes the new way; a key that did still does when the share grows."""
        share = self.share
        if not share:
            return False
        if self._key is not None:
            of = text(self._key(*args, **kwargs))
        else:
            with self._lock:
                self._calls += 1
                of = str(self._calls)
        digest = hashlib.blake2b(f"{self.name}\0{of}".encode(), digest_size=8).digest()
        takes = int.from_bytes(digest, "big") < share * 2**64
        keys = self._keys[takes]
        if len(keys) < KEYS:
            keys.add(digest)
        return takes

    def measured(self, new: bool, ms: float) -> None:
        """A call by one of the ways took so long."""
        if not self.enabled:
            return
        with self._lock:
            self._ms[new].append(ms)
            self._seen[new] += 1
            if new:
                self._breaker.report(True)
                self._raises.see(False)
            other = self._waits[not new]
            if other is None:
                self._waits[new] = ms  # the newest one waits: pairs are close in time
                return
            self._waits[not new] = None
            verdict = self._pair(*((other, ms) if new else (ms, other)))
        if verdict is not None:
            self._end(*verdict)

    def answered(self, error: BaseException | None, ms: float) -> None:
        """The old way answered, after the new one had raised or without it."""
        if error is None:
            self.measured(False, ms)
        else:
            self.failed(error)

    def failed(self, error: BaseException) -> None:
        """The new way raised where the old one answered. Where both raise, the call is at fault."""
        with self._lock:
            self._raises.see(True)
            often = self._raises.wealth >= ALARM
            row = self._breaker.report(False)
        if row or often:
            self._end("rolled_back", f"{type(error).__qualname__}: {said(error)}")

    def _pair(self, old: float, new: float) -> tuple[State, str] | None:
        self._pairs += 1
        self._ratios.append(new / old if old > 0 else 1.0)
        if self.state == "helps":
            self._slower.see(new >= old)
            if self._slower.wealth >= ALARM:
                return "rolled_back", "no longer faster"
            return None
        if self.state == "rolled_back":
            return None
        faster = new < old * (1 - self.min_gain)
        self._helps.see(faster)
        self._helps_not.see(not faster)
        few = self._key is not None and min(map(len, self._keys.values())) < KEYS
        if few or min(self._seen.values()) < self.min_samples:
            return None
        if self._helps.wealth >= ENOUGH:
            return "helps", "measured"
        if self._helps_not.wealth >= ENOUGH:
            return "rolled_back", "measured"
        if self._pairs >= PATIENCE * max(1, self.min_samples):
            return "rolled_back", "no effect could be shown"
        return None

    def _end(self, state: State, why: str) -> None:
        with self._lock:
            if self.state in (state, "rolled_back"):
                return
            self.state = state
            ratios = sorted(self._ratios)
            evidence = self._helps if state == "helps" else self._helps_not
            facts: dict[str, Any] = {"pairs": self._pairs, "e_value": _short(evidence.wealth)}
            if state == "helps":
                self._ratios.clear()  # what is told later is of the time since
        if ratios:
            middle, low, high = median_between(ratios)
            facts |= {"median_ratio": _short(middle), "median_ratio_low": _short(low),
                      "median_ratio_high": _short(high)}  # fmt: skip
        old, new = self.medians()
        mark(
            "optimization",
            f"{self.name} {'helps' if state == 'helps' else 'was rolled back'}: {self.operation}",
            subject=self.operation,
            outcome=state == "helps",
            payload={"optimization": self.name, "operation": self.operation, "state": state,
                     "why": why, "canary": self.canary, "share": self.share,
                     "median_ms_before": old, "median_ms_after": new,
                     "samples_before": self._seen[False], "samples_after": self._seen[True],
                     **facts},
        )  # fmt: skip


def _short(number: float) -> float:
    return float(f"{number:.3g}") if math.isfinite(number) else number


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
    """Of the function as it is: a share of the calls (`canary`, by `key`) takes `improved`.

    Without a `key` calls are chosen by the dice. With one, the calls of a key take one way always.
    """

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
                problem = None
                if quietly(one.takes, args, kwargs):
                    started = time.perf_counter_ns()
                    try:
                        result = await cast(Any, improved)(*args, **kwargs)
                    except Exception as error:  # noqa: BLE001 - the old way answers
                        problem = error
                    else:
                        quietly(one.measured, True, since(started))
                        return result
                started = time.perf_counter_ns()
                result = await cast(Any, function)(*args, **kwargs)
                quietly(one.answered, problem, since(started))
                return result

            return cast("Callable[P, R]", awaiting)

        @functools.wraps(function)
        def calling(*args: P.args, **kwargs: P.kwargs) -> R:
            problem = None
            if quietly(one.takes, args, kwargs):
                started = time.perf_counter_ns()
                try:
                    result = improved(*args, **kwargs)
                except Exception as error:  # noqa: BLE001 - the old way answers
                    problem = error
                else:
                    quietly(one.measured, True, since(started))
                    return result
            started = time.perf_counter_ns()
            result = function(*args, **kwargs)
            quietly(one.answered, problem, since(started))
            return result

        return calling

    return register
