"""LangGraph under capture: every node's run is remembered once, with its state, as it happened."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.instrumentation.programs import Ran, run

from engram.instrumentation.capture._state import MOST_BYTES, difference, dump

NODES: dict[str, dict[str, int]] = {
    "two_nodes": {"plan": 1, "done": 1},
    "fan_out": {"plan": 1, "work": 3},
    "subgraph": {"sub": 1, "inner": 1, "after": 1},
    "failing": {"fine": 1, "bad": 1},
    "retried": {"shaky": 1},
    "jumping": {"inside": 1, "leave": 1, "end": 1},
    "called": {"call": 1, "again": 1},
    "acalled": {"call": 1, "again": 1},
    "streamed": {"call": 1, "again": 1},
    "astreamed": {"call": 1, "again": 1},
    "functional": {"flow": 1, "square": 3},
    "afunctional": {"aflow": 1, "asquare": 1},
    "weird": {"see": 1},
    "tools": {"use": 1},
    "aurea": {"reply": 1},
}


@pytest.fixture(scope="module", params=["own providers", "engram run"])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Every graph of the program, in an app that sets OpenTelemetry up and in one that does not."""
    folder = tmp_path_factory.mktemp("langgraph")
    return run("langgraph_app.py", folder, zero_code=request.param == "engram run")


@pytest.mark.parametrize("case", NODES)
def test_each_node_run_is_remembered_exactly_once(ran: Ran, case: str) -> None:
    """One langgraph_node and one langgraph_outcome for each run of a node, and no more."""
    for type_ in ("langgraph_node", "langgraph_outcome"):
        found = Counter(one["attributes"]["node"] for one in ran.of(case, type_))
        assert found == NODES[case], type_


@pytest.mark.parametrize("case", sorted(set(NODES) - {"aurea"}))
def test_each_graph_run_is_a_state_of_its_workflow(ran: Ran, case: str) -> None:
    """One workflow_state for the whole run."""
    state = ran.one(case, "workflow_state")["attributes"]["state"]
    assert state == ("failed" if case == "failing" else "ok")


def test_entry_outcome_and_difference(ran: Ran) -> None:
    """The state a node got, what it gave back and what that changes; secrets are not told."""
    (plan,) = [
        n for n in ran.of("two_nodes", "langgraph_node") if n["attributes"]["node"] == "plan"
    ]
    entry = json.loads(plan["attributes"]["entry_state"])
    assert entry == {"q": "zebra", "xs": [], "password": "[redacted]"}
    assert plan["attributes"]["step"] == 1
    assert plan["conversation_id"] == "t-1"
    (done,) = [n for n in ran.of("two_nodes", "langgraph_outcome") if n["attributes"]["step"] == 1]
    assert json.loads(done["attributes"]["outcome"]) == {"q": "zebra!", "xs": ["planned"]}
    assert json.loads(done["attributes"]["diff"])["q"] == {"from": "zebra", "to": "zebra!"}
    assert (done["outcome"], done["attributes"]["success"]) == ("ok", "true")
    assert done["duration_ns"] is not None


def test_a_failing_node(ran: Ran) -> None:
    """The node failed, and its error is one memory, though node and graph both tell it."""
    (bad,) = [n for n in ran.of("failing", "langgraph_outcome") if n["outcome"] == "error"]
    assert bad["title"] == "bad ✗ ValueError"
    assert ran.one("failing", "system_error")["title"].endswith("zebra node exploded")


def test_the_last_try_speaks(ran: Ran) -> None:
    """A node that succeeds when tried again is a success that tells what failed before."""
    shaky = ran.one("retried", "langgraph_outcome")
    assert (shaky["outcome"], shaky["title"][:7]) == ("ok", "shaky ✓")
    assert shaky["attributes"]["error_type"] == "ConnectionError"


def test_an_interrupt_waits_and_is_no_error(ran: Ran) -> None:
    """The workflow waits, saying for what; resumed, it is the same run of the node."""
    waiting = ran.one("interrupted", "workflow_state")
    assert waiting["attributes"]["state"] == "waiting"
    assert "zebra ok?" in waiting["title"]
    assert waiting["outcome"] is None
    assert ran.one("resumed", "workflow_state")["attributes"]["state"] == "ok"
    both = ran.memories["interrupted"] + ran.memories["resumed"]
    kinds = Counter(one["type"] for one in both)
    assert kinds == {"workflow_state": 2, "langgraph_node": 1, "langgraph_outcome": 1}
    (outcome,) = [one for one in both if one["type"] == "langgraph_outcome"]
    assert json.loads(outcome["attributes"]["outcome"]) == {"xs": ["yes"]}


@pytest.mark.parametrize(
    ("case", "why"), [("breakpoint_", "interrupt_after"), ("abreakpoint", "interrupt_before")]
)
def test_a_breakpoint_waits_and_is_no_end(ran: Ran, case: str, why: str) -> None:
    """Of `compile` or of `invoke`: no node raises then, and the graph's run ends without error."""
    waiting = ran.one(case, "workflow_state")
    assert waiting["attributes"]["state"] == "waiting"
    assert waiting["outcome"] is None
    assert f"waiting for breakpoint ({why})" in waiting["title"]
    assert [one["attributes"]["node"] for one in ran.of(case, "langgraph_outcome")] == ["one"]


