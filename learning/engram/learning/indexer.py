"""Keeps the search index from the lake.

What to index is a query over the lake, never a second queue: the memories whose `sequence` is above
the watermark of their collector, in whole commits. A memory that changes gets a new sequence, so it
comes again. A memory that is gone, or is indexed otherwise than before, is in `withdrawn`: its rows
are removed and the lake is asked again. Watermarks are written after the rows: a crash between
repeats rows, which changes nothing, and a deleted index has none, so all is indexed again.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from engram.exporters.embedding.codes import pack
from engram.exporters.embedding.masking import bare
from engram.exporters.embedding.models import BUILTIN, Embedder, canonical, load
from engram.exporters.errors import EngramError, NotFound, StoreError
from engram.exporters.home import Home
from engram.exporters.index import IndexWriter, current_table, read_state, schema, template_id
from engram.exporters.index_read import hundredths
from engram.exporters.words import words

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_LOG = logging.getLogger("engram.learn")

POLL_S: Final = 1.0
"""How often the lake is looked at: two `stat` calls when nothing was committed."""

_PAGE: Final = 4_000
"""Memories read at once; a larger commit is read whole. About 10 MB with their texts."""

_CHARS: Final = 4_000
"""Characters of a content that are read: no more than are searched."""

_COLUMNS: Final = (
    "id, type, time_unix_nano, title, content[:?] AS content, service_name, user_id, session_id, "
    "importance, index_as"
)
_INDEXED: Final = "id IS NOT NULL AND index_as IS DISTINCT FROM 'none'"
_WITHDRAWN: Final = "withdrawn/"
"""Before a collector's name: how far its withdrawals were followed."""

_MOST_BACKOFF_S: Final = 30.0

_TEMPLATES_KEPT: Final = 50_000
"""Templates known to be in the index, so that a volume type costs nothing once it is there."""


