"""Search: what is found, what is told, what is refused, and how good it is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.learning.lake import START, Lake, memory

from engram.exporters.embedding.codes import DIMS
from engram.exporters.embedding.static import StaticEmbedder
from engram.exporters.errors import BadRequest, NotFound
from engram.exporters.home import Home
from engram.exporters.index import STATE_FILE, table_dir
from engram.exporters.index_read import IndexReader, Match
from engram.exporters.words import Terms, asked
from engram.learning.indexer import Indexer
from engram.learning.search import Searcher, fuse, search, share, vector_weight

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home that was never used."""
    return Home(tmp_path / "home")


@pytest.fixture
def lake(home: Home) -> Iterator[Lake]:
    """Its lake."""
    lake = Lake(home)
    yield lake
    lake.close()


def index(home: Home) -> None:
    """Index all there is."""
    indexer = Indexer(home)
    while indexer.step():
        pass
    indexer.close()


def test_a_hit_tells_what_the_lake_says(home: Home, lake: Lake) -> None:
    """Title, content, time, service, source and trust come from the lake."""
    lake.commit(memory("a", "Checkout failed", "ConnectionRefusedError to the payment provider"))
    lake.commit(memory("b", "Nightly report", "all numbers are fine"))
    index(home)
    hit = search(home, "payment connection refused")[0]
    assert (hit.title, hit.content) == (
        "Checkout failed", "ConnectionRefusedError to the payment provider",
    )  # fmt: skip
    assert hit.time == datetime.fromtimestamp(START // 10**9, UTC)
    assert (hit.service, hit.source, hit.trust, hit.type) == (
        "shop", "span_event", "app", "system_error",
    )  # fmt: skip
    assert hit.score == 1
    assert hit.text_score > 0
    assert hit.vector_score > 0
    assert dataclasses.asdict(hit)["id"] == hit.id


def test_an_edited_memory_is_told_as_it_is_now(home: Home, lake: Lake) -> None:
    """Nothing is stored twice, so nothing is stale: even before the change is indexed."""
    lake.commit(memory("a", "banana", "old content"))
    index(home)
    lake.commit(memory("a", "banana", "new content"))
    assert [hit.content for hit in search(home, "banana")] == ["new content"]


def test_a_memory_that_left_the_lake_is_not_found(home: Home, lake: Lake) -> None:
    """The index alone makes no hit."""
    lake.commit(*(memory(f"m{n}", f"banana {n}") for n in range(30)))
    index(home)
    lake.db.execute("DELETE FROM lake.memories WHERE title != 'banana 7'")
    assert [hit.title for hit in search(home, "banana", limit=5)] == ["banana 7"]


def test_a_template_is_told_by_a_memory_of_it(home: Home, lake: Lake) -> None:
    """Its oldest, or when that has left, its newest."""
    lake.commit(
        *(memory(f"r{n}", f"GET /items took {n}ms", type="request_outcome", index_as="template",
                 time_unix_nano=START + n) for n in range(5))
    )  # fmt: skip
    index(home)
    assert [hit.title for hit in search(home, "items")] == ["GET /items took 0ms"]
    lake.db.execute("DELETE FROM lake.memories WHERE title = 'GET /items took 0ms'")
    assert [hit.title for hit in search(home, "items")] == ["GET /items took 4ms"]


def test_filters_narrow_the_search(home: Home, lake: Lake) -> None:
    """By type, service, user, session and time."""
    lake.commit(
        *(memory(f"n{n}", "disk full") for n in range(60)),
        memory("x", "disk nearly full", type="ui_error", service_name="web", user_id="u1",
               session_id="s1", time_unix_nano=START + 100),
    )  # fmt: skip
    index(home)
    with_searcher = Searcher(home)
    for hits in (
        with_searcher.search("disk full", types=["ui_error"]),
        with_searcher.search("disk full", service="web"),
        with_searcher.search("disk full", user_id="u1"),
        with_searcher.search("disk full", session_id="s1"),
        with_searcher.search("disk full", since_ns=START + 1),
    ):
        assert [hit.title for hit in hits] == ["disk nearly full"]
    assert len(with_searcher.search("disk full", limit=20)) == 20
    assert with_searcher.search("disk full", types=[]) == []
    with_searcher.close()


def request(key: str, ms: int, **more: Any) -> dict[str, Any]:
    """A memory of a volume type: its template is shared."""
    return memory(key, f"GET /items took {ms}ms", type="request_outcome", index_as="template",
                  **more)  # fmt: skip


def test_filters_hold_for_the_memories_of_a_template(home: Home, lake: Lake) -> None:
    """One row stands for all of them; the one told passes the filter: the newest that does."""
    lake.commit(
        request("r0", 1, user_id="u1", session_id="s1", time_unix_nano=START, importance=0.2),
        request("r1", 2, user_id="u2", session_id="s2", time_unix_nano=START + 10, importance=0.9),
        request("r2", 3, user_id="u2", session_id="s3", time_unix_nano=START + 20, importance=0.4),
        memory("b", "GET /items is slow", "nothing else", user_id="u3"),
        request("x", 9, service_name="mail", user_id="u9"),
    )
    index(home)
    searcher = Searcher(home)

    def titles(**filters: Any) -> list[str]:
        return [hit.title for hit in searcher.search("GET items took", **filters)]

    assert titles(user_id="u1") == ["GET /items took 1ms"]
    assert titles(user_id="u2") == ["GET /items took 3ms"]
    assert titles(user_id="u2", until_ns=START + 20) == ["GET /items took 2ms"]
    assert titles(session_id="s2") == ["GET /items took 2ms"]
    assert titles(since_ns=START + 11) == ["GET /items took 3ms"]
    assert titles(min_importance=0.5) == ["GET /items took 2ms"]
    assert titles(min_importance=0.95) == []
    assert titles(user_id="u3") == ["GET /items is slow"]
    assert titles(user_id="u9", service="shop") == []
    assert titles(types=["request_outcome"], service="shop") == ["GET /items took 1ms"]
    searcher.close()


def test_templates_do_not_push_out_what_passes(home: Home, lake: Lake) -> None:
    """Of a hundred templates that fit better, none is this user's; the user's own memory is."""
    names = [f"{a}{b}" for a in "abcdefghij" for b in "klmnopqrst"]
    lake.commit(
        *(memory(n, f"disk full {n}", type="request_outcome", index_as="template", user_id="u1")
          for n in names),
        memory("x", "the disk of the mail server was nearly full", user_id="u2"),
    )  # fmt: skip
    index(home)
    assert len(search(home, "disk full", limit=200)) == 101
    hits = search(home, "disk full", user_id="u2")
    assert [hit.title for hit in hits] == ["the disk of the mail server was nearly full"]


def test_a_filter_holds_for_what_the_lake_says_now(home: Home, lake: Lake) -> None:
    """A memory that was merged since it was indexed, and passes no longer, is not told."""
    lake.commit(memory("a", "disk full", user_id="u1"))
    index(home)
    lake.commit(memory("a", "disk full", user_id="u2"))
    assert search(home, "disk full", user_id="u1") == []


def test_identifiers_are_found_by_parts_and_outrank_as_wholes(home: Home, lake: Lake) -> None:
    """camelCase, snake_case, dotted paths and routes."""
    lake.commit(
        memory("a", "ConnectionTimeoutError in the pool"),
        memory("b", "connection error, then a timeout error in the pool"),
        memory("c", "app.billing.max_retries was set to 5"),
        memory("d", "billing app: retries at the max"),
        memory("e", "GET /api/v1/orders answered 500"),
        memory("f", "orders v1 of the api"),
    )
    index(home)
    for query, best, other in (
        ("ConnectionTimeoutError", "a", "b"), ("connectiontimeouterror", "a", None),
        ("connection timeout", "a", "b"), ("app.billing.max_retries", "c", "d"),
        ("max_retries", "c", "d"), ("/api/v1/orders", "e", "f"),
    ):  # fmt: skip
        found = [hit.id for hit in search(home, query) if hit.text_score]
        assert memory(best, "")["id"] in found
        if other:
            assert memory(other, "")["id"] in found
        if query != "connection timeout":
            assert found[0] == memory(best, "")["id"], query


def test_an_answer_says_why(home: Home, lake: Lake) -> None:
    """Words, their matches, both scores, their weights, the filters; parts add up to the score."""
    lake.commit(
        memory("a", "ConnectionTimeoutError while paying"),
        memory("b", "paying twice"),
        memory("c", "the invoice was paid"),
    )
    index(home)
    searcher = Searcher(home)
    answer = searcher.answer("paying connections timed out", service="shop", min_importance=0.0)
    why, best = answer.explanation, answer.hits[0]
    assert (why.mode, answer.note) == ("hybrid", "")
    assert {"connect", "pay"} <= set(why.words)
    assert why.filters == {"service": "shop", "min_importance": 0.0}
    assert why.text_weight == pytest.approx((2 / 3) ** 2, abs=1e-4)
    assert why.vector_weight == 1
    assert best.title == "ConnectionTimeoutError while paying"
    assert best.matched == ("connect", "pay")
    for hit in answer.hits:
        assert hit.score == pytest.approx(hit.text_part + hit.vector_part, abs=2e-6)
        assert set(hit.matched) <= set(why.words)
    searcher.close()


def test_nothing_relevant_is_nothing(home: Home, lake: Lake) -> None:
    """Neither words nor meaning: no hit, instead of the least bad one."""
    lake.commit(memory("a", "database refused the connection"), memory("b", "disk full on web-1"))
    index(home)
    searcher = Searcher(home)
    assert searcher.search("recipe for lentil soup") == []
    answer = searcher.answer("recipe for a full lentil soup")  # one word of four
    assert answer.hits == []
    assert answer.explanation.candidates > 0
    assert answer.explanation.irrelevant > 0
    assert answer.explanation.least_cosine > 0.1
    assert searcher.search("storage has no space left")[0].title == "disk full on web-1"
    searcher.close()


def test_among_many_memories_likeness_must_be_more_than_chance(home: Home, lake: Lake) -> None:
    """Counted are those that pass the filter; with `fill` few are assumed."""
    many = [
        memory(f"m{n}", f"text {n:b} of {n * 7919 % 1009}", service_name="one" if n < 5 else "many")
        for n in range(1_200)
    ]
    lake.commit(*many)
    index(home)
    searcher = Searcher(home)

    def least(**more: Any) -> float:
        return searcher.answer("recipe for lentil soup", **more).explanation.least_cosine

    assert least() > least(service="one") == least(fill=True)
    searcher.close()


def test_a_model_that_cannot_be_loaded_leaves_the_words(
    home: Home, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Search goes on by text alone, and says so and why."""
    lake.commit(memory("a", "disk full"), memory("b", "queue stuck"))
    index(home)
    state = table_dir(home) / STATE_FILE
    whole = json.loads(state.read_text())
    state.write_text(json.dumps(whole | {"model": "/no/such/model"}))
    searcher = Searcher(home)
    answer = searcher.answer("disk")
    assert [hit.title for hit in answer.hits] == ["disk full"]
    assert answer.explanation.mode == "text"
    assert "words only" in answer.note
    assert "/no/such/model" in answer.note
    state.write_text(json.dumps(whole | {"identity": "other" + whole["identity"]}))
    searcher.close()
    answer = searcher.answer("disk")
    assert answer.explanation.mode == "text"
    assert "engram reindex" in answer.note
    searcher.close()


@pytest.mark.parametrize("query", ["", "   ", "\n\t"])
def test_an_empty_query_is_refused(home: Home, query: str) -> None:
    """Clearly, before anything is opened."""
    with pytest.raises(BadRequest, match="empty"):
        search(home, query)


def test_a_limit_of_nothing_is_refused(home: Home) -> None:
    """Clearly."""
    with pytest.raises(BadRequest, match="limit"):
        search(home, "banana", limit=0)


def test_no_index_says_how_to_make_one(home: Home, lake: Lake) -> None:
    """Before `learn` has run."""
    with pytest.raises(NotFound, match="engram learn"):
        search(home, "banana")


def test_an_id_beats_what_only_sounds_alike(home: Home, lake: Lake) -> None:
    """A short query with a digit is a lookup."""
    lake.commit(
        memory("a", "the order was cancelled by the customer"),
        memory("b", "shipment note", "packed with order-4711x on a rainy day by somebody new"),
        memory("c", "orders and order lines"),
    )
    index(home)
    assert search(home, "order 4711x")[0].title == "shipment note"
    assert vector_weight(asked("order 4711x")) < vector_weight(asked("order"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    """A searcher over a few memories."""
    home = Home(tmp_path_factory.mktemp("small") / "home")
    lake = Lake(home)
    lake.commit(memory("a", "disk full"), memory("b", 'say "hello" AND goodbye'))
    index(home)
    lake.close()
    searcher = Searcher(home)
    yield searcher
    searcher.close()


@pytest.mark.parametrize(
    "query",
    ['"', "'", "AND", "OR NOT", "disk AND", "(disk", "disk)", "title:disk", "disk~2", "disk*", "*",
     "?", "+-!{}[]^\\/:", "disk\0full", "\ud800", "the of", "x" * 10_000, "disk' OR 1=1 --",
     "数据库", "🙂", "1" * 300],
)  # fmt: skip
def test_no_text_is_a_syntax_error(small: Searcher, query: str) -> None:
    """Characters that mean something to some search engine mean nothing here."""
    small.search(query)
    small.search("disk", service=query, types=[query], user_id=query)


@given(st.text(min_size=1).filter(str.strip))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_text_can_be_searched(small: Searcher, query: str) -> None:
    """Whatever people type."""
    small.search(query)


def test_a_searcher_survives_a_rebuilt_index(home: Home, lake: Lake) -> None:
    """Deleting the index and indexing again gives the same answers to an open searcher."""
    import shutil

    lake.commit(*(memory(f"m{n}", f"banana number {n}", f"text {n % 7}") for n in range(50)))
    index(home)
    searcher = Searcher(home)
    before = searcher.search("banana number 3 text", limit=20)
    shutil.rmtree(home.index)
    index(home)
    after = searcher.search("banana number 3 text", limit=20)
    assert before == after
    searcher.close()
    assert searcher.search("banana number 3 text", limit=20) == before
    searcher.close()


def test_fusing_nothing_is_nothing() -> None:
    """And one-sided results keep their order."""
    assert fuse([], 1.0, 1.0) == []
    only_text = [Match("a", "a", None, 1.0, 0.0), Match("b", "b", None, 2.0, 0.0)]
    assert [match.id for _, _, match in fuse(only_text, 1.0, 1.0)] == ["b", "a"]
    only_vector = [Match("a", "a", None, 0.0, 0.1), Match("b", "b", None, 0.0, 0.2)]
    fused = fuse(only_vector, 0.0, 1.0)
    assert [match.id for _, _, match in fused] == ["b", "a"]
    assert [score for _, score, _ in fused] == pytest.approx([1.0, 0.5])


# -- the quality gate ------------------------------------------------------------------------------

FLOORS = {"ops": (0.62, 0.68), "ops_fix": (0.41, 0.43), "ops_ask": (0.60, 0.64)}
"""MRR that vectors alone and the hybrid must reach (measured:
.647 / .432 / .621 and .698 / .443 / .660).
Sixty queries each: one query that falls from first to second place costs .008."""


@pytest.mark.parametrize("name", list(FLOORS))
def test_search_is_good_enough(home: Home, lake: Lake, name: str) -> None:
    """On errors, fixes and questions, hybrid is no worse than the better of words and vectors."""
    data = json.loads((DATA / f"{name}.json").read_text())
    places = {memory(str(n), "")["id"]: n for n in range(len(data["docs"]))}
    lake.commit(*(memory(str(n), text[:60], text) for n, text in enumerate(data["docs"])))
    index(home)
    embedder = StaticEmbedder(DIMS)
    reader = IndexReader(home, embedder.embedder_id)

    def text_weight(wanted: Terms, matches: list[Match]) -> float:
        best = max(matches, key=lambda match: (match.text_score, match.id))
        return share(wanted, reader.words([best.place])[best.place]) ** 2

    def mrr(score: Callable[[str, list[Match]], list[tuple[float, Match]]]) -> float:
        total = 0.0
        for query in data["queries"]:
            matches = reader.matches(
                list(asked(query["text"])), embedder.embed([query["text"]])[0], 50
            )
            ranked = [
                places[match.id]
                for value, match in sorted(
                    score(query["text"], matches), key=lambda one: (-one[0], one[1].id)
                )
                if value > 0
            ]
            first = min((ranked.index(p) for p in query["positives"] if p in ranked), default=None)
            total += 0 if first is None else 1 / (1 + first)
        return total / len(data["queries"])

    text = mrr(lambda _, matches: [(match.text_score, match) for match in matches])
    vector = mrr(lambda _, matches: [(match.vector_score, match) for match in matches])
    hybrid = mrr(
        lambda query, matches: [
            (by_text + by_vector, match)
            for by_text, by_vector, match in fuse(
                matches, text_weight(asked(query), matches), vector_weight(asked(query))
            )
        ]
    )
    assert hybrid >= max(text, vector), f"text {text:.3f}, vector {vector:.3f}, hybrid {hybrid:.3f}"
    vector_floor, hybrid_floor = FLOORS[name]
    assert vector >= vector_floor
    assert hybrid >= hybrid_floor
