"""Any Python value as JSON of bounded size: what a graph's state is told as.

A state may hold anything: cycles, open files, a gigabyte. Nothing of it is called (no `repr`, no
`model_dump`), containers are left when the room is used up, and what comes out is always valid.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import logging
import math
import pathlib
import uuid
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from engram.instrumentation.redaction import REDACTED, is_secret

MOST_BYTES: Final = 16 * 1024
_log = logging.getLogger("engram.instrumentation")

_MOST_DEPTH: Final = 10
_CUT: Final = "…"

_TEXTS: Final = (
    datetime.datetime, datetime.date, datetime.time, datetime.timedelta,
    decimal.Decimal, uuid.UUID, pathlib.PurePath,
)  # fmt: skip


class _Room:
    """How much may still be told, and which containers are being told."""

    def __init__(self, characters: int) -> None:
        self.left = characters
        self.open: set[int] = set()


def dump(value: Any, most: int = MOST_BYTES) -> str:
    """The value as JSON of at most so many bytes; never raises."""
    try:
        characters = most
        for _ in range(5):
            told = _plain(value, _Room(characters), 0)
            text = json.dumps(told, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            if len(text.encode("utf-8", "surrogatepass")) <= most:
                # A lone surrogate is no UTF-8, and an exporter would refuse the record.
                return text.encode("utf-8", "replace").decode()
            characters //= 2  # characters of several bytes, or many that are escaped
    except Exception:  # noqa: BLE001 - changed by another thread while we look, or hostile
        _log.debug("engram: a state cannot be told", exc_info=True)
    return json.dumps(f"<{type(value).__name__}>")


def _plain(value: Any, room: _Room, depth: int) -> Any:
    room.left -= 4  # brackets, commas: also an endless list of empty things ends
    if value is None or value is True or value is False:
        return value
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, str):
        return _text(value, room)
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else f"<int of {value.bit_length()} bits>"
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, _TEXTS):
        return _text(str(value), room)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    if id(value) in room.open:
        return "<itself>"
    if depth >= _MOST_DEPTH or room.left <= 0:
        return _CUT
    room.open.add(id(value))
    try:
        return _container(value, room, depth)
    finally:
        room.open.discard(id(value))


def _container(value: Any, room: _Room, depth: int) -> Any:
    if isinstance(value, Mapping):
        return _object(value, room, depth)
    if isinstance(value, (list, tuple, set, frozenset)):
        told: list[Any] = []
        for item in islice(value, len(value)):
            if room.left <= 0:
                told.append(f"{_CUT} {len(value) - len(told)} more")
                break
            told.append(_plain(item, room, depth + 1))
        return told
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name, None) for f in dataclasses.fields(value)}
        return _object(fields, room, depth)
    # Messages and other Pydantic models keep their fields in __dict__; so do plain objects.
    if hasattr(type(value), "model_fields"):
        return _object({k: v for k, v in vars(value).items() if v}, room, depth)
    return f"<{type(value).__name__}>"


def _object(value: Mapping[Any, Any], room: _Room, depth: int) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for key in islice(iter(value), len(value)):
        if room.left <= 0:
            told[_CUT] = f"{len(value) - len(told)} more"
            break
        name = _text(key if isinstance(key, str) else str(_plain(key, room, _MOST_DEPTH)), room)
        told[name] = REDACTED if is_secret(name) else _plain(value[key], room, depth + 1)
    return told


def _text(text: str, room: _Room) -> str:
    most = max(room.left, 16)
    room.left -= min(len(text), most)
    return str(text) if len(text) <= most else text[:most] + _CUT


def difference(entry: str, outcome: str) -> str | None:
    """What a node's result changes of the state it got, both as `dump` told them."""
    try:
        before, after = json.loads(entry), json.loads(outcome)
        if not (isinstance(before, dict) and isinstance(after, dict)):
            return None
        changed: dict[str, Any] = {}
        for key, value in after.items():
            if key not in before:
                changed[key] = {"added": value}
            elif before[key] != value:
                changed[key] = {"from": _short(before[key]), "to": value}
        return dump(changed)
    except Exception:  # noqa: BLE001 - a difference less
        return None


def _short(value: Any) -> Any:
    if isinstance(value, (list, dict)):
        return f"{len(value)} items"
    return value


__all__ = ["MOST_BYTES", "difference", "dump"]
