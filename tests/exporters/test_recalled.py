"""What was recalled into a prompt is not remembered again when it comes back."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from tests.exporters.remembering import log, remember, span

from engram.exporters.recalled import begin, end, without, without_json

NUMBER = "5f0c2a9d41b7e683"
ECHO = f"{begin(NUMBER)}\nRecalled from memory\n- pay invoice 9\n{end(NUMBER)}"
LLM = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
       "gen_ai.request.model": "m1", "gen_ai.response.id": "r1"}  # fmt: skip


def said(role: str, *texts: str) -> dict[str, Any]:
    """A message of the official dialect."""
    return {"role": role, "parts": [{"type": "text", "content": text} for text in texts]}


def memories(*records: Any) -> dict[str, dict[str, Any]]:
    """By type, what spans and logs become."""
    return {row["type"]: row for row in remember(*records)}


@pytest.mark.parametrize(
    "messages",
    [
        [said("user", f"{ECHO}\n\nWhere is my order?")],
        [said("user", "Where is my order?", ECHO)],
        [said("user", "Where is my order?"), said("user", ECHO)],
        [said("system", "Be kind."), said("user", f"Where is my order?\n{ECHO}")],
        [said("user", f"{ECHO}\nWhere is my order?\n{ECHO[:-30]}")],
    ],
)
def test_a_question_is_what_was_asked(messages: list[dict[str, Any]]) -> None:
    """Wherever the fence stands, also cut off; with the id that it has without the echo."""
    plain = [said("user", "Where is my order?")]
    found, wanted = (
        memories(span(LLM | {"gen_ai.input.messages": json.dumps(some)}, kind=3))
        for some in (messages, plain)
    )
    for name in ("id", "title", "content"):
        assert found["user_interaction"][name] == wanted["user_interaction"][name]


def test_a_prompt_of_an_echo_alone_asks_nothing() -> None:
    """It makes no memory of a question."""
    made = memories(span(LLM | {"gen_ai.input.messages": json.dumps([said("user", ECHO)])}, kind=3))
    assert "user_interaction" not in made


def test_no_memory_holds_what_was_recalled() -> None:
    """Answers, marks, graph states, tools and logs: wherever a text can come from."""
    state = json.dumps({"messages": [{"content": f"hello {ECHO}"}]})
    records = [
        span(LLM | {"gen_ai.output.messages": json.dumps([said("assistant", f"Done. {ECHO}")])},
             kind=3),
        span({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "ask",
              "gen_ai.tool.call.arguments": state, "gen_ai.tool.call.result": ECHO}),
        span({"langgraph.node": "plan", "langgraph.entry_state": state}, name="plan"),
        log({"engram.title": f"Note {ECHO}", "text": state}, event="engram.note", body=f"a {ECHO}"),
        log({"engram.title": "T"}, event="engram.thought", body={"said": ECHO, "n": 1}),
        log({}, event="my.event", body=f"said {ECHO[:80]}"),
        log({}, body=f"failed with {ECHO}", severity=17),
    ]  # fmt: skip
    made = remember(*records)
    assert len(made) >= 7
    for row in made:
        for name in ("title", "content", "attributes"):
            assert "invoice 9" not in (row[name] or ""), row
            assert "engram:recalled" not in (row[name] or ""), row
        json.loads(row["attributes"])
    assert {"note", "thought"} <= {row["type"] for row in made}


def test_ids_do_not_depend_on_the_order_of_echoes() -> None:
    """Any order of the records makes the same memories."""
    records = [
        span(LLM | {"gen_ai.response.id": f"r{n}", "gen_ai.input.messages":
                    json.dumps([said("user", f"{ECHO if n % 2 else ''} ask {n}")])}, kind=3)
        for n in range(3)
    ]  # fmt: skip
    found = [remember(*order) for order in itertools.permutations(records)]
    assert all(one == found[0] for one in found)


def test_what_is_no_echo_stays_as_it_is() -> None:
    """Byte for byte; and a fence inside of JSON leaves JSON."""
    for text in ("", " spaces stay ", "<<<engram>>>", "engram:recalled is a mark"):
        assert without(text) == text
    assert without(f" a {ECHO} b {ECHO}") == "a b"
    made = json.loads(without_json(json.dumps({"a": [ECHO, 1, None], "b": f"x{ECHO}"})))
    assert made == {"a": ["", 1, None], "b": "x"}
    escaped = json.dumps(f"q {ECHO} r").replace("<", "\\u003c").replace(">", "\\u003e")
    assert without(escaped) == '"q r"'
