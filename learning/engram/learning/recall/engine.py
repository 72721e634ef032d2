"""What can be asked of memory. Reads the lake and the index; writes nothing."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from engram.exporters.errors import BadRequest, NotFound, StoreError
from engram.exporters.home import Home
from engram.learning.recall.items import ALL, Found, Item, Page, Scope

if TYPE_CHECKING:
    import duckdb

    from engram.learning.search import Searcher

MOST: Final = 200
"""Items of one answer."""

_COLUMNS: Final = (
    "id, type, title, content, tags, attributes, time_unix_nano, importance, user_id, session_id, "
    "service_name, outcome, duration_ns, trace_id, source, trust"
)


class Recall:
    """Recall over one home. Constructing opens nothing. Safe for several threads."""

    def __init__(self, home: Home, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._home = home
        self._clock = clock
        self._lock = threading.Lock()
        self._searcher: Searcher | None = None
        self._connection: duckdb.DuckDBPyConnection | None = None

    def search(
        self,
        query: str,
        *,
        scope: Scope = ALL,
        types: Sequence[str] = (),
        since_ns: int | None = None,
        until_ns: int | None = None,
        min_importance: float | None = None,
        limit: int = 10,
        explain: bool = False,
    ) -> Found:
        """The memories that answer a question, best first.

        Raises:
            BadRequest: there is nothing to look for, or a limit makes no sense.
            NotFound: this home has no lake or no index yet.
        """
        from dataclasses import asdict

        answer = self._search().answer(
            query, limit=_limit(limit), types=list(types) or None, service=scope.service,
            user_id=scope.user_id, session_id=scope.session_id, since_ns=since_ns,
            until_ns=until_ns, min_importance=min_importance,
        )  # fmt: skip
        told = {one.id: one for one in self._told([hit.id for hit in answer.hits])}
        items = []
        for hit in answer.hits:
            if hit.id in told:
                why = (
                    {"text": hit.text_part, "vector": hit.vector_part, "matched": hit.matched}
                    if explain
                    else {}
                )
                items.append(_with(told[hit.id], score=round(hit.score, 4), why=why))
        return Found(tuple(items), answer.note, asdict(answer.explanation) if explain else {})

    def recent(
        self,
        *,
        scope: Scope = ALL,
        types: Sequence[str] = (),
        hours: float | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> Page:
        """The newest memories, a page at a time.

        Raises:
            BadRequest: the cursor or the limit makes no sense.
            NotFound: this home has no lake yet.
        """
        where, values = ["true"], list[Any]()
        for column, value in (
            ("user_id", scope.user_id), ("session_id", scope.session_id),
            ("service_name", scope.service),
        ):  # fmt: skip
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)
        if types:
            where.append("list_contains(?, type)")
            values.append(list(types))
        if hours is not None:
            where.append("time_unix_nano >= ?")
            values.append(self._clock() - int(hours * 3600e9))
        if cursor is not None:
            at, id_ = _uncursor(cursor)
            where.append("(time_unix_nano < ? OR (time_unix_nano = ? AND id > ?))")
            values += [at, at, id_]
        limit = _limit(limit)
        rows = self._ask(
            f"SELECT {_COLUMNS} FROM lake.memories WHERE {' AND '.join(where)} "
            "ORDER BY time_unix_nano DESC, id LIMIT ?",
            [*values, limit + 1],
        )
        items = tuple(_item(row) for row in rows[:limit])
        last = rows[limit - 1] if len(rows) > limit else None
        return Page(items, None if last is None else _cursor(last[6], last[0]))

    def get(self, memory_id: str) -> Item:
        """One memory.

        Raises:
            NotFound: there is no such memory.
        """
        found = self._told([memory_id])
        if not found:
            raise NotFound(f"there is no memory {memory_id}")
        return found[0]

    def close(self) -> None:
        """Let go of everything. Safe twice; the next question opens it again."""
        with self._lock:
            if self._searcher is not None:
                self._searcher.close()
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    # -- lake and index ----------------------------------------------------------------------------

    def _search(self) -> Searcher:
        with self._lock:
            if self._searcher is None:
                from engram.learning.search import Searcher  # 100 MB: at the first search only

                self._searcher = Searcher(self._home)
            return self._searcher

    def _told(self, ids: Sequence[str]) -> list[Item]:
        marks = ", ".join("?" * len(ids))
        if not ids:
            return []
        rows = self._ask(f"SELECT {_COLUMNS} FROM lake.memories WHERE id IN ({marks})", [*ids])
        return [_item(row) for row in rows]

    def _ask(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        import duckdb

        from engram.exporters.lake.attach import attach_read_only

        with self._lock:
            for last in (False, True):
                try:
                    if self._connection is None:
                        self._connection = attach_read_only(
                            self._home, threads=2, memory_limit="160MB"
                        )
                    return self._connection.execute(sql, list(values)).fetchall()
                except duckdb.Error as error:
                    if self._connection is not None:
                        self._connection.close()
                        self._connection = None
                    if last:
                        raise StoreError(
                            f"cannot read the lake in {self._home.lake}: {error}"
                        ) from error
        raise AssertionError


def _item(row: tuple[Any, ...]) -> Item:
    (id_, type_, title, content, tags, attributes, at, importance, user, session, service,
     outcome, duration, trace, source, trust) = row  # fmt: skip
    try:
        meta = json.loads(attributes) if attributes else {}
    except ValueError:
        meta = {}
    return Item(
        id=id_, memory_type=type_, title=title or "", content=content or "",
        tags=tuple(tags or ()), meta_data=meta if isinstance(meta, dict) else {},
        created_at=None if at is None else datetime.fromtimestamp(at / 1e9, UTC),
        importance=importance or 0.0, user_id=user, session_id=session, service=service,
        outcome=outcome, duration_ms=None if duration is None else duration / 1e6, trace_id=trace,
        source=source, trust=trust,
    )  # fmt: skip


def _with(item: Item, **changes: Any) -> Item:
    from dataclasses import replace

    return replace(item, **changes)


def _limit(limit: int) -> int:
    if not 1 <= limit <= MOST:
        raise BadRequest(f"limit must be from 1 to {MOST}, not {limit}")
    return limit


def _cursor(at: int, id_: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([at, id_]).encode()).decode().rstrip("=")


def _uncursor(cursor: str) -> tuple[int, str]:
    try:
        at, id_ = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return int(at), str(id_)
    except (ValueError, TypeError) as error:
        raise BadRequest("this cursor is none that was given out here") from error


__all__ = ["MOST", "Recall"]
