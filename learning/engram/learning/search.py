"""Search over memories: words and meaning together, told from the lake, and why.

The index says which memories and how well; what they say is read from the lake, so nothing is kept
twice and a memory that left the lake is not found. Every hit says which words matched, how alike
its meaning is, and what each added to its score.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from engram.exporters.embedding.masking import bare
from engram.exporters.embedding.models import BUILTIN, Embedder, load
from engram.exporters.embedding.relevance import least_cosine
from engram.exporters.errors import BadRequest, ModelUnavailable, NotFound, StoreError
from engram.exporters.home import Home
from engram.exporters.index import identity, read_state
from engram.exporters.index_read import Filter, IndexReader, Match
from engram.exporters.words import Terms, asked, terms
from engram.learning.indexer import text_of
from engram.learning.lake_rows import LakeRows, MemoryRow

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

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._embedder: Embedder | None = None
        self._least_cosine = 0.0
        self._note = ""
        self._index: IndexReader | None = None
        self._lake = LakeRows(home)

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
    ) -> Answer:
        """The best memories for a question, and why. The filters hold for every hit.

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
            since_ns=since_ns, until_ns=until_ns, min_importance=min_importance,
        )  # fmt: skip
        wanted = asked(query)
        with self._lock:
            # Twice as many as asked for: some may have left the lake.
            matches = self._matches(query, wanted, max(_CANDIDATES, 2 * limit), only)
            vectors = vector_weight(wanted) if self._embedder else 0.0
            text = self._text_weight(wanted, matches)
            hits, irrelevant = self._told(fuse(matches, text, vectors), wanted, limit, only)
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
                    candidates=len(matches),
                    irrelevant=irrelevant,
                ),
                self._note,
            )

    def close(self) -> None:
        """Let go of everything. Safe twice; the next search opens it again."""
        with self._lock:
            self._index = None
            self._lake.close()

    # -- the index ---------------------------------------------------------------------------------

    def _matches(self, query: str, wanted: Terms, limit: int, only: Filter) -> list[Match]:
        for last in (False, True):
            try:
                if self._index is None or not self._index.current:
                    self._open()
                assert self._index is not None  # noqa: S101 - said to the type checker
                vector = self._embedder.embed([query])[0] if self._embedder else None
                return self._index.matches(list(wanted), vector, limit, only)
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
                self._least_cosine = least_cosine(self._embedder)
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

    def _text_weight(self, wanted: Terms, matches: list[Match]) -> float:
        """How much the words count: the square of the share that the best by words has."""
        best = max(matches, key=lambda match: (match.text_score, match.id), default=None)
        if best is None or not best.text_score or self._index is None:
            return 0.0
        return share(wanted, set(self._index.words(best))) ** 2

    # -- what is told ------------------------------------------------------------------------------

    def _told(
        self, ranked: list[tuple[float, float, Match]], wanted: Terms, limit: int, only: Filter
    ) -> tuple[list[Hit], int]:
        """The relevant hits with what the lake says, and how many were not relevant.

        A memory that is not in the lake, or that is and does not pass the filter, is left out.
        """
        hits: list[Hit] = []
        shown: set[str] = set()
        irrelevant, at = 0, 0
        while len(hits) < limit and at < len(ranked) and irrelevant <= 2 * limit:
            part = ranked[at : at + limit - len(hits)]
            at += len(part)
            hopeful = [
                one
                for one in part
                if one[2].text_score or one[2].vector_score >= self._least_cosine
            ]
            irrelevant += len(part) - len(hopeful)
            rows = self._lake.rows([match for _, _, match in hopeful], only)
            for text_part, vector_part, match in hopeful:
                row = rows.get(match.id)
                if row is None or row.id in shown:
                    continue
                shown.add(row.id)
                matched = _matched(wanted, row, match)
                if not self._relevant(wanted, match, matched):
                    irrelevant += 1
                    continue
                hits.append(_hit(row, match, text_part, vector_part, matched))
        return hits, irrelevant

    def _relevant(self, wanted: Terms, match: Match, matched: frozenset[str]) -> bool:
        least = self._least_cosine * (WITH_A_WORD if matched else 1.0)
        alike = self._embedder is not None and match.vector_score >= least
        return alike or (bool(matched) and share(wanted, matched) >= LEAST_SHARE)


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
    matches: Sequence[Match], text_weight: float, vector_weight: float
) -> list[tuple[float, float, Match]]:
    """Matches with what words and vector add to their score (0..1), best first.

    Equal ones are ordered by id, so that the order is stable.
    """
    text = max((match.text_score for match in matches), default=0.0)
    vector = max((match.vector_score for match in matches), default=0.0)
    most = (text_weight if text > 0 else 0.0) + vector_weight * max(vector, 0.0)
    scored = []
    for match in matches:
        by_text = text_weight * match.text_score / text / most if text > 0 and most > 0 else 0.0
        by_vector = vector_weight * max(match.vector_score, 0.0) / most if most > 0 else 0.0
        scored.append((by_text, by_vector, match))
    scored.sort(key=lambda one: (-(one[0] + one[1]), one[2].id))
    return scored


def _matched(wanted: Terms, row: MemoryRow, match: Match) -> frozenset[str]:
    """The words of the query that were indexed of this memory."""
    text = text_of(row.title, row.content) if match.template is None else bare(match.template)
    had = terms(text)
    return (wanted.parts & had.parts) | (wanted.wholes & had.wholes)


def _hit(
    row: MemoryRow, match: Match, text_part: float, vector_part: float, matched: frozenset[str]
) -> Hit:
    time = None
    if row.time_unix_nano is not None:
        time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=row.time_unix_nano // 1000)
    return Hit(
        row.id, row.type, row.title or "", row.content or "", round(text_part + vector_part, 6),
        match.text_score, match.vector_score, time, row.service, row.source, row.trust,
        round(text_part, 6), round(vector_part, 6), tuple(sorted(matched)),
    )  # fmt: skip


__all__ = ["Answer", "Explanation", "Hit", "NotFound", "Searcher", "fuse", "search", "searcher"]
