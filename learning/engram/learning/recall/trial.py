"""The engine over documents of anybody's, to be scored: `engram lab recall`.

A home of its own in a temporary folder, with the real lake, index and engine, and the product's one
configuration: what is measured is what is shipped. Documents are memories of a type of their own;
a scope is a user. Now is the time of the newest document, so an answer does not depend on the day.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from engram.exporters.errors import BadRequest
from engram.exporters.home import Home
from engram.exporters.memories import memory_id
from engram.learning.recall.engine import MOST, Recall
from engram.learning.recall.items import ALL, Scope

_TYPE: Final = "note"
_PAGE: Final = 20_000
_TITLE: Final = 100


class Trial:
    """Documents that can be searched. A context manager; not for several threads."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="engram-lab-")
        self._home = Home(Path(self._folder.name) / "home")
        self._names: dict[str, str] = {}
        self._now = 0
        self._sequence = 0
        self._lake: Any = None
        self._stale = False
        self._recall: Recall | None = None

    def index(self, docs: Iterable[Mapping[str, Any]]) -> None:
        """Add documents {id, text, scope, ts}; one of an id that is here in its scope is replaced.

        Raises:
            BadRequest: a document has no id or text.
        """
        rows: dict[str, dict[str, Any]] = {}
        for doc in docs:
            if not isinstance(doc, Mapping) or "id" not in doc or "text" not in doc:
                raise BadRequest(
                    "a document is {id, text, scope, ts}; scope and ts may be left out"
                )
            scope = _scope(doc.get("scope"))
            name, text, at = str(doc["id"]), str(doc["text"]), _time(doc.get("ts"))
            id_ = memory_id(_TYPE, scope or "", name)
            self._names[id_] = name
            self._now = max(self._now, at or 0)
            rows[id_] = {
                "id": id_, "type": _TYPE, "time_unix_nano": at, "title": text[:_TITLE],
                "content": text, "importance": 0.5, "user_id": scope, "index_as": "memory",
                "source": "mark", "trust": "app", "attributes": "{}",
            }  # fmt: skip
        every = list(rows.values())
        for at in range(0, len(every), _PAGE):
            self._write(every[at : at + _PAGE])

    def search(self, text: str, k: int = 10, scope: object = None) -> tuple[list[str], list[float]]:
        """Ids of k documents, best first, with their scores; none where none is relevant."""
        if self._stale or self._recall is None:
            self._reindex()
        assert self._recall is not None  # noqa: S101 - just made
        if not text.strip():
            return [], []  # one of a thousand questions must not end the others
        whose = _scope(scope)
        found = self._recall.search(
            text, scope=ALL if whose is None else Scope(user_id=whose),
            limit=min(max(1, k), MOST), fold=False, fill=True,
        )  # fmt: skip
        return (
            [self._names[one.id] for one in found.items],
            [round(one.score or 0.0, 6) for one in found.items],
        )

    def close(self) -> None:
        """Let go, and remove the folder."""
        if self._recall is not None:
            self._recall.close()
        if self._lake is not None:
            self._lake.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def _write(self, rows: Sequence[dict[str, Any]]) -> None:
        import pyarrow as pa

        lake = self._opened()
        self._sequence += 1
        for row in rows:
            row.update(collector="lab", sequence=self._sequence)
        texts = {name: pa.string() for name in rows[0]}
        numbers = {"time_unix_nano": pa.int64(), "importance": pa.float32(),
                   "sequence": pa.int64()}  # fmt: skip
        lake.register("fresh", pa.Table.from_pylist(rows, pa.schema({**texts, **numbers}.items())))
        lake.execute("DELETE FROM lake.memories WHERE id IN (SELECT id FROM fresh)")
        lake.execute("INSERT INTO lake.memories BY NAME SELECT * FROM fresh")
        lake.unregister("fresh")
        self._stale = True

    def _opened(self) -> Any:
        if self._lake is None:
            from engram.exporters.lake.attach import attach_sql, connect, set_options
            from engram.exporters.lake.schema import statements

            self._home.create()
            self._lake = connect(threads=2)
            self._lake.execute(attach_sql(self._home, read_only=False))
            self._lake.execute("USE lake")
            set_options(self._lake)
            for sql in statements("tables"):
                self._lake.execute(sql)
            set_options(self._lake, "memories")
        return self._lake

    def _reindex(self) -> None:
        from engram.learning.indexer import Indexer

        self._opened()
        indexer = Indexer(self._home)
        while indexer.step():
            pass
        indexer.close()
        if self._recall is None:
            self._recall = Recall(self._home, clock=lambda: self._now)
        self._stale = False


def _scope(given: object) -> str | None:
    if given is None or given == "":
        return None
    return given if isinstance(given, str) else json.dumps(given, sort_keys=True, default=str)


def _time(given: object) -> int | None:
    """A time in nanoseconds, of seconds, milli-, micro- or nanoseconds, or ISO 8601."""
    if isinstance(given, bool) or given is None:
        return None
    if isinstance(given, str):
        try:
            at = datetime.fromisoformat(given.strip())
        except ValueError:
            try:
                given = float(given)
            except ValueError:
                return None
        else:
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
            return int(at.timestamp() * 1e6) * 1000
    if not isinstance(given, int | float) or not 0 < given < 1e19:
        return None
    for most, unit in ((1e11, 1e9), (1e14, 1e6), (1e17, 1e3)):
        if given < most:
            return int(given * unit)
    return int(given)


__all__ = ["Trial"]
