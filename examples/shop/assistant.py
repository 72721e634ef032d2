"""The shop's assistant: a LangGraph agent over a model that speaks OpenAI's protocol.

Three steps: what does the customer want, what does the shop know of it, an answer. A question about
money back waits for a person, who says yes or no later.
"""

from __future__ import annotations

from typing import Any, TypedDict

import faults
import stock
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from openai import AsyncOpenAI

MODEL = "shop-mini"

client = AsyncOpenAI()
"""Where the model is, `OPENAI_BASE_URL` says."""


class Talk(TypedDict, total=False):
    """What is known of a conversation."""

    question: str
    wanted: str
    facts: str
    answer: str


async def understand(talk: Talk) -> Talk:
    """What is it about? Words will do."""
    question = talk["question"].lower()
    wanted = "refund" if "money back" in question else "article"
    return {"wanted": wanted}


@tool
def calculate_total(prices: list[int]) -> int:
    """What articles cost together."""
    return sum(prices)


async def look_up(talk: Talk) -> Talk:
    """What the shop has, and what it costs together."""
    known = [sku for sku in stock.PRICES if sku in talk["question"].lower()]
    facts = "; ".join(f"{sku}: {stock.PRICES[sku]} euros" for sku in known) or "nothing known"
    if known:
        total = calculate_total.invoke({"prices": [stock.PRICES[sku] for sku in known]})
        facts += f"; together: {total} euros"
    return {"facts": facts}


async def refund(talk: Talk) -> Talk:
    """A person decides."""
    yes = interrupt({"question": "may this customer have the money back?"})
    return {"facts": "the refund is granted" if yes else "the refund is refused"}


async def reply(talk: Talk) -> Talk:
    """The model's words."""
    messages: list[Any] = [
        {"role": "system", "content": f"You work in a shop for tea. You know: {talk['facts']}"},
        {"role": "user", "content": talk["question"]},
    ]
    for _ in range(2 if faults.planted("same_prompt") else 1):
        said = await client.chat.completions.create(model=MODEL, messages=messages)
    return {"answer": said.choices[0].message.content or ""}


def build() -> Any:
    """The graph."""
    graph = StateGraph(Talk)
    for step in (understand, look_up, refund, reply):
        graph.add_node(step.__name__, step)
    graph.add_edge(START, "understand")
    graph.add_conditional_edges(
        "understand", lambda talk: "refund" if talk["wanted"] == "refund" else "look_up"
    )
    graph.add_edge("look_up", "reply")
    graph.add_edge("refund", "reply")
    graph.add_edge("reply", END)
    return graph.compile(checkpointer=InMemorySaver(), name="assistant")


agent = build()


async def ask(question: str, thread: str) -> dict[str, Any]:
    """An answer, or what waits for a person."""
    return await _run({"question": question}, thread)


async def resume(thread: str, *, yes: bool) -> dict[str, Any]:
    """Go on where a person was asked."""
    return await _run(Command(resume=yes), thread)


async def _run(start: Any, thread: str) -> dict[str, Any]:
    state = await agent.ainvoke(start, {"configurable": {"thread_id": thread}})
    if "__interrupt__" in state:
        return {"waiting": True, "thread": thread}
    return {"answer": state["answer"], "thread": thread}
