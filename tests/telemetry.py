"""Small OTLP requests for tests: deterministic, one record at a time, regrouped at will."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from engram.exporters.signals import Signal

T0 = 1_790_000_000_000_000_000
"""The tests' clock starts here."""

STACK = (
    "Traceback (most recent call last):\n"
    '  File "/app/shop/orders.py", line 41, in place\n    charge(order)\n'
    '  File "/app/shop/pay.py", line 17, in charge\n    raise TimeoutError(text)\n'
    "TimeoutError: gateway did not answer within 3000 ms\n"
)


def attributes(values: dict[str, Any]) -> list[KeyValue]:
    """A dict as KeyValues."""
    pairs = []
    for key, value in values.items():
        pair = KeyValue(key=key)
        if isinstance(value, bool):
            pair.value.bool_value = value
        elif isinstance(value, int):
            pair.value.int_value = value
        elif isinstance(value, float):
            pair.value.double_value = value
        elif isinstance(value, bytes):
            pair.value.bytes_value = value
        else:
            pair.value.string_value = str(value)
        pairs.append(pair)
    return pairs


def trace_id(number: int) -> bytes:
    """A counted trace id."""
    return (0xACE << 64 | number).to_bytes(16, "big")


def span_id(number: int) -> bytes:
    """A counted span id."""
    return (0xBEE << 32 | number).to_bytes(8, "big")


def shop_traces(count: int) -> tuple[list[Any], list[Any], list[Any]]:
    """`count` requests of a shop: server, client and LLM span, an event, a log; every 3rd fails.

    A failure is reported four ways: event on the client span, event on the server span, a log event
    and a log with exc_info.
    """
    spans: list[Span] = []
    logs: list[LogRecord] = []
    metrics: list[Metric] = []
    for n in range(count):
        trace, at = trace_id(n), T0 + n * 1_000_000_000
        server, client, llm = (span_id(n * 10 + i) for i in (1, 2, 3))
        failed = n % 3 == 2
        error = {
            "exception.type": "TimeoutError",
            "exception.message": "gateway did not answer within 3000 ms",
            "exception.stacktrace": STACK,
        }
        root = Span(
            trace_id=trace, span_id=server, name="POST /orders", kind=Span.SPAN_KIND_SERVER,
            start_time_unix_nano=at, end_time_unix_nano=at + 90_000_000,
            attributes=attributes({
                "http.request.method": "POST", "http.route": "/orders", "url.path": "/orders",
                "http.response.status_code": 500 if failed else 201, "user.id": f"u{n % 4}",
                "session.id": f"s{n % 2}", "authorization": "Bearer abcdef0123456789",
            }),
        )  # fmt: skip
        out = Span(
            trace_id=trace, span_id=client, parent_span_id=server, name="POST",
            kind=Span.SPAN_KIND_CLIENT, start_time_unix_nano=at + 1_000_000,
            end_time_unix_nano=at + 31_000_000,
            attributes=attributes({
                "http.request.method": "POST", "url.full": f"https://pay.test/pay?token=s3cr3t{n}",
                "server.address": "pay.test", "http.response.status_code": 504 if failed else 200,
            }),
        )  # fmt: skip
        said = {
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "m-1", "gen_ai.response.model": "m-1",
            "gen_ai.response.id": f"resp-{n}", "gen_ai.usage.input_tokens": 11,
            "gen_ai.usage.output_tokens": 5, "gen_ai.conversation.id": f"c{n % 2}",
        }  # fmt: skip
        chat = Span(
            trace_id=trace, span_id=llm, parent_span_id=server, name="chat m-1",
            kind=Span.SPAN_KIND_CLIENT, start_time_unix_nano=at + 32_000_000,
            end_time_unix_nano=at + 80_000_000, attributes=attributes(said),
        )  # fmt: skip
        messages = {
            "gen_ai.input.messages": json.dumps(
                [{"role": "user", "parts": [{"type": "text", "content": f"Where is order {n}?"}]}]
            ),
            "gen_ai.output.messages": json.dumps(
                [{"role": "assistant", "parts": [{"type": "text", "content": f"Sent ({n})."}]}]
            ),
        }
        logs.append(
            LogRecord(
                time_unix_nano=at + 80_000_000,
                trace_id=trace,
                span_id=llm,
                event_name="gen_ai.client.inference.operation.details",
                attributes=attributes({**said, **messages}),
            )
        )
        info = LogRecord(
            time_unix_nano=at + 85_000_000, trace_id=trace, span_id=server,
            severity_number=SeverityNumber.SEVERITY_NUMBER_INFO, severity_text="INFO",
        )  # fmt: skip
        info.body.string_value = f"order {n} accepted"
        logs.append(info)
        if failed:
            for span in (root, out):
                span.status.code = Status.STATUS_CODE_ERROR
                span.status.message = "TimeoutError: gateway did not answer"
                span.events.add(
                    name="exception", time_unix_nano=at + 30_000_000, attributes=attributes(error)
                )
            for name in ("http.server.request.exception", ""):
                record = LogRecord(
                    time_unix_nano=at + 30_500_000, trace_id=trace, span_id=server,
                    severity_number=SeverityNumber.SEVERITY_NUMBER_ERROR, severity_text="ERROR",
                    event_name=name, attributes=attributes(error),
                )  # fmt: skip
                record.body.string_value = "Unhandled exception"
                logs.append(record)
        spans += (root, out, chat)
        metric = Metric(name="shop.orders", unit="1")
        metric.sum.aggregation_temporality = (
            AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        )
        metric.sum.is_monotonic = True
        metric.sum.data_points.add(
            as_int=n, start_time_unix_nano=T0, time_unix_nano=at, attributes=attributes({"k": "v"})
        )
        metrics.append(metric)
    return spans, logs, metrics


def request(signal: Signal, records: Iterable[Any]) -> bytes:
    """Records as one OTLP request of the service `shop`."""
    resource = attributes({"service.name": "shop", "service.version": "1.0"})
    if signal is Signal.TRACES:
        traces = ExportTraceServiceRequest()
        one = traces.resource_spans.add()
        one.resource.attributes.extend(resource)
        one.scope_spans.add().spans.extend(records)
        return traces.SerializeToString()
    if signal is Signal.LOGS:
        logs = ExportLogsServiceRequest()
        other = logs.resource_logs.add()
        other.resource.attributes.extend(resource)
        other.scope_logs.add().log_records.extend(records)
        return logs.SerializeToString()
    metrics = ExportMetricsServiceRequest()
    third = metrics.resource_metrics.add()
    third.resource.attributes.extend(resource)
    third.scope_metrics.add().metrics.extend(records)
    return metrics.SerializeToString()


def batches(records: list[Any], size: int) -> Iterable[list[Any]]:
    """Records in batches of `size`."""
    items = iter(records)
    while batch := list(itertools.islice(items, size)):
        yield batch
