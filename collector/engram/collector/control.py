"""The command line's end of the control socket of `collect`.

One JSON line asks, one JSON line answers. Standard library only: `engram status` is light.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any, Final

from engram.exporters.errors import BadRequest, EngramError, Overloaded
from engram.exporters.home import Home
from engram.exporters.signals import Signal

_PATH_MAX: Final = 100
"""A Unix socket's path fits in 108 bytes on Linux and 104 on macOS."""


class NotRunning(EngramError):
    """No `collect` serves this home."""


def ask(home: Home, command: str, *, timeout_s: float = 30.0) -> dict[str, Any]:
    """Send a command (status, flush, compact) to the running collect and return its answer.

    Raises:
        NotRunning: nobody listens.
        EngramError: it answered with an error, or not in time.
    """
    return _ask(home, {"command": command}, b"", timeout_s)


def admit(home: Home, signal: Signal, body: bytes, *, timeout_s: float = 60.0) -> dict[str, Any]:
    """Hand an OTLP request (protobuf, not compressed) to the running collect: what was rejected.

    Raises:
        NotRunning: nobody listens.
        BadRequest: it can never be taken.
        Overloaded: not now.
    """
    return _ask(home, {"command": "admit", "signal": signal, "bytes": len(body)}, body, timeout_s)


def _ask(home: Home, request: dict[str, Any], body: bytes, timeout_s: float) -> dict[str, Any]:
    command = request["command"]
    folder = None
    path = str(home.control)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            if len(os.fsencode(path)) > _PATH_MAX and os.path.isdir("/proc/self/fd"):
                folder = os.open(home.root, os.O_RDONLY | os.O_DIRECTORY)
                path = f"/proc/self/fd/{folder}/{home.control.name}"
            connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise NotRunning(
                f"no collector runs in {home.root}; start one with: engram up --home {home.root}"
            ) from error
        except OSError as error:
            raise EngramError(f"cannot reach the collector by {home.control}: {error}") from error
        finally:
            if folder is not None:
                os.close(folder)
        try:
            connection.sendall(json.dumps(request).encode() + b"\n" + body)
            with connection.makefile("rb") as stream:
                line = stream.readline()
            answer = json.loads(line) if line else None
        except (OSError, ValueError) as error:
            raise EngramError(f"the collector did not answer {command}: {error}") from error
    if not isinstance(answer, dict):
        raise EngramError(f"the collector hung up on {command}; its log says why")
    if answer.get("error") and "retry_after_s" in answer:
        raise Overloaded(str(answer["error"]), float(answer["retry_after_s"]))
    if answer.get("error") and answer.get("bad_request"):
        raise BadRequest(str(answer["error"]))
    if answer.get("error"):
        raise EngramError(f"{command}: {answer['error']}")
    return answer
