"""OTLP values as JSON text that keeps every type, and back.

JSON has no bytes, no NaN, no empty value, and OTLP strings may be invalid UTF-8. These few become
an object with one key that starts with `$`: `{"$bytes": base64}`, `{"$double": "NaN"}`,
`{"$string": base64}` (invalid UTF-8), `{"$strindex": n}`, `{"$unset": true}` (a key without value).
So do keys that are no text: `$key/base64` (invalid UTF-8) and `$strindex/n/base64`.
A key that itself starts with `$` gets a second one.
Integers have no point, doubles always have one (or an exponent).
Duplicate keys stay, in their order.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable
from json.encoder import encode_basestring
from typing import Any, Protocol

import polars as pl

REDACTED = "[redacted]"


class Redact(Protocol):
    """What the decoder asks of a redactor."""

    def key(self, key: str) -> bool:
        """Whether the value of this key must be replaced wholly."""
        ...

    def text(self, value: str) -> str:
        """The text with its secrets replaced."""
        ...

    def suspicious(self, texts: pl.Series) -> Iterable[int]:
        """Rows of the texts that `text` might change; every one that it would is among them."""
        ...


class NoRedaction:
    """Keeps everything: OTLP to lake to OTLP is the identity."""

    def key(self, key: str) -> bool:
        """Never."""
        return False

    def text(self, value: str) -> str:
        """As it is."""
        return value

    def suspicious(self, texts: pl.Series) -> Iterable[int]:
        """None."""
        return ()


def text(raw: bytes) -> str:
    """A string field for people: invalid UTF-8 shows as replacement characters."""
    return raw.decode("utf-8", "replace")


def double_json(value: float) -> str:
    """A double as JSON, told apart from an integer by its point or exponent."""
    if math.isfinite(value):
        return repr(value)
    name = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return f'{{"$double":"{name}"}}'


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def key_json(key: bytes, strindex: int = 0) -> str:
    """A key as JSON text."""
    if strindex:
        return f'"$strindex/{strindex}/{_b64(key)}"'
    try:
        name = key.decode("utf-8")
    except UnicodeDecodeError:
        return f'"$key/{_b64(key)}"'
    return encode_basestring(f"${name}" if name.startswith("$") else name)


class ValueWriter:
    """Turns AnyValue and KeyValue messages into JSON text, redacting on the way."""

    def __init__(self, redact: Redact) -> None:
        self._redact = redact

    def string(self, raw: bytes) -> tuple[str, str]:
        """A string value as JSON text, and as plain text."""
        try:
            value = self._redact.text(raw.decode("utf-8"))
        except UnicodeDecodeError:
            return f'{{"$string":"{_b64(raw)}"}}', self._redact.text(text(raw))
        return encode_basestring(value), value

    def value(self, value: Any) -> str:
        """An AnyValue as JSON text."""
        kind = value.WhichOneof("value")
        if kind == "string_value":
            return self.string(value.string_value)[0]
        if kind == "int_value":
            return str(value.int_value)
        if kind == "bool_value":
            return "true" if value.bool_value else "false"
        if kind == "double_value":
            return double_json(value.double_value)
        if kind == "array_value":
            return f"[{','.join(map(self.value, value.array_value.values))}]"
        if kind == "kvlist_value":
            return self.object(value.kvlist_value.values)
        if kind == "bytes_value":
            return f'{{"$bytes":"{_b64(value.bytes_value)}"}}'
        if kind == "string_value_strindex":
            return f'{{"$strindex":{value.string_value_strindex}}}'
        return "null"

    def member(self, pair: Any) -> tuple[str, str, str | None]:
        """A KeyValue as the JSON text of its key and of its value, and the value as plain text.

        Plain text is the string itself, or JSON; None where there is no value.
        """
        key = key_json(pair.key, pair.key_strindex)
        if not pair.HasField("value"):
            return key, '{"$unset":true}', None
        if self._redact.key(text(pair.key)):
            return key, f'"{REDACTED}"', REDACTED
        kind = pair.value.WhichOneof("value")
        if kind == "string_value":
            return key, *self.string(pair.value.string_value)
        value = self.value(pair.value)
        return key, value, value if kind else None

    def object(self, pairs: Iterable[Any]) -> str:
        """KeyValues as the text of a JSON object; duplicate keys stay."""
        members = (self.member(pair) for pair in pairs)
        return f"{{{','.join(f'{key}:{value}' for key, value, _ in members)}}}"


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its duplicate keys."""


def parse(json_text: str) -> Any:
    """JSON text as Python values; objects stay lists of pairs (`_Pairs`), so nothing is lost."""
    return json.loads(json_text, object_pairs_hook=_Pairs)


def fill_value(into: Any, value: Any) -> None:
    """Write a parsed JSON value into an AnyValue whose strings are bytes."""
    if value is None:
        return
    if isinstance(value, str):
        into.string_value = value.encode()
    elif isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, int):
        into.int_value = value
    elif isinstance(value, float):
        into.double_value = value
    elif isinstance(value, _Pairs):
        special = value[0][0] if len(value) == 1 else ""
        if special == "$bytes":
            into.bytes_value = base64.b64decode(value[0][1])
        elif special == "$double":
            into.double_value = float(value[0][1])
        elif special == "$string":
            into.string_value = base64.b64decode(value[0][1])
        elif special == "$strindex":
            into.string_value_strindex = value[0][1]
        else:
            into.kvlist_value.SetInParent()
            fill_pairs(into.kvlist_value.values, value)
    else:
        into.array_value.SetInParent()
        for item in value:
            fill_value(into.array_value.values.add(), item)


def fill_pairs(into: Any, pairs: Iterable[tuple[str, Any]]) -> None:
    """Write parsed JSON members into a repeated KeyValue whose strings are bytes."""
    for key, value in pairs:
        pair = into.add()
        if key.startswith("$strindex/"):
            _, index, raw = key.split("/", 2)
            pair.key_strindex, pair.key = int(index), base64.b64decode(raw)
        elif key.startswith("$key/"):
            pair.key = base64.b64decode(key.removeprefix("$key/"))
        else:
            pair.key = key.removeprefix("$").encode()
        if isinstance(value, _Pairs) and value and value[0][0] == "$unset":
            continue
        pair.value.SetInParent()
        fill_value(pair.value, value)
