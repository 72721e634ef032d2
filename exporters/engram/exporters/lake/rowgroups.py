"""The row groups of the lake's `memories`, inflated once and kept while they are used.

A row group is the least that Parquet can give: some thousand rows of a column. Files never change,
so what is kept of them is never wrong; which of their rows are deleted is asked of DuckLake with
the files of the newest snapshot, once a commit.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from engram.exporters.home import Home
from engram.exporters.machine import memory_bytes

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from numpy.typing import NDArray

Files = Sequence[tuple[str, str | None]]
"""Paths of data files, each with that of its deletes."""

FILES: Final = "SELECT data_file, delete_file FROM ducklake_list_files('lake', 'memories')"
"""What `files` asks of a connection."""

KEPT: Final = (128 << 20, 1 << 30)
"""Bytes of inflated columns that are kept, at least and at most: of a hundred thousand memories of
1 kB, and of a million. Between them a sixteenth of the machine's memory, filled as it is used."""

NARROW: Final = 48 << 20
"""Bytes of what filters look at that are kept: 24 a memory, and 16 for its tags."""

TIME: Final = "time_unix_nano"

CODED: Final = ("type", "service_name", "source", "trust", "user_id", "session_id", "outcome",
                "subject")  # fmt: skip
"""Columns that are kept as numbers of few texts."""

_THREADS: Final = min(4, os.cpu_count() or 1)

NEVER: Final = -(1 << 63)
"""The time of a memory without one."""

_UNKNOWN: Final = (NEVER, (1 << 63) - 1)


@dataclass(slots=True, eq=False)
class File:
    """A Parquet file, of which the footer was read."""

    path: str
    metadata: pq.FileMetaData
    columns: dict[str, tuple[str, int]]
    """By name, the path and the number of a column's leaf."""
    starts: list[int]
    """The row at which each row group starts."""
    spans: list[tuple[int, int]]
    """The least and the greatest time in each row group."""
    times: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    """Of the row groups that were looked into: 8 MB for a million memories."""
    opened: pq.ParquetFile | None = None


@dataclass(slots=True)
class _Kept:
    """Columns of a row group; None: all null, or no such column."""

    columns: dict[str, pa.Array | None] = field(default_factory=dict)
    nbytes: int = 0

    def add(self, columns: dict[str, pa.Array | None]) -> None:
        self.columns |= columns
        self.nbytes = sum(one.nbytes for one in self.columns.values() if one is not None)


