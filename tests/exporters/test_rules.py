"""Rules: each with a record that it takes and one that it nearly takes."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest

from engram.exporters.errors import ConfigError
from engram.exporters.memories import MEMORY_SCHEMA, memory_id
from engram.exporters.merge import PRIORITISED, canonical_object, merge_frame
from engram.exporters.rules import Kind, Rules

RULES = Rules.load()
T1 = "4bf92f3577b34da6a3ce929d0e0e4736"

_TYPES = {
    "kind": pl.Int32,
    "status_code": pl.Int32,
    "severity_number": pl.Int32,
    "content_hash": pl.UInt64,
    "span.kind": pl.Int32,
    "span.status_code": pl.Int32,
    "start_time_unix_nano": pl.Int64,
    "end_time_unix_nano": pl.Int64,
    "time_unix_nano": pl.Int64,
    "observed_time_unix_nano": pl.Int64,
}
_BASE: dict[Kind, dict[str, Any]] = {
    "span": {
        "trace_id": T1,
        "span_id": "00f067aa0ba902b7",
        "parent_span_id": None,
        "name": "work",
        "kind": 1,
        "start_time_unix_nano": 1_000_000_000,
        "end_time_unix_nano": 1_015_000_000,
        "status_code": 0,
        "status_message": "",
        "service_name": "shop",
        "scope_name": "lib",
        "attributes": "{}",
        "content_hash": 11,
    },
    "log": {
        "time_unix_nano": 1_010_000_000,
        "observed_time_unix_nano": 1_011_000_000,
        "severity_number": 9,
        "severity_text": "INFO",
        "body": None,
        "body_text": None,
        "event_name": None,
        "trace_id": T1,
        "span_id": "00f067aa0ba902b7",
        "service_name": "shop",
        "scope_name": "myapp",
        "attributes": "{}",
        "content_hash": 12,
    },
    "span_event": {
        "time_unix_nano": 1_012_000_000,
        "name": "exception",
        "attributes": "{}",
        "trace_id": T1,
        "span_id": "00f067aa0ba902b7",
        "parent_span_id": None,
        "service_name": "shop",
        "scope_name": "lib",
        "content_hash": 11,
        "span.name": "GET /boom",
        "span.kind": 2,
        "span.status_code": 2,
        "span.status_message": "",
        "span.attributes": "{}",
    },
}


def record(of: Kind, attrs: dict[str, Any] | None = None, /, **fields: Any) -> dict[str, Any]:
    """One row as the decoder makes it."""
    row = {**_BASE[of], **fields}
    if isinstance(body := row.get("body"), str | dict):
        row["body"] = json.dumps(body)
        row["body_text"] = body if isinstance(body, str) else row["body"]
    if attrs:
        row["attributes"] = json.dumps(attrs)
        for key, value in attrs.items():
            text = value if isinstance(value, str) else json.dumps(value)
            row[f"attr:{key}"] = text
    return row


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Rows as the decoder's frame: a column for every wanted key that occurs."""
    wanted = {f"{p}{k}" for p in ("attr:", "span.attr:") for k in RULES.wanted}
    wanted |= {f"res:{k}" for k in RULES.resource_wanted}
    names = list(dict.fromkeys(n for row in rows for n in row if ":" not in n or n in wanted))
    return pl.DataFrame(
        {n: pl.Series([r.get(n) for r in rows], dtype=_TYPES.get(n, pl.String)) for n in names}
    )


def apply(kind: Kind, *rows: dict[str, Any], rules: Rules = RULES) -> list[dict[str, Any]]:
    """The memories of some rows."""
    memories = rules.apply(frame(list(rows)), kind)
    assert dict(memories.schema) == MEMORY_SCHEMA
    for memory in memories.to_dicts():
        assert memory["attributes"] == canonical_object(memory["attributes"])
        assert memory["tags"] == sorted(set(memory["tags"]))
        assert len(memory["title"]) <= 120
        for digit, name in zip(memory["ranks"], PRIORITISED, strict=True):
            assert (digit == "0") == (memory[name] is None)
    return memories.to_dicts()


