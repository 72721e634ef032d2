"""OTLP over HTTP: real sockets, the real SDK exporter, and senders that misbehave."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import logging
import random
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
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

from engram.collector.receivers import OtlpHttpConfig, OtlpHttpReceiver, status
from engram.exporters.errors import ConfigError, Overloaded, StoreError
from engram.exporters.signals import Encoding, Signal

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PROTOBUF = "application/x-protobuf"
MIB = 1 << 20


@contextmanager
def receiving(intake: RecordingIntake, **settings: object) -> Iterator[OtlpHttpReceiver]:
    """A receiver on a free port with these settings."""
    config = OtlpHttpConfig(endpoint="127.0.0.1:0", **settings)  # type: ignore[arg-type]
    receiver = OtlpHttpReceiver(config, intake)
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.shutdown(1)


@pytest.fixture(autouse=True)
def _nothing_logged_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another test has logged is news again."""
    monkeypatch.setattr(status, "_logged", set())


@pytest.fixture
def intake() -> RecordingIntake:
    """What the receiver of this test hands requests to."""
    return RecordingIntake()


@pytest.fixture
def receiver(intake: RecordingIntake) -> Iterator[OtlpHttpReceiver]:
    """A receiver with default settings."""
    with receiving(intake) as receiver:
        yield receiver


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def message(self) -> str:
        """The text of the `google.rpc.Status` in the body."""
        assert self.headers["content-type"] == PROTOBUF
        return str(Status.FromString(self.body).message)


def post(
    receiver: OtlpHttpReceiver,
    body: bytes | Iterator[bytes],
    path: str = "/v1/traces",
    method: str = "POST",
    **headers: str,
) -> Answer:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=20)
    try:
        head = {"Content-Type": PROTOBUF}
        head |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, head)
        return Answer(connection.getresponse())
    finally:
        connection.close()


@contextmanager
def connected(receiver: OtlpHttpReceiver) -> Iterator[socket.socket]:
    """A raw connection."""
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=20) as sock:
        yield sock


def head(*lines: str, path: str = "/v1/traces") -> bytes:
    """The head of a POST with these header lines."""
    all_lines = (f"POST {path} HTTP/1.1", "Host: x", f"Content-Type: {PROTOBUF}", *lines, "", "")
    return "\r\n".join(all_lines).encode()


def read_answer(sock: socket.socket) -> Answer:
    """The next answer on a raw connection."""
    response = http.client.HTTPResponse(sock)
    response.begin()
    return Answer(response)


