"""From the log to a remote: at least once, in order, and never in anybody's way.

A window of requests is read from the log, run through the processors of each pipeline, joined by
signal (joined OTLP requests in protobuf are one request) and sent. Only then the position moves on
disk, so a crash sends the window again. While the remote is away the window waits, and the log
grows up to its limit (`max_wal_mib` of the memory exporter); then the oldest requests are given up,
counted and told.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from engram.exporters.follow import Follower, Window
from engram.exporters.inflate import inflate
from engram.exporters.itself.told import about_itself
from engram.exporters.signals import Process, Signal
from engram.exporters.wal import Entry

from .sender import Later, Never, Sender
from .settings import Retry

_LOG = logging.getLogger("engram.forward")

_WINDOW_ENTRIES: Final = 512
_WINDOW_BYTES: Final = 1 << 20
_JOINED_BYTES: Final = 2 << 20
"""Inflated; a gRPC server takes 4 MiB when nobody said more."""

_DRAIN_S: Final = 1.0
_LONGEST_WAIT_S: Final = 3600.0
"""What a remote may ask for by Retry-After."""

_SAY_EVERY_S: Final = 30.0

Route = Process | None
"""The processors of one pipeline; None when there are none."""


@dataclass(slots=True)
class Counters:
    """What happened since the start."""

    sent: int = 0
    """Requests of the log that the remote took."""

    retries: int = 0
    """Times that it did not, and was tried again."""

    rejected: int = 0
    """Requests that it will never take, or that were given up after `max_elapsed_time`."""

    quarantined: int = 0
    """Requests on which a processor failed."""

    dropped: dict[str, int] = field(default_factory=dict)
    """Records that an operator's processors dropped, by processor."""


@dataclass(frozen=True, slots=True)
class _Joined:
    """Some requests of one signal as one."""

    signal: Signal
    parts: Sequence[bytes]