def one(kind: Kind, type_: str, *rows: dict[str, Any]) -> dict[str, Any]:
    """The one memory of a type."""
    (memory,) = [m for m in apply(kind, *rows) if m["type"] == type_]
    return memory | {"attributes": json.loads(memory["attributes"])}


def types(kind: Kind, *rows: dict[str, Any]) -> list[str]:
    """The types of memories, sorted."""
    return sorted(m["type"] for m in apply(kind, *rows))


def merged(*parts: tuple[Kind, dict[str, Any]]) -> list[dict[str, Any]]:
    """The memories of records of several kinds, folded."""
    frames = [RULES.apply(frame([row]), kind) for kind, row in parts]
    return merge_frame(pl.concat(frames)).to_dicts()


# --- explicit marks


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("log", record("log", event_name="engram.business_decision")),
        ("log", record("log", {"event.name": "engram.business_decision"})),
        ("log", record("log", {"engram.memory.type": "business_decision"}, severity_number=17)),
        (
            "span",
            record("span", {"engram.memory.type": "business_decision"}, kind=2, status_code=2),
        ),
        ("span_event", record("span_event", name="engram.business_decision")),
    ],
)
def test_mark(kind: Kind, row: dict[str, Any]) -> None:
    """An explicit mark of any form wins over what would be inferred."""
    (memory,) = apply(kind, row)
    assert memory["type"] == "business_decision"
    assert memory["source"] == "mark"
    assert set(memory["ranks"]) <= {"0", "6"}
    assert memory["importance"] == pytest.approx(0.8)


def test_mark_fields() -> None:
    """A mark's own title, importance, tags, subject and payload are honoured."""
    attrs = {
        "engram.memory.type": "business_decision",
        "engram.title": "Loan 42",
        "engram.importance": 0.9,
        "engram.tags": ["b", "a"],
        "engram.subject": "loan:42",
        "user.id": "u1",
        "session.id": "s1",
        "gen_ai.conversation.id": "c1",
        "decision": "approve",
        "amount": 1200,
        "inputs": {"score": 0.9},
    }
    memory = one("log", "business_decision", record("log", attrs, body="Approved loan"))
    assert memory["title"] == "Loan 42"
    assert memory["content"].splitlines() == [
        "Loan 42",
        "Approved loan",
        "decision: approve",
        "amount: 1200",
        'inputs: {"score": 0.9}',
    ]
    assert memory["attributes"] == {"amount": 1200, "decision": "approve", "inputs": {"score": 0.9}}
    assert {"a", "b", "service:shop", "signal:log"} <= set(memory["tags"])
    assert memory["importance"] == pytest.approx(0.9)
    assert [memory[k] for k in ("subject", "user_id", "session_id", "conversation_id")] == [
        "loan:42",
        "u1",
        "s1",
        "c1",
    ]
    assert memory["index_as"] == "memory"


def test_mark_with_a_map_as_body() -> None:
    """A map body is readable content and stays whole in the attributes."""
    row = record("log", event_name="engram.calculation_result", body={"vat": 19.2})
    memory = one("log", "calculation_result", row)
    assert "vat: 19.2" in memory["content"]
    assert memory["attributes"] == {"body": {"vat": 19.2}}


def test_mark_of_a_span() -> None:
    """A marked span has its name as title and its duration and outcome for free."""
    memory = one("span", "workflow_state", record("span", {"engram.memory.type": "workflow_state"}))
    assert (memory["title"], memory["duration_ns"], memory["outcome"]) == ("work", 15_000_000, "ok")


def test_mark_types() -> None:
    """Own types are kept, the alias is translated, anything else is a tagged system_event."""
    assert types("log", record("log", event_name="engram.lunch_order")) == ["lunch_order"]
    alias = record("log", event_name="engram.performance_optimization")
    assert types("log", alias) == ["optimization"]
    memory = one("log", "system_event", record("log", event_name="engram.Not A Type"))
    assert "unmapped:Not A Type" in memory["tags"]
    assert memory["source"] == "mark"


