"""The check before an ack: is it OTLP, and which records can never be stored?"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

from engram.exporters.errors import BadRequest
from engram.exporters.otlp.wire import STRICT_REQUEST
from engram.exporters.signals import Signal

_NO_TRACE = bytes(16)
_NO_SPAN = bytes(8)


def good_ids(trace_id: bytes, span_id: bytes) -> bool:
    """Whether a span's ids have the right length and are not all zero."""
    return (
        len(trace_id) == 16 and len(span_id) == 8 and trace_id != _NO_TRACE and span_id != _NO_SPAN
    )


def check(signal: Signal, body: bytes) -> tuple[int, str]:
    """Parse an inflated request; count the records that must be rejected, and say why.

    Only spans can be rejected: one without a valid trace id and span id has no identity.

    Raises:
        BadRequest: the bytes are no OTLP request of this signal.
    """
    try:
        request: Any = STRICT_REQUEST[signal].FromString(body)
    except DecodeError as error:
        raise BadRequest(f"the body is not an OTLP {signal} request in protobuf: {error}") from None
    if signal is not Signal.TRACES:
        return 0, ""
    bad = sum(
        1
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
        if not good_ids(span.trace_id, span.span_id)
    )
    if not bad:
        return 0, ""
    return bad, (
        f"{bad} span(s) without a valid id: "
        "trace_id must be 16 bytes, span_id 8 bytes, neither all zero"
    )
