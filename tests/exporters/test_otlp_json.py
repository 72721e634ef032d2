"""OTLP/JSON to protobuf: any request, in any spelling that proto3 JSON and OTLP allow."""

from __future__ import annotations

import base64
import json
import math
import random
import tracemalloc
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st
from tests.exporters.arbitrary import bodies

from engram.exporters.errors import BadRequest, TooLarge
from engram.exporters.otlp.check import check
from engram.exporters.otlp.decode import Decoder
from engram.exporters.otlp.json import to_protobuf
from engram.exporters.otlp.json_walker import JsonWalker
from engram.exporters.otlp.values import NoRedaction
from engram.exporters.otlp.wire import OFFICIAL_REQUEST, STRICT_REQUEST
from engram.exporters.signals import Signal

_F = FieldDescriptor
LIMIT = 64 << 20
IDS = {"trace_id", "span_id", "parent_span_id"}
TRACE, SPAN = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"


def spell(message: Any, descriptor: Descriptor | None, pick: random.Random) -> dict[str, Any]:
    """A message as JSON, each value in one of its spellings; makes its strings UTF-8 on the way."""
    assert descriptor is not None
    made: dict[str, Any] = {}
    for field, value in message.ListFields():
        official = descriptor.fields_by_name[field.name]
        if field.message_type is not None:
            items = value if field.is_repeated else [value]
            spelled = [spell(item, official.message_type, pick) for item in items]
        else:
            items = list(value) if field.is_repeated else [value]
            if official.type == _F.TYPE_STRING:
                items = [item.decode("utf-8", "replace") for item in items]
                put(message, field, [item.encode() for item in items])
            elif official.type == _F.TYPE_DOUBLE:  # JSON has one NaN, protobuf many
                put(message, field, [math.nan if math.isnan(item) else item for item in items])
            spelled = [spell_scalar(item, official, pick) for item in items]
        name = pick.choice([official.json_name, official.json_name, field.name])
        made[name] = spelled if field.is_repeated else spelled[0]
    if pick.random() < 0.2:
        made[pick.choice(["x", "resource_", ""])] = pick.choice([None, 1, {"a": [{}]}, "traceId"])
    if pick.random() < 0.2:
        absent = [f.json_name for f in descriptor.fields if not made.keys() & {f.name, f.json_name}]
        made |= dict.fromkeys(absent[:2])
    items = list(made.items())
    pick.shuffle(items)
    return dict(items)


def put(message: Any, field: FieldDescriptor, items: list[Any]) -> None:
    """Replace the value or values of a field."""
    if field.is_repeated:
        del getattr(message, field.name)[:]
        getattr(message, field.name).extend(items)
    else:
        setattr(message, field.name, items[0])


def spell_scalar(value: Any, field: FieldDescriptor, pick: random.Random) -> Any:
    """A value of a field in one of its spellings."""
    match field.type:
        case _F.TYPE_BYTES if field.name in IDS:
            return pick.choice([value.hex(), value.hex().upper()])
        case _F.TYPE_BYTES:
            plain = base64.b64encode(value).decode()
            return pick.choice([plain, plain.rstrip("="), base64.urlsafe_b64encode(value).decode()])
        case _F.TYPE_DOUBLE if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case _F.TYPE_DOUBLE:
            return pick.choice([value, repr(value)])
        case _F.TYPE_ENUM if field.enum_type is not None:
            names = {one.number: one.name for one in field.enum_type.values}
            return pick.choice([value, names.get(value, value)])
        case _F.TYPE_STRING | _F.TYPE_BOOL:
            return value
        case _:
            exact = float(value) if abs(value) < 1 << 50 else value
            return pick.choice([value, str(value), exact])


def spans(span: dict[str, Any]) -> bytes:
    """A request of one span."""
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()


def parsed(signal: Signal, body: bytes) -> Any:
    """The record that the JSON means."""
    request: Any = OFFICIAL_REQUEST[signal].FromString(to_protobuf(signal, body, LIMIT))
    for name in {
        Signal.TRACES: ("resource_spans", "scope_spans", "spans"),
        Signal.LOGS: ("resource_logs", "scope_logs", "log_records"),
        Signal.METRICS: ("resource_metrics", "scope_metrics", "metrics"),
    }[signal]:
        request = getattr(request, name)[0]
    return request


@pytest.mark.parametrize("signal", Signal)
@given(st.data(), st.integers(0, 1 << 30))
def test_any_request_in_any_spelling(signal: Signal, data: st.DataObject, seed: int) -> None:
    """JSON gives the very bytes of the protobuf request, so rows and content hashes are equal."""
    message = STRICT_REQUEST[signal].FromString(data.draw(bodies(signal)))
    spelled = spell(message, OFFICIAL_REQUEST[signal].DESCRIPTOR, random.Random(seed))
    body = json.dumps(spelled, ensure_ascii=bool(seed % 2), indent=seed % 3 or None).encode()
    assert to_protobuf(signal, body, LIMIT) == message.SerializeToString()
    for size in (1 + seed % 7, 100):
        walker = JsonWalker(signal, LIMIT)
        for at in range(0, len(body), size):
            walker.feed(body[at : at + size])
        walker.finish()


