"""The decoder: ids, failures in the middle, bounds, redaction, promoted columns, garbage."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from tests.exporters.arbitrary import bodies

from engram.exporters.errors import BadRequest
from engram.exporters.otlp import attributes, wire
from engram.exporters.otlp.attributes import Attributes
from engram.exporters.otlp.check import check
from engram.exporters.otlp.decode import Decoder
from engram.exporters.otlp.slab import Slab
from engram.exporters.otlp.values import NoRedaction, ValueWriter
from engram.exporters.signals import Signal


class Shouting:
    """Redacts keys that hold `secret`, and marks every text it was asked about."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def key(self, key: str) -> bool:
        """Whether the key says so."""
        return "secret" in key

    def suspicious(self, texts: pl.Series) -> Iterable[int]:
        """All of them."""
        return range(len(texts))

    def text(self, value: str) -> str:
        """The text in capitals."""
        self.asked.append(value)
        return value.upper()


def _attribute(key: str, value: str | int | None) -> KeyValue:
    if value is None:
        return KeyValue(key=key)
    if isinstance(value, int):
        return KeyValue(key=key, value=AnyValue(int_value=value))
    return KeyValue(key=key, value=AnyValue(string_value=value))


def _span(number: int = 1, **attributes: Any) -> dict[str, Any]:
    return {
        "trace_id": number.to_bytes(16, "big"),
        "span_id": number.to_bytes(8, "big"),
        "name": f"span {number}",
        "attributes": [_attribute(k.replace("__", "."), v) for k, v in attributes.items()],
    }


def _traces(*spans: dict[str, Any]) -> bytes:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for span in spans:
        scope.spans.add(**span)
    return request.SerializeToString()


def _decode(*requests: bytes, redact: Any = None, wanted: frozenset[str] = frozenset()) -> Any:
    decoder = Decoder(redact or NoRedaction(), wanted)
    for body in requests:
        decoder.add(Signal.TRACES, body)
    return decoder.finish()


# ------------------------------------------------------------------ ids


@pytest.mark.parametrize(
    ("trace_id", "span_id"),
    [
        (b"", b"12345678"),
        (b"1" * 15, b"12345678"),
        (b"1" * 17, b"12345678"),
        (bytes(16), b"12345678"),
        (b"1" * 16, b""),
        (b"1" * 16, b"1234567"),
        (b"1" * 16, bytes(8)),
    ],
)
def test_a_span_without_identity_is_rejected(trace_id: bytes, span_id: bytes) -> None:
    """Such a span is counted by the check and left out by the decoder; its neighbours stay."""
    bad = {**_span(7, key="of the bad one"), "trace_id": trace_id, "span_id": span_id}
    body = _traces(_span(1, key="one"), bad, _span(2, key="two"))
    rejected, message = check(Signal.TRACES, body)
    assert rejected == 1
    assert "trace_id must be 16 bytes" in message
    spans = _decode(body).spans
    assert spans["name"].to_pylist() == ["span 1", "span 2"]
    assert spans["attributes"].to_pylist() == ['{"key":"one"}', '{"key":"two"}']


def test_a_log_needs_no_ids() -> None:
    """A log record without, or with odd, ids is stored, and its ids are as they were."""
    request = ExportLogsServiceRequest()
    logs = request.resource_logs.add().scope_logs.add().log_records
    logs.add(severity_text="none")
    logs.add(trace_id=b"\x01", span_id=bytes(8))
    assert check(Signal.LOGS, request.SerializeToString()) == (0, "")
    decoder = Decoder(NoRedaction())
    assert decoder.add(Signal.LOGS, request.SerializeToString()) == 2
    found = decoder.finish().logs
    assert found["trace_id"].to_pylist() == [None, "01"]
    assert found["span_id"].to_pylist() == [None, "0000000000000000"]


# ------------------------------------------------------------------ failures in the middle


def test_a_failing_request_leaves_the_batch_unchanged() -> None:
    """A request that is broken behind some of its spans adds none of them."""
    one = _traces(_span(1, error__type="One"))
    decoder = Decoder(NoRedaction())
    decoder.add(Signal.TRACES, one)
    with pytest.raises(DecodeError):
        decoder.add(Signal.TRACES, _traces(_span(3, error__type="Half")) + b"\x0a\xff")
    assert len(decoder) == 1
    assert len(decoder.hashes()[0]) == 1
    decoder.add(Signal.TRACES, _traces(_span(2, error__type="Two")))
    found = decoder.finish()
    assert found.spans["error_type"].to_pylist() == ["One", "Two"]
    assert found.spans["attributes"].to_pylist() == ['{"error.type":"One"}', '{"error.type":"Two"}']


