"""Search over memories: words and meaning together, told from the lake, and why.

The index says which memories and how well; what they say is read from the lake, so nothing is kept
twice and a memory that left the lake is not found. Every hit says which words matched, how alike
its meaning is, and what each added to its score.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from engram.exporters.embedding.masking import bare
from engram.exporters.embedding.models import BUILTIN, Embedder, load
from engram.exporters.embedding.relevance import Unrelated, unrelated
from engram.exporters.errors import BadRequest, ModelUnavailable, NotFound, StoreError
from engram.exporters.home import Home
from engram.exporters.index import identity, read_state
from engram.exporters.index_read import Candidate, Filter, IndexReader, Match
from engram.exporters.itself.notes import NOTES
from engram.exporters.words import Terms, asked, terms
from engram.learning.indexer import text_of
from engram.learning.lake_rows import LakeRows, MemoryRow

if TYPE_CHECKING:
    from engram.exporters.lake.lookup import Lookup

VECTOR_WEIGHT: Final = 1.0
"""Of a cosine, against the words' 0 to 1: the square of the share of the query's words that the
best memory by words has. Words that explain the query well outweigh what only sounds alike, and few
words in common do not outweigh meaning. Figures: docs/adr/004-search-index.md."""

LOOKUP_WEIGHT: Final = 0.5
"""For a query of at most three words, one with a digit: an id, a code. The word itself is meant."""

LEAST_SHARE: Final = 0.5
"""Of the query's words that a memory must have to be relevant by its words alone."""

WITH_A_WORD: Final = 2 / 3
"""Of the least cosine that is enough when at least one word matched too."""

_CANDIDATES: Final = 50
"""Rows by words and rows by vector that are fused, at least."""

_CHARS: Final = 4_000
"""Of a query; the rest is not looked at."""

_MOMENTS: Final = 50_000
"""Memories with the tags that are asked for whose times are looked up first. Where more have them,
more candidates are looked at instead."""

_TAGGED: Final = 1_000
"""Candidates by words and by vector, at least, where tags are asked for."""

_MOST: Final = 10_000
"""Candidates that are looked at where most of them fold into few."""

_MANY: Final = 4
"""So many times more candidates where a judge folds them: 0.1 ms."""


_LONG: Final = 10_000
"""Characters of a memory from which reading its words from the index (5 ms) costs less than finding
them again in its text."""

_Found = TypeVar("_Found", Candidate, Match)


@dataclass(frozen=True, slots=True)
class Hit:
    """A memory that was found. Its text is data from elsewhere, not instructions."""

    id: str
    type: str
    title: str
    content: str
    score: float
    """0..1 within one answer; not comparable between queries. The sum of the two parts."""
    text_score: float
    """BM25 of the words; 0: found by meaning alone."""
    vector_score: float
    """Cosine with the query; 0: found by words alone."""
    time: datetime | None
    service: str | None
    source: str | None
    trust: str | None
    text_part: float = 0.0
    """What the words added to the score."""
    vector_part: float = 0.0
    """What the meaning added to the score."""
    matched: tuple[str, ...] = ()
    """The query's words (stems, and identifiers as one word) that this memory has."""


Ranked = list[tuple[float, float, Candidate]]
"""Candidates with what words and vector add to the score of each, best first."""


class Judge(Protocol):
    """What else than relevance decides an answer; for one answer."""

    def order(self, ranked: Ranked, index: IndexReader) -> Ranked:
        """The candidates in another order or fewer, their parts scaled; nothing is read of them."""
        ...

    def takes(
        self, row: MemoryRow, match: Match, parts: tuple[float, float], index: IndexReader
    ) -> bool:
        """Whether a relevant memory is shown; called in their order."""
        ...


@dataclass(frozen=True, slots=True)
class Explanation:
    """How an answer was made."""

    mode: str
    """`hybrid`, or `text` where no vectors could be compared."""
    words: tuple[str, ...]
    """The query's words as they were looked up."""
    text_weight: float
    """The square of the share of the words that the best memory by words has."""
    vector_weight: float
    """A score is (text_weight x BM25 / best BM25 + vector_weight x cosine) / the most there is."""
    least_share: float
    least_cosine: float
    """A memory is relevant when it has this share of the words, or is this much alike, or has a
    word and is two thirds as much alike."""
    filters: dict[str, Any]
    candidates: int
    """Index rows that were compared by both scores."""
    irrelevant: int
    """Of those looked at, how many passed neither threshold."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Hits, best first, and why. No hits: nothing is relevant."""

    hits: list[Hit]
    explanation: Explanation
    note: str = ""
    """What the reader must know: that vectors were not compared, and what to do."""


