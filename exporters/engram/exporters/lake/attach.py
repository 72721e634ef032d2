"""Attach strings and pins. A move to DuckDB 2.x is a change of this file.

The DuckLake catalogue is one SQLite file in WAL mode: one writer, any number of readers.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

import duckdb

from engram.exporters.errors import NotFound, StoreError
from engram.exporters.home import Home

DUCKDB_VERSION: Final = "1.5.5"
OPTIONS: Final[dict[str, str]] = {
    "parquet_compression": "zstd",
    "parquet_compression_level": "7",
    # A merge holds a row group in memory: 811 MB at DuckDB's 122,880 rows, 621 at these.
    "parquet_row_group_size": "32768",
}
"""DuckLake's options of a lake."""

TABLE_OPTIONS: Final[dict[str, dict[str, str]]] = {
    # Search reads ten memories anywhere in the lake, and a row group is the least that can be read:
    # 92 ms at 32,768 rows, 26 at 4,096. At 2,048, the least, no better in a second measurement.
    "memories": {"parquet_row_group_size": "4096"},
}
"""DuckLake's options of a table, where they are not those of the lake."""


def set_options(connection: duckdb.DuckDBPyConnection, *tables: str) -> None:
    """Set the options of an attached lake (without tables), or those of tables that exist."""
    if not tables:
        for name, value in OPTIONS.items():
            connection.execute(f"CALL lake.set_option('{name}', '{value}')")
    for table in tables:
        for name, value in TABLE_OPTIONS.get(table, {}).items():
            connection.execute(
                f"CALL lake.set_option('{name}', '{value}', table_name => '{table}')"
            )


def parquet_options(table: str) -> str:
    """The same options, for DuckDB's `COPY`."""
    options = OPTIONS | TABLE_OPTIONS.get(table, {})
    return "FORMAT parquet, " + ", ".join(
        f"{name.removeprefix('parquet_')} {value}" for name, value in options.items()
    )


EXTENSIONS: Final = ("sqlite_scanner", "ducklake")


def _extension_file(name: str) -> Path:
    spec = importlib.util.find_spec(f"duckdb_extension_{name}")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, "extensions", f"v{DUCKDB_VERSION}", f"{name}.duckdb_extension")
        if path.is_file():
            return path
    raise StoreError(
        f"the DuckDB extension {name} {DUCKDB_VERSION} is missing; "
        'install it with: pip install "engram[server]"'
    )


def connect(*, threads: int = 2, memory_limit: str = "512MB") -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with our extensions, from their wheels: no network, nothing in HOME."""
    connection = duckdb.connect(
        config={
            "threads": str(threads),
            "memory_limit": memory_limit,
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            # Their signatures are not checked, 0.4 CPU seconds of every process: whoever can change
            # a file of our wheels can change this one too. No other is loaded unsigned.
            "allow_unsigned_extensions": "true",
            "preserve_insertion_order": "false",
            "enable_external_file_cache": "false",  # grows to the memory limit, for no reader
        }
    )
    connection.execute("SET enable_progress_bar = false")  # a slow merge would draw it into the log
    for name in EXTENSIONS:
        connection.execute(f"LOAD '{quoted(_extension_file(name))}'")
    connection.execute("SET allow_unsigned_extensions = false")  # there is no way back
    return connection


def quoted(path: Path) -> str:
    """A path as the inside of an SQL string."""
    return str(path).replace("'", "''")


def attach_sql(home: Home, *, read_only: bool) -> str:
    """The ATTACH statement of a home's lake, under the name `lake`."""
    options = [f"DATA_PATH '{quoted(home.data)}/'", "OVERRIDE_DATA_PATH true"]
    if read_only:
        options += ["READ_ONLY", "META_BUSY_TIMEOUT 10000"]
    else:
        options += [
            "META_JOURNAL_MODE 'WAL'",
            "META_BUSY_TIMEOUT 10000",
            "DATA_INLINING_ROW_LIMIT 0",
        ]
    return f"ATTACH 'ducklake:sqlite:{quoted(home.catalog)}' AS lake ({', '.join(options)})"


def attach_read_only(
    home: Home, *, threads: int = 2, memory_limit: str = "512MB"
) -> duckdb.DuckDBPyConnection:
    """A connection with the lake attached read-only and in use: `SELECT * FROM memories` works.

    Raises:
        NotFound: this home has no lake yet.
    """
    if not home.catalog.exists():
        raise NotFound(f"no lake in {home.root}; start one with: engram up --home {home.root}")
    connection = connect(threads=threads, memory_limit=memory_limit)
    connection.execute(attach_sql(home, read_only=True))
    connection.execute("USE lake")
    return connection
