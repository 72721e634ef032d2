"""OTLP over gRPC: a real channel, the real SDK exporters, and senders that misbehave."""

from __future__ import annotations

import gzip
import logging
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from tests.collector.recording import RecordingIntake, traces

from engram.collector.receivers import OtlpGrpcConfig, OtlpGrpcReceiver, status
from engram.exporters.errors import ConfigError, Overloaded, StoreError
from engram.exporters.signals import Encoding, Signal

MIB = 1 << 20
METHODS = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}


@pytest.fixture(autouse=True)
def _nothing_logged_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another test has logged is news again."""
    monkeypatch.setattr(status, "_logged", set())


@pytest.fixture
def intake() -> RecordingIntake:
    """What the receiver of this test hands requests to."""
    return RecordingIntake()


@contextmanager
def receiving(intake: RecordingIntake, **settings: Any) -> Iterator[OtlpGrpcReceiver]:
    """A receiver on a free port with these settings."""
    config = OtlpGrpcConfig(endpoint="127.0.0.1:0", **settings)
    receiver = OtlpGrpcReceiver(config, intake)
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.shutdown(1)


@pytest.fixture
def receiver(intake: RecordingIntake) -> Iterator[OtlpGrpcReceiver]:
    """A receiver with default settings."""
    with receiving(intake) as receiver:
        yield receiver


def call(
    receiver: OtlpGrpcReceiver,
    body: bytes,
    method: str = METHODS[Signal.TRACES],
    compression: Any = None,
) -> tuple[bytes, dict[str, str]]:
    """The answer and its trailing metadata."""
    with grpc.insecure_channel(f"127.0.0.1:{receiver.port}") as channel:
        export = channel.unary_unary(method)
        answer, done = export.with_call(body, timeout=20, compression=compression)
        return answer, dict(done.trailing_metadata())


def refused(receiver: OtlpGrpcReceiver, body: bytes, **arguments: Any) -> Any:
    """The error that a call ends in."""
    with pytest.raises(grpc.RpcError) as caught:
        call(receiver, body, **arguments)
    return caught.value


def test_sdk_exporters_deliver(receiver: OtlpGrpcReceiver, intake: RecordingIntake) -> None:
    """The OTel SDK's own exporters send all three signals, in each of their encodings."""
    endpoint = f"http://127.0.0.1:{receiver.port}"
    for compression in grpc.Compression:
        spans = OTLPSpanExporter(endpoint, insecure=True, compression=compression)
        tracing = TracerProvider(shutdown_on_exit=False)
        tracing.add_span_processor(SimpleSpanProcessor(spans))
        tracing.get_tracer("t").start_span("checkout " * 200).end()
        tracing.shutdown()
        records = OTLPLogExporter(endpoint, insecure=True, compression=compression)
        logs = LoggerProvider(shutdown_on_exit=False)
        logs.add_log_record_processor(SimpleLogRecordProcessor(records))
        logs.get_logger("t").emit(body="paid " * 200)
        logs.shutdown()
        points = OTLPMetricExporter(endpoint, insecure=True, compression=compression)
        meters = MeterProvider([PeriodicExportingMetricReader(points)], shutdown_on_exit=False)
        meters.get_meter("t").create_counter("orders" * 30).add(1)
        meters.shutdown()
    assert {(signal, encoding) for signal, _, encoding in intake.requests} == {
        (signal, encoding)
        for signal in Signal
        for encoding in (Encoding.IDENTITY, Encoding.GZIP, Encoding.DEFLATE)
    }


def test_gzip_arrives_as_it_was_sent(receiver: OtlpGrpcReceiver, intake: RecordingIntake) -> None:
    """Core leaves a compressed message alone (per_message_decompression=0), so the log can too."""
    body = traces(50)
    call(receiver, body, compression=grpc.Compression.Gzip)
    _, sent, encoding = intake.requests[0]
    assert encoding is Encoding.GZIP
    assert len(sent) < len(body) / 2
    assert gzip.decompress(sent) == body