def search(home: Home, query: str, **options: Any) -> list[Hit]:
    """The best memories for a question, best first; the options of `Searcher.answer`.

    The index stays open in this process for the next search of this home.

    Raises:
        BadRequest: there is nothing to look for in the query.
        NotFound: this home has no lake or no index yet.
        StoreError: they cannot be read.
    """
    return searcher(home).search(query, **options)


_SEARCHERS: Final[dict[Home, Searcher]] = {}
_SEARCHERS_LOCK: Final = threading.Lock()


def searcher(home: Home) -> Searcher:
    """This process's searcher of a home."""
    with _SEARCHERS_LOCK:
        if home not in _SEARCHERS:
            _SEARCHERS[home] = Searcher(home)
        return _SEARCHERS[home]


class Searcher:
    """Keeps model, index and lake open. Constructing opens nothing. Safe for several threads."""

    def __init__(self, home: Home, more: Sequence[str] = (), lookup: Lookup | None = None) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._embedder: Embedder | None = None
        self._unrelated = Unrelated(0.0, 1.0, 0.0)
        self._least_cosine = 0.0
        self._note = ""
        self._index: IndexReader | None = None
        self.lake = LakeRows(home, more, lookup)

    def search(self, query: str, **options: Any) -> list[Hit]:
        """The hits of `answer`."""
        return self.answer(query, **options).hits

    def answer(
        self,
        query: str,
        *,
        limit: int = 10,
        types: Sequence[str] | None = None,
        service: str | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
        min_importance: float | None = None,
        tags: Sequence[str] | None = None,
        judge: Judge | None = None,
        fill: bool = False,
    ) -> Answer:
        """The best memories for a question, and why. The filters hold for every hit.

        With `fill`, where something is relevant the less relevant is told too, up to the limit;
        relevant is then what would be so among few rows.

        Raises:
            BadRequest: there is nothing to look for in the query.
            NotFound: this home has no lake or no index yet.
            StoreError: they cannot be read.
        """
        query = query[:_CHARS].encode("utf-8", "replace").decode().strip()  # no lone surrogates
        if not query:
            raise BadRequest("the query is empty; say what to look for")
        if limit < 1:
            raise BadRequest(f"limit must be at least 1, not {limit}")
        only = Filter(
            types=types, service=service, user_id=user_id, session_id=session_id,
            since_ns=since_ns, until_ns=until_ns, min_importance=min_importance, tags=tags or None,
        )  # fmt: skip
        wanted = asked(query)
        with NOTES.timed("search") as counts, self._lock:
            # Twice as many as asked for: some may have left the lake.
            most = max(_CANDIDATES, 2 * limit)
            if only.tags:
                only = replace(only, moments=self.lake.moments(only, _MOMENTS))
                if only.moments is None:
                    most = max(most, _TAGGED)
            if judge is not None:
                most *= _MANY
            while True:
                found = self._candidates(query, wanted, most, only)
                rows = self._index.compared if self._index is not None and not fill else 0
                self._least_cosine = self._unrelated.least_cosine(rows)
                told = _Told(self._index, self.lake, found, limit)
                vectors = vector_weight(wanted) if self._embedder else 0.0
                text = share(wanted, told.best_words()) ** 2
                ranked = fuse(found, text, vectors)
                if judge is not None:
                    assert self._index is not None  # noqa: S101 - it found them
                    ranked = judge.order(ranked, self._index)
                if len(ranked) >= 2 * limit or len(found) < most or most >= _MOST:
                    break
                most *= 8  # nearly all are one
            hits, irrelevant = self._shown(
                self._relevant(told, ranked, wanted, fill), wanted, limit, only, judge
            )
            counts["nothing"] = int(not hits)
            return Answer(
                hits,
                Explanation(
                    mode="hybrid" if self._embedder else "text",
                    words=tuple(wanted),
                    text_weight=round(text, 4),
                    vector_weight=vectors,
                    least_share=LEAST_SHARE,
                    least_cosine=round(self._least_cosine, 4),
                    filters=only.given,
                    candidates=len(found),
                    irrelevant=irrelevant,
                ),
                self._note,
            )

    def close(self) -> None:
        """Let go of everything. Safe twice; the next search opens it again."""
        with self._lock:
            self._index = None
            self.lake.close()

    # -- the index ---------------------------------------------------------------------------------

    def _candidates(self, query: str, wanted: Terms, limit: int, only: Filter) -> list[Candidate]:
        for last in (False, True):
            try:
                if self._index is None or not self._index.current:
                    self._open()
                assert self._index is not None  # noqa: S101 - said to the type checker
                vector = self._embedder.embed([query])[0] if self._embedder else None
                return self._index.candidates(list(wanted), vector, limit, only)
            except StoreError:
                self._index = None  # deleted and made again, or a version was pruned under us
                if last:
                    raise
        raise AssertionError

    def _open(self) -> None:
        """Open the index with the model that it was made with, or without one and say so."""
        state = read_state(self._home) or {}
        name = str(state.get("model", BUILTIN))
        self._note = ""
        try:
            if self._embedder is None or self._embedder.name != name:
                self._embedder = None
                self._embedder = load(name)
                self._unrelated = unrelated(self._embedder)
            if state and state.get("identity") != identity(self._embedder.embedder_id):
                self._note = (
                    f"searched by words only: the model {name} is no longer the one that made the "
                    "index; run: engram reindex"
                )
                self._embedder = None
        except ModelUnavailable as error:
            self._note = f"searched by words only: {error}"
        self._index = IndexReader(
            self._home, self._embedder.embedder_id if self._embedder else None
        )

    # -- what is told ------------------------------------------------------------------------------

    def _shown(
        self,
        ranked: Iterator[tuple[float, float, Match] | None],
        wanted: Terms,
        limit: int,
        only: Filter,
        judge: Judge | None,
    ) -> tuple[list[Hit], int]:
        """The relevant hits with what the lake says, and how many were not relevant.

        A memory that is not in the lake, or that is and does not pass the filter, is left out.
        """
        hits: list[Hit] = []
        shown: set[str] = set()
        irrelevant, more = 0, True
        while len(hits) < limit and more:
            relevant: list[tuple[float, float, Match]] = []
            while len(relevant) < limit - len(hits) and irrelevant <= 2 * limit:
                try:
                    one = next(ranked)
                except StopIteration:
                    break
                if one is None:
                    irrelevant += 1
                else:
                    relevant.append(one)
            more = bool(relevant)
            rows = self.lake.rows([match for _, _, match in relevant], only)
            for text_part, vector_part, match in relevant:
                row = rows.get(match.id)
                if row is None or row.id in shown:
                    continue
                shown.add(row.id)
                parts = (text_part, vector_part)
                if judge and self._index and not judge.takes(row, match, parts, self._index):
                    continue
                hits.append(_hit(row, match, text_part, vector_part, _matched(wanted, row, match)))
        return hits, irrelevant

    def _relevant(
        self,
        told: _Told,
        ranked: Sequence[tuple[float, float, Candidate]],
        wanted: Terms,
        fill: bool,
    ) -> Iterator[tuple[float, float, Match] | None]:
        """The matches in their order, and None for each that is not relevant.

        Whoever has no word of the query must be alike; whoever has one, two thirds as much alike,
        or have half of the query's words.
        """
        held: list[tuple[float, float, Match]] = []
        any_relevant = False
        for part in told.in_order(ranked):
            unsure: list[Match] = []
            for _, _, match in part:
                alike = match.vector_score if self._embedder else 0.0
                if match.text_score and alike < WITH_A_WORD * self._least_cosine:
                    unsure.append(match)
            words = told.words(unsure)
            for one in part:
                match = one[2]
                alike = match.vector_score if self._embedder else 0.0
                if match.place in words:
                    relevant = share(wanted, words[match.place]) >= LEAST_SHARE
                else:
                    relevant = bool(match.text_score) or alike >= self._least_cosine
                if fill and not relevant and not any_relevant:
                    held.append(one)  # told as soon as anything is relevant
                    continue
                if fill and relevant and not any_relevant:
                    any_relevant = True
                    yield from held
                yield one if relevant or fill else None


