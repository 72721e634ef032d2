"""How often one may come."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

_MOST: Final = 4096
"""How many are counted at once. The one that was silent longest is forgotten first."""


class Rate:
    """Requests per client and minute: a bucket that refills steadily."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = float(per_minute)
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """Count one request: 0 if it may pass, else the seconds until one may."""
        now = self._clock()
        left, at = self._left.pop(client, (self._most, now))
        left = min(self._most, left + (now - at) * self._most / 60)
        passes = left >= 1
        self._left[client] = (left - passes, now)
        if len(self._left) > _MOST:
            self._left.popitem(last=False)
        return 0.0 if passes else (1 - left) * 60 / self._most
