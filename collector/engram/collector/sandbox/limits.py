"""What a stranger's query may cost, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engram.exporters.errors import BadRequest


class TooExpensive(BadRequest):
    """The query ran into a limit of time or memory. The same query will again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Caps of one query, and of all of them together."""

    timeout_s: float = 10.0
    """Unless the caller says less or more."""

    most_timeout_s: float = 60.0

    max_rows: int = 10_000
    """Rows of one answer, whatever the caller asks for."""

    max_bytes: int = 2_000_000
    """JSON of one answer: what a worker may make its parent hold."""

    max_cell: int = 65_536
    """Characters of one value."""

    max_sql: int = 50_000
    """Characters of a statement."""

    memory: str = "256MB"
    """DuckDB's own limit, of what it counts."""

    address_space: int = 3 << 30
    """RLIMIT_AS. An idle worker has 1.2 GB mapped and 0.1 resident; strings are not counted by
    DuckDB, and stop here."""

    threads: int = 2

    workers: int = 2
    """Queries at the same time."""

    wait_s: float = 5.0
    """How long a query waits for its turn."""

    idle_s: float = 60.0
    """A worker that nobody asked for so long is ended: it holds memory."""


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to a query. Every value is of JSON: times are ISO 8601, decimals text."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    truncated: bool
    """There were more rows, or a value was cut."""
    elapsed_ms: float
