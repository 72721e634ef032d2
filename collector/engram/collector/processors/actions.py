"""The `attributes` and `resource` processors: a list of actions on a list of attributes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any, Final

from engram.collector.ottl import Row, rows, values
from engram.collector.ottl.compile import ENUMS
from engram.collector.ottl.functions import pattern
from engram.exporters.signals import Signal

from .settings import Action, AttributeMatch, Attributes, Match, Resource
from .stage import Stage

Change = Callable[[Any], None]
"""Changes repeated `KeyValue` in place."""

_RECORD: Final = {Signal.TRACES: "span", Signal.LOGS: "log", Signal.METRICS: "datapoint"}


def attributes(settings: Attributes) -> Stage:
    """The stage of an `attributes` processor."""
    changes = [_change(action) for action in settings.actions]
    include = _matcher(settings.include) if settings.include else None
    exclude = _matcher(settings.exclude) if settings.exclude else None

    def run(signal: Signal, request: Any) -> int:
        context = _RECORD[signal]
        for row in rows(context, signal, request):
            if include is not None and not include(signal, row):
                continue
            if exclude is not None and exclude(signal, row):
                continue
            pairs = getattr(row, context).attributes
            for change in changes:
                change(pairs)
        return 0

    return run


def resource(settings: Resource) -> Stage:
    """The stage of a `resource` processor."""
    changes = [_change(action) for action in settings.attributes]

    def run(signal: Signal, request: Any) -> int:
        for row in rows("resource", signal, request):
            for change in changes:
                change(row.resource.resource.attributes)
        return 0

    return run


# -- actions ---------------------------------------------------------------------------------------


def _change(action: Action) -> Change:
    key = action.key or ""
    if action.action in ("insert", "update", "upsert"):
        return _put(action, key)
    if action.action == "extract":
        return _extract(key, pattern(action.pattern or ""))
    if action.action == "convert":
        return _each(action, lambda value: _converted(value, str(action.converted_type)))
    if action.action == "hash":
        return _each(action, _hashed)
    chosen = _chooser(action)
    return lambda pairs: values.remove(pairs, chosen)


def _put(action: Action, key: str) -> Change:
    source, kind = action.from_attribute, action.action

    def run(pairs: Any) -> None:
        there = values.find(pairs, key) is not None
        if kind != "upsert" and there != (kind == "update"):
            return
        value = action.value
        if source is not None:
            found = values.find(pairs, source)
            if found is None:
                return
            value = values.read(found)
        values.put(pairs, key, value)

    return run


def _extract(key: str, expression: re.Pattern[str]) -> Change:
    def run(pairs: Any) -> None:
        found = values.find(pairs, key)
        if found is None or found.WhichOneof("value") != "string_value":
            return
        match = expression.search(found.string_value)
        if match is not None:
            for name, value in match.groupdict().items():
                values.put(pairs, name, value or "")

    return run


def _chooser(action: Action) -> Callable[[str], bool]:
    """Which keys an action is for: its key, and those its pattern finds."""
    expression = pattern(action.pattern) if action.pattern else None
    return lambda key: (
        key == action.key or (expression is not None and expression.search(key) is not None)
    )


def _each(action: Action, new: Callable[[Any], Any]) -> Change:
    chosen = _chooser(action)

    def run(pairs: Any) -> None:
        for pair in pairs:
            if chosen(pair.key):
                values.write(pair.value, new(values.read(pair.value)))

    return run


def _hashed(value: Any) -> str:
    return hashlib.sha256(values.as_text(value).encode()).hexdigest()


def _converted(value: Any, kind: str) -> Any:
    """The value in another type; as it is when it cannot be."""
    if kind == "string":
        return values.as_text(value)
    if isinstance(value, list | dict | bytes) or value is None:
        return value
    try:
        if kind == "double":
            return float(value)
        if kind == "boolean":
            return _truth(value)
        return int(float(value)) if isinstance(value, str) and "." in value else int(value)
    except (ValueError, OverflowError):
        return value


def _truth(value: Any) -> Any:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower(), value)
    return bool(value)


# -- include and exclude ---------------------------------------------------------------------------


def _matcher(match: Match) -> Callable[[Signal, Row], bool]:
    same = _same(match.match_type)

    def one_of(texts: tuple[str, ...], value: Any) -> bool:
        return not texts or any(same(text, value) for text in texts)

    def has(wanted: tuple[AttributeMatch, ...], pairs: Any) -> bool:
        for one in wanted:
            found = values.find(pairs, one.key)
            if found is None or not (one.value is None or same(one.value, values.read(found))):
                return False
        return True

    kinds = {ENUMS.get(name, -1) for name in match.span_kinds}

    def run(signal: Signal, row: Row) -> bool:
        record = getattr(row, _RECORD[signal])
        around = row.resource.resource.attributes
        service = values.find(around, "service.name")
        return (
            one_of(match.services, None if service is None else values.read(service))
            and one_of(match.span_names, row.span.name if row.span is not None else None)
            and (not kinds or (row.span is not None and row.span.kind in kinds))
            and one_of(match.log_bodies, values.read(row.log.body) if row.log is not None else None)
            and one_of(
                match.log_severity_texts, row.log.severity_text if row.log is not None else None
            )
            and one_of(match.metric_names, row.metric.name if row.metric is not None else None)
            and has(match.attributes, record.attributes)
            and has(match.resources, around)
        )

    return run


def _same(match_type: str) -> Callable[[Any, Any], bool]:
    equal = values.comparison("==")
    if match_type == "strict":
        return equal

    def run(wanted: Any, value: Any) -> bool:
        if isinstance(wanted, str) and isinstance(value, str):
            return pattern(wanted).search(value) is not None
        return equal(wanted, value)

    return run
