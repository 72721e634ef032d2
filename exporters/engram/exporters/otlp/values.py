"""OTLP values as JSON text that keeps every type, and back.

JSON has no bytes, no NaN, no empty value, and OTLP strings may be invalid UTF-8. These few become an object with
one key that starts with `$`: `{"$bytes": base64}`, `{"$double": "NaN"}`, `{"$string": base64}`
(invalid UTF-8), `{"$unset": true}` (a key without a value), `{"$strindex": n}`.
A key of a nested map that itself starts with `$` gets a second `$`.
Integers have no point, doubles always have one (or an exponent). Duplicate keys stay, in their order.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable
from json.encoder import encode_basestring
from typing import Any, Protocol

from engram.exporters.otlp.wire import AnyValue, KeyValue

_REDACTED = '"[redacted]"'


class Redact(Protocol):
    """What the decoder asks of a redactor."""

    def key(self, key: str) -> bool:
        """Whether the value of this key must be replaced wholly."""
        ...

    def text(self, value: str) -> str:
        """The text with its secrets replaced."""
        ...


class NoRedaction:
    """Keeps everything: OTLP to lake to OTLP is the identity."""

    def key(self, key: str) -> bool:
        """Never."""
        return False

    def text(self, value: str) -> str:
        """As it is."""
        return value


def text(raw: bytes) -> str:
    """A string field for people: invalid UTF-8 shows as replacement characters."""
    return raw.decode("utf-8", "replace")


def double_json(value: float) -> str:
    """A double as JSON, told apart from an integer by its point or exponent."""
    if math.isfinite(value):
        return repr(value)
    return f'{{"$double":"{"NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}"}}'


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


class ValueWriter:
    """Turns AnyValue and KeyValue messages into JSON text, redacting on the way."""

    def __init__(self, redact: Redact) -> None:
        self._redact = redact

    def string(self, raw: bytes) -> str:
        """A string value as JSON text."""
        try:
            value = raw.decode("utf-8")
        except UnicodeDecodeError:
            return f'{{"$string":"{_b64(raw)}"}}'
        return encode_basestring(self._redact.text(value))

    def value(self, value: Any) -> str:
        """An AnyValue as JSON text."""
        kind = value.WhichOneof("value")
        if kind == "string_value":
            return self.string(value.string_value)
        if kind == "int_value":
            return str(value.int_value)
        if kind == "bool_value":
            return "true" if value.bool_value else "false"
        if kind == "double_value":
            return double_json(value.double_value)
        if kind == "array_value":
            return f"[{','.join(map(self.value, value.array_value.values))}]"
        if kind == "kvlist_value":
            return self.object(value.kvlist_value.values, nested=True)
        if kind == "bytes_value":
            return f'{{"$bytes":"{_b64(value.bytes_value)}"}}'
        if kind == "string_value_strindex":
            return f'{{"$strindex":{value.string_value_strindex}}}'
        return "null"

    def member(self, pair: Any, *, nested: bool = False) -> tuple[str, str]:
        """A KeyValue as its key and the JSON text of its value."""
        key = text(pair.key) if not pair.key_strindex else f"$strindex/{pair.key_strindex}"
        if not pair.HasField("value"):
            return key, '{"$unset":true}'
        if self._redact.key(key):
            return key, _REDACTED
        if nested and key.startswith("$") and not pair.key_strindex:
            key = f"${key}"
        return key, self.value(pair.value)

    def object(self, pairs: Iterable[Any], *, nested: bool = False) -> str:
        """KeyValues as the text of a JSON object; duplicate keys stay."""
        return f"{{{','.join(self._member_json(pair, nested) for pair in pairs)}}}"

    def _member_json(self, pair: Any, nested: bool) -> str:
        key, value = self.member(pair, nested=nested)
        return f"{encode_basestring(key)}:{value}"


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its duplicate keys."""


def parse(json_text: str) -> Any:
    """JSON text as Python values; objects stay lists of pairs (`_Pairs`), so nothing is lost."""
    return json.loads(json_text, object_pairs_hook=_Pairs)


_SPECIAL: dict[str, Callable[[Any, Any], None]] = {
    "$bytes": lambda into, v: setattr(into, "bytes_value", base64.b64decode(v)),
    "$double": lambda into, v: setattr(into, "double_value", float(v)),
    "$string": lambda into, v: setattr(into, "string_value", base64.b64decode(v)),
    "$strindex": lambda into, v: setattr(into, "string_value_strindex", v),
}


def fill_value(into: Any, value: Any) -> None:
    """Write a parsed JSON value into an AnyValue."""
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
        if len(value) == 1 and value[0][0] in _SPECIAL:
            _SPECIAL[value[0][0]](into, value[0][1])
            return
        into.kvlist_value.SetInParent()
        fill_pairs(into.kvlist_value.values, value, nested=True)
    else:
        into.array_value.SetInParent()
        for item in value:
            fill_value(into.array_value.values.add(), item)


def fill_pairs(into: Any, pairs: Iterable[tuple[str, Any]], *, nested: bool = False) -> None:
    """Write parsed JSON members into a repeated KeyValue."""
    for key, value in pairs:
        pair = into.add()
        if key.startswith("$strindex/"):
            pair.key_strindex = int(key.removeprefix("$strindex/"))
        else:
            pair.key = (key[1:] if nested and key.startswith("$") else key).encode()
        if isinstance(value, _Pairs) and value and value[0][0] == "$unset":
            continue
        pair.value.SetInParent()
        fill_value(pair.value, value)


def key_value(raw: bytes) -> Any:
    """A KeyValue from its raw bytes."""
    return KeyValue.FromString(raw)


def any_value(raw: bytes) -> Any:
    """An AnyValue from its raw bytes."""
    return AnyValue.FromString(raw)