def _broken() -> bytes:
    """A request whose second span is no message."""
    lite = wire.LITE_REQUEST[Signal.TRACES].FromString(_traces(_span(1, user__id="me", a="b")))
    lite.resource_spans[0].scope_spans[0].spans.append(b"\x0a\xff")
    body: bytes = lite.SerializeToString()
    return body


def test_a_message_broken_inside_fails_the_batch() -> None:
    """What `check` would have refused raises when the batch is finished; `clear` begins anew."""
    decoder = Decoder(NoRedaction())
    decoder.add(Signal.TRACES, _broken())
    with pytest.raises(DecodeError):
        decoder.finish()
    assert len(decoder) == 2
    decoder.clear()
    decoder.add(Signal.TRACES, _traces(_span(2)))
    assert decoder.finish().spans["name"].to_pylist() == ["span 2"]


def test_a_finished_batch_leaves_nothing_behind() -> None:
    """The next batch starts empty, and what is remembered of attributes is still right."""
    decoder = Decoder(NoRedaction())
    for number in range(1, 4):
        decoder.add(Signal.TRACES, _traces(_span(number, kept="same", passing="x" * 300)))
        found = decoder.finish()
        assert found.spans["trace_id"].to_pylist() == [f"{number:032x}"]
        assert found.spans["attributes"].to_pylist() == [
            f'{{"kept":"same","passing":"{"x" * 300}"}}'
        ]
        assert len(decoder) == 0


def test_known_rows_are_left_out() -> None:
    """`finish` drops the rows of the mask from every table and frame alike."""
    event = {"name": "e", "attributes": []}
    body = _traces(*[{**_span(n), "events": [event | {"name": f"of {n}"}]} for n in (1, 2, 3)])
    decoder = Decoder(NoRedaction())
    decoder.add(Signal.TRACES, body)
    found = decoder.finish((np.array([True, False, True]), None, None))
    assert found.spans["name"].to_pylist() == ["span 1", "span 3"]
    assert found.span_frame["name"].to_list() == ["span 1", "span 3"]
    assert found.event_frame["name"].to_list() == ["of 1", "of 3"]


