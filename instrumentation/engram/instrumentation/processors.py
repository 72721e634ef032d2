"""Who it was for: user and session travel as baggage, and are copied to all spans and logs.

Only these names are copied: other baggage may be large, and is nobody's to remember.
"""

from __future__ import annotations

from typing import Any, Final

from opentelemetry import baggage
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

COPIED: Final = ("user.id", "session.id", "engram.tenant", "gen_ai.conversation.id")
"""Baggage that becomes attributes."""
_LONGEST: Final = 256


class BaggageToSpans(SpanProcessor):
    """At the start of a span, from the context of its parent."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """See the SDK."""
        carried = baggage.get_all(parent_context)
        if carried:
            attributes = span.attributes or {}
            for name, value in _copied(carried).items():
                if name not in attributes:
                    span.set_attribute(name, value)

    def on_end(self, span: ReadableSpan) -> None:
        """Nothing."""

    def shutdown(self) -> None:
        """Nothing."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is kept here."""
        return True


class BaggageToLogs(LogRecordProcessor):
    """When a record is emitted, from its own context."""

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """See the SDK."""
        record = log_record.log_record
        carried = baggage.get_all(record.context)
        if carried:
            attributes: Any = record.attributes
            missing = {
                name: value
                for name, value in _copied(carried).items()
                if not attributes or name not in attributes
            }
            if missing and attributes:
                for name, value in missing.items():
                    attributes[name] = value
            elif missing:
                record.attributes = missing

    def shutdown(self) -> None:
        """Nothing."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is kept here."""
        return True


def _copied(carried: Any) -> dict[str, str]:
    return {name: str(carried[name])[:_LONGEST] for name in COPIED if carried.get(name)}


def span_processors() -> list[SpanProcessor]:
    """Those that come before the exporters."""
    return [BaggageToSpans()]


def log_processors() -> list[LogRecordProcessor]:
    """Those that come before the exporters."""
    return [BaggageToLogs()]


__all__ = ["COPIED", "BaggageToLogs", "BaggageToSpans", "log_processors", "span_processors"]
