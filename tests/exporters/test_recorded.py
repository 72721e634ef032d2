"""What the real client libraries send (tests/data/recorded) becomes the right memories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.exporters.remembering import made_of

from engram.exporters.signals import Signal

_RECORDED = Path(__file__).parents[1] / "data" / "recorded"
_REQUEST: dict[str, tuple[Signal, Any]] = {
    "traces": (Signal.TRACES, ExportTraceServiceRequest),
    "logs": (Signal.LOGS, ExportLogsServiceRequest),
    "metrics": (Signal.METRICS, ExportMetricsServiceRequest),
}
QUESTION, ANSWER = "Which shelf holds order 4711?", "Order 4711 is on shelf B7."


def recorded(*families: str) -> list[tuple[Signal, bytes]]:
    """The requests of some families' files."""
    found = []
    for family in families:
        for name, request in json.loads((_RECORDED / f"{family}.json").read_text()).items():
            signal, message = _REQUEST[name]
            found.append((signal, ParseDict(request, message()).SerializeToString()))
    return found


def memories(*families: str) -> list[dict[str, Any]]:
    """The memories of some families' files, with their attributes read."""
    rows = made_of(recorded(*families)).sort("type", "title").to_dicts()
    return [row | {"attributes": json.loads(row["attributes"])} for row in rows]


@pytest.mark.parametrize("family", ["official", "official_event", "traceloop", "openinference"])
def test_llm_calls(family: str) -> None:
    """Five calls to three providers are five answers and five questions, each told once."""
    found = memories(family)
    answers = [m for m in found if m["type"] == "ai_response"]
    assert sorted(m["title"] for m in answers if m["outcome"] == "ok") == [
        "claude-fake-0: Order 4711 is on shelf B7.",
        f"gemini-fake{'' if family == 'traceloop' else '-0'}: Order 4711 is on shelf B7.",
        'gpt-fake-0 calls find_shelf({"order": "4711"})'
        if family == "openinference"
        else 'gpt-fake-0 calls find_shelf({"order":"4711"})',
        "gpt-fake-0: Order 4711 is on shelf B7.",
    ]
    (failed,) = [m for m in answers if m["outcome"] == "error"]
    assert "400 - bad thing" in failed["content"]
    assert failed["importance"] == pytest.approx(0.8)
    ids = {m["attributes"].get("response_id") for m in answers}
    assert ids == {"chatcmpl-4711", "chatcmpl-4712", "msg_4711", "gem-4711", None}
    assert {m["attributes"]["provider"] for m in answers if m["outcome"] == "ok"} == {
        "openai",
        "anthropic",
        "gcp.gemini",
    }
    tokens = [(m["attributes"]["input_tokens"], m["attributes"]["output_tokens"])
              for m in answers if m["outcome"] == "ok"]  # fmt: skip
    assert sorted(tokens) == [(11, 7), (11, 7), (12, 8), (13, 9)]
    asked = [m["content"] for m in found if m["type"] == "user_interaction"]
    assert sorted(asked) == [QUESTION] * 4 + ["please fail"]
    errors = [m for m in found if m["type"] == "system_error"]
    assert len(errors) == 1
    assert "bad thing" in errors[0]["title"]


def test_event_span_and_native_span() -> None:
    """One call to Anthropic, told by event, span and the library's own span, is one answer."""
    (answer,) = [
        m
        for m in memories("official_event")
        if m["attributes"].get("response_id") == "msg_4711" and m["type"] == "ai_response"
    ]
    assert len(answer["sources"]) == 3
    assert answer["source"] == "event"
    assert answer["content"] == ANSWER


def test_metrics() -> None:
    """The histograms of the official instrumentations are series with their labels."""
    found = [m for m in memories("official") if m["type"] == "performance_metric"]
    assert {m["subject"] for m in found} >= {
        "gen_ai.client.operation.duration",
        "gen_ai.client.token.usage",
    }
    assert all(m["attributes"]["type"] == "histogram" for m in found)
    assert any(m["attributes"]["labels"].get("gen_ai.token.type") == "input" for m in found)


def test_celery() -> None:
    """Queued and run, a task is one memory; an import is a sync; a failure is one error."""
    found = memories("celery")
    seen = sorted((m["type"], m["title"], len(m["sources"])) for m in found)
    assert seen == [
        ("integration_sync", "Sync shop.import_prices: SUCCESS", 2),
        ("system_error", "ValueError in run/shop.charge: card of order 4711 was refused", 1),
        ("workflow_state", "shop.charge: FAILURE", 2),
    ]
    job = next(m for m in found if m["type"] == "workflow_state")
    assert job["outcome"] == "error"
    assert job["end_time_unix_nano"] is None
