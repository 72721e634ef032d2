"""The command line's end of the control socket of `collect`."""

from __future__ import annotations

from typing import Any

from engram.exporters.ask import NotRunning, ask
from engram.exporters.home import Home
from engram.exporters.signals import Signal

__all__ = ["NotRunning", "admit", "ask"]


def admit(home: Home, signal: Signal, body: bytes, *, timeout_s: float = 60.0) -> dict[str, Any]:
    """Hand an OTLP request (protobuf, not compressed) to the running collect: what was rejected.

    Raises:
        NotRunning: nobody listens.
        BadRequest: it can never be taken.
        Overloaded: not now.
    """
    return ask(home, "append", timeout_s=timeout_s, signal=str(signal), body=body)
