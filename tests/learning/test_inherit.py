"""What a memory inherits only grows with its trace, so the order of arrival cannot matter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engram.learning.inherit import (
    ABOVE,
    NOTHING,
    ONLY,
    ROOT,
    UNDECIDED,
    Found,
    Place,
    Trace,
    Values,
    inherit,
    news,
)

_VALUE = st.none() | st.sampled_from(["u1", "u2", "u3"])


def trace_of(places: list[Place]) -> Trace:
    """What the query over the lake says of these spans."""

    def over(of: list[Place], best: str) -> Values:
        found = []
        for i in range(3):
            said = sorted(value for place in of if (value := place.values[i]) is not None)
            found.append((said[0] if best == "least" else said[-1]) if said else None)
        return found[0], found[1], found[2]

    roots = [place for place in places if place.parent_span_id is None]
    return Trace(over(places, "least"), over(places, "greatest"), over(roots, "greatest"))


@st.composite
def traces(draw: st.DrawFn) -> list[Place]:
    """A tree of spans; the memory is of span 0's last child."""
    size = draw(st.integers(1, 6))
    return [
        Place(
            str(i), str(draw(st.integers(0, i - 1))) if i else None,
            (draw(_VALUE), draw(_VALUE), draw(_VALUE)),
        )
        for i in range(size)
    ]  # fmt: skip


@given(traces(), st.data())
def test_more_of_a_trace_never_takes_back(whole: list[Place], data: st.DataObject) -> None:
    """What part of a trace says is outranked by, or is, what all of it says."""
    span_id = data.draw(st.sampled_from(whole)).span_id
    part = [place for place in whole if data.draw(st.booleans())]
    early = inherit(trace_of(part), span_id, part)
    late = inherit(trace_of(whole), span_id, whole)
    for at in range(3):
        if (before := early.values[at]) is not None:
            after = late.values[at]
            assert after is not None
            assert (early.certainty[at], before) <= (late.certainty[at], after)
    ranks = "".join(one or "0" for one in late.certainty)
    assert news(early, late.values, ranks) is None, "and it is no news"


def test_who_is_believed() -> None:
    """The only one; else the nearest above; else the root's; else none."""
    root, middle, child, beside = (
        Place("1", None, ("u1", None, None)), Place("2", "1", NOTHING),
        Place("3", "2", NOTHING), Place("4", "1", ("u2", None, None)),
    )  # fmt: skip

    def user(*places: Place) -> tuple[str | None, str]:
        found = inherit(trace_of([*places]), "3", places)
        return found.values[0], found.certainty[0]

    assert user(child, middle) == (None, "")
    assert user(child, beside) == ("u2", ONLY)
    assert user(child, beside, root) == ("u1", ROOT)
    assert user(child, beside, root, middle) == ("u1", ABOVE)
    assert user(child, beside, Place("5", "1", ("u3", None, None))) == ("", UNDECIDED)


def test_a_circle_of_parents_ends() -> None:
    """Spans that are each other's parents say nothing, and take no time."""
    places = [Place("1", "2", NOTHING), Place("2", "1", NOTHING), Place("9", "8", ("u1", "", "")),
              Place("8", "9", ("u2", None, None))]  # fmt: skip
    assert inherit(trace_of(places), "1", places).values[0] == ""


def test_news() -> None:
    """Only what is better than what is known; a record's own word always is."""
    found = Found(("u1", "s1", None), (ONLY, ABOVE, ""))
    assert news(found, NOTHING, "000") == found
    assert news(found, ("u9", "s9", None), "130") is None
    assert news(found, ("u0", "s1", None), "-00") == Found(("u1", None, None), (ONLY, "", ""))
