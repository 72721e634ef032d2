"""Merging is a join: any order, any split, any repetition gives the same row."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.exporters.memories import MEMORY_SCHEMA
from engram.exporters.merge import (
    PRIORITISED,
    canonical_object,
    join_object,
    merge,
    merge_frame,
    split_object,
)

_WORD = st.sampled_from(["a", "b", "ab", "é"])
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | _WORD,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_WORD, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def rows(draw: st.DrawFn, id_: str = "m1") -> dict[str, Any]:
    """One row of a memory, in canonical form, as rules make them."""
    row: dict[str, Any] = dict.fromkeys(MEMORY_SCHEMA)
    row |= {"id": id_, "type": "ai_response", "time_unix_nano": draw(st.integers(0, 5))}
    row["end_time_unix_nano"] = draw(st.none() | st.integers(5, 9))
    row["importance"] = draw(st.none() | st.sampled_from([0.25, 0.5, 0.75]))
    row["tags"] = sorted(draw(st.sets(_WORD)))
    row["sources"] = sorted(draw(st.sets(st.integers(0, 2**64 - 1), max_size=3)))
    digits = ""
    for name in PRIORITISED:
        number = MEMORY_SCHEMA[name] == pl.Int64()
        row[name] = draw(st.none() | (st.integers(0, 3) if number else _WORD))
        digits += "0" if row[name] is None else draw(st.sampled_from("123456"))
    row["ranks"] = digits
    members = draw(st.dictionaries(_WORD, _JSON, max_size=3))
    row["attributes"] = join_object({k: json.dumps(v) for k, v in members.items()})
    return row


def frame(of: list[dict[str, Any]]) -> pl.DataFrame:
    """Rows as a frame of memories."""
    return pl.DataFrame(of, schema=MEMORY_SCHEMA)


@given(rows(), rows())
def test_commutative(a: dict[str, Any], b: dict[str, Any]) -> None:
    """The order of two rows does not matter."""
    assert merge([a, b]) == merge([b, a])


@given(rows(), rows(), rows())
def test_associative(a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]) -> None:
    """It does not matter which rows meet first."""
    assert merge([merge([a, b]), c]) == merge([a, merge([b, c])]) == merge([a, b, c])


@given(rows())
def test_idempotent(a: dict[str, Any]) -> None:
    """A row merged with itself is itself."""
    assert merge([a]) == a
    assert merge([a, a]) == a


@given(st.data())
def test_any_order_split_and_repetition(data: st.DataObject) -> None:
    """Frames folded batch by batch end as the frame folded at once."""
    all_rows = data.draw(
        st.lists(st.sampled_from(["m1", "m2", "m3"]).flatmap(rows), min_size=1, max_size=6)
    )
    sent = data.draw(st.permutations(all_rows)) + data.draw(st.permutations(all_rows))
    cut = data.draw(st.integers(0, len(sent)))
    halves = [merge_frame(frame(part)) for part in (sent[:cut], sent[cut:]) if part]
    by_batches = merge_frame(pl.concat(halves)).sort("id")
    at_once = merge_frame(frame(all_rows)).sort("id")
    assert by_batches.to_dicts() == at_once.to_dicts()


def test_frame_of_distinct_ids_is_untouched() -> None:
    """The fast path returns the very same frame."""
    row: dict[str, Any] = {"id": "a", "type": "t"}
    alone = frame([row, row | {"id": "b"}])
    assert merge_frame(alone) is alone


def test_the_better_record_speaks() -> None:
    """A field comes from the best-ranked record that has it, and its digit comes along."""
    span = dict.fromkeys(MEMORY_SCHEMA) | {
        "id": "x",
        "title": "z",
        "duration_ns": 5,
        "ranks": "1" + "0" * 8 + "1" + "0" * 8,
    }
    event = dict.fromkeys(MEMORY_SCHEMA) | {"id": "x", "title": "a", "ranks": "5" + "0" * 17}
    both = merge([span, event])
    assert (both["title"], both["duration_ns"]) == ("a", 5)
    assert both["ranks"] == "5" + "0" * 8 + "1" + "0" * 8


def test_rows_with_ingest_columns() -> None:
    """Columns beyond the schema merge to their largest."""
    assert merge([{"id": "x", "sequence": 3}, {"id": "x", "sequence": 7}])["sequence"] == 7


def test_values_keep_their_text() -> None:
    """Numbers and nested values of attributes come out as they went in; keys get in order."""
    text = '{"b": 1.0, "a":12345678901234567890, "c": {"y":1, "x":[2.50]}, "b": 2}'
    assert canonical_object(text) == '{"a":12345678901234567890,"b":2,"c":{"y":1, "x":[2.50]}}'
    assert canonical_object(None) == "{}"


@pytest.mark.parametrize("text", ["", "[1]", '{"a"', '{"a":}', "nonsense", '{"a":1 "b":2}'])
def test_no_json_object(text: str) -> None:
    """Text that is no object is kept under an empty key instead of failing."""
    assert split_object(text) == {"": json.dumps(text)}


def test_nothing_to_merge() -> None:
    """Merging no rows is a mistake of the caller."""
    with pytest.raises(ValueError, match="nothing"):
        merge([])
