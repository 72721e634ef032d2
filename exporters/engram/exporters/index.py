"""The search index: one LanceDB table of words and vectors, and how far it has read the lake.

It can be deleted at any time: all of it comes from the lake, and the watermarks are inside the
table's directory. It holds no text to read: a hit is read from the lake by its id, and
`search_text` is the bag of words that full-text search needs.

One process writes (`learn`), any number read (`index_read.py`). A rebuild is a second table beside
the first; `current.json` says which one is searched, and replacing that file is the switch.
Figures and choices: docs/adr/004-search-index.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engram.exporters.embedding.codes import CODE_VERSION, DIMS, code_bytes
from engram.exporters.embedding.masking import mask
from engram.exporters.errors import StoreError
from engram.exporters.files import sync_directory, sync_file
from engram.exporters.home import Home
from engram.exporters.words import WORDS_VERSION

if TYPE_CHECKING:
    import pyarrow as pa

_LOG = logging.getLogger("engram.index")

TABLE: Final = "memories"
"""The first table of a home; those of later rebuilds have a number: `memories-2`."""

FORMAT: Final = 2
"""Part of the index's identity: a change of columns is a new index."""

STATE_FILE: Final = "_engram.json"
"""In the table's directory: its model, the identity of its vectors, and the watermarks."""

CURRENT_FILE: Final = "current.json"
"""In the index: the name of the table that is searched. None: `memories`."""

_TAIL: Final = 3_000
"""Rows that may wait to be folded into the full-text index: each search reads them (70 ms CPU)."""

_WRITES: Final = 64
"""Writes, each a version and a file, before they are folded."""

_KEEP_VERSIONS: Final = timedelta(seconds=10)
"""Older versions are removed: nothing reads one for so long."""

_CACHE_BYTES: Final = 96 << 20
"""Of postings. LanceDB's own limit is 6 GB."""


def template_id(type_: str, service: str | None, title: str | None) -> tuple[str, str]:
    """The id of the row that memories of one template share, and the template.

    Hashed: type, service, masked title. 24 hex digits, as the ids of memories.
    """
    template = mask(title or "")
    text = f"template\0{type_}\0{service or ''}\0{template}"
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=12).hexdigest(), template


# -- the table -------------------------------------------------------------------------------------


def schema(dims: int = DIMS) -> pa.Schema:
    """Columns of the index, with how each is encoded."""
    import pyarrow as pa

    zstd = {"lance-encoding:compression": "zstd"}
    text = zstd | {
        # Blocks of 1 MB of words: 137 bytes a row, 153 at 128 kB, twice that at the default.
        "lance-encoding:structural-encoding": "miniblock",
        "lance-encoding:minichunk-size": "1048576",
        "lance-encoding:compression-level": "3",
    }
    return pa.schema(
        [
            # A memory's id; of a template row the hash of type, service and masked title.
            pa.field("id", pa.string(), nullable=False, metadata=zstd),
            # Null, or the memory that stands for a template: its oldest.
            pa.field("memory_id", pa.string(), metadata=zstd),
            # Null, or the masked title that the memories of a template row share.
            pa.field("template", pa.string(), metadata=zstd),
            pa.field("type", pa.string(), metadata=zstd),
            pa.field("service_name", pa.string(), metadata=zstd),
            pa.field("user_id", pa.string(), metadata=zstd),
            pa.field("session_id", pa.string(), metadata=zstd),
            pa.field("time_unix_nano", pa.int64(), metadata=zstd),
            # In hundredths; null of a template row, whose memories differ.
            pa.field("importance", pa.uint8(), metadata=zstd),
            pa.field("search_text", pa.string(), metadata=text),
            # engram.exporters.embedding.codes; all zeros: no vector.
            pa.field("vector", pa.list_(pa.uint8(), code_bytes(dims))),
        ]
    )


def identity(embedder_id: str) -> str:
    """What must be equal for two rows to be comparable."""
    return f"{embedder_id}+{_format()}"


def _format() -> str:
    return f"{CODE_VERSION}+{WORDS_VERSION}+{FORMAT}"


def current_table(home: Home) -> str:
    """The name of the table that is searched."""
    try:
        told = json.loads((home.index / CURRENT_FILE).read_bytes())
        return str(told["table"])
    except (FileNotFoundError, NotADirectoryError):
        return TABLE
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{home.index / CURRENT_FILE} cannot be read ({error}); delete {home.index} and it is "
            "rebuilt from the lake"
        ) from error


def table_dir(home: Home, table: str | None = None) -> Path:
    """Where a table is; without a name, the one that is searched."""
    return home.index / f"{table or current_table(home)}.lance"


def next_table(home: Home) -> str:
    """A name for a rebuild. What a rebuild that was killed left under it is removed."""
    _, _, number = current_table(home).partition("-")
    name = f"{TABLE}-{int(number or 1) + 1}"
    shutil.rmtree(table_dir(home, name), ignore_errors=True)
    return name


def switch(home: Home, table: str) -> None:
    """Search this table from now on, and remove the others. Readers open the new one by themselves.

    Its files are synced before it is named, so neither a kill nor a power cut leaves a half one.
    """
    try:
        for path in sorted(table_dir(home, table).rglob("*")):
            sync_file(path)
        _replace(home.index / CURRENT_FILE, {"table": table})
    except OSError as error:
        raise StoreError(f"cannot switch to the new index: {error}") from error
    for path in home.index.glob("*.lance"):
        if path.name != f"{table}.lance":
            shutil.rmtree(path, ignore_errors=True)


