"""Problems as RFC 9457 has them, and the one map of errors to them."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from engram.collector.access import Denied
from engram.collector.control import NotRunning
from engram.collector.output import dumps
from engram.exporters.errors import (
    BadRequest,
    EngramError,
    NotFound,
    Overloaded,
    TooLarge,
)

_LOG = logging.getLogger("engram.serve")

MEDIA_TYPE: Final = "application/problem+json"

_KINDS: Final = {
    400: "bad-request", 401: "token", 403: "forbidden", 404: "not-found", 405: "method",
    408: "slow", 412: "changed", 413: "too-large", 415: "media-type", 422: "invalid", 429: "rate",
    500: "internal", 503: "unavailable",
}  # fmt: skip
"""The last word of `type` where nothing more exact is known."""


@dataclass(eq=False)
class Problem(Exception):
    """What went wrong, in the words of RFC 9457."""

    status: int
    detail: str
    kind: str = ""
    """A word for programs: the end of `type`. Without it that of the status."""
    errors: Sequence[Mapping[str, Any]] = ()
    """Of a body or query: where each mistake is and what."""
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self, instance: str | None = None) -> bytes:
        """The JSON of it."""
        kind = self.kind or _KINDS.get(self.status, "error")
        told: dict[str, Any] = {
            "type": f"urn:engram:problem:{kind}",
            "title": _title(self.status),
            "status": self.status,
            "detail": self.detail,
        }
        if instance is not None:
            told["instance"] = instance
        if self.errors:
            told["errors"] = list(self.errors)
        return dumps(told).encode("utf-8", "replace")


def problem_of(error: BaseException) -> Problem:
    """How an error is told."""
    match error:
        case Problem():
            return error
        case Denied():
            headers: dict[str, str] = {}
            for name, value in error.headers:
                text = value.decode("latin-1")
                key = name.decode()
                headers[key] = f"{headers[key]}, {text}" if key in headers else text
            return Problem(error.status, error.detail, error.kind, headers=headers)
        case TooLarge():
            return Problem(413, str(error))
        case BadRequest():
            return Problem(400, str(error))
        case NotFound():
            return Problem(404, str(error))
        case Overloaded():
            return unavailable(str(error), error.retry_after_s)
        case NotRunning():
            return unavailable(str(error), 5.0, "collector")
        case EngramError():
            return unavailable(str(error), 5.0)
        case ModuleNotFoundError() if not (error.name or "").startswith("engram"):
            what = f'this needs the package {error.name}: pip install "engram[server]"'
            return unavailable(what, 60.0)
    _LOG.error("a request failed", exc_info=error)
    return Problem(
        500, f"failed inside ({type(error).__name__}); the log of engram serve says more"
    )


def unavailable(detail: str, retry_s: float, kind: str = "") -> Problem:
    """Not now."""
    return Problem(503, detail, kind, headers={"retry-after": str(max(1, math.ceil(retry_s)))})


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
