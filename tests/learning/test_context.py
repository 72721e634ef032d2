"""A memory with what belongs to it: by SQL from any DuckDB, and by one function."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.learning.home import Collecting
from tests.telemetry import STACK, T0, attributes, span_id, trace_id

from engram.exporters.errors import BadRequest, NotFound
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_read_only
from engram.exporters.signals import Signal
from engram.learning.context import context, error_context
from engram.learning.enrich import Enricher

_S = 10**9
_CHAIN = (
    'Traceback (most recent call last):\n  File "/app/pay.py", line 3, in send\n'
    "ConnectionError: refused\n\n"
    "The above exception was the direct cause of the following exception:\n\n" + STACK
)
_WHOSE = {"user.id": "u1", "session.id": "s1"}


def _span(trace: int, own_id: int, parent: int, name: str, at: int, ms: int, **more: Any) -> Span:
    made = Span(
        trace_id=trace_id(trace), span_id=span_id(trace * 100 + own_id), name=name,
        parent_span_id=span_id(trace * 100 + parent) if parent else b"", kind=more.pop("kind", 1),
        start_time_unix_nano=T0 + at, end_time_unix_nano=T0 + at + ms * 10**6,
    )  # fmt: skip
    made.attributes.extend(attributes(more.pop("says", {})))
    assert not more
    return made


def _log(trace: int, of: int, at: int, said: str, name: str = "", **says: Any) -> LogRecord:
    made = LogRecord(
        time_unix_nano=T0 + at, event_name=name, severity_text="INFO",
        severity_number=SeverityNumber.SEVERITY_NUMBER_INFO,
        attributes=attributes({key.replace("_", "."): value for key, value in says.items()}),
    )  # fmt: skip
    if trace:
        made.trace_id, made.span_id = trace_id(trace), span_id(trace * 100 + of)
    made.body.string_value = said
    return made


def _request(trace: int, at: int, status: int, path: str) -> Span:
    made = _span(
        trace, 1, 0, f"POST {path}", at, 900, kind=2,
        says={"http.request.method": "POST", "http.route": path, "url.path": path,
              "url.query": "page=1&token=s3cr3t", "http.response.status_code": status, **_WHOSE},
    )  # fmt: skip
    if status >= 500:
        made.status.code = Status.STATUS_CODE_ERROR
    return made


@pytest.fixture(scope="module")
def collecting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collecting]:
    """A session: a click, a request that works, and ten seconds later one that fails."""
    made = Collecting(Home(tmp_path_factory.mktemp("context") / "home"))
    chat = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m-1",
            "gen_ai.provider.name": "openai", "gen_ai.response.id": "r1",
            "gen_ai.usage.input_tokens": 11, "gen_ai.conversation.id": "c1"}  # fmt: skip
    failed = _span(2, 3, 2, "POST", 10 * _S + 10**8, 300, kind=3,
                   says={"http.request.method": "POST", "url.full": "https://pay.test/pay",
                         "http.response.status_code": 504})  # fmt: skip
    failed.status.code = Status.STATUS_CODE_ERROR
    failed.events.add(
        name="exception", time_unix_nano=T0 + 10 * _S + 4 * 10**8,
        attributes=attributes({"exception.type": "TimeoutError", "exception.stacktrace": _CHAIN,
                               "exception.message": "gateway did not answer"}),
    )  # fmt: skip
    records = [
        _log(0, 0, 1 * _S, "click #buy", "engram.user_action", session_id="s1", user_id="u1"),
        _log(0, 0, 2 * _S, "click of somebody else", "engram.user_action", session_id="s2"),
        _log(0, 0, -9999 * _S, "click long ago", "engram.user_action", session_id="s1"),
        _request(1, 3 * _S, 200, "/basket"),
        _request(2, 10 * _S, 500, "/orders"),
        _span(2, 2, 1, "place", 10 * _S + 1, 800,
              says={"engram.request.arguments": '{"order": 7}'}),
        failed,
        _log(2, 2, 10 * _S + 2 * 10**8, "order 7 is paid now"),
        _log(2, 2, 11 * _S, "after it"),
        _span(2, 4, 2, "chat m-1", 10 * _S + 10**7, 50, kind=3, says=chat | {
            "gen_ai.input.messages": json.dumps([{"role": "user", "content": "Is it safe?"}]),
            "gen_ai.output.messages": json.dumps([{"role": "assistant", "content": "Yes."}])}),
    ]  # fmt: skip
    # In the worst order, each alone; with a resource that says versions.
    for record in reversed(records):
        made.send(record)
    traces = ExportTraceServiceRequest()
    one = traces.resource_spans.add()
    one.resource.attributes.extend(
        attributes({"service.name": "worker", "service.version": "2.1",
                    "deployment.environment.name": "production", "telemetry.sdk.version": "1.45"})
    )  # fmt: skip
    alone = _span(3, 1, 0, "nightly", 50 * _S, 5)
    alone.status.code, alone.status.message = Status.STATUS_CODE_ERROR, "disk full"
    one.scope_spans.add().spans.append(alone)
    made.admit(Signal.TRACES, traces.SerializeToString())
    made.commit()
    enricher = Enricher(made.home)
    enricher.step()
    enricher.close()
    made.commit()
    yield made
    made.close()


@pytest.fixture
def lake(collecting: Collecting) -> Iterator[duckdb.DuckDBPyConnection]:
    """Another process' connection, which has not said USE."""
    with attach_read_only(collecting.home) as connection:
        connection.execute("USE memory")
        yield connection


