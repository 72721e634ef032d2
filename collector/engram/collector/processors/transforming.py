"""The `transform` processor: one statement after the other, each over everything."""

from __future__ import annotations

from typing import Any

from engram.collector.ottl import Condition, Edit, compile_condition, compile_statement, rows
from engram.exporters.signals import Signal

from .settings import Transform
from .stage import Errors, Stage


def transforming(settings: Transform) -> Stage:
    """The stage of a `transform` processor."""
    steps: dict[Signal, list[tuple[str, list[Condition], Edit, Errors]]] = {}
    for step in settings.steps():
        conditions = [compile_condition(text, step.context) for text in step.conditions]
        edit, errors = compile_statement(step.text, step.context), Errors(step.error_mode)
        steps.setdefault(step.signal, []).append((step.context, conditions, edit, errors))

    def run(signal: Signal, request: Any) -> int:
        for context, conditions, edit, errors in steps.get(signal, ()):
            for row in rows(context, signal, request):
                if conditions and not any(errors.holds(one, row) for one in conditions):
                    continue
                errors.apply(edit, row)
        return 0

    return run