def test_a_jump_to_the_parent_is_no_error(ran: Ran) -> None:
    """Command(graph=PARENT) raises inside LangGraph; nothing failed."""
    assert all(one["outcome"] == "ok" for one in ran.of("jumping", "langgraph_outcome"))
    assert not ran.of("jumping", "system_error")


@pytest.mark.parametrize("case", ["called", "acalled", "streamed", "astreamed"])
def test_model_calls_belong_to_their_node(ran: Ran, case: str) -> None:
    """A call's span is the child of its node's, that of the graph's, that of the caller's."""
    spans = {span["span_id"]: span for span in ran.spans[case]}
    calls = [s for s in spans.values() if s["name"] == "chat gpt-x"]
    assert len(calls) == 2
    above = []
    for call in calls:
        node = spans[call["parent_span_id"]]
        graph = spans[node["parent_span_id"]]
        above.append(node["name"])
        assert graph["name"] == "invoke_workflow LangGraph"
        assert spans[graph["parent_span_id"]]["name"] == case
    assert sorted(above) == ["node again", "node call"]
    for between in (s for s in spans.values() if s["name"] == "between"):
        assert spans[between["parent_span_id"]]["name"] == case, "the caller's code is no node's"


def test_nodes_of_a_subgraph_nest(ran: Ran) -> None:
    """The inner node hangs below the outer one."""
    spans = {span["span_id"]: span for span in ran.spans["subgraph"]}
    (inner,) = [span for span in spans.values() if span["name"] == "node inner"]
    assert spans[inner["parent_span_id"]]["name"] == "node sub"


def test_weird_state(ran: Ran) -> None:
    """Cycles, objects that cannot be shown and megabytes become valid JSON of bounded size."""
    entry = ran.one("weird", "langgraph_node")["attributes"]["entry_state"]
    assert len(entry.encode()) <= MOST_BYTES
    (told,) = json.loads(entry)["xs"]
    assert (told["loop"], told["rude"]) == (["<itself>"], "<Rude>")
    assert told["huge"].endswith("…")


def test_tools_of_a_node(ran: Ran) -> None:
    """A tool's call with its arguments and result."""
    call = ran.one("tools", "api_call")
    assert call["attributes"]["tool"] == "weather"
    assert "zebra sun in Paris" in call["attributes"]["result"]


def test_the_assistant_as_a_graph(ran: Ran) -> None:
    """A graph of that name answers once, in the conversation of its thread."""
    answer = ran.one("aurea", "aurea_response")
    assert (answer["content"], answer["conversation_id"]) == ("zebra, says AUREA", "talk-9")
    assert ran.one("aurea", "aurea_conversation")["title"] == "Conversation talk-9 with AUREA"
    assert ran.one("aurea", "ai_response")["conversation_id"] == "talk-9"


def test_content_off(tmp_path: Path) -> None:
    """Without content the nodes are there, and nothing of any state is."""
    from tests.instrumentation.test_genai import found

    ran = run("langgraph_app.py", tmp_path, ENGRAM_CAPTURE_CONTENT="false")
    types = Counter(one for case in NODES for one in ran.types(case))
    nodes = sum(sum(case.values()) for case in NODES.values())
    assert types["langgraph_node"] == types["langgraph_outcome"] == nodes
    # What a program says in an exception is told; what is in states and messages is not.
    assert set(found("zebra", ran.home)) <= set(found("zebra node exploded", ran.home)) | set(
        found("zebra try again", ran.home)
    )
    assert not found("entry_state", ran.home)
    assert not found("planned", ran.home)


def test_a_node_is_remembered_when_the_program_dies_in_it(tmp_path: Path) -> None:
    """Its event left when it began; there is no outcome, because there was none."""
    ran = run("langgraph_app.py", tmp_path, code=9, DIE="1")
    (node,) = (one for rows in ran.memories.values() for one in rows)
    assert (node["type"], node["title"]) == ("langgraph_node", "fatal: enter (step 1)")
    assert json.loads(node["attributes"]["entry_state"])["q"] == "zebra last words"


def test_secrets_do_not_leave_the_app() -> None:
    """Fields of such names are masked before they are sent; how many tokens is no secret."""
    told = json.loads(dump({"a": [{"api_key": "k", "Password": {"x": 1}}], "max_tokens": 5}))
    assert told == {
        "a": [{"api_key": "[REDACTED]", "Password": "[REDACTED]"}],
        "max_tokens": 5,
    }


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.uuids(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=40,
)


@given(VALUES, st.integers(64, 2048))
def test_any_state_is_valid_json_of_bounded_size(value: Any, most: int) -> None:
    """Whatever the value and however small the room."""
    told = dump(value, most)
    json.loads(told)
    assert len(told.encode()) <= most
    difference(told, told)


def test_a_run_that_never_ends_costs_a_bounded_place() -> None:
    """Of runs whose end does not come the oldest are let go, ended."""
    from uuid import uuid4

    from engram.instrumentation.capture import langgraph

    recorder = langgraph._Recorder()
    for i in range(langgraph._MOST_RUNS + 100):
        recorder.on_chain_start(
            None, {"i": i}, run_id=uuid4(), name="n",
            metadata={"langgraph_node": "n", "langgraph_checkpoint_ns": f"n:{i}"},
        )  # fmt: skip
    assert len(recorder._runs) == langgraph._MOST_RUNS
    assert len(recorder._namespaces) == langgraph._MOST_RUNS
