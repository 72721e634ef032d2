"""The lake as the tools read it: one connection that can only read, opened when it is needed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from engram.collector.query import open_reader
from engram.exporters.errors import StoreError
from engram.exporters.home import Home

if TYPE_CHECKING:
    import duckdb


class Reader:
    """One question at a time. Safe for several threads."""

    def __init__(self, home: Home, *, memory_limit: str = "384MB") -> None:
        self._home = home
        self._memory_limit = memory_limit
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None

    @contextmanager
    def held(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The connection, for several statements; closed when one of them fails.

        Raises:
            NotFound: this home has no lake.
            StoreError: it cannot be read.
        """
        import duckdb

        with self._lock:
            try:
                if self._connection is None:
                    self._connection = open_reader(
                        self._home, threads=2, memory_limit=self._memory_limit
                    )
                yield self._connection
            except duckdb.Error as error:
                self._close()
                raise StoreError(f"cannot read the lake: {error}") from error

    def ask(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of an answer."""
        with self.held() as connection:
            return connection.execute(sql, list(values)).fetchall()

    def close(self) -> None:
        """Let go of the lake. Safe twice."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