class Indexer:
    """The one writer of a home's search index. Constructing opens nothing.

    The model is the one that the index was made with; `model` names that of a new index. A `table`
    is one that is being built beside the index that is searched. Not for several threads. `step`
    may be called while the lake is absent, locked or growing, and while somebody deletes the index:
    it is made again.
    """

    def __init__(
        self,
        home: Home,
        *,
        model: str | None = None,
        table: str | None = None,
        download: bool = False,
    ) -> None:
        self._home = home
        self._model = canonical(model) if model else None
        self._table = table
        self._download = download
        self.read = 0
        """Memories read from the lake."""
        self._embedder: Embedder | None = None
        self._lake: duckdb.DuckDBPyConnection | None = None
        self._index: IndexWriter | None = None
        self._seen: object = None
        self._templates: dict[str, tuple[int, str]] = {}
        self._more = False
        self._said = ""

    def run(self, stop: threading.Event, also: Callable[[], bool] | None = None) -> None:
        """Index until told to stop. Errors are logged once per cause and tried again.

        `also` is called before each step; it returns whether it wants to be called again at once.
        """
        wait, cause = POLL_S, ""
        while not stop.is_set():
            busy = also is not None and also()
            try:
                self.step()
                wait, cause = (0.0 if self._more or busy else POLL_S), ""
            except EngramError as error:
                if str(error) != cause:
                    _LOG.warning("indexing waits: %s", error)
                wait, cause = min(max(wait, POLL_S) * 2, _MOST_BACKOFF_S), str(error)
            stop.wait(0.0 if busy else wait)
        try:
            self.close()
        except EngramError as error:
            _LOG.warning("the index was left unfolded: %s", error)

    def step(self) -> int:
        """Index one page of what is new; the number of index rows written. 0: nothing is new.

        Raises:
            StoreError: the lake or the index cannot be used now; call again later.
        """
        index = self._open_index()
        signature = self._signature()
        self._more = False
        if signature is None or (signature == self._seen):
            index.maintain(idle=True)
            return 0
        try:
            written, self._more = self._page(index)
        except StoreError:
            self._forget_index()
            raise
        if self._more:
            index.maintain()
        else:
            self._seen = signature
            index.maintain(idle=not written)
        return written

    def delete(self, ids: Iterable[str]) -> None:
        """Remove memories from the index (after they left the lake)."""
        self._open_index().delete(ids)

    def close(self) -> None:
        """Fold the index and let go of everything. Safe twice."""
        index, self._index = self._index, None
        self._drop_lake()
        if index is not None:
            index.finish()

    # -- the lake ----------------------------------------------------------------------------------

    def _signature(self) -> object:
        """Changes with every commit; None while there is no lake. Opens nothing.

        A second SQLite in this process would, on closing the file, drop the locks of DuckDB's.
        """
        found: list[tuple[int, int, int]] = []
        for path in (self._home.catalog, self._home.catalog.with_name("catalog.sqlite-wal")):
            try:
                stat = os.stat(path)
            except FileNotFoundError:
                continue
            found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
        return tuple(found) or None

    def _page(self, index: IndexWriter) -> tuple[int, bool]:
        """Index one page. Returns rows written, and whether there is more."""
        import duckdb

        try:
            lake = self._open_lake()
            latest = lake.execute(
                "SELECT collector, max(sequence) FROM memories GROUP BY collector"
            ).fetchall()
            written, more = 0, False
            for collector, last in sorted(latest, key=lambda row: str(row[0])):
                mark = index.watermarks.get(_key(collector), -1)
                if last is None or last <= mark:
                    continue
                upto = self._page_end(lake, collector, mark, last)
                more = more or upto < last
                memories = lake.execute(
                    f"SELECT {_COLUMNS} FROM memories "
                    "WHERE collector IS NOT DISTINCT FROM ? AND sequence > ? AND sequence <= ? "
                    f"AND {_INDEXED} ORDER BY sequence, id",
                    [_CHARS, collector, mark, upto],
                ).to_arrow_table()
                for batch in memories.to_batches(max_chunksize=_PAGE):
                    written += self._write(index, batch)
                self.read += memories.num_rows
                index.watermarks[_key(collector)] = upto
                index.save()
            if not more:
                written += self._withdraw(lake, index)
        except NotFound:
            return 0, False
        except duckdb.CatalogException:
            self._drop_lake()
            return 0, False  # a lake without its tables yet
        except duckdb.Error as error:
            self._drop_lake()
            raise StoreError(f"cannot read the lake in {self._home.lake}: {error}") from error
        return written, more

    def _withdraw(self, lake: duckdb.DuckDBPyConnection, index: IndexWriter) -> int:
        """Look again at memories of which the index may know what is no longer so; rows written.

        Repeating it changes nothing, and so does doing it late: what is there is asked of the lake.
        """
        import duckdb
        import pyarrow as pa

        try:
            latest = lake.execute(
                "SELECT collector, max(sequence) FROM withdrawn GROUP BY collector"
            ).fetchall()
        except duckdb.CatalogException:
            return 0  # a lake of an older schema, which no collector has opened since
        written = 0
        for collector, last in latest:
            key = f"{_WITHDRAWN}{_key(collector)}"
            mark = index.watermarks.get(key, -1)
            if last <= mark:
                continue
            rows = lake.execute(
                "SELECT DISTINCT id, type, service_name, index_as FROM withdrawn "
                "WHERE collector IS NOT DISTINCT FROM ? AND sequence > ? AND sequence <= ?",
                [collector, mark, last],
            ).fetchall()
            ids = sorted({row[0] for row in rows})
            for at in range(0, len(ids), _PAGE):
                some = ids[at : at + _PAGE]
                index.withdraw(some)
                lake.register(
                    "these_ids", pa.table({"id": some})
                )  # a bound list costs 130 µs an id
                written += self._again(lake, index, "id IN (SELECT id FROM these_ids)", [])
                lake.unregister("these_ids")
            # A template row stood for the oldest of many; another one has to stand there now.
            self._templates.clear()
            for type_, service in sorted(
                {row[1:3] for row in rows if row[3] == "template"}, key=str
            ):
                where = "index_as = 'template' AND type = ? AND service_name IS NOT DISTINCT FROM ?"
                written += self._again(lake, index, where, [type_, service])
            index.watermarks[key] = last
            index.save()
        return written

    def _again(
        self, lake: duckdb.DuckDBPyConnection, index: IndexWriter, where: str, values: list[Any]
    ) -> int:
        found = lake.execute(
            f"SELECT {_COLUMNS} FROM memories WHERE {_INDEXED} AND {where}", [_CHARS, *values]
        )
        return sum(self._write(index, batch) for batch in found.to_arrow_reader(_PAGE))

    @staticmethod
    def _page_end(
        lake: duckdb.DuckDBPyConnection, collector: str | None, mark: int, last: int
    ) -> int:
        """The last sequence of a page: whole commits, as many as fit, at least one."""
        rows = lake.execute(
            "SELECT sequence, sum(count(*)) OVER (ORDER BY sequence) AS total FROM memories "
            "WHERE collector IS NOT DISTINCT FROM ? AND sequence > ? GROUP BY sequence "
            "QUALIFY total <= ? OR row_number() OVER (ORDER BY sequence) = 1 "
            "ORDER BY sequence DESC LIMIT 1",
            [collector, mark, _PAGE],
        ).fetchone()
        return min(int(rows[0]), last) if rows else last

    def _open_lake(self) -> duckdb.DuckDBPyConnection:
        if self._lake is None:
            from engram.exporters.lake.attach import attach_read_only

            self._lake = attach_read_only(self._home, threads=1, memory_limit="256MB")
        return self._lake

    def _drop_lake(self) -> None:
        lake, self._lake = self._lake, None
        if lake is not None:
            lake.close()

    # -- the index ---------------------------------------------------------------------------------

    def _open_index(self) -> IndexWriter:
        if self._index is not None and not self._index.alive:
            _LOG.info("the index in %s is gone and is made again", self._home.index)
            self._forget_index()
        if self._index is None:
            table = self._table or current_table(self._home)
            embedder = self._load(table)
            self._index = IndexWriter(
                self._home, embedder.embedder_id,
                model=embedder.name, dims=embedder.dims, table=table,
            )  # fmt: skip
        return self._index

    def _load(self, table: str) -> Embedder:
        """The model of this table; of one that is not there yet, the model that was asked for."""
        state = read_state(self._home, table)
        wanted = self._model or BUILTIN
        name = str(state.get("model", BUILTIN)) if state else wanted
        if self._model and name != self._model and self._said != name:
            _LOG.warning(
                "the index in %s was made with the model %s and is kept with it, though %s is "
                "configured; change it with: engram reindex --model %s",
                self._home.index, name, self._model, self._model,
            )  # fmt: skip
            self._said = name
        if self._embedder is None or self._embedder.name != name:
            self._embedder = load(name, download=self._download)
        return self._embedder

    def _forget_index(self) -> None:
        self._index = None
        self._seen = None
        self._templates.clear()

    def _write(self, index: IndexWriter, memories: pa.RecordBatch) -> int:
        own: dict[str, dict[str, Any]] = {}
        shared: dict[str, dict[str, Any]] = {}
        for memory in memories.to_pylist():
            if memory["index_as"] == "template":
                self._collect_template(memory, shared)
            else:
                memory["memory_id"] = memory["template"] = None
                memory["importance"] = hundredths(memory["importance"])
                memory["text"] = text_of(memory["title"], memory["content"])
                own[memory["id"]] = memory  # a merged one comes later, and counts
        index.upsert(self._rows(list(own.values())))
        index.add_templates(self._rows(list(shared.values())))
        if len(self._templates) + len(shared) > _TEMPLATES_KEPT:
            self._templates.clear()
        for id_, row in shared.items():
            self._templates[id_] = (row["time_unix_nano"], row["memory_id"])
        return len(own) + len(shared)

    def _collect_template(self, memory: dict[str, Any], shared: dict[str, dict[str, Any]]) -> None:
        id_, template = template_id(memory["type"], memory["service_name"], memory["title"])
        age = (memory["time_unix_nano"] or 0, memory["id"])
        known = self._templates.get(id_)
        if known is not None and known <= age:
            return
        before = shared.get(id_)
        if before is not None and (before["time_unix_nano"], before["memory_id"]) <= age:
            return
        shared[id_] = {
            "id": id_, "memory_id": memory["id"], "template": template, "type": memory["type"],
            "service_name": memory["service_name"], "user_id": None, "session_id": None,
            "time_unix_nano": age[0], "importance": None, "text": bare(template),
        }  # fmt: skip

    def _rows(self, memories: list[dict[str, Any]]) -> pa.Table:
        import pyarrow as pa

        assert self._embedder is not None  # noqa: S101 - the index was opened
        columns = schema(self._embedder.dims)
        if not memories:
            return columns.empty_table()
        codes = pack(self._embedder.embed([memory["text"] for memory in memories]))
        made: list[pa.Array] = []
        for field in columns:
            if field.name == "search_text":
                values = [" ".join(words(memory["text"])) for memory in memories]
            elif field.name == "vector":
                made.append(
                    pa.FixedSizeListArray.from_arrays(pa.array(codes.reshape(-1)), codes.shape[1])
                )
                continue
            else:
                values = [memory[field.name] for memory in memories]
            made.append(pa.array(values, type=field.type))
        return pa.Table.from_arrays(made, schema=columns)


def _key(collector: str | None) -> str:
    return collector or ""


def text_of(title: str | None, content: str | None) -> str:
    """What is indexed of a memory: title and content.

    A title that only repeats how the content begins is not said twice.
    """
    title, content = title or "", content or ""
    if content.startswith(title.rstrip("…. ")):
        return content
    return f"{title}\n{content}"
