"""The control socket of a home: one JSON line asks, one JSON line answers.

| command | does | answer |
|---|---|---|
| `status` | nothing | `Engine.status()` |
| `flush` | commits what is durable now | `{"committed": position}` |
| `compact` | a round of maintenance; merged files stay for `grace_s` | `{"compacted": true}` |
| `admit` | takes `bytes` of protobuf of a `signal` behind the line | `Admission`, once durable |
| `sweep` | folds what got in twice past the recent sets | `{"removed": rows}` |

Who may connect is decided by the home's mode (0700) and the socket's own (0600).
"""

from __future__ import annotations

import contextlib
import json
import os
import socketserver
import threading
from io import BufferedIOBase
from pathlib import Path
from typing import Any, Final

from engram.exporters.engine import Engine
from engram.exporters.errors import BadRequest, EngramError, Overloaded, StoreError, TooLarge
from engram.exporters.signals import Encoding, Signal

_LINE_BYTES: Final = 64 << 10
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
        if command == "sweep":
            return {"removed": engine.sweep()}
    except (EngramError, TimeoutError, ValueError) as error:
        return {"error": str(error) or type(error).__name__}
    return {"error": f"unknown command {command!r}; known: status, flush, compact, sweep, admit"}


def admit(engine: Engine, request: dict[str, Any], stream: BufferedIOBase) -> dict[str, Any]:
    """Take a request whose body stands in the stream; the answer says whether a re-try may help."""
    try:
        signal, size = Signal(str(request.get("signal"))), int(request.get("bytes", -1))
        if size < 0:
            raise ValueError("bytes: how many follow?")
        if size > engine.settings.max_request_bytes:
            while size > 0 and (piece := stream.read(min(size, 1 << 20))):
                size -= len(piece)  # an answer to what was not read would be lost with it
            raise TooLarge(engine.settings.max_request_bytes)
        body = stream.read(size)
        if len(body) < size:
            raise ValueError(f"only {len(body)} of {size} bytes came")
        admission = engine.admit(signal, body, Encoding.IDENTITY).result(_FLUSH_S)
    except Overloaded as error:
        return {"error": str(error), "retry_after_s": error.retry_after_s}
    except (BadRequest, ValueError) as error:
        return {"error": str(error), "bad_request": True}
    except (EngramError, TimeoutError) as error:
        return {"error": str(error) or type(error).__name__, "retry_after_s": 1.0}
    return {
        "position": admission.position,
        "rejected": admission.rejected,
        "message": admission.message,
    }


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
                if request.get("command") == "admit":
                    reply = admit(self.server.engine, request, self.rfile)
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
