"""Lake rows to rule frames: what the decoder gave the rules when they arrived."""

from __future__ import annotations

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.exporters.arbitrary import bodies
from tests.telemetry import request, shop_traces

from engram.exporters.lake.frames import frames
from engram.exporters.otlp.decode import Decoder
from engram.exporters.otlp.values import NoRedaction
from engram.exporters.otlp.wire import STRICT_REQUEST
from engram.exporters.redact import RedactionConfig, Redactor
from engram.exporters.rules import Rules
from engram.exporters.signals import Signal

RULES = Rules.load()


def same(decoder: Decoder, wanted: frozenset[str], resource: frozenset[str]) -> None:
    """The decoder's frames equal those made of its own tables."""
    records = decoder.finish()
    made = frames(
        {"spans": records.spans, "logs": records.logs, "metrics": records.metrics}, wanted, resource
    )
    assert_equal(made["span"], records.span_frame)
    assert_equal(made["span_event"], records.event_frame)
    assert_equal(made["log"], records.log_frame)


def keys(traces: list[bytes], logs: list[bytes]) -> frozenset[str]:
    """The keys of all attributes, as text."""
    found = set()
    for signal, some in ((Signal.TRACES, traces), (Signal.LOGS, logs)):
        for body in some:
            messages = [STRICT_REQUEST[signal].FromString(body)]
            while messages:
                message = messages.pop()
                if message.DESCRIPTOR.name == "KeyValue":
                    found.add(message.key.decode("utf-8", "replace"))
                for field, value in message.ListFields():
                    if field.message_type is not None:
                        messages += value if field.is_repeated else [value]
    return frozenset(found)


def assert_equal(made: pl.DataFrame, decoded: pl.DataFrame) -> None:
    """Same columns, types and values; a column of a key that no record has says nothing."""
    assert made.height == decoded.height
    made, decoded = said(made), said(decoded)
    assert dict(made.schema) == dict(decoded.schema)
    for name in decoded.columns:
        assert made[name].to_list() == decoded[name].to_list(), name


@settings(max_examples=60, deadline=None)
@given(st.lists(bodies(Signal.TRACES), max_size=2), st.lists(bodies(Signal.LOGS), max_size=2))
def test_arbitrary_telemetry(traces: list[bytes], logs: list[bytes]) -> None:
    """Whatever OTLP holds, rules see the same of the lake's rows as of the request."""
    wanted = keys(traces, logs)  # every key that occurs, so that all values are compared
    decoder = Decoder(NoRedaction(), wanted, wanted)
    for body in traces:
        decoder.add(Signal.TRACES, body)
    for body in logs:
        decoder.add(Signal.LOGS, body)
    same(decoder, wanted, wanted)


def test_redacted_telemetry() -> None:
    """With secrets in it, rules see them redacted both times."""
    spans, logs, _ = shop_traces(6)
    decoder = Decoder(Redactor(RedactionConfig()), RULES.wanted, RULES.resource_wanted)
    decoder.add(Signal.TRACES, request(Signal.TRACES, spans))
    decoder.add(Signal.LOGS, request(Signal.LOGS, logs))
    same(decoder, RULES.wanted, RULES.resource_wanted)


def said(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame without the columns of keys that no record has."""
    return frame.drop([c.name for c in frame if ":" in c.name and c.null_count() == frame.height])
