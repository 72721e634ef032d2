"""SQL that a person typed, against the lake, so that it can only read.

The lake is attached read-only, DuckDB may touch no file outside it and no network, and its settings
are locked: a query pasted from anywhere can be wrong or slow, and nothing worse.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from engram.exporters import own
from engram.exporters.errors import BadRequest, EngramError
from engram.exporters.home import Home

if TYPE_CHECKING:
    import duckdb

TABLES: Final = ("spans", "logs", "metrics", "memories")
_ROWS_AT_ONCE: Final = 1024


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to a query, read as it is consumed."""

    columns: list[str]
    """Names, made distinct."""

    rows: Iterator[tuple[Any, ...]]

    types: tuple[str, ...] = ()
    """DuckDB's names of their types."""


@contextmanager
def reader(
    home: Home, *, threads: int = 2, memory_limit: str = "512MB"
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection that can reach nothing but the lake.

    Raises:
        NotFound: this home has no lake.
    """
    connection = open_reader(home, threads=threads, memory_limit=memory_limit)
    try:
        yield connection
    finally:
        connection.interrupt()  # a query that was left behind would be waited for
        connection.close()


def open_reader(
    home: Home, *, threads: int = 2, memory_limit: str = "512MB", stranger: bool = False
) -> duckdb.DuckDBPyConnection:
    """As `reader`, for the caller to close.

    For a `stranger` it spills nothing to the disk, sees no variable of this program, and may open
    the data files alone, not the catalogue beside them.
    """
    from engram.exporters.lake.attach import attach_read_only

    connection = attach_read_only(home, threads=threads, memory_limit=memory_limit)
    folder = str(home.data if stranger else home.lake).replace("'", "''")
    if stranger:
        connection.execute("SET max_temp_directory_size = '0MB'")
        connection.execute("SET temp_directory = ''")
        connection.execute("SET python_enable_replacements = false")
    # After the attach: it loads the extensions, which is an access of its own.
    connection.execute(f"SET allowed_directories = ['{folder}/']")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def run(connection: duckdb.DuckDBPyConnection, text: str) -> Result:
    """Run one reading statement.

    Raises:
        BadRequest: it is none, more than one, or does not read.
        duckdb.Error: DuckDB cannot run it.
    """
    import duckdb

    statements = connection.extract_statements(text)
    if len(statements) != 1:
        raise BadRequest(f"one statement at a time, please; this is {len(statements) or 'none'}")
    if statements[0].type not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        kind = statements[0].type.name.lower()
        raise BadRequest(
            f"the lake is read-only here, and this is no query but {kind}; "
            "telemetry comes in by OTLP only"
        )
    cursor = connection.execute(statements[0])
    description = cursor.description or []
    # DuckDB hands out TIMESTAMP WITH TIME ZONE only through pytz; Arrow needs no such package.
    zoned = any("WITH TIME ZONE" in str(column[1]) for column in description)
    rows = _arrow_rows(cursor) if zoned else _plain_rows(cursor)
    types = tuple(str(column[1]) for column in description)
    return Result(_distinct([column[0] for column in description]), rows, types)


def _plain_rows(cursor: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        yield from rows


def _arrow_rows(cursor: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    import pyarrow as pa

    for batch in cursor.to_arrow_reader(_ROWS_AT_ONCE):
        columns = []
        for column in batch.columns:
            values = column
            if pa.types.is_timestamp(values.type):
                values = values.cast(pa.timestamp("us"), safe=False)  # Python has no nanoseconds
                found = values.to_pylist()
                if column.type.tz is not None:
                    found = [one and one.replace(tzinfo=UTC) for one in found]
                columns.append(found)
            else:
                columns.append(values.to_pylist())
        yield from zip(*columns, strict=True)


def _distinct(names: list[str]) -> list[str]:
    """The names, with `_2`, `_3` where a name repeats: a JSON object cannot hold it twice."""
    found: list[str] = []
    for name in names:
        candidate, at = name, 1
        while candidate in found:
            at += 1
            candidate = f"{name}_{at}"
        found.append(candidate)
    return found


def explained(error: Exception) -> str:
    """The message of an error, with what to do where the database does not say it."""
    text = str(error)
    if isinstance(error, EngramError):
        return text
    if "TIMESTAMP_NS" in text and "WITH TIME ZONE" in text:
        text += (
            "\nTimes here are UTC without a zone: compare with "
            "make_timestamp(epoch_us(now())) - INTERVAL 1 HOUR"
        )
    elif "json" in text.lower() and "Malformed" in text:
        text += "\nattributes and resource are JSON texts: attributes ->> 'http.route'"
    return text


def counts(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, int]]:
    """How many rows each table has, and how many memories each type."""
    tables = {
        name: int((connection.execute(f"SELECT count(*) FROM {name}").fetchone() or (0,))[0])
        for name in TABLES
    }
    if "logs" in tables:  # what Engram tells of itself is nothing of the user's
        asked = "SELECT count(*) FROM logs WHERE scope_name = ?"
        tables["logs"] -= int((connection.execute(asked, [own.ITSELF]).fetchone() or (0,))[0])
    types = connection.execute(
        "SELECT type, count(*) FROM memories GROUP BY type ORDER BY count(*) DESC, type"
    ).fetchall()
    return {"tables": tables, "memory_types": dict(types)}
