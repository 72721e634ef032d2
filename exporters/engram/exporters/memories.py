"""What we keep: the memory types, the columns of a memory, and its identity.

A memory's type and id depend on one record alone, so the order of arrival cannot change them.
Rows of equal id merge field by field (`engram.exporters.merge`).
"""

from __future__ import annotations

import hashlib
from typing import Final

import polars as pl

MEMORY_TYPES: Final = (
    "aurea_conversation", "aurea_response", "user_interaction", "ai_response", "system_error",
    "system_event", "performance_metric", "ai_insight", "error_solution", "error_resolution",
    "optimization", "business_decision", "calculation_result", "workflow_state", "langgraph_node",
    "langgraph_outcome", "request_intent", "request_outcome", "user_action", "page_view",
    "ui_error", "api_call", "webhook_event", "integration_sync",
)  # fmt: skip
"""The taxonomy. An app may mark any other lower_snake_case type; it is kept as it is."""

ALIASES: Final = {"performance_optimization": "optimization"}

CONCLUSIONS: Final = frozenset(("ai_insight", "error_solution", "error_resolution", "optimization"))
"""Types that a mark from a browser cannot make: it is kept as a `system_event` that claims one."""

MEMORY_SCHEMA: Final[dict[str, pl.DataType]] = {
    "id": pl.String(),  # memory_id(type, scope, source key): 24 hex digits
    "type": pl.String(),
    "time_unix_nano": pl.Int64(),  # when it happened; merges to the smallest
    "end_time_unix_nano": pl.Int64(),  # when it ended, null for a moment; merges to the largest
    "title": pl.String(),  # at most 120 characters
    "content": pl.String(),  # readable text: what is searched
    "importance": pl.Float32(),  # 0..1; merges to the largest
    "tags": pl.List(pl.String()),  # sorted, distinct; merges to the union
    "service_name": pl.String(),
    "user_id": pl.String(),
    "session_id": pl.String(),
    "conversation_id": pl.String(),
    "subject": pl.String(),  # what it is about: route, host, model, entity
    "fingerprint": pl.String(),  # of a failure, else null: 16 hex digits
    "outcome": pl.String(),  # "ok", "error" or null
    "duration_ns": pl.Int64(),
    "trace_id": pl.String(),
    "span_id": pl.String(),
    "attributes": pl.String(),  # JSON object: the fields of its type
    "index_as": pl.String(),  # "memory" (its own index row), "template" (shares one), "none"
    "sources": pl.List(
        pl.UInt64()
    ),  # content_hash of each record it was made from; merges to the union
    "source": pl.String(),  # which kind of record speaks: mark, event, log, span, metric ...
    "trust": pl.String(),  # operator, app, agent, browser, unknown: from the authenticated source
    "ranks": pl.String(),  # one digit a prioritised field: the rank of the record its value is from
    "valid_from": pl.Int64(),
    "valid_to": pl.Int64(),
    "rules_version": pl.String(),
}
"""Columns of the `memories` table made by rules and merging.

The lake adds the ingest columns `collector` (VARCHAR), `sequence` (BIGINT, the commit's number)
and `recorded_at` (BIGINT, nanoseconds)."""

AMENDS: Final = "\0amends\0"
"""In front of a source key that is a memory's id: what it names is that memory."""

INGEST_COLUMNS: Final = ("collector", "sequence", "recorded_at")


def memory_id(type_: str, scope: str, key: str) -> str:
    """The id of a memory: BLAKE2b of its type, the scope its key is unique in, and its source key.

    Returns 24 hex digits (96 bits: at a thousand million memories a collision has odds of 6e-12).
    A key that is an id already (`AMENDS`), in no scope, gives that one.
    """
    if not scope and key.startswith(AMENDS):
        return key.removeprefix(AMENDS)
    return hashlib.blake2b(f"{type_}\0{scope}\0{key}".encode(), digest_size=12).hexdigest()


def memory_ids(types: list[str], scopes: list[str], keys: list[str]) -> list[str]:
    """`memory_id` of many, a third cheaper each: few types are distinct, so each is hashed once."""
    begun = {type_: hashlib.blake2b(f"{type_}\0".encode(), digest_size=12) for type_ in set(types)}
    made = []
    for type_, scope, key in zip(types, scopes, keys, strict=True):
        if not scope and key.startswith(AMENDS):
            made.append(key.removeprefix(AMENDS))
            continue
        digest = begun[type_].copy()
        digest.update(f"{scope}\0{key}".encode())
        made.append(digest.hexdigest())
    return made
