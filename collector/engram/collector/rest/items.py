"""Memories as JSON: the same fields everywhere, those that are asked for, and their ETag."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final

from engram.collector.output import dumps
from engram.exporters.errors import BadRequest
from engram.learning.recall import Item, as_json

FIELDS: Final = (
    "id", "memory_type", "title", "content", "tags", "meta_data", "created_at", "score",
    "importance", "user_id", "session_id", "service", "outcome", "duration_ms", "trace_id",
    "source", "trust", "count", "first_seen", "last_seen", "pinned", "superseded_by", "why", "url",
)  # fmt: skip
"""In the order in which they are told."""


def chosen(text: str | None) -> tuple[str, ...]:
    """The fields that `fields=id,title` asks for; all without it.

    Raises:
        BadRequest: one is unknown.
    """
    if text is None:
        return FIELDS
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in FIELDS:
            raise BadRequest(f"fields: there is no {name!r}; there are {', '.join(FIELDS)}")
    return names or FIELDS


def told(item: Item, base: str, fields: Iterable[str] = FIELDS) -> dict[str, Any]:
    """One memory; `base` is where this API is, for its `url`."""
    made = {**as_json(item), "url": f"{base}/memories/{item.id}"}
    return {name: made[name] for name in fields}


def etag(item: Item) -> str:
    """What changes with everything that is told of a memory but its address."""
    raw = dumps(told(item, "")).encode("utf-8", "replace")
    return f'"{hashlib.blake2b(raw, digest_size=12).hexdigest()}"'


def matches(header: str, tag: str) -> bool:
    """Whether an `If-Match` or `If-None-Match` names this ETag."""
    names = [one.strip().removeprefix("W/") for one in header.split(",")]
    return "*" in names or tag in names
