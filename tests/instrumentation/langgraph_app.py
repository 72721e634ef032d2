"""A program of LangGraph graphs; `test_langgraph.py` runs it."""
# ruff: noqa: D103, E402

from __future__ import annotations

import asyncio
import contextlib
import json
import operator
import os
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any

from opentelemetry import _logs, trace
from tests.instrumentation import providers
from typing_extensions import TypedDict

from engram.instrumentation.capture import genai, installed, langgraph

providers.start("graphs")
for _ in range(2):
    installed["genai"] = genai.install()
    installed["langgraph"] = langgraph.install()
assert "langchain_core" not in sys.modules, "a capture imports nothing"

import openai
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, RetryPolicy, Send, interrupt

LLM = os.environ["LLM"]
client = openai.OpenAI(base_url=f"{LLM}/v1", api_key="k", max_retries=0)
tracer = trace.get_tracer("app")
traces: dict[str, str] = {}


class State(TypedDict, total=False):
    """What the graphs pass on."""

    q: str
    xs: Annotated[list[Any], operator.add]
    password: str


def line(*nodes: tuple[str, Any], name: str | None = None, state: Any = State, **more: Any) -> Any:
    """A graph of nodes in a row."""
    graph = StateGraph(state)
    for node, run in nodes:
        graph.add_node(node, run)
    graph.add_edge(START, nodes[0][0])
    for (one, _), (two, _) in pairwise(nodes):
        graph.add_edge(one, two)
    return graph.compile(name=name, **more)


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def ask(text: str) -> str:
    made = client.chat.completions.create(model="gpt-x", messages=user(f"say {text}"))
    return made.choices[0].message.content or ""


async def aask(text: str) -> str:
    async with openai.AsyncOpenAI(base_url=f"{LLM}/v1", api_key="k", max_retries=0) as aclient:
        made = await aclient.chat.completions.create(model="gpt-x", messages=user(f"say {text}"))
    return made.choices[0].message.content or ""


def call(state: State) -> State:
    return {"xs": [ask("zebra in a node")]}


async def acall(state: State) -> State:
    await asyncio.sleep(0)
    return {"xs": [await aask("zebra in a node")]}


def two_nodes() -> None:
    graph = line(
        ("plan", lambda s: {"q": s["q"] + "!", "xs": ["planned"]}),
        ("done", lambda s: {}),
        name="two",
    )
    graph.invoke(
        {"q": "zebra", "xs": [], "password": "hunter2"}, {"configurable": {"thread_id": "t-1"}}
    )


def fan_out() -> None:
    graph = StateGraph(State)
    graph.add_node("plan", lambda s: {"q": "a"})
    graph.add_node("work", lambda s: {"xs": [1]})
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", lambda s: [Send("work", s)] * 3, ["work"])
    graph.compile().invoke({"q": "", "xs": []})


def subgraph() -> None:
    inner = line(("inner", lambda s: {"xs": ["inner"]}), name="sub")
    line(("sub", inner), ("after", lambda s: {})).invoke({"q": "q", "xs": []})


def failing() -> None:
    def bad(state: State) -> State:
        raise ValueError("zebra node exploded")

    with contextlib.suppress(ValueError):
        line(("fine", lambda s: {}), ("bad", bad)).invoke({"q": "q", "xs": []})


def retried() -> None:
    tries: list[int] = []

    def shaky(state: State) -> State:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("zebra try again")
        return {"xs": ["second"]}

    graph = StateGraph(State)
    graph.add_node("shaky", shaky, retry_policy=RetryPolicy(initial_interval=0.01, max_attempts=2))
    graph.add_edge(START, "shaky")
    graph.compile().invoke({"q": "q", "xs": []})


paused: Any = line(
    ("ask", lambda s: {"xs": [interrupt({"question": "zebra ok?"})]}),
    name="approval",
    checkpointer=InMemorySaver(),
)


def interrupted() -> None:
    paused.invoke({"q": "q", "xs": []}, {"configurable": {"thread_id": "t-wait"}})


def resumed() -> None:
    paused.invoke(Command(resume="yes"), {"configurable": {"thread_id": "t-wait"}})


def breakpoint_() -> None:
    graph = line(("one", call), ("two", call), name="checked", checkpointer=InMemorySaver())
    graph.invoke(
        {"q": "q", "xs": []}, {"configurable": {"thread_id": "b"}}, interrupt_after=["one"]
    )


