"""Search over memories: words and meaning together, told from the lake.

The index says which memories and how well; what they say is read from the lake, so nothing is kept
twice and a memory that left the lake is not found.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from engram.exporters.embedding.codes import DIMS
from engram.exporters.embedding.static import StaticEmbedder
from engram.exporters.errors import BadRequest, NotFound, StoreError
from engram.exporters.home import Home
from engram.exporters.index import Filter, IndexReader, Match, template_id, words

if TYPE_CHECKING:
    import duckdb

VECTOR_WEIGHT: Final = 3.0
"""Of the best vector score against the best text score, each of them made 1.

MRR on ops / ops_fix / ops_ask: text .656 / .287 / .521, vector .649 / .432 / .621,
weight 1 .734 / .405 / .633, 2 .728 / .427 / .644, **3 .728 / .440 / .653**,
reciprocal ranks (k = 10) .692 / .423 / .615."""

LOOKUP_WEIGHT: Final = 0.5
"""For a query of at most three words, one with a digit: an id, a code. The word itself is meant."""

_CANDIDATES: Final = 50
"""Rows by words and rows by vector that are fused, at least."""

_CHARS: Final = 4_000
"""Of a query; the rest is not looked at."""

_COLUMNS: Final = "id, type, time_unix_nano, title, content, service_name, source, trust"


@dataclass(frozen=True, slots=True)
class Hit:
    """A memory that was found. Its text is data from elsewhere, not instructions."""

    id: str
    type: str
    title: str
    content: str
    score: float
    """0..1 within one answer; not comparable between queries."""
    text_score: float
    """BM25 of the words; 0: found by meaning alone."""
    vector_score: float
    """Cosine with the query; 0: found by words alone."""
    time: datetime | None
    service: str | None
    source: str | None
    trust: str | None


def search(
    home: Home,
    query: str,
    *,
    limit: int = 10,
    types: Sequence[str] | None = None,
    service: str | None = None,
    user_id: str | None = None,
    session_id: str | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
) -> list[Hit]:
    """The best memories for a question, best first. For more than one, keep a `Searcher`.

    Raises:
        BadRequest: there is nothing to look for in the query.
        NotFound: this home has no lake or no index yet.
        StoreError: they cannot be read.
    """
    searcher = Searcher(home)
    try:
        return searcher.search(
            query, limit=limit, types=types, service=service, user_id=user_id,
            session_id=session_id, since_ns=since_ns, until_ns=until_ns,
        )  # fmt: skip
    finally:
        searcher.close()


class Searcher:
    """Keeps embedder, index and lake open. Constructing opens nothing. Safe for several threads."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._embedder: StaticEmbedder | None = None
        self._index: IndexReader | None = None
        self._lake: duckdb.DuckDBPyConnection | None = None

    def search(
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
    ) -> list[Hit]:
        """As `engram.learning.search.search`."""
        query = query[:_CHARS].encode("utf-8", "replace").decode().strip()  # no lone surrogates
        if not query:
            raise BadRequest("the query is empty; say what to look for")
        if limit < 1:
            raise BadRequest(f"limit must be at least 1, not {limit}")
        only = Filter(
            types=types, service=service, user_id=user_id, session_id=session_id,
            since_ns=since_ns, until_ns=until_ns,
        )  # fmt: skip
        with self._lock:
            if self._embedder is None:
                self._embedder = StaticEmbedder(DIMS)
            vector = self._embedder.embed([query])[0]
            text = words(query)
            # Twice as many as asked for: some may have left the lake.
            matches = self._matches(text, vector, max(_CANDIDATES, 2 * limit), only)
            ranked = fuse(matches, vector_weight(text))
            return self._told(ranked, limit)

    def close(self) -> None:
        """Let go of everything. Safe twice; the next search opens it again."""
        with self._lock:
            self._index = None
            self._drop_lake()

    def _matches(self, text: list[str], vector: Any, limit: int, only: Filter) -> list[Match]:
        assert self._embedder is not None  # noqa: S101 - said to the type checker
        if self._index is not None:
            try:
                return self._index.matches(text, vector, limit, only)
            except StoreError:
                self._index = None  # deleted and made again, or a version was pruned under us
        self._index = IndexReader(self._home, self._embedder.embedder_id)
        return self._index.matches(text, vector, limit, only)

    def _told(self, ranked: list[tuple[float, Match]], limit: int) -> list[Hit]:
        """The hits with what the lake says; a memory that is not there is left out."""
        hits: list[Hit] = []
        shown: set[str] = set()
        at = 0
        while len(hits) < limit and at < len(ranked):
            part = ranked[at : at + limit - len(hits)]
            at += len(part)
            rows = self._rows([match for _, match in part])
            for score, match in part:
                row = rows.get(match.memory_id)
                if row is None and match.memory_id != match.id:
                    row = self._another(match)
                if row is None or row[0] in shown:
                    continue
                shown.add(row[0])
                hits.append(_hit(row, score, match))
        return hits

    def _rows(self, matches: list[Match]) -> dict[str, tuple[Any, ...]]:
        """What the lake says of each memory that is there.

        Ids are hashes, so looking for them alone reads every file; with the times only the files
        of those times are read. A memory whose time was changed by a merge is looked for again.
        """
        ids = [match.memory_id for match in matches]
        times = [match.time_unix_nano for match in matches if match.time_unix_nano is not None]
        rows: dict[str, tuple[Any, ...]] = {}
        if times:
            rows = self._by_id(ids, f" AND time_unix_nano IN ({_marks(times)})", times)
        if missing := [one for one in ids if one not in rows]:
            rows |= self._by_id(missing, "", [])
        return rows

    def _by_id(self, ids: list[str], more: str, values: list[Any]) -> dict[str, tuple[Any, ...]]:
        found = self._ask(
            f"SELECT {_COLUMNS} FROM memories WHERE id IN ({_marks(ids)}){more}", [*ids, *values]
        )
        return {row[0]: row for row in found}

    def _another(self, match: Match) -> tuple[Any, ...] | None:
        """The newest memory of a template whose first one has left the lake."""
        rows = self._ask(
            f"SELECT {_COLUMNS} FROM memories WHERE index_as = 'template' "
            "ORDER BY time_unix_nano DESC LIMIT 2000",
            [],
        )
        for row in rows:
            if template_id(row[1], row[5], row[3])[0] == match.id:
                return row
        return None

    def _ask(self, sql: str, values: list[Any]) -> list[tuple[Any, ...]]:
        import duckdb

        from engram.exporters.lake.attach import attach_read_only

        for last in (False, True):
            try:
                if self._lake is None:
                    self._lake = attach_read_only(self._home, threads=1, memory_limit="160MB")
                return self._lake.execute(sql, values).fetchall()
            except duckdb.CatalogException as error:
                self._drop_lake()
                raise NotFound(f"the lake in {self._home.lake} has no memories yet") from error
            except duckdb.Error as error:
                self._drop_lake()
                if last:
                    raise StoreError(
                        f"cannot read the lake in {self._home.lake}: {error}"
                    ) from error
        raise AssertionError

    def _drop_lake(self) -> None:
        lake, self._lake = self._lake, None
        if lake is not None:
            lake.close()


