"""What a request of Flask or Django wants, told when its route is known and before its view runs.

Their server spans are those of OpenTelemetry's instrumentors; without one nothing is told. A body
is told where it is JSON and small: it is left to the app, whichever way that reads it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import wrapt

from engram.instrumentation.capture.intents import emit, server_span

_BODY_BYTES: Final = 65_536
_MOST: Final = 50
"""Fields of a query string."""

_installed = False


def install() -> str:
    """Wait for Flask and Django."""
    global _installed
    if not _installed:
        _installed = True
        wrapt.register_post_import_hook(_wrap_flask, "flask.app")
        wrapt.register_post_import_hook(_wrap_django, "django.core.handlers.base")
    return "on: when Flask or Django is imported"


def _wrap_flask(app: Any) -> None:
    original = app.Flask.dispatch_request

    @functools.wraps(original)
    def dispatch_request(self: Any, *args: Any, **kwargs: Any) -> Any:
        with contextlib.suppress(Exception):  # the request must go on
            _tell_flask()
        return original(self, *args, **kwargs)

    app.Flask.dispatch_request = dispatch_request


def _tell_flask() -> None:
    from flask import request  # type: ignore[import-not-found, unused-ignore]

    server = server_span()
    if server is None:
        return
    said = _caller(request.environ) | {
        "http.request.method": request.method,
        "http.route": request.url_rule.rule if request.url_rule else None,
        "url.path": request.path,
    }
    body = None
    if _small_json(request.mimetype, request.content_length):
        raw = request.get_data(cache=True)
        # Who reads the stream itself finds it unread.
        request.environ["wsgi.input"] = request.__dict__["stream"] = io.BytesIO(raw)
        body = request.get_json(silent=True, cache=True)
    arguments = {**_query(request.args.lists()), **(request.view_args or {})}
    emit("flask", server, said, arguments, body)


def _wrap_django(base: Any) -> None:
    original = base.BaseHandler.resolve_request

    @functools.wraps(original)
    def resolve_request(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        match = original(self, request, *args, **kwargs)
        with contextlib.suppress(Exception):  # the request must go on
            _tell_django(request, match)
        return match

    base.BaseHandler.resolve_request = resolve_request


def _tell_django(request: Any, match: Any) -> None:
    server = server_span()
    if server is None:
        return
    said = _caller(request.META) | {
        "http.request.method": request.method,
        "http.route": getattr(match, "route", None),
        "url.path": request.path,
    }
    body = None
    if _small_json(request.content_type, int(request.META.get("CONTENT_LENGTH") or 0)):
        body = json.loads(request.body)  # which Django keeps, also for `request.read()`
    arguments = {**_query(request.GET.lists()), **match.kwargs}
    emit("django", server, said, arguments, body)


def _caller(environ: Mapping[str, Any]) -> dict[str, Any]:
    """Who called, and where, in the words of CGI."""
    return {
        "server.address": environ.get("SERVER_NAME"),
        "client.address": environ.get("REMOTE_ADDR"),
        "user_agent.original": environ.get("HTTP_USER_AGENT"),
        "user.id": environ.get("HTTP_X_USER_ID"),
        "session.id": environ.get("HTTP_X_SESSION_ID"),
    }


def _small_json(content_type: str | None, length: int | None) -> bool:
    kind = (content_type or "").partition(";")[0].strip().lower()
    is_json = kind == "application/json" or kind.endswith("+json")
    return is_json and 0 < (length or 0) <= _BODY_BYTES


def _query(lists: Iterable[tuple[str, list[str]]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, values in lists:
        if len(found) == _MOST:
            break
        found[name] = values[0] if len(values) == 1 else values[:_MOST]
    return found


__all__ = ["install"]