class _Told:
    """What the index says of the candidates of one question, read as far as it is needed."""

    def __init__(
        self,
        index: IndexReader | None,
        lake: LakeRows,
        found: Sequence[Candidate],
        limit: int,
    ) -> None:
        self._index = index
        self._lake = lake
        self._found = found
        self._step = 2 * limit
        self._matches: dict[int, Match] = {}
        self._words: dict[int, frozenset[str]] = {}

    def best_words(self) -> frozenset[str]:
        """The words of the best match by words; none when no word was found."""
        best = max((one.text_score for one in self._found), default=0.0)
        if not best:
            return frozenset()
        matches = self.matches([one for one in self._found if one.text_score == best])
        if not matches:
            return frozenset()
        match = max(matches, key=lambda match: match.id)
        text = None if match.template is None else bare(match.template)
        if text is None and match.time_unix_nano is not None:
            row = self._lake.there(match.memory_id, match.time_unix_nano)  # it is shown, usually
            text = None if row is None else text_of(row.title, row.content)
        if text is None or len(text) > _LONG:
            return self.words([match]).get(match.place, frozenset())
        return _had(text)

    def in_order(
        self, ranked: Sequence[tuple[float, float, Candidate]]
    ) -> Iterator[list[tuple[float, float, Match]]]:
        """The matches of ranked candidates, some at a time, equally good ones by their id."""
        end = 0
        while end < len(ranked):
            start, end = end, min(end + self._step, len(ranked))
            while end < len(ranked) and _score(ranked[end]) == _score(ranked[end - 1]):
                end += 1
            matches = {
                one.place: one for one in self.matches([one for *_, one in ranked[start:end]])
            }
            part = [
                (by_text, by_vector, matches[one.place])
                for by_text, by_vector, one in ranked[start:end]
                if one.place in matches
            ]
            yield sorted(part, key=lambda one: (-_score(one), one[2].id))

    def matches(self, candidates: Sequence[Candidate]) -> list[Match]:
        """The matches of some candidates; those that have gone are left out."""
        new = [one for one in candidates if one.place not in self._matches]
        if self._index is not None and new:
            self._matches |= self._index.told(new)
        return [self._matches[one.place] for one in candidates if one.place in self._matches]

    def words(self, matches: Sequence[Match]) -> dict[int, frozenset[str]]:
        """The words of some matches, by place.

        Of their texts where those are at hand (0.2 ms a row), or as they were indexed (3 ms, and
        1 ms a row).
        """
        new = [one for one in matches if one.place not in self._words]
        times = {one.id: one.time_unix_nano for one in new if one.template is None}
        rows = self._lake.at_hand([*times], [at for at in times.values() if at is not None])
        for one in new:
            row = rows.get(one.id)
            text = "" if row is None else text_of(row.title, row.content)
            if row is not None and len(text) <= _LONG:
                self._words[one.place] = _had(text)
        left = [one.place for one in new if one.place not in self._words]
        if self._index is not None and left:
            self._words |= self._index.words(left)
        return {one.place: self._words[one.place] for one in matches if one.place in self._words}


