"""The exporters that send on: at least once, behind the ack, in nobody's way."""

from __future__ import annotations

import contextlib
import gzip
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from tests.durability import load

from engram.collector.config import parse
from engram.collector.exporters.build import forwarders
from engram.collector.exporters.file import LineSender
from engram.collector.exporters.forward import Forwarder, Route
from engram.collector.exporters.otlp_grpc import RESPONSES, GrpcSender
from engram.collector.exporters.otlp_http import HttpSender
from engram.collector.exporters.otlp_json import dumps
from engram.collector.exporters.sender import Later, Never
from engram.collector.exporters.settings import (
    FileSender,
    OtlpGrpc,
    OtlpHttp,
    Retry,
    Rotation,
)
from engram.collector.health import HealthServer
from engram.collector.registry import HealthCheck
from engram.collector.roles.collect import engine_settings
from engram.exporters.engine import Engine
from engram.exporters.errors import ConfigError
from engram.exporters.follow import Follower
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_read_only
from engram.exporters.otlp.wire import OFFICIAL_REQUEST
from engram.exporters.signals import Encoding, Processed, Signal
from engram.exporters.wal import Wal

QUICK = Retry(initial_interval=timedelta(milliseconds=10), max_interval=timedelta(milliseconds=40))
ALL = frozenset(Signal)


def eventually(holds: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)
    return found


