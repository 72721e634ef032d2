"""Filters of values and conditions of namespaces, as LangGraph's own stores understand them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from langgraph.store.base import MatchCondition

_ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "$eq": lambda a, b: bool(a == b),
    "$ne": lambda a, b: bool(a != b),
    "$gt": lambda a, b: float(a) > float(b),
    "$gte": lambda a, b: float(a) >= float(b),
    "$lt": lambda a, b: float(a) < float(b),
    "$lte": lambda a, b: float(a) <= float(b),
}


def compare(value: Any, wanted: Any) -> bool:
    """Whether a value is what a filter asks for: equal, by operators, or part by part."""
    if isinstance(wanted, dict):
        if any(name.startswith("$") for name in wanted):
            for name in wanted:
                if name not in _ORDER:
                    raise ValueError(f"Unsupported operator: {name}")
            return all(_ORDER[name](value, of) for name, of in wanted.items())
        return isinstance(value, dict) and all(compare(value.get(k), v) for k, v in wanted.items())
    if isinstance(wanted, list | tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(wanted)
            and all(map(compare, value, wanted))
        )
    return bool(value == wanted)


def matches(condition: MatchCondition, namespace: tuple[str, ...]) -> bool:
    """Whether a namespace begins or ends with a path, in which `*` is any label."""
    path = tuple(condition.path)
    if len(path) > len(namespace):
        return False
    if condition.match_type == "prefix":
        part = namespace[: len(path)]
    elif condition.match_type == "suffix":
        part = namespace[len(namespace) - len(path) :]
    else:
        raise ValueError(f"Unsupported match type: {condition.match_type}")
    return all(want in ("*", label) for want, label in zip(path, part, strict=True))


__all__ = ["compare", "matches"]
