"""LangGraph's memory before a real `serve`, and with nobody there."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph
from langgraph.store.base import BaseStore, GetOp, InvalidNamespaceError, Op, PutOp
from langgraph.store.memory import InMemoryStore
from tests.collector.resting import Serving

from engram.instrumentation import MemoryService, SyncMemoryService
from engram.instrumentation.langgraph import Store, memory_node, recall_node, tools

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Collect and serve."""
    one = Serving(tmp_path_factory.mktemp("store") / "home")
    yield one
    one.close()


def told(items: Any) -> list[Any]:
    """What can be compared of items."""
    return [(one.namespace, one.key, one.value) for one in items]


def operations(store: BaseStore) -> list[Any]:
    """The same for every store; what each step said."""
    store.put(("u", "a"), "one", {"text": "tea", "n": 1, "deep": {"x": [1, 2]}})
    store.put(("u", "b"), "one", {"text": "coffee", "n": 2}, index=False)
    store.put(("v",), "two", {"text": "milk", "n": 3})
    store.put(("u", "a"), "one", {"text": "green tea", "n": 5})
    store.put(("v",), "gone", {"n": 9})
    store.delete(("v",), "gone")
    store.delete(("v",), "never")
    # Not in a namespace that is absent: asking InMemoryStore for it makes it.
    said: list[Any] = [
        told([store.get(("u", "a"), "one"), store.get(("u", "b"), "one")]),
        store.get(("u", "a"), "none"), store.get(("u", "b"), "two"), store.get(("v",), "gone"),
        told(store.search(("u",))), told(store.search(())), told(store.search(("v",))),
        told(store.search((), filter={"n": {"$gte": 3}})),
        told(store.search((), filter={"text": "milk"})),
        told(store.search((), limit=1, offset=1)),
        store.list_namespaces(), store.list_namespaces(prefix=("u",)),
        store.list_namespaces(suffix=("a",)), store.list_namespaces(max_depth=1),
        store.list_namespaces(prefix=("*", "b")), store.list_namespaces(limit=1, offset=1),
    ]  # fmt: skip
    store.put(("v",), "gone", {"n": 10})
    said.append(told([store.get(("v",), "gone")]))
    both: list[Op] = [
        PutOp(("w",), "k", {"n": 1}),
        GetOp(("w",), "k"),
        PutOp(("w",), "k", {"n": 2}),
    ]
    said += [store.batch(both), told([store.get(("w",), "k")])]
    for wrong in ((), ("a.b",), ("langgraph",)):
        with pytest.raises(InvalidNamespaceError):
            store.put(wrong, "k", {})
    with pytest.raises(NotImplementedError):
        store.put(("u",), "k", {}, ttl=1)
    with pytest.raises(ValueError, match="Unsupported operator"):
        store.search((), filter={"n": {"$near": 3}})
    return said


def test_it_does_what_the_store_in_memory_does(serving: Serving) -> None:
    """The same operations say the same; another store of the same home sees nothing of it."""
    url = f"http://127.0.0.1:{serving.port}"
    ours = Store(url=url, timeout_s=30, on_error="raise")
    assert operations(ours) == operations(InMemoryStore())
    ours.close()
    other = Store(name="other", url=url, timeout_s=30, on_error="raise")
    assert other.search(()) == []
    other.close()


def test_nobody_there_does_not_break_the_agent() -> None:
    """Store, nodes and tools: empty answers, and the work is done."""
    store = Store(url=NOWHERE)
    store.put(("u",), "k", {"n": 1})
    assert store.get(("u",), "k") is None
    assert store.search(("u",), query="x") == []
    assert asyncio.run(store.alist_namespaces()) == []

    class State(TypedDict):
        messages: Annotated[list[Any], operator.add]
        past: int

    def work(state: State, past: Any) -> dict[str, Any]:
        return {"past": len(past) + 7}

    memory = MemoryService(url=NOWHERE)
    graph = StateGraph(State)
    graph.add_node("recall", recall_node(memory=memory))
    graph.add_node("work", memory_node(work, memory=memory))
    graph.add_edge(START, "recall")
    graph.add_edge("recall", "work")
    done = asyncio.run(graph.compile(store=store).ainvoke({"messages": ["hello"], "past": 0}))
    assert done == {"messages": ["hello"], "past": 7}

    recall, _, outcome = tools(memory=SyncMemoryService(url=NOWHERE))
    assert "Nothing relevant" in recall.invoke({"query": "x"})
    told_ = outcome.invoke({"target_id": "a", "outcome": "b", "success": True})
    assert "does not answer" in told_


def test_a_failing_node_fails_as_it_did() -> None:
    """The error of the function is the error of the node."""

    def broken(state: Any, past: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        asyncio.run(memory_node(broken, memory=MemoryService(url=NOWHERE))({}))
