"""After each round of jobs: what is new in the lake, to the hooks. A thread of its own.

A slow hook delays other alerts, and neither the jobs nor the index.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from engram.exporters.ask import ask
from engram.exporters.errors import EngramError, NotFound, StoreError
from engram.exporters.home import Home
from engram.learning.alerts.choose import Found, found
from engram.learning.alerts.hooks import Hook, hooks
from engram.learning.alerts.outbox import DAY, SECOND, Outbox
from engram.learning.alerts.settings import Alerts

_LOG: Final = logging.getLogger("engram.alerts")

_OVERLAP: Final = 600 * SECOND
"""Looked at twice: a commit may be seen later than it was made."""

_LONGEST_S: Final = 3600.0


class Alerter:
    """Tells hooks of insights. Constructing reads the state. Not for several threads."""

    def __init__(
        self,
        home: Home,
        settings: Alerts,
        *,
        told: Sequence[Hook] | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._home = home
        self._settings = settings
        self._clock = clock
        self.outbox = Outbox(
            home.root / "learn" / "alerts.json", settings,
            hooks(settings) if told is None else told,
        )  # fmt: skip

    def loop(self, stop: threading.Event, wake: threading.Event) -> None:
        """Look when woken, and try again what failed, until told to stop (which wakes, too)."""
        while not stop.is_set():
            wake.wait(self._wait_s())
            if stop.is_set():
                break
            looked = wake.is_set()
            wake.clear()
            try:
                self.step() if looked else self.outbox.send(self._clock())
            except EngramError as error:
                _LOG.warning("alerts: %s", error)
                stop.wait(1.0)

    def step(self) -> int:
        """Look for insights, and send what is to be sent; how many messages were added.

        Raises:
            StoreError: the lake cannot be read, or the state not written.
        """
        with contextlib.suppress(EngramError):  # without a collector, what is there is there
            ask(self._home, "flush", timeout_s=60.0)
        now = self._clock()
        added = self.outbox.take(self._found(now), now)
        self.outbox.send(now)
        return added

    def _wait_s(self) -> float:
        due = self.outbox.next_try()
        if due is None:
            return _LONGEST_S
        return min(_LONGEST_S, max(1.0, (due - self._clock()) / SECOND))

    def _found(self, now: int) -> list[Found]:
        import duckdb

        from engram.exporters.lake.attach import attach_read_only

        state = self.outbox.state
        since = max(now - DAY, state.looked - _OVERLAP, now if state.begins < 0 else state.begins)
        try:
            with attach_read_only(self._home, threads=1, memory_limit="256MB") as lake:
                return found(lake, since, now - DAY, self._settings.min_importance)
        except NotFound:
            return []
        except duckdb.Error as error:
            raise StoreError(f"cannot read the lake in {self._home.lake}: {error}") from error


__all__ = ["Alerter"]
