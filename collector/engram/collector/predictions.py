"""`engram predictions`: the open ones, how the last ones turned out, how good each kind is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from engram.learning.jobs.predictions.record import Record

if TYPE_CHECKING:
    import duckdb
    import polars as pl

_LAST: Final = 20
"""Outcomes that are shown."""


def told(lake: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """What is recorded of predictions."""

    def read(sql: str, values: Sequence[Any] = ()) -> pl.DataFrame:
        frame: pl.DataFrame = lake.execute(sql, list(values)).pl()
        return frame

    record = Record.read(read, 1 << 62)
    titles = {one.id: one.title for one in record.made}
    return {
        "open": [
            {"id": one.id, "title": one.title, "kind": one.kind, "service": one.service or None,
             "probability": one.probability, "made": _when(one.as_of),
             "deadline": _when(one.deadline), "muted": one.muted}
            for one in sorted(record.open, key=lambda one: (one.deadline, one.id))
        ],
        "scored": [
            {"prediction": one.prediction, "verdict": one.verdict, "kind": one.kind,
             "time": _when(one.time), "title": titles.get(one.prediction)}
            for one in record.scored[: -_LAST - 1 : -1]
        ],
        "kinds": [
            {name: one for name, one in asdict(standing).items() if name != "lately"}
            | {"hit_rate": standing.rate, "muted": standing.muted}
            for standing in record.standings()
        ],
    }  # fmt: skip


def lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """For people to read."""
    for one in facts["open"]:
        muted = ", muted" if one["muted"] else ""
        yield f"open     {one['title']}, until {one['deadline']}{muted}"
    for one in facts["scored"]:
        yield f"{one['verdict']:8} {one['title'] or one['prediction']}, {one['time']}"
    for one in facts["kinds"]:
        n = one["hits"] + one["misses"]
        rate = "-" if one["hit_rate"] is None else f"{100 * one['hit_rate']:.0f} %"
        brier = "-" if one["brier"] is None else f"{one['brier']:.3f}"
        muted = ", muted" if one["muted"] else ""
        yield (
            f"{one['kind']}: {rate} of {n} came true, Brier {brier}, "
            f"{one['expired']} could not be judged{muted}"
        )
    if not any(facts.values()):
        yield "nothing was predicted yet"


def _when(moment: int) -> str:
    return datetime.fromtimestamp(moment / 1e9, UTC).strftime("%Y-%m-%d %H:%M UTC")


__all__ = ["lines", "told"]
