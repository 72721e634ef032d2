"""Values: OTLP's `AnyValue` to Python's and back, and how two of them compare.

| OTLP | Python |
|---|---|
| unset | None |
| string, bool, int, double, bytes | str, bool, int, float, bytes |
| array, kvlist | list, dict (of a key given twice the last counts) |
"""

from __future__ import annotations

import base64
import json
import operator
from collections.abc import Callable, Iterable
from typing import Any, Final

from .errors import RunError

Pairs = Any
"""A repeated `KeyValue` of a message."""


def read(value: Any) -> Any:
    """The Python value of an `AnyValue`."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [read(one) for one in value.array_value.values]
    if kind == "kvlist_value":
        return as_dict(value.kvlist_value.values)
    return getattr(value, kind)


def as_dict(pairs: Pairs) -> dict[str, Any]:
    """The map of repeated `KeyValue`."""
    return {pair.key: read(pair.value) for pair in pairs}


def write(target: Any, value: Any) -> None:
    """Make an `AnyValue` hold a Python value; None makes it empty."""
    target.Clear()
    if value is None:
        return
    try:
        if isinstance(value, bool):
            target.bool_value = value
        elif isinstance(value, str):
            target.string_value = value
        elif isinstance(value, int):
            target.int_value = value
        elif isinstance(value, float):
            target.double_value = value
        elif isinstance(value, bytes):
            target.bytes_value = value
        elif isinstance(value, list):
            target.array_value.SetInParent()
            for one in value:
                write(target.array_value.values.add(), one)
        elif isinstance(value, dict):
            target.kvlist_value.SetInParent()
            replace(target.kvlist_value.values, value)
        else:
            raise RunError(f"{value!r} cannot be an attribute")
    except ValueError as error:
        raise RunError(f"{value!r} does not fit: {error}") from error


def replace(pairs: Pairs, value: dict[str, Any]) -> None:
    """Make repeated `KeyValue` hold exactly this map."""
    del pairs[:]
    for key, one in value.items():
        write(pairs.add(key=key).value, one)


def find(pairs: Pairs, key: str) -> Any:
    """The `AnyValue` of a key, None when it is not there; of doubles the last."""
    found = None
    for pair in pairs:
        if pair.key == key:
            found = pair.value
    return found


def remove(pairs: Pairs, gone: Callable[[str], bool]) -> None:
    """Remove the pairs whose key says so."""
    for at in range(len(pairs) - 1, -1, -1):
        if gone(pairs[at].key):
            del pairs[at]


def put(pairs: Pairs, key: str, value: Any) -> None:
    """Set a key, adding it at the end when it is not there."""
    found = find(pairs, key)
    write(pairs.add(key=key).value if found is None else found, value)


def as_text(value: Any) -> str:
    """A value as text: JSON for lists and maps, hexadecimal digits for bytes."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)
    return str(value)


def _plain(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


_SIGNS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt,
    "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def _class(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return type(value).__name__
    return "number" if isinstance(value, int | float) else type(value).__name__


def comparison(sign: str) -> Callable[[Any, Any], bool]:
    """How two values compare: of different kinds they are different, and in no order."""
    compare = _SIGNS[sign]

    def run(left: Any, right: Any) -> bool:
        kind = _class(left)
        if kind != _class(right):
            return sign == "!="
        if kind in ("NoneType", "list", "dict") and sign not in ("==", "!="):
            return False
        return bool(compare(left, right))

    return run


def texts(values: Iterable[Any]) -> list[str]:
    """Each value as text."""
    return [as_text(value) for value in values]