# ------------------------------------------------------------------ what is remembered


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ever new keys do not fill the memory."""
    monkeypatch.setattr(attributes, "_KEYS", 2000)
    decoder = Decoder(NoRedaction())
    for batch in range(3):
        spans = [_span(i + 1, **{"id": f"v{i}", f"key-{batch}-{i}": 1}) for i in range(1500)]
        decoder.add(Signal.TRACES, _traces(*spans))
        found = decoder.finish().spans["attributes"].to_pylist()
        assert found[1234] == f'{{"id":"v1234","key-{batch}-1234":1}}'
        assert len(decoder._attributes._keys) <= 2000


def test_the_content_hash_is_frozen() -> None:
    """It decides what a re-send is, also of what an older version stored: it must never change."""
    decoder = Decoder(NoRedaction())
    decoder.add(Signal.TRACES, _traces(_span(1, a="b")))
    logs = ExportLogsServiceRequest()
    records = logs.resource_logs.add().scope_logs.add().log_records
    records.add(severity_text="x")
    records.add(severity_text="x")
    decoder.add(Signal.LOGS, logs.SerializeToString())
    metrics = ExportMetricsServiceRequest()
    metric = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    metric.gauge.data_points.add(as_int=1, time_unix_nano=5)
    decoder.add(Signal.METRICS, metrics.SerializeToString())
    assert [found.tolist() for found in decoder.hashes()] == [
        [123750194828537317],
        [828654267197824532, 5819287327601777249],
        [13487352447936018212],
    ]


# ------------------------------------------------------------------ redaction


def test_redaction_sees_every_text() -> None:
    """Keys, names, messages, values at any depth, events, links and bodies are all asked about."""
    nested = AnyValue()
    nested.kvlist_value.values.add(key="secret.deep", value=AnyValue(int_value=7))
    nested.kvlist_value.values.add(key="open").value.array_value.values.add(string_value="deep")
    span = _span(1, db__secret="hidden", count__secret=5, plain="value", user__id="me")
    span["attributes"].append(KeyValue(key="nested", value=nested))
    span["status"] = {"code": 2, "message": "message"}
    span["events"] = [{"name": "event", "attributes": [_attribute("a", "of event")]}]
    span["links"] = [{"trace_id": b"1" * 16, "attributes": [_attribute("a", "of link")]}]
    row = _decode(_traces(span), redact=Shouting()).spans.to_pylist()[0]
    assert row["attributes"] == (
        '{"db.secret":"[redacted]","count.secret":"[redacted]","plain":"VALUE","user.id":"ME",'
        '"nested":{"secret.deep":"[redacted]","open":["DEEP"]}}'
    )
    assert (row["name"], row["status_message"], row["user_id"]) == ("SPAN 1", "MESSAGE", "ME")
    assert '"name":"EVENT"' in row["events"]
    assert '{"a":"OF EVENT"}' in row["events"]
    assert '{"a":"OF LINK"}' in row["links"]


def test_redaction_of_resources_and_bodies() -> None:
    """Resource and scope attributes, and log bodies of any shape, are redacted."""
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    resource.resource.attributes.extend(
        [_attribute("service.name", "shop"), _attribute("a.secret", "x")]
    )
    scope = resource.scope_logs.add()
    scope.scope.attributes.append(_attribute("b", "scope"))
    scope.log_records.add(body=AnyValue(string_value="line"))
    mapped = scope.log_records.add().body.kvlist_value.values
    mapped.append(_attribute("secret", "y"))
    mapped.append(_attribute("open", "z"))
    decoder = Decoder(Shouting(), resource_wanted=frozenset({"service.name"}))
    decoder.add(Signal.LOGS, request.SerializeToString())
    found = decoder.finish()
    row = found.logs.to_pylist()[0]
    assert row["service_name"] == "SHOP"
    assert row["resource"] == '{"service.name":"SHOP","a.secret":"[redacted]"}'
    assert row["scope_attributes"] == '{"b":"SCOPE"}'
    assert found.logs["body"].to_pylist() == ['"LINE"', '{"secret":"[redacted]","open":"Z"}']
    assert found.log_frame["body_text"].to_list()[0] == "LINE"
    assert found.log_frame["res:service.name"].to_list() == ["SHOP", "SHOP"]


def test_a_text_is_redacted_once() -> None:
    """An attribute that repeats, and is wanted as well as stored, is redacted one time."""
    redact = Shouting()
    spans = [_span(i + 1, user__id="me", other="text") for i in range(50)]
    _decode(_traces(*spans), redact=redact)
    assert redact.asked.count("me") == 1
    assert redact.asked.count("text") == 1


def test_every_batch_is_redacted() -> None:
    """Also when the request that brought a value first failed."""
    decoder = Decoder(Shouting())
    decoder.add(Signal.TRACES, _broken())
    with pytest.raises(DecodeError):
        decoder.finish()
    decoder.clear()
    for number in (2, 3):
        decoder.add(Signal.TRACES, _traces(_span(number, user__id="me", a="b")))
        spans = decoder.finish().spans
        assert spans["attributes"].to_pylist() == ['{"user.id":"ME","a":"B"}']
        assert spans["user_id"].to_pylist() == ["ME"]


# ------------------------------------------------------------------ columns


@pytest.mark.parametrize(
    ("column", "key", "given", "stored"),
    [
        ("http_request_method", "http.request.method", "GET", "GET"),
        ("http_request_method", "http.method", "GET", "GET"),
        ("http_response_status_code", "http.response.status_code", 404, 404),
        ("http_response_status_code", "http.status_code", 404, 404),
        ("http_response_status_code", "http.status_code", "404", 404),
        ("http_response_status_code", "http.status_code", "many", None),
        ("server_address", "net.peer.name", "db", "db"),
        ("db_system_name", "db.system", "redis", "redis"),
        ("user_id", "enduser.id", "u", "u"),
        ("gen_ai_provider_name", "gen_ai.system", "openai", "openai"),
        ("http_route", "http.route", None, None),
    ],
)
def test_promoted_columns(column: str, key: str, given: str | int | None, stored: Any) -> None:
    """Old and new names of an attribute fill the same typed column."""
    body = _traces({**_span(1), "attributes": [_attribute(key, given)]}, _span(2))
    assert _decode(body).spans[column].to_pylist() == [stored, None]


def test_the_new_name_wins() -> None:
    """Where a sender writes both names, the current one counts."""
    span = _span(1, **{"http.method": "OLD", "http.request.method": "NEW"})
    assert _decode(_traces(span)).spans["http_request_method"].to_pylist() == ["NEW"]


def test_wanted_keys_become_columns_of_the_frames() -> None:
    """The rules get the keys they asked for, of spans and of events, where any record has them."""
    event = {"name": "e", "attributes": [_attribute("mark", "on event")]}
    spans = [{**_span(1, mark="yes"), "events": [event]}, _span(2, other=1)]
    found = _decode(_traces(*spans), wanted=frozenset({"mark", "absent"}))
    assert found.span_frame["attr:mark"].to_list() == ["yes", None]
    assert found.event_frame["attr:mark"].to_list() == ["on event"]
    assert found.event_frame["span.attr:mark"].to_list() == ["yes"]
    assert "attr:absent" not in found.span_frame.columns
    assert "attr:other" not in found.span_frame.columns


def test_attributes_stay_with_their_record() -> None:
    """In a large batch with many shared and many unique values every row has its own."""
    rng = random.Random(5)
    given = [
        {f"k{k}": rng.choice([rng.randrange(3), rng.randrange(10**12), "s", f"s{rng.random()}"])
         for k in rng.sample(range(9), rng.randrange(9))}
        for _ in range(3000)
    ]  # fmt: skip
    decoder = Decoder(NoRedaction(), frozenset({"k3", "k4"}))
    for at in range(0, 3000, 100):
        spans = [_span(at + i + 1, **one) for i, one in enumerate(given[at : at + 100])]
        decoder.add(Signal.TRACES, _traces(*spans))
    found = decoder.finish()
    assert [json.loads(row) for row in found.spans["attributes"].to_pylist()] == given
    for key in ("k3", "k4"):
        want = [str(one[key]) if key in one else None for one in given]
        assert found.span_frame[f"attr:{key}"].to_list() == want


# ------------------------------------------------------------------ any bytes at all


@settings(max_examples=400, deadline=None)
@given(signal=st.sampled_from(list(Signal)), body=st.binary(max_size=60))
def test_garbage_is_refused_or_decoded(signal: Signal, body: bytes) -> None:
    """Random bytes are a BadRequest, or a request that the decoder takes; nothing crashes."""
    _refused_or_decoded(signal, body)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), signal=st.sampled_from(list(Signal)))
def test_damaged_requests_are_refused_or_decoded(data: st.DataObject, signal: Signal) -> None:
    """So are valid requests with some bytes changed, cut or doubled."""
    body = bytearray(data.draw(bodies(signal)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(body) - 1)))
        how = data.draw(st.integers(0, 2))
        if how == 0:
            body[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
        elif how == 1:
            del body[at:]
        else:
            body[at:at] = body[at : at + 9]
    _refused_or_decoded(signal, bytes(body))


def _refused_or_decoded(signal: Signal, body: bytes) -> None:
    decoder = Decoder(NoRedaction())
    try:
        check(signal, body)
    except BadRequest:
        with pytest.raises(DecodeError):
            wire.STRICT_REQUEST[signal].FromString(body)
        return
    count = decoder.add(signal, body)
    found = decoder.finish()
    assert len(found) + found.rejected == count


@settings(max_examples=600, deadline=None)
@given(
    raw=st.binary(max_size=24)
    | st.builds(
        lambda key, tag, value, cut: (
            bytes([10, len(key)]) + key + bytes([18, len(value) + cut, tag]) + value
        ),
        st.binary(max_size=3),
        st.sampled_from([10, 16, 24, 33, 34, 18, 58, 64]),
        st.binary(max_size=12),
        st.integers(0, 2),
    )
    | st.integers(-(1 << 63), (1 << 63) - 1).map(lambda i: _attribute("a", i).SerializeToString())
)
def test_reading_in_step_agrees_with_protobuf(raw: bytes) -> None:
    """Whatever the bytes of an attribute are, the short way gives what protobuf gives."""
    slots = {"a": 0, "": 1}
    known = Attributes(NoRedaction(), slots)
    slab = Slab([b"\n\x01a\x12\x03\n\x01b", raw, b"\n\x01a\x12\x02\x18\x07"])
    try:
        pair = wire.KeyValue.FromString(raw)
    except DecodeError:
        with pytest.raises(DecodeError):
            known.read(slab, slab.at, slab.size)
        return
    members = known.read(slab, slab.at, slab.size)
    key, value, plain = ValueWriter(NoRedaction()).member(pair)
    slot = slots.get(pair.key.decode("utf-8", "replace"), -1) if plain is not None else -1
    if pair.key_strindex:
        slot, plain = -1, None
    objects = members.objects(np.array([1, 2, 3]))
    assert objects.to_pylist() == ['{"a":"b"}', f"{{{key}:{value}}}", '{"a":7}']
    at = members.codes[1]
    assert (members.slots[at], members.plain[int(at)]) == (slot, plain)
