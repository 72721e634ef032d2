"""A small lake without an engine: the memories table, written as `collect` would."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa

from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_sql, connect
from engram.exporters.memories import memory_id

COLUMNS = {
    "id": "VARCHAR", "type": "VARCHAR", "time_unix_nano": "BIGINT",
    "end_time_unix_nano": "BIGINT", "title": "VARCHAR", "content": "VARCHAR",
    "importance": "FLOAT", "tags": "VARCHAR[]", "service_name": "VARCHAR", "user_id": "VARCHAR",
    "session_id": "VARCHAR", "conversation_id": "VARCHAR", "subject": "VARCHAR",
    "fingerprint": "VARCHAR", "outcome": "VARCHAR", "duration_ns": "BIGINT", "trace_id": "VARCHAR",
    "span_id": "VARCHAR", "attributes": "VARCHAR", "index_as": "VARCHAR", "sources": "UBIGINT[]",
    "source": "VARCHAR", "trust": "VARCHAR", "ranks": "VARCHAR", "valid_from": "BIGINT",
    "valid_to": "BIGINT", "rules_version": "VARCHAR", "collector": "VARCHAR",
    "sequence": "BIGINT", "recorded_at": "BIGINT",
}  # fmt: skip

START = 1_790_000_000_000_000_000


class Lake:
    """The lake of a home, open for writing."""

    def __init__(self, home: Home) -> None:
        home.create()
        self.sequence = 0
        self.db: duckdb.DuckDBPyConnection = connect(threads=1)
        self.db.execute(attach_sql(home, read_only=False))
        columns = ", ".join(f"{name} {type_}" for name, type_ in COLUMNS.items())
        self.db.execute(f"CREATE TABLE IF NOT EXISTS lake.memories ({columns})")

    def commit(self, *memories: dict[str, Any], collector: str = "c1") -> None:
        """Write memories under the next sequence; one of equal id replaces the old."""
        self.sequence += 1
        rows = pa.Table.from_pylist(
            [
                {name: memory.get(name) for name in ("id", "type", "time_unix_nano", "title",
                 "content", "service_name", "user_id", "session_id", "importance",
                 "index_as", "source", "trust", "tags", "attributes", "subject", "outcome",
                 "duration_ns", "fingerprint", "trace_id", "valid_from", "valid_to")}
                for memory in memories
            ]
        )  # fmt: skip
        self.db.execute("BEGIN")
        self.db.execute(
            "DELETE FROM lake.memories WHERE id IN (SELECT unnest(?))",
            [[memory["id"] for memory in memories]],
        )
        self.db.register("fresh", rows)
        self.db.execute(
            "INSERT INTO lake.memories BY NAME SELECT *, ? AS collector, ? AS sequence FROM fresh",
            [collector, self.sequence],
        )
        self.db.execute("COMMIT")
        self.db.unregister("fresh")

    def close(self) -> None:
        """Let go."""
        self.db.close()


def memory(key: str, title: str, content: str = "", **more: Any) -> dict[str, Any]:
    """One memory, with all that is not said made up from its key."""
    type_ = more.pop("type", "system_error")
    return {
        "id": memory_id(type_, "test", key), "type": type_, "time_unix_nano": START, "title": title,
        "content": content or title, "service_name": "shop", "user_id": None, "session_id": None,
        "index_as": "memory", "source": "span_event", "trust": "app",
    } | more  # fmt: skip