class Forwarder:
    """One exporter: a thread of its own, a position of its own."""

    def __init__(
        self,
        name: str,
        follower: Follower,
        sender: Sender,
        routes: Mapping[Signal, Sequence[Route]],
        *,
        retry: Retry,
        max_request_bytes: int,
        quarantine: Callable[[Entry, str], None],
    ) -> None:
        self.name = name
        self.counters = Counters()
        self._follower = follower
        self._sender = sender
        self._routes = routes
        self._retry = retry
        self._max_request_bytes = max_request_bytes
        self._quarantine = quarantine
        self._stop = threading.Event()
        self._deadline = float("inf")
        self._trouble = ""
        self._said = -_SAY_EVERY_S
        self._lost_said = 0
        self._thread = threading.Thread(target=self._run, name=f"forward {name}", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def shutdown(self) -> None:
        """Send for a moment more, then stop; what is left is in the log. Safe twice."""
        if not self._stop.is_set():
            self._deadline = time.monotonic() + _DRAIN_S
            self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_DRAIN_S + 0.5)

    def status(self) -> dict[str, Any]:
        """Numbers for people and for `engram status`."""
        return {
            **{name: getattr(self.counters, name) for name in Counters.__slots__},
            "lost": self._follower.lost,
            "behind_bytes": self._follower.behind_bytes,
            "trouble": self._trouble or None,
        }

    # -- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._over():
                self._say_lost()
                if not self._follower.wait(0.25):
                    if self._stop.wait(0.05):
                        break
                    continue
                if not self._step() and self._stop.is_set():
                    break  # the remote is away, and there is no time to wait for it
        finally:
            self._sender.close()
            self._follower.close()

    def _over(self) -> bool:
        return self._stop.is_set() and time.monotonic() > self._deadline

    def _step(self) -> bool:
        """Send one window; whether all of it is done with."""
        try:
            window = self._follower.read(_WINDOW_ENTRIES, _WINDOW_BYTES)
            if all(self._deliver(joined, window) for joined in self._joined(window)):
                self._follower.advance(window.end)
                return True
        except Exception:  # noqa: BLE001 - a bug here must not end the exporter
            _LOG.exception("%s: cannot go on and tries again", self.name)
            self._stop.wait(self._retry.initial_interval.total_seconds())
        return False

    # -- what to send ------------------------------------------------------------------------------

    def _joined(self, window: Window) -> Iterator[_Joined]:
        """The window's requests after the processors, joined by signal and pipeline."""
        for signal, routes in self._routes.items():
            entries = [entry for entry in window.entries if entry.signal is signal]
            for route in routes:
                parts, size = list[bytes](), 0
                for entry in entries:
                    body = self._processed(entry, route)
                    if parts and size + len(body) > _JOINED_BYTES:
                        yield _Joined(signal, parts)
                        parts, size = [], 0
                    if body:
                        parts.append(body)
                        size += len(body)
                if parts:
                    yield _Joined(signal, parts)

    def _processed(self, entry: Entry, route: Route) -> bytes:
        """The inflated body behind the processors; empty when nothing is left of it."""
        try:
            body = inflate(entry.body, entry.encoding, self._max_request_bytes)
            if about_itself(entry.signal, body):
                return b""  # stays at home
            if route is None:
                return body
            done = route(entry.signal, body)
        except Exception as error:  # noqa: BLE001 - whatever it is, the road goes on
            self.counters.quarantined += 1
            self._quarantine(entry, f"exporter {self.name}: {error}")
            return b""
        for name, count in done.dropped.items():
            self.counters.dropped[name] = self.counters.dropped.get(name, 0) + count
        return done.body

    # -- sending -----------------------------------------------------------------------------------

    def _deliver(self, joined: _Joined, window: Window) -> bool:
        """Send until it is taken or given up; False when told to stop first."""
        try:
            done = self._send(joined.signal, b"".join(joined.parts), window)
        except Never as error:
            if len(joined.parts) > 1:  # one of them is to blame
                return all(
                    self._deliver(_Joined(joined.signal, [part]), window) for part in joined.parts
                )
            self.counters.rejected += 1
            _LOG.error("%s: a %s request is given up: %s", self.name, joined.signal, error)
            return True
        if done:
            self.counters.sent += len(joined.parts)
        return done

    def _send(self, signal: Signal, body: bytes, window: Window) -> bool:
        begun = time.monotonic()
        pause = self._retry.initial_interval.total_seconds()
        start = self._follower.position
        while True:
            try:
                complaint = self._sender.send(signal, body)
            except Later as error:
                wait = self._wait(error, pause, begun)
            else:
                self._fine(complaint)
                return True
            if self._stop.wait(wait):
                return False
            if self._follower.position > start:  # the log gave the window up meanwhile
                return False
            pause = min(pause * self._retry.multiplier, self._retry.max_interval.total_seconds())

    def _wait(self, error: Later, pause: float, begun: float) -> float:
        """How long to wait before the next try.

        Raises:
            Never: there is no next try.
        """
        limit = self._retry.max_elapsed_time.total_seconds()
        if not self._retry.enabled or (limit and time.monotonic() - begun >= limit):
            raise Never(f"tried for {time.monotonic() - begun:.0f} s: {error}") from error
        self.counters.retries += 1
        self._trouble = str(error)
        spread = pause * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
        wait = max(spread, min(error.after_s, _LONGEST_WAIT_S))
        if time.monotonic() - self._said >= _SAY_EVERY_S:
            self._said = time.monotonic()
            _LOG.warning(
                "%s: not sent, tried again in %.1f s (%d bytes behind): %s",
                self.name,
                wait,
                self._follower.behind_bytes,
                error,
            )
        return wait

    def _fine(self, complaint: str) -> None:
        if self._trouble:
            _LOG.info("%s: sending again", self.name)
            self._trouble, self._said = "", -_SAY_EVERY_S
        if complaint:
            _LOG.warning("%s: the remote took a request but says: %s", self.name, complaint)

    def _say_lost(self) -> None:
        lost = self._follower.lost
        if lost > self._lost_said:
            _LOG.error(
                "%s: %d requests were given up unsent: the remote was away for longer than the log "
                "holds (max_wal_mib of the memory exporter)",
                self.name,
                lost - self._lost_said,
            )
            self._lost_said = lost
