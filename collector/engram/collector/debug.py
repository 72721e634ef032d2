"""The `debug` exporter: says in the log what each commit stored.

It reads the lake as everybody else does, so it can show nothing that is not stored and costs the
collecting path nothing.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from engram.collector import query
from engram.collector.registry import DebugExporter
from engram.exporters.errors import NotFound
from engram.exporters.home import Home
from engram.exporters.signals import Signal

if TYPE_CHECKING:
    import duckdb

_LOG = logging.getLogger("engram.debug")

_EVERY_S: Final = 1.0

_TABLES: Final = {Signal.TRACES: "spans", Signal.LOGS: "logs", Signal.METRICS: "metrics"}


class DebugReporter:
    """Logs commits from a thread of its own."""

    def __init__(self, home: Home, settings: DebugExporter, signals: frozenset[Signal]) -> None:
        self._home = home
        self._verbosity = settings.verbosity
        self._tables = [_TABLES[signal] for signal in Signal if signal in signals]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="debug", daemon=True)

    def start(self) -> None:
        """Begin with the commits from now on."""
        self._thread.start()

    def shutdown(self) -> None:
        """Stop. Safe twice, and safe without `start`."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def _run(self) -> None:
        connection: duckdb.DuckDBPyConnection | None = None
        seen: int | None = None
        while not self._stop.wait(_EVERY_S):
            try:
                if connection is None:
                    connection = query.open_reader(self._home, threads=1, memory_limit="96MB")
                seen = self._look(connection, seen)
            except NotFound:
                continue
            except Exception as error:  # noqa: BLE001 - a log line is not worth a collector
                _LOG.warning("cannot read the commits: %s", error)
                connection = None
        if connection is not None:
            connection.close()

    def _look(self, connection: duckdb.DuckDBPyConnection, seen: int | None) -> int:
        columns = ", ".join([*self._tables, "memories", "merged", "duplicates"])
        if seen is None:  # what was committed before we came is old news
            row = connection.execute("SELECT coalesce(max(sequence), 0) FROM commits").fetchone()
            return int(row[0]) if row else 0
        cursor = connection.execute(
            f"SELECT sequence, {columns} FROM commits WHERE sequence > ? ORDER BY sequence", [seen]
        )
        names = [column[0] for column in cursor.description or []]
        for row in cursor.fetchall():
            seen = int(row[0])
            _LOG.info("commit %s", _text(dict(zip(names, row, strict=True))))
            if self._verbosity != "basic":
                for table in self._tables:
                    self._detail(connection, table, "service_name", seen)
            if self._verbosity == "detailed":
                self._detail(connection, "memories", "type", seen)
        return seen

    def _detail(
        self, connection: duckdb.DuckDBPyConnection, table: str, column: str, sequence: int
    ) -> None:
        rows = connection.execute(
            f"SELECT {column}, count(*) FROM {table} WHERE sequence = ? GROUP BY 1 ORDER BY 2 DESC",
            [sequence],
        ).fetchall()
        if rows:
            _LOG.info("  %s by %s: %s", table, column, _text({str(k): n for k, n in rows}))


def _text(counts: dict[str, Any]) -> str:
    return " ".join(f"{name}={number}" for name, number in counts.items())
