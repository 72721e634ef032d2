"""Which insights become alerts, and what an alert says.

What an insight says was made of telemetry, so it is data: nobody may take it for an instruction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from engram.exporters import own
from engram.learning.alerts.settings import Alerts

if TYPE_CHECKING:
    import duckdb

VERSION: Final = 1
"""Of the message; a key is added without a new one, and none is removed."""

MOST: Final = 200
"""Alerts that a summary names."""

_ABOUT: Final = ("subject", "pattern", "series", "operation", "route", "metric")
"""Facts that say what an insight is about, the most telling first."""


@dataclass(frozen=True, slots=True)
class Found:
    """An insight that may be told."""

    id: str
    """Of its memory."""
    type: str
    title: str
    content: str
    time: int
    importance: float
    tags: tuple[str, ...]
    service: str
    facts: Mapping[str, Any]

    @property
    def job(self) -> str:
        """Who says so."""
        return str(self.facts.get("job", ""))

    @property
    def subject(self) -> str:
        """What it is about: of the same, one alert is enough for a while."""
        about = next((str(self.facts[one]) for one in _ABOUT if self.facts.get(one)), self.id)
        return blake2b(f"{self.service}\0{about}".encode(), digest_size=12).hexdigest()


def wanted(one: Found, settings: Alerts) -> bool:
    """Whether somebody should be told."""
    return (
        one.importance >= settings.min_importance - 1e-6  # the column has single precision
        and (not settings.jobs or one.job in settings.jobs)
        and (not settings.tags or any(tag in settings.tags for tag in one.tags))
    )


def found(
    lake: duckdb.DuckDBPyConnection, recorded_since: int, happened_since: int, least: float
) -> list[Found]:
    """Insights that were recorded since a moment, in the order of time."""
    rows = lake.execute(
        "SELECT id, type, coalesce(title, ''), coalesce(content, ''), time_unix_nano, "
        "coalesce(importance, 0), coalesce(tags, []), coalesce(service_name, ''), attributes "
        "FROM lake.memories WHERE recorded_at >= ? AND time_unix_nano >= ? "
        "AND importance >= ? AND list_contains(tags, ?) AND trust IS DISTINCT FROM 'browser' "
        "AND json_extract_string(attributes, '$.job') IS NOT NULL "
        "ORDER BY time_unix_nano, id",
        [recorded_since, happened_since, least - 1e-6, f"scope:{own.SCOPE}"],
    ).fetchall()
    return [
        Found(
            str(row[0]), str(row[1]), str(row[2]), str(row[3]), int(row[4]), float(row[5]),
            tuple(row[6]), str(row[7]), _object(row[8]),
        )
        for row in rows
    ]  # fmt: skip


def alert(one: Found, settings: Alerts) -> dict[str, Any]:
    """The message of one insight."""
    return {
        "version": VERSION, "kind": "alert", "id": one.id, "type": one.type, "job": one.job,
        "state": one.facts.get("state"), "title": one.title, "content": one.content,
        "service": one.service or None, "time": _when(one.time), "time_unix_nano": one.time,
        "importance": round(one.importance, 3), "tags": list(one.tags),
        "facts": dict(one.facts), "url": link(one.id, settings),
    }  # fmt: skip


def summary(held: Sequence[Mapping[str, Any]], now: int) -> dict[str, Any]:
    """The message of those that were too many for one each."""
    key = "\0".join(str(one["id"]) for one in held)
    return {
        "version": VERSION, "kind": "summary",
        "id": blake2b(key.encode(), digest_size=12).hexdigest(),
        "title": f"{len(held)} more alert{'s' if len(held) > 1 else ''}",
        "content": "\n".join(str(one["title"]) for one in held[:MOST]),
        "time": _when(now), "time_unix_nano": now, "count": len(held),
        "alerts": list(held[:MOST]),
    }  # fmt: skip


def trial(now: int) -> dict[str, Any]:
    """The message that shows whether a hook works."""
    return {
        "version": VERSION, "kind": "test", "id": f"test-{now}", "title": "A test of alerts",
        "content": "Engram can reach you. Nothing has happened.", "time": _when(now),
        "time_unix_nano": now,
    }  # fmt: skip


def link(id_: str, settings: Alerts) -> str:
    """Where a memory can be read."""
    return f"{settings.url.rstrip('/')}/api/memories/{quote(id_, safe='')}"


def _when(moment: int) -> str:
    return datetime.fromtimestamp(moment / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _object(text: str | None) -> dict[str, Any]:
    try:
        told = json.loads(text or "{}")
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


__all__ = [
    "MOST",
    "VERSION",
    "Found",
    "alert",
    "found",
    "link",
    "summary",
    "trial",
    "wanted",
]
