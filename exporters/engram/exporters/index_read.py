"""Reading the search index: words by LanceDB, vectors and filters from memory.

Codes, ids and the columns of filters are kept in memory (about 135 bytes a row) for as long as the
reader lives; when the table changes, only the rows that changed are read again. So a filter is a
mask over numbers, made before the search, and costs 1 ms where LanceDB's own took 10 ms for each
100,000 rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from engram.exporters.embedding.codes import Codes
from engram.exporters.errors import NotFound
from engram.exporters.home import Home
from engram.exporters.index import (
    connect,
    current_table,
    lance_errors,
    read_state,
    refuse_other,
)

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_AT_FIRST: Final = 8_000
"""Rows by words that are asked for at most in the first try at enough that pass a filter."""

_FEW: Final = 8_000
"""A filter that passes no more rows may be given to LanceDB as a list of them."""

_SHARE: Final = 20
"""With a filter, one in so many of the rows by words that are asked for are enough: those that
would follow share fewer words, and the best by vector are looked at anyway."""

_LISTED: Final = (3_600, 6)
"""In the time of such a list (14 ms, and 15 us a row) so many rows by words can be had, and so many
more for each row of it."""

_SAMPLE: Final = 50_000
"""Rows of which the best are at most as good as the best of all."""

_TEXTS: Final = ("type", "service_name", "user_id", "session_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which memories are searched at all. All that are given must hold.

    A row of a template stands for many memories. Its type and service are theirs; whether one of
    them is of this user, session, time or importance only the lake knows. Such rows pass, and who
    searches MUST ask the lake (`learning.search` does).
    """

    types: Sequence[str] | None = None
    service: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    since_ns: int | None = None
    """Not before this."""
    until_ns: int | None = None
    """Before this."""
    min_importance: float | None = None
    """0 to 1; the shipped rules make it of severity and kind."""
    tags: Sequence[str] | None = None
    """A memory must have all of them. The index has no tags: the lake is asked."""
    moments: NDArray[np.int64] | None = None
    """Sorted times of the memories that pass what only the lake knows, where it was asked before;
    no filter of its own."""

    @property
    def asks_lake(self) -> bool:
        """Whether a template row's memories must be looked at."""
        return any(
            one is not None
            for one in (
                self.user_id, self.session_id, self.since_ns, self.until_ns, self.min_importance,
                self.tags,
            )
        )  # fmt: skip

    @property
    def given(self) -> dict[str, Any]:
        """What is filtered by, for people to read."""
        return {
            name: list(value) if name in ("types", "tags") else value
            for name in self.__slots__
            if name != "moments" and (value := getattr(self, name)) is not None
        }


class Candidate(NamedTuple):
    """A row that was found, before anything of it is read from disk."""

    place: int
    """Where the reader has it in memory, until the next question."""
    text_score: float
    """BM25; 0 when no word matched (or too many rows matched better)."""
    vector_score: float
    """Cosine of the (rounded) vectors; 0 when the row has none."""


class Facts(NamedTuple):
    """What is known of a row without reading it."""

    type: str | None
    service: str | None
    time_unix_nano: int | None
    """Of a template row: of the oldest memory of it."""
    importance: float | None
    """None of a template row, whose memories differ."""
    template: bool
    likeness: int
    """Equal for rows of equal type, service, user and masked text, as far as their vectors tell."""


@dataclass(frozen=True, slots=True)
class Match:
    """One row that was found, with what the index says of it."""

    id: str
    memory_id: str
    """The memory to show: of a template row the one that stands for it, else the row's own id."""
    time_unix_nano: int | None
    """When that memory was, as it was indexed: finds it in the lake without reading all of it."""
    text_score: float
    """BM25; 0 when no word matched (or too many rows matched better)."""
    vector_score: float
    """Cosine of the (rounded) vectors; 0 when the row has none."""
    type: str | None = None
    service: str | None = None
    template: str | None = None
    """The masked title of a template row."""
    place: int = -1
    """Of its candidate."""


@dataclass(slots=True)
class _Column:
    """A text column as numbers: equal texts have equal numbers; null is -1."""

    numbers: dict[str, int] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)

    def encode(self, values: pa.ChunkedArray) -> NDArray[np.int32]:
        import numpy as np

        coded = values.combine_chunks().dictionary_encode()
        texts = coded.dictionary.to_pylist()
        numbers = [self.numbers.setdefault(text, len(self.numbers)) for text in texts]
        self.texts = [*self.numbers]
        places = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        coding: NDArray[np.int32] = np.asarray([*numbers, -1], dtype=np.int32)
        encoded: NDArray[np.int32] = coding[places]
        return encoded