def read_state(home: Home, table: str | None = None) -> dict[str, Any] | None:
    """Model, identity and watermarks; None when there is no (whole) index."""
    path = table_dir(home, table) / STATE_FILE
    try:
        state = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise StoreError(
            f"the index state {path} cannot be read ({error}); delete "
            f"{home.index} and it is rebuilt from the lake"
        ) from error
    return dict(state)


def refuse_other(home: Home, state: Mapping[str, Any], embedder_id: str | None) -> None:
    """Refuse an index that was made by another model (unless None) or another format.

    Raises:
        StoreError: its rows cannot be compared with what this process makes.
    """
    made, ours = str(state.get("identity")), _format()
    same = made == identity(embedder_id) if embedder_id else made.endswith(f"+{ours}")
    if not same:
        wanted = identity(embedder_id) if embedder_id else ours
        raise StoreError(
            f"the index in {home.index} was made by {made}, this Engram makes {wanted}, and their "
            "vectors cannot be compared; rebuild it from the lake with: engram reindex --home "
            f"{home.root}"
        )


def connect(home: Home, *, fresh_s: float | None = None) -> Any:
    """The LanceDB of a home; with `fresh_s`, its tables look for new versions so often."""
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
def lance_errors(home: Home, doing: str) -> Any:
    """LanceDB's errors (RuntimeError, ValueError, OSError ...) as ours."""
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        raise StoreError(f"cannot {doing} the index in {home.index}: {error}") from error


class IndexWriter:
    """The one writer of a home's index. Constructing opens or makes it; not for several threads."""

    def __init__(
        self,
        home: Home,
        embedder_id: str,
        *,
        model: str = "builtin",
        dims: int = DIMS,
        table: str | None = None,
    ) -> None:
        self._home = home
        self.table = table or current_table(home)
        self._dir = table_dir(home, self.table)
        self._state_path = self._dir / STATE_FILE
        state = read_state(home, self.table)
        if state is not None:
            refuse_other(home, state, embedder_id)
        with lance_errors(home, "open"):
            home.index.mkdir(mode=0o755, parents=True, exist_ok=True)
            database = connect(home)
            if state is None:
                self._table = self._make(database, embedder_id, model, dims)
            else:
                self._table = database.open_table(self.table)
            stats = self._table.index_stats("search_text_idx")
            self._tail = stats.num_unindexed_rows if stats else 0
            self._folded = self._table.count_rows() - self._tail
        self._writes = self._tail and 1
        self._unpruned = True
        self._last_fold = 0.0
        state = read_state(home, self.table) or {}
        self._state = state
        self.watermarks: dict[str, int] = dict(state.get("watermarks", {}))

    def _make(self, database: Any, embedder_id: str, model: str, dims: int) -> Any:
        from lancedb.index import FTS

        # A directory without its state was left by a crash while it was made, or half deleted.
        shutil.rmtree(self._dir, ignore_errors=True)
        table = database.create_table(
            self.table,
            schema=schema(dims),
            storage_options={
                "new_table_data_storage_version": "2.2",  # the first with blocks over 32 kB
                # Folding then leaves the postings of other rows alone: half the CPU.
                "new_table_enable_stable_row_ids": "true",
            },
        )
        # Positions would double the postings. `words` has split, stemmed and left out already.
        words = FTS(
            base_tokenizer="whitespace", with_position=False, remove_stop_words=False, stem=False
        )
        table.create_index("search_text", config=words)
        state = {"model": model, "dims": dims, "identity": identity(embedder_id), "watermarks": {}}
        self._write_state(state)
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

    @property
    def current(self) -> bool:
        """Whether this is the table that is searched."""
        return current_table(self._home) == self.table

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
        with lance_errors(self._home, "write"):
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
        these = listed(ids)
        if these:
            with lance_errors(self._home, "write"):
                self._table.delete(f"id IN ({these})")
            self._writes += 1

    def withdraw(self, ids: Iterable[str]) -> None:
        """Remove the rows of memories, and the template rows that stand for one of them."""
        these = listed(ids)
        if these:
            with lance_errors(self._home, "write"):
                self._table.delete(f"id IN ({these}) OR memory_id IN ({these})")
            self._writes += 1

    def save(self) -> None:
        """Write the watermarks: everything up to them is in the table."""
        self._write_state(self._state | {"watermarks": self.watermarks})

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
                time.sleep(0.01)  # what is younger than the age below would stay
                self._optimize(timedelta(milliseconds=1))
            self._unpruned = False

    def _optimize(self, keep: timedelta) -> None:
        with lance_errors(self._home, "fold"):
            self._table.optimize(cleanup_older_than=keep)
        self._tail, self._writes = 0, 0
        self._folded = self.rows
        self._last_fold = time.monotonic()

    def _write_state(self, state: Mapping[str, Any]) -> None:
        try:
            _replace(self._state_path, state)
        except OSError as error:
            raise StoreError(f"cannot write {self._state_path}: {error.strerror}") from error


def _replace(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file: whoever reads sees the old or the new one, also after a power cut."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content, indent=1))
    sync_file(new)
    os.replace(new, path)
    sync_directory(path.parent)


def listed(ids: Iterable[str]) -> str:
    """Texts as the inside of `IN (...)`."""
    return ", ".join(quoted(one) for one in ids)


def quoted(text: str) -> str:
    """A text as an SQL string."""
    valid = text.encode("utf-8", "replace").decode()  # a lone surrogate equals nothing stored
    return "'" + valid.replace("'", "''") + "'"
