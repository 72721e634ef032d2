"""The control socket of a home: one JSON line asks, one JSON line answers.

| command | does | answer |
|---|---|---|
| `status` | nothing | `Engine.status()` |
| `flush` | commits what is durable now | `{"committed": position}` |
| `wait` | waits, at most `timeout_s`, until what is before `position` can be queried | as `flush` |
| `compact` | a round of maintenance; merged files stay for `grace_s` | `{"compacted": true}` |
| `sweep` | folds what got in twice past the recent sets | `{"removed": rows}` |
| `rederive` | stores a slice of rebuilt memories, the file `slice` | `{"stale": ids}` |
| `append` | logs the OTLP request of `bytes` bytes behind the line | `{"position": position}` |
| `yield` | an engine of SDK exporters leaves the home to a collector | `{"yielding": true}` |

A connection may ask again. `append` is answered when the request is durable; a problem that may
pass has `retry_after_s` in its answer; what it says of its trust counts when it is `trusted`, and
it is counted nowhere when it is about `itself`. Who
may connect is decided by the home's mode (0700), the socket's own (0600), and the peer's user where
the system tells it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from engram.exporters.engine import Engine
from engram.exporters.errors import BadRequest, EngramError, Overloaded, StoreError, TooLarge
from engram.exporters.forks import leave_to_parent
from engram.exporters.signals import Encoding, Signal
from engram.exporters.slices import read_slice

_COMMANDS: Final = ("status", "flush", "wait", "compact", "sweep", "append", "yield", "rederive")
_LINE_BYTES: Final = 64 << 10
_FLUSH_S: Final = 30.0
_APPEND_S: Final = 30.0


def answer(engine: Engine, request: dict[str, Any]) -> dict[str, Any]:
    """Do what a request asks; a problem is an answer too."""
    command = request.get("command")
    try:
        if command == "status":
            return engine.status()
        if command == "flush":
            position = engine.end
            engine.wait_committed(position, float(request.get("timeout_s", _FLUSH_S)))
            return {"committed": engine.committed, "position": position}
        if command == "wait":
            position = int(request.get("position", 0))
            if position > engine.end:
                raise ValueError(f"the log ends at {engine.end}, before {position}")
            engine.wait_committed(position, float(request.get("timeout_s", _FLUSH_S)))
            return {"committed": engine.committed, "position": position}
        if command == "compact":
            grace = request.get("grace_s")
            engine.compact(grace_s=None if grace is None else float(grace))
            return {"compacted": True}
        if command == "sweep":
            return {"removed": engine.sweep()}
        if command == "rederive":
            changes = read_slice(engine.home, str(request.get("slice")))
            return {"stale": engine.replace(changes, str(request.get("rules_version")))}
    except (EngramError, TimeoutError, ValueError) as error:
        return {"error": str(error) or type(error).__name__}
    return {"error": f"unknown command {command!r}; known: {', '.join(_COMMANDS)}"}


def _append(
    engine: Engine, signal: str, body: bytes, *, trusted: bool, itself: bool
) -> dict[str, Any]:
    try:
        admitted = engine.admit(
            Signal(signal), body, Encoding.IDENTITY, trusted=trusted, itself=itself
        ).result(_APPEND_S)
    except Overloaded as error:
        return {"error": str(error), "retry_after_s": error.retry_after_s}
    except (BadRequest, TooLarge, ValueError) as error:
        return {"error": str(error), "bad_request": True}
    except EngramError as error:
        return {"error": str(error)}
    except TimeoutError:
        return {"error": "the disk is slow", "retry_after_s": 1.0}
    return {
        "position": admitted.position,
        "rejected": admitted.rejected,
        "message": admitted.message,
    }


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128  # many workers may come at once, when a holder has gone
    engine: Engine
    give_up: Callable[[], None] | None = None

    def __init__(self, *arguments: Any) -> None:
        self.connections: set[socket.socket] = set()
        self.appenders = 0
        self.used = time.monotonic()
        self.guard = threading.Lock()
        super().__init__(*arguments)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Only our own user and root, where the system tells who it is."""
        if not hasattr(socket, "SO_PEERCRED"):
            return True
        peer = request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return struct.unpack("3i", peer)[1] in (0, os.getuid())


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        appends = False
        with self.server.guard:
            self.server.connections.add(self.connection)
        try:
            with contextlib.suppress(OSError):
                while line := self.rfile.readline(_LINE_BYTES):
                    request = _parse(line)
                    if request.get("command") == "append" and not appends:
                        appends = True
                        with self.server.guard:
                            self.server.appenders += 1
                    reply = self._reply(request)
                    self.wfile.write(json.dumps(reply).encode() + b"\n")
                    if reply.get("close"):
                        return
        finally:
            with self.server.guard:
                self.server.connections.discard(self.connection)
                self.server.appenders -= appends
                self.server.used = time.monotonic()

    def _reply(self, request: dict[str, Any]) -> dict[str, Any]:
        engine = self.server.engine
        if request.get("command") == "append":
            size = request.get("bytes")
            limit = engine.settings.max_request_bytes
            if not isinstance(size, int) or size < 0:
                return {
                    "error": "bytes must be the number of bytes that follow",
                    "bad_request": True,
                    "close": True,
                }
            if size > limit:
                while size > 0 and (piece := self.rfile.read(min(size, 1 << 20))):
                    size -= len(piece)  # an answer to what was not read would be lost with it
                return {"error": str(TooLarge(limit)), "bad_request": True}
            body = self.rfile.read(size)
            if len(body) < size:
                return {"error": "the request is not complete", "close": True}
            trusted = request.get("trusted") is True
            itself = request.get("itself") is True
            return _append(engine, str(request.get("signal")), body, trusted=trusted, itself=itself)
        if request.get("command") == "yield" and self.server.give_up is not None:
            self.server.give_up()
            return {"yielding": True}
        return request if "error" in request else answer(engine, request)