def one(lake: duckdb.DuckDBPyConnection, where: str) -> str:
    """The id of a memory."""
    ((found,),) = lake.execute(f"SELECT id FROM lake.memories WHERE {where}").fetchall()
    return str(found)


def test_the_whole_story_of_an_error(lake: duckdb.DuckDBPyConnection) -> None:
    """Type, message, stack, causes; request, user, session; before, models, calls, outcome."""
    id_ = one(lake, "type = 'system_error' AND service_name = 'shop'")
    told = error_context(lake, id_)
    assert (told["type"], told["message"]) == ("TimeoutError", "gateway did not answer")
    assert told["stacktrace"] == _CHAIN
    assert [(one["type"], one["how"]) for one in told["causes"]] == [
        ("TimeoutError", "raised"), ("ConnectionError", "direct cause"),
    ]  # fmt: skip
    assert (told["user_id"], told["session_id"], told["conversation_id"]) == ("u1", "s1", "c1")
    request = told["request"]
    assert (request["method"], request["route"], request["status"]) == ("POST", "/orders", 500)
    assert request["query"] == "page=1&token=REDACTED" or "s3cr3t" not in request["query"]
    assert request["arguments"] == '{"order": 7}'
    assert request["came_to"] == "POST /orders → 500 in 900 ms"
    assert request["failed_after_ms"] == 400
    assert (told["service"]["name"], told["service"]["version"]) == ("shop", "1.0")
    before = [(one["what"], one["title"], one["seconds_before"]) for one in told["before"]]
    assert before == [
        ("user_action", "click #buy", 9.4),
        ("request_outcome", "POST /basket → 200 in 900 ms", 7.4),
        ("request_intent", "Intent: POST /basket", 7.4),
        ("request_intent", "Intent: POST /orders", 0.4),
        ("user_interaction", "Is it safe?", 0.39),
        ("log info", "order 7 is paid now", 0.2),
    ]
    assert [(one["title"], one["model"], one["input_tokens"]) for one in told["llm_calls"]] == [
        ("m-1: Yes.", "m-1", 11)
    ]
    assert [one["title"] for one in told["calls"]] == ["POST pay.test/pay → 504 (300 ms)"]
    assert told["other_errors"] == []
    bounded = error_context(lake, id_, most=2, seconds=9)
    assert [one["title"] for one in bounded["before"]] == ["Is it safe?", "order 7 is paid now"]


def test_an_error_alone(lake: duckdb.DuckDBPyConnection) -> None:
    """A failed job without request, user or stack says what there is: whose version it was."""
    told = error_context(lake, one(lake, "service_name = 'worker' AND type = 'system_error'"))
    assert told["service"]["version"] == "2.1"
    assert told["service"]["deployment"] == "production"
    assert told["service"]["sdk_version"] == "1.45"
    assert (told["user_id"], told["before"], told["llm_calls"]) == (None, [], [])
    assert [one["message"] for one in told["causes"]] == ["disk full"]


def test_the_hint_of_the_time_changes_nothing(lake: duckdb.DuckDBPyConnection) -> None:
    """With the time of the memory fewer files are read, and the same is found."""
    for id_, at, type_ in lake.execute(
        "SELECT id, time_unix_nano, type FROM lake.memories"
    ).fetchall():
        if type_ == "system_error":
            assert error_context(lake, id_) == error_context(lake, id_, at_ns=at)
        sql = "FROM lake.memory_context(?, at_ns := ?)"
        assert lake.execute(sql, [id_, at]).fetchall() == lake.execute(sql, [id_, 0]).fetchall()


