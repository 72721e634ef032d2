"""Our OTLP exporters against real sockets: settings, retries, and that they never hurt the app."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import (
    encode_metrics as official_metrics,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics._internal.exemplar import Exemplar
from opentelemetry.sdk.metrics._internal.point import Buckets
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Histogram,
    HistogramDataPoint,
    InMemoryMetricReader,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext
from tests.instrumentation.receiving import Receiving, receiving

from engram.instrumentation.capture import servers
from engram.instrumentation.export import OtlpSpanExporter, sending
from engram.instrumentation.export.metrics import encode_metrics
from engram.instrumentation.export.sending import Sender
from engram.instrumentation.export.settings import target

SPAN = ReadableSpan(name="x", context=SpanContext(1, 2, False), attributes={"n": 1})


@pytest.fixture
def receiver() -> Iterator[Receiving]:
    """A fresh receiver."""
    with receiving() as state:
        yield state


_opened: list[Sender] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """No test leaves a socket to the next."""
    yield
    while _opened:
        _opened.pop().close()


def _sender(url: str, **more: str) -> Sender:
    sender = Sender(target("traces", {"OTEL_EXPORTER_OTLP_ENDPOINT": url, **more}))
    _opened.append(sender)
    return sender


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


# -- metrics, against the official encoder ---------------------------------------------------------

_TIMES = st.integers(0, 2**63 - 1)
_BAGS: Any = st.dictionaries(
    st.sampled_from(["http.route", "k" * 130, "n"]), st.sampled_from(["a", 1])
)
_VALUES = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))
_COUNTS = st.lists(st.integers(0, 2**64 - 1), max_size=4)
_OFFSETS = st.integers(-(2**31), 2**31 - 1)


@st.composite
def _exemplars(draw: st.DrawFn) -> Exemplar:
    ids = draw(st.sampled_from([(None, None), (1, 2), (2**64 - 1, 2**128 - 1)]))
    return Exemplar(draw(_BAGS), draw(_VALUES), draw(_TIMES), *ids)


_EXEMPLARS = st.lists(_exemplars(), max_size=2)


@st.composite
def _data(draw: st.DrawFn) -> Any:
    temporality = draw(st.sampled_from(list(AggregationTemporality)))
    kind = draw(st.sampled_from(["gauge", "sum", "histogram", "exponential"]))
    if kind in ("gauge", "sum"):
        numbers = [
            NumberDataPoint(
                draw(_BAGS), draw(_TIMES), draw(_TIMES), draw(_VALUES), draw(_EXEMPLARS)
            )
            for _ in range(draw(st.integers(1, 2)))
        ]
        return Gauge(numbers) if kind == "gauge" else Sum(numbers, temporality, draw(st.booleans()))
    common = {"count": draw(st.integers(0, 2**64 - 1)), "sum": draw(st.floats(allow_nan=False))}
    common |= {"min": draw(st.floats(allow_nan=False)), "max": draw(st.floats(allow_nan=False))}
    times = {"start_time_unix_nano": draw(_TIMES), "time_unix_nano": draw(_TIMES)}
    shared: Any = {**common, **times, "attributes": draw(_BAGS), "exemplars": draw(_EXEMPLARS)}
    if kind == "histogram":
        bounds = draw(st.lists(st.floats(allow_nan=False), max_size=3))
        return Histogram(
            [HistogramDataPoint(bucket_counts=draw(_COUNTS), explicit_bounds=bounds, **shared)],
            temporality,
        )
    return ExponentialHistogram(
        [
            ExponentialHistogramDataPoint(
                scale=draw(st.integers(-10, 20)),
                zero_count=draw(st.integers(0, 9)),
                positive=Buckets(draw(_OFFSETS), draw(_COUNTS)),
                negative=Buckets(draw(_OFFSETS), draw(_COUNTS)),
                flags=draw(st.integers(0, 1)),
                **shared,
            )
        ],
        temporality,
    )


@given(st.lists(_data(), max_size=3), st.sampled_from(["", "ä", "x" * 200]))
@settings(max_examples=100, deadline=None)
def test_metrics_are_the_official_ones(many: list[Any], name: str) -> None:
    """Any metrics: what is written by hand parses to what the official encoder makes."""
    metrics = [Metric(name, name or None, name or None, one) for one in many]
    scope = InstrumentationScope("lib", "1", "https://schema")
    data = MetricsData(
        [ResourceMetrics(Resource({"a": "b"}), [ScopeMetrics(scope, metrics, "")], "")]
    )
    assert ExportMetricsServiceRequest.FromString(encode_metrics(data)) == official_metrics(data)


def test_metrics_of_the_sdk_are_the_official_ones() -> None:
    """What the SDK itself collects, of every instrument."""
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("m")
    meter.create_counter("c").add(3, {"a": 1})
    meter.create_up_down_counter("u").add(-2.5)
    meter.create_histogram("h", "s", "how long").record(0.2, {"r": "/x"})
    meter.create_gauge("g").set(7)
    data = reader.get_metrics_data()
    assert data is not None
    assert ExportMetricsServiceRequest.FromString(encode_metrics(data)) == official_metrics(data)


# -- sending ---------------------------------------------------------------------------------------


def test_settings_of_the_environment() -> None:
    """Endpoint, headers, timeout and compression: the signal's own before the shared one."""
    found = target(
        "traces",
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "https://example.org:1/base/",
            "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20x,bad,tenant=a=b",
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "2.5",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "9",
        },
    )
    assert found.url.geturl() == "https://example.org:1/base/v1/traces"
    assert found.headers == {"authorization": "Bearer x", "tenant": "a=b"}
    assert (found.timeout_s, found.compression) == (2.5, "gzip")
    assert found.tls is not None
    own = {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://h/x"}
    assert target("logs", own).url.geturl() == "http://h/x"
    assert target("logs", {}).compression == "none"


def test_bad_settings_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """A wrong address or number is said, and the default is used: the app starts."""
    bad = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://x:y",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "soon",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "zip",
    }
    found = target("traces", bad)
    assert found.url.geturl() == "http://127.0.0.1:4318/v1/traces"
    assert found.timeout_s == 10
    assert len(caplog.records) == 3


