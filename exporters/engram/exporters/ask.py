"""The asking end of the control socket of `collect`.

One JSON line asks, one JSON line answers. Standard library only: `engram status` is light.
"""

from __future__ import annotations

import json
import socket
from typing import Any

from engram.exporters.errors import BadRequest, EngramError, Overloaded
from engram.exporters.home import Home


class NotRunning(EngramError):
    """No `collect` serves this home."""


def ask(
    home: Home, command: str, *, timeout_s: float = 30.0, body: bytes = b"", **more: Any
) -> dict[str, Any]:
    """Send a command (see `engram.exporters.control`) to the running collect; its answer.

    A `body` follows the line, which says how many `bytes` it has.

    Raises:
        NotRunning: nobody listens.
        Overloaded, BadRequest: a request was not taken: not now, or never.
        EngramError: it answered with an error, or not in time.
    """
    if body:
        more["bytes"] = len(body)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            with home.control_address() as path:
                connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise NotRunning(
                f"no collector runs in {home.root}; start one with: engram up --home {home.root}"
            ) from error
        except OSError as error:
            raise EngramError(f"cannot reach the collector by {home.control}: {error}") from error
        try:
            line = json.dumps({"command": command, **more}).encode() + b"\n"
            connection.sendall(line + body)
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
        raise BadRequest(f"{command}: {answer['error']}")
    if answer.get("error"):
        raise EngramError(f"{command}: {answer['error']}")
    return answer