def _parse(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
        if not isinstance(request, dict):
            raise ValueError("not an object")
    except ValueError as error:
        return {"error": f"one JSON object a line, please: {error}"}
    return request


class ControlServer:
    """Serves the control socket of a home from a thread of its own."""

    def __init__(self, engine: Engine, *, give_up: Callable[[], None] | None = None) -> None:
        self._engine = engine
        self._give_up = give_up
        self._path = engine.home.control
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        leave_to_parent(self)

    @property
    def idle_s(self) -> float:
        """How long no connection has been open that appended something; 0 while one is."""
        server = self._server
        if server is None:
            return 0.0
        with server.guard:
            return 0.0 if server.appenders else time.monotonic() - server.used

    def start(self) -> None:
        """Bind and serve. The home's lock is held by now, so an old socket file is a dead one's.

        Raises:
            StoreError: the socket cannot be made.
        """
        self._path.unlink(missing_ok=True)
        try:
            with self._engine.home.control_address() as path:
                self._server = _Server(path, _Handler)
        except OSError as error:
            raise StoreError(f"cannot make the control socket {self._path}: {error}") from error
        self._path.chmod(0o600)
        self._server.engine = self._engine
        self._server.give_up = self._give_up
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="control", daemon=True
        )
        self._thread.start()

    def shutdown(self) -> None:
        """Stop serving, and hang up on whoever is connected. Safe twice, and without `start`."""
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        self._path.unlink(missing_ok=True)
        with server.guard:
            for connection in server.connections:
                with contextlib.suppress(OSError):  # it just hung up by itself
                    connection.shutdown(socket.SHUT_RDWR)

    def after_fork_in_child(self) -> None:
        """Close the copies: nobody answers in a child."""
        server, self._server = self._server, None
        if server is not None:
            server.socket.close()
            for connection in server.connections:
                os.close(connection.detach())


__all__ = ["ControlServer", "answer"]
