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
            "preserve_insertion_order": "false",
            "enable_external_file_cache": "false",  # grows to the memory limit, for no reader
        }
    )
    for name in EXTENSIONS:
        connection.execute(f"LOAD '{quoted(_extension_file(name))}'")
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
