"""Recall from a program: a client of the REST API, with nothing but the standard library.

`Client` and `AsyncClient` say what went wrong; `MemoryService` (in `api`) is built on them and
never troubles the app. `items` is what comes back, `http` how.
"""

from __future__ import annotations

from engram.instrumentation.client.asynchronous import AsyncClient
from engram.instrumentation.client.http import RecallError, RecallRefused, RecallUnavailable
from engram.instrumentation.client.items import ContextWindow, Memories, Memory
from engram.instrumentation.client.synchronous import Client

__all__ = [
    "AsyncClient",
    "Client",
    "ContextWindow",
    "Memories",
    "Memory",
    "RecallError",
    "RecallRefused",
    "RecallUnavailable",
]