def test_a_re_send_by_json_is_known() -> None:
    """The content hash of a span is the same by protobuf and by JSON."""
    official = STRICT_REQUEST[Signal.TRACES]()
    resource = official.resource_spans.add()
    resource.resource.attributes.add(key=b"service.name").value.string_value = b"shop"
    span = resource.scope_spans.add().spans.add(
        trace_id=bytes.fromhex(TRACE), span_id=bytes.fromhex(SPAN), name=b"GET /", kind=2
    )
    span.attributes.add(key=b"n").value.int_value = 1 << 60
    span.start_time_unix_nano = 1795333477729000001
    body = json.dumps(
        spell(official, OFFICIAL_REQUEST[Signal.TRACES].DESCRIPTOR, random.Random(1))
    ).encode()
    decoder = Decoder(NoRedaction())
    decoder.add(Signal.TRACES, official.SerializeToString())
    decoder.add(Signal.TRACES, to_protobuf(Signal.TRACES, body, LIMIT))
    hashes = decoder.hashes()[0]
    assert hashes[0] == hashes[1]


def test_what_browsers_send() -> None:
    """Numbers for int64, text for times, an empty body, a text cut inside an emoji."""
    record = parsed(
        Signal.LOGS,
        b'{"resourceLogs":[{"resource":{"attributes":[],"droppedAttributesCount":0},"scopeLogs":[{'
        b'"scope":{"name":"web"},"logRecords":[{"timeUnixNano":"1795333477729000000",'
        b'"severityNumber":9,"body":{},"attributes":[{"key":"n","value":{"intValue":7}},'
        b'{"key":"cut","value":{"stringValue":"a\\ud83d"}},{"key":"whole","value":{"stringValue":'
        b'"\\ud83d\\ude00"}}]}]}]}]}',
    )
    assert record.time_unix_nano == 1795333477729000000
    assert record.HasField("body")
    assert record.body.WhichOneof("value") is None
    values = {pair.key: pair.value for pair in record.attributes}
    assert values["n"].int_value == 7
    assert values["cut"].string_value == "a�"
    assert values["whole"].string_value == "😀"


def test_bytes_that_are_no_utf8_cost_no_request() -> None:
    """Invalid UTF-8 in a text becomes U+FFFD, as with protobuf; nothing is refused for it."""
    body = spans({"traceId": TRACE, "spanId": SPAN, "name": "a?b"}).replace(b"?", b"\xff")
    assert parsed(Signal.TRACES, body).name == "a�b"


def test_nothing_is_an_empty_request() -> None:
    """No bytes, `{}`, nulls and empty lists mean a request without records."""
    for body in (b"", b" \n", b"{}", b'{"resourceSpans":null}', b'{"resourceSpans":[]}'):
        assert to_protobuf(Signal.TRACES, body, LIMIT) == b""


@pytest.mark.parametrize("ids", [("", SPAN), ("00" * 16, SPAN), (TRACE, "00" * 8), ("ab", SPAN)])
def test_ids_of_wrong_length_are_left_to_the_check(ids: tuple[str, str]) -> None:
    """A span with a useless id is rejected alone, as with protobuf."""
    body = to_protobuf(Signal.TRACES, spans({"traceId": ids[0], "spanId": ids[1]}), LIMIT)
    assert check(Signal.TRACES, body)[0] == 1


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ({"traceId": "W47/95gDgQPSabYzgT/GDA=="}, ".traceId, \"W47/95gDgQPSabYzgT/GDA==\" is no "),
        ({"spanId": 5}, ".spanId, expected an id as hexadecimal text, got 5"),
        ({"name": ["a"]}, ".name, expected a string, got a list"),
        ({"startTimeUnixNano": "1.5"}, ".startTimeUnixNano, expected a whole number, got 1.5"),
        ({"startTimeUnixNano": -1}, ".startTimeUnixNano, -1 is not between 0 and 184467440"),
        ({"startTimeUnixNano": True}, ".startTimeUnixNano, expected a whole number, got true"),
        ({"startTimeUnixNano": "1_0"}, 'expected a whole number, got "1_0"'),
        ({"kind": "SPAN_KIND_SPY"}, '.kind, "SPAN_KIND_SPY" is none of SPAN_KIND_UNSPECIFIED'),
        ({"status": []}, ".status, expected an object, got a list"),
        ({"events": {}}, ".events, expected a list, got an object"),
        ({"events": [None]}, ".events[0], expected an object, got null"),
        (
            {"attributes": [{}, {"key": "k", "value": {"boolValue": "true"}}]},
            '.attributes[1].value.boolValue, expected true or false, got "true"',
        ),
        (
            {"attributes": [{"value": {"arrayValue": {"values": [{"bytesValue": "*"}]}}}]},
            '.attributes[0].value.arrayValue.values[0].bytesValue, "*" is no base64',
        ),
        ({"attributes": [{"value": {"doubleValue": "one"}}]}, '.doubleValue, expected a number'),
        ({"attributes": [{"value": {"intValue": "9" * 60}}]}, ".intValue, a number of 200 bits is"),
    ],
)  # fmt: skip
def test_errors_say_what_and_where(span: dict[str, Any], message: str) -> None:
    """A value that cannot be is refused with its path."""
    with pytest.raises(BadRequest) as caught:
        to_protobuf(Signal.TRACES, spans(span), LIMIT)
    assert "$.resourceSpans[0].scopeSpans[0].spans[0]" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"hello", "malformed"),
        (b'{"resourceSpans":[', "truncated"),
        (b"[]", "Expected `object`"),
        (b"\x0a\x03abc", "byte"),
        (b'{"resourceSpans":{}}', "$.resourceSpans, Expected `array`"),
        (b'{"resourceSpans":[{},3]}', "$.resourceSpans[1], Expected `object`"),
        (b'{"resourceSpans":[{"scopeSpans":[{"spans":"x"}]}]}', "scopeSpans[0].spans, Expected"),
        (b"[" * 50_000, "Expected `object`"),
        (b'{"resourceSpans":' + b"[" * 50_000, "nested too deeply"),
        (b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"x":' + b"[" * 50_000, "nested too deeply"),
        (b'{"resourceSpans":[' + b"{}," * 99_999 + b"{}]}", "more objects"),
    ],
)
def test_what_is_no_request_is_refused(body: bytes, message: str) -> None:
    """No JSON, JSON of another shape, and nesting without end are a bad request, nothing worse."""
    with pytest.raises(BadRequest) as caught:
        to_protobuf(Signal.TRACES, body, LIMIT)
    assert message in str(caught.value)


