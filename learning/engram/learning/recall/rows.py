"""What recall reads of the lake: its connection, and items from rows."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from engram.exporters.errors import NotFound, StoreError
from engram.exporters.home import Home
from engram.exporters.index import listed
from engram.learning.recall.items import Item

if TYPE_CHECKING:
    import duckdb

    from engram.exporters.lake.lookup import Lookup
    from engram.learning.lake_rows import MemoryRow

FIRST: Final = ("id", "type", "time_unix_nano", "title", "content", "service_name", "source",
                "trust")  # fmt: skip
"""The columns that search reads anyway."""

MORE: Final = (
    "tags", "attributes", "importance", "user_id", "session_id", "outcome", "duration_ns",
    "trace_id", "subject", "fingerprint", "valid_from", "valid_to",
)  # fmt: skip
"""The other columns of an item."""

COLUMNS: Final = ", ".join((*FIRST, *MORE))

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def item(row: Sequence[Any]) -> Item:
    """An item from the columns `COLUMNS`."""
    (
        id_, type_, at, title, content, service, source, trust, tags, attributes, importance, user,
        session, outcome, duration, trace, subject, fingerprint, valid_from, valid_to,
    ) = row  # fmt: skip
    try:
        meta = json.loads(attributes) if attributes else {}
    except ValueError:
        meta = {}
    return Item(
        id=id_, memory_type=type_ or "", title=title or "", content=content or "",
        tags=tuple(tags or ()), meta_data=meta if isinstance(meta, dict) else {},
        created_at=moment(at), importance=importance or 0.0, user_id=user, session_id=session,
        service=service, outcome=outcome,
        duration_ms=None if duration is None else duration / 1e6, trace_id=trace,
        source=source, trust=trust, subject=subject, fingerprint=fingerprint, time_unix_nano=at,
        valid_from=moment(valid_from), valid_to=moment(valid_to),
    )  # fmt: skip


def item_of(row: MemoryRow) -> Item:
    """An item of what search read, with `MORE` columns."""
    return item((*row[:8], *row.more))


def moment(ns: int | None) -> datetime | None:
    """A time that people read; exact to the microsecond."""
    return None if ns is None else _EPOCH + timedelta(microseconds=ns // 1000)


def changed(one: Item, **changes: Any) -> Item:
    """An item with other values."""
    return replace(one, **changes)


def number(meta: Mapping[str, Any], *names: str) -> float | None:
    """The first of some fields that is a number."""
    for name in names:
        value = meta.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
            return float(value)
        if isinstance(value, str):
            try:
                return float(value)
            except ValueError:
                continue
    return None


class LakeReader:
    """One read-only connection, opened at the first question. Safe for several threads."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._lock = threading.RLock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._lookup: Lookup | None = None

    @property
    def lookup(self) -> Lookup:
        """What reads memories from the lake's files."""
        with self._lock:
            if self._lookup is None:
                from engram.exporters.lake.lookup import FILES, Lookup

                self._lookup = Lookup(lambda: self.ask(FILES), self.signature)
            return self._lookup

    def ask(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a query over `lake.memories` and the other tables.

        Raises:
            NotFound: this home has no lake yet, or it has no such table.
            StoreError: the lake cannot be read.
        """
        import duckdb

        from engram.exporters.lake.attach import attach_read_only

        with self._lock:
            for last in (False, True):
                try:
                    if self._connection is None:
                        self._connection = attach_read_only(
                            self.home, threads=2, memory_limit="160MB"
                        )
                        # A footer has an entry for each column of each row group.
                        self._connection.execute("SET parquet_metadata_cache = true")
                    return self._connection.execute(sql, list(values)).fetchall()
                except duckdb.CatalogException as error:
                    self._disconnect()
                    raise NotFound(f"the lake in {self.home.lake} has no memories yet") from error
                except duckdb.Error as error:
                    self._disconnect()
                    if last:
                        raise StoreError(
                            f"cannot read the lake in {self.home.lake}: {error}"
                        ) from error
        raise AssertionError

    def items(self, where: str, values: Sequence[Any], rest: str = "") -> list[Item]:
        """The items of which a condition holds; `rest` is an order and a limit."""
        sql = f"SELECT {COLUMNS} FROM lake.memories WHERE {where} {rest}"
        return [item(row) for row in self.ask(sql, values)]

    def at(self, ids: Sequence[str], times: Sequence[int]) -> dict[str, Item]:
        """Memories whose times are known: only the row groups of those are read."""
        if not ids:
            return {}
        try:
            rows = self.lookup.rows(ids, times, (*FIRST, *MORE))
        except OSError:  # SQL says what is wrong with the lake, if anything
            rows = {}
        found = {id_: item(row) for id_, row in rows.items()}
        if missing := [one for one in ids if one not in found]:
            found |= {one.id: one for one in self.items(f"id IN ({listed(missing)})", [])}
        return found

    def newest(
        self,
        limit: int,
        *,
        only: Mapping[str, Sequence[str]],
        without: Mapping[str, Sequence[str]] | None = None,
        since_ns: int = 0,
        until_ns: int = 1 << 62,
        hidden: Sequence[str] = (),
    ) -> list[Item]:
        """The newest memories whose columns have some texts and not others, newest first.

        Raises:
            NotFound: this home has no lake yet.
            StoreError: the lake cannot be read.
        """
        without = without or {}
        try:
            rows = self.lookup.newest(
                (*FIRST, *MORE), limit=limit + len(hidden), only=only, without=without,
                since_ns=since_ns, until_ns=until_ns,
            )  # fmt: skip
        except OSError:  # SQL says what is wrong with the lake, if anything
            rows = None
        if rows is None:
            where = [f"time_unix_nano BETWEEN {since_ns} AND {until_ns}"]
            where += [f"{name} IN ({listed(some)})" for name, some in only.items()]
            where += [f"coalesce({name}, '') NOT IN ({listed(some)})"
                      for name, some in without.items()]  # fmt: skip
            holds = " AND ".join(where)
            found = self.ask(
                f"SELECT id, time_unix_nano FROM lake.memories WHERE {holds} "
                "ORDER BY time_unix_nano DESC, id LIMIT ?",
                [limit + len(hidden)],
            )
            told = self.at([row[0] for row in found], [row[1] for row in found])
            items = [told[row[0]] for row in found if row[0] in told]
        else:
            items = [item(row) for row in rows]
        return [one for one in items if one.id not in hidden][:limit]

    def signature(self) -> object:
        """Changes with every commit. Opens nothing: two `stat` calls."""
        from engram.exporters.lake.rowgroups import signature

        return signature(self.home)

    def close(self) -> None:
        """Let go of the lake. Safe twice; the next question opens it again."""
        if self._lookup is not None:
            self._lookup.close()
        self._disconnect()

    def _disconnect(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()


__all__ = [
    "COLUMNS", "FIRST", "MORE", "LakeReader", "changed", "item", "item_of", "moment", "number",
]  # fmt: skip
