"""Any Python value as what an OpenTelemetry attribute can hold, bounded and without secrets.

What cannot be serialised becomes its `repr`, what is too long is cut, and what stands under a name
like `password` is masked before it leaves the function. The collector redacts once more.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import inspect
import json
import math
import pathlib
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from engram.instrumentation.redaction import is_secret

CHARACTERS: Final = 16_384
"""The most that one argument, result or content may have: the collector keeps half of it."""

ITEMS: Final = 100
DEPTH: Final = 8
MASK: Final = "[masked]"

_NAMED: Final = (
    datetime.date, datetime.time, datetime.timedelta, uuid.UUID, decimal.Decimal, pathlib.PurePath,
)  # fmt: skip


def text(value: object, limit: int = CHARACTERS) -> str:
    """The value as text that every encoder takes, cut to the limit."""
    try:
        made = value if isinstance(value, str) else repr(value)
    except Exception:  # noqa: BLE001 - somebody's __repr__
        made = f"<{type(value).__name__}>"
    if len(made) > limit:
        made = made[: limit - 1] + "…"
    # A str subclass would reach the encoder with methods of its own; half a surrogate has no UTF-8.
    return str.encode(made, "utf-8", "replace").decode()


def said(value: object, limit: int = 500) -> str:
    """The value as it says itself, whatever its `__str__` does."""
    try:
        return text(str(value), limit)
    except Exception:  # noqa: BLE001 - somebody's __str__
        return f"<{type(value).__name__}>"


def listed(values: object) -> list[Any]:
    """What an argument that should be several things holds; of one that cannot be read nothing."""
    if isinstance(values, (list, tuple)):
        return list(values)
    if values is None:
        return []
    if isinstance(values, str) or not isinstance(values, Iterable):
        return [values]
    try:
        return list(islice(values, ITEMS))  # it may have no end
    except Exception:  # noqa: BLE001 - somebody's __iter__
        return []


class _Room:
    """How much of the bound is left."""

    def __init__(self, characters: int) -> None:
        self.left = characters

    def text(self, value: object) -> str:
        if self.left <= 0:
            return "…"
        made = text(value, self.left)
        self.left -= len(made)
        return made


def plain(value: object, limit: int = CHARACTERS) -> Any:
    """The value made of None, bool, int, float, str, list and dict only."""
    try:
        return _plain(value, _Room(limit), 0)
    except Exception:  # noqa: BLE001 - any class may be in there, with any method
        return text(value, limit)


def _plain(value: Any, room: _Room, depth: int) -> Any:
    room.left -= 1
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, enum.Enum):
        return _plain(value.value, room, depth + 1) if depth < DEPTH else room.text(value.name)
    if isinstance(value, str):
        return room.text(value)
    if isinstance(value, int):
        number = int(value)
        return number if -(2**63) <= number < 2**63 else room.text(hex(number))
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else room.text(repr(float(value)))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    if isinstance(value, _NAMED):
        return room.text(str(value))
    if isinstance(value, BaseException):
        return room.text(f"{type(value).__name__}: {said(value, CHARACTERS)}")
    if depth >= DEPTH or room.left <= 0:
        return room.text(value)
    if isinstance(value, Mapping):
        return _members(value.items(), len(value), room, depth)
    if isinstance(value, (list, tuple, set, frozenset)) or (
        isinstance(value, Sequence) and type(value).__module__ in ("builtins", "collections")
    ):
        made = []
        for i, item in enumerate(value):
            if i >= ITEMS or room.left <= 0:
                made.append(f"… {len(value) - i} more")
                break
            made.append(_plain(item, room, depth + 1))
        return made
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [(f.name, getattr(value, f.name, None)) for f in dataclasses.fields(value)]
        return _members(fields, len(fields), room, depth)
    dump = getattr(type(value), "model_dump", None)  # pydantic, without importing it
    if callable(dump):
        return _plain(dump(value), room, depth + 1)
    return room.text(value)


def _members(pairs: Any, count: int, room: _Room, depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for i, (key, item) in enumerate(pairs):
        if i >= ITEMS or room.left <= 0:
            made["…"] = f"{count - i} more"
            break
        name = text(key if isinstance(key, str) else str(key), 200)
        room.left -= len(name)
        made[name] = MASK if is_secret(name) else _plain(item, room, depth + 1)
    return made


def json_text(value: object, limit: int = CHARACTERS) -> str:
    """A string as it is, anything else as JSON."""
    if isinstance(value, str):
        return text(value, limit)
    return json.dumps(plain(value, limit), ensure_ascii=False)


# Bounded: functions made in a loop must not stay for ever. Asking costs 15 µs a call.
_signature = functools.lru_cache(maxsize=512)(inspect.signature)


def arguments(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The call's arguments by name, without `self` and `cls`, secrets masked."""
    try:
        bound = _signature(function).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        bound = {str(i): value for i, value in enumerate(args)} | kwargs
    bound.pop("self", None)
    bound.pop("cls", None)
    made = plain(bound)
    return made if isinstance(made, dict) else {}