def test_mark_identity() -> None:
    """A mark is its own content; an engram.id makes several records one memory."""
    a = record("log", event_name="engram.ai_insight", content_hash=1)
    (first,), (again,), (other,) = (
        apply("log", a),
        apply("log", a),
        apply("log", a | {"content_hash": 2}),
    )
    assert first["id"] == again["id"] != other["id"]
    b = record("log", {"engram.id": "i1"}, event_name="engram.ai_insight", content_hash=1)
    (first,), (other,) = apply("log", b), apply("log", b | {"content_hash": 2})
    assert first["id"] == other["id"] == memory_id("ai_insight", "", "id:i1")
    (browser,) = apply("log", b | {"res:telemetry.sdk.language": "webjs"})
    assert browser["id"] != first["id"]  # a browser cannot overwrite an app's memory
    assert browser["trust"] == "browser"


def test_no_mark() -> None:
    """An event that only looks like ours is none."""
    assert (
        one("log", "system_event", record("log", event_name="engrams.decision"))["source"]
        == "event"
    )


# --- requests and calls

NEW = {
    "http.request.method": "POST",
    "http.route": "/ask",
    "url.path": "/ask",
    "http.response.status_code": 200,
}
OLD = {
    "http.method": "POST",
    "http.route": "/ask",
    "http.target": "/ask?x=1",
    "http.status_code": 200,
}


@pytest.mark.parametrize("attrs", [NEW, OLD])
def test_request(attrs: dict[str, Any]) -> None:
    """A server span is an intent and an outcome, in old names and new."""
    row = record("span", attrs, kind=2, name="POST /ask")
    assert types("span", row) == ["request_intent", "request_outcome"]
    intent, outcome = one("span", "request_intent", row), one("span", "request_outcome", row)
    assert intent["title"] == "Intent: POST /ask"
    assert intent["importance"] == pytest.approx(0.45)
    assert (intent["end_time_unix_nano"], intent["duration_ns"]) == (None, None)
    assert outcome["title"] == "POST /ask → 200 in 15 ms"
    assert outcome["attributes"] == {
        "method": "POST",
        "path": "/ask",
        "route": "/ask",
        "status": 200,
    }
    assert (outcome["outcome"], outcome["index_as"], outcome["subject"]) == (
        "ok",
        "template",
        "/ask",
    )
    assert outcome["ranks"][0] == "1"
    assert outcome["id"] == memory_id("request_outcome", T1, "00f067aa0ba902b7")


@pytest.mark.parametrize(
    ("status", "end", "importance", "outcome"),
    [
        (200, 0, 0.2, "ok"),
        (404, 0, 0.5, None),
        (500, 0, 0.85, "error"),
        (200, 2, 0.4, "ok"),
        (500, 2, 1, "error"),
    ],
)
def test_request_importance(status: int, end: int, importance: float, outcome: str | None) -> None:
    """Failed and slow requests matter more; a 4xx is neither ok nor error."""
    times = {"end_time_unix_nano": 1_015_000_000 + end * 10**9}
    row = record("span", NEW | {"http.response.status_code": status}, kind=2, **times)
    memory = one("span", "request_outcome", row)
    assert memory["importance"] == pytest.approx(importance)
    assert memory["outcome"] == outcome


def test_rpc_request() -> None:
    """A gRPC server span is a request too."""
    attrs = {
        "rpc.system": "grpc",
        "rpc.service": "shop.Cart",
        "rpc.method": "Add",
        "rpc.grpc.status_code": 0,
    }
    assert (
        one("span", "request_outcome", record("span", attrs, kind=2))["title"]
        == "shop.Cart/Add → 0 in 15 ms"
    )


def test_no_request() -> None:
    """An internal span with HTTP attributes is no request."""
    assert types("span", record("span", NEW)) == []


