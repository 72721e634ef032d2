"""SDK objects by hand and by the official encoder are the same OTLP."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs as official_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as official_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from engram.instrumentation.export import encode
from engram.instrumentation.export.encode import encode_logs, encode_spans

_MANY = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_TIMES = st.integers(0, 2**63 - 1)
_TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(["", "ä" * 63, "x" * 125, "y" * 20000]))
_NUMBERS = st.one_of(
    st.sampled_from([0, 1, 127, 128, 16383, 16384, -1, 2**31, 2**63 - 1, -(2**63)]),
    st.integers(-(2**63), 2**63 - 1),
)
_PLAIN = st.one_of(
    _TEXTS, st.booleans(), _NUMBERS, st.floats(allow_nan=False), st.binary(max_size=200)
)
_VALUES = st.recursive(
    _PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple), st.dictionaries(st.text(max_size=3), inner)
    ),
    max_leaves=5,
)
_KEYS = st.one_of(st.text(min_size=1, max_size=5), st.sampled_from(["http.route", "k" * 130]))
_BAGS = st.dictionaries(_KEYS, _VALUES, max_size=5)
_RESOURCES = [
    Resource({"service.name": "a", "n": 1}, "https://schema"),
    Resource({"service.name": "a", "n": 1}, "https://schema"),  # another object, the same one
    Resource({}),
]
_SCOPES = [
    InstrumentationScope("lib", "1.2", "https://schema", {"of": "the scope"}),
    InstrumentationScope("lib", None),
    InstrumentationScope("lib"),
    None,
]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The SDK logs every attribute that it drops."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@st.composite
def _contexts(draw: st.DrawFn, *, state: bool = True) -> SpanContext:
    states = st.lists(
        st.sampled_from([("a", "1"), ("b", "x=y")]), max_size=2 if state else 0, unique=True
    )
    return SpanContext(
        draw(st.integers(1, 2**128 - 1)),
        draw(st.integers(1, 2**64 - 1)),
        draw(st.booleans()),
        TraceFlags(draw(st.integers(0, 1))),
        TraceState(draw(states)),
    )


@st.composite
def _spans(draw: st.DrawFn) -> ReadableSpan:
    limit = draw(st.sampled_from([None, 1, 3]))

    def bag() -> BoundedAttributes:
        return BoundedAttributes(limit, draw(_BAGS), immutable=draw(st.booleans()))

    code = draw(st.sampled_from(list(StatusCode)))
    why = draw(st.sampled_from([None, "because", ""])) if code is StatusCode.ERROR else None
    return ReadableSpan(
        name=draw(_TEXTS),
        context=draw(_contexts()),
        parent=draw(st.none() | _contexts()),
        resource=draw(st.sampled_from(_RESOURCES)),
        attributes=bag(),
        events=[Event(draw(_TEXTS), bag(), draw(_TIMES)) for _ in range(draw(st.integers(0, 2)))],
        links=[  # the official encoder leaves out the state of a link
            Link(draw(_contexts(state=False)), bag()) for _ in range(draw(st.integers(0, 2)))
        ],
        kind=draw(st.sampled_from(list(SpanKind))),
        status=Status(code, why),
        start_time=draw(_TIMES),
        end_time=draw(st.none() | _TIMES),
        instrumentation_scope=draw(st.sampled_from(_SCOPES)),
    )


@given(st.lists(_spans(), max_size=5))
@_MANY
def test_spans_are_the_official_ones(spans: list[ReadableSpan]) -> None:
    """Any spans: what is written by hand parses to what the official encoder makes."""
    assert ExportTraceServiceRequest.FromString(encode_spans(spans)) == official_spans(spans)


@st.composite
def _logs(draw: st.DrawFn) -> ReadableLogRecord:
    context = draw(st.none() | _contexts())
    record = LogRecord(
        timestamp=draw(st.none() | _TIMES),
        observed_timestamp=draw(_TIMES),
        context=set_span_in_context(NonRecordingSpan(context)) if context else None,
        severity_text=draw(st.none() | _TEXTS),
        severity_number=draw(st.none() | st.sampled_from(list(SeverityNumber))),
        body=draw(st.none() | _VALUES),
        attributes=draw(_BAGS),
        event_name=draw(st.none() | _TEXTS),
    )
    limit = draw(st.sampled_from([None, 1]))
    record.attributes = BoundedAttributes(limit, record.attributes, immutable=False)
    return ReadableLogRecord(
        record, draw(st.sampled_from(_RESOURCES)), draw(st.sampled_from(_SCOPES))
    )


@given(st.lists(_logs(), max_size=5))
@_MANY
def test_logs_are_the_official_ones(records: list[ReadableLogRecord]) -> None:
    """Any log records: what is written by hand parses to what the official encoder makes."""
    assert ExportLogsServiceRequest.FromString(encode_logs(records)) == official_logs(records)


def _one(attributes: dict[str, Any], **more: Any) -> Any:

    span = ReadableSpan(name="x", context=SpanContext(1, 2, False), attributes=attributes, **more)
    request = ExportTraceServiceRequest.FromString(encode_spans([span]))
    return request.resource_spans[0].scope_spans[0].spans[0]


@pytest.mark.parametrize(
    ("value", "kept"),
    [("a\ud800b", "a\\ud800b"), (2**64, str(2**64)), (1 + 2j, "(1+2j)")],
    ids=["surrogate", "too large", "foreign"],
)
def test_what_the_official_encoder_drops_is_kept_as_text(value: Any, kept: str) -> None:
    """No attribute is lost for its value, and none takes its neighbours with it."""
    span = _one({"odd": value, "good": 1})
    assert [(pair.key, pair.value.string_value) for pair in span.attributes] == [
        ("odd", kept),
        ("good", ""),
    ]


def test_nan_and_link_state_are_kept() -> None:
    """What the property above leaves out."""
    state = TraceState([("a", "1")])
    link = Link(SpanContext(3, 4, True, trace_state=state))
    span = _one({"nan": math.nan}, links=[link])
    assert math.isnan(span.attributes[0].value.double_value)
    assert span.links[0].trace_state == "a=1"


def test_equal_values_of_other_types_stay_apart() -> None:
    """1, 1.0 and True are equal in Python and three things in OTLP."""
    values = [_one({"k": value}).attributes[0].value for value in (1, 1.0, True)]
    assert [value.WhichOneof("value") for value in values] == [
        "int_value",
        "double_value",
        "bool_value",
    ]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program with ever new keys, resources and scopes does not fill the memory."""
    monkeypatch.setattr(encode, "_MEMO", 10)
    monkeypatch.setattr(encode, "_FEW", 10)
    for i in range(50):
        span = ReadableSpan(
            name="x",
            context=SpanContext(1, 2, False),
            attributes={f"key{i}": i},
            resource=Resource({"n": i}),
            instrumentation_scope=InstrumentationScope(f"s{i}"),
        )
        assert ExportTraceServiceRequest.FromString(encode.encode_spans([span])) == official_spans(
            [span]
        )
    memos: list[dict[Any, Any]] = [encode._keys, encode._resources, encode._scopes]
    assert all(len(memo) <= 10 for memo in memos)
