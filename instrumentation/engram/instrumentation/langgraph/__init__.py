"""Memory for LangGraph: a store, nodes that know their past, recall, tools; for agents, middleware.

Needs langgraph, which only this package imports: `from engram.instrumentation.langgraph import ...`
`MemoryMiddleware` needs langchain as well, and is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engram.instrumentation.langgraph.nodes import memory_node, recall_node
from engram.instrumentation.langgraph.store import Store
from engram.instrumentation.langgraph.tools import tools

if TYPE_CHECKING:
    from engram.instrumentation.langgraph.middleware import MemoryMiddleware


def __getattr__(name: str) -> Any:
    if name == "MemoryMiddleware":
        from engram.instrumentation.langgraph.middleware import MemoryMiddleware

        return MemoryMiddleware
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["MemoryMiddleware", "Store", "memory_node", "recall_node", "tools"]