def test_success_is_an_empty_response_with_the_position(
    receiver: OtlpGrpcReceiver, intake: RecordingIntake
) -> None:
    """Full success is zero bytes, and the position in the log as trailing metadata."""
    for n, (signal, body) in enumerate(zip(Signal, (traces(), b"", b""), strict=True), 1):
        answer, trailers = call(receiver, body, METHODS[signal])
        assert answer == b""
        assert trailers["engram-position"] == str(n)
    assert [signal for signal, _, _ in intake.requests] == list(Signal)


@pytest.mark.parametrize(
    ("signal", "kind", "field"),
    [
        (Signal.TRACES, ExportTraceServiceResponse, "rejected_spans"),
        (Signal.LOGS, ExportLogsServiceResponse, "rejected_log_records"),
        (Signal.METRICS, ExportMetricsServiceResponse, "rejected_data_points"),
    ],
)
def test_partial_success(
    receiver: OtlpGrpcReceiver,
    intake: RecordingIntake,
    signal: Signal,
    kind: type[Message],
    field: str,
) -> None:
    """Records that can never be stored are counted and explained in an OK."""
    intake.rejected, intake.message = 3, "no trace id"
    answer, _ = call(receiver, b"", METHODS[signal])
    partial: Any = kind.FromString(answer).partial_success  # type: ignore[attr-defined]
    assert getattr(partial, field) == 3
    assert partial.error_message == "no trace id"


@pytest.mark.parametrize("body", [b"\0" * 1000, b"hello", traces()[:-1], b"\x1f\x8b" + b"x" * 50])
def test_bad_bodies_are_invalid(
    receiver: OtlpGrpcReceiver, intake: RecordingIntake, body: bytes
) -> None:
    """An undecodable message is INVALID_ARGUMENT, without RetryInfo, and nothing is stored."""
    error = refused(receiver, body)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    status: Any = rpc_status.from_call(error)
    assert (status.code, list(status.details)) == (3, [])
    assert intake.requests == []
    assert call(receiver, traces())[0] == b""


def test_too_large_once_inflated(receiver: OtlpGrpcReceiver, intake: RecordingIntake) -> None:
    """A message over the limit inflated is RESOURCE_EXHAUSTED, not retryable, naming the limit."""
    intake.limit = 100_000
    error = refused(receiver, traces(512), compression=grpc.Compression.Gzip)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "100000" in error.details()
    assert "max_recv_msg_size_mib" in error.details()
    status: Any = rpc_status.from_call(error)
    assert list(status.details) == []


def test_too_large_as_sent(intake: RecordingIntake) -> None:
    """A message over max_recv_msg_size_mib is refused by gRPC itself, which names the limit."""
    with receiving(intake, max_recv_msg_size_mib=1) as receiver:
        error = refused(receiver, traces(1) * 2000)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert str(MIB) in error.details()
        assert call(receiver, traces(1) * 500)[0] == b""
    assert len(intake.requests) == 1


def test_overload_is_retryable(receiver: OtlpGrpcReceiver, intake: RecordingIntake) -> None:
    """No room now is UNAVAILABLE with the delay in RetryInfo."""
    intake.error = Overloaded("the log is full", retry_after_s=2.5)
    error = refused(receiver, traces())
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "the log is full"
    status: Any = rpc_status.from_call(error)
    retry = RetryInfo()
    assert status.details[0].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 2500


def test_the_sdk_retries_an_overload(receiver: OtlpGrpcReceiver, intake: RecordingIntake) -> None:
    """An exporter that is told to come back does, and delivers."""
    intake.error = Overloaded("the log is full", retry_after_s=0.3)
    threading.Timer(0.2, setattr, (intake, "error", None)).start()
    exporter = OTLPSpanExporter(f"http://127.0.0.1:{receiver.port}", insecure=True)
    tracing = TracerProvider(shutdown_on_exit=False)
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.get_tracer("t").start_span("checkout").end()
    tracing.shutdown()
    assert len(intake.requests) == 1


