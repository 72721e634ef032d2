"""A memory with what belongs to it: its links, what happened around it, its conversation.

For an error also the whole story (`error_context` in the lake) with its chain of causes. All texts
were written by somebody's program: they are data, and whoever shows them escapes them.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from engram.exporters.errors import BadRequest, NotFound
from engram.exporters.own import INFERRED, INHERITED, RANKS_AT
from engram.learning.stacks import causes

if TYPE_CHECKING:
    import duckdb

FAILURES: Final = ("system_error", "ui_error")
SECONDS: Final = 300
"""How far back from a memory its session is looked at."""

MOST: Final = 20
"""Entries of each list."""

_PREFIX: Final = 6
_ID: Final = re.compile(rf"[0-9a-f]{{{_PREFIX},24}}")
_HOUR: Final = 3600 * 10**9
_TURNS: Final = 6
_CERTAINTY: Final = dict(
    zip(INFERRED, ("only one in its trace", "several in its trace", "root of its trace",
                   "nearest span above it"), strict=True)
)  # fmt: skip
_HIDDEN: Final = ("ranks", "collector", "sequence", "recorded_at", "index_as", "sources",
                  "time_unix_nano", "end_time_unix_nano", "valid_from", "valid_to")  # fmt: skip


def context(
    lake: duckdb.DuckDBPyConnection, memory_id: str, *, seconds: int = SECONDS, most: int = MOST
) -> dict[str, Any]:
    """All about one memory: `memory`, `links`, `around`, `turns`, and for a failure `error`.

    `lake` is a connection with the lake attached under that name. `memory_id` may be the first six
    or more digits of an id. Times are aware datetimes.

    Raises:
        BadRequest: this is no id, or the beginning of several.
        NotFound: there is no such memory.
    """
    row = _row(lake, memory_id)
    id_, at = row["id"], row["time_unix_nano"] or 0
    near = f"seconds := {int(seconds)}, most := {int(most)}, at_ns := {int(at)}"
    told: dict[str, Any] = {"memory": _memory(row), "error": None}
    if row["type"] in FAILURES:
        told["error"] = error_context(lake, id_, seconds=seconds, most=most, at_ns=at)
    told["links"] = _links(lake, id_, at)
    told["around"] = _rows(lake, f"FROM lake.memory_context(?, {near})", [id_])
    told["turns"] = _turns(lake, row)
    return told


def error_context(
    lake: duckdb.DuckDBPyConnection,
    memory_id: str,
    *,
    seconds: int = SECONDS,
    most: int = MOST,
    at_ns: int = 0,
) -> dict[str, Any]:
    """What is known of one failure: the row of the macro `error_context`, and its `causes`.

    With `at_ns`, the time of the memory, only the files around it are read.

    Raises:
        NotFound: there is no such memory.
    """
    rows = _rows(
        lake,
        f"FROM lake.error_context(?, seconds := {int(seconds)}, most := {int(most)}, "
        f"at_ns := {int(at_ns)})",
        [memory_id],
    )
    if not rows:
        raise NotFound(f"no memory {memory_id}")
    told = rows[0]
    for name in ("before", "llm_calls", "calls", "other_errors"):
        told[name] = told[name] or []
    chain = causes(told["stacktrace"], type_=told["type"], message=told["message"])
    told["causes"] = [asdict(one) for one in chain]
    return told


def _row(lake: duckdb.DuckDBPyConnection, memory_id: str) -> dict[str, Any]:
    given = memory_id.strip().lower()
    if not _ID.fullmatch(given):
        raise BadRequest(
            f"{memory_id[:40]!r} is no id of a memory: that is 24 hexadecimal digits, or the first "
            f"{_PREFIX} or more of them; engram search --json shows ids"
        )
    whole = len(given) == 24
    where = "id = ?" if whole else "starts_with(id, ?)"
    rows = _rows(lake, f"SELECT * FROM lake.memories WHERE {where} ORDER BY id LIMIT 5", [given])
    if not rows:
        raise NotFound(f"no memory {given} in this lake")
    ids = sorted({row["id"] for row in rows})
    if len(ids) > 1:
        raise BadRequest(f"{given} is the beginning of several ids: {', '.join(ids)}")
    return rows[0]


def _memory(row: dict[str, Any]) -> dict[str, Any]:
    """The memory as people read it: times, fields as values, and what of it was inferred."""
    told = {name: value for name, value in row.items() if name not in _HIDDEN}
    told["time"], told["end_time"] = _time(row["time_unix_nano"]), _time(row["end_time_unix_nano"])
    told["reports"] = len(row["sources"] or ())
    try:
        told["attributes"] = json.loads(row["attributes"] or "{}")
    except ValueError:
        told["attributes"] = {"": row["attributes"]}
    ranks = row["ranks"] or ""
    inferred = {}
    for name, rank in zip(INHERITED, ranks[RANKS_AT - 1 :], strict=False):
        if row[name] is not None and rank in _CERTAINTY:
            inferred[name] = _CERTAINTY[rank]
        told[name] = row[name] or None
    told["inferred"] = inferred
    return told


def _links(lake: duckdb.DuckDBPyConnection, id_: str, at: int) -> list[dict[str, Any]]:
    """The memory's links, in both directions, each with the memory at the other end."""
    low, high = at - _HOUR, at + _HOUR
    if not at:
        low, high = 0, (1 << 63) - 1
    sides = " UNION ALL ".join(
        f"SELECT '{way}' AS way, relation, {other}_id AS id, {other}_type AS type, "
        f"{other}_ns AS ns FROM lake.links WHERE {own}_id = $id AND {own}_ns = $at "
        f"AND {other}_ns BETWEEN {low} AND {high}"
        for way, own, other in (("from here", "from", "to"), ("to here", "to", "from"))
    )
    return _rows(
        lake,
        "SELECT l.way, l.relation, l.id, l.type, m.title, m.outcome, "
        f"make_timestamp_ns(l.ns) AS time FROM ({sides}) AS l JOIN lake.memories AS m "
        f"ON m.id = l.id AND m.time_unix_nano BETWEEN {low} AND {high} "
        "ORDER BY l.way DESC, l.ns, l.id LIMIT 200",
        {"id": id_, "at": at},
    )


def _turns(lake: duckdb.DuckDBPyConnection, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Its conversation, some turns before and after it."""
    key = row["conversation_id"] or row["session_id"] or row["trace_id"]
    if not key or row["type"] not in (
        "user_interaction", "ai_response", "aurea_conversation", "aurea_response"
    ):  # fmt: skip
        return []
    return _rows(
        lake,
        "WITH turns AS (FROM lake.conversation($key)) FROM turns "
        "WHERE abs(turn - (SELECT turn FROM turns WHERE memory_id = $id LIMIT 1)) "
        f"<= {_TURNS} ORDER BY turn",
        {"key": key, "id": row["id"]},
    )


def _rows(
    lake: duckdb.DuckDBPyConnection, sql: str, values: list[Any] | dict[str, Any]
) -> list[dict[str, Any]]:
    cursor = lake.execute(sql, values)
    names = [column[0] for column in cursor.description or []]
    return [
        {name: _aware(value) for name, value in zip(names, row, strict=True)}
        for row in cursor.fetchall()
    ]


def _aware(value: Any) -> Any:
    """Times with their zone, in structs and lists too: the lake's are UTC."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC)
    if isinstance(value, dict):
        return {key: _aware(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_aware(one) for one in value]
    return value


def _time(ns: int | None) -> datetime | None:
    if ns is None:
        return None
    return datetime.fromtimestamp(ns // 10**9, UTC).replace(microsecond=ns % 10**9 // 1000)