class _Shelf:
    """Row groups by when they were last used."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._kept: OrderedDict[tuple[str, int], _Kept] = OrderedDict()

    def of(self, path: str, number: int) -> _Kept:
        kept = self._kept.setdefault((path, number), _Kept())
        self._kept.move_to_end((path, number))
        return kept

    def has(self, path: str, number: int) -> bool:
        return (path, number) in self._kept

    def keep(self, paths: Sequence[str] | None = None) -> None:
        """Let go of other files, and of what was used longest ago beyond the budget."""
        if paths is not None:
            live = frozenset(paths)
            for key in [key for key in self._kept if key[0] not in live]:
                del self._kept[key]
        total = sum(one.nbytes for one in self._kept.values())
        while total > self._budget and len(self._kept) > 1:
            _, one = self._kept.popitem(last=False)
            total -= one.nbytes

    def clear(self) -> None:
        self._kept.clear()


class RowGroups:
    """Columns of row groups. Constructing opens nothing. Not for several threads.

    `files` says which files hold the newest snapshot; it is called when `changed` differs. At most
    `kept` bytes are, by default of `KEPT`.
    """

    def __init__(
        self, files: Callable[[], Files], changed: Callable[[], object], kept: int = 0
    ) -> None:
        self._list = files
        self._changed = changed
        self._signature: object = None
        self._files: dict[str, File] = {}
        self._deleted: dict[str, tuple[str | None, NDArray[np.int64] | None]] = {}
        least, most = KEPT
        self._whole = _Shelf(kept or min(max(least, memory_bytes() // 16), most))
        self._narrow = _Shelf(NARROW)

    def refresh(self) -> None:
        """Look at the files of the newest snapshot from now on."""
        signature = self._changed()
        if signature is not None and signature == self._signature:
            return
        listed = dict(self._list())
        for path in self._files.keys() - listed.keys():
            del self._files[path], self._deleted[path]
        self._whole.keep([*listed])
        self._narrow.keep([*listed])
        for path, deletes in listed.items():
            if path not in self._files:
                self._files[path] = _opened(path)
            if path not in self._deleted or self._deleted[path][0] != deletes:
                self._deleted[path] = (deletes, _positions(deletes))
        self._signature = signature

    def settle(self) -> None:
        """Let go of what is beyond the budget; after each answer."""
        self._whole.keep()
        self._narrow.keep()

    def clear(self) -> None:
        """Let go of everything."""
        self._signature = None
        self._files.clear()
        self._deleted.clear()
        self._whole.clear()
        self._narrow.clear()

    def within(self, least: int, most: int) -> Iterator[tuple[File, int]]:
        """The row groups that may hold a time of a range."""
        for file in self._files.values():
            for number, (first, last) in enumerate(file.spans):
                if first <= most and last >= least:
                    yield file, number

    def times(self, file: File, number: int) -> NDArray[np.int64]:
        """When the memories of a row group were; `NEVER`: unknown."""
        found = file.times.get(number)
        if found is None:
            read = self._read(file, number, (TIME,))[TIME]
            if read is None:
                import numpy as np

                found = np.full(file.metadata.row_group(number).num_rows, NEVER, dtype=np.int64)
            else:
                found = read.fill_null(NEVER).to_numpy()
            file.times[number] = found
        return found

    def live(self, file: File, number: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of some places in a row group that are not deleted."""
        import numpy as np

        deleted = self._deleted[file.path][1]
        if deleted is None or not len(places):
            return places
        rows = places + file.starts[number]
        at = np.minimum(np.searchsorted(deleted, rows), len(deleted) - 1)
        left: NDArray[np.int64] = places[deleted[at] != rows]
        return left

    def columns(
        self, file: File, number: int, names: Sequence[str], *, narrow: bool = False
    ) -> dict[str, pa.Array | None]:
        """Columns of a row group. Narrow ones are kept apart: they are few bytes of many."""
        kept = (self._narrow if narrow else self._whole).of(file.path, number)
        missing = [name for name in names if name not in kept.columns]
        if missing:
            kept.add(self._read(file, number, missing))
        return kept.columns

    def fetch(self, wanted: Sequence[tuple[File, int]], names: Sequence[str]) -> None:
        """Read columns of several row groups, files beside each other, for `columns` to give."""
        missing: dict[str, list[tuple[File, int, list[str]]]] = {}
        for file, number in wanted:
            kept = self._whole.of(file.path, number)
            if left := [name for name in names if name not in kept.columns]:
                missing.setdefault(file.path, []).append((file, number, left))
        if len(missing) < 2:  # one reader is not for several threads
            return

        def read(path: str) -> list[tuple[int, dict[str, pa.Array | None]]]:
            return [(number, self._read(file, number, left, alone=False))
                    for file, number, left in missing[path]]  # fmt: skip

        with ThreadPoolExecutor(_THREADS) as pool:
            for path, columns in zip(missing, pool.map(read, missing), strict=True):
                for number, told in columns:
                    self._whole.of(path, number).add(told)

    def has(self, file: File, number: int, names: Sequence[str]) -> bool:
        """Whether columns of a row group are kept."""
        return self._whole.has(file.path, number) and all(
            name in self._whole.of(file.path, number).columns for name in names
        )

    def cold(self, file: File, number: int) -> bool:
        """Whether nothing narrow is kept of a row group."""
        return not self._narrow.has(file.path, number)

    def _read(
        self, file: File, number: int, names: Sequence[str], *, alone: bool = True
    ) -> dict[str, pa.Array | None]:
        import pyarrow.parquet as pq

        if file.opened is None:  # opening costs as much as reading five columns
            file.opened = pq.ParquetFile(
                file.path, metadata=file.metadata, memory_map=True,
                read_dictionary=[leaf for name, (leaf, _) in file.columns.items()
                                 if name in CODED or name == "tags"],
            )  # fmt: skip
        there = [name for name in names if name in file.columns
                 and not _empty(file.metadata, number, file.columns[name][1])]  # fmt: skip
        if not there:
            return dict.fromkeys(names)
        leaves = [file.columns[name][0] for name in there]
        several = alone and len(there) > 1
        table = file.opened.read_row_group(number, columns=leaves, use_threads=several)
        return {name: _one(table[name]) if name in there else None for name in names}


def _opened(path: str) -> File:
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    schema = metadata.schema
    columns: dict[str, tuple[str, int]] = {}
    for number in range(len(schema)):
        leaf = schema.column(number).path
        columns.setdefault(leaf.split(".")[0], (leaf, number))
    at = columns[TIME][1]
    starts, spans, row = [], [], 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        starts.append(row)
        row += group.num_rows
        statistics = group.column(at).statistics
        known = statistics is not None and statistics.has_min_max
        spans.append((statistics.min, statistics.max) if known else _UNKNOWN)
    return File(path, metadata, columns, starts, spans)


def _positions(path: str | None) -> NDArray[np.int64] | None:
    """The deleted rows of a file, in order."""
    if path is None:
        return None
    import numpy as np
    import pyarrow.parquet as pq

    positions: NDArray[np.int64] = np.sort(pq.read_table(path, columns=["pos"])["pos"].to_numpy())
    return positions if len(positions) else None


def _one(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece; copied only where it is in several."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _empty(metadata: pq.FileMetaData, group: int, column: int) -> bool:
    """Whether a column of a row group is known to hold nothing but nulls."""
    statistics = metadata.row_group(group).column(column).statistics
    return bool(
        statistics is not None
        and statistics.has_null_count
        and statistics.null_count == metadata.row_group(group).num_rows
    )


def signature(home: Home) -> object:
    """Changes with every commit of a home's lake. Opens nothing: two `stat` calls."""
    found: list[tuple[int, int, int]] = []
    for path in (home.catalog, home.catalog.with_name("catalog.sqlite-wal")):
        try:
            stat = path.stat()
        except OSError:
            continue
        found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(found)


__all__ = ["CODED", "FILES", "KEPT", "NEVER", "TIME", "File", "Files", "RowGroups", "signature"]