@pytest.mark.parametrize(
    "attrs",
    [
        {
            "http.request.method": "GET",
            "url.full": "https://u@api.stripe.com:443/v1/c?k=1",
            "http.response.status_code": 200,
        },
        {
            "http.method": "GET",
            "http.url": "https://api.stripe.com:443/v1/c?k=1",
            "http.status_code": 200,
        },
        {
            "http.request.method": "GET",
            "server.address": "api.stripe.com:443",
            "url.path": "/v1/c",
            "http.response.status_code": 200,
        },
    ],
)
def test_api_call(attrs: dict[str, Any]) -> None:
    """A client span over HTTP is a call, without its query."""
    memory = one("span", "api_call", record("span", attrs, kind=3, name="GET"))
    assert memory["title"] == "GET api.stripe.com:443/v1/c → 200 (15 ms)"
    assert memory["attributes"] == {
        "host": "api.stripe.com:443",
        "method": "GET",
        "path": "/v1/c",
        "status": 200,
    }
    assert memory["importance"] == pytest.approx(0.2)


def test_failed_api_call() -> None:
    """A call that the other side refused is an error, but no system_error."""
    attrs = {"http.request.method": "GET", "server.address": "h", "http.response.status_code": 429}
    row = record("span", attrs, kind=3, status_code=2)
    assert types("span", row) == ["api_call"]
    assert one("span", "api_call", row)["outcome"] == "error"


@pytest.mark.parametrize(
    "attrs",
    [
        {"db.system.name": "postgresql", "server.address": "db"},
        {"db.system": "elasticsearch", "http.request.method": "POST"},
        {"gen_ai.operation.name": "embeddings", "http.request.method": "POST"},
    ],
)
def test_no_api_call(attrs: dict[str, Any]) -> None:
    """Databases and GenAI calls are no api_call."""
    assert types("span", record("span", attrs, kind=3)) == []


# --- LLM calls

ASKED = [
    {"role": "system", "parts": [{"type": "text", "content": "Be nice"}]},
    {"role": "user", "parts": [{"type": "text", "content": "Old"}]},
    {"role": "assistant", "parts": [{"type": "text", "content": "Ok"}]},
    {
        "role": "user",
        "parts": [{"type": "text", "content": 'Hi\n"GPT"'}, {"type": "blob", "modality": "image"}],
    },
]
TOLD = [
    {
        "role": "assistant",
        "parts": [{"type": "text", "content": "Hello there"}],
        "finish_reason": "stop",
    }
]
LLM = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-x",
    "gen_ai.response.model": "gpt-x-0",
    "gen_ai.response.id": "c1",
    "gen_ai.usage.input_tokens": 11,
    "gen_ai.response.finish_reasons": ["stop"],
    "gen_ai.conversation.id": "T1",
}
DETAILS = "gen_ai.client.inference.operation.details"


def test_llm_span_and_event() -> None:
    """Span and event of one LLM call are one response and one question; the event speaks."""
    span = record("span", LLM, kind=3, name="chat gpt-x")
    event = record(
        "log",
        LLM | {"gen_ai.input.messages": ASKED, "gen_ai.output.messages": TOLD},
        event_name=DETAILS,
        severity_number=0,
    )
    memories = {m["type"]: m for m in merged(("span", span), ("log", event))}
    assert set(memories) == {"ai_response", "user_interaction"}
    answer, question = memories["ai_response"], memories["user_interaction"]
    assert answer["title"] == "gpt-x-0: Hello there"
    assert answer["content"] == "Hello there"
    assert answer["duration_ns"] == 15_000_000
    assert answer["sources"] == [11, 12]
    assert (answer["ranks"][0], answer["source"], answer["outcome"]) == ("5", "event", "ok")
    assert json.loads(answer["attributes"])["finish_reasons"] == ["stop"]
    assert json.loads(answer["attributes"])["input_tokens"] == 11
    assert question["title"] == 'Hi "GPT"'
    assert question["content"] == 'Hi\n"GPT"'
    assert json.loads(question["attributes"])["attachments"] == ["image"]
    assert question["conversation_id"] == "T1"


def test_llm_span_alone() -> None:
    """Messages as JSON text on the span are read as well, and give the same ids."""
    attrs = LLM | {
        "gen_ai.input.messages": json.dumps(ASKED),
        "gen_ai.output.messages": json.dumps(TOLD),
    }
    span = apply("span", record("span", attrs, kind=3))
    event = apply("log", record("log", attrs, event_name=DETAILS))
    assert {m["id"] for m in span} == {m["id"] for m in event}
    assert {m["content"] for m in span} == {"Hello there", 'Hi\n"GPT"'}