def test_one_connection_is_kept(receiver: Receiving) -> None:
    """Many exports, one connection; compressed when it is asked for."""
    sender = _sender(receiver.url, OTEL_EXPORTER_OTLP_COMPRESSION="gzip")
    assert all(sender.send(b"") for _ in range(3))
    sender.close()
    assert [path for path, _, _ in receiver.requests] == ["/v1/traces"] * 3
    assert receiver.requests[0][1]["content-encoding"] == "gzip"
    assert receiver.connections == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_retryable_answers_are_tried_again(receiver: Receiving, status: int) -> None:
    """The receiver says later, and gets it later."""
    receiver.answers = [(status, {"retry-after": "0"}, b"")]
    assert _sender(receiver.url).send(b"")
    assert len(receiver.requests) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500])
def test_other_answers_are_final(
    receiver: Receiving, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """What a receiver refuses for good is not sent again, and said once a minute."""
    receiver.answers = [(status, {}, b"no such\x08tenant")] * 2
    sender = _sender(receiver.url)
    assert not sender.send(b"")
    assert not sender.send(b"")
    assert len(receiver.requests) == 2
    (warning,) = caplog.records
    assert f"HTTP {status} no suchtenant" in warning.getMessage()


def test_a_long_wish_is_not_waited_for(receiver: Receiving) -> None:
    """Retry-After beyond the timeout: the batch is given up, not held for an hour."""
    receiver.answers = [(503, {"retry-after": "3600"}, b"")]
    assert not _sender(receiver.url).send(b"")
    assert len(receiver.requests) == 1


def test_a_receiver_that_comes_back(receiver: Receiving) -> None:
    """A connection that went stale is made anew within the same export."""
    sender = _sender(receiver.url)
    receiver.answers = [(200, {"connection": "close"}, b"")]
    assert sender.send(b"")
    assert sender.send(b"")
    assert receiver.connections == 2


def test_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    """No collector: False, one warning, nothing raised."""
    url = f"http://127.0.0.1:{_free_port()}"
    sender = _sender(url, OTEL_EXPORTER_OTLP_TIMEOUT="0.2")
    assert not sender.send(b"")
    assert not sender.send(b"")
    assert len(caplog.records) == 1
    assert "was not taken by 127.0.0.1" in caplog.text


def test_the_end_of_the_app_is_not_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nobody there, shutting a provider down drops what is left and waits for no retry."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{_free_port()}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    exporter = OtlpSpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=10))
    with provider.get_tracer("t").start_as_current_span("x"):
        pass
    time.sleep(0.1)  # now its thread waits for an hour
    exporter._sender.hurry()
    ended = threading.Thread(target=provider.shutdown, daemon=True)
    ended.start()
    ended.join(20)
    assert not ended.is_alive()


def test_a_receiver_that_never_answers_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It took the request and says nothing: also what is under way is given up, and all at once."""
    monkeypatch.setattr(sending, "_LAST_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        sender = _sender(url, OTEL_EXPORTER_OTLP_TIMEOUT="3600")
        sent: list[bool] = []
        under_way = threading.Thread(target=lambda: sent.append(sender.send(b"x")), daemon=True)
        under_way.start()
        taken = silent.accept()[0]
        assert taken.recv(4)
        sender.hurry()
        under_way.join(20)
        assert sent == [False]
        assert not sender.send(b"y")  # and the next is not even tried
        silent.settimeout(0)
        with pytest.raises(BlockingIOError):
            silent.accept()
        taken.close()


def test_a_receiver_that_answers_gets_all_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer gives the next request its time."""
    now = [100.0]
    monkeypatch.setattr(sending, "time", SimpleNamespace(monotonic=lambda: now[0]))
    ending = sending._Ending()
    told = []
    for _ in range(8):
        now[0] += 2
        ending.answered()
        told.append(ending.until - now[0])
    assert told == [3, 3, 3, 2, 0, -2, -4, -6]  # ten seconds at most


def test_the_last_flush_of_a_server_is_one_wait_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three providers that hang cost two seconds, not six."""
    clock = [0.0]

    class Hangs:
        def __init__(self, **_: Any) -> None:
            pass

        def start(self) -> None:
            pass

        def join(self, seconds: float) -> None:
            clock[0] += seconds

    monkeypatch.setattr(servers, "threading", SimpleNamespace(Thread=Hangs))
    monkeypatch.setattr(servers, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    servers.flush(2.0)
    assert clock[0] == 2.0


def test_one_bad_record_does_not_take_the_others(receiver: Receiving) -> None:
    """What cannot be encoded is dropped alone."""
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.url
    try:
        exporter = OtlpSpanExporter()
    finally:
        del os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]
    _opened.append(exporter._sender)
    bad: Any = object()
    assert exporter.export([SPAN, bad, SPAN]) is SpanExportResult.FAILURE
    assert [span.name for span in receiver.spans()] == ["x", "x"]


def test_a_forked_child_has_its_own_connection(receiver: Receiving) -> None:
    """Pre-fork servers: the child never writes into its parent's socket."""
    sender = _sender(receiver.url)
    assert sender.send(b"")
    child = os.fork()
    if child == 0:
        os._exit(0 if sender.send(b"") else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sender.send(b"")
    assert receiver.connections == 2
    assert len(receiver.requests) == 3


def test_partial_success_is_said(receiver: Receiving, caplog: pytest.LogCaptureFixture) -> None:
    """A receiver that took only a part is heard."""
    receiver.answers = [(200, {}, b"\x0a\x09\x08\x01\x12\x05clock")]
    with caplog.at_level(logging.WARNING):
        assert _sender(receiver.url).send(b"")
    assert "clock" in caplog.text
