"""Log records of INFO and more, from every logger, with nothing changed for the app.

OpenTelemetry hangs a handler into the root logger. That misses loggers which do not propagate
(uvicorn's), sees nothing below WARNING, and takes Python's own last resort away: warnings of an app
without any handler are no longer printed. So the handler is taken out again, and called beside
whatever the app's loggers call. What the app prints is what it printed before.
"""

from __future__ import annotations

import copy
import logging
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import attach, detach

from engram.instrumentation.capture.concurrency import handling
from engram.instrumentation.capture.fastapi import serving

_BELOW_WARNING: Final = ("httpx", "httpcore", "urllib3", "uvicorn.access", "gunicorn.access")
"""Said by a span already, with its query redacted."""
_NEVER: Final = ("opentelemetry", "engram")
"""What telemetry says of itself, would make more telemetry."""
_SERVERS: Final = frozenset({"uvicorn.error", "gunicorn.error", "hypercorn.error"})
_SEEN: Final = 512

_installed = False
_wanted: dict[str, int] = {}
"""The level from which a logger's records are kept, by its name."""


class _OurLevel(int):
    """The level that we gave the root logger, in place of the WARNING of Python."""


def install() -> str:
    """Take over the handler of the logging instrumentor, if it made one."""
    global _installed
    from opentelemetry.instrumentation.logging import LoggingInstrumentor

    handler = LoggingInstrumentor._logging_handler
    if handler is None:
        return "off: no handler (OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION)"
    if _installed:
        return "on"
    _installed = True
    root = logging.getLogger()
    root.removeHandler(handler)
    if root.level == logging.WARNING:
        root.setLevel(_OurLevel(logging.INFO))
    _call_beside(handler)
    return "on"


def _call_beside(handler: logging.Handler) -> None:
    original = logging.Logger.callHandlers

    def callHandlers(self: logging.Logger, record: logging.LogRecord) -> None:
        # The class's own way comes first: a slow exporter is no reason that a line is printed late.
        if record.levelno >= logging.WARNING or not _only_ours(self):
            original(self, record)
        try:
            if (
                record.levelno >= handler.level
                and record.levelno >= wanted_from(record.name)
                and not (handling.get() and record.name == "asyncio")
            ):
                _handle(handler, record)
        except Exception:  # noqa: BLE001, S110 - a log line must not end the app
            pass

    logging.Logger.callHandlers = callHandlers  # type: ignore[method-assign]


def _handle(handler: logging.Handler, record: logging.LogRecord) -> None:
    """A server logs what a request died of when its span is no longer current: put it back."""
    server = serving.get() if record.exc_info and record.name in _SERVERS else None
    if server is None or trace.get_current_span().get_span_context().is_valid:
        handler.handle(record)
        return
    route = (server.attributes or {}).get("http.route")
    if route is not None:
        record = copy.copy(record)
        record.__dict__["http.route"] = route
    token = attach(trace.set_span_in_context(server))
    try:
        handler.handle(record)
    finally:
        detach(token)


def _only_ours(logger: logging.Logger) -> bool:
    """Whether the record would not exist, had the root logger its own level."""
    at: logging.Logger | None = logger
    while at is not None:
        if at.level:
            return type(at.level) is _OurLevel
        at = at.parent
    return False


def wanted_from(name: str) -> int:
    """The level from which records of this logger are kept."""
    known = _wanted.get(name)
    if known is None:
        if len(_wanted) >= _SEEN:
            _wanted.clear()
        known = _wanted[name] = _level_of(name)
    return known


def _level_of(name: str) -> int:
    def below(parents: Any) -> bool:
        return any(name == one or name.startswith(f"{one}.") for one in parents)

    if below(_NEVER):
        return logging.CRITICAL + 1
    return logging.WARNING if below(_BELOW_WARNING) else logging.NOTSET


__all__ = ["install", "wanted_from"]