def test_llm_tool_call() -> None:
    """A tool call is a response; the call that follows its result asks nothing new."""
    call = [
        {
            "role": "assistant",
            "parts": [
                {"type": "tool_call", "id": "1", "name": "weather", "arguments": {"city": "Paris"}}
            ],
        }
    ]
    memory = one(
        "span", "ai_response", record("span", LLM | {"gen_ai.output.messages": call}, kind=3)
    )
    assert memory["title"] == 'gpt-x-0 calls weather({"city":"Paris"})'
    assert memory["attributes"]["tool_calls"] == [
        {"name": "weather", "arguments": {"city": "Paris"}}
    ]
    assert memory["importance"] == pytest.approx(0.5)
    result = [
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "response": "sun"}]}
    ]
    loop = record("span", LLM | {"gen_ai.input.messages": [*ASKED, *call, *result]}, kind=3)
    assert types("span", loop) == ["ai_response"]


def test_llm_failure() -> None:
    """A failed call is a response with outcome error, and a failure."""
    attrs = {k: v for k, v in LLM.items() if "response" not in k} | {
        "error.type": "openai.BadRequestError"
    }
    row = record("span", attrs, kind=3, status_code=2, status_message="Error code: 400 - bad thing")
    assert types("span", row) == ["ai_response", "system_error"]
    memory = one("span", "ai_response", row)
    assert memory["title"] == "gpt-x failed: openai.BadRequestError"
    assert (memory["outcome"], memory["importance"]) == ("error", pytest.approx(0.8))
    event = apply("log", record("log", attrs, event_name=DETAILS))
    assert [m["id"] for m in event] == [memory["id"]]


@pytest.mark.parametrize("cut", range(30, 200, 7))
def test_llm_messages_cut_by_the_sdk(cut: int) -> None:
    """JSON that an SDK cut in the middle still gives what is left of it."""
    text = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "word " * 60}]}])
    start = text.index("word")
    found = [
        m
        for m in apply("span", record("span", LLM | {"gen_ai.input.messages": text[:cut]}, kind=3))
        if m["type"] == "user_interaction"
    ]
    assert bool(found) == (cut > start)
    if found:
        assert found[0]["content"].startswith("w")


@pytest.mark.parametrize(
    "text", ["", "[", "{", "null", "[1,null]", '"x"', '[{"role":"user","parts":7}]', "nonsense"]
)
def test_llm_messages_of_no_sense(text: str) -> None:
    """Whatever stands in the messages, the call itself is remembered."""
    attrs = LLM | {
        "gen_ai.input.messages": text,
        "gen_ai.output.messages": text,
        "gen_ai.response.finish_reasons": "[cut",
    }
    memory = one("span", "ai_response", record("span", attrs, kind=3))
    assert memory["attributes"]["finish_reasons"] == "[cut"
    assert memory["title"] == "gpt-x-0: content not captured"


def test_no_llm_call() -> None:
    """Agent and tool spans of the dialect are no LLM call."""
    tool = record("span", {"gen_ai.operation.name": "execute_tool"})
    assert types("span", tool) == ["api_call"]
    assert types("span", record("span", {"gen_ai.operation.name": "embeddings"})) == []


# --- failures

STACK = """Traceback (most recent call last):
  File "/venv/lib/python3.11/site-packages/fastapi/routing.py", line 151, in __call__
    await self.app()
  File "/app/app.py", line 14, in boom
    raise ValueError("kaboom 17")
ValueError: kaboom 17
"""
EXCEPTION = {
    "exception.type": "ValueError",
    "exception.message": "kaboom 17",
    "exception.stacktrace": STACK,
}