def names(body: bytes) -> list[str]:
    """The names of the spans of a request."""
    request = OFFICIAL_REQUEST[Signal.TRACES].FromString(body)
    return [
        span.name
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


# -- the loop --------------------------------------------------------------------------------------


@dataclass
class Remote:
    """A remote that answers as a test says, and remembers what it took."""

    answer: Callable[[bytes], Exception | None] = lambda body: None
    taken: list[bytes] = field(default_factory=list)
    tries: int = 0

    def send(self, signal: Signal, body: bytes) -> str:
        """See `Sender`."""
        self.tries += 1
        error = self.answer(body)
        if error is not None:
            raise error
        self.taken.append(body)
        return ""

    def close(self) -> None:
        """See `Sender`."""

    @property
    def names(self) -> list[str]:
        """What was taken, in order."""
        return [name for body in self.taken for name in names(body)]


@dataclass
class Road:
    """A log with one exporter behind it."""

    wal: Wal
    forwarder: Forwarder
    set_aside: list[str]

    def put(self, *spans: str) -> None:
        """Acknowledged requests, each with one span."""
        waiting = [
            self.wal.append(Signal.TRACES, Encoding.IDENTITY, load.spans(name)) for name in spans
        ]
        for future in waiting:
            future.result(10)

    def idle(self) -> None:
        """Wait until the exporter has nothing left."""
        eventually(lambda: self.forwarder.status()["behind_bytes"] == 0, "everything is sent")


@contextlib.contextmanager
def road(
    folder: Path, remote: Remote, *, retry: Retry = QUICK, route: Route = None, **log: Any
) -> Iterator[Road]:
    """A running log and exporter; what waits is sent when the test ends."""
    folder.mkdir(exist_ok=True)
    wal = Wal(folder, **log)
    follower = Follower(wal, folder / "x.position", ALL)
    aside: list[str] = []
    forwarder = Forwarder(
        "x",
        follower,
        remote,
        {Signal.TRACES: [route]},
        retry=retry,
        max_request_bytes=1 << 20,
        quarantine=lambda entry, why: aside.append(why),
    )
    wal.open()
    follower.open()
    forwarder.start()
    try:
        yield Road(wal, forwarder, aside)
    finally:
        forwarder.shutdown()
        wal.close()


def test_everything_is_sent_in_order_and_joined(tmp_path: Path) -> None:
    """Small requests are joined to fewer; the order is the log's."""
    remote = Remote()
    wanted = [f"s{number}" for number in range(300)]
    with road(tmp_path / "w", remote) as one:
        one.put(*wanted)
        one.idle()
    assert remote.names == wanted
    assert remote.tries < 300


def test_a_later_is_tried_again_and_a_restart_goes_on(tmp_path: Path) -> None:
    """While the remote is away nothing is lost, also not over a restart; then each goes out."""
    away = Remote(lambda body: Later("away"))
    with road(tmp_path / "w", away) as one:
        one.put("a", "b")
        eventually(lambda: away.tries >= 3, "it is tried again")
        assert one.forwarder.status()["trouble"] == "away"
        before = away.tries
    assert away.tries <= before + 3  # a stopping exporter does not hammer a remote
    here = Remote()
    with road(tmp_path / "w", here) as one:
        one.put("c")
        one.idle()
        assert one.forwarder.status()["trouble"] is None
    assert here.names == ["a", "b", "c"]
    again = Remote()
    with road(tmp_path / "w", again) as one:
        one.put("d")
        one.idle()
    assert again.names == ["d"]


def test_one_bad_request_does_not_take_others_with_it(tmp_path: Path) -> None:
    """What the remote refuses for good is found among those it was joined with, and counted."""
    gate = threading.Event()

    def answer(body: bytes) -> Exception | None:
        if not gate.is_set():
            return Later("not yet")
        return Never("bad") if "bad" in names(body) else None

    remote = Remote(answer)
    with road(tmp_path / "w", remote) as one:
        one.put("a", "bad", "b")
        gate.set()
        one.idle()
        assert one.forwarder.counters.rejected == 1
        assert one.forwarder.counters.sent == 2
    assert remote.names == ["a", "b"]


def test_retry_after_is_honoured(tmp_path: Path) -> None:
    """A remote that asks to be left alone is left alone."""
    remote = Remote(lambda body: Later("full", 600.0))
    with road(tmp_path / "w", remote) as one:
        one.put("a")
        eventually(lambda: remote.tries == 1, "it is tried")
        time.sleep(0.3)  # several of its own waits
        assert remote.tries == 1
        assert one.forwarder.status()["behind_bytes"] > 0


@pytest.mark.parametrize(
    "retry",
    [Retry(enabled=False), Retry(initial_interval=QUICK.initial_interval,
                                 max_elapsed_time=timedelta(milliseconds=1))],
)  # fmt: skip
def test_bounded_retries_give_up_and_go_on(tmp_path: Path, retry: Retry) -> None:
    """With `enabled: false` or `max_elapsed_time` a request is given up, and counted."""
    remote = Remote(lambda body: Later("away") if "a" in names(body) else None)
    with road(tmp_path / "w", remote, retry=retry) as one:
        one.put("a")
        eventually(lambda: one.forwarder.counters.rejected == 1, "it is given up")
        one.put("b")
        one.idle()
    assert remote.names == ["b"]


def test_a_remote_away_for_long_loses_the_oldest_and_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log stays within its limit; senders and the lake go on; the loss is said."""
    gate = threading.Event()
    remote = Remote(lambda body: None if gate.is_set() else Later("away"))
    with road(tmp_path / "w", remote, segment_bytes=2000, max_bytes=20_000) as one:
        wanted = [f"span-number-{number:04d}" for number in range(400)]
        for name in wanted:
            one.put(name)  # is never refused, for the lake keeps up:
            one.wal.release(one.wal.end)
        size = sum(path.stat().st_size for path in (tmp_path / "w").glob("*.wal"))
        assert size < 20_000 + 2 * 2000
        lost = one.forwarder.status()["lost"]
        gate.set()
        one.idle()
        eventually(lambda: "given up unsent" in caplog.text, "the loss is said")
    assert 0 < lost < 400
    assert remote.names == wanted[lost:]


def test_a_processor_that_fails_sets_the_request_aside(tmp_path: Path) -> None:
    """It is neither sent nor lost, and the next goes on."""

    def route(signal: Signal, body: bytes) -> Any:
        if "bad" in names(body):
            raise ValueError("cannot")
        return Processed(body, {"filter": 1})

    remote = Remote()
    with road(tmp_path / "w", remote, route=route) as one:
        one.put("bad", "good")
        one.idle()
    assert remote.names == ["good"]
    assert one.set_aside == ["exporter x: cannot"]
    assert one.forwarder.status()["dropped"] == {"filter": 1}


def test_a_damaged_position_sends_again_rather_than_not(tmp_path: Path) -> None:
    """After a power cut in the middle of a position everything the log has goes out again."""
    with road(tmp_path / "w", Remote()) as one:
        one.put("a")
        one.idle()
    (tmp_path / "w" / "x.position").write_bytes(b"0000")
    remote = Remote()
    with road(tmp_path / "w", remote) as one:
        one.idle()
    assert remote.names == ["a"]


def test_only_what_comes_after_it_was_configured_is_sent(tmp_path: Path) -> None:
    """A new exporter begins with the next request."""
    folder = tmp_path / "w"
    folder.mkdir()
    wal = Wal(folder)
    wal.open()
    wal.append(Signal.TRACES, Encoding.IDENTITY, load.spans("old")).result(10)
    wal.close()
    remote = Remote()
    with road(folder, remote) as one:
        one.put("new")
        one.idle()
    assert remote.names == ["new"]


# -- HTTP ------------------------------------------------------------------------------------------


@dataclass
class Web:
    """A web server that answers what a test says."""

    url: str
    answers: list[tuple[int, dict[str, str], bytes]]
    asked: list[tuple[str, dict[str, str], bytes]]


@contextlib.contextmanager
def web() -> Iterator[Web]:
    """A server on a free port; without an answer left it says 200."""
    answers: list[tuple[int, dict[str, str], bytes]] = []
    asked: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found = {key.lower(): value for key, value in self.headers.items()}
            asked.append((self.path, found, body))
            code, headers, text = answers.pop(0) if answers else (200, {}, b"")
            self.send_response(code)
            for key, value in {**headers, "content-length": str(len(text))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield Web(f"http://127.0.0.1:{server.server_address[1]}", answers, asked)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def http_sender(**settings: Any) -> Iterator[HttpSender]:
    """A sender that is closed again."""
    sender = HttpSender(OtlpHttp(**settings))
    try:
        yield sender
    finally:
        sender.close()


def test_http_sends_protobuf_and_json() -> None:
    """Path by signal, headers, gzip; the same request in both encodings."""
    body = load.spans("a")
    with web() as server:
        with http_sender(endpoint=server.url + "/in/", headers={"x-key": "k"}) as sender:
            assert sender.send(Signal.TRACES, body) == ""
        with http_sender(
            endpoint=server.url, logs_endpoint=server.url + "/own", compression="none",
            encoding="json",
        ) as sender:  # fmt: skip
            sender.send(Signal.LOGS, load.logs("l"))
    (path, headers, sent), (own, json_headers, text) = server.asked
    assert (path, own) == ("/in/v1/traces", "/own")
    assert (headers["content-encoding"], headers["x-key"]) == ("gzip", "k")
    assert headers["content-type"] == "application/x-protobuf"
    assert gzip.decompress(sent) == body
    assert (json_headers["content-type"], json_headers.get("content-encoding")) == (
        "application/json", None,
    )  # fmt: skip
    assert json.loads(text)["resourceLogs"]


def test_environment_gives_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `.netrc` and a proxy of this machine's user do not change what goes to this machine."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with (
        web() as server,
        http_sender(endpoint=server.url, headers={"authorization": "Bearer t"}) as sender,
    ):
        sender.send(Signal.TRACES, b"")
    assert server.asked[0][1]["authorization"] == "Bearer t"


def test_http_answers_have_their_meaning() -> None:
    """429, 502, 503, 504 and a broken connection may be tried again; others may not."""
    with web() as server:
        for code in (429, 502, 503, 504):
            server.answers.append((code, {"Retry-After": "7"}, b"busy"))
        soon = formatdate(time.time() + 90, usegmt=True)
        server.answers.append((503, {"Retry-After": soon}, b""))
        server.answers.append((503, {"Retry-After": "soon"}, b""))
        status = status_pb2.Status(message="what is that").SerializeToString()
        server.answers.append((400, {"Content-Type": "application/x-protobuf"}, status))
        server.answers.append((301, {"Location": "http://elsewhere/"}, b""))
        with http_sender(endpoint=server.url) as sender:
            waits = []
            for _ in range(6):
                with pytest.raises(Later) as later:
                    sender.send(Signal.TRACES, b"")
                waits.append(later.value.after_s)
            assert waits[:4] == [7.0] * 4
            assert 80 < waits[4] <= 90
            assert waits[5] == 0
            with pytest.raises(Never, match="HTTP 400 what is that"):
                sender.send(Signal.TRACES, b"")
            with pytest.raises(Never, match="HTTP 301"):
                sender.send(Signal.TRACES, b"")
            response = RESPONSES[Signal.TRACES]()
            response.partial_success.rejected_spans = 3
            response.partial_success.error_message = "too old"
            server.answers.append((200, {}, response.SerializeToString()))
            assert sender.send(Signal.TRACES, b"") == "3 too old"
    with http_sender(endpoint=server.url) as sender, pytest.raises(Later):
        sender.send(Signal.TRACES, b"")


# -- gRPC ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def grpc_server(answer: Callable[[bytes, Any], bytes]) -> Iterator[int]:
    """A gRPC server of the trace service; its port."""
    handler = grpc.method_handlers_generic_handler(
        "opentelemetry.proto.collector.trace.v1.TraceService",
        {"Export": grpc.unary_unary_rpc_method_handler(answer)},
    )
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


def test_grpc_sends_and_understands() -> None:
    """Metadata and bytes arrive; RESOURCE_EXHAUSTED is retryable only with RetryInfo."""
    asked: list[tuple[bytes, dict[str, str]]] = []
    words: list[Any] = []

    def answer(body: bytes, context: Any) -> bytes:
        asked.append((body, dict(context.invocation_metadata())))
        word = words.pop(0) if words else None
        if isinstance(word, grpc.StatusCode):
            context.abort(word, "said so")
        if word is not None:
            context.abort_with_status(rpc_status.to_status(word))
        return b""

    packed = any_pb2.Any()
    packed.Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=3, nanos=500_000_000)))
    patient = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message="full", details=[packed])
    with grpc_server(answer) as port:
        sender = GrpcSender(OtlpGrpc(endpoint=f"http://127.0.0.1:{port}", headers={"X-Key": "k"}))
        assert sender.send(Signal.TRACES, load.spans("a")) == ""
        assert asked[0][0] == load.spans("a")
        assert asked[0][1]["x-key"] == "k"
        words += [grpc.StatusCode.UNAVAILABLE, patient]
        with pytest.raises(Later, match="UNAVAILABLE: said so"):
            sender.send(Signal.TRACES, b"")
        with pytest.raises(Later) as later:
            sender.send(Signal.TRACES, b"")
        assert later.value.after_s == 3.5
        words += [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT]
        for name in ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"):
            with pytest.raises(Never, match=name):
                sender.send(Signal.TRACES, b"")
        with pytest.raises(Never, match="UNIMPLEMENTED"):
            sender.send(Signal.LOGS, b"")
    with pytest.raises(Later):
        sender.send(Signal.TRACES, b"")
    sender.close()


# -- file ------------------------------------------------------------------------------------------


def test_file_writes_lines_of_otlp_json(tmp_path: Path) -> None:
    """One line a request, ids in hexadecimal; a line that a crash tore is taken off first."""
    path = tmp_path / "deep" / "out.jsonl"
    path.parent.mkdir()
    path.write_text('{"whole":1}\n{"torn')
    sender = LineSender(FileSender(path=str(path)))
    sender.send(Signal.TRACES, load.spans("a"))
    sender.close()
    sender.send(Signal.LOGS, load.logs("l"))
    sender.close()
    whole, traces, logs = [json.loads(line) for line in path.read_text().splitlines()]
    assert whole == {"whole": 1}
    span = traces["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert span["traceId"] == load.ids("a")[0].hex()
    assert span["spanId"] == load.ids("a")[1].hex()
    assert isinstance(span["startTimeUnixNano"], str)
    assert logs["resourceLogs"]


def test_json_leaves_attributes_alone() -> None:
    """An attribute called traceId is text, not an id."""
    request = OFFICIAL_REQUEST[Signal.LOGS]()
    record = request.resource_logs.add().scope_logs.add().log_records.add(trace_id=bytes(15) + b"1")
    pair = record.attributes.add(key="traceId")
    pair.value.string_value = "AAAA"
    inner = record.body.kvlist_value.values.add(key="spanId")
    inner.value.bytes_value = b"123"
    found = json.loads(dumps(request))["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    assert found["traceId"] == "0" * 30 + "31"
    assert found["attributes"] == [{"key": "traceId", "value": {"stringValue": "AAAA"}}]
    assert found["body"]["kvlistValue"]["values"][0]["value"] == {"bytesValue": "MTIz"}


def test_file_rotates_and_keeps_some(tmp_path: Path) -> None:
    """At its size a file is put aside; only the newest are kept."""
    sender = LineSender(
        FileSender(path=str(tmp_path / "o.json"), rotation=Rotation(max_megabytes=1, max_backups=2))
    )
    body = load.spans("x", padding="p" * 600_000)
    for _ in range(5):
        sender.send(Signal.TRACES, body)
    sender.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "o-000003.json", "o-000004.json", "o.json",
    ]  # fmt: skip


def test_file_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    """A full disk or a missing folder is no reason to lose a line."""
    path = tmp_path / "gone" / "o.json"
    sender = LineSender(FileSender(path=str(path)))
    with pytest.raises(Later, match="No such file"):
        sender.send(Signal.TRACES, load.spans("a"))
    path.parent.mkdir()
    sender.send(Signal.TRACES, load.spans("a"))
    sender.close()
    assert len(path.read_text().splitlines()) == 1


# -- health ----------------------------------------------------------------------------------------


def ask(url: str) -> tuple[int, dict[str, Any]]:
    """GET; status and JSON, also of an error."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_health_says_200_or_503() -> None:
    """503 until ready, 200 while healthy, 503 again when the engine fails or stops."""
    healthy = True
    server = HealthServer(HealthCheck(endpoint="127.0.0.1:0", path="/up"), lambda: healthy)
    server.start()
    try:
        url = f"http://127.0.0.1:{server.port}/up"
        assert ask(url)[0] == 503
        server.ready()
        code, body = ask(url)
        assert (code, body["status"]) == (200, "Server available")
        healthy = False
        assert ask(url)[0] == 503
        healthy = True
        server.stopping()
        assert ask(url)[0] == 503
        assert ask(url + "x")[0] == 404
        with pytest.raises(ConfigError, match="already in use"):
            HealthServer(HealthCheck(endpoint=f"127.0.0.1:{server.port}"), lambda: True).start()
    finally:
        server.shutdown()


# -- two collectors --------------------------------------------------------------------------------


def free_port() -> int:
    """A port nobody has."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class Collect:
    """A real `engram collect`, which can be killed and started again on the same ports."""

    folder: Path
    exporters: str = ""
    more: str = ""
    http: int = field(default_factory=free_port)
    grpc: int = field(default_factory=free_port)
    health: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        """Its home."""
        return self.folder / "home"

    def start(self) -> None:
        """Run until it takes telemetry."""
        self.folder.mkdir(exist_ok=True)
        listed = "".join(f", {line.split(':')[0].strip()}" for line in self.exporters.splitlines())
        own = f"{{receivers: [otlp], processors: [batch], exporters: [memory{listed}]}}"
        (self.folder / "c.yaml").write_text(
            f"""
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: 127.0.0.1:{self.grpc}}},
    http: {{endpoint: 127.0.0.1:{self.http}}}}}}}
