"""The words that every part of the road shares: signals, encodings, and what an intake answers."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Signal(StrEnum):
    """One kind of OTLP request."""

    TRACES = "traces"
    LOGS = "logs"
    METRICS = "metrics"


class Encoding(StrEnum):
    """The content encoding of a body as it was sent, which is how the log keeps it.

    The log stores the place in this list: new ones go to the end.
    """

    IDENTITY = "identity"
    GZIP = "gzip"
    DEFLATE = "deflate"
    ZSTD = "zstd"


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer to an OTLP request that is on disk."""

    position: int
    """Write-ahead log position just behind the request: everything before it is durable."""

    rejected: int = 0
    """Records of the request that can never be stored (for `partial_success`)."""

    message: str = ""
    """Why they were rejected, for the sender's log."""


class Intake(Protocol):
    """Whoever makes OTLP requests durable; receivers know nothing else of the engine."""

    def admit(self, signal: Signal, body: bytes, encoding: Encoding) -> Future[Admission]:
        """Check a request and put it on disk.

        `body` is as sent (compressed or not). The future completes after `fdatasync`; the caller
        MUST NOT acknowledge before. Inflating and checking run in the calling thread.
        MUST raise, before anything is written: `BadRequest` (undecodable), `TooLarge` (over the
        limit once inflated), `Overloaded` (no room now). MAY be called from any thread.
        """
        ...


@dataclass(frozen=True, slots=True)
class Processed:
    """What processors made of an OTLP request."""

    body: bytes
    """The request, inflated. Empty when no record is left."""

    dropped: Mapping[str, int] = field(default_factory=dict)
    """Spans, log records and metric points that each processor dropped."""


class Process(Protocol):
    """What stands between the log and the decoder, when an operator wants it."""

    def __call__(self, signal: Signal, body: bytes) -> Processed:
        """Change an inflated request.

        MUST depend on the request alone: the log is replayed after a crash, and the same rows must
        come out. MAY raise: the request is then kept in quarantine.
        """
        ...
