"""The bytes of a successful answer, the same over HTTP and gRPC."""

from __future__ import annotations

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from engram.exporters.signals import Admission, Signal


def response(signal: Signal, admission: Admission) -> bytes:
    """An `Export*ServiceResponse`; zero bytes when everything was taken, as OTLP asks."""
    if not admission.rejected and not admission.message:
        return b""
    n, why = admission.rejected, admission.message
    match signal:
        case Signal.TRACES:
            spans = ExportTraceServiceResponse()
            spans.partial_success.rejected_spans = n
            spans.partial_success.error_message = why
            return spans.SerializeToString()
        case Signal.LOGS:
            logs = ExportLogsServiceResponse()
            logs.partial_success.rejected_log_records = n
            logs.partial_success.error_message = why
            return logs.SerializeToString()
        case Signal.METRICS:
            points = ExportMetricsServiceResponse()
            points.partial_success.rejected_data_points = n
            points.partial_success.error_message = why
            return points.SerializeToString()
