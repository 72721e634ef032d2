"""`MemoryService`: memories written and recalled by name, without ever troubling the app.

Writing goes the way of all telemetry and waits for nobody, unless `wait=True` asks to read what
was written. Reading asks the REST API: where nobody answers in time, what comes back is empty and
says so in `note`, and a circuit opens so that the next requests do not wait either.
`on_error="raise"` is for programs that would rather know.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal, TypeVar

from opentelemetry import trace

from engram.instrumentation.api.calls import quietly
from engram.instrumentation.api.marks import SCOPE, internal, mark
from engram.instrumentation.api.values import json_text, plain, text
from engram.instrumentation.client.http import RecallError
from engram.instrumentation.client.items import ContextWindow, Memories, Memory
from engram.instrumentation.client.synchronous import Client

R = TypeVar("R")

_LOG: Final = logging.getLogger("engram.instrumentation")

TIMEOUT_S: Final = 1.0
"""Of a question: an app has better things to do."""

_THREADS: Final = 8


class SyncMemoryService:
    """Writes and recalls memories. Constructing connects to nothing. Safe for several threads."""

    def __init__(
        self, store: str = "engram", *, url: str | None = None, token: str | None = None,
        timeout_s: float = TIMEOUT_S, on_error: Literal["ignore", "raise"] = "ignore",
    ) -> None:  # fmt: skip
        self._store = store
        self._client = Client(url, token, timeout_s=timeout_s)
        self._raises = on_error == "raise"
        self._told = False

    def create_memory(
        self,
        *,
        title: object,
        content: object = "",
        memory_type: str = "ai_insight",
        user_id: object = None,
        session_id: object = None,
        tags: Iterable[object] = (),
        meta_data: Mapping[str, object] | None = None,
        importance: float | None = None,
        key: object = None,
        wait: bool = False,
    ) -> Memory:
        """Remember; the id is the one that the memory will have in the lake.

        With `wait` it can be found by id and among the newest when this returns; where nobody
        answers it is sent like all telemetry.
        """
        if wait:
            key = uuid.uuid4().hex if key is None else key
            with self._quietly("create_memory") as answered:
                written = self._client.create_memory(
                    title=title, content=content, memory_type=memory_type, user_id=user_id,
                    session_id=session_id, tags=[str(tag) for tag in tags]
                    if not isinstance(tags, str) else tags,
                    meta_data=meta_data, importance=importance, key=key, wait=True,
                )  # fmt: skip
                answered.append(written)
            if answered:
                return written
        labels = [str(tag) for tag in tags] if not isinstance(tags, str) else [tags]
        body = quietly(json_text, content) or ""
        tracer = trace.get_tracer(SCOPE)
        with tracer.start_as_current_span(f"create_memory {self._store}") as span:
            made = mark(
                memory_type, title, key=key, content=body, tags=labels, importance=importance,
                verbatim=True, who={"user.id": user_id, "session.id": session_id},
                payload=meta_data,
            )  # fmt: skip
            try:
                # The records stay off the span: the event has them, and one fact is one memory.
                span.set_attribute("gen_ai.operation.name", "create_memory")
                span.set_attribute("gen_ai.memory.store.id", self._store)
                span.set_attribute("gen_ai.memory.record.id", made.id)
                span.set_attribute("gen_ai.memory.record.count", 1)
                span.set_attribute("engram.memory.id", made.id)
            except Exception as error:  # noqa: BLE001 - the app must not notice us
                internal(error)
        meta = plain(dict(meta_data or {}))
        return Memory(
            id=made.id,
            title=text(title, 1_000),
            content=body,
            memory_type=made.type,
            tags=labels,
            meta_data=meta if isinstance(meta, dict) else {},
            user_id=None if user_id is None else str(user_id),
        )

    def search_memories(self, query: str, *, limit: int = 10, **filters: Any) -> Memories:
        """The memories that answer a question, best first; the filters of `Client`."""
        with self._asked("search_memory") as answered:
            answered.append(self._client.search_memories(query, limit=limit, **filters))
        return answered[0] if answered else Memories(note="memory does not answer")

    def get_recent_memories(
        self, memory_type: str | Iterable[str] | None = None, *, hours: float | None = 24,
        limit: int = 50, **filters: Any,
    ) -> Memories:  # fmt: skip
        """The newest memories, newest first."""
        with self._asked("search_memory") as answered:
            answered.append(
                self._client.get_recent_memories(memory_type, hours=hours, limit=limit, **filters)
            )
        return answered[0] if answered else Memories(note="memory does not answer")

    def get_context_window(
        self, user_id: object = None, *, window_size: int = 50, include_similar: bool = True,
        **more: Any,
    ) -> ContextWindow:  # fmt: skip
        """What a model should know of a user; empty where memory does not answer."""
        found: list[ContextWindow] = []
        with self._asked("search_memory") as answered:
            found.append(
                self._client.get_context_window(
                    user_id, window_size=window_size, include_similar=include_similar, **more
                )
            )
            answered.append(found[0].items)
        return found[0] if found else ContextWindow(Memories(note="memory does not answer"), "")

    def get_memory(self, memory_id: str) -> Memory | None:
        """One memory; None where it is not there, or memory does not answer."""
        with self._quietly("get_memory") as answered:
            answered.append(self._client.get_memory(memory_id))
        return answered[0] if answered else None

    def find_known_error(self, text: str | None = None, **asked: Any) -> dict[str, Any]:
        """Whether an error was seen, and what helped; see `Client`. Empty: no answer."""
        with self._quietly("find_known_error") as answered:
            answered.append(self._client.find_known_error(text, **asked))
        return answered[0] if answered else {}

    def record_outcome(self, target_id: str, outcome: object, **more: Any) -> str | None:
        """What came of a decision or a solution; None where memory does not answer."""
        with self._quietly("record_outcome") as answered:
            answered.append(self._client.record_outcome(target_id, outcome, **more))
        return answered[0] if answered else None

    def close(self) -> None:
        """Let go of the connections. Safe twice; the next question makes new ones."""
        self._client.close()

    @contextlib.contextmanager
    def _asked(self, operation: str) -> Iterator[list[Any]]:
        """A question as the GenAI conventions have it; what was found is not told again."""
        tracer = trace.get_tracer(SCOPE)
        with tracer.start_as_current_span(f"{operation} {self._store}") as span:
            with self._quietly(operation) as answered:
                yield answered
            try:
                span.set_attribute("gen_ai.operation.name", operation)
                span.set_attribute("gen_ai.memory.store.id", self._store)
                count = len(answered[0]) if answered else 0
                span.set_attribute("gen_ai.memory.record.count", count)
            except Exception as error:  # noqa: BLE001 - the app must not notice us
                internal(error)

    @contextlib.contextmanager
    def _quietly(self, what: str) -> Iterator[list[Any]]:
        """What is inside may find nobody; it is said once, or raised where that was asked for."""
        try:
            yield []
        except RecallError as error:
            if self._raises:
                raise
            if not self._told:
                self._told = True
                _LOG.warning("engram: memory does not answer %s: %s", what, error)


class MemoryService:
    """The same for async code: `await MemoryService().search_memories(...)`.

    Questions run in threads of their own; the event loop never waits for the network.
    """

    def __init__(self, store: str = "engram", **settings: Any) -> None:
        self._sync = SyncMemoryService(store, **settings)
        self._threads: ThreadPoolExecutor | None = None

    def create_memory_sync(self, **arguments: Any) -> Memory:
        """`create_memory` without await."""
        return self._sync.create_memory(**arguments)

    async def create_memory(self, *, wait: bool = False, **arguments: Any) -> Memory:
        """See `SyncMemoryService.create_memory`; without `wait` it does not give up the loop."""
        if not wait:
            return self._sync.create_memory(**arguments)
        return await self._run(self._sync.create_memory, wait=True, **arguments)

    async def search_memories(self, query: str, **filters: Any) -> Memories:
        """See `SyncMemoryService.search_memories`."""
        return await self._run(self._sync.search_memories, query, **filters)

    async def get_recent_memories(
        self, memory_type: str | Iterable[str] | None = None, **filters: Any
    ) -> Memories:
        """See `SyncMemoryService.get_recent_memories`."""
        return await self._run(self._sync.get_recent_memories, memory_type, **filters)

    async def get_context_window(self, user_id: object = None, **more: Any) -> ContextWindow:
        """See `SyncMemoryService.get_context_window`."""
        return await self._run(self._sync.get_context_window, user_id, **more)

    async def get_memory(self, memory_id: str) -> Memory | None:
        """See `SyncMemoryService.get_memory`."""
        return await self._run(self._sync.get_memory, memory_id)

    async def find_known_error(self, text: str | None = None, **asked: Any) -> dict[str, Any]:
        """See `SyncMemoryService.find_known_error`."""
        return await self._run(self._sync.find_known_error, text, **asked)

    async def record_outcome(self, target_id: str, outcome: object, **more: Any) -> str | None:
        """See `SyncMemoryService.record_outcome`."""
        return await self._run(self._sync.record_outcome, target_id, outcome, **more)

    @property
    def sync(self) -> SyncMemoryService:
        """The same memory for code that does not await."""
        return self._sync

    async def close(self) -> None:
        """Let go of connections and threads."""
        self.close_sync()

    def close_sync(self) -> None:
        """`close` without await."""
        self._sync.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    async def _run(self, method: Callable[..., R], *arguments: Any, **named: Any) -> R:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="engram-memory")
        call = functools.partial(
            contextvars.copy_context().run, functools.partial(method, *arguments, **named)
        )
        import asyncio  # who awaits has it already

        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


__all__ = ["Memory", "MemoryService", "SyncMemoryService"]
