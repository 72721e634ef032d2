"""The search index: one LanceDB table of words and vectors, and how far it has read the lake.

It can be deleted at any time: all of it comes from the lake, and the watermarks are inside the
table's directory. It holds no text to read: a hit is read from the lake by its id, and
`search_text` is the bag of words that full-text search needs.

One process writes (`learn`), any number read. Figures and choices: docs/adr/004-search-index.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engram.exporters.embedding.codes import CODE_BYTES, CODE_VERSION, DIMS, cosines
from engram.exporters.embedding.masking import mask
from engram.exporters.errors import NotFound, StoreError
from engram.exporters.files import sync_directory, sync_file
from engram.exporters.home import Home

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_LOG = logging.getLogger("engram.index")

TABLE: Final = "memories"
FORMAT: Final = 1
"""Part of the index's identity: a change of columns, words or codes is a new index."""

STATE_FILE: Final = "_engram.json"
"""In the table's directory: the identity of its vectors and the watermarks."""

MAX_CHARS: Final = 4_000
"""Characters of a memory whose words are searched."""

_TAIL: Final = 3_000
"""Rows that may wait to be folded into the full-text index: each search reads them (70 ms CPU)."""

_WRITES: Final = 64
"""Writes, each a version and a file, before they are folded."""

_KEEP_VERSIONS: Final = timedelta(seconds=10)
"""Older versions are removed: nothing reads one for so long."""

_CACHE_BYTES: Final = 48 << 20
"""Of postings. LanceDB's own limit is 6 GB."""


# -- words -----------------------------------------------------------------------------------------

_WORD: Final = re.compile(r"[^\W_]+")
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_STOP: Final = """
a about after again all also am an and any are as at be because been before being both but by can
could did do does for from had has have he her his how i if in into is it its just me more most my
no nor not of on or other our out over own same she should so some such than that the their them
then there these they this those to too under until up very was we were what when where which while
who whom why will with would you your
"""
_STOP_WORDS: Final = frozenset(_STOP.split())
_MAX_WORD: Final = 40


def words(text: str) -> list[str]:
    """The distinct words of a text as they are searched, sorted: identifiers split, no stop words.

    Sorted and distinct is 10 % fewer bytes a row; how often a word is repeated says little here.
    """
    found: set[str] = set()
    for word in _WORD.findall(text[:MAX_CHARS]):
        if word.islower() or word.isupper() or word.istitle() or word.isdigit():
            found.add(word.lower())
        else:
            found.update(part.lower() for part in _HUMP.split(word))
    return sorted(
        word
        for word in found
        if word not in _STOP_WORDS and len(word) <= _MAX_WORD and (len(word) > 1 or word.isdigit())
    )


def template_id(type_: str, service: str | None, title: str | None) -> tuple[str, str]:
    """The id of the row that memories of one template share, and the template.

    Hashed: type, service, masked title. 24 hex digits, as the ids of memories.
    """
    template = mask(title or "")
    text = f"template\0{type_}\0{service or ''}\0{template}"
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=12).hexdigest(), template


# -- the table -------------------------------------------------------------------------------------


def schema() -> pa.Schema:
    """Columns of the index, with how each is encoded."""
    import pyarrow as pa

    zstd = {"lance-encoding:compression": "zstd"}
    text = zstd | {
        # Blocks of 128 kB of words: 230 bytes a row where LanceDB's default takes 480.
        "lance-encoding:structural-encoding": "miniblock",
        "lance-encoding:minichunk-size": "131072",
        "lance-encoding:compression-level": "3",
    }
    return pa.schema(
        [
            # A memory's id; of a template row the hash of type, service and masked title.
            pa.field("id", pa.string(), nullable=False, metadata=zstd),
            # Null, or the memory that stands for a template: its oldest.
            pa.field("memory_id", pa.string(), metadata=zstd),
            pa.field("type", pa.string(), metadata=zstd),
            pa.field("service_name", pa.string(), metadata=zstd),
            pa.field("user_id", pa.string(), metadata=zstd),
            pa.field("session_id", pa.string(), metadata=zstd),
            pa.field("time_unix_nano", pa.int64(), metadata=zstd),
            pa.field("search_text", pa.string(), metadata=text),
            # engram.exporters.embedding.codes; all zeros: no vector.
            pa.field("vector", pa.list_(pa.uint8(), CODE_BYTES)),
        ]
    )


