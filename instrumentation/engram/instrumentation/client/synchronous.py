"""The client for code that waits."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from engram.instrumentation.client.http import Http
from engram.instrumentation.client.items import ContextWindow, Memories, Memory

Moment = str | datetime.datetime | None
Types = str | Iterable[str] | None


class Client:
    """Asks and writes memory over REST. Safe for several threads.

    Every method raises `RecallUnavailable` when nobody answers in time, and `RecallRefused` with
    the reason when the question cannot be answered.
    """

    def __init__(
        self, url: str | None = None, token: str | None = None, *, timeout_s: float = 2.0
    ) -> None:
        self.http = Http(url, token, timeout_s=timeout_s)

    # -- recall ------------------------------------------------------------------------------------

    def search_memories(
        self, query: str, *, memory_type: Types = None, user_id: object = None,
        session_id: object = None, service: str | None = None, tags: Types = None,
        limit: int = 10, since: Moment = None, until: Moment = None,
        min_importance: float | None = None, as_of: Moment = None, explain: bool = False,
        timeout_s: float | None = None,
    ) -> Memories:  # fmt: skip
        """The memories that answer a question, best first; none: nothing relevant is remembered."""
        body = _given(
            query=query, types=_list(memory_type), tags=_list(tags), limit=min(200, int(limit)),
            since=_moment(since), until=_moment(until), min_importance=min_importance,
            as_of=_moment(as_of), explain=explain or None,
            scope=_given(user_id=_text(user_id), session_id=_text(session_id), service=service),
        )  # fmt: skip
        return _memories(self.http.ask("POST", "/api/v1/search", body, timeout_s=timeout_s))

    def get_recent_memories(
        self, memory_type: Types = None, *, hours: float | None = 24, user_id: object = None,
        session_id: object = None, service: str | None = None, limit: int = 50,
        cursor: str | None = None, timeout_s: float | None = None,
    ) -> Memories:  # fmt: skip
        """The newest memories, newest first; `next` of the answer is the cursor of more."""
        return _memories(
            self.http.ask(
                "GET", "/api/v1/memories", timeout_s=timeout_s, type=_list(memory_type),
                user_id=_text(user_id), session_id=_text(session_id), service=service,
                hours=hours, limit=min(200, int(limit)), cursor=cursor,
            )
        )  # fmt: skip

    def get_memory(self, memory_id: str) -> Memory:
        """One memory as it is now."""
        return Memory.read(self.http.ask("GET", _of(memory_id)))

    def history(self, memory_id: str) -> Memories:
        """One memory as it was written and after each change, oldest first."""
        return _memories(self.http.ask("GET", _of(memory_id, "/history")))

    def get_context_window(
        self, user_id: object = None, *, window_size: int = 50, include_similar: bool = True,
        session_id: object = None, service: str | None = None, max_tokens: int | None = None,
        query: str | None = None, as_of: Moment = None, timeout_s: float | None = None,
    ) -> ContextWindow:  # fmt: skip
        """What a model should know of a user: recent, similar, solutions, decisions, problems."""
        body = _given(
            user_id=_text(user_id), session_id=_text(session_id), service=service,
            window_size=min(200, window_size), include_similar=include_similar,
            max_tokens=max_tokens, query=query, as_of=_moment(as_of),
        )  # fmt: skip
        said = self.http.ask("POST", "/api/v1/context", body, timeout_s=timeout_s) or {}
        sections = {
            name: Memories(Memory.read(one) for one in items)
            for name, items in (said.get("sections") or {}).items()
        }
        return ContextWindow(
            Memories(
                (one for items in sections.values() for one in items), note=said.get("note") or ""
            ),
            str(said.get("text") or ""),
            int(said.get("token_count") or 0),
            said.get("truncated") or None,
            sections,
        )

    def find_known_error(
        self, text: str | None = None, *, error_type: str | None = None,
        message: str | None = None, file: str | None = None, service: str | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Whether an error was seen before, how often, and what helped."""
        body = _given(text=text, type=error_type, message=message, file=file, service=service)
        found: dict[str, Any] = self.http.ask(
            "POST", "/api/v1/known-errors", body, timeout_s=timeout_s
        )
        return found

    def decision_history(
        self, context: object, options: Iterable[object] = (), *, service: str | None = None,
        limit: int = 100, timeout_s: float | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Similar decisions, and how often each option was a success."""
        body = _given(
            context=context, options=list(options), service=service, limit=min(200, limit)
        )
        found: dict[str, Any] = self.http.ask(
            "POST", "/api/v1/decisions/history", body, timeout_s=timeout_s
        )
        return found

    def endpoint_memory(
        self, operation: str, *, service: str | None = None, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Past requests of an operation (`GET /orders/{id}`), and what was learned of it."""
        found: dict[str, Any] = self.http.ask(
            "GET", "/api/v1/endpoints", timeout_s=timeout_s, operation=operation, service=service
        )
        return found

    def sql(self, statement: str, *, max_rows: int = 1_000) -> list[dict[str, Any]]:
        """The rows of one reading statement."""
        said = self.http.ask("POST", "/api/v1/sql", {"sql": statement, "max_rows": max_rows})
        return [dict(zip(said["columns"], row, strict=True)) for row in said["rows"]]

    # -- writing -----------------------------------------------------------------------------------

    def create_memory(
        self, *, title: object, content: object = "", memory_type: str = "ai_insight",
        user_id: object = None, session_id: object = None, service: str | None = None,
        tags: Types = None, meta_data: Mapping[str, object] | None = None,
        importance: float | None = None, key: object = None, subject: str | None = None,
        wait: bool = True, timeout_s: float | None = None,
    ) -> Memory:  # fmt: skip
        """Remember. With `wait` it can be read when this returns."""
        own = uuid.uuid4().hex if key is None else str(key)
        body = _given(
            title=str(title)[:1_000], content=content, memory_type=memory_type,
            user_id=_text(user_id), session_id=_text(session_id), service=service, subject=subject,
            tags=_list(tags), meta_data=dict(meta_data or {}), importance=importance, key=own,
            wait=wait,
        )  # fmt: skip
        limit = max(15.0, timeout_s or 0.0) if wait else timeout_s
        return Memory.read(self.http.ask("POST", "/api/v1/memories", body, timeout_s=limit))

    def update_memory(
        self, memory_id: str, *, title: str | None = None, content: str | None = None,
        tags: Types = None, meta_data: Mapping[str, object] | None = None,
        reason: str | None = None,
    ) -> Memory:  # fmt: skip
        """Change a memory; as it was it stays in its history."""
        body = _given(
            title=title, content=content, tags=_list(tags), reason=reason,
            meta_data=None if meta_data is None else dict(meta_data),
        )  # fmt: skip
        return self._changed(self.http.ask("PATCH", _of(memory_id), body, timeout_s=15.0))

    def pin(self, memory_id: str, reason: str | None = None) -> Memory:
        """Keep a memory at hand."""
        return self._change(memory_id, "pin", reason=reason)

    def unpin(self, memory_id: str, reason: str | None = None) -> Memory:
        """No longer."""
        return self._change(memory_id, "unpin", reason=reason)

    def hide(self, memory_id: str, reason: str | None = None) -> Memory | None:
        """Leave a memory out of all recall. It stays in the lake and in its history."""
        said = self.http.ask("POST", _of(memory_id, "/hide"), _given(reason=reason), timeout_s=15.0)
        return Memory.read(said["memory"]) if said.get("memory") else None

    delete = hide

    def show(self, memory_id: str, reason: str | None = None) -> Memory:
        """Take a hidden memory back."""
        return self._change(memory_id, "show", reason=reason)

    def supersede(self, memory_id: str, by: str, reason: str | None = None) -> Memory:
        """Say that another memory took its place."""
        return self._change(memory_id, "supersede", by=by, reason=reason)

    def record_outcome(
        self, target_id: str, outcome: object, *, success: bool | None = None,
        value: float | None = None, notes: str | None = None, wait: bool = False,
    ) -> str:  # fmt: skip
        """What came of a decision or a solution; the id of the memory that has it."""
        body = _given(
            target_id=target_id, outcome=outcome, success=success, value=value, notes=notes,
            wait=wait,
        )  # fmt: skip
        said = self.http.ask("POST", "/api/v1/outcomes", body, timeout_s=15.0 if wait else None)
        return str(said["id"])

    # -- names from elsewhere ----------------------------------------------------------------------

    search = search_memories
    get = get_memory
    get_all = get_recent_memories
    update = update_memory

    def add(self, content: object, **more: Any) -> Memory:
        """`create_memory` with the text first."""
        title = more.pop("title", None) or str(content)[:120]
        return self.create_memory(title=title, content=content, **more)

    def close(self) -> None:
        """Let go of the connections."""
        self.http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _change(self, memory_id: str, what: str, **more: Any) -> Memory:
        return self._changed(
            self.http.ask("POST", _of(memory_id, f"/{what}"), _given(**more), timeout_s=15.0)
        )

    def _changed(self, said: Mapping[str, Any]) -> Memory:
        return Memory.read(said["memory"]) if said.get("memory") else self.get_memory(said["id"])


def _memories(said: Mapping[str, Any]) -> Memories:
    return Memories(
        (Memory.read(one) for one in said.get("items", ())), note=str(said.get("note") or ""),
        next=said.get("next"), explanation=said.get("explanation"),
    )  # fmt: skip


def _of(memory_id: str, more: str = "") -> str:
    return f"/api/v1/memories/{quote(str(memory_id), safe='')}{more}"


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _list(of: Types) -> list[str] | None:
    if of is None:
        return None
    return [of] if isinstance(of, str) else [str(one) for one in of]


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _moment(value: Moment) -> str | None:
    return value.isoformat() if isinstance(value, datetime.datetime) else value


__all__ = ["Client"]
