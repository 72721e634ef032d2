"""The schema of a lake: tables and views from `sql/`, and forward-only migrations.

`sql/tables` is the schema of today. A lake of an older version is brought here by the files
`sql/migrations/NNNN_name.sql` above its version, in order, in one transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

import duckdb

from engram.exporters.errors import StoreError
from engram.exporters.memories import MEMORY_TYPES

SCHEMA_VERSION: Final = 2


def _sql() -> Traversable:
    return files("engram.exporters.lake") / "sql"


def statements(kind: str) -> Iterator[str]:
    """The SQL of `kind` ("tables" or "views"), in the order of its `_order` file."""
    folder = _sql() / kind
    for name in (folder / "_order").read_text().split():
        text = (folder / f"{name}.sql").read_text()
        if "{type}" in text:
            yield from (text.replace("{type}", type_) for type_ in MEMORY_TYPES)
        else:
            yield text


def migrations(above: int, source: Traversable | None = None) -> Iterator[tuple[int, str]]:
    """(version, SQL) of the migrations above a version, in order."""
    folder = source or _sql() / "migrations"
    found = sorted(p.name for p in folder.iterdir() if p.name.endswith(".sql"))
    for name in found:
        version = int(name.split("_", 1)[0])
        if version > above:
            yield version, (folder / name).read_text()


def prepare(
    connection: duckdb.DuckDBPyConnection,
    *,
    target: int = SCHEMA_VERSION,
    source: Traversable | None = None,
    before_commit: Callable[[], None] = lambda: None,
) -> None:
    """Create the schema in an empty lake, or migrate an older one. The lake is in use (`USE lake`).

    `before_commit` makes durable what DuckLake wrote.

    Raises:
        StoreError: the lake was written by a newer Engram.
    """
    exists = connection.execute(
        "SELECT count(*) FROM information_schema.tables "
        "WHERE table_catalog = 'lake' AND table_name = 'schema_versions'"
    ).fetchone()
    connection.execute("BEGIN")
    try:
        if not exists or not exists[0]:
            for sql in statements("tables"):
                connection.execute(sql)
            version = 0
        else:
            row = connection.execute("SELECT max(version) FROM schema_versions").fetchone()
            version = row[0] if row else 0
            if version > target:
                raise StoreError(
                    f"this lake has schema version {version}, this Engram knows {target}: "
                    "use the newer Engram that wrote it"
                )
            for _, sql in migrations(version, source):
                connection.execute(sql)
        if version < target:
            for sql in statements("views"):
                connection.execute(sql)
            connection.execute(
                "INSERT INTO schema_versions VALUES (?, ?)", [target, time.time_ns()]
            )
        before_commit()
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