def until_closed(sock: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    received = b""
    while chunk := sock.recv(65536):
        received += chunk
    return received


def test_sdk_exporters_deliver(receiver: OtlpHttpReceiver, intake: RecordingIntake) -> None:
    """The OTel SDK's own exporters send all three signals, in each of their encodings."""
    for compression in Compression:
        url = f"http://127.0.0.1:{receiver.port}/v1"
        tracing = TracerProvider(shutdown_on_exit=False)
        tracing.add_span_processor(
            SimpleSpanProcessor(OTLPSpanExporter(f"{url}/traces", compression=compression))
        )
        tracing.get_tracer("t").start_span("checkout").end()
        tracing.shutdown()
        logs = LoggerProvider(shutdown_on_exit=False)
        logs.add_log_record_processor(
            SimpleLogRecordProcessor(OTLPLogExporter(f"{url}/logs", compression=compression))
        )
        logs.get_logger("t").emit(body="paid")
        logs.shutdown()
        exporter = OTLPMetricExporter(f"{url}/metrics", compression=compression)
        meters = MeterProvider([PeriodicExportingMetricReader(exporter)], shutdown_on_exit=False)
        meters.get_meter("t").create_counter("orders").add(1)
        meters.shutdown()
    assert {(signal, encoding) for signal, _, encoding in intake.requests} == {
        (signal, encoding)
        for signal in Signal
        for encoding in (Encoding.IDENTITY, Encoding.GZIP, Encoding.DEFLATE)
    }
    names = [body for signal, body, encoding in intake.requests if encoding is Encoding.IDENTITY]
    assert b"checkout" in names[0]
    assert b"paid" in names[1]
    assert b"orders" in names[2]


def test_success_is_an_empty_response_with_the_position(
    receiver: OtlpHttpReceiver, intake: RecordingIntake
) -> None:
    """Full success is 200, zero bytes of protobuf, and the position in the log."""
    for n, body in enumerate((traces(), b"", gzip.compress(traces(2))), 1):
        encoding = "gzip" if body.startswith(b"\x1f") else "identity"
        answer = post(receiver, body, Content_Encoding=encoding)
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["content-type"] == PROTOBUF
        assert answer.headers["engram-position"] == str(n)
    assert [body for _, body, _ in intake.requests][2].startswith(b"\x1f\x8b"), "kept as sent"


@pytest.mark.parametrize(
    ("signal", "kind", "field"),
    [
        (Signal.TRACES, ExportTraceServiceResponse, "rejected_spans"),
        (Signal.LOGS, ExportLogsServiceResponse, "rejected_log_records"),
        (Signal.METRICS, ExportMetricsServiceResponse, "rejected_data_points"),
    ],
)
def test_partial_success(
    receiver: OtlpHttpReceiver,
    intake: RecordingIntake,
    signal: Signal,
    kind: type[Message],
    field: str,
) -> None:
    """Records that can never be stored are counted and explained in a 200."""
    intake.rejected, intake.message = 3, "no trace id"
    answer = post(receiver, b"", f"/v1/{signal}")
    partial = kind.FromString(answer.body).partial_success  # type: ignore[attr-defined]
    assert (answer.status, getattr(partial, field), partial.error_message) == (
        200,
        3,
        "no trace id",
    )


def test_wrong_paths_and_methods(receiver: OtlpHttpReceiver) -> None:
    """Unknown paths are 404; a wrong method is 405 and told the right one."""
    for path in ("/", "/v1/traces/", "/v1/profiles", "/v1/tracesX"):
        answer = post(receiver, traces(), path)
        assert answer.status == 404
        assert "/v1/traces" in answer.message
    profiles = post(receiver, b"", "/v1development/profiles")
    assert (profiles.status, Status.FromString(profiles.body).code) == (404, 12)
    assert "does not store profiles" in profiles.message
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "PATCH"):
        answer = post(receiver, b"", method=method)
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert post(receiver, b"", "/health").headers["allow"] == "GET"


def test_health(receiver: OtlpHttpReceiver) -> None:
    """GET /health answers while the receiver listens."""
    answer = post(receiver, b"", "/health", "GET")
    assert (answer.status, answer.body) == (200, b'{"status":"ok"}')


@pytest.mark.parametrize(
    ("headers", "status", "text"),
    [
        ({"Content_Type": "application/x-protobuf; charset=utf-8"}, 200, ""),
        ({"Content_Type": "Application/X-Protobuf"}, 200, ""),
        ({"Content_Encoding": "GZIP"}, 400, "gzip"),
        ({"Content_Type": "text/plain"}, 415, "application/x-protobuf or application/json"),
        ({"Content_Type": ""}, 415, "content-type (none)"),
        ({"Content_Encoding": "zstd"}, 400, "zstd"),
        ({"Content_Encoding": "br"}, 415, "gzip, zstd, deflate or none"),
        ({"Content_Encoding": "gzip, gzip"}, 415, "gzip, gzip"),
    ],
)
def test_content_headers(
    receiver: OtlpHttpReceiver, headers: dict[str, str], status: int, text: str
) -> None:
    """Protobuf in any spelling, gzip or nothing; all else is 415 with what would do."""
    answer = post(receiver, traces(), **headers)
    assert answer.status == status
    assert text in (answer.message if status != 200 else "")


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"\0" * 1000, "identity"),
        (b"hello, this is no protobuf", "identity"),
        (traces()[:-1], "identity"),
        (gzip.compress(traces())[:-1], "gzip"),
        (gzip.compress(traces()) + b"tail", "gzip"),
        (gzip.compress(b"\0" * 100), "gzip"),
        (b"\x0a\x03\x0a\x01\x0f", "identity"),
    ],
)
def test_bad_bodies_are_400_and_the_connection_lives(
    receiver: OtlpHttpReceiver, intake: RecordingIntake, body: bytes, encoding: str
) -> None:
    """An undecodable body is 400 with a Status, nothing is stored, the next request works."""
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=20)
    headers = {"Content-Type": PROTOBUF, "Content-Encoding": encoding}
    connection.request("POST", "/v1/traces", body, headers)
    answer = Answer(connection.getresponse())
    assert (answer.status, Status.FromString(answer.body).code) == (400, 3)
    assert answer.message
    assert intake.requests == []
    connection.request("POST", "/v1/traces", traces(), {"Content-Type": PROTOBUF})
    assert connection.getresponse().status == 200
    connection.close()


