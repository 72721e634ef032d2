"""OTLP to columns to OTLP, and OTLP to a real lake to OTLP, change nothing."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.exporters.arbitrary import bodies, fields, fill, normal, records

from engram.exporters.home import Home
from engram.exporters.lake import attach_read_only
from engram.exporters.lake.writer import Batch, LakeWriter
from engram.exporters.memories import MEMORY_SCHEMA
from engram.exporters.otlp import wire
from engram.exporters.otlp.decode import Decoder, Records
from engram.exporters.otlp.encode import encode, request
from engram.exporters.otlp.values import NoRedaction, ValueWriter, fill_value, parse
from engram.exporters.signals import Signal

_TABLE = {Signal.TRACES: "spans", Signal.LOGS: "logs", Signal.METRICS: "metrics"}
_slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def _decode(*requests: tuple[Signal, bytes]) -> Records:
    decoder = Decoder(NoRedaction())
    for signal, body in requests:
        decoder.add(signal, body)
    return decoder.finish()


def _rows(found: Records, signal: Signal) -> pa.Table:
    table: pa.Table = getattr(found, _TABLE[signal])
    return table


@pytest.mark.parametrize("signal", list(Signal))
@settings(max_examples=150, deadline=None, suppress_health_check=_slow)
@given(data=st.data())
def test_decode_and_encode_are_the_identity(signal: Signal, data: st.DataObject) -> None:
    """Every record of an arbitrary request comes back with every field as it was."""
    body = data.draw(bodies(signal))
    again = encode(signal, _rows(_decode((signal, body)), signal))
    assert records(signal, again) == records(signal, body)


@settings(max_examples=6, deadline=None, suppress_health_check=_slow)
@given(requests=st.tuples(*[st.lists(bodies(signal), min_size=3, max_size=3) for signal in Signal]))
def test_a_lake_keeps_every_field(
    tmp_path_factory: pytest.TempPathFactory, requests: tuple[list[bytes], ...]
) -> None:
    """What is read from a lake on disk encodes to the records that were sent."""
    sent = dict(zip(Signal, requests, strict=True))
    found = _decode(*((signal, body) for signal in Signal for body in sent[signal]))
    stored = _through_a_lake(tmp_path_factory.mktemp("home"), found)
    for signal in Signal:
        again = records(signal, encode(signal, stored[_TABLE[signal]]))
        assert again == sorted(r for body in sent[signal] for r in records(signal, body))


def _through_a_lake(root: Path, found: Records) -> dict[str, pa.Table]:
    home = Home(root)
    home.create()
    lake = LakeWriter(home, "c")
    lake.open()
    memories = pl.DataFrame(schema=MEMORY_SCHEMA)
    lake.commit(Batch(1, found.spans, found.logs, found.metrics, memories))
    lake.close()
    with attach_read_only(home) as connection:
        return {
            name: connection.execute(f"SELECT * FROM {name}").to_arrow_table()
            for name in _TABLE.values()
        }


@settings(max_examples=300, deadline=None, suppress_health_check=_slow)
@given(data=st.data())
def test_a_value_is_one_json_text(data: st.DataObject) -> None:
    """An arbitrary AnyValue is valid JSON, and that JSON is the same AnyValue."""
    descriptor = wire.OFFICIAL_REQUEST[Signal.LOGS].DESCRIPTOR.file.pool.FindMessageTypeByName(
        "opentelemetry.proto.common.v1.AnyValue"
    )
    value = fill(wire.AnyValue(), data.draw(fields(descriptor, 5)))
    again = wire.AnyValue()
    fill_value(again, parse(ValueWriter(NoRedaction()).value(value)))
    assert normal(again) == normal(value)


def test_the_official_message() -> None:
    """`request` is what an OpenTelemetry exporter takes."""
    message = wire.OFFICIAL_REQUEST[Signal.TRACES]()
    span = message.resource_spans.add().scope_spans.add().spans.add(name="naïve ☃")
    span.trace_id, span.span_id = bytes(range(16)), bytes(range(8))
    found = _decode((Signal.TRACES, message.SerializeToString()))
    again = request(Signal.TRACES, found.spans)
    assert type(again) is type(message)
    assert again.resource_spans[0].scope_spans[0].spans[0] == span
