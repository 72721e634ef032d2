"""`MemoryService`: memories written by name; reading them comes with recall."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry import trace

from engram.instrumentation.api.calls import quietly
from engram.instrumentation.api.marks import SCOPE, internal, mark
from engram.instrumentation.api.values import json_text, plain, text


@dataclass(slots=True)
class Memory:
    """A memory as programs see it."""

    id: str
    title: str
    content: str
    memory_type: str
    tags: list[str] = field(default_factory=list)
    meta_data: dict[str, Any] = field(default_factory=dict)
    created_at: datetime.datetime = field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC)
    )
    user_id: str | None = None
    score: float | None = None
    """How well it fits a search; None of what was just written."""


class SyncMemoryService:
    """Writes memories. Needs no connection: what it writes goes the way of all telemetry."""

    def __init__(self, store: str = "engram") -> None:
        self._store = store

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

        `wait` is taken and does nothing yet: nothing here waits for the collector.
        """
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


class MemoryService:
    """The same for async code: `await MemoryService().create_memory(...)`."""

    def __init__(self, store: str = "engram") -> None:
        self._sync = SyncMemoryService(store)

    def create_memory_sync(self, **arguments: Any) -> Memory:
        """`create_memory` without await."""
        return self._sync.create_memory(**arguments)

    async def create_memory(
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
        """See `SyncMemoryService.create_memory`; it never gives up the event loop."""
        return self._sync.create_memory(
            title=title, content=content, memory_type=memory_type, user_id=user_id,
            session_id=session_id, tags=tags, meta_data=meta_data, importance=importance, key=key,
            wait=wait,
        )  # fmt: skip