def test_overload_is_retryable(receiver: OtlpHttpReceiver, intake: RecordingIntake) -> None:
    """No room now is 503 with Retry-After, in the header and in the Status."""
    intake.error = Overloaded("the log is full", retry_after_s=2.5)
    answer = post(receiver, traces())
    assert (answer.status, answer.headers["retry-after"]) == (503, "3")
    assert "the log is full" in answer.message
    retry = RetryInfo()
    assert Status.FromString(answer.body).details[0].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 2500


def test_a_broken_store_is_retryable_and_logged_once(
    receiver: OtlpHttpReceiver, intake: RecordingIntake, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk is 503: the operator can mend it. Its log line comes once."""
    intake.error = StoreError("disk full")
    with caplog.at_level(logging.ERROR):
        answers = [post(receiver, traces()) for _ in range(5)]
    assert {(answer.status, answer.headers["retry-after"]) for answer in answers} == {(503, "5")}
    assert sum("disk full" in record.message for record in caplog.records) == 1


def test_our_bugs_are_500_and_logged_once(
    receiver: OtlpHttpReceiver, intake: RecordingIntake, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected exception is 500, not retryable, and logged once with its traceback."""
    intake.error = ZeroDivisionError("secret detail")
    with caplog.at_level(logging.ERROR):
        answers = [post(receiver, traces()) for _ in range(5)]
    assert {answer.status for answer in answers} == {500}
    assert "retry-after" not in answers[0].headers
    assert "secret" not in answers[0].message
    ours = [record for record in caplog.records if record.exc_info]
    assert len(ours) == 1
    intake.error = None
    assert post(receiver, traces()).status == 200


def test_chunked_bodies(receiver: OtlpHttpReceiver, intake: RecordingIntake) -> None:
    """A chunked body, large or small, plain or gzipped, is put together again."""
    for content in (traces(5), traces(8000)):
        for encoding, body in (("identity", content), ("gzip", gzip.compress(content, 1))):
            parts = (body[at : at + 7777] for at in range(0, len(body), 7777))
            answer = post(receiver, parts, Content_Encoding=encoding)
            assert answer.status == 200
            assert intake.requests[-1][1] == body


def test_expect_100_continue(receiver: OtlpHttpReceiver, intake: RecordingIntake) -> None:
    """A sender that asks first is told to go on, or gets the refusal instead."""
    body = traces()
    with connected(receiver) as sock:
        sock.sendall(head(f"Content-Length: {len(body)}", "Expect: 100-continue"))
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert read_answer(sock).status == 200
    with connected(receiver) as sock:
        sock.sendall(head(f"Content-Length: {100 * MIB}", "Expect: 100-continue"))
        answer = read_answer(sock)
        assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert len(intake.requests) == 1


def test_an_upgrade_is_ignored(receiver: OtlpHttpReceiver, intake: RecordingIntake) -> None:
    """Java's client offers HTTP/2 with its first request: it is answered as if it had not."""
    body = traces()
    asks = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAA")
    with connected(receiver) as sock:
        for lines in (asks, ()):
            sock.sendall(head(*lines, f"Content-Length: {len(body)}") + body)
            assert read_answer(sock).status == 200
    assert [one[1] for one in intake.requests] == [body, body]


def test_keep_alive(receiver: OtlpHttpReceiver, intake: RecordingIntake) -> None:
    """Requests follow each other on one connection, pipelined too."""
    body = traces()
    one = head(f"Content-Length: {len(body)}") + body
    with connected(receiver) as sock:
        for _ in range(3):
            sock.sendall(one)
            assert read_answer(sock).status == 200
        sock.sendall(one * 3)
        received = b""
        while received.count(b"200 OK") < 3:
            received += sock.recv(10000)
    assert len(intake.requests) == 6


def test_too_large_by_content_length(receiver: OtlpHttpReceiver) -> None:
    """A declared size over the limit is 413 before any body, and names the limit."""
    with connected(receiver) as sock:
        sock.sendall(head(f"Content-Length: {64 * MIB + 1}"))
        answer = read_answer(sock)
        assert answer.status == 413
        assert str(64 * MIB) in answer.message
        assert "max_request_body_size" in answer.message


@pytest.mark.parametrize("chunked", [False, True])
def test_a_sender_that_only_writes_still_reads_413(chunked: bool, intake: RecordingIntake) -> None:
    """A client that sends all of a huge body first gets the answer, not a reset."""
    content = traces(1)
    with receiving(intake, max_request_body_size=MIB) as receiver:
        count = 20 * MIB // len(content)
        body = content * count
        answer = post(receiver, iter([body])) if chunked else post(receiver, body)
        assert answer.status == 413
        assert str(MIB) in answer.message
        assert answer.headers["connection"] == "close"
    assert intake.requests == []


def test_too_large_as_sent_though_not_inflated(intake: RecordingIntake) -> None:
    """The limit holds for what is sent, also where gzip makes it larger and no size is declared."""
    noise = random.Random(1).randbytes(90)
    body = gzip.compress(b"\x0a\x5c\x1a\x5a" + noise)
    with receiving(intake, max_request_body_size=len(body) - 1) as receiver:
        answer = post(receiver, iter([body]), Content_Encoding="gzip")
        assert answer.status == 413


def test_too_large_once_inflated(receiver: OtlpHttpReceiver, intake: RecordingIntake) -> None:
    """A small gzip body that is over the limit inflated is 413."""
    intake.limit = 100_000
    answer = post(receiver, gzip.compress(traces(512)), Content_Encoding="gzip")
    assert answer.status == 413
    assert "100000" in answer.message


def test_a_slow_body_is_408(intake: RecordingIntake) -> None:
    """A body that drips for longer than the read timeout is given up, and nothing is stored."""
    body = traces()
    with (
        receiving(intake, read_timeout=timedelta(seconds=0.5)) as receiver,
        connected(receiver) as sock,
    ):
        sock.sendall(head(f"Content-Length: {len(body)}"))
        started = time.monotonic()
        sock.settimeout(0.1)
        received = b""
        for byte in body:
            sock.sendall(bytes([byte]))
            try:
                received = sock.recv(1000)
                break
            except TimeoutError:
                continue
        assert received.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - started < 3
    assert intake.requests == []


@pytest.mark.parametrize("after", ["connect", "line", "answer"])
def test_slow_headers_are_cut(intake: RecordingIntake, after: str) -> None:
    """A connection without a whole head within the read timeout is closed, a second one too."""
    body = traces()
    with (
        receiving(intake, read_timeout=timedelta(seconds=0.5)) as receiver,
        connected(receiver) as sock,
    ):
        if after == "answer":
            sock.sendall(head(f"Content-Length: {len(body)}") + body)
            assert read_answer(sock).status == 200
        if after != "connect":
            sock.sendall(b"POST /v1/tra")
        sock.settimeout(3)
        assert until_closed(sock) == b""


def test_idle_connections_are_closed(intake: RecordingIntake) -> None:
    """After an answer a silent connection lives as long as keep_alive says."""
    with (
        receiving(intake, keep_alive=timedelta(seconds=0.5)) as receiver,
        connected(receiver) as sock,
    ):
        sock.sendall(head("Content-Length: 0"))
        assert read_answer(sock).status == 200
        sock.settimeout(3)
        assert until_closed(sock) == b""


@pytest.mark.parametrize("part", [b"X-A: " + b"a" * 999 + b"\r\n", b"a" * 1000])
def test_endless_headers_are_cut(receiver: OtlpHttpReceiver, part: bytes) -> None:
    """Headers without end are refused, not collected."""
    with connected(receiver) as sock:
        sock.sendall(head()[:-2])
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 10 * MIB:
                sent += sock.send(part * 10)
        assert sent < 10 * MIB


def test_trailers_are_ignored(receiver: OtlpHttpReceiver) -> None:
    """Trailers behind a chunked body do no harm."""
    with connected(receiver) as sock:
        sock.sendall(head("Transfer-Encoding: chunked") + b"0\r\nX-Check: 1\r\n\r\n")
        assert read_answer(sock).status == 200


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_disconnect_in_the_body_stores_nothing(
    receiver: OtlpHttpReceiver, intake: RecordingIntake, how: str
) -> None:
    """A body that stops in the middle never reaches the intake, and the receiver goes on."""
    body = traces(20) * 2  # cut between two requests' worth, both parts would be valid
    for lines in ((f"Content-Length: {len(body)}",), ("Transfer-Encoding: chunked",)):
        with connected(receiver) as sock:
            chunk = b"%x\r\n" % len(body) if "chunked" in lines[0] else b""
            sock.sendall(head(*lines) + chunk + body[: len(body) // 2])
            if how == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert post(receiver, traces()).status == 200
    assert len(intake.requests) == 1


@pytest.mark.parametrize(
    "junk",
    [b"\0\0\0\0\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
)
def test_what_is_no_http_is_refused(receiver: OtlpHttpReceiver, junk: bytes) -> None:
    """Bytes that are no HTTP get a 400 and a closed connection."""
    with connected(receiver) as sock:
        sock.sendall(junk)
        assert until_closed(sock).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))


def test_an_upgrade_offer_is_ignored(receiver: OtlpHttpReceiver) -> None:
    """A client that offers HTTP/2 with its request is answered in HTTP/1.1."""
    body = traces()
    with connected(receiver) as sock:
        sock.sendall(
            head(f"Content-Length: {len(body)}", "Connection: Upgrade", "Upgrade: h2c") + body
        )
        assert read_answer(sock).status == 200


def test_the_answer_waits_for_the_disk(receiver: OtlpHttpReceiver, intake: RecordingIntake) -> None:
    """No 200 before the admission completes; other requests are answered meanwhile."""
    intake.gate = threading.Event()
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(post(receiver, traces())))
    thread.start()
    assert intake.waiting.wait(5)
    assert post(receiver, b"", "/health", "GET").status == 200
    time.sleep(0.2)
    assert answers == []
    intake.gate.set()
    thread.join(5)
    assert answers[0].status == 200


def test_shutdown_drains(intake: RecordingIntake) -> None:
    """A request under way is answered, new connections are refused, twice does no harm."""
    intake.gate = threading.Event()
    receiver = OtlpHttpReceiver(OtlpHttpConfig(endpoint="127.0.0.1:0"), intake)
    receiver.shutdown()
    receiver.start()
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(post(receiver, traces())))
    thread.start()
    assert intake.waiting.wait(5)
    threading.Timer(0.4, intake.gate.set).start()
    receiver.shutdown(5)
    receiver.shutdown()
    thread.join(5)
    assert answers[0].status == 200
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", receiver.port), timeout=5)


