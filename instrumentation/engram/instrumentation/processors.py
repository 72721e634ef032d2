"""User, session and tenant of the baggage become attributes of spans and log records.

The distribution gives them to the providers it makes; `add_processors` is for providers of others.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from opentelemetry import baggage, trace
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk.trace import Span, SpanProcessor
from opentelemetry.trace import SpanKind

from engram.instrumentation.api.marks import CARRIED

COPIED: Final = (*CARRIED, "gen_ai.conversation.id")
"""Baggage that becomes attributes. Other baggage may be large, and is nobody's to remember."""
_LONGEST: Final = 256

TRANSPORT: Final = "engram.transport"
"""Attribute of a client span that carries the call of the span above it."""

_log = logging.getLogger("engram.instrumentation")


class PeopleSpanProcessor(SpanProcessor):
    """Copies `COPIED` and never any other baggage."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """A value that the span has already stays."""
        try:
            carried = _copied(parent_context)
            if carried:
                attributes = span.attributes or {}
                for name, value in carried.items():
                    if name not in attributes:
                        span.set_attribute(name, value)
        except Exception:  # noqa: BLE001 - in the app's thread
            _log.debug("engram: no user on a span", exc_info=True)


class TransportSpanProcessor(SpanProcessor):
    """Marks a client span right below another one: the HTTP request of a call that is told already.

    A single record cannot say so of itself, and a call of a model would be a memory twice.
    """

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """The parent has to be a span of this process."""
        try:
            if span.kind is SpanKind.CLIENT:
                parent = trace.get_current_span(parent_context)
                if getattr(parent, "kind", None) is SpanKind.CLIENT:
                    span.set_attribute(TRANSPORT, True)
        except Exception:  # noqa: BLE001 - in the app's thread
            _log.debug("engram: no parent of a span", exc_info=True)


class PeopleLogRecordProcessor(LogRecordProcessor):
    """Copies `COPIED` and never any other baggage."""

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """A value that the record has already stays."""
        try:
            record = log_record.log_record
            found = _copied(record.context or None)
            if found:
                attributes: Any = record.attributes
                if attributes is None:
                    record.attributes = found
                    return
                for name, value in found.items():
                    if name not in attributes:
                        attributes[name] = value
        except Exception:  # noqa: BLE001, S110 - a log of ours would come back here
            pass

    def shutdown(self) -> None:
        """Nothing is held."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is held."""
        return True


def _copied(context: Context | None) -> dict[str, str]:
    carried = baggage.get_all(context)
    return {
        name: value[:_LONGEST]
        for name in COPIED
        if carried and isinstance(value := carried.get(name), str) and value
    }


def span_processors() -> list[SpanProcessor]:
    """Those that come before the exporters, for a provider that is yet to be made."""
    return [PeopleSpanProcessor(), TransportSpanProcessor()]


def log_processors() -> list[LogRecordProcessor]:
    """Those that come before the exporters, for a provider that is yet to be made."""
    return [PeopleLogRecordProcessor()]


def add_processors(tracer_provider: Any, logger_provider: Any) -> None:
    """Add both, each once, before what exports; what is no SDK provider is left alone."""
    for provider, inner, attribute, made in (
        (tracer_provider, "_active_span_processor", "_span_processors", PeopleSpanProcessor()),
        (logger_provider, "_multi_log_record_processor", "_log_record_processors",
         PeopleLogRecordProcessor()),
    ):  # fmt: skip
        try:
            several = getattr(provider, inner, None)
            present = getattr(several, attribute, ())
            if any(isinstance(one, type(made)) for one in present):
                continue
            add = getattr(provider, "add_span_processor", None) or getattr(
                provider, "add_log_record_processor", None
            )
            if add is None:
                continue
            add(made)
            # A simple exporting processor sends on_emit's record at once: ours must be before it.
            with several._lock:  # type: ignore[union-attr]
                order = getattr(several, attribute)
                setattr(several, attribute, (made, *(one for one in order if one is not made)))
        except Exception as error:  # noqa: BLE001 - the app must start
            _log.warning("engram: no user and session on telemetry: %s", error)
