"""Errors of the same cause: what makes them alike, and the filter over JSON lines."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.exporters.errors import BadRequest
from engram.learning import lab
from engram.learning.similar import SimilarTraces, Trace


def trace(id_: str, *functions: str, type_: str = "E", message: str = "") -> Trace:
    """A trace of frames `module.function`."""
    frames = tuple((one.rpartition(".")[0], one.rpartition(".")[2]) for one in functions)
    return Trace(id_, type_, message, frames)


def ids(known: SimilarTraces, one: Trace) -> list[str]:
    """What is found, best first."""
    return [id_ for id_, _ in known.search(one)]


def test_where_it_was_raised_counts_most_and_common_frames_least() -> None:
    """The innermost frame decides; the loop that is in every trace does not."""
    known = SimilarTraces()
    known.add(
        [
            trace("same", "pay.charge", "shop.order", "loop.run"),
            trace("other", "mail.send", "shop.order", "loop.run"),
            *(trace(f"n{n}", f"x{n}.y{n}", "loop.run") for n in range(8)),
        ]
    )
    query = trace("q", "pay.charge", "web.handle", "loop.run")
    assert ids(known, query)[0] == "same"
    scores = dict(known.search(query, 20))
    assert scores["same"] > 2 * scores["n0"]
    assert all(0 <= score <= 1 for score in scores.values())


def test_type_and_words_break_ties_and_numbers_do_not() -> None:
    """Equal frames: the one that says the same; lines and numbers in it do not matter."""
    known = SimilarTraces()
    known.add(
        [
            trace("a", "m.f", type_="KeyError", message="no user 17"),
            trace("b", "m.f", type_="ValueError", message="bad date"),
        ]
    )
    found = known.search(trace("q", "m.f", type_="KeyError", message="no user 99123"))
    assert found[0][0] == "a"
    assert found[0][1] == pytest.approx(1.0)
    assert found[1][1] < 0.9


def test_what_shares_nothing_is_not_found_and_nobody_finds_itself() -> None:
    """An honest nothing."""
    known = SimilarTraces()
    known.add([trace("a", "m.f", type_="A", message="disk full")])
    assert known.search(trace("q", "n.g", type_="B", message="bad date")) == []
    assert known.search(trace("a", "m.f", type_="A")) == []
    known.add([trace("a", "n.g", type_="B")])
    assert len(known) == 1
    assert ids(known, trace("q", "n.g", type_="B")) == ["a"]
    known.discard("a")
    assert known.search(trace("q", "n.g", type_="B")) == []


names = st.sampled_from(["a.f", "a.g", "b.f", "c.h"])
traces = st.lists(st.lists(names, max_size=4), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(traces, st.lists(names, max_size=4))
def test_likeness_is_bounded_and_order_does_not_matter(
    known: list[list[str]], query: list[str]
) -> None:
    """The same traces in another order, in one go or one by one, give the same answer."""
    made = [trace(f"t{at}", *frames) for at, frames in enumerate(known)]
    one, other = SimilarTraces(), SimilarTraces()
    one.add(made)
    for each in reversed(made):
        other.add([each])
    found = one.search(trace("q", *query))
    assert found == other.search(trace("q", *query))
    assert all(0 <= score <= 1 for _, score in found)
    for at, frames in enumerate(known):
        if frames == query and query:
            assert dict(found)[f"t{at}"] == pytest.approx(max(score for _, score in found))


def ask(*said: Any) -> list[Any]:
    """Answers of the filter."""
    out = io.BytesIO()
    lab.run("similar", io.BytesIO("\n".join(map(json.dumps, said)).encode()), out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_the_filter() -> None:
    """Scopes are kept apart; what it does not understand is an error with a word."""
    one = {"type": "E", "message": "", "frames": [["m", "f", "m.py"]]}
    answers = ask(
        {
            "op": "index",
            "traces": [{"id": "a", "scope": "s", **one}, {"id": "b", "scope": "t", **one}],
        },
        {"op": "search", "trace": {"id": "q", **one}, "scope": "s", "k": 5},
        {"op": "search", "trace": {"id": "q", **one}, "scope": "nowhere", "k": 5},
    )
    assert answers == [
        {"ok": True}, {"ids": ["a"], "scores": [pytest.approx(1 - 0.2 / 1.7 * 0.7, abs=1e-6)]},
        {"ids": [], "scores": []},
    ]  # fmt: skip
    for wrong in ({"op": "tea"}, {"op": "search"}, {"op": "index", "traces": [{"frames": 5}]}, 7):
        with pytest.raises(BadRequest):
            ask(wrong)