def test_shutdown_cuts_off_in_time(intake: RecordingIntake) -> None:
    """A request that does not finish within the drain timeout is told to come back."""
    intake.gate = threading.Event()
    receiver = OtlpHttpReceiver(OtlpHttpConfig(endpoint="127.0.0.1:0"), intake)
    receiver.start()
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(post(receiver, traces())))
    thread.start()
    assert intake.waiting.wait(5)
    started = time.monotonic()
    with connected(receiver) as half:
        half.sendall(head("Content-Length: 100") + b"\x0a")
        receiver.shutdown(1)
    assert time.monotonic() - started < 4
    intake.gate.set()
    thread.join(5)
    assert (answers[0].status, answers[0].headers["retry-after"]) == (503, "1")


def test_the_port_is_free_again_after_shutdown(intake: RecordingIntake) -> None:
    """A receiver can be started again on the port it had."""
    receiver = OtlpHttpReceiver(OtlpHttpConfig(endpoint="127.0.0.1:0"), intake)
    receiver.start()
    port = receiver.port
    assert post(receiver, traces()).status == 200
    receiver.shutdown()
    again = OtlpHttpReceiver(OtlpHttpConfig(endpoint=f"localhost:{port}"), intake)
    again.start()
    assert post(again, traces()).status == 200
    again.shutdown()