def identity(embedder_id: str) -> str:
    """What must be equal for two rows to be comparable."""
    return f"{embedder_id}+{CODE_VERSION}+{FORMAT}"


def table_dir(home: Home) -> Path:
    """Where the table is."""
    return home.index / f"{TABLE}.lance"


def read_state(home: Home) -> dict[str, Any] | None:
    """Identity and watermarks; None when there is no (whole) index."""
    try:
        state = json.loads((table_dir(home) / STATE_FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise StoreError(
            f"the index state {table_dir(home) / STATE_FILE} cannot be read ({error}); delete "
            f"{home.index} and it is rebuilt from the lake"
        ) from error
    return dict(state)


def _refuse_other(home: Home, state: Mapping[str, Any], embedder_id: str) -> None:
    if state.get("identity") != identity(embedder_id):
        raise StoreError(
            f"the index in {home.index} was made by {state.get('identity')}, this Engram makes "
            f"{identity(embedder_id)}, and their vectors cannot be compared; delete {home.index} "
            "and `engram learn` rebuilds it from the lake"
        )


def _connect(home: Home, *, fresh_s: float | None = None) -> Any:
    # LanceDB starts threads when it is imported: never fork after this.
    import lancedb

    return lancedb.connect(
        home.index,
        session=lancedb.Session(
            index_cache_size_bytes=_CACHE_BYTES, metadata_cache_size_bytes=_CACHE_BYTES // 2
        ),
        read_consistency_interval=None if fresh_s is None else timedelta(seconds=fresh_s),
    )


@contextlib.contextmanager
def _lance_errors(home: Home, doing: str) -> Any:
    """LanceDB's errors (RuntimeError, ValueError, OSError ...) as ours."""
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        raise StoreError(f"cannot {doing} the index in {home.index}: {error}") from error


class IndexWriter:
    """The one writer of a home's index. Constructing opens or makes it; not for several threads."""

    def __init__(self, home: Home, embedder_id: str) -> None:
        self._home = home
        self._state_path = table_dir(home) / STATE_FILE
        state = read_state(home)
        if state is not None:
            _refuse_other(home, state, embedder_id)
        with _lance_errors(home, "open"):
            home.index.mkdir(mode=0o755, parents=True, exist_ok=True)
            database = _connect(home)
            if state is None:
                self._table = self._make(database, embedder_id)
            else:
                self._table = database.open_table(TABLE)
            stats = self._table.index_stats("search_text_idx")
            self._tail = stats.num_unindexed_rows if stats else 0
            self._folded = self._table.count_rows() - self._tail
        self._writes = self._tail and 1
        self._unpruned = True
        self._last_fold = 0.0
        state = read_state(home) or {}
        self._identity: str = state["identity"]
        self.watermarks: dict[str, int] = dict(state.get("watermarks", {}))

    def _make(self, database: Any, embedder_id: str) -> Any:
        from lancedb.index import FTS

        # A directory without its state was left by a crash while it was made, or half deleted.
        shutil.rmtree(table_dir(self._home), ignore_errors=True)
        table = database.create_table(
            TABLE,
            schema=schema(),
            storage_options={
                "new_table_data_storage_version": "2.2",  # the first with blocks over 32 kB
                # Folding then leaves the postings of other rows alone: half the CPU.
                "new_table_enable_stable_row_ids": "true",
            },
        )
        # Positions would double the postings; words are stemmed here, stop words are already gone.
        table.create_index("search_text", config=FTS(with_position=False, remove_stop_words=False))
        self._write_state({"identity": identity(embedder_id), "watermarks": {}})
        return table

    @property
    def alive(self) -> bool:
        """Whether the index is still there: somebody may have deleted it, which is allowed."""
        return self._state_path.exists()

    @property
    def rows(self) -> int:
        """Rows in the index."""
        return int(self._table.count_rows())

    def upsert(self, rows: pa.Table) -> None:
        """Add rows of `schema()`, or replace those of equal id. Ids MUST be distinct."""
        self._merge(rows, None)

    def add_templates(self, rows: pa.Table) -> None:
        """Add template rows; one that is there stays, unless the new one's memory is older.

        So the same memories give the same rows, in any order.
        """
        self._merge(
            rows,
            "source.time_unix_nano < target.time_unix_nano OR (source.time_unix_nano = "
            "target.time_unix_nano AND source.memory_id < target.memory_id)",
        )

    def _merge(self, rows: pa.Table, where: str | None) -> None:
        if not rows.num_rows:
            return
        with _lance_errors(self._home, "write"):
            (
                self._table.merge_insert("id")
                .when_matched_update_all(where=where)
                .when_not_matched_insert_all()
                .execute(rows)
            )
        self._tail += rows.num_rows
        self._writes += 1

    def delete(self, ids: Iterable[str]) -> None:
        """Remove rows by id."""
        listed = _listed(ids)
        if listed:
            with _lance_errors(self._home, "write"):
                self._table.delete(f"id IN ({listed})")
            self._writes += 1

    def withdraw(self, ids: Iterable[str]) -> None:
        """Remove the rows of memories, and the template rows that stand for one of them."""
        listed = _listed(ids)
        if listed:
            with _lance_errors(self._home, "write"):
                self._table.delete(f"id IN ({listed}) OR memory_id IN ({listed})")
            self._writes += 1

    def save(self) -> None:
        """Write the watermarks: everything up to them is in the table."""
        self._write_state({"identity": self._identity, "watermarks": self.watermarks})

    def maintain(self, *, idle: bool = False) -> bool:
        """Fold small files into large ones and new words into the full-text index, if it is time.

        Folding rewrites the table (1 s CPU at 100,000 rows), so the number of rows that wait for
        it grows with the table: the cost per row stays bounded, and so do files and versions.
        Returns whether anything was done.
        """
        behind = self._tail >= max(_TAIL, self._folded // 25)
        if behind or self._writes >= _WRITES or (idle and self._writes):
            self._optimize(_KEEP_VERSIONS)
            self._unpruned = True
            return True
        since = time.monotonic() - self._last_fold
        if idle and self._unpruned and since > _KEEP_VERSIONS.total_seconds() + 1:
            self._optimize(_KEEP_VERSIONS)
            self._unpruned = False
            return True
        return False

    def finish(self) -> None:
        """Fold and remove all old versions, as nothing will be written for long."""
        if self.alive and (self._writes or self._unpruned):
            for _ in range(2):  # the first leaves what it replaced
                self._optimize(timedelta(milliseconds=1))
            self._unpruned = False

    def _optimize(self, keep: timedelta) -> None:
        with _lance_errors(self._home, "fold"):
            self._table.optimize(cleanup_older_than=keep)
        self._tail, self._writes = 0, 0
        self._folded = self.rows
        self._last_fold = time.monotonic()

    def _write_state(self, state: Mapping[str, Any]) -> None:
        new = self._state_path.with_suffix(".new")
        try:
            new.write_text(json.dumps(state, indent=1))
            sync_file(new)
            os.replace(new, self._state_path)
            sync_directory(new.parent)
        except OSError as error:
            raise StoreError(f"cannot write {self._state_path}: {error.strerror}") from error


def _listed(ids: Iterable[str]) -> str:
    return ", ".join(_quoted(one) for one in ids)


def _quoted(text: str) -> str:
    valid = text.encode("utf-8", "replace").decode()  # a lone surrogate equals nothing stored
    return "'" + valid.replace("'", "''") + "'"


# -- reading ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which rows are searched at all."""

    types: Sequence[str] | None = None
    service: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    since_ns: int | None = None
    """Rows of templates always pass: they have many times."""
    until_ns: int | None = None

    def sql(self) -> str | None:
        """The condition, None when all rows pass."""
        parts = []
        if self.types is not None:
            parts.append(f"type IN ({_listed(self.types)})" if self.types else "false")
        for column, value in (
            ("service_name", self.service),
            ("user_id", self.user_id),
            ("session_id", self.session_id),
        ):
            if value is not None:
                parts.append(f"{column} = {_quoted(value)}")
        if self.since_ns is not None:
            parts.append(f"(time_unix_nano >= {int(self.since_ns)} OR memory_id IS NOT NULL)")
        if self.until_ns is not None:
            parts.append(f"time_unix_nano < {int(self.until_ns)}")
        return " AND ".join(parts) or None


@dataclass(frozen=True, slots=True)
class Match:
    """One row that was found."""

    id: str
    memory_id: str
    """The memory to show: of a template row the one that stands for it, else the row's own id."""
    time_unix_nano: int | None
    """When that memory was, as it was indexed: finds it in the lake without reading all of it."""
    text_score: float
    """BM25; 0 when no word matched (or too many rows matched better)."""
    vector_score: float
    """Cosine of the (rounded) vectors; 0 when the row has none."""


class IndexReader:
    """Searches a home's index, also while it is written. MAY be used by one thread at a time."""

    def __init__(self, home: Home, embedder_id: str) -> None:
        state = read_state(home)
        if state is None:
            raise NotFound(
                f"no index in {home.index} yet; it is made from the lake by: engram learn "
                f"--home {home.root}"
            )
        _refuse_other(home, state, embedder_id)
        self._home = home
        with _lance_errors(home, "open"):
            self._table = _connect(home, fresh_s=0).open_table(TABLE)
        self._version = -1
        self._codes: NDArray[np.uint8] | None = None
        self._row_ids: NDArray[np.uint64] | None = None

    def matches(
        self,
        text: Sequence[str],
        vector: NDArray[np.float32] | None,
        limit: int,
        only: Filter | None = None,
    ) -> list[Match]:
        """The best `limit` rows by words and the best by vector, each with both scores."""
        import numpy as np

        where = only.sql() if only else None
        with _lance_errors(self._home, "search"):
            by_text = self._by_text(" ".join(text), limit, where) if text else {}
            cosine: dict[int, float] = {}
            if vector is not None and vector.any():
                row_ids, codes = self._vectors(where)
                scores = cosines(codes, vector)
                best = np.arange(len(scores))
                if len(scores) > limit:
                    best = np.argpartition(scores, -limit)[-limit:]
                wanted = np.isin(row_ids, np.fromiter(by_text, np.uint64, len(by_text)))
                cosine = {
                    int(row_ids[at]): float(scores[at])
                    for at in np.union1d(best[scores[best] > 0], np.flatnonzero(wanted))
                }
            found = self._take(list({*by_text, *cosine}))
        return [
            Match(id_, memory or id_, time_ns, by_text.get(row, 0.0), cosine.get(row, 0.0))
            for row, (id_, memory, time_ns) in found.items()
        ]

    def _by_text(self, text: str, limit: int, where: str | None) -> dict[int, float]:
        # Nothing in the text is syntax: `words` leaves letters and digits, and the string form
        # of a full-text query is a plain match of any word.
        query = self._table.search(text, query_type="fts", fts_columns="search_text")
        if where:
            query = query.where(where, prefilter=True)
        found = query.select(["_score"]).with_row_id(True).limit(limit).to_arrow()
        return dict(zip(found["_rowid"].to_pylist(), found["_score"].to_pylist(), strict=True))

    def _vectors(self, where: str | None) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
        """Row ids and codes; kept (74 bytes a row) for as long as the table does not change."""
        if where:
            return self._scan(where)
        version = self._table.version
        if self._codes is None or self._row_ids is None or version != self._version:
            self._row_ids, self._codes = self._scan(None)
            self._version = version
        return self._row_ids, self._codes

    def _scan(self, where: str | None) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
        query = self._table.search().select(["vector"]).with_row_id(True)
        if where:
            query = query.where(where)
        found = query.to_arrow().combine_chunks()
        row_ids = found["_rowid"].to_numpy()
        column = found["vector"]
        if not len(column):
            import numpy as np

            return row_ids, np.empty((0, CODE_BYTES), dtype=np.uint8)
        flat = column.combine_chunks().flatten().to_numpy()
        return row_ids, flat.reshape(-1, CODE_BYTES)

    def _take(self, rows: list[int]) -> dict[int, tuple[str, str | None, int | None]]:
        if not rows:
            return {}
        columns = ["id", "memory_id", "time_unix_nano"]
        found = self._table.take_row_ids(rows).select(columns).with_row_id().to_arrow()
        told = zip(*(found[name].to_pylist() for name in columns), strict=True)
        return dict(zip(found["_rowid"].to_pylist(), told, strict=True))


__all__ = [
    "DIMS", "Filter", "IndexReader", "IndexWriter", "Match", "identity", "read_state", "schema",
    "table_dir", "template_id", "words",
]  # fmt: skip
