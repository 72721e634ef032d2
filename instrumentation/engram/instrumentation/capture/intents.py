"""The event of what a request wants: it has the identity of the server span, so both are one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

from opentelemetry import trace
from opentelemetry._logs import SeverityNumber, get_logger
from opentelemetry.context import Context, get_current
from opentelemetry.sdk.trace import Span
from opentelemetry.trace import SpanKind

from engram.instrumentation.agents import content_captured
from engram.instrumentation.redaction import as_json

EVENT: Final = "engram.request_intent"
_BODY_CHARACTERS: Final = 4096
_CALLER: Final = ("user_agent.original", "client.address", "user.id", "session.id")

serving: ContextVar[Span | None] = ContextVar("engram.server_span", default=None)
"""The span of the request that is being served: a middleware of the app may have its own since."""


def server_span(context: Context | None = None) -> Span | None:
    """The server span of the trace that is current; None where there is none."""
    span = trace.get_current_span(context)
    server = serving.get()
    if server is not None and server.context.trace_id == span.get_span_context().trace_id:
        return server
    return span if isinstance(span, Span) and span.kind is SpanKind.SERVER else None


def emit(
    framework: str,
    server: Span,
    said: Mapping[str, Any],
    arguments: Mapping[str, Any],
    body: Any = None,
    context: Context | None = None,
) -> None:
    """Emit the intent of a request, and complete its server span with who called."""
    attributes = {name: value for name, value in said.items() if value}
    for name in _CALLER:
        if name in attributes and name not in (server.attributes or {}):
            server.set_attribute(name, attributes[name])
    if arguments:
        attributes["engram.request.arguments"] = as_json(arguments)
    if body is not None and content_captured():
        attributes["engram.request.body"] = as_json(body, _BODY_CHARACTERS)
    get_logger(f"engram.{framework}").emit(
        timestamp=time.time_ns(),
        context=trace.set_span_in_context(server, get_current() if context is None else context),
        severity_number=SeverityNumber.INFO,
        event_name=EVENT,
        attributes=attributes,
    )


__all__ = ["EVENT", "emit", "server_span", "serving"]