processors: {{batch: {{timeout: 100ms}}}}
exporters:
  memory:
{self.exporters}
extensions: {{health_check: {{endpoint: 127.0.0.1:{self.health}}}}}
service:
  extensions: [health_check]
  pipelines:
    traces: {own}
    logs: {own}
    metrics: {own}
"""
        )
        with (self.folder / "log").open("ab") as out:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "engram.collector.cli", "collect"),
                    *("--home", str(self.home), "--config", str(self.folder / "c.yaml")),
                ],
                stderr=out,
            )
        eventually(self.healthy, f"it is healthy: {(self.folder / 'log').read_text()}", 60)

    def healthy(self) -> bool:
        """Whether it says that it takes telemetry."""
        with contextlib.suppress(OSError):
            return ask(f"http://127.0.0.1:{self.health}/")[0] == 200
        return False

    def end(self, number: int) -> None:
        """End it by a signal."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None

    def send(self, name: str) -> None:
        """One span and one log record, acknowledged."""
        for path, body in (("traces", load.spans(name)), ("logs", load.logs(name))):
            asked = urllib.request.Request(
                f"http://127.0.0.1:{self.http}/v1/{path}",
                data=body,
                headers={"content-type": "application/x-protobuf"},
            )
            with urllib.request.urlopen(asked, timeout=10) as answer:
                assert answer.status == 200

    def stored(self) -> Counter[str]:
        """Names of its spans; nothing while there is no lake."""
        try:
            with contextlib.closing(attach_read_only(Home(self.home))) as lake:
                found = lake.execute("SELECT name FROM spans").fetchall()
        except Exception:
            return Counter()
        return Counter(name for (name,) in found)