def test_a_taken_port_says_what_to_do(receiver: OtlpHttpReceiver, intake: RecordingIntake) -> None:
    """A second receiver on a port fails to start, and names the port."""
    second = OtlpHttpReceiver(OtlpHttpConfig(endpoint=f"127.0.0.1:{receiver.port}"), intake)
    with pytest.raises(ConfigError, match=rf"port {receiver.port} is already in use; stop"):
        second.start()
    second.shutdown()


def test_buffered_bodies_are_bounded(intake: RecordingIntake) -> None:
    """Beyond max_buffered_size a body is sent away for a while, and the room comes back."""
    part = traces(1) * 3000
    settings = {"max_request_body_size": 4 * MIB, "max_buffered_size": 4 * MIB}
    with receiving(intake, **settings) as receiver, connected(receiver) as first:
        first.sendall(head(f"Content-Length: {len(part)}") + part[:-1])
        time.sleep(0.3)
        answer = post(receiver, part)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        first.sendall(part[-1:])
        assert read_answer(first).status == 200
        assert post(receiver, part).status == 200


@pytest.mark.parametrize(
    "endpoint",
    ["0.0.0.0:4318", "[::]:4318", "192.168.1.4:4318", "8.8.8.8:1", "[fe80::1]:4318", "0:4318"],
)
def test_other_machines_are_refused(endpoint: str) -> None:
    """An address that other machines could reach does not start without tokens."""
    problems = list(OtlpHttpConfig(endpoint=endpoint).problems())
    assert len(problems) == 1
    assert "refused" in problems[0]
    assert "no tokens yet" in problems[0]
    with pytest.raises(ConfigError):
        OtlpHttpReceiver(OtlpHttpConfig(endpoint=endpoint), RecordingIntake()).start()