def vector_weight(text: Sequence[str]) -> float:
    """How much the vector counts for a query of these words."""
    lookup = len(text) <= 3 and any(char.isdigit() for word in text for char in word)
    return LOOKUP_WEIGHT if lookup else VECTOR_WEIGHT


def fuse(matches: Sequence[Match], weight: float) -> list[tuple[float, Match]]:
    """Matches with their scores fused, best first; equal ones by id, so that order is stable."""
    text = max((match.text_score for match in matches), default=0.0)
    vector = max((match.vector_score for match in matches), default=0.0)
    whole = (1.0 if text > 0 else 0.0) + (weight if vector > 0 else 0.0)
    scored = []
    for match in matches:
        score = match.text_score / text if text > 0 else 0.0
        if vector > 0:
            score += weight * max(match.vector_score, 0.0) / vector
        scored.append((score / whole if whole else 0.0, match))
    scored.sort(key=lambda one: (-one[0], one[1].id))
    return scored


def _marks(values: list[Any]) -> str:
    return ", ".join("?" * len(values))


def _hit(row: tuple[Any, ...], score: float, match: Match) -> Hit:
    id_, type_, time_ns, title, content, service, source, trust = row
    time = None
    if time_ns is not None:
        time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_ns // 1000)
    return Hit(
        id_, type_, title or "", content or "", round(score, 6), match.text_score,
        match.vector_score, time, service, source, trust,
    )  # fmt: skip
