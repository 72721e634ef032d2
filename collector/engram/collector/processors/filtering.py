"""The `filter` processor: drops what meets any of an operator's conditions."""

from __future__ import annotations

from typing import Any

from engram.collector.ottl import Condition, Row, compile_condition
from engram.collector.ottl.rows import inside
from engram.exporters.signals import Signal

from .settings import Filter
from .stage import Errors, Stage, points, prune

_PARTS = {Signal.TRACES: "spanevent", Signal.METRICS: "datapoint"}
"""What a record consists of that can be dropped by itself."""

_OWN = frozenset({"span", "log", "metric"})


def filtering(settings: Filter) -> Stage:
    """The stage of a `filter` processor."""
    found: dict[tuple[Signal, str], list[Condition]] = {}
    for signal, context, _, text in settings.conditions():
        found.setdefault((signal, context), []).append(compile_condition(text, context))
    errors = Errors(settings.error_mode)

    def any_of(conditions: list[Condition], row: Row) -> bool:
        return any(errors.holds(condition, row) for condition in conditions)

    def run(signal: Signal, request: Any) -> int:
        whole = found.get((signal, "resource"), [])
        own = [
            one for (of, name), many in found.items() if of is signal and name in _OWN
            for one in many
        ]  # fmt: skip
        part = _PARTS.get(signal, "")
        parts = found.get((signal, part), [])
        if not whole and not own and not parts:
            return 0
        lost = 0

        def drop(row: Row) -> int | None:
            nonlocal lost
            if any_of(whole, row) or any_of(own, row):
                return _size(row, signal)
            if parts:
                gone = drop_parts(row)
                lost += gone
                if gone and signal is Signal.METRICS and not points(row.metric):
                    return 0
            return None

        def drop_parts(row: Row) -> int:
            record = row.span if signal is Signal.TRACES else row.metric
            gone = [
                at for at, inner in enumerate(inside(part, signal, row, record))
                if any_of(parts, inner)
            ]  # fmt: skip
            if gone:
                of = record.events if signal is Signal.TRACES else points(record)
                for at in reversed(gone):
                    del of[at]
            return len(gone)

        return prune(signal, request, drop) + lost

    return run


def _size(row: Row, signal: Signal) -> int:
    return len(points(row.metric)) if signal is Signal.METRICS else 1
