"""The bytes of an answer, the same over HTTP and gRPC."""

from __future__ import annotations

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from engram.exporters.signals import Admission, Signal


def response(signal: Signal, admission: Admission, *, json: bool = False) -> bytes:
    """An `Export*ServiceResponse`; nothing (`{}` in JSON) when all was taken, as OTLP asks."""
    if not admission.rejected and not admission.message:
        return b"{}" if json else b""
    made = _partial(signal, admission)
    return as_json(made) if json else made.SerializeToString()


def as_json(message: Message) -> bytes:
    """A message as a JSON body."""
    return MessageToJson(message, indent=None).encode()


def _partial(signal: Signal, admission: Admission) -> Message:
    n, why = admission.rejected, admission.message
    match signal:
        case Signal.TRACES:
            spans = ExportTraceServiceResponse()
            spans.partial_success.rejected_spans = n
            spans.partial_success.error_message = why
            return spans
        case Signal.LOGS:
            logs = ExportLogsServiceResponse()
            logs.partial_success.rejected_log_records = n
            logs.partial_success.error_message = why
            return logs
        case Signal.METRICS:
            points = ExportMetricsServiceResponse()
            points.partial_success.rejected_data_points = n
            points.partial_success.error_message = why
            return points
