"""Folding rows of one memory into one row.

A row is a point of a join-semilattice, and merging is its join: commutative, associative and
idempotent.
So any order of arrival, any split into batches and any re-send give the same row.

| columns                        | join                                                      |
|--------------------------------|-----------------------------------------------------------|
| `time_unix_nano`               | smallest                                                  |
| `end_time_unix_nano`           | largest                                                   |
| `importance`                   | largest                                                   |
| `tags`, `sources`              | sorted union                                              |
| `trust`                        | the least trusted                                         |
| other `PRIORITISED`            | highest (rank, value); the rank moves along               |
| `attributes`                   | union of keys; on conflict the larger JSON text           |
| `id`, `type`, any other column | largest (they are equal within a memory)                  |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from json.decoder import scanstring  # type: ignore[attr-defined]
from json.encoder import encode_basestring
from typing import Any, Final

import polars as pl

from engram.exporters.memories import MEMORY_SCHEMA
from engram.exporters.trust import least

PRIORITISED: Final = (
    "title", "content", "service_name", "user_id", "session_id", "conversation_id", "subject",
    "fingerprint", "outcome", "duration_ns", "trace_id", "span_id", "index_as", "source", "trust",
    "valid_from", "valid_to", "rules_version",
)  # fmt: skip
"""Fields whose value is the best-ranked record's, in the order of the characters in `ranks`.

A record's ranks are 1 to 9; what `learn` inferred has the lower ones of `own.INFERRED`."""

_AGREED = tuple(
    name
    for name in MEMORY_SCHEMA
    if name not in PRIORITISED
    and name
    not in ("time_unix_nano", "end_time_unix_nano", "importance", "tags", "sources", "attributes",
            "ranks")
)  # fmt: skip
_NO_RANKS: Final = "0" * len(PRIORITISED)

_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder(strict=False).scan_once  # type: ignore[attr-defined]
_SPACE: Final = " \t\r\n"


def _skip(text: str, at: int) -> int:
    while text[at] in _SPACE:
        at += 1
    return at


def split_object(text: str | None) -> dict[str, str]:
    """The members of a JSON object, each value as its raw text, last duplicate first to win.

    Raw, because a value must come out as it went in: big integers, `1.0` against `1`, nested order.
    Text that is no JSON object becomes one member with an empty key.
    """
    if text is None or text == "{}":
        return {}
    members: dict[str, str] = {}
    try:
        at = _skip(text, 0)
        if text[at] != "{":
            raise ValueError(text[at])
        at = _skip(text, at + 1)
        while text[at] != "}":
            if text[at] != '"':
                raise ValueError(text[at])
            key, at = scanstring(text, at + 1, False)
            at = _skip(text, at)
            if text[at] != ":":
                raise ValueError(text[at])
            start = _skip(text, at + 1)
            _, at = _scan(text, start)
            members[key] = text[start:at]
            at = _skip(text, at)
            if text[at] == ",":
                at = _skip(text, at + 1)
            elif text[at] != "}":
                raise ValueError(text[at])
    except (ValueError, IndexError, StopIteration, RecursionError):
        return {"": encode_basestring(text)}
    return members


def join_object(members: dict[str, str]) -> str:
    """Members as a JSON object in canonical order."""
    inner = ",".join(f"{encode_basestring(k)}:{members[k]}" for k in sorted(members))
    return f"{{{inner}}}"


def canonical_object(text: str | None) -> str:
    """The same JSON object with its keys in order, each once."""
    return join_object(split_object(text))


def _least(values: Iterable[Any]) -> Any:
    return min((v for v in values if v is not None), default=None)


def _most(values: Iterable[Any]) -> Any:
    return max((v for v in values if v is not None), default=None)


def _union(lists: Iterable[list[Any] | None]) -> list[Any]:
    return sorted({v for values in lists for v in values or () if v is not None})


def merge(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One row from several of the same id. Columns beyond the schema merge to their largest."""
    if not rows:
        raise ValueError("nothing to merge")
    merged: dict[str, Any] = dict.fromkeys(rows[0])
    known = merged.keys()
    for name in (n for n in known if n in _AGREED or n not in MEMORY_SCHEMA):
        merged[name] = _most(row.get(name) for row in rows)
    merged["time_unix_nano"] = _least(row.get("time_unix_nano") for row in rows)
    merged["end_time_unix_nano"] = _most(row.get("end_time_unix_nano") for row in rows)
    merged["importance"] = _most(row.get("importance") for row in rows)
    merged["tags"] = _union(row.get("tags") for row in rows)
    merged["sources"] = _union(row.get("sources") for row in rows)
    ranks = [(row.get("ranks") or _NO_RANKS) for row in rows]
    digits: list[str] = []
    for i, name in enumerate(PRIORITISED):
        best: tuple[str, Any] | None = None
        for row, rank in zip(rows, ranks, strict=True):
            value = row.get(name)
            if value is not None and (best is None or (rank[i], value) > best):
                best = (rank[i], value)
        merged[name] = best[1] if best else None
        if name == "trust" and best:
            merged[name] = least([row["trust"] for row in rows if row.get("trust") is not None])
        digits.append(best[0] if best else "0")
    merged["ranks"] = "".join(digits)
    members: dict[str, str] = {}
    for row in rows:
        for key, value in split_object(row.get("attributes")).items():
            if key not in members or value > members[key]:
                members[key] = value
    merged["attributes"] = join_object(members)
    return merged


def merge_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with rows of equal id folded; free when all ids differ.

    Rows that stand alone pass as they are, so their `attributes`, `tags` and `sources` MUST
    already be in canonical order, as the rules and `merge` make them.
    """
    repeated = frame["id"].is_duplicated()
    if not repeated.any():
        return frame
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in frame.filter(repeated).iter_rows(named=True):
        groups.setdefault(row["id"], []).append(row)
    folded = pl.DataFrame([merge(rows) for rows in groups.values()], schema=frame.schema)
    return pl.concat([frame.filter(~repeated), folded])
