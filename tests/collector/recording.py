"""An intake that keeps requests in a list: what the receivers' tests listen with."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from engram.exporters.errors import BadRequest
from engram.exporters.inflate import inflate
from engram.exporters.signals import Admission, Encoding, Signal

REQUESTS: dict[Signal, Any] = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
}


class RecordingIntake:
    """Inflates and parses as the engine does, then remembers instead of writing."""

    def __init__(self, limit: int = 64 << 20, keep: bool = True) -> None:
        self.limit = limit
        self.keep = keep
        self.requests: list[tuple[Signal, bytes, Encoding]] = []
        self.error: Exception | None = None
        """Raised by the next admissions."""
        self.rejected, self.message = 0, ""
        self.gate: threading.Event | None = None
        """Admissions complete when it is set."""
        self.waiting = threading.Event()
        self._lock = threading.Lock()

    def admit(self, signal: Signal, body: bytes, encoding: Encoding) -> Future[Admission]:
        """See `Intake`."""
        if self.error is not None:
            raise self.error
        try:
            REQUESTS[signal].FromString(inflate(body, encoding, self.limit))
        except DecodeError as error:
            raise BadRequest(f"not OTLP: {error}") from None
        done: Future[Admission] = Future()
        with self._lock:
            if self.keep:
                self.requests.append((signal, body, encoding))
            admission = Admission(len(self.requests), self.rejected, self.message)
        if self.gate is None:
            done.set_result(admission)
        else:
            threading.Thread(target=self._later, args=(self.gate, done, admission)).start()
        return done

    def _later(self, gate: threading.Event, done: Future[Admission], admission: Admission) -> None:
        self.waiting.set()
        gate.wait(10)
        if not done.cancelled():
            done.set_result(admission)


def traces(spans: int = 1, attribute: str = "value") -> bytes:
    """An `ExportTraceServiceRequest` of this many spans with 17 attributes each."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for n in range(spans):
        span = scope.spans.add(
            trace_id=(n + 1).to_bytes(16, "big"),
            span_id=(n + 1).to_bytes(8, "big"),
            name=f"GET /orders/{n % 7}",
            start_time_unix_nano=1_700_000_000_000_000_000 + n,
            end_time_unix_nano=1_700_000_000_000_500_000 + n * 3,
        )
        for k in range(17):
            pair = span.attributes.add(key=f"http.request.attribute.{k}")
            pair.value.string_value = f"{attribute} {n * 31 % 977} {k}"
    return request.SerializeToString()