def test_two_collectors_and_kills_in_the_middle(tmp_path: Path) -> None:
    """Both doors, both ends killed by SIGKILL: everything acknowledged arrives, and once."""
    far = Collect(tmp_path / "far")
    retry = "retry_on_failure: {initial_interval: 100ms, max_interval: 300ms}"
    near = Collect(
        tmp_path / "near",
        exporters=(
            f"  otlphttp/far: {{endpoint: 'http://127.0.0.1:{far.http}', {retry}}}\n"
            f"  otlp: {{endpoint: 127.0.0.1:{far.grpc}, tls: {{insecure: true}}, {retry}}}\n"
            f"  file: {{path: {tmp_path / 'out.jsonl'}}}"
        ),
    )
    wanted = [f"s{number}" for number in range(40)]
    try:
        far.start()
        near.start()
        for number, name in enumerate(wanted):
            near.send(name)
            if number == 12:
                far.end(signal.SIGKILL)
            if number == 22:
                near.end(signal.SIGKILL)
                near.start()
            if number == 30:
                far.start()
        expected = Counter(wanted)
        eventually(lambda: far.stored() == expected, f"all arrived: {near.folder / 'log'}", 60)
        eventually(lambda: near.stored() == expected, "all are stored where they were sent", 60)
        near.end(signal.SIGTERM)
        lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        written = Counter(
            span["name"]
            for line in lines
            for resource in line.get("resourceSpans", ())
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        )
        assert set(written) == set(wanted)
        assert all(written[name] == 1 for name in wanted[30:])
    finally:
        near.end(signal.SIGKILL)
        far.end(signal.SIGKILL)