class _Rows:
    """The index's rows in memory, in the order they were seen."""

    def __init__(self, width: int) -> None:
        import numpy as np

        self.codes = Codes(width)
        self.row_ids = np.empty(0, dtype=np.uint64)
        self.ids = np.empty(0, dtype="S24")
        self.likeness = np.empty(0, dtype=np.uint64)
        self._hint = np.empty(0, dtype=np.uint16)
        self._places = np.empty(0, dtype=np.int32)
        self._columns = {name: _Column() for name in _TEXTS}
        self._numbers: dict[str, NDArray[Any]] = {
            **{name: np.empty(0, dtype=np.int32) for name in _TEXTS},
            "time_unix_nano": np.empty(0, dtype=np.int64),
            "importance": np.empty(0, dtype=np.uint8),
            "template": np.empty(0, dtype=np.bool_),
        }

    COLUMNS: Final = ("id", *_TEXTS, "time_unix_nano", "importance", "memory_id", "vector")

    def update(self, found: pa.Table) -> None:
        """Add rows, or replace those of equal row id."""
        import numpy as np

        if not found.num_rows:
            return
        row_ids = found["_rowid"].to_numpy()
        width = found["vector"].type.list_size
        codes = found["vector"].combine_chunks().flatten().to_numpy().reshape(-1, width)
        fresh: dict[str, NDArray[Any]] = {
            name: self._columns[name].encode(found[name]) for name in _TEXTS
        }
        fresh["time_unix_nano"] = found["time_unix_nano"].fill_null(0).to_numpy()
        fresh["importance"] = found["importance"].fill_null(0).to_numpy()
        fresh["template"] = found["memory_id"].is_valid().to_numpy()
        ids = np.array(found["id"].to_pylist(), dtype=np.bytes_)
        likeness = _likeness(codes, [fresh[name] for name in _TEXTS[:3]], row_ids)
        places = self.places(row_ids)
        known = places >= 0
        if known.any():
            self.codes.replace(places[known], codes[known])
            self.likeness[places[known]] = likeness[known]  # its id is what it was
            self._hint[places[known]] = likeness[known].astype(np.uint16)
            for name, values in fresh.items():
                self._numbers[name][places[known]] = values[known]
        new = ~known
        start = len(self.row_ids)
        self.row_ids = np.concatenate([self.row_ids, row_ids[new]])
        self.ids = np.concatenate([self.ids, ids[new]])
        self.likeness = np.concatenate([self.likeness, likeness[new]])
        self._hint = self.likeness.astype(np.uint16)
        self.codes.append(codes[new])
        for name, values in fresh.items():
            self._numbers[name] = np.concatenate([self._numbers[name], values[new]])
        top = int(self.row_ids.max()) + 1
        if top > len(self._places):
            more = np.full(top - len(self._places), -1, dtype=np.int32)
            self._places = np.concatenate([self._places, more])
        self._places[row_ids[new]] = np.arange(start, len(self.row_ids), dtype=np.int32)

    def places(self, row_ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Where rows are; -1: not here. LanceDB's row ids are small numbers, counted up."""
        import numpy as np

        places = np.full(len(row_ids), -1, dtype=np.int64)
        inside = row_ids < len(self._places)
        places[inside] = self._places[row_ids[inside]]
        return places

    def text(self, name: str, place: int) -> str | None:
        """What a row has in a text column."""
        number = int(self._numbers[name][place])
        return None if number < 0 else self._columns[name].texts[number]

    def id(self, place: int) -> str:
        """The id of a row."""
        return bytes(self.ids[place]).decode()

    def shared(self, place: int) -> bool:
        """Whether a row is of a template."""
        return bool(self._numbers["template"][place])

    def time(self, place: int) -> int | None:
        """When a row's memory was."""
        return int(self._numbers["time_unix_nano"][place]) or None

    def facts(self, places: Sequence[int]) -> list[Facts]:
        """What is known of some rows."""
        at = list(places)
        types, services = (
            [None if number < 0 else self._columns[name].texts[number]
             for number in self._numbers[name][at].tolist()]
            for name in ("type", "service_name")
        )  # fmt: skip
        templates = self._numbers["template"][at].tolist()
        return [
            Facts(type_, service, time or None, None if template else part / 100, template, like)
            for type_, service, time, part, template, like in zip(
                types, services, self._numbers["time_unix_nano"][at].tolist(),
                self._numbers["importance"][at].tolist(), templates, self.likeness[at].tolist(),
                strict=True,
            )
        ]  # fmt: skip

    def alike(self, place: int) -> NDArray[np.int64]:
        """The rows whose likeness is that of a row, itself among them."""
        import numpy as np

        # Two bytes of eight first: a quarter of the memory to look through.
        maybe = np.flatnonzero(self._hint == self._hint[place])
        found: NDArray[np.int64] = maybe[self.likeness[maybe] == self.likeness[place]]
        return found

    def times(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """When the memories of some rows were; 0: unknown."""
        found: NDArray[np.int64] = self._numbers["time_unix_nano"][places]
        return found

    def mask(self, only: Filter) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """The rows that pass: those of one memory, and those of templates that may."""
        import numpy as np

        shared = np.ones(len(self.row_ids), dtype=np.bool_)
        if only.types is not None:
            shared &= np.isin(self._numbers["type"], self._known("type", only.types))
        if only.service is not None:
            shared &= self._equals("service_name", only.service)
        own = shared & ~self._numbers["template"]
        shared &= self._numbers["template"]
        for name, value in (("user_id", only.user_id), ("session_id", only.session_id)):
            if value is not None:
                own &= self._equals(name, value)
        times = self._numbers["time_unix_nano"]
        if only.since_ns is not None:
            own &= times >= only.since_ns
        if only.until_ns is not None:
            own &= times < only.until_ns
            shared &= times < only.until_ns  # its oldest memory
        if only.min_importance is not None:
            own &= self._numbers["importance"] >= hundredths(only.min_importance)
        if only.moments is not None:
            left = np.flatnonzero(own)
            left = left[_among(times[left], only.moments)]
            own = np.zeros_like(own)
            own[left] = True
        return own, shared

    def _known(self, name: str, texts: Sequence[str]) -> list[int]:
        numbers = self._columns[name].numbers
        return [numbers[text] for text in texts if text in numbers]

    def _equals(self, name: str, text: str) -> NDArray[np.bool_]:
        number = self._columns[name].numbers.get(text, -2)
        passes: NDArray[np.bool_] = self._numbers[name] == number
        return passes


def _likeness(
    codes: NDArray[np.uint8], more: Sequence[NDArray[np.int32]], row_ids: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """A number for each row: equal where the vectors and some columns are. 60 ns a row.

    A row without a vector is like no other.
    """
    import numpy as np

    words = np.zeros((len(codes), -(-codes.shape[1] // 8) * 8), dtype=np.uint8)
    words[:, : codes.shape[1]] = codes
    parts = words.view("<u8")
    mixed = np.full(len(codes), 0x9E3779B97F4A7C15, dtype=np.uint64)
    for part in (*parts.T, *more):
        mixed ^= part.astype(np.uint64)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(29)
    empty = ~codes[:, -2:].any(axis=1)
    mixed[empty] = row_ids[empty]
    return mixed


def _among(times: NDArray[np.int64], some: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which times are among some sorted ones; by 20 bits of them first, for most are not."""
    import numpy as np

    def bits(of: NDArray[np.int64]) -> NDArray[np.uint64]:
        mixed: NDArray[np.uint64] = of.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return mixed >> np.uint64(44)

    found = np.zeros(len(times), dtype=np.bool_)
    if not len(some):
        return found
    there = np.zeros(1 << 20, dtype=np.bool_)
    there[bits(some)] = True
    maybe = np.flatnonzero(there[bits(times)])
    at = np.searchsorted(some, times[maybe])
    at[at == len(some)] = 0
    found[maybe] = some[at] == times[maybe]
    return found


def hundredths(importance: float | None) -> int:
    """An importance (0 to 1) as the index keeps it."""
    return round(min(max(importance or 0.0, 0.0), 1.0) * 100)


class IndexReader:
    """Searches a home's index, also while it is written. MAY be used by one thread at a time.

    Without an embedder's id there are no vectors, and words alone are searched.
    """

    def __init__(self, home: Home, embedder_id: str | None) -> None:
        self.table = current_table(home)
        state = read_state(home, self.table)
        if state is None:
            raise NotFound(
                f"no index in {home.index} yet; it is made from the lake by: engram learn "
                f"--home {home.root}"
            )
        refuse_other(home, state, embedder_id)
        self._home = home
        with lance_errors(home, "open"):
            self._table = connect(home, fresh_s=0).open_table(self.table)
        self._version = -1
        self._rows: _Rows | None = None
        self._gone = 0
        """Rows in memory that the table no longer has."""
        self._by_words: tuple[str, NDArray[np.uint64], NDArray[np.float32], bool] | None = None
        """The last words that were asked for without a filter, row ids and scores, whether all."""
        self._passing: NDArray[np.bool_] | None = None

    @property
    def compared(self) -> int:
        """Rows that passed the last question's filter."""
        if self._passing is not None:
            return int(self._passing.sum())
        return 0 if self._rows is None else len(self._rows.row_ids)

    @property
    def current(self) -> bool:
        """Whether this is still the table to search: a rebuild may have switched."""
        return current_table(self._home) == self.table

    def matches(
        self,
        text: Sequence[str],
        vector: NDArray[np.float32] | None,
        limit: int,
        only: Filter | None = None,
    ) -> list[Match]:
        """All candidates, told."""
        return [*self.told(self.candidates(text, vector, limit, only)).values()]

    def candidates(
        self,
        text: Sequence[str],
        vector: NDArray[np.float32] | None,
        limit: int,
        only: Filter | None = None,
    ) -> list[Candidate]:
        """The best `limit` rows by words and the best by vector, each with both scores.

        With a filter that asks the lake, as many rows of templates come on top of them.
        """
        import numpy as np

        with lance_errors(self._home, "search"):
            rows = self._fresh()
            groups: list[NDArray[np.bool_] | None] = [None]
            self._passing = None
            if only is not None and only.given:
                own, shared = rows.mask(only)
                self._passing = own | shared
                groups = [own, shared] if only.asks_lake else [own | shared]
            groups = [one for one in groups if one is None or one.any()]
            by_text: dict[int, float] = {}
            for passing in groups:
                if text:
                    by_text |= self._by_text(" ".join(text), limit, rows, passing)
        places = rows.places(np.fromiter(by_text, np.uint64, len(by_text)))
        by_place = dict(zip(places.tolist(), by_text.values(), strict=True))
        found = {*by_place} - {-1}
        if vector is None or not vector.any():
            return [Candidate(place, by_place[place], 0.0) for place in sorted(found)]
        # After the words, not beside them: both wait for Python's lock, and a third is lost.
        cosines = rows.codes.cosines(vector, self._passing)
        for passing in groups:
            found |= _best(cosines, limit, passing)
        return [
            Candidate(place, by_place.get(place, 0.0), float(cosines[place]))
            for place in sorted(found)
        ]

    def told(self, candidates: Sequence[Candidate]) -> dict[int, Match]:
        """What the index says of some candidates of the last question, by their place.

        Rows that have gone since are left out. Where any have, and of templates, each row is read
        (0.05 ms and 3 ms for all): ask for those that are needed.
        """
        rows = self._rows
        if not candidates or rows is None:
            return {}
        told: dict[int, tuple[Any, ...]] = {
            one.place: (rows.id(one.place), None, None)
            for one in candidates
            if not self._gone and not rows.shared(one.place)
        }
        left = [one.place for one in candidates if one.place not in told]
        if left:
            told |= self._read(rows, left, "id", "memory_id", "template")
        return {
            place: Match(
                id_, memory or id_, rows.time(place), text_score, vector_score,
                rows.text("type", place), rows.text("service_name", place), template, place,
            )
            for place, text_score, vector_score in candidates
            if place in told
            for id_, memory, template in (told[place],)
        }  # fmt: skip

    def facts(self, places: Sequence[int]) -> list[Facts]:
        """What is known, without reading them, of rows that the last question found."""
        return [] if self._rows is None else self._rows.facts(places)

    def alike(self, place: int) -> tuple[list[int], list[int]]:
        """The rows as like as this one that passed the last question's filter, with their times.

        Newest first, the row itself among them. 0.5 ms at a million rows.
        """
        import numpy as np

        rows = self._rows
        assert rows is not None  # noqa: S101 - it found one
        found = rows.alike(place)
        if self._passing is not None:
            found = found[self._passing[found]]
        times = rows.times(found)
        order = np.lexsort((rows.row_ids[found], -times))
        return found[order].tolist(), times[order].tolist()

    def words(self, places: Sequence[int]) -> dict[int, frozenset[str]]:
        """The words that were indexed of candidates, by their place.

        A row costs 1 ms: the words of many rows are compressed together.
        """
        if not places or self._rows is None:
            return {}
        read = self._read(self._rows, places, "search_text")
        return {place: frozenset((text or "").split()) for place, (text,) in read.items()}

    def _read(
        self, rows: _Rows, places: Sequence[int], *columns: str
    ) -> dict[int, tuple[Any, ...]]:
        with lance_errors(self._home, "read"):
            wanted = rows.row_ids[list(places)].tolist()
            found = self._table.take_row_ids(wanted).select(list(columns)).with_row_id().to_arrow()
        at = rows.places(found["_rowid"].to_numpy()).tolist()
        texts = (found[name].to_pylist() for name in columns)
        return dict(zip(at, zip(*texts, strict=True), strict=True))

    def _fresh(self) -> _Rows:
        """The rows as they are now."""
        version = self._table.version
        if self._rows is not None and version == self._version:
            return self._rows
        where = None if self._rows is None else f"_row_last_updated_at_version > {self._version}"
        query = self._table.search().select(list(_Rows.COLUMNS)).with_row_id(True)
        found = (query.where(where) if where else query).to_arrow()
        if self._rows is None:
            self._rows = _Rows(self._table.schema.field("vector").type.list_size)
        self._rows.update(found)
        self._version = version
        self._by_words = None
        self._gone = len(self._rows.row_ids) - self._table.count_rows()
        if self._gone > len(self._rows.row_ids) // 20:
            self._rows = None  # rows were deleted; they are in nobody's way until there are many
            return self._fresh()
        return self._rows

    def _by_text(
        self, text: str, limit: int, rows: _Rows, passing: NDArray[np.bool_] | None
    ) -> dict[int, float]:
        """Row ids and scores of the best rows that pass.

        The score of a row does not depend on the filter. So the best rows of all, when enough of
        them pass, hold the best that pass, and more are asked for until they do. LanceDB's own
        filter gives the same and reads the columns from disk; it is used where few rows pass.
        With a filter there may be fewer than `limit`, but not fewer than one in `_SHARE` of it.
        """
        import numpy as np

        if passing is None:
            return _pairs(*self._best_of_all(text, limit))
        count = int(passing.sum())
        least = -(-limit // _SHARE)
        expected = least * len(passing) // count
        most = min(_AT_FIRST, 2 * expected + limit)
        base, each = _LISTED
        listed = count <= _FEW and (expected > _AT_FIRST or base + each * count < most)
        while not listed:
            found, scores = self._best_of_all(text, most)
            places = rows.places(found)
            passed = np.flatnonzero((places >= 0) & passing[places])[:limit]
            if len(passed) >= least or len(found) < most:
                return _pairs(found[passed], scores[passed])
            most *= 4
            listed = count <= _FEW
        these = ",".join(map(str, rows.row_ids[passing].tolist()))
        return _pairs(*self._fts(text, limit, f"_rowid IN ({these})"))

    def _best_of_all(self, text: str, limit: int) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """Row ids and scores, best first; kept, for a context window asks the same twice."""
        kept = self._by_words
        if kept is None or kept[0] != text or not (kept[3] or len(kept[1]) >= limit):
            found, scores = self._fts(text, limit, None)
            kept = self._by_words = (text, found, scores, len(found) < limit)
        return kept[1][:limit], kept[2][:limit]

    def _fts(
        self, text: str, limit: int, where: str | None
    ) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """Row ids and scores, best first."""
        # Nothing in the text is syntax: `words` leaves letters and digits, and the string form
        # of a full-text query is a plain match of any word.
        query = self._table.search(text, query_type="fts", fts_columns="search_text")
        if where:
            query = query.where(where, prefilter=True)
        found = query.select(["_score"]).with_row_id(True).limit(limit).to_arrow()
        return found["_rowid"].to_numpy(), found["_score"].to_numpy()


def _pairs(found: NDArray[np.uint64], scores: NDArray[np.float32]) -> dict[int, float]:
    return dict(zip(found.tolist(), scores.tolist(), strict=True))


def _best(cosines: NDArray[np.float32], limit: int, passing: NDArray[np.bool_] | None) -> set[int]:
    """Places of the rows that are most alike, of those that pass."""
    import numpy as np

    if passing is None:
        # Most of a million rows are out at once: a part of them says how good the best must be.
        step = max(1, len(cosines) // _SAMPLE)
        some = cosines[::step]
        least = np.partition(some, -limit)[-limit] if len(some) > limit else -1.0
        best = np.flatnonzero(cosines >= least)
    else:
        best = np.flatnonzero(passing)
    scores = cosines[best]
    if len(best) > limit:
        kept = np.argpartition(scores, -limit)[-limit:]
        best, scores = best[kept], scores[kept]
    return set(best[scores > 0].tolist())


__all__ = ["Candidate", "Facts", "Filter", "IndexReader", "Match", "hundredths"]