def test_our_faults_are_logged_once(
    receiver: OtlpGrpcReceiver, intake: RecordingIntake, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken store is retryable, a bug is INTERNAL; each is logged once."""
    for error, code in (
        (StoreError("disk full"), grpc.StatusCode.UNAVAILABLE),
        (ZeroDivisionError("secret detail"), grpc.StatusCode.INTERNAL),
    ):
        caplog.clear()
        intake.error = error
        with caplog.at_level(logging.ERROR):
            answers = [refused(receiver, traces()) for _ in range(3)]
        assert {answer.code() for answer in answers} == {code}
        assert "secret" not in answers[0].details()
        assert len(caplog.records) == 1


def test_unknown_methods(receiver: OtlpGrpcReceiver) -> None:
    """Services that we do not have are UNIMPLEMENTED."""
    for method in (
        "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
        "/opentelemetry.proto.collector.trace.v1.TraceService/Other",
    ):
        error = refused(receiver, b"", method=method)
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert ("does not store profiles" in error.details()) == ("Profiles" in method)


def test_deflate_arrives_as_it_was_sent(
    receiver: OtlpGrpcReceiver, intake: RecordingIntake
) -> None:
    """Deflate is known by its first byte and kept, as gzip is."""
    body = traces(50)
    call(receiver, body, compression=grpc.Compression.Deflate)
    _, sent, encoding = intake.requests[0]
    assert encoding is Encoding.DEFLATE
    assert zlib.decompress(sent) == body


def test_the_answer_waits_for_the_disk(receiver: OtlpGrpcReceiver, intake: RecordingIntake) -> None:
    """No OK before the admission completes."""
    intake.gate = threading.Event()
    with grpc.insecure_channel(f"127.0.0.1:{receiver.port}") as channel:
        future = channel.unary_unary(METHODS[Signal.TRACES]).future(traces(), timeout=20)
        assert intake.waiting.wait(5)
        time.sleep(0.2)
        assert not future.done()
        intake.gate.set()
        assert future.result() == b""


def test_shutdown_drains(intake: RecordingIntake) -> None:
    """A request under way is answered, new ones are refused, twice does no harm."""
    intake.gate = threading.Event()
    receiver = OtlpGrpcReceiver(OtlpGrpcConfig(endpoint="127.0.0.1:0"), intake)
    receiver.shutdown()
    receiver.start()
    with grpc.insecure_channel(f"127.0.0.1:{receiver.port}") as channel:
        future = channel.unary_unary(METHODS[Signal.TRACES]).future(traces(), timeout=20)
        assert intake.waiting.wait(5)
        threading.Timer(0.3, intake.gate.set).start()
        receiver.shutdown(5)
        receiver.shutdown()
        assert future.result() == b""
    assert refused(receiver, b"").code() is grpc.StatusCode.UNAVAILABLE


def test_shutdown_cuts_off_in_time(intake: RecordingIntake) -> None:
    """A request that does not finish within the drain timeout is not acknowledged."""
    intake.gate = threading.Event()
    with (
        receiving(intake) as receiver,
        grpc.insecure_channel(f"127.0.0.1:{receiver.port}") as channel,
    ):
        future = channel.unary_unary(METHODS[Signal.TRACES]).future(traces(), timeout=20)
        assert intake.waiting.wait(5)
        started = time.monotonic()
        receiver.shutdown(0.5)
        assert time.monotonic() - started < 3
        assert future.code() is not grpc.StatusCode.OK
        intake.gate.set()


def test_a_taken_port_says_what_to_do(receiver: OtlpGrpcReceiver, intake: RecordingIntake) -> None:
    """A second receiver on a port fails to start (no SO_REUSEPORT), and names the port."""
    second = OtlpGrpcReceiver(OtlpGrpcConfig(endpoint=f"127.0.0.1:{receiver.port}"), intake)
    with pytest.raises(ConfigError, match=rf"port {receiver.port} is already in use; stop"):
        second.start()
    second.shutdown()


def test_settings_are_checked_together() -> None:
    """Loopback only, sizes that gRPC can take; all problems come at once."""
    assert list(OtlpGrpcConfig().problems()) == []
    assert list(OtlpGrpcConfig(endpoint="localhost:0").problems()) == []
    broken = OtlpGrpcConfig(
        endpoint="0.0.0.0:4317", max_recv_msg_size_mib=2048, max_concurrent_streams=0, threads=0
    )
    problems = list(broken.problems())
    assert len(problems) == 4
    assert "no tokens yet" in problems[0]
    with pytest.raises(ConfigError):
        OtlpGrpcReceiver(broken, RecordingIntake()).start()
