"""What a request wants, of frameworks that have no capture of their own: told when its span begins.

OpenTelemetry's instrumentors begin a server's span when the request has arrived, and what is in its
head is said of the span then. So the intent is there also when the process dies in the work. The
captures for FastAPI, Flask and Django know more, a little later.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qs

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import SpanKind

from engram.instrumentation.capture.intents import emit

_SCOPES: Final = "opentelemetry.instrumentation."
_TOLD: Final = frozenset(_SCOPES + name for name in ("fastapi", "flask", "django"))
_SAID: Final = (
    "http.request.method", "http.route", "url.path", "server.address", "user_agent.original",
    "client.address", "user.id", "session.id",
)  # fmt: skip
_QUERY: Final = 8192
_MOST: Final = 50
"""Fields of a query string."""

_installed = False


def install() -> str:
    """Listen to the spans of servers."""
    global _installed
    provider: Any = trace.get_tracer_provider()
    if not hasattr(provider, "add_span_processor"):
        return "off: the provider is not the SDK's"
    if not _installed:
        _installed = True
        provider.add_span_processor(Arrivals())
    return "on"


class Arrivals(SpanProcessor):
    """Sees requests of a server begin."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Tell the intent, with the identity of the span."""
        if span.kind is not SpanKind.SERVER:
            return
        try:
            scope = span.instrumentation_scope
            known = span.attributes or {}
            if (
                scope is not None
                and scope.name.startswith(_SCOPES)
                and scope.name not in _TOLD
                and "http.request.method" in known
            ):
                said = {name: known.get(name) for name in _SAID}
                query = known.get("url.query")
                emit(
                    scope.name[len(_SCOPES) :],
                    span,
                    said,
                    _arguments(query),
                    context=parent_context,
                )
        except Exception:  # noqa: BLE001, S110 - the request must go on
            pass

    def on_end(self, span: ReadableSpan) -> None:
        """Nothing."""

    def shutdown(self) -> None:
        """Nothing."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is kept here."""
        return True


def _arguments(query: object) -> dict[str, Any]:
    if not isinstance(query, str) or not query:
        return {}
    found = parse_qs(query[:_QUERY], keep_blank_values=True)
    return {name: of[0] if len(of) == 1 else of for name, of in list(found.items())[:_MOST]}


__all__ = ["Arrivals", "install"]