def test_nesting_ends_where_protobuf_ends() -> None:
    """Values are nested as deep as the check of the protobuf allows, and no deeper."""

    def nested(levels: int) -> bytes:
        body = spans({"traceId": TRACE, "spanId": SPAN, "attributes": [{"value": "VALUE"}]})
        value = b'{"arrayValue":{"values":[' * levels + b"{}" + b"]}}" * levels
        return body.replace(b'"VALUE"', value)

    def taken(levels: int) -> bool:
        try:
            to_protobuf(Signal.TRACES, nested(levels), LIMIT)
        except BadRequest:
            return False
        return True

    most = max(levels for levels in range(40, 60) if taken(levels))
    assert most >= 45
    check(Signal.TRACES, to_protobuf(Signal.TRACES, nested(most), LIMIT))
    for levels in (300, 1000):  # deeper than Python calls may go
        with pytest.raises(BadRequest, match="nested"):
            to_protobuf(Signal.TRACES, nested(levels), LIMIT)


def test_the_result_is_bounded() -> None:
    """JSON that is small for the protobuf it means (a fixed64 in two bytes) meets the limit too."""
    point = {"bucketCounts": [0] * 5000}
    metric = {"name": "m", "histogram": {"dataPoints": [point]}}
    body = json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric] * 5}]}]}).encode()
    with pytest.raises(TooLarge):
        to_protobuf(Signal.METRICS, body, 100_000)
    assert len(to_protobuf(Signal.METRICS, body, 1 << 20)) > 200_000


@pytest.mark.parametrize(
    ("start", "unit"),
    [
        pytest.param(b"", b"\0", id="zeros"),
        pytest.param(b"", b"x", id="text"),
        pytest.param(b"", b"[", id="lists"),
        pytest.param(b"", b'{"a":', id="objects"),
        pytest.param(b'{"resourceSpans":[', b"{},", id="empty resources"),
        pytest.param(b'{"resourceSpans":[', b"1,", id="numbers"),
        pytest.param(b'{"resourceSpans":[', b"1", id="one number"),
        pytest.param(b'{"resourceSpans":["', b"\0", id="zeros in a string"),
        pytest.param(b'{"resourceSpans":[', b"{} ", id="no commas"),
        pytest.param(b'{"resourceSpans":', b"]", id="closing"),
        pytest.param(b'{"x":"', b"y", id="another request"),
    ],
)
@pytest.mark.parametrize("chunk", [100, 65536])
def test_garbage_is_refused_while_it_comes(start: bytes, unit: bytes, chunk: int) -> None:
    """Large nonsense is refused by the walk or the cut, which cost less than another copy."""
    body = start + unit * (2_000_000 // len(unit))
    walker = JsonWalker(Signal.TRACES, LIMIT)
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest):  # noqa: PT012
            for at in range(0, len(body), chunk):
                walker.feed(body[at : at + chunk])
            to_protobuf(Signal.TRACES, body, LIMIT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 << 20


@given(st.binary(min_size=1, max_size=60), st.integers(1, 9))
def test_only_json_passes_the_walk_alone(body: bytes, chunk: int) -> None:
    """What the converter takes, the walk lets pass, however it is cut."""
    for text in (body, b'{"resourceSpans":[]' + body, b'{"resourceSpans":null,"a":"' + body):
        try:
            to_protobuf(Signal.TRACES, text, LIMIT)
        except BadRequest:
            continue
        walker = JsonWalker(Signal.TRACES, LIMIT)
        for at in range(0, len(text), chunk):
            walker.feed(text[at : at + chunk])
        walker.finish()