def test_one_failure_reported_five_times() -> None:
    """Span events, event, log and status of one failure are one memory; the event speaks."""
    loose = EXCEPTION | {"exception.type": "shop.errors.ValueError"}
    (memory,) = [
        m
        for m in merged(
            ("span_event", record("span_event", EXCEPTION)),
            (
                "span_event",
                record(
                    "span_event", loose, **{"span.kind": 3, "span.name": "GET", "content_hash": 4}
                ),
            ),
            (
                "log",
                record(
                    "log",
                    EXCEPTION,
                    severity_number=17,
                    event_name="http.server.request.exception",
                    body="Unhandled",
                    content_hash=5,
                ),
            ),
            (
                "log",
                record(
                    "log",
                    EXCEPTION | {"exception.message": "kaboom 18"},
                    severity_number=17,
                    body="caught",
                    content_hash=6,
                ),
            ),
            (
                "span",
                record(
                    "span", status_code=2, status_message="ValueError: kaboom 17", content_hash=7
                ),
            ),
            ("span", record("span", status_code=2, status_message="kaboom 17", content_hash=8)),
        )
        if m["type"] == "system_error"
    ]
    assert memory["sources"] == [4, 5, 6, 7, 8, 11]
    assert memory["source"] == "event"
    assert memory["importance"] == pytest.approx(0.8)
    assert json.loads(memory["attributes"])["stacktrace"] == STACK


def test_failure_fields() -> None:
    """A failure says what, where, and has its whole stack."""
    memory = one("span_event", "system_error", record("span_event", EXCEPTION))
    assert memory["title"] == "ValueError in GET /boom: kaboom 17"
    assert "at app.py:boom" in memory["content"]
    assert memory["attributes"]["frame"] == "app.py:boom"
    assert memory["attributes"]["stacktrace"] == STACK
    assert (memory["outcome"], memory["ranks"][0]) == ("error", "3")
    other = EXCEPTION | {"exception.message": "kaboom 4711"}
    assert (
        one("span_event", "system_error", record("span_event", other))["fingerprint"]
        == memory["fingerprint"]
    )
    elsewhere = EXCEPTION | {"exception.stacktrace": STACK.replace("boom\n", "bang\n", 1)}
    row = record("span_event", elsewhere)
    assert one("span_event", "system_error", row)["fingerprint"] != memory["fingerprint"]


def test_failures_differ() -> None:
    """Other messages, and other traces, are other failures."""
    a, b = (
        record("span_event", EXCEPTION),
        record("span_event", EXCEPTION | {"exception.message": "other"}),
    )
    c = record("span_event", EXCEPTION, trace_id="f" * 32)
    assert len({m["id"] for m in apply("span_event", a, b, c)}) == 3


def test_failure_without_a_trace() -> None:
    """Without a trace each report stays alone."""
    rows = [
        record("log", EXCEPTION, trace_id=None, span_id=None, content_hash=h) for h in (1, 2, 1)
    ]
    assert len({m["id"] for m in apply("log", *rows)}) == 2


@pytest.mark.parametrize(
    ("stack", "frame_"),
    [
        (
            "java.lang.IllegalStateException: x\n\tat java.base/java.util.List.get(List.java:1)\n"
            "\tat org.springframework.A.b(A.java:2)\n\tat com.acme.Cart.add(Cart.java:42)",
            "Cart.java:Cart.add",
        ),
        (
            "TypeError: x\n    at Module.load (node:internal/modules:1:1)\n"
            "    at f (/app/node_modules/x/i.js:3:4)\n    at addItem (/app/src/cart.js:10:5)",
            "cart.js:addItem",
        ),
        (
            "addItem@https://shop.io/static/app.js?v=1:10:5\nf@https://shop.io/x.js:1:1",
            "app.js:addItem",
        ),
        (
            "goroutine 1 [running]:\nruntime.panic(0x1)\n\t/usr/local/go/src/runtime/p.go:1 +0x1"
            "\nmain.add(0x2)\n\t/app/cart.go:42 +0x2",
            "cart.go:main.add",
        ),
        ("no stack at all", None),
    ],
)
def test_frames(stack: str, frame_: str | None) -> None:
    """The innermost frame of the app is found in the stacks of four languages."""
    row = record("span_event", EXCEPTION | {"exception.stacktrace": stack})
    assert one("span_event", "system_error", row)["attributes"].get("frame") == frame_


