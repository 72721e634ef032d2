"""OTLP over gRPC: bytes in, bytes out; the remote's own words decide what is tried again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from engram.exporters.signals import Signal

from .sender import Later, Never
from .settings import OtlpGrpc, target

_METHODS: Final = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}

RESPONSES: Final[dict[Signal, Any]] = {
    Signal.TRACES: ExportTraceServiceResponse,
    Signal.LOGS: ExportLogsServiceResponse,
    Signal.METRICS: ExportMetricsServiceResponse,
}

_AGAIN: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DATA_LOSS,
    }
)  # fmt: skip
"""Retryable by OTLP's specification; RESOURCE_EXHAUSTED is only with RetryInfo."""


class GrpcSender:
    """Sends to one endpoint over one channel, which connects when it is first used."""

    def __init__(self, settings: OtlpGrpc) -> None:
        self._settings = settings
        self._metadata = [(key.lower(), value) for key, value in settings.headers.items()]
        self._channel: Any = None
        self._calls: dict[Signal, Callable[..., bytes]] = {}

    def _connect(self) -> None:
        settings = self._settings
        host, port = target(settings.endpoint) or ("", 0)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        gzip = settings.compression == "gzip"
        options = {
            "compression": grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression,
            # gRPC's own waits grow to two minutes; ours are in retry_on_failure.
            "options": [("grpc.max_reconnect_backoff_ms", 5000)],
        }
        if settings.insecure:
            self._channel = grpc.insecure_channel(address, **options)
        else:
            tls = settings.tls
            credentials = grpc.ssl_channel_credentials(
                _bytes(tls.ca_file), _bytes(tls.key_file), _bytes(tls.cert_file)
            )
            self._channel = grpc.secure_channel(address, credentials, **options)
        self._calls = {
            signal: self._channel.unary_unary(method) for signal, method in _METHODS.items()
        }

    def send(self, signal: Signal, body: bytes) -> str:
        """See `Sender`."""
        if self._channel is None:
            self._connect()
        try:
            answer = self._calls[signal](
                body, timeout=self._settings.timeout.total_seconds(), metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise _meaning(error) from error
        return complaint(signal, answer)

    def close(self) -> None:
        """See `Sender`."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def _meaning(error: Any) -> Later | Never:
    code, why = error.code(), f"{error.code().name}: {error.details()}"
    wait = _retry_info(error)
    if code in _AGAIN or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and wait is not None):
        return Later(why, wait or 0.0)
    return Never(why)


def _retry_info(error: Any) -> float | None:
    """Seconds that the remote asks for; None when it says nothing."""
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        return None
    for detail in status.details if status is not None else ():
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    return None


def complaint(signal: Signal, answer: bytes) -> str:
    """What a partial success says; empty for a whole one."""
    partial = RESPONSES[signal].FromString(answer).partial_success
    fields = [value for _, value in partial.ListFields()]
    return " ".join(str(value) for value in fields)


def _bytes(path: str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
