"""What a transport answers: sent, never again, or later."""

from __future__ import annotations

from typing import Protocol

from engram.exporters.errors import EngramError
from engram.exporters.signals import Signal


class Later(EngramError):
    """The remote cannot take it now. `after_s` is how long it asked to be left alone."""

    def __init__(self, why: str, after_s: float = 0.0) -> None:
        self.after_s = after_s
        super().__init__(why)


class Never(EngramError):
    """The remote will not take it, however often it is tried."""


class Sender(Protocol):
    """How a request goes out. Used from one thread."""

    def send(self, signal: Signal, body: bytes) -> str:
        """Send an inflated OTLP request; what the remote complained of although it took it.

        Raises:
            Later: it may be tried again.
            Never: it may not.
        """
        ...

    def close(self) -> None:
        """Let go of connections and files."""
        ...
