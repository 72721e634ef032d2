"""From an exporter to the disk: hand the request to whoever holds the home, or log it in a turn.

```
deliver ─► control socket of the home ─► an engine's log ─► durable ─► True
   │ nobody listens
   └─► the home's lock, for one append to the log ─► durable ─► True, and an engine is started
```

So nothing waits for an engine to start, and its death costs nothing: the request that got no answer
is sent again, and the engine knows a request it has seen by the content of its records.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import socket
import threading
import time
from typing import Any, Final

from engram.exporters.careful import CarefulReplay
from engram.exporters.errors import BadRequest, EngramError, HomeBusy, Overloaded, StoreError
from engram.exporters.forks import leave_to_parent
from engram.exporters.home import Home
from engram.exporters.lock import HomeLock
from engram.exporters.sdk import start
from engram.exporters.signals import Encoding, Signal
from engram.exporters.wal import Wal

_log = logging.getLogger("engram.exporter")

DELIVER_S: Final = 10.0
"""A request is tried this long. After one that failed, the next ones are tried once each."""
FLUSH_S: Final = 5.0
"""At its end, a process waits at most this long until what it exported can be queried."""
_SILENCE_S: Final = 60.0
"""A warning of the same kind is given once in this time."""
_POLL_S: Final = 0.05
_ANSWER_S: Final = 8.0
_BACKOFF_S: Final = (0.0, 0.5, 5.0, 60.0)
"""Pauses before another engine is started, while none of them comes so far that it serves."""
_SUCCESSOR_S: Final = 2.0
"""Whoever served us has this long for a successor (a collector that takes the home over)."""
_LOG_BYTES: Final = 1 << 30
"""What may wait in the log while no engine commits it."""
_SEGMENT_BYTES: Final = 1 << 20
"""Of a log that is written in turns: each turn reads the last segment to find its end."""


class Delivery:
    """The way from this process to one home, shared by its exporters. Never raises."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._exporters = 0
        self._failing = False
        self._lost = 0
        self._warned: dict[str, float] = {}
        self._appended = False
        self._begin()
        leave_to_parent(self)

    def _begin(self) -> None:
        self._mutex = threading.Lock()
        self._connection: socket.socket | None = None
        self._stream: Any = None
        self._engine: start.Started | None = None
        self._starts = 0
        self._started = 0.0
        self._served: float | None = None

    def after_fork_in_child(self) -> None:
        """The connection is the parent's; a child makes its own."""
        connection, stream = self._connection, self._stream
        self._begin()
        self._failing, self._appended = False, False
        if connection is not None:
            stream.detach()  # or it would be flushed and closed a second time
            os.close(connection.detach())

    # ------------------------------------------------------------------ what exporters call

    @property
    def failing(self) -> bool:
        """Whether the last request was lost."""
        return self._failing

    def deliver(self, signal: Signal, body: bytes) -> bool:
        """Make a request durable; whether it is.

        Blocks on the disk and a local socket, `DELIVER_S` at most.
        """
        deadline = time.monotonic() + (0.0 if self._failing else DELIVER_S)
        try:
            with self._mutex:
                self._make_durable(signal, body, deadline)
                self._failing = False
                self._appended = True
                return True
        except BadRequest as error:
            self._warn("refused", f"a {signal} request is refused and lost: {error}")
        except (EngramError, OSError) as error:
            self._failing = True
            self._lost += 1
            self._warn("lost", f"{self._lost} request(s) lost so far: {error}")
        return False

    def open(self) -> None:
        """Count an exporter."""
        self._exporters += 1

    def close(self) -> None:
        """The last exporter waits until what this process exported can be queried, and hangs up."""
        self._exporters -= 1
        if self._exporters > 0:
            return
        with contextlib.suppress(EngramError, OSError):
            if self._appended and not self._failing and start.wanted() != "none":
                self.flush(FLUSH_S)
        with self._mutex:
            self._hang_up()
            self._forget_engine()
        start.stop_thread(self.home)

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Wait until everything delivered can be queried; whether it can.

        A home that no engine serves keeps it in the log until one does.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            with self._mutex:
                if self._connect():
                    try:
                        left = max(0.1, deadline - time.monotonic())
                        answer = self._ask({"command": "flush", "timeout_s": left}, b"", left)
                    except OSError:
                        self._hang_up()
                    else:
                        return "error" not in answer
                elif not self._start_engine():
                    return False
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)

    # ------------------------------------------------------------------ one request

    def _make_durable(self, signal: Signal, body: bytes, deadline: float) -> None:
        while True:
            try:
                if self._connect():
                    return self._hand_over(signal, body)
                self._log_in_turn(signal, body)
                self._start_engine()
                return None
            except (Overloaded, HomeBusy, ConnectionError, TimeoutError, BlockingIOError) as error:
                pause = error.retry_after_s if isinstance(error, Overloaded) else _POLL_S
                if time.monotonic() + pause > deadline:
                    raise
                time.sleep(pause)

    def _hand_over(self, signal: Signal, body: bytes) -> None:
        try:
            answer = self._ask(
                {"command": "append", "signal": signal, "bytes": len(body)}, body, _ANSWER_S
            )
        except (OSError, ValueError):
            self._hang_up()  # it died, or hangs: what was sent may or may not be durable
            raise
        if "position" in answer:
            return
        self._hang_up()
        if "retry_after_s" in answer:
            raise Overloaded(str(answer["error"]), float(answer["retry_after_s"]))
        raise BadRequest(str(answer.get("error")))

    def _log_in_turn(self, signal: Signal, body: bytes) -> None:
        if not self.home.wal.is_dir():
            self.home.create()
        lock = HomeLock(self.home.lock)
        lock.acquire("an SDK exporter, for one append", 0.0 if self._failing else 0.2)
        try:
            wal = Wal(self.home.wal, segment_bytes=_SEGMENT_BYTES, max_bytes=_LOG_BYTES)
            try:
                wal.open(CarefulReplay(self.home.wal).last_committed(), group_commit=False)
                wal.append_now(signal, Encoding.IDENTITY, body)
            except OSError as error:
                raise StoreError(f"cannot write {self.home.wal}: {error.strerror}") from error
            finally:
                wal.close()
        finally:
            lock.release()

    # ------------------------------------------------------------------ the engine's end

    def _connect(self) -> bool:
        if self._connection is not None:
            return True
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_ANSWER_S)
            with self.home.control_address() as path:
                connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            connection.close()
            return False
        except BaseException:
            connection.close()
            raise
        self._connection, self._stream = connection, connection.makefile("rb")
        self._starts = 0
        return True

    def _ask(self, request: dict[str, Any], body: bytes, timeout_s: float) -> dict[str, Any]:
        if self._connection is None:
            raise ConnectionError("not connected")
        self._connection.settimeout(timeout_s + 1.0)
        head = json.dumps(request).encode() + b"\n"
        if len(body) < 1 << 16:
            self._connection.sendall(head + body)
        else:
            self._connection.sendall(head)
            self._connection.sendall(body)
        line = self._stream.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("the engine hung up")
        answer = json.loads(line)
        return answer if isinstance(answer, dict) else {"error": "no answer"}

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        stream, self._stream = self._stream, None
        if connection is not None:
            self._served = time.monotonic()
            with contextlib.suppress(OSError):
                stream.close()
                connection.close()

    def _start_engine(self) -> bool:
        """Start an engine for the home, not too often; whether one may be there soon."""
        if start.wanted() == "none":
            return False
        if importlib.util.find_spec("duckdb") is None:
            self._warn(
                "light",
                f"telemetry is kept in the log of {self.home.root} until a collector opens it; to "
                'query it without one: pip install "engram[server]"',
            )
            return False
        now = time.monotonic()
        if self._served is not None and now - self._served < _SUCCESSOR_S:
            return True
        if self._engine is not None and self._engine.alive():
            return True
        if now - self._started < _BACKOFF_S[min(self._starts, len(_BACKOFF_S) - 1)]:
            return True
        again = self._starts > 0 or self._served is not None
        self._starts, self._started, self._served = self._starts + 1, now, None
        self._forget_engine()
        try:
            self._engine = start.start_engine(self.home)
        except (OSError, EngramError) as error:
            self._warn("engine", f"no engine can be started, telemetry stays in the log: {error}")
            return False
        if again:
            self._warn(
                "died", f"the engine of {self.home.root} has gone (engine.log in it may say why); "
                "nothing is lost, another is started",
            )  # fmt: skip
        return True

    def _forget_engine(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.forget()

    def _warn(self, kind: str, text: str) -> None:
        now = time.monotonic()
        if now - self._warned.get(kind, -_SILENCE_S) >= _SILENCE_S:
            self._warned[kind] = now
            _log.warning("engram exporter: %s", text)


_deliveries: dict[str, Delivery] = {}


def delivery_to(home: Home) -> Delivery:
    """The one way of this process to a home."""
    return _deliveries.setdefault(str(home.root), Delivery(home))


__all__ = ["DELIVER_S", "FLUSH_S", "Delivery", "delivery_to"]