@pytest.mark.parametrize(
    ("row", "failed"),
    [
        (record("span", status_code=2, status_message="it broke"), True),
        (record("span", status_code=2), True),  # nothing else can say it
        (record("span", status_code=1, status_message="it broke"), False),
        (record("span", {"error.type": "503"}, kind=2, status_code=2), True),
        (
            record("span", {"error.type": "ValueError"}, kind=2, status_code=2),
            False,
        ),  # reported by itself
        (record("span", NEW | {"http.response.status_code": 500}, kind=2, status_code=2), False),
        (record("span", kind=5, status_code=2), True),
        (record("span", kind=4, status_code=2, status_message="x"), False),
        (
            record(
                "span",
                NEW | {"http.response.status_code": 404},
                kind=3,
                status_code=2,
                status_message="x",
            ),
            False,
        ),
        (record("span", NEW, kind=3, status_code=2, status_message="ConnectError: refused"), True),
    ],
)
def test_failed_spans(row: dict[str, Any], failed: bool) -> None:
    """A failed span is a failure of its own only when no exception report can say more."""
    assert ("system_error" in types("span", row)) == failed


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (record("log", severity_number=17, body="it broke"), ["system_error"]),
        (record("log", {"exception.message": "x"}, severity_number=13), ["system_error"]),
        (record("log", severity_number=16, body="hot"), ["system_event"]),
        (record("log", severity_number=13, body="hot"), ["system_event"]),
        (record("log", severity_number=12, body="fine"), []),
        (record("log", event_name="fastapi.validation.failed"), ["system_event"]),
        (record("log", {"event.name": "shop.opened"}), ["system_event"]),
    ],
)
def test_logs(row: dict[str, Any], expected: list[str]) -> None:
    """Errors, warnings and named events are remembered; plain INFO logs are not."""
    assert types("log", row) == expected


def test_log_levels() -> None:
    """A fatal log matters most, a caught and logged exception less."""
    fatal = record("log", severity_number=21, body="down")
    assert one("log", "system_error", fatal)["importance"] == pytest.approx(0.95)
    caught = record("log", EXCEPTION, severity_number=17, body="caught")
    assert one("log", "system_error", caught)["importance"] == pytest.approx(0.6)
    assert (
        one("log", "system_event", record("log", severity_number=13, body="hot"))["title"] == "hot"
    )


def test_ui_error() -> None:
    """An exception in a browser is a ui_error, and only as trustworthy as a browser."""
    row = record("log", EXCEPTION, severity_number=17, **{"res:telemetry.sdk.language": "webjs"})
    (memory,) = apply("log", row)
    assert (memory["type"], memory["trust"]) == ("ui_error", "browser")


# --- the machinery


def test_content_and_title_are_capped() -> None:
    """Content ends at a word within 8 kB, a title within 120 characters, both with an ellipsis."""
    (memory,) = apply("log", record("log", severity_number=13, body="wörd " * 4000))
    assert len(memory["content"].encode()) <= 8192
    assert memory["content"].endswith("wörd…")
    assert memory["title"].endswith("…")


@pytest.mark.parametrize("text", ['"', "\\", "\n", "\x00", "},{", '":null,"', "é\u2028", "{", "a,"])
def test_attributes_are_json(text: str) -> None:
    """Any text survives in the attributes of a memory."""
    row = record("span", NEW | {"http.route": text}, kind=2)
    assert one("span", "request_outcome", row)["attributes"]["route"] == text


def test_rows_do_not_influence_each_other() -> None:
    """A batch makes the memories of its records one by one, whatever columns others bring."""
    rows = [
        record("span", NEW, kind=2, span_id="1" * 16),
        record("span", LLM, kind=3, span_id="2" * 16),
        record("span", {"engram.memory.type": "x_y"}, span_id="3" * 16),
        record("span", status_code=2, status_message="bad", span_id="4" * 16),
    ]
    together = sorted(apply("span", *rows), key=lambda m: m["id"])
    alone = sorted((m for row in rows for m in apply("span", row)), key=lambda m: m["id"])
    assert together == alone


