"""What a request wants, before the work begins: it is remembered even when the process dies in it.

FastAPI reports by itself since 0.142 (`fastapi.telemetry`); older releases are reported by
OpenTelemetry's instrumentor. Both are read at the same moment, when the body is parsed and the
first dependency is about to run, so both give the same event.
It carries the identity of the server span, whose memory it becomes: one request, one intent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import wrapt
from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import SpanKind

from engram.instrumentation.capture.intents import EVENT, emit, server_span, serving

_asgi: ContextVar[Any] = ContextVar("engram.asgi_scope", default=None)
_installed = False


def install() -> str:
    """Listen to the spans of FastAPI, or to its dependencies where it has none."""
    global _installed
    from engram.instrumentation.distro import native_fastapi

    native = native_fastapi()
    if not _installed:
        _installed = True
        provider: Any = trace.get_tracer_provider()
        if hasattr(provider, "add_span_processor"):
            provider.add_span_processor(Requests())
        if native:
            wrapt.register_post_import_hook(_wrap_app, "fastapi.applications")
        else:
            wrapt.register_post_import_hook(_wrap_older, "fastapi.routing")
    return "on: fastapi.telemetry" if native else "on: when FastAPI is imported"


class Requests(SpanProcessor):
    """Sees requests begin."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Remember the server span, and tell the intent when FastAPI has parsed the request."""
        if span.kind is SpanKind.SERVER:
            serving.set(span)
            _complete(span)
        elif span.name == "fastapi.dependencies":
            try:
                from fastapi.telemetry import get_telemetry_data

                data = get_telemetry_data(parent_context)
                if data is not None and data.request is not None:
                    tell(data.request, data.body, parent_context)
            except Exception:  # noqa: BLE001, S110 - the request must go on
                pass

    def on_end(self, span: ReadableSpan) -> None:
        """Nothing."""

    def shutdown(self) -> None:
        """Nothing."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is kept here."""
        return True


def _wrap_app(applications: Any) -> None:
    """Its own telemetry does not say who called; the instrumentor of the older ones does."""
    original: Callable[..., Any] = applications.FastAPI.__call__

    async def call(self: Any, scope: Any, receive: Any, send: Any) -> None:
        _asgi.set(scope)
        await original(self, scope, receive, send)

    applications.FastAPI.__call__ = call


def _complete(span: Span) -> None:
    scope = _asgi.get()
    if scope is None or scope.get("type") != "http":
        return
    with contextlib.suppress(Exception):  # the request must go on
        if scope.get("client"):
            span.set_attribute("client.address", scope["client"][0])
        for name, value in scope.get("headers", ()):
            if name == b"user-agent":
                span.set_attribute("user_agent.original", value.decode("latin-1")[:512])


def _wrap_older(routing: Any) -> None:
    original: Callable[..., Any] = routing.solve_dependencies

    async def solve_dependencies(*args: Any, **kwargs: Any) -> Any:
        try:
            request = kwargs.get("request")
            if request is not None and request.scope.get("type") == "http":
                body = kwargs.get("body")
                # A sentinel of FastAPI or Pydantic, where there is no body.
                missing = type(body).__name__ in ("UndefinedType", "PydanticUndefinedType")
                tell(request, None if missing else body)
        except Exception:  # noqa: BLE001, S110 - the request must go on
            pass
        return await original(*args, **kwargs)

    routing.solve_dependencies = solve_dependencies


def tell(request: Any, body: Any, context: Context | None = None) -> None:
    """Emit the intent of a request, and complete its server span."""
    context = get_current() if context is None else context
    server = server_span(context)
    if server is None:
        return
    scope, headers = request.scope, request.headers
    emit(
        "fastapi",
        server,
        {
            "http.request.method": scope.get("method", ""),
            "http.route": _route(server) or getattr(scope.get("route"), "path_format", None),
            "url.path": scope.get("path"),
            "server.address": (server.attributes or {}).get("server.address"),
            "user_agent.original": headers.get("user-agent"),
            "client.address": request.client.host if request.client else None,
            "user.id": _user(scope) or headers.get("x-user-id"),
            "session.id": headers.get("x-session-id"),
        },
        {**_query(request), **scope.get("path_params", {})},
        None if body is None else _plain(body),
        context,
    )


def _route(server: Span) -> Any:
    return (server.attributes or {}).get("http.route")


def _query(request: Any) -> dict[str, Any]:
    if not request.scope.get("query_string"):
        return {}
    found: dict[str, Any] = {}
    for name, value in request.query_params.multi_items()[:50]:
        before = found.get(name)
        found[name] = value if before is None else [*_listed(before), value]
    return found


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _plain(body: Any) -> Any:
    """A form as a mapping; a file in it by its name."""
    if hasattr(body, "multi_items"):
        return {
            name: getattr(value, "filename", None) or value for name, value in body.multi_items()
        }
    return body


def _user(scope: Any) -> str:
    """Who an authentication middleware found, as Starlette keeps it."""
    try:
        user = scope.get("user")
        if user is not None and getattr(user, "is_authenticated", False):
            return str(getattr(user, "identity", "") or user.display_name)[:256]
    except Exception:  # noqa: BLE001, S110 - a user class of the app's own
        pass
    return ""


__all__ = ["EVENT", "Requests", "install", "serving", "tell"]
