"""Some memories out of many, straight from the lake's files: by id and time, or the newest of some.

By SQL ten memories cost 50 ms: 15 for the plan, the rest to inflate ten row groups, again for every
question. Here a memory near others that were asked for costs microseconds.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from engram.exporters.lake.rowgroups import (
    CODED,
    FILES,
    NEVER,
    TIME,
    File,
    Files,
    RowGroups,
    signature,
)

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_ID: Final = "id"
_TAGS: Final = "tags"

_FEW: Final = 16
"""Values that are had sooner one by one."""

_COLD: Final = 128
"""Row groups that are read for one question about the newest (1 ms each); SQL is faster then."""


class Lookup:
    """Reads memories from the lake's files. Constructing opens nothing. Safe for several threads.

    `files` says which files hold the newest snapshot; it is called when `changed` differs.
    """

    def __init__(
        self, files: Callable[[], Files], changed: Callable[[], object], kept: int = 0
    ) -> None:
        self._lock = threading.Lock()
        self._groups = RowGroups(files, changed, kept)

    def rows(
        self,
        ids: Sequence[str],
        times: Sequence[int],
        columns: Sequence[str],
        *,
        kept: bool = False,
    ) -> dict[str, tuple[Any, ...]]:
        """By id, the values of some columns of the memories that are there at these times.

        A column that a file does not have is None. With `kept`, those alone that cost no reading.

        Raises:
            OSError: a file cannot be read, or is not what it should be; its reader should ask SQL.
        """
        import numpy as np

        if not ids or not times:
            return {}
        found: dict[str, tuple[Any, ...]] = {}
        with self._reading() as groups:
            these, ordered = frozenset(ids), sorted(times)
            moments = np.array(ordered, dtype=np.int64)
            there: list[tuple[File, int, NDArray[np.int64]]] = []
            for file, number in groups.within(ordered[0], ordered[-1]):
                first, last = file.spans[number]
                if bisect_right(ordered, last) == bisect_right(ordered, first - 1):
                    continue
                if kept and not groups.has(file, number, (_ID, *columns)):
                    continue
                at = groups.times(file, number)
                places = groups.live(file, number, np.flatnonzero(np.isin(at, moments)))
                if len(places):
                    there.append((file, number, places))
            groups.fetch([(file, number) for file, number, _ in there], (_ID, *columns))
            for file, number, places in there:
                told = groups.columns(file, number, (_ID, *columns))
                read = _values(told, columns, places)
                for id_, values in zip(_values(told, (_ID,), places), read, strict=True):
                    if id_[0] in these:
                        found[id_[0]] = values
        return found

    def newest(
        self,
        columns: Sequence[str],
        *,
        limit: int,
        only: Mapping[str, Collection[str]],
        without: Mapping[str, Collection[str]],
        since_ns: int = 0,
        until_ns: int = (1 << 63) - 1,
    ) -> list[tuple[Any, ...]] | None:
        """The newest memories of a range of times, newest first, equal ones by their id.

        `only` says which texts a column must have, `without` which it must not; they take the
        columns of `rowgroups.CODED`. None: too much of the lake would have to be looked through.

        Raises:
            OSError: as `rows`.
        """
        with self._reading() as groups:
            best: list[tuple[int, str, tuple[Any, ...]]] = []
            asked = (*only, *without)
            wanted = sorted(
                groups.within(since_ns, until_ns), key=lambda one: -one[0].spans[one[1]][1]
            )
            cold = 0
            for file, number in wanted:
                if len(best) >= limit and file.spans[number][1] < best[limit - 1][0]:
                    break
                cold += groups.cold(file, number)
                if cold > _COLD:
                    return None
                places = _passing(groups, file, number, asked, only, without, since_ns, until_ns)
                at = groups.times(file, number)
                if len(best) >= limit:
                    places = places[at[places] >= best[limit - 1][0]]
                elif len(places) > limit:
                    places = _latest(places, at, limit)
                if len(places):
                    told = groups.columns(file, number, (_ID, *columns))
                    read = _values(told, columns, places)
                    ids = _values(told, (_ID,), places)
                    best += [
                        (int(at[place]), id_[0], values)
                        for place, id_, values in zip(places.tolist(), ids, read, strict=True)
                    ]
                    best.sort(key=lambda one: (-one[0], one[1]))
                    del best[limit:]
            return [values for *_, values in best]

    def moments(
        self,
        tags: Sequence[str],
        *,
        most: int,
        only: Mapping[str, Collection[str]],
        since_ns: int = 0,
        until_ns: int = (1 << 63) - 1,
    ) -> NDArray[np.int64] | None:
        """The sorted times of memories that have all of some tags; None: more than `most` have.

        0 is always among them: memories without a time are not looked at.

        Raises:
            OSError: as `rows`.
        """
        import numpy as np

        found = [np.zeros(1, dtype=np.int64)]
        count = 0
        with self._reading() as groups:
            for file, number in groups.within(since_ns, until_ns):
                places = _passing(groups, file, number, (*only,), only, {}, since_ns, until_ns)
                column = groups.columns(file, number, (_TAGS,), narrow=True)[_TAGS]
                if column is None or not len(places):
                    continue
                for tag in tags:
                    places = places[_having(column, tag)[places]]
                found.append(groups.times(file, number)[places])
                count += len(places)
                if count > most:
                    return None
        return np.sort(np.concatenate(found))

    def close(self) -> None:
        """Let go of what is kept. Safe twice."""
        with self._lock:
            self._groups.clear()

    @contextmanager
    def _reading(self) -> Iterator[RowGroups]:
        import pyarrow as pa

        with self._lock:
            try:
                self._groups.refresh()
                yield self._groups
                self._groups.settle()
            except (OSError, pa.ArrowException, KeyError) as error:
                self._groups.clear()
                raise OSError(f"cannot read memories from their files: {error}") from error


def _values(
    told: Mapping[str, pa.Array | None], columns: Sequence[str], places: NDArray[np.int64]
) -> list[tuple[Any, ...]]:
    """The values of some places, a tuple each."""
    at = places.tolist()
    read = []
    for name in columns:
        column = told[name]
        if column is None:
            read.append([None] * len(at))
        elif len(at) < _FEW:
            read.append([column[place].as_py() for place in at])
        else:
            read.append(column.take(places).to_pylist())
    return list(zip(*read, strict=True))


def _passing(
    groups: RowGroups,
    file: File,
    number: int,
    asked: Sequence[str],
    only: Mapping[str, Collection[str]],
    without: Mapping[str, Collection[str]],
    since_ns: int,
    until_ns: int,
) -> NDArray[np.int64]:
    """The places of a row group whose memories pass."""
    import numpy as np

    told = groups.columns(file, number, asked, narrow=True)
    coded: list[tuple[pa.DictionaryArray, list[int], bool]] = []
    for texts, kept in ((only, True), (without, False)):
        for name, some in texts.items():
            column = told[name]
            these = [] if column is None else _numbers(column, some)
            if these:
                coded.append((column, these, kept))
            elif kept:
                return np.empty(0, dtype=np.int64)  # most row groups know nothing of a session
    at = groups.times(file, number)
    passes = (at >= max(since_ns, NEVER + 1)) & (at <= until_ns)
    for column, these, kept in coded:
        indices = column.indices
        if indices.null_count:  # a null is no text: the number after the last
            indices = indices.fill_null(len(column.dictionary))
        hits = np.zeros(len(column.dictionary) + 1, dtype=np.bool_)
        hits[these] = True
        passes &= hits[indices.to_numpy()] if kept else ~hits[indices.to_numpy()]
    return groups.live(file, number, np.flatnonzero(passes))


def _numbers(column: pa.DictionaryArray, texts: Collection[str]) -> list[int]:
    """The numbers of some texts in a column; those that it does not know are left out."""
    found = (column.dictionary.index(text).as_py() for text in texts)
    return [number for number in found if number >= 0]


def _having(column: pa.Array, text: str) -> NDArray[np.bool_]:
    """Which lists hold a text; nulls hold none."""
    import numpy as np

    [number, *_] = *_numbers(column.values, [text]), -2
    same = column.values.indices.fill_null(-1).to_numpy() == number
    before = np.concatenate([[0], np.cumsum(same)])
    ends = column.offsets.to_numpy()
    holding: NDArray[np.bool_] = before[ends[1:]] > before[ends[:-1]]
    return holding


def _latest(places: NDArray[np.int64], at: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """The latest places, with all that are as late as the last of them."""
    import numpy as np

    least = np.partition(at[places], -limit)[-limit]
    latest: NDArray[np.int64] = places[at[places] >= least]
    return latest


__all__ = ["CODED", "FILES", "TIME", "Lookup", "signature"]
