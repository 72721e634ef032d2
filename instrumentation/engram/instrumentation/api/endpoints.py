"""What is remembered of an endpoint, inside its requests: from a cache, so no request waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from engram.instrumentation.api.asking import asked, client

_MOST: Final = 1_000
"""Operations kept; an app has fewer routes than that, unless its routes have no templates."""


class EndpointCache:
    """The last answer for each operation; asks again in a thread of its own when it is old."""

    def __init__(self, ask: Callable[[str], dict[str, Any]], fresh_s: float) -> None:
        self._ask, self._fresh_s = ask, fresh_s
        self._known: dict[str, tuple[float, dict[str, Any]]] = {}
        self._asking: set[str] = set()
        self._lock = threading.Lock()
        self._thread: ThreadPoolExecutor | None = None

    def get(self, operation: str) -> dict[str, Any]:
        """What is known now, at once; empty at first."""
        now = time.monotonic()
        with self._lock:
            at, known = self._known.get(operation, (float("-inf"), {}))
            room = operation in self._known or len(self._known) + len(self._asking) < _MOST
            if now - at > self._fresh_s and operation not in self._asking and room:
                self._asking.add(operation)
                if self._thread is None:
                    self._thread = ThreadPoolExecutor(1, thread_name_prefix="engram-endpoints")
                self._thread.submit(self._refresh, operation)
        return known

    def _refresh(self, operation: str) -> None:
        found = asked("endpoint_memory", lambda: self._ask(operation), None)
        with self._lock:
            before = self._known.get(operation, (0.0, {}))[1]
            self._known[operation] = (time.monotonic(), before if found is None else found)
            self._asking.discard(operation)


def endpoint_memory(*, service: str | None = None, fresh_s: float = 60.0) -> Callable[..., Any]:
    """A FastAPI dependency: `known: dict = Depends(endpoint_memory())`.

    It gives what `Client.endpoint_memory` said of this operation within `fresh_s`, and an empty
    dict until that has been asked once.
    """
    from starlette.requests import Request

    def ask(operation: str) -> dict[str, Any]:
        # In the background nobody waits: there is time for a first, cold answer.
        return client().endpoint_memory(operation, service=service, timeout_s=5.0)

    cache = EndpointCache(ask, fresh_s)

    async def known(request: Any) -> dict[str, Any]:
        route = request.scope.get("route")
        return cache.get(f"{request.method} {getattr(route, 'path', request.url.path)}")

    known.__annotations__["request"] = Request  # FastAPI reads it; it is not imported here
    return known


__all__ = ["endpoint_memory"]