def test_context_of_any_memory(lake: duckdb.DuckDBPyConnection) -> None:
    """Links in both directions, what was around it, its conversation; by six digits of its id."""
    id_ = one(lake, "type = 'ai_response'")
    told = context(lake, id_[:6].upper())
    memory = told["memory"]
    assert memory["id"] == id_
    assert memory["time"] == datetime.fromtimestamp(T0 // _S + 10, UTC) + timedelta(milliseconds=10)
    assert memory["attributes"]["model"] == "m-1"
    assert memory["inferred"] == {
        "user_id": "only one in its trace", "session_id": "only one in its trace",
    }  # fmt: skip
    assert told["error"] is None
    links = {(one["way"], one["relation"], one["type"]) for one in told["links"]}
    assert links == {
        ("to here", "asked", "request_outcome"), ("to here", "was answered by", "user_interaction"),
    }  # fmt: skip
    turns = [(one["turn"], one["role"], one["text"]) for one in told["turns"]]
    assert turns == [(1, "user", "Is it safe?"), (2, "assistant", "Yes.")]
    around = {one["title"] for one in told["around"]}
    assert {"after it", "click #buy", "POST /orders → 500 in 900 ms"} <= around
    assert not any("somebody else" in title or "long ago" in title for title in around)
    times = [one["time"] for one in told["around"]]
    assert times == sorted(times)


def test_no_such_memory(lake: duckdb.DuckDBPyConnection) -> None:
    """What is no id, and an id that is not there, are said; several that begin alike are named."""
    for wrong in ("", "xyz", "abc", "0" * 25, "' OR 1=1 --"):
        with pytest.raises(BadRequest, match="no id of a memory"):
            context(lake, wrong)
    with pytest.raises(NotFound, match="no memory 000000"):
        context(lake, "0" * 24)
    with pytest.raises(NotFound):
        error_context(lake, "0" * 24)


def test_views(lake: duckdb.DuckDBPyConnection) -> None:
    """Requests with what they came to; links by type; conversations as one row each."""
    assert lake.execute(
        "SELECT operation, status, came_to FROM lake.requests WHERE method = 'POST' ORDER BY time"
    ).fetchall() == [("POST /basket", 200, "ok"), ("POST /orders", 500, "error")]
    found = lake.execute(
        "SELECT from_type, relation, to_type, count(*) FROM lake.links GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    assert found == [
        ("api_call", "failed with", "system_error", 1),
        ("request_intent", "came to", "request_outcome", 2),
        ("request_outcome", "asked", "ai_response", 1),
        ("request_outcome", "called", "api_call", 1),
        ("request_outcome", "failed with", "system_error", 1),
        ("user_interaction", "was answered by", "ai_response", 1),
    ]
    assert lake.execute(
        "SELECT conversation, questions, answers, user_id, first_question FROM lake.conversations"
    ).fetchall() == [("c1", 1, 1, "u1", "Is it safe?")]


def test_turns_in_order_whatever_arrived_first(tmp_path: Path) -> None:
    """Question, tool call, answer, next question: by when they were said, tools in between."""
    collecting = Collecting(Home(tmp_path / "home"))
    try:

        def chat(n: int, at: int, asked: list[Any], answered: dict[str, Any]) -> Any:
            return _span(n, 2, 1, "chat", at, 100, kind=3, says={
                "gen_ai.operation.name": "chat", "gen_ai.request.model": "m-1",
                "gen_ai.response.id": f"r{at}", "gen_ai.conversation.id": "c9",
                "gen_ai.input.messages": json.dumps(asked),
                "gen_ai.output.messages": json.dumps([answered])})  # fmt: skip

        def tool(n: int, at: int) -> Any:
            return _span(n, 3, 1, "execute_tool weather", at, 20, says={
                "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "weather",
                "gen_ai.tool.call.arguments": '{"city":"Oslo"}', "gen_ai.tool.call.result": "rain",
            })  # fmt: skip

        ask = {"role": "user", "content": "Do I need a coat?"}
        call = {"role": "assistant", "parts": [
            {"type": "tool_call", "name": "weather", "arguments": {"city": "Oslo"}}]}  # fmt: skip
        back = {"role": "tool", "content": "rain"}
        ms = 10**6
        first = chat(1, 0, [ask], call)
        second = chat(1, 150 * ms, [ask, call, back], {"role": "assistant", "content": "Yes."})
        second.span_id = span_id(777)
        again = {"role": "user", "content": "And boots?"}
        third = chat(2, 5000 * ms, [again], {"role": "assistant", "content": "Also."})
        for record in (third, second, tool(1, 110 * ms), first):
            collecting.send(record)
        turns = "SELECT turn, role, text FROM lake.conversation('c9')"
        assert collecting.rows(turns) == [
            (1, "user", "Do I need a coat?"),
            (2, "assistant", 'tool calls: weather({"city":"Oslo"})'),
            (3, "tool", 'weather({"city":"Oslo"}) → rain'),
            (4, "assistant", "Yes."),
            (5, "user", "And boots?"),
            (6, "assistant", "Also."),
        ]
        (count,) = collecting.rows("SELECT tool_calls, answers FROM lake.conversations")
        assert count == (1, 3)
    finally:
        collecting.close()
