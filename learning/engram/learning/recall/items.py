"""What recall gives back. All text in it was written by somebody's program: data, not orders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose memories: each part that is given holds for every item. `ALL` is everybody's."""

    user_id: str | None = None
    session_id: str | None = None
    service: str | None = None

    @property
    def given(self) -> dict[str, str]:
        """The parts that are given."""
        return {name: value for name, value in asdict(self).items() if value is not None}


ALL: Final = Scope()


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One memory as it comes back."""

    id: str
    memory_type: str
    title: str
    content: str
    tags: tuple[str, ...] = ()
    meta_data: Mapping[str, Any] = field(default_factory=dict)
    """The fields of its type: the `attributes` of the lake."""
    created_at: datetime | None = None
    """When it happened (aware, UTC)."""
    score: float | None = None
    """0..1 within one answer; None where nothing was compared."""
    importance: float = 0.0
    user_id: str | None = None
    session_id: str | None = None
    service: str | None = None
    outcome: str | None = None
    duration_ms: float | None = None
    trace_id: str | None = None
    source: str | None = None
    trust: str | None = None
    count: int = 1
    """Near-equal memories that are told as this one."""
    first_seen: datetime | None = None
    """Of those, where there are several."""
    last_seen: datetime | None = None
    pinned: bool = False
    superseded_by: str | None = None
    """The id of the memory that took its place."""
    why: Mapping[str, Any] = field(default_factory=dict)
    """How its score came about; filled where an explanation was asked for."""
    subject: str | None = None
    """What it is about, where its type or its author says so."""
    fingerprint: str | None = None
    """Of a failure."""
    time_unix_nano: int | None = None
    """`created_at`, exactly."""
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    """Until when what it says holds; None: until something else is said."""
    hidden: bool = False
    """Somebody hid it: searches and contexts leave it out, `get` and `history` tell it."""
    edited: bool = False
    """Title, content, tags or fields are those of an edit; `history` has what it said before."""

    @property
    def type(self) -> str:
        """Another name of `memory_type`."""
        return self.memory_type


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to a question, best first. No items: nothing relevant is remembered."""

    items: tuple[Item, ...]
    note: str = ""
    """What the reader must know, such as that vectors were not compared."""
    explanation: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list, newest first."""

    items: tuple[Item, ...]
    next: str | None = None
    """An opaque cursor for the part after this one; None at the end."""


__all__ = ["ALL", "Found", "Item", "Page", "Scope"]
