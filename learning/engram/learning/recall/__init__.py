"""Recall: what memory gives back to programs, agents and people, explained and within a budget.

`items` are the things that come back, `engine` is what can be asked, `window` puts a context
together, and `fence` makes recalled text safe to put before an agent. REST, MCP, the command line
and the Python client all ask the engine and nothing else.
"""

from __future__ import annotations

from engram.learning.recall.decisions import DecisionHistory
from engram.learning.recall.endpoints import EndpointMemory
from engram.learning.recall.engine import Recall
from engram.learning.recall.items import ALL, Found, Item, Page, Scope
from engram.learning.recall.known import KnownError, KnownPattern, Solution
from engram.learning.recall.window import ContextWindow, as_json

__all__ = [
    "ALL",
    "ContextWindow",
    "DecisionHistory",
    "EndpointMemory",
    "Found",
    "Item",
    "KnownError",
    "KnownPattern",
    "Page",
    "Recall",
    "Scope",
    "Solution",
    "as_json",
]
