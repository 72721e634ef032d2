"""What a sender is told when a request is refused: the one map from our errors to both protocols.

OTLP clients retry HTTP 429, 502, 503 and 504, and gRPC `UNAVAILABLE` or `RESOURCE_EXHAUSTED` with
`RetryInfo`. So only what another attempt can mend is answered that way.
"""

from __future__ import annotations

import ctypes
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from engram.exporters.errors import BadRequest, EngramError, Overloaded, StoreError, TooLarge

logger = logging.getLogger(__name__)

_LONGEST_MESSAGE = 1000
"""gRPC puts it into a header, and headers have limits of their own."""

_STORE_RETRY_S = 5.0
"""A full disk is mended by a person, not within a second."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request's refusal in the words of both protocols."""

    http: int
    """HTTP status code."""

    code: int
    """`google.rpc.Code`, which is also gRPC's status code."""

    message: str
    """For the sender's log: what, and what to do."""

    retry_after_s: float | None = None
    """When to try again; None if it is of no use."""

    def status(self) -> Status:
        """The `google.rpc.Status`: body of the HTTP answer, trailer of the gRPC one."""
        status = Status(code=self.code, message=self.message[:_LONGEST_MESSAGE])
        if self.retry_after_s is not None:
            delay = Duration()
            delay.FromNanoseconds(int(self.retry_after_s * 1e9))
            packed = AnyMessage()
            packed.Pack(RetryInfo(retry_delay=delay))
            status.details.append(packed)
        return status

    def retry_after(self) -> bytes | None:
        """The value of HTTP's `Retry-After`, in whole seconds."""
        if self.retry_after_s is None:
            return None
        return str(max(1, math.ceil(self.retry_after_s))).encode()


NO_PROFILES = Refusal(
    404,  # what a Collector without a profiles pipeline answers; 501 is for unknown methods
    Code.UNIMPLEMENTED,
    "Engram does not store profiles; it takes traces, logs and metrics",
)


def refusal(error: BaseException) -> Refusal:
    """How to answer a request that ended in this error. Logs what an operator must see, once."""
    match error:
        case TooLarge():
            return Refusal(413, Code.RESOURCE_EXHAUSTED, str(error))
        case BadRequest():
            return Refusal(400, Code.INVALID_ARGUMENT, str(error))
        case Overloaded():
            return Refusal(503, Code.UNAVAILABLE, str(error), max(0.0, error.retry_after_s))
        case StoreError():
            _log_once(error)
            return Refusal(503, Code.UNAVAILABLE, str(error), _STORE_RETRY_S)
        case EngramError():
            _log_once(error)
            return Refusal(500, Code.INTERNAL, str(error))
        case _:
            # Ours to mend, and a client that repeats it would loop: 500 is not retryable.
            _log_once(error)
            return Refusal(
                500,
                Code.INTERNAL,
                f"internal error in Engram ({type(error).__name__}); its log has the traceback",
            )


_logged: set[tuple[str, str, int]] = set()
_MOST_CAUSES = 1000


def _log_once(error: BaseException) -> None:
    """Log an error with its traceback the first time it comes from this place."""
    place, line = "", 0
    trace = error.__traceback__
    while trace is not None:
        place, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next
    cause = (type(error).__name__, place, line)
    if cause in _logged or len(_logged) >= _MOST_CAUSES:
        return
    _logged.add(cause)
    logger.error(
        "a request failed inside Engram (logged once per cause): %s", error, exc_info=error
    )


def _find_malloc_trim() -> Callable[[int], object] | None:
    try:
        trim: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):  # not glibc
        return None
    return trim


_malloc_trim = _find_malloc_trim()


def release_memory() -> None:
    """Hand freed memory back to the system, where the C library can (glibc).

    To be called after something large was refused: its pieces were freed into malloc's arenas.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)
