"""One fact told several times is one memory, whatever the order and the batches of its reports."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.exporters.remembering import T0, log, made_of, request, span

from engram.exporters.merge import merge_frame

CLIENT, SERVER = bytes([1] * 8), bytes([2] * 8)
STACK = (
    'Traceback (most recent call last):\n  File "/app/pay.py", line 17, in charge\n'
    "    raise ConnectError(text)\nhttpx.ConnectError: [Errno 111] refused by 10.0.0.7:8443\n"
)
MESSAGE = "[Errno 111] refused by 10.0.0.7:8443"
EXCEPTION = {
    "exception.type": "httpx.ConnectError",
    "exception.message": MESSAGE,
    "exception.stacktrace": STACK,
}
# The logging handler names the bare class, and uvicorn's logger has no message of its own.
BARE = EXCEPTION | {"exception.type": "ConnectError"}

FAILURE = [
    span({"http.request.method": "GET", "url.full": "https://pay.test/v1"}, kind=3, name="GET",
         span_id=CLIENT, parent_span_id=SERVER, error=f"ConnectError: {MESSAGE}",
         events=[("exception", EXCEPTION)]),
    span({"http.method": "POST", "http.route": "/orders", "http.status_code": 500}, kind=2,
         name="POST /orders", span_id=SERVER, error=f"ConnectError: {MESSAGE}",
         events=[("exception", BARE)]),
    log(EXCEPTION | {"http.route": "/orders"}, event="http.server.request.exception", severity=17,
        body="Unhandled exception in FastAPI request", span_id=SERVER),
    log(BARE, severity=17, body="Exception in ASGI application", span_id=SERVER,
        time_unix_nano=T0 + 900),
]  # fmt: skip
CALL = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "anthropic",
    "gen_ai.request.model": "claude",
    "gen_ai.response.model": "claude-1",
    "gen_ai.response.id": "msg_1",
}
SAID = {
    "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "Why?"}]}],
    "gen_ai.output.messages": [
        {"role": "assistant", "parts": [{"type": "text", "content": "Because"}]}
    ],
}
LLM = [
    span(CALL, kind=3, name="chat claude", span_id=CLIENT, parent_span_id=SERVER),
    span(CALL | {"http.request.method": "POST"}, kind=3, name="anthropic.messages.create",
         span_id=bytes([3] * 8), parent_span_id=CLIENT),
    log(CALL | SAID, event="gen_ai.client.inference.operation.details", severity=0,
        span_id=CLIENT),
    span({"openinference.span.kind": "LLM", "llm.model_name": "claude-1",
          "llm.provider": "anthropic", "output.value": json.dumps({"id": "msg_1"}),
          "llm.input_messages.0.message.role": "user",
          "llm.input_messages.0.message.content": "Why?",
          "llm.output_messages.0.message.role": "assistant",
          "llm.output_messages.0.message.contents.0.message_content.type": "text",
          "llm.output_messages.0.message.contents.0.message_content.text": "Because"},
         name="messages.create", span_id=bytes([4] * 8)),
]  # fmt: skip
OLD = {"gen_ai.system": "openai", "gen_ai.request.model": "gpt"}
OLD_LLM = [
    span(OLD | {"gen_ai.operation.name": "chat", "gen_ai.response.id": "c1"}, kind=3),
    log(OLD, event="gen_ai.system.message", body={"content": "Be nice"}),
    log(OLD, event="gen_ai.user.message", body={"role": "user", "content": "Why?"}),
    log(OLD, event="gen_ai.choice", body={"index": 0, "finish_reason": "stop",
        "message": {"role": "assistant", "content": "Because"}}),
]  # fmt: skip
OLD_SPAN_EVENTS = [
    span(OLD | {"gen_ai.operation.name": "chat", "gen_ai.response.id": "c1"}, kind=3, events=[
        ("gen_ai.content.prompt", {"gen_ai.prompt": json.dumps([
            {"role": "system", "content": "Be nice"}, {"role": "user", "content": "Why?"}])}),
        ("gen_ai.content.completion", {"gen_ai.completion": json.dumps([
            {"role": "assistant", "content": "Because"}])}),
    ]),
]  # fmt: skip
OLD_ATTRIBUTES = [
    span(OLD | {"llm.request.type": "chat", "gen_ai.prompt.0.role": "system",
                "gen_ai.prompt.0.content": "Be nice", "gen_ai.prompt.1.role": "user",
                "gen_ai.prompt.1.content": "Why?", "gen_ai.completion.0.role": "assistant",
                "gen_ai.completion.0.content": "Because"}, kind=3),
]  # fmt: skip


def folded(batches: list[list[Any]]) -> list[dict[str, Any]]:
    """Memories of records that come in these batches, folded as the writer does."""
    found = pl.concat([made_of([request([r]) for r in batch]) for batch in batches if batch])
    return merge_frame(found).sort("id").to_dicts()


def of(type_: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    """The only memory of a type."""
    (memory,) = [m for m in found if m["type"] == type_]
    return memory


def test_one_failure_reported_four_ways() -> None:
    """Two span events, an event and a log of one exception are one error; the event speaks."""
    error = of("system_error", folded([FAILURE]))
    # A span and its event share a hash: four records told it.
    assert len(error["sources"]) == 4
    assert error["source"] == "event"
    assert json.loads(error["attributes"])["type"] == "httpx.ConnectError"
    assert json.loads(error["attributes"])["frame"] == "pay.py:charge"


@pytest.mark.parametrize("reports", [FAILURE, LLM, OLD_LLM], ids=["failure", "llm", "old llm"])
@given(st.data())
@settings(max_examples=25, deadline=None)
def test_any_order_and_split(reports: list[Any], data: st.DataObject) -> None:
    """Reports in any order, in any batches, some of them twice, give the same memories."""
    sent = data.draw(st.permutations(reports))
    again = data.draw(st.lists(st.sampled_from(range(len(reports))), max_size=3))
    sent = [*sent, *(reports[i] for i in again)]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=3)))
    batches = [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    assert folded(batches) == folded([reports])


def test_one_call_told_by_four() -> None:
    """Event, span, the library's own span and OpenInference's are one answer and one question."""
    found = folded([LLM])
    answer, question = of("ai_response", found), of("user_interaction", found)
    assert len(answer["sources"]) == 4
    assert (answer["title"], answer["content"]) == ("claude-1: Because", "Because")
    assert (question["content"], len(question["sources"])) == ("Why?", 2)


@pytest.mark.parametrize(
    ("reports", "told"), [(OLD_LLM, 2), (OLD_SPAN_EVENTS, 1), (OLD_ATTRIBUTES, 1)]
)
def test_old_dialects(reports: list[Any], told: int) -> None:
    """Messages in old events, in events on the span and in numbered attributes are read."""
    found = folded([reports])
    answer = of("ai_response", found)
    assert (answer["title"], answer["content"]) == ("gpt: Because", "Because")
    assert len(answer["sources"]) == told
    assert of("user_interaction", found)["content"] == "Why?"
    assert "system_event" not in [m["type"] for m in found]


def test_old_events_repeat_the_history() -> None:
    """Each message of an old call is a question, the same one again is not another."""
    first = log(OLD, event="gen_ai.user.message", body={"content": "Who?"})
    again = log(OLD, event="gen_ai.user.message", body={"content": "Who?"}, span_id=CLIENT)
    new = log(OLD, event="gen_ai.user.message", body={"content": "Why?"}, span_id=CLIENT)
    asked = folded([[first], [again, new]])
    assert sorted((m["content"], len(m["sources"])) for m in asked) == [("Who?", 2), ("Why?", 1)]


def test_message_sent_and_worked_on() -> None:
    """A message is one memory; that it failed is not hidden by that it was sent."""
    kafka = {
        "messaging.system": "kafka",
        "messaging.destination.name": "orders",
        "messaging.message.id": "m1",
    }
    sent = span(kafka | {"messaging.operation.type": "send"}, kind=4, span_id=CLIENT)
    done = span(kafka | {"messaging.operation.type": "process"}, kind=5, error="bad order")
    message = of("integration_sync", folded([[sent], [done]]))
    assert message["title"] == "Message from orders → error (15 ms)"
    assert (message["outcome"], len(message["sources"])) == ("error", 2)


def test_node_told_by_span_and_events() -> None:
    """A LangGraph node's event at its start and its span are one memory."""
    node = {"langgraph.node": "plan", "langgraph.step": 1, "langgraph.checkpoint_ns": "plan:9"}
    found = folded(
        [
            [log(node, event="engram.langgraph.node")],
            [span(node | {"langgraph.outcome": "{}"}, span_id=CLIENT)],
            [log(node | {"langgraph.success": True}, event="engram.langgraph.outcome")],
        ]
    )
    assert len(of("langgraph_node", found)["sources"]) == 2
    assert len(of("langgraph_outcome", found)["sources"]) == 2


def test_endpoint_arguments_join_the_request() -> None:
    """What an endpoint was called with is kept with the intent of its request."""
    found = folded(
        [
            [span({"engram.request.body": '{"q":1}', "code.function.name": "app.ask"},
                  name="fastapi.endpoint", parent_span_id=SERVER)],
            [span({"http.request.method": "POST", "http.route": "/ask"}, kind=2, span_id=SERVER)],
        ]
    )  # fmt: skip
    intent = of("request_intent", found)
    assert intent["title"] == "Intent: POST /ask"
    assert json.loads(intent["attributes"])["body"] == '{"q":1}'
