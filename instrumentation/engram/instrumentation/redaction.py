"""Values of an app made small and harmless, before they leave it.

What must not be stored is replaced here by the name of its field; the collector replaces what can
be recognised by its look. Cost is bounded by what is kept, not by what was given.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import math
import pathlib
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

REDACTED: Final = "[REDACTED]"
_SECRET: Final = re.compile(
    r"pass(?:word|wd|phrase|code)|(?:^|[_.-])(?:pass|pwd?)$|secret|token(?!s)|cookie|credential"
    r"|(?:api|access|private)[_-]?key|authori[sz]ation|card[_-]?(?:number|no)(?:$|[_.-])|signature"
    r"|^(?:cv[vc]2?|ssn|pin|otp)$",
    re.IGNORECASE,
)
"""`max_tokens` is a number of them, and no secret."""
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_TEXTS: Final = (
    datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID,
    pathlib.PurePath,
)  # fmt: skip
_LONGEST: Final = 1000
_ITEMS: Final = 50
_DEPTH: Final = 6


def is_secret(name: str) -> bool:
    """Whether a field or parameter of this name is never kept."""
    return _SECRET.search(_CAMEL.sub("_", name)) is not None


def as_json(value: Any, limit: int = 4096) -> str:
    """Valid JSON of about this many characters, twice as many at most; never raises."""
    room = limit
    try:
        for _ in range(6):
            text = json.dumps(_small(value, [room], _DEPTH), ensure_ascii=False)
            if len(text) <= 2 * limit:
                return text.encode("utf-8", "replace").decode()  # no lone surrogates
            room //= 2  # characters that are escaped are several
    except Exception:  # noqa: BLE001, S110 - changed by another thread while we look, or hostile
        pass
    return json.dumps(f"<{type(value).__name__}>")


def _small(value: Any, left: list[int], depth: int) -> Any:
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, int) and value.bit_length() > 4096:
        return f"<int of {value.bit_length()} bits>"  # Python refuses to print it
    if value is None or isinstance(value, bool | int | float):
        left[0] -= 8
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value
    if isinstance(value, bytes | bytearray):
        value = bytes(value[:_LONGEST]).decode("utf-8", "replace")
    if isinstance(value, str):
        size = max(min(_LONGEST, left[0]), 0)
        left[0] -= min(len(value), size)
        return value if len(value) <= size else f"{value[:size]}… ({len(value)} characters)"
    if depth <= 0 or left[0] <= 0:
        return "…"
    try:
        return _parts(value, left, depth)
    except Exception:  # noqa: BLE001 - a class of the app's own; the rest is still told
        return f"<{type(value).__name__}>"


def _parts(value: Any, left: list[int], depth: int) -> Any:
    if isinstance(value, Mapping):
        kept: dict[str, Any] = {}
        for name in value:
            if len(kept) >= _ITEMS or left[0] <= 0:
                kept["…"] = f"{len(value) - len(kept)} more"
                break
            text = str(name)[:100]
            left[0] -= len(text)
            kept[text] = REDACTED if is_secret(text) else _small(value[name], left, depth - 1)
        return kept
    if isinstance(value, Sequence | set | frozenset):
        some: list[Any] = []
        for item in value:
            if len(some) >= _ITEMS or left[0] <= 0:
                some.append(f"… {len(value) - len(some)} more")
                break
            some.append(_small(item, left, depth - 1))
        return some
    # A Pydantic model's fields as they stand: `model_dump` would walk and copy all of them first.
    fields = getattr(type(value), "model_fields", None)
    if isinstance(fields, Mapping):
        stored = vars(value)
        return _small({name: stored[name] for name in fields if name in stored}, left, depth)
    if isinstance(value, _TEXTS):
        return _small(str(value), left, depth)
    return f"<{type(value).__name__}>"


__all__ = ["REDACTED", "as_json", "is_secret"]
