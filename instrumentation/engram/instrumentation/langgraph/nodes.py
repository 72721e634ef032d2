"""Nodes that remember: one that sees its past runs, and one that puts recall into the messages."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.messages import HumanMessage

from engram.instrumentation.api.asking import BUDGET_S
from engram.instrumentation.api.marks import mark
from engram.instrumentation.api.service import MemoryService
from engram.instrumentation.client.items import Memories


def memory_node(
    function: Callable[..., Any], *, name: str | None = None, limit: int = 100,
    memory: MemoryService | None = None,
) -> Callable[..., Any]:  # fmt: skip
    """A node of `function(state, past)`: `past` are the outcomes of its earlier runs.

    Its start and its outcome are remembered; `learnings` of what it returns go into the outcome.
    """
    named = name or str(getattr(function, "__name__", type(function).__name__))
    asks = memory or MemoryService(timeout_s=BUDGET_S)

    async def node(state: Any) -> Any:
        past: Memories = await asks.search_memories(
            f"node:{named} outcome", memory_type="langgraph_outcome", tags=[f"node:{named}"],
            limit=limit,
        )  # fmt: skip
        mark("langgraph_node", f"node:{named} entry", tags=[f"node:{named}"])
        began = time.perf_counter()
        try:
            made = function(state, past)
            made = await made if inspect.isawaitable(made) else made
        except Exception as error:
            _outcome(named, began, False, {"error_type": type(error).__qualname__})
            raise
        told = made.get("learnings") if isinstance(made, Mapping) else None
        _outcome(named, began, True, {"learnings": told})
        return made

    return functools.update_wrapper(node, function) if hasattr(function, "__name__") else node


def _outcome(name: str, began: float, success: bool, more: dict[str, Any]) -> None:
    payload = {
        "node": name, "success": success,
        "duration_ms": round((time.perf_counter() - began) * 1e3, 3), **more,
    }  # fmt: skip
    mark(
        "langgraph_outcome", f"node:{name} outcome", tags=[f"node:{name}"], outcome=success,
        content=more, payload=payload,
    )  # fmt: skip


def recall_node(
    *, user_id: object = None, max_tokens: int = 2_000, memory: MemoryService | None = None
) -> Callable[..., Any]:
    """A node that adds what is remembered to `messages`: fenced, of the user's role."""
    asks = memory or MemoryService(timeout_s=BUDGET_S)

    async def recall(state: Any) -> dict[str, Any]:
        messages = state.get("messages") or []
        last = getattr(messages[-1], "content", None) if messages else None
        window = await asks.get_context_window(
            user_id, max_tokens=max_tokens, query=last if isinstance(last, str) and last else None
        )
        return {"messages": [HumanMessage(window.text)] if len(window) else []}

    return recall


__all__ = ["memory_node", "recall_node"]
