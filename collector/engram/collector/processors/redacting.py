"""The `redaction` processor as a stage: for what another processor or exporter sees behind it.

Records that only go to memory are redacted while they are decoded, which is much cheaper.
"""

from __future__ import annotations

from typing import Any

from engram.collector.ottl import rows
from engram.exporters.redact import REDACTED, RedactionConfig, Redactor
from engram.exporters.signals import Signal

from .stage import Stage


def redacting(settings: RedactionConfig) -> Stage:
    """The stage of a `redaction` processor."""
    redactor = Redactor(settings)

    def value(any_: Any) -> None:
        kind = any_.WhichOneof("value")
        if kind == "string_value":
            before = any_.string_value
            after = redactor.text(before)
            if after != before:
                any_.string_value = after
        elif kind == "array_value":
            for one in any_.array_value.values:
                value(one)
        elif kind == "kvlist_value":
            pairs(any_.kvlist_value.values)

    def pairs(found: Any) -> None:
        for pair in found:
            if redactor.key(pair.key):
                pair.value.string_value = REDACTED
            else:
                value(pair.value)

    def field(message: Any, name: str) -> None:
        before = getattr(message, name)
        if before and (after := redactor.text(before)) != before:
            setattr(message, name, after)

    def run(signal: Signal, request: Any) -> int:
        for row in rows("scope", signal, request):
            pairs(row.scope.scope.attributes)
        for row in rows("resource", signal, request):
            pairs(row.resource.resource.attributes)
        if signal is Signal.LOGS:
            for row in rows("log", signal, request):
                value(row.log.body)
                pairs(row.log.attributes)
        elif signal is Signal.METRICS:
            for row in rows("datapoint", signal, request):
                pairs(row.datapoint.attributes)
                for exemplar in getattr(row.datapoint, "exemplars", ()):
                    pairs(exemplar.filtered_attributes)
        else:
            for row in rows("span", signal, request):
                span = row.span
                field(span, "name")
                field(span.status, "message")
                pairs(span.attributes)
                for link in span.links:
                    pairs(link.attributes)
                for event in span.events:
                    field(event, "name")
                    pairs(event.attributes)
        return 0

    return run