def test_names_are_resolved_before_they_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name counts as loopback only if every address behind it is."""
    addresses = {"mixed.test": ["127.0.0.1", "10.0.0.5"], "good.test": ["127.0.0.1", "::1"]}

    def resolve(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        if host not in addresses:
            raise socket.gaierror(-2, "Name or service not known")
        return [(0, 0, 0, "", (address, 0)) for address in addresses[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert "10.0.0.5" in next(OtlpHttpConfig(endpoint="mixed.test:1").problems())
    assert list(OtlpHttpConfig(endpoint="good.test:1").problems()) == []
    assert "resolve" in next(OtlpHttpConfig(endpoint="nowhere.test:1").problems())


def test_settings_are_checked_together() -> None:
    """All problems come at once; loopback in every spelling is none."""
    for good in ("127.0.0.1:4318", "127.8.8.8:0", "[::1]:4318", "localhost:4318"):
        assert list(OtlpHttpConfig(endpoint=good).problems()) == []
    for bad in ("4318", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "::1:4318", ":4318"):
        assert list(OtlpHttpConfig(endpoint=bad).problems())
    broken = OtlpHttpConfig(
        endpoint="x", max_request_body_size=0, max_buffered_size=-1, read_timeout=timedelta()
    )
    assert len(list(broken.problems())) == 4


SERVER = """
import sys, time
from engram.collector.receivers import *
from tests.collector.recording import RecordingIntake
intake = RecordingIntake(keep=False)
http = OtlpHttpReceiver(OtlpHttpConfig(endpoint="127.0.0.1:0"), intake)
grpc = OtlpGrpcReceiver(OtlpGrpcConfig(endpoint="127.0.0.1:0"), intake)
http.start(), grpc.start()
print(http.port, grpc.port, flush=True)
sys.stdin.read()
grpc.shutdown(), http.shutdown()
"""


class ServerProcess:
    """Both receivers in a process of their own, whose memory is theirs alone."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.port, self.grpc_port = map(int, process.stdout.readline().split())

    def peak_mb(self) -> float:
        """The most memory that was ever resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024


@contextmanager
def server_process() -> Iterator[ServerProcess]:
    """Both receivers, with an intake that keeps nothing, in another process."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with process:
        try:
            yield ServerProcess(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(20)


def _bomb(size: int, first: bytes = b"", filler: bytes = b"\0") -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    packed = [packer.compress(first)]
    packed += [packer.compress(filler * (MIB // len(filler))) for _ in range(size // MIB)]
    return b"".join([*packed, packer.flush()])


def zstd_of(parts: list[bytes]) -> bytes:
    """Parts as one zstd frame."""
    packer = zstd.ZstdCompressor()
    return b"".join([*map(packer.compress, parts), packer.flush()])


def deflated(parts: list[bytes]) -> bytes:
    """Parts as one zlib stream."""
    packer = zlib.compressobj(1)
    return b"".join([*map(packer.compress, parts), packer.flush()])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_bad_input_costs_no_memory() -> None:
    """Garbage, bombs, huge and many requests never add 16 MB, and the receiver lives."""
    zeros, noise = bytes(MIB), random.Random(1).randbytes(MIB)
    valid = traces(512)
    record = traces(1)
    valid_mib = record * (MIB // len(record))
    bomb = _bomb(1024 * MIB)
    tag = b"\x0a\x80\x80\x80\x1d"  # resource_spans of 58 MiB
    attacks: list[tuple[str, list[bytes], str, bool]] = [
        ("bomb of zeros", [bomb], "gzip", False),
        ("bomb of zeros, chunked", [bomb], "gzip", True),
        ("nested bomb", [gzip.compress(bomb)], "gzip", False),
        ("bomb under the limit", [_bomb(60 * MIB)], "gzip", False),
        ("bomb behind a tag", [_bomb(60 * MIB, tag)], "gzip", False),
        ("bomb of text", [_bomb(60 * MIB, filler=b"x")], "gzip", False),
        ("bomb of good records", [_bomb(1024 * MIB, filler=valid_mib)], "gzip", False),
        ("gzip tail", [gzip.compress(valid), *[noise] * 60], "gzip", True),
    ]
    for name, part in (("zeros", zeros), ("noise", noise), ("text", b"x" * MIB)):
        for size in (60, 100):
            for chunked in (False, True):
                attacks.append((f"{size} MB of {name}", [part] * size, "identity", chunked))
        attacks.append((f"{name} as gzip", [part] * 60, "gzip", True))
    attacks.append(
        ("100 MB behind a tag", [b"\x0a\x80\x80\x80\x32", *[zeros] * 100], "identity", True)
    )
    attacks.append(("58 MB behind a tag", [tag, *[zeros] * 58], "identity", False))
    attacks.append(("100 MB of good records", [valid_mib] * 100, "identity", True))
    for name, filler in (("zeros", zeros), ("good records", valid_mib)):
        for size in (60, 512):
            if size == 512 or name == "zeros":
                attacks.append((f"{size} MB of {name}", [zstd_of([filler] * size)], "zstd", False))
                attacks.append(
                    (f"{size} MB of {name}", [deflated([filler] * size)], "deflate", True)
                )
    spans = b'{"resourceSpans":['
    for name, start, part in (
        ("zeros", b"", zeros),
        ("spaces", b"", b" " * MIB),
        ("lists", b"", b"[" * MIB),
        ("empty resources", spans, b"{}," * (MIB // 3)),
        ("numbers", spans, b"1," * (MIB // 2)),
        ("text", spans + b'{"x":"', b"x" * MIB),
        ("an unknown field", b'{"x":[', b"1," * (MIB // 2)),
    ):
        parts = [start, *[part] * 60]
        attacks.append((f"JSON: 60 MB of {name}", parts, "identity", True))
        attacks.append(
            (f"JSON: 60 MB of {name}, gzip", [gzip.compress(b"".join(parts))], "gzip", False)
        )

    with server_process() as server:

        def send(parts: list[bytes], encoding: str, chunked: bool, kind: str = PROTOBUF) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            headers = {"Content-Type": kind, "Content-Encoding": encoding}
            if not chunked:
                headers["Content-Length"] = str(sum(map(len, parts)))
            try:
                connection.request(
                    "POST", "/v1/traces", iter(parts), headers, encode_chunked=chunked
                )
                return connection.getresponse().status
            finally:
                connection.close()

        for encoding, body in (("gzip", gzip.compress(valid)), ("identity", valid)):
            for _ in range(20):
                assert send([body], encoding, False) == 200
                assert send([b'{"resourceSpans":[]}'], "identity", False, "application/json") == 200
        before = server.peak_mb()
        for name, parts, encoding, chunked in attacks:
            kind = "application/json" if name.startswith("JSON") else PROTOBUF
            assert send(parts, encoding, chunked, kind) in (400, 413), name
            assert server.peak_mb() - before < 16, name
        with grpc.insecure_channel(
            f"127.0.0.1:{server.grpc_port}", [("grpc.max_send_message_length", -1)]
        ) as channel:
            export = channel.unary_unary(
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
            )
            small = [b'{"resourceSpans": []}'] * 500
            for message in (bomb, _bomb(60 * MIB), noise * 100, *[noise * 3] * 5, *small):
                with pytest.raises(grpc.RpcError):
                    export(message, timeout=30)
            # Core has the whole message and we have a copy: see OtlpGrpcConfig.
            assert server.peak_mb() - before < 32
            export(valid, timeout=30)
        before = server.peak_mb()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        for n in range(10_000):
            body = b'{"resourceSpans": [%d]}' % n
            connection.request("POST", "/v1/traces", body, {"Content-Type": PROTOBUF})
            response = connection.getresponse()
            response.read()
            assert response.status == 400
        connection.close()
        assert server.peak_mb() - before < 16
        assert send([valid], "identity", False) == 200


def test_a_refusal_holds_no_body(receiver: OtlpHttpReceiver, intake: RecordingIntake) -> None:
    """An error object that is raised again and again does not collect the bodies it refused."""
    intake.error = StoreError("the log is broken")
    body = traces(1) * 3000
    tracemalloc.start()
    try:
        for _ in range(5):
            assert post(receiver, body).status == 503
        assert tracemalloc.get_traced_memory()[0] < 2 * len(body)
    finally:
        tracemalloc.stop()


def test_errors_of_the_future_are_answered_too(intake: RecordingIntake) -> None:
    """What the writer finds out later (a full disk) is answered like what `admit` raises."""

    class Failing(RecordingIntake):
        def admit(self, signal: Signal, body: bytes, encoding: Encoding):  # type: ignore[no-untyped-def]
            future = super().admit(signal, body, encoding)
            failed = type(future)()
            failed.set_exception(Overloaded("no room"))
            return failed

    with receiving(Failing()) as receiver:
        assert post(receiver, traces()).status == 503
        assert post(receiver, traces(512)).status == 503