def _had(text: str) -> frozenset[str]:
    """The words that are indexed of a text."""
    had = terms(text)
    return frozenset(had.parts | had.wholes)


def _score(ranked: tuple[float, float, object]) -> float:
    return ranked[0] + ranked[1]


def vector_weight(wanted: Terms) -> float:
    """How much the vector counts for a query of these words."""
    lookup = len(wanted.parts) <= 3 and any(
        char.isdigit() for word in wanted.parts for char in word
    )
    return LOOKUP_WEIGHT if lookup else VECTOR_WEIGHT


def share(wanted: Terms, had: Set[str]) -> float:
    """The share of a query's words (0..1) that these words hold; a whole identifier is half."""
    found = len(wanted.parts & had) / len(wanted.parts) if wanted.parts else 0.0
    return max(found, 0.5) if wanted.wholes & had else found


def fuse(
    found: Sequence[_Found], text_weight: float, vector_weight: float
) -> list[tuple[float, float, _Found]]:
    """What was found, with what words and vector add to its score (0..1), best first."""
    text = max((one.text_score for one in found), default=0.0)
    vector = max((one.vector_score for one in found), default=0.0)
    most = (text_weight if text > 0 else 0.0) + vector_weight * max(vector, 0.0)
    scored = []
    for one in found:
        by_text = text_weight * one.text_score / text / most if text > 0 and most > 0 else 0.0
        by_vector = vector_weight * max(one.vector_score, 0.0) / most if most > 0 else 0.0
        scored.append((by_text, by_vector, one))
    scored.sort(key=_score, reverse=True)
    return scored


def _matched(wanted: Terms, row: MemoryRow, match: Match) -> tuple[str, ...]:
    """The words of the query that were indexed of this memory."""
    text = text_of(row.title, row.content) if match.template is None else bare(match.template)
    had = terms(text)
    return tuple(sorted((wanted.parts & had.parts) | (wanted.wholes & had.wholes)))


def _hit(
    row: MemoryRow, match: Match, text_part: float, vector_part: float, matched: tuple[str, ...]
) -> Hit:
    time = None
    if row.time_unix_nano is not None:
        time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=row.time_unix_nano // 1000)
    return Hit(
        row.id, row.type, row.title or "", row.content or "", round(text_part + vector_part, 6),
        match.text_score, match.vector_score, time, row.service, row.source, row.trust,
        round(text_part, 6), round(vector_part, 6), matched,
    )  # fmt: skip


__all__ = [
    "Answer", "Explanation", "Hit", "Judge", "NotFound", "Ranked", "Searcher", "fuse", "search",
    "searcher",
]  # fmt: skip
