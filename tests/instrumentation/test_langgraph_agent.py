"""A real LangGraph agent, its model played by a stand-in, finds a fix and says that it worked."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import urllib.request
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from pydantic import Field
from tests.collector.test_mcp import FIX, event, eventually, post, searched
from tests.collector.test_up import Up, running
from tests.telemetry import T0, request, shop_traces

from engram.exporters.signals import Signal
from engram.instrumentation import SyncMemoryService
from engram.instrumentation.langgraph import MemoryMiddleware, tools

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


# -- LangChain's create_agent ----------------------------------------------------------------------


class Said(BaseChatModel):
    """A stand-in for a model: says what it is told to say, and keeps what it was asked."""

    answers: list[AIMessage]
    asked: list[list[BaseMessage]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "said"

    def bind_tools(self, tools: Any, **more: Any) -> Any:
        """Tools are called by what it says."""
        return self

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **more: Any
    ) -> ChatResult:
        self.asked.append(messages)
        answer = self.answers[len(self.asked) - 1]
        return ChatResult(generations=[ChatGeneration(message=answer)])


def calling() -> list[AIMessage]:
    """It calls the tool, and then is done."""
    call = {"name": "pay", "args": {"order": "7"}, "id": "1"}
    return [AIMessage("", tool_calls=[call]), AIMessage("done")]


@tool
def pay(order: str) -> str:
    """Pay an order."""
    raise TimeoutError("gateway did not answer within 4000 ms")


def ended(agent: Any, asynchronous: bool, **config: Any) -> list[BaseMessage]:
    """The messages of a run."""
    asked = {"messages": [HumanMessage(ERROR)]}
    if asynchronous:
        return list(asyncio.run(agent.ainvoke(asked, **config))["messages"])
    return list(agent.invoke(asked, **config)["messages"])


@pytest.fixture
def memory() -> Iterator[Callable[..., MemoryMiddleware]]:
    """Makes middlewares that are closed in the end."""
    made: list[MemoryMiddleware] = []

    def make(**settings: Any) -> MemoryMiddleware:
        made.append(MemoryMiddleware(**settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_agent_of_langchain_is_told_what_is_remembered(
    up: Up, asynchronous: bool, memory: Callable[..., MemoryMiddleware]
) -> None:
    """Before each call of the model, fenced; the error of a tool comes with its known solution."""
    said = Said(answers=calling())
    recalled = memory(url=up.endpoints["api"], timeout_s=30, tell_errors=True)
    agent = create_agent(said, [pay], middleware=[recalled])
    messages = ended(agent, asynchronous)
    for asked in said.asked:
        window, question = asked[:2]
        assert isinstance(window, HumanMessage)
        assert FIX in str(window.content)
        assert str(window.content).startswith("<<<engram:recalled ")
        assert question.content == ERROR
    assert [type(one) for one in messages] == [HumanMessage, AIMessage, ToolMessage, AIMessage]
    failed = str(messages[2].content)
    assert failed.startswith("TimeoutError: gateway did not answer within 4000 ms\n\n<<<engram:")
    assert "solution (" in failed
    assert FIX in failed
    assert messages[2].status == "error"  # type: ignore[attr-defined]


def test_a_question_is_asked_once_a_run_and_for_its_user(
    up: Up, monkeypatch: pytest.MonkeyPatch, memory: Callable[..., MemoryMiddleware]
) -> None:
    """The model is called again after each tool; whose memory it is, the run may say."""
    asked: list[tuple[Any, ...]] = []
    real = SyncMemoryService.get_context_window

    def counted(self: SyncMemoryService, user_id: object = None, **more: Any) -> Any:
        asked.append((user_id, more["query"]))
        return real(self, user_id, **more)

    monkeypatch.setattr(SyncMemoryService, "get_context_window", counted)
    said = Said(answers=calling() * 2)
    recalled = memory(url=up.endpoints["api"], timeout_s=30, tell_errors=True)
    agent = create_agent(said, [pay], middleware=[recalled])
    ended(agent, False)
    ended(agent, False, config={"configurable": {"user_id": "u-9"}})
    assert asked == [(None, ERROR), ("u-9", ERROR)]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_agent_goes_on_without_memory(
    asynchronous: bool, memory: Callable[..., MemoryMiddleware]
) -> None:
    """Nobody answers: the model is asked as if there were no memory, and errors are as ever."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        said = Said(answers=calling())
        agent = create_agent(said, [pay], middleware=[memory(url=url)])
        with pytest.raises(TimeoutError, match="gateway did not answer"):
            ended(agent, asynchronous)
        assert [one.content for one in said.asked[0]] == [ERROR]
        telling = memory(url=url, tell_errors=True)
        agent = create_agent(Said(answers=calling()), [pay], middleware=[telling])
        assert ended(agent, asynchronous)[2].content == (
            "TimeoutError: gateway did not answer within 4000 ms"
        )
