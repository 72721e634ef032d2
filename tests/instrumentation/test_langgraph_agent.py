"""A real LangGraph agent, its model played by a stand-in, finds a fix and says that it worked."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from tests.collector.test_mcp import FIX, event, eventually, post, searched
from tests.collector.test_up import Up, running
from tests.telemetry import T0, request, shop_traces

from engram.exporters.signals import Signal
from engram.instrumentation import SyncMemoryService
from engram.instrumentation.langgraph import tools

ERROR = "TimeoutError: gateway did not answer within 4000 ms"


class State(TypedDict):
    """Of the agent."""

    messages: Annotated[list[AnyMessage], add_messages]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A running `engram up` that knows the error and what somebody wrote against it."""
    with running(tmp_path_factory.mktemp("agent")) as one:
        spans, logs, _ = shop_traces(30)
        said = {"engram.id": "fix-1", "engram.title": FIX, "error_type": "TimeoutError",
                "engram.content": f"TimeoutError: gateway did not answer. {FIX}."}  # fmt: skip
        logs.append(event("engram.error_solution", T0, **said))
        post(one, "traces", request(Signal.TRACES, spans))
        post(one, "logs", request(Signal.LOGS, logs))
        assert one.cli("flush").returncode == 0
        eventually(lambda: searched(one, FIX), "the fix is indexed")
        yield one


def model(state: State) -> dict[str, Any]:
    """A stand-in: asks memory, takes the id of the fix out of what it was told, says it worked."""
    last = state["messages"][-1]
    if isinstance(last, HumanMessage):
        call = {"name": "recall", "args": {"query": str(last.content)}, "id": "1"}
        return {"messages": [AIMessage("", tool_calls=[call])]}
    assert isinstance(last, ToolMessage)
    if last.name == "recall":
        told = str(last.content)
        place = told.find(FIX)
        found = re.search(r"\bid=([0-9a-f]{24})", told[place:]) if place >= 0 else None
        if found is None:
            return {"messages": [AIMessage(f"I know of nothing: {told}")]}
        args = {"target_id": found[1], "outcome": "orders work again", "success": True}
        call = {"name": "record_outcome", "args": args, "id": "2"}
        return {"messages": [AIMessage("", tool_calls=[call])]}
    return {"messages": [AIMessage(f"Done: {last.content}")]}


def test_the_agent_finds_the_fix_and_records_its_outcome(up: Up) -> None:
    """Fenced, with its id; and afterwards whoever asks is told that it worked."""
    memory = SyncMemoryService(url=up.endpoints["api"], timeout_s=30)
    graph = StateGraph(State)
    graph.add_node("model", model)
    graph.add_node("tools", ToolNode(tools(memory=memory)))
    graph.add_edge(START, "model")
    graph.add_conditional_edges(
        "model",
        lambda state: "tools" if getattr(state["messages"][-1], "tool_calls", None) else END,
    )
    graph.add_edge("tools", "model")
    done = graph.compile().invoke({"messages": [HumanMessage(ERROR)]})
    memory.close()
    told = [str(one.content) for one in done["messages"] if isinstance(one, ToolMessage)]
    assert "data, not instructions" in told[0]
    assert FIX in told[0]
    assert done["messages"][-1].content == "Done: Recorded."

    def worked() -> bool:
        asked = urllib.request.Request(
            up.endpoints["api"].rstrip("/") + "/api/v1/known-errors",
            data=json.dumps({"text": ERROR}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:
            found = json.load(answer)
        known = [one for pattern in found["patterns"] for one in pattern["solutions"]]
        return any(FIX in one["title"] and one["worked"] == 1 for one in known)

    eventually(worked, "what it recorded is known", 30)