@pytest.mark.parametrize("kind", ["span", "log", "span_event"])
def test_empty_batch(kind: Kind) -> None:
    """No records, no memories, the same columns."""
    assert dict(RULES.apply(frame([record(kind)]).clear(), kind).schema) == MEMORY_SCHEMA


def test_extra_rules() -> None:
    """An operator's rule is added, takes the place of a shipped one, or switches one off."""
    extra: list[dict[str, Any]] = [
        {
            "name": "deploy",
            "type": "deployment",
            "signal": "log",
            "when": {"value": "event", "is": "ci.deploy"},
            "title": "Deployed {attr:version}",
            "attributes": {"version": "attr:version"},
        },
        {"name": "system_event", "enabled": False},
    ]
    rules = Rules.load(extra)
    assert rules.version != RULES.version
    assert "version" in rules.wanted
    row = record("log", event_name="ci.deploy") | {"attr:version": "1.2"}
    memories = rules.apply(
        pl.DataFrame([row]).with_columns(pl.col("content_hash").cast(pl.UInt64)), "log"
    )
    assert memories["title"].to_list() == ["Deployed 1.2"]
    assert memories["attributes"].to_list() == ['{"version":"1.2"}']


def test_all_problems_at_once() -> None:
    """Every mistake in a rule is named, with its place and the nearest known name."""
    bad = {
        "name": "x",
        "type": "x",
        "signal": "spam",
        "when": {"value": "nam", "iz": 1},
        "titel": "x",
        "title": "{http_metod}",
        "read": "failur",
        "index_as": "book",
        "attributes": {"a b": "=x"},
    }
    with pytest.raises(ConfigError) as caught:
        Rules.load([bad, {"name": "y", "type": "y"}])
    text = "\n".join(caught.value.problems)
    for part in (
        "'titel'",
        "'title'?",
        "'span'?",
        "'is'?",
        "'http_method'?",
        "'failure'?",
        "rules.x.index_as",
        "'a b'",
        "rules.y: missing: signal, when, title",
    ):
        assert part in text


def test_version_is_stable() -> None:
    """The same rules have the same version: 12 hex digits."""
    assert Rules.load().version == RULES.version
    assert len(RULES.version) == 12
    int(RULES.version, 16)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"rank": 6}, "rules.x.rank: 6 is no rank: 1 to 5"),
        ({"subject": {"member": "name"}}, "'member' and 'key' belong together"),
        ({"subject": {"member": "name", "key": "a.b"}}, "'a.b': a name of letters"),
        ({"subject": {"item": "nam"}}, "unknown source 'nam'"),
        ({"signal": "metrics"}, "did you mean 'metric'?"),
    ],
)
def test_new_words_are_checked(change: dict[str, Any], problem: str) -> None:
    """Ranks, members and items are checked when the rules are loaded."""
    rule = {"name": "x", "type": "x", "signal": "span", "when": {"present": "name"}, "title": "x"}
    with pytest.raises(ConfigError, match=problem):
        Rules.load([rule | change])


def test_rank_member_and_item() -> None:
    """A rule can say who speaks, and look into JSON."""
    extra: list[dict[str, Any]] = [
        {
            "name": "deploy",
            "type": "deployment",
            "signal": "log",
            "when": {"present": "attr:what"},
            "title": "Deployed",
            "subject": {"member": "attr:what", "key": "app"},
            "fingerprint": {"item": "attr:who"},
            "rank": 2,
        },
    ]
    rules = Rules.load(extra)
    rows = [
        record("log") | {"attr:what": '{"app":"shop"}', "attr:who": '["ann","bob"]'},
        record("log") | {"attr:what": "cut{", "attr:who": "ann"},
    ]
    columns = pl.DataFrame(rows).with_columns(
        pl.col("content_hash").cast(pl.UInt64), pl.col(pl.Null).cast(pl.String)
    )
    found = rules.apply(columns, "log").to_dicts()
    assert [m["subject"] for m in found] == ["shop", None]
    assert [m["fingerprint"] for m in found] == ["ann", "ann"]
    assert {m["ranks"][0] for m in found} == {"2"}