# -- from the file ---------------------------------------------------------------------------------


PIPELINES = """
receivers: {otlp: }
processors:
  filter: {traces: {span: ['name == "b"']}}
exporters:
  memory:
  file: {path: OUT}
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [memory]}
    traces/out: {receivers: [otlp], processors: [filter], exporters: [file]}
    logs: {receivers: [otlp], exporters: [memory]}
    metrics: {receivers: [otlp], exporters: [memory]}
"""


def test_pipelines_have_their_own_processors_and_exporters(tmp_path: Path) -> None:
    """A second pipeline of a signal filters for its exporter; memory keeps everything."""
    out = tmp_path / "out.jsonl"
    config = parse(PIPELINES.replace("OUT", str(out)), tmp_path / "x.yaml", {})
    engine = Engine(Home(tmp_path / "h"), engine_settings(config))
    (forwarder,) = forwarders(config, engine)
    engine.start()
    forwarder.start()
    try:
        body = load.spans("a", "b", "c")
        done = engine.admit(Signal.TRACES, body, Encoding.IDENTITY).result(10)
        engine.admit(Signal.LOGS, load.logs("l"), Encoding.IDENTITY).result(10)
        engine.wait_committed(done.position, 20)
        eventually(lambda: forwarder.status()["behind_bytes"] == 0, "everything is written")
        assert forwarder.status()["dropped"] == {"filter": 1}
    finally:
        forwarder.shutdown()
        engine.shutdown(10)
    (line,) = out.read_text().splitlines()
    spans = json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert [span["name"] for span in spans] == ["a", "c"]
    with contextlib.closing(attach_read_only(Home(tmp_path / "h"))) as lake:
        assert lake.execute("SELECT count(*) FROM spans").fetchall() == [(3,)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("otlp: ", "endpoint: '' is none; write host:port"),
        ("otlp: {endpoint: 'a:1', sending_queue: {}}", "the write-ahead log is the queue"),
        ("otlp: {endpoint: 'a:1', headers: {'grpc-x': a}}", "is gRPC's own"),
        ("otlp: {endpoint: 'a:1', tls: {ca_file: /no/file}}", "ca_file: no file /no/file"),
        ("otlphttp: ", "endpoint is missing"),
        ("otlphttp: {endpoint: 'collector:4318'}", "is no URL"),
        ("otlphttp: {endpoint: 'http://a', headers: {'a b': c}}", "is no name of a header"),
        ("otlphttp: {endpoint: 'http://a', headers: {a: \"b\\nc\"}}", "no header may have"),
        ("otlphttp: {endpoint: 'http://a', compression: snappy}", "must be one of gzip, none"),
        ("otlphttp: {endpoint: 'http://a', retry_on_failure: {multiplier: 0.5}}", "1 or more"),
        ("file: ", "path is missing"),
        ("file: {path: /no/such/dir/x}", "create_directory makes it"),
        ("file: {path: x, append: false}", "a restart would lose"),
    ],
)
def test_mistakes_are_named(body: str, expected: str) -> None:
    """Each mistake in an exporter is told with its place."""
    text = PIPELINES.replace("  file: {path: OUT}", f"  {body}").replace(
        "exporters: [file]", f"exporters: [{body.split(':')[0]}]"
    )
    with pytest.raises(ConfigError) as caught:
        parse(text, Path("x.yaml"), {})
    assert any(expected in one for one in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    "endpoint",
    ["otlp: {endpoint: 'localhost:4317'}", "otlphttp: {endpoint: 'http://127.0.0.1:4318'}"],
)
def test_sending_to_oneself_is_refused(endpoint: str) -> None:
    """An exporter that points to the receiver of the same file would send round and round."""
    text = PIPELINES.replace("  file: {path: OUT}", f"  {endpoint}").replace(
        "exporters: [file]", f"exporters: [{endpoint.split(':')[0]}]"
    )
    with pytest.raises(ConfigError, match="round and round"):
        parse(text, Path("x.yaml"), {})