async def abreakpoint() -> None:
    steps = ("one", acall), ("two", acall)
    graph = line(*steps, name="checked", checkpointer=InMemorySaver(), interrupt_before=["two"])
    await graph.ainvoke({"q": "q", "xs": []}, {"configurable": {"thread_id": "a"}})


def jumping() -> None:
    def jump(state: State) -> Command[str]:
        return Command(goto="end", update={"xs": ["jumped"]})

    def leave(state: State) -> Command[str]:
        return Command(goto="end", graph=Command.PARENT, update={"xs": ["left"]})

    inner = line(("leave", leave))
    graph = StateGraph(State)
    graph.add_node("jump", jump, destinations=("inside",))
    graph.add_node("inside", inner)
    graph.add_node("end", lambda s: {})
    graph.add_edge(START, "inside")
    graph.compile().invoke({"q": "q", "xs": []})


def called() -> None:
    line(("call", call), ("again", call)).invoke({"q": "q", "xs": []})


async def acalled() -> None:
    await line(("call", acall), ("again", acall)).ainvoke({"q": "q", "xs": []})


def streamed() -> None:
    for _ in line(("call", call), ("again", call)).stream({"q": "q", "xs": []}):
        with tracer.start_as_current_span("between"):
            pass


async def astreamed() -> None:
    graph = line(("call", acall), ("again", acall))
    async for _ in graph.astream({"q": "q", "xs": []}, stream_mode=["values", "messages"]):
        with tracer.start_as_current_span("between"):
            pass


@task
def square(x: int) -> int:
    return x * x


@entrypoint()
def flow(n: int) -> int:
    return sum(one.result() for one in [square(i) for i in range(n)])


@task
async def asquare(x: int) -> int:
    return x * x


@entrypoint()
async def aflow(n: int) -> int:
    return await asquare(n)


def functional() -> None:
    flow.invoke(3)


async def afunctional() -> None:
    await aflow.ainvoke(3)


def weird() -> None:
    loop: list[Any] = []
    loop.append(loop)

    class Rude:
        def __repr__(self) -> str:
            raise RuntimeError("no")

        __str__ = __repr__

    state = {"loop": loop, "rude": Rude(), "huge": "ä" * 10**6, "many": list(range(10**5))}
    line(("see", lambda s: {"xs": [state]})).invoke({"q": "\ud800", "xs": [state]})


@tool
def weather(city: str) -> str:
    """The weather."""
    return f"zebra sun in {city}"


def tools() -> None:
    def use(state: State) -> State:
        return {"xs": [weather.invoke({"city": "Paris"})]}

    line(("use", use)).invoke({"q": "q", "xs": []})


def aurea() -> None:
    def reply(state: Any) -> Any:
        return {"messages": [("ai", ask("zebra, says AUREA"))]}

    graph = line(("reply", reply), name="AUREA", state=MessagesState)
    asked: Any = {"messages": [("user", "zebra who are you?")]}
    graph.invoke(asked, {"configurable": {"thread_id": "talk-9"}})


CASES: list[Callable[[], Any]] = [
    two_nodes, fan_out, subgraph, failing, retried, interrupted, resumed, breakpoint_, abreakpoint,
    jumping, called, acalled, streamed, astreamed, functional, afunctional, weird, tools, aurea,
]  # fmt: skip


async def asynchronous(case: Callable[[], Any]) -> None:
    with tracer.start_as_current_span(case.__name__) as span:
        traces[case.__name__] = f"{span.get_span_context().trace_id:032x}"
        await case()


def die() -> None:
    """Be gone in a node, as by a signal: nothing is flushed but the node's own event."""

    def fatal(state: State) -> State:
        _logs.get_logger_provider().force_flush()  # type: ignore[attr-defined]
        sys.stdout.write(json.dumps({"traces": {}, "service": "graphs"}))
        sys.stdout.flush()
        os._exit(9)

    line(("fatal", fatal)).invoke({"q": "zebra last words", "xs": []})


def main() -> None:
    if "DIE" in os.environ:
        die()
    for case in CASES:
        if asyncio.iscoroutinefunction(case):
            asyncio.run(asynchronous(case))
            continue
        with tracer.start_as_current_span(case.__name__) as span:
            traces[case.__name__] = f"{span.get_span_context().trace_id:032x}"
            case()
            assert trace.get_current_span() is span, f"{case.__name__} left its context behind"
    providers.stop()
    sys.stdout.write(json.dumps({"traces": traces, "service": "graphs"}))


main()
