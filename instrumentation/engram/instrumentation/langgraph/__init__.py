"""Memory for LangGraph: a store, nodes that know their past, recall, tools.

Needs langgraph, which only this package imports: `from engram.instrumentation.langgraph import ...`
"""

from __future__ import annotations

from engram.instrumentation.langgraph.nodes import memory_node, recall_node
from engram.instrumentation.langgraph.store import Store
from engram.instrumentation.langgraph.tools import tools

__all__ = ["Store", "memory_node", "recall_node", "tools"]
