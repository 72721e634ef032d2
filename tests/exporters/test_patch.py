"""Patches: rows that only fill what a memory's records left empty."""

from __future__ import annotations

from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from tests.exporters.test_merge import rows

from engram.exporters import own
from engram.exporters.memories import MEMORY_SCHEMA
from engram.exporters.merge import PRIORITISED, merge
from engram.exporters.rules.patch import fill, is_patch, patches

_ID = "ab" * 12


def found(**of: Any) -> pl.DataFrame:
    """What the rule for enrichments puts out, for one record."""
    row = {
        "=into": _ID, "=certainty": "-./", "user_id": "u1", "session_id": "s1",
        "conversation_id": None,
    } | of  # fmt: skip
    return pl.DataFrame([row], schema=dict.fromkeys(row, pl.String()))


@st.composite
def patch(draw: st.DrawFn) -> dict[str, Any]:
    """Any patch of the memory `m1`."""
    sure = "".join(draw(st.sampled_from(own.INFERRED)) for _ in own.INHERITED)
    values = {name: draw(st.none() | st.sampled_from(["a", "b"])) for name in own.INHERITED}
    (row,) = patches(found(**values, **{"=certainty": sure})).to_dicts()
    return dict(row) | {"id": "m1"}


@given(rows(), patch(), patch())
def test_filling_is_merging(memory: dict[str, Any], a: dict[str, Any], b: dict[str, Any]) -> None:
    """The short way of the writer makes what the join makes, in any order, and only changes."""

    def filled(row: dict[str, Any], by: dict[str, Any]) -> dict[str, Any]:
        frame = pl.DataFrame([row, row | {"id": "m2"}], schema=MEMORY_SCHEMA)
        changed = fill(frame, pl.DataFrame([by], schema=MEMORY_SCHEMA)).to_dicts()
        assert changed != [row], "what does not change is left out"
        return dict(changed[0]) if changed else row

    memory = pl.DataFrame([memory], schema=MEMORY_SCHEMA).to_dicts()[0]
    assert filled(memory, a) == merge([memory, a]) == merge([a, memory])
    assert filled(filled(memory, a), b) == filled(filled(memory, b), a)
    assert filled(filled(memory, a), b) == merge([merge([a, b]), memory])


def test_one_record_for_several_memories() -> None:
    """Each id gets a row of the memories' schema, known as a patch, with nothing but its values."""
    other = "cd" * 12
    made = patches(found(**{"=into": f"{_ID} {other}"}))
    assert made.schema == MEMORY_SCHEMA
    assert is_patch(made).all()
    first, second = made.to_dicts()
    assert (first["id"], second["id"]) == (_ID, other)
    assert {name: value for name, value in first.items() if value} == {
        "id": _ID, "user_id": "u1", "attributes": "{}",
        "ranks": "000-.0" + "0" * (len(PRIORITISED) - 6),
    }  # fmt: skip
    assert first["session_id"] == "", "undecided: nobody's"


def test_nonsense_makes_nothing() -> None:
    """Ids that are none and certainties that do not exist are left out."""
    for of in ({"=into": None}, {"=into": "x " + "AB" * 12}, {"=certainty": "--"},
               {"=certainty": "199"}, {"=certainty": None}):  # fmt: skip
        assert not patches(found(**of)).height
