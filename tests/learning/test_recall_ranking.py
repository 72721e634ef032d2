"""What decides the order besides relevance, what is folded, and what is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.learning.lake import START, Lake, memory

from engram.exporters.home import Home
from engram.learning.indexer import Indexer
from engram.learning.recall import Recall, Scope
from engram.learning.recall.folding import equal
from engram.learning.recall.items import Item
from engram.learning.recall.ranking import MOST, Parts, outcome, recency, wilson

DAY = 86_400 * 10**9
NOW = START + 400 * DAY
NUMBERS = [
    f"{ten}{one}" for ten in ("twenty", "thirty") for one in
    ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
]  # fmt: skip

Build = Callable[..., Recall]


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    """Memories into a home, and its recall at `NOW`."""
    made: list[Any] = []

    def build(*memories: dict[str, Any]) -> Recall:
        home = Home(tmp_path / f"home{len(made)}")
        lake = Lake(home)
        lake.commit(*memories)
        indexer = Indexer(home)
        while indexer.step():
            pass
        indexer.close()
        recall = Recall(home, clock=lambda: NOW)
        made.extend((lake, recall))
        return recall

    yield build
    for one in made:
        one.close()


def titles(recall: Recall, query: str, **more: Any) -> list[str]:
    """The titles of an answer."""
    return [one.title for one in recall.search(query, **more).items]


def test_of_equally_relevant_memories_the_newer_comes_first(build: Build) -> None:
    """And the parts of its score are told."""
    old, new = (
        memory(f"k{at}", f"The invoice service answers slowly, seen by {who}",
               type="ai_insight", time_unix_nano=at)
        for at, who in ((START, "Anna"), (NOW - DAY, "Otto"))
    )  # fmt: skip
    recall = build(old, new)
    found = recall.search("invoice service answers slowly", explain=True).items
    assert [one.title[-4:] for one in found] == ["Otto", "Anna"]
    why = found[0].why
    assert why["recency"] > 0.9 > 0.1 > found[1].why["recency"]
    assert 0 < why["factor"] <= 1
    assert found[0].score == pytest.approx(why["relevance"] * why["factor"], abs=2e-4)
    assert {"text", "vector", "importance", "outcome", "matched"} <= why.keys()


def test_nothing_lifts_what_hardly_answers_above_what_answers_exactly(build: Build) -> None:
    """The exact one is old, unimportant and failed; the other is new, important and worked."""
    exact = memory(
        "e", "Deadlock in table orders while the nightly export runs", type="business_decision",
        time_unix_nano=1, importance=0.0, outcome="error",
    )  # fmt: skip
    other = memory(
        "o", "The nightly backup was moved to another disk", type="business_decision",
        time_unix_nano=NOW, importance=1.0, outcome="ok",
        attributes=json.dumps({"tried": 500, "worked": 500}),
    )  # fmt: skip
    recall = build(exact, other)
    assert (
        titles(recall, "deadlock in table orders while the nightly export runs")[0]
        == (exact["title"])
    )


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_factors_are_bounded(a: float, b: float, c: float) -> None:
    """By a quarter in all."""
    assert MOST <= 1.25
    assert 1 / MOST <= Parts(a, b, c).factor <= 1 + 1e-9


def test_decisions_and_solutions_do_not_age_and_no_time_is_no_blame() -> None:
    """Chatter does."""
    for lasting in ("business_decision", "error_solution", "user_preference", "diet_preference"):
        assert recency(lasting, START, NOW) == 1
    assert recency("page_view", START, NOW) < recency("system_error", START, NOW) < 0.001
    assert recency("page_view", START, NOW) < recency("ai_insight", START, NOW) < 0.02
    assert recency("system_error", None, NOW) == 1
    assert recency("system_error", NOW + DAY, NOW) == 1


def test_outcomes_count_by_their_interval() -> None:
    """Four of five is more than one of one, and one failure is not much."""

    def solution(meta: dict[str, Any], came_to: str | None = None, trust: str = "engram") -> float:
        return outcome(
            Item(id="i", memory_type="error_solution", title="", content="", meta_data=meta,
                 outcome=came_to, trust=trust)
        )  # fmt: skip

    assert solution({}) == 0.5
    assert 0.5 < solution({}, "ok") < solution({"tried": 5, "worked": 5}) < 0.9
    assert solution({"tried": 20, "worked": 1}) < solution({}, "error") < 0.5
    assert solution({"tried": "many", "worked": True}) == 0.5
    praise = {"tried": 1_000, "worked": 1_000}
    assert solution(praise, trust="app") == solution({}, "ok") < solution(praise)
    share, low, high = wilson(8, 10)
    assert (round(share, 2), round(low, 3), round(high, 3)) == (0.8, 0.490, 0.943)


def test_a_proven_solution_comes_before_one_that_fails(build: Build) -> None:
    """Of equal words; the factor of the outcome is told."""
    bad, good = (
        memory(key, f"Fix for PoolTimeout: {words} the connection pool", type="error_solution",
               source="mark", attributes=json.dumps({"tried": 9, "worked": worked}))
        for key, words, worked in (("a", "enlarge", 0), ("b", "drain", 9))
    )  # fmt: skip
    recall = build(bad, good)
    assert "drain" in titles(recall, "fix for PoolTimeout connection pool")[0]


def test_repetitions_are_one_item_with_a_count(build: Build) -> None:
    """Of a thousand lines one is shown, with its times; what else is relevant has room."""
    noise = [
        memory(f"n{n}", f"Timeout of payment {n} after {n * 3} ms", type="system_error",
               time_unix_nano=START + n)
        for n in range(300)
    ]  # fmt: skip
    other = memory("o", "Timeout of a payment: the provider was asked twice", type="ai_insight")
    recall = build(*noise, other)
    found = recall.search("timeout of payment", limit=5).items
    assert {one.title.split(":")[0] for one in found} >= {"Timeout of a payment"}
    errors = [one for one in found if one.memory_type == "system_error"]
    (error,) = errors
    assert error.count == 300
    assert error.title.startswith("Timeout of payment 299 ")
    assert error.first_seen is not None
    assert error.last_seen is not None
    assert error.first_seen <= error.last_seen
    assert len(recall.search("timeout of payment", limit=5, fold=False).items) == 5


def test_scopes_are_not_folded_together(build: Build) -> None:
    """Nor counted: another user's is another user's."""
    recall = build(
        *(memory(f"{user}{n}", "My card was declined", type="user_interaction", user_id=user)
          for user in ("u1", "u2") for n in range(3))
    )  # fmt: skip
    assert [one.count for one in recall.search("card declined").items] == [3, 3]
    (mine,) = recall.search("card declined", scope=Scope(user_id="u1")).items
    assert (mine.count, mine.user_id) == (3, "u1")


def test_contradictions_stay_side_by_side(build: Build) -> None:
    """A number or a `not` apart is another statement, where somebody said it."""
    said = ("The limit of an upload is 5 MB", "The limit of an upload is 7 MB",
            "The limit of an upload is not 5 MB", "the limit of an upload is 5 MB.")  # fmt: skip
    recall = build(*(memory(f"m{n}", text, type="ai_insight") for n, text in enumerate(said)))
    found = recall.search("limit of an upload").items
    assert {one.title.casefold().rstrip(".") for one in found} == {
        one.casefold().rstrip(".") for one in said
    }
    assert sorted(one.count for one in found) == [1, 1, 2]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("GET /orders/17 failed after 31 ms", "GET /orders/99 failed after 7 ms", True),
        ("connection refused by the database", "permission denied by the database", False),
        (" ".join(NUMBERS), " ".join([*NUMBERS[:19], "many"]), True),
        ("", "", True),
        ("x", "", False),
    ],
)
def test_telemetry_is_equal_when_it_is_nearly_so(one: str, other: str, same: bool) -> None:
    """By masked text and by triples of words."""
    a, b = (
        Item(id=text, memory_type="system_event", title=text, content=text) for text in (one, other)
    )
    assert equal(a, b) is same
    assert equal(b, a) is same


def test_what_was_said_is_equal_only_in_the_same_words() -> None:
    """Signs, numbers and order matter; case, punctuation and articles do not."""

    def insight(text: str) -> Item:
        return Item(id=text, memory_type="ai_insight", title=text, content="")

    assert equal(insight("The retry helped."), insight("the retry  helped"))
    for one, other in (("A beats B", "B beats A"), ("x > 5", "x < 5"), ("it is", "it is not")):
        assert not equal(insight(one), insight(other))


def test_tags_are_a_filter_before_the_search(build: Build) -> None:
    """One memory of many that say the same is found by its tags; all tags must hold."""
    recall = build(
        *(memory(f"m{n}", f"disk {name} full", type="ai_insight", tags=["ops"])
          for n, name in enumerate(NUMBERS * 20)),
        memory("x", "disk nearly full", type="ai_insight", tags=["ops", "rare"]),
    )  # fmt: skip
    assert titles(recall, "disk full", tags=["rare"]) == ["disk nearly full"]
    assert titles(recall, "disk full", tags=["rare", "ops"]) == ["disk nearly full"]
    assert titles(recall, "disk full", tags=["rare", "none"]) == []
    assert len(titles(recall, "disk full", tags=["ops"], limit=15)) == 15
