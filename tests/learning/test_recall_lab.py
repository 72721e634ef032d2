"""`engram lab recall`: the engine as a filter, for anyone to score."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from engram.exporters.errors import BadRequest
from engram.learning import lab
from engram.learning.recall.trial import _time


def answers(*said: dict[str, Any]) -> list[dict[str, Any]]:
    """What comes out."""
    lines = "".join(json.dumps(one) + "\n" for one in said)
    target = io.BytesIO()
    lab.run("recall", io.BytesIO(lines.encode()), target)
    return [json.loads(line) for line in target.getvalue().splitlines()]


def test_what_is_indexed_is_found_in_its_scope() -> None:
    """A document of a known id takes the place of the old one; nothing relevant is no id."""
    docs = [
        {"id": "a", "text": "Anna lives in Paris", "scope": "one", "ts": "2024-01-02"},
        {"id": "b", "text": "Otto plays the violin", "scope": "one", "ts": 1.7e9},
        {"id": "a", "text": "Anna lives in Rome", "scope": "two"},
    ]
    found = answers(
        {"op": "index", "docs": docs},
        {"op": "search", "text": "who plays the violin", "k": 5, "scope": "one"},
        {"op": "search", "text": "who plays the violin", "k": 5, "scope": "two"},
        {"op": "search", "text": "where does Anna live", "k": 5},
        {"op": "search", "text": "", "k": 5},
        {"op": "index", "docs": [{"id": "b", "text": "Otto sold it", "scope": "one"}]},
        {"op": "search", "text": "who plays the violin", "k": 5, "scope": "one"},
    )
    assert [one.get("ids") for one in found] == [
        None, ["b", "a"], [], ["a", "a", "b"], [], None, [],
    ]  # fmt: skip
    assert found[0] == {"ok": True}
    assert found[3]["scores"] == sorted(found[3]["scores"], reverse=True)
    assert all(0 < score <= 1 for score in found[3]["scores"])


def test_what_it_does_not_take_is_refused() -> None:
    """With words."""
    with pytest.raises(BadRequest, match="op must be"):
        answers({"op": "forget"})
    with pytest.raises(BadRequest, match="a document is"):
        answers({"op": "index", "docs": [{"id": "a"}]})


def test_times_of_any_unit_are_understood() -> None:
    """Seconds to nanoseconds, and ISO 8601."""
    wanted = 1_704_153_600 * 10**9
    for given in (1_704_153_600, 1_704_153_600_000.0, wanted, "2024-01-02", "1704153600",
                  "2024-01-02T01:00:00+01:00"):  # fmt: skip
        assert _time(given) == wanted
    unknown: tuple[object, ...] = (None, "yesterday", -1, True, float("nan"))
    for one in unknown:
        assert _time(one) is None
