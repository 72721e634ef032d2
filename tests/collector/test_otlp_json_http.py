"""OTLP/JSON over HTTP, and browsers: what is answered, in which encoding, with which headers."""

from __future__ import annotations

import gzip
import http.client
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.collector.recording import REQUESTS, RecordingIntake

from engram.collector.receivers import OtlpHttpConfig, OtlpHttpReceiver
from engram.collector.registry import Cors
from engram.exporters.errors import Overloaded
from engram.exporters.signals import Encoding, Signal

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

JSON = "application/json"
SHOP = "https://shop.example"
SPAN = {"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "GET"}
BODIES = {
    Signal.TRACES: {"resourceSpans": [{"scopeSpans": [{"spans": [SPAN]}]}]},
    Signal.LOGS: {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"severityNumber": 9}]}]}]},
    Signal.METRICS: {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "m"}]}]}]},
}
TRACES = json.dumps(BODIES[Signal.TRACES]).encode()


class Answer:
    """Status, headers and body of an answer."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        """The body, which says that it is JSON."""
        assert self.headers["content-type"] == JSON
        return json.loads(self.body)


def ask(
    receiver: OtlpHttpReceiver,
    body: bytes | Iterator[bytes] = TRACES,
    path: str = "/v1/traces",
    method: str = "POST",
    **headers: str,
) -> Answer:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=20)
    head = {"Content-Type": JSON} | {name.replace("_", "-"): v for name, v in headers.items()}
    try:
        connection.request(method, path, body, head)
        return Answer(connection.getresponse())
    finally:
        connection.close()


@pytest.fixture
def intake() -> RecordingIntake:
    """What the receiver of this test hands requests to."""
    return RecordingIntake()


@pytest.fixture
def receiver(intake: RecordingIntake) -> Iterator[OtlpHttpReceiver]:
    """A receiver with default settings."""
    yield from receiving(intake)


@pytest.fixture
def with_cors(intake: RecordingIntake) -> Iterator[OtlpHttpReceiver]:
    """A receiver that lets pages of two origins send."""
    cors = Cors(
        allowed_origins=(SHOP, "http://localhost:*"), allowed_headers=("X-Shop",), max_age=7200
    )
    yield from receiving(intake, cors=cors)


def receiving(intake: RecordingIntake, **settings: Any) -> Iterator[OtlpHttpReceiver]:
    """A receiver on a free port with these settings."""
    receiver = OtlpHttpReceiver(OtlpHttpConfig(endpoint="127.0.0.1:0", **settings), intake)
    receiver.start()
    yield receiver
    receiver.shutdown(1)


@pytest.mark.parametrize("signal", Signal)
def test_json_becomes_protobuf_in_the_log(
    receiver: OtlpHttpReceiver, intake: RecordingIntake, signal: Signal
) -> None:
    """A JSON request is admitted as protobuf and answered `{}` with its position."""
    body = json.dumps(BODIES[signal]).encode()
    answer = ask(receiver, body, f"/v1/{signal}", Content_Type="application/json; charset=utf-8")
    assert (answer.status, answer.json) == (200, {})
    assert answer.headers["engram-position"] == "1"
    ((kind, sent, encoding),) = intake.requests
    assert (kind, encoding) == (signal, Encoding.IDENTITY)
    assert REQUESTS[signal].FromString(sent).ByteSize() == len(sent) > 0


def test_every_content_encoding(receiver: OtlpHttpReceiver, intake: RecordingIntake) -> None:
    """JSON and protobuf come plain, by gzip, zstd, zlib and raw deflate; small, large, chunked."""
    raw = zlib.compressobj(wbits=-15)
    large = json.dumps(
        {"resourceSpans": [{"scopeSpans": [{"spans": [SPAN | {"name": "n" * 900}] * 1500}]}]}
    ).encode()
    assert ask(receiver, large).status == 200
    protobuf = intake.requests[0][1]
    assert len(protobuf) > 1 << 20
    for content, kind in ((large, JSON), (protobuf, "application/x-protobuf")):
        packed = {
            "identity": content,
            "gzip": gzip.compress(content),
            "x-gzip": gzip.compress(content),
            "zstd": zstd.compress(content),
            "deflate": zlib.compress(content),
            "zlib": zlib.compress(content),
            "DEFLATE": raw.compress(content) + raw.flush(),
        }
        raw = zlib.compressobj(wbits=-15)
        for name, body in packed.items():
            for sent in (body, iter([body[:999], body[999:]])):
                answer = ask(receiver, sent, Content_Type=kind, Content_Encoding=name)
                assert answer.status == 200, (name, answer.body)
    assert len(intake.requests) == 1 + 2 * 7 * 2
    assert [body for _, body, _ in intake.requests[1:15]] == [protobuf] * 14


def test_an_unknown_encoding_is_told_the_known_ones(receiver: OtlpHttpReceiver) -> None:
    """415 names the encodings, in the Status and in Accept-Encoding."""
    answer = ask(receiver, Content_Encoding="br")
    assert (answer.status, answer.headers["accept-encoding"]) == (415, "gzip, zstd, deflate")
    assert "gzip, zstd, deflate or none" in answer.json["message"]


def test_partial_success_in_json(receiver: OtlpHttpReceiver, intake: RecordingIntake) -> None:
    """Rejected records are counted in JSON, as text because they are 64-bit."""
    intake.rejected, intake.message = 3, "no trace id"
    assert ask(receiver).json == {
        "partialSuccess": {"rejectedSpans": "3", "errorMessage": "no trace id"}
    }


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xy"}]}]}]}', "spans[0].traceId"),
        (b"\x0a\x03abc", "JSON"),
        (b"hello", "JSON"),
        (b'{"resourceSpans":[', "truncated"),
        (b"[" * 3000, "Expected `object`"),
        (b'{"resourceSpans":[{"a":' + b"[" * 20_000, "nested too deeply"),
    ],
)
def test_bad_json_is_400_and_says_where(
    receiver: OtlpHttpReceiver, intake: RecordingIntake, body: bytes, message: str
) -> None:
    """A google.rpc.Status in JSON, with what and where; nothing is stored; the next one works."""
    answer = ask(receiver, body)
    assert (answer.status, answer.json["code"]) == (400, 3)
    assert message in answer.json["message"]
    assert intake.requests == []
    assert ask(receiver).status == 200


@pytest.mark.parametrize("body", [b"", b"{}", b'{"resourceSpans":[]}'])
def test_empty_requests_are_fine(receiver: OtlpHttpReceiver, body: bytes) -> None:
    """A request without records is a success."""
    assert (ask(receiver, body).status, ask(receiver, body).json) == (200, {})


def test_refusals_are_json_too(receiver: OtlpHttpReceiver, intake: RecordingIntake) -> None:
    """Every 4xx and 5xx answers a JSON request with a Status in JSON."""
    assert ask(receiver, path="/v1/nothing").json["code"] == 5
    profiles = ask(receiver, path="/v1development/profiles")
    assert (profiles.status, profiles.json["code"]) == (404, 12)
    assert "does not store profiles" in profiles.json["message"]
    assert ask(receiver, method="PUT").json["code"] == 12
    too_large = ask(receiver, iter([b"{" + b" " * (1 << 20)] * 65))
    assert too_large.status in (400, 413)
    intake.error = Overloaded("the log is full", retry_after_s=2.5)
    busy = ask(receiver)
    assert (busy.status, busy.headers["retry-after"]) == (503, "3")
    assert busy.json["details"][0]["retryDelay"] == "2.500s"


@pytest.mark.parametrize("encoding", ["identity", "gzip", "zstd", "deflate"])
def test_the_limit_holds_inflated(intake: RecordingIntake, encoding: str) -> None:
    """JSON over the limit, plain or once inflated, is 413 and names the limit."""
    packers: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress, "zstd": zstd.compress, "deflate": zlib.compress
    }  # fmt: skip
    span = SPAN | {"name": "n" * 1000}
    content = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span] * 2000}]}]}).encode()
    body = packers.get(encoding, bytes)(content)
    for receiver in receiving(intake, max_request_body_size=1 << 20):
        answer = ask(receiver, body, Content_Encoding=encoding)
        assert answer.status == 413
        assert str(1 << 20) in answer.json["message"]


@pytest.mark.parametrize("kind", [JSON, "application/x-protobuf"])
def test_a_bomb_is_told_the_limit(receiver: OtlpHttpReceiver, kind: str) -> None:
    """What inflates to too much is 413 with the limit, whatever it is made of."""
    for body, encoding in (
        (gzip.compress(bytes(80 << 20)), "gzip"),
        (zstd.compress(bytes(80 << 20)), "zstd"),
    ):
        answer = ask(receiver, body, Content_Type=kind, Content_Encoding=encoding)
        assert answer.status == 413
        assert str(64 << 20).encode() in answer.body


def test_other_methods_get_no_page(receiver: OtlpHttpReceiver) -> None:
    """GET and HEAD of a signal are 405 with Allow; the answer to HEAD has no body."""
    for method in ("GET", "HEAD", "OPTIONS"):
        answer = ask(receiver, b"", method=method)
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
        assert bool(answer.body) == (method != "HEAD")


def test_cors_is_off_by_default(receiver: OtlpHttpReceiver) -> None:
    """Without `cors` no answer allows a page anything."""
    preflight = ask(
        receiver, b"", method="OPTIONS", Origin=SHOP, Access_Control_Request_Method="POST"
    )
    assert preflight.status == 405
    for answer in (preflight, ask(receiver, Origin=SHOP)):
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_a_preflight_is_answered(with_cors: OtlpHttpReceiver) -> None:
    """An allowed page hears which method and headers it may use, and for how long that holds."""
    answer = ask(
        with_cors,
        b"",
        method="OPTIONS",
        Origin="http://localhost:5173",
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="content-type, x-shop",
    )
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "http://localhost:5173"
    assert answer.headers["access-control-allow-methods"] == "POST"
    assert answer.headers["access-control-allow-headers"] == "content-type, x-shop"
    assert answer.headers["access-control-max-age"] == "7200"
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    ("origin", "method", "headers", "message"),
    [
        ("https://evil.example", "POST", "", "origin https://evil.example is not allowed"),
        (f"{SHOP}.evil.example", "POST", "", "is not allowed"),
        ("null", "POST", "", "origin null is not allowed"),
        (SHOP, "PUT", "", "method PUT is not allowed"),
        (SHOP, "POST", "content-type,x-other", "header x-other is not allowed"),
    ],
)
def test_a_preflight_is_refused(
    with_cors: OtlpHttpReceiver, origin: str, method: str, headers: str, message: str
) -> None:
    """A page, method or header that is not allowed is 403 with the reason."""
    asked = {"Access_Control_Request_Method": method, "Access_Control_Request_Headers": headers}
    answer = ask(with_cors, b"", method="OPTIONS", Origin=origin, **asked)
    assert answer.status == 403
    assert message in answer.json["message"]
    assert "access-control-allow-methods" not in answer.headers


def test_answers_and_errors_carry_cors(
    with_cors: OtlpHttpReceiver, intake: RecordingIntake
) -> None:
    """An allowed page may read success and failure; another page is stored but reads nothing."""
    for body, path in ((TRACES, "/v1/traces"), (b"hello", "/v1/traces"), (b"", "/v1/x")):
        answer = ask(with_cors, body, path, Origin=SHOP)
        assert answer.headers["access-control-allow-origin"] == SHOP
        assert "retry-after" in answer.headers["access-control-expose-headers"]
    for answer in (ask(with_cors, Origin="https://evil.example"), ask(with_cors)):
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["vary"] == "Origin"


def test_any_origin(intake: RecordingIntake) -> None:
    """`*` allows every page, and any header if it stands there too."""
    cors = Cors(allowed_origins=("*",), allowed_headers=("*",))
    for receiver in receiving(intake, cors=cors):
        asked = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "x-a"}
        answer = ask(receiver, b"", method="OPTIONS", Origin=SHOP, **asked)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (204, "*")
        assert "access-control-max-age" not in answer.headers


def test_cors_settings_are_checked() -> None:
    """An origin with a path, or without a scheme, and a negative age are problems."""
    assert list(Cors(allowed_origins=("*", SHOP, "http://*.shop.example:8080")).problems()) == []
    for origin in ("shop.example", "https://shop.example/", ""):
        assert "no origin" in next(Cors(allowed_origins=(origin,)).problems())
    assert "max_age" in next(Cors(max_age=-1).problems())
