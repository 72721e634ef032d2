"""Real OTLP through the real decoder, rules and merging: what a test needs of the road."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from engram.exporters.memories import MEMORY_SCHEMA
from engram.exporters.merge import merge_frame
from engram.exporters.metrics import metric_frame
from engram.exporters.otlp.decode import Decoder
from engram.exporters.otlp.values import NoRedaction
from engram.exporters.rules import Kind, Rules
from engram.exporters.signals import Signal

RULES = Rules.load()
T0 = 1_790_000_000_000_000_000
TRACE = bytes(range(1, 17))
SPAN = bytes(range(1, 9))
BROWSER = {"telemetry.sdk.language": "webjs"}


def value(of: Any) -> AnyValue:
    """A Python value as an AnyValue."""
    made = AnyValue()
    match of:
        case None:
            pass
        case bool():
            made.bool_value = of
        case int():
            made.int_value = of
        case float():
            made.double_value = of
        case str():
            made.string_value = of
        case dict():
            made.kvlist_value.values.extend(pairs(of))
        case _:
            made.array_value.values.extend(value(v) for v in of)
    return made


def pairs(of: dict[str, Any]) -> list[KeyValue]:
    """A dict as attributes."""
    return [KeyValue(key=k, value=value(v)) for k, v in of.items()]


def span(
    attrs: dict[str, Any] | None = None,
    /,
    *,
    name: str = "work",
    kind: int = 1,
    error: str | None = None,
    ms: int = 15,
    events: Iterable[tuple[str, dict[str, Any]]] = (),
    **fields: Any,
) -> Span:
    """A span; `error` is its status message, `events` are names and attributes."""
    made = Span(
        **{"trace_id": TRACE, "span_id": SPAN, **fields},
        name=name,
        kind=kind,  # type: ignore[arg-type]
        start_time_unix_nano=T0,
        end_time_unix_nano=T0 + ms * 1_000_000,
        attributes=pairs(attrs or {}),
    )
    if error is not None:
        made.status.code, made.status.message = 2, error  # type: ignore[assignment]
    for event, attributes in events:
        made.events.add(name=event, time_unix_nano=T0 + 1, attributes=pairs(attributes))
    return made


def log(
    attrs: dict[str, Any] | None = None,
    /,
    *,
    event: str = "",
    body: Any = None,
    severity: int = 9,
    **fields: Any,
) -> LogRecord:
    """A log record or event."""
    made = LogRecord(
        **{"trace_id": TRACE, "span_id": SPAN, "time_unix_nano": T0 + 2, **fields},
        event_name=event,
        severity_number=severity,  # type: ignore[arg-type]
        attributes=pairs(attrs or {}),
    )
    if body is not None:
        made.body.CopyFrom(value(body))
    return made


def request(
    records: list[Any], resource: dict[str, Any] | None = None, scope: str = "lib"
) -> tuple[Signal, bytes]:
    """Records of one kind as one request of the service `shop`."""
    shared = pairs({"service.name": "shop", **(resource or {})})
    if isinstance(records[0], Span):
        traces = ExportTraceServiceRequest()
        one = traces.resource_spans.add().scope_spans.add()
        traces.resource_spans[0].resource.attributes.extend(shared)
        one.scope.name = scope
        one.spans.extend(records)
        return Signal.TRACES, traces.SerializeToString()
    if isinstance(records[0], LogRecord):
        logs = ExportLogsServiceRequest()
        two = logs.resource_logs.add().scope_logs.add()
        logs.resource_logs[0].resource.attributes.extend(shared)
        two.scope.name = scope
        two.log_records.extend(records)
        return Signal.LOGS, logs.SerializeToString()
    assert isinstance(records[0], Metric)
    metrics = ExportMetricsServiceRequest()
    three = metrics.resource_metrics.add().scope_metrics.add()
    metrics.resource_metrics[0].resource.attributes.extend(shared)
    three.scope.name = scope
    three.metrics.extend(records)
    return Signal.METRICS, metrics.SerializeToString()


def made_of(requests: Iterable[tuple[Signal, bytes]], rules: Rules = RULES) -> pl.DataFrame:
    """The merged memories of one batch of requests."""
    decoder = Decoder(NoRedaction(), rules.wanted, rules.resource_wanted)
    for signal, body in requests:
        decoder.add(signal, body)
    records = decoder.finish()
    kinds: tuple[tuple[Kind, pl.DataFrame], ...] = (
        ("span", records.span_frame),
        ("span_event", records.event_frame),
        ("log", records.log_frame),
        ("metric", metric_frame(records.metrics, rules.wanted, rules.resource_wanted)),
    )
    found = [rules.apply(frame, kind) for kind, frame in kinds if frame.height]
    assert all(dict(frame.schema) == MEMORY_SCHEMA for frame in found)
    return merge_frame(pl.concat(found)) if found else pl.DataFrame(schema=MEMORY_SCHEMA)


def remember(
    *records: Any, resource: dict[str, Any] | None = None, scope: str = "lib"
) -> list[dict[str, Any]]:
    """The merged memories of records, each in a request of its own."""
    return made_of([request([r], resource, scope) for r in records]).sort("type", "id").to_dicts()
