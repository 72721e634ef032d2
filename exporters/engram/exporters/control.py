"""The control socket of a home: one JSON line asks, one JSON line answers.

| command | does | answer |
|---|---|---|
| `status` | nothing | `Engine.status()` |
| `flush` | commits what is durable now | `{"committed": position}` |
| `compact` | a round of maintenance; merged files stay for `grace_s` | `{"compacted": true}` |
| `admit` | takes an OTLP request: `signal`, `body` in base64 | `{"position": n}`, durable |
| `sweep` | folds what got in twice past the recent sets | `{"removed": rows}` |
| `rederive` | stores a slice of rebuilt memories, the file `slice` | `{"stale": ids}` |

Who may connect is decided by the home's mode (0700) and the socket's own (0600).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socketserver
import threading
from pathlib import Path
from typing import Any, Final

from engram.exporters.engine import Engine
from engram.exporters.errors import EngramError, StoreError
from engram.exporters.signals import Encoding, Signal
from engram.exporters.slices import read_slice

_COMMANDS: Final = ("status", "flush", "compact", "admit", "sweep", "rederive")
_LINE_BYTES: Final = 8 << 20
"""An `admit` carries a request; its sender keeps it far below this."""
_PATH_BYTES: Final = 100
"""A Unix socket's path fits in 108 bytes on Linux and 104 on macOS."""
_FLUSH_S: Final = 30.0


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
        if command == "compact":
            grace = request.get("grace_s")
            engine.compact(grace_s=None if grace is None else float(grace))
            return {"compacted": True}
        if command == "admit":
            body = base64.b64decode(str(request.get("body", "")), validate=True)
            signal = Signal(str(request.get("signal")))
            taken = engine.admit(signal, body, Encoding.IDENTITY).result(_FLUSH_S)
            return {"position": taken.position, "rejected": taken.rejected}
        if command == "sweep":
            return {"removed": engine.sweep()}
        if command == "rederive":
            changes = read_slice(engine.home, str(request.get("slice")))
            return {"stale": engine.replace(changes, str(request.get("rules_version")))}
    except (EngramError, TimeoutError, ValueError) as error:
        return {"error": str(error) or type(error).__name__}
    return {"error": f"unknown command {command!r}; known: {', '.join(_COMMANDS)}"}


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    engine: Engine


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _Server)  # noqa: S101 - narrows the type
        with contextlib.suppress(OSError):
            line = self.rfile.readline(_LINE_BYTES)
            try:
                request = json.loads(line)
                if not isinstance(request, dict):
                    raise ValueError("not an object")
            except ValueError as error:
                reply: dict[str, Any] = {"error": f"one JSON object a line, please: {error}"}
            else:
                reply = answer(self.server.engine, request)
            self.wfile.write(json.dumps(reply).encode() + b"\n")


class ControlServer:
    """Serves the control socket of a home from a thread of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._path = engine.home.control
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Bind and serve. The home's lock is held by now, so an old socket file is a dead one's.

        Raises:
            StoreError: the socket cannot be made.
        """
        self._path.unlink(missing_ok=True)
        try:
            with _short(self._path) as path:
                self._server = _Server(path, _Handler)
        except OSError as error:
            raise StoreError(f"cannot make the control socket {self._path}: {error}") from error
        self._path.chmod(0o600)
        self._server.engine = self._engine
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="control", daemon=True
        )
        self._thread.start()

    def shutdown(self) -> None:
        """Stop serving. Safe twice, and safe without `start`."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
            self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def _short(path: Path) -> Any:
    """A name for `path` that fits into a socket address."""
    if len(os.fsencode(path)) <= _PATH_BYTES or not os.path.isdir("/proc/self/fd"):
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


__all__ = ["ControlServer", "answer"]
