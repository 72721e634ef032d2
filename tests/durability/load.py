"""Requests whose records can be counted: each has a name, and is the same when sent again."""

from __future__ import annotations

import hashlib
import json

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from engram.exporters.signals import Signal

START_NS = 1_760_000_000_000_000_000


def pair(key: str, value: str | int) -> KeyValue:
    """An attribute."""
    if isinstance(value, int):
        return KeyValue(key=key, value=AnyValue(int_value=value))
    return KeyValue(key=key, value=AnyValue(string_value=value))


def ids(name: str) -> tuple[bytes, bytes]:
    """A trace id and a span id that belong to a name."""
    digest = hashlib.sha256(name.encode()).digest()
    return digest[:16], digest[16:24]


def spans(*names: str, padding: str = "") -> bytes:
    """One span for each name, failed HTTP requests among them."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.append(pair("service.name", "shop"))
    scope = resource.scope_spans.add()
    for i, name in enumerate(names):
        trace_id, span_id = ids(name)
        span = scope.spans.add(
            trace_id=trace_id, span_id=span_id, name=name, kind=2,
            start_time_unix_nano=START_NS + i, end_time_unix_nano=START_NS + 1000 + i,
        )  # fmt: skip
        span.attributes.extend(
            [
                pair("http.request.method", "GET"), pair("http.route", "/items/{id}"),
                pair("http.response.status_code", 500 if i % 3 == 0 else 200),
            ]
        )  # fmt: skip
        if padding:
            span.attributes.append(pair("padding", padding))
    return request.SerializeToString()


def llm_span(name: str) -> bytes:
    """The span of one LLM call; `llm_event` tells the other half of the same memory."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.append(pair("service.name", "agent"))
    trace_id, span_id = ids(f"llm {name}")
    span = resource.scope_spans.add().spans.add(
        trace_id=trace_id, span_id=span_id, name=name, kind=3,
        start_time_unix_nano=START_NS, end_time_unix_nano=START_NS + 5_000_000,
    )  # fmt: skip
    span.attributes.extend(_call(name))
    span.attributes.extend(
        [pair("gen_ai.usage.input_tokens", 12), pair("gen_ai.usage.output_tokens", 34)]
    )
    return request.SerializeToString()


def llm_event(name: str) -> bytes:
    """The details event of the same LLM call: question and answer."""
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    resource.resource.attributes.append(pair("service.name", "agent"))
    trace_id, span_id = ids(f"llm {name}")
    record = resource.scope_logs.add().log_records.add(
        trace_id=trace_id, span_id=span_id, time_unix_nano=START_NS + 5_000_000,
        event_name="gen_ai.client.inference.operation.details",
        body=AnyValue(string_value=f"event {name}"),
    )  # fmt: skip
    record.attributes.extend(_call(name))
    for key, role, text in (
        ("gen_ai.input.messages", "user", f"what is {name}?"),
        ("gen_ai.output.messages", "assistant", f"{name} is a name"),
    ):
        message = [{"role": role, "parts": [{"type": "text", "content": text}]}]
        record.attributes.append(pair(key, json.dumps(message)))
    return request.SerializeToString()


def _call(name: str) -> list[KeyValue]:
    return [
        pair("gen_ai.operation.name", "chat"), pair("gen_ai.provider.name", "openai"),
        pair("gen_ai.request.model", "gpt-test"), pair("gen_ai.response.id", f"resp-{name}"),
    ]  # fmt: skip


def logs(*names: str) -> bytes:
    """One log record for each name, of severity ERROR."""
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    resource.resource.attributes.append(pair("service.name", "shop"))
    scope = resource.scope_logs.add()
    for i, name in enumerate(names):
        scope.log_records.add(
            time_unix_nano=START_NS + i, severity_number=17, severity_text="ERROR",
            body=AnyValue(string_value=name),
        )  # fmt: skip
    return request.SerializeToString()


def metrics(*names: str) -> bytes:
    """One gauge point for each name."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.append(pair("service.name", "shop"))
    scope = resource.scope_metrics.add()
    for i, name in enumerate(names):
        metric = scope.metrics.add(name=name)
        metric.gauge.data_points.add(time_unix_nano=START_NS + i, as_int=i)
    return request.SerializeToString()


TABLE_OF = {Signal.TRACES: "spans", Signal.LOGS: "logs", Signal.METRICS: "metrics"}
NAME_SQL = {"spans": "name", "logs": "body", "metrics": "name"}
"""Where the name of a record is found again (the body of a log is JSON text)."""
