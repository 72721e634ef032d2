"""OTLP/JSON to the protobuf bytes of the same request.

JSON is turned into protobuf before the log, so that everything behind it knows one encoding, and
the same record has the same content hash whichever way it came.

Tables made at import from the official descriptors say for every name what it is, so a field of a
later `opentelemetry-proto` is understood without a line here. What OTLP/JSON has of its own: ids
are hexadecimal, not base64. What proto3 JSON allows is allowed: 64-bit numbers as numbers or text,
enums by number or name, `null` for what is not set, lowerCamelCase or the proto's own names, and
fields that nobody knows.

A request is cut into records without making objects of them; one record at a time becomes Python
objects. So a large request costs itself and its result, not ten times that.
"""

from __future__ import annotations

import binascii
import json
import math
import re
import struct
from collections.abc import Callable
from typing import Any, Final

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from engram.exporters.errors import BadRequest, TooLarge
from engram.exporters.otlp.wire import OFFICIAL_REQUEST
from engram.exporters.signals import Signal

_F = FieldDescriptor
_HEX_FIELDS: Final = frozenset({"trace_id", "span_id", "parent_span_id"})
_MAX_DEPTH: Final = 100
"""Messages inside each other, of which protobuf parsers take as many."""

_RECORD_DEPTH: Final = 4
"""Where a record stands: a request's resources, their scopes, their records."""

_FREE_OBJECTS, _BYTES_AN_OBJECT = 1 << 16, 12
"""How many objects and lists a body may have: so many, and one more for every 12 bytes.

An attribute has two, in 37 bytes at the least. 64 MiB of `{},` would take 2 GB.
"""


class _Problem(Exception):
    """What is wrong with a value; names and places are added on the way out."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.path: list[str | int] = []


_Encode = Callable[[Any, int], bytes]
"""A JSON value, and the depth of the message it is in, to a whole field; empty for a default."""


def to_protobuf(signal: Signal, body: bytes, limit: int) -> bytes:
    """The request that the JSON means, as protobuf of at most `limit` bytes.

    Raises:
        BadRequest: this is no JSON, or no such request; says where.
        TooLarge: the result is over the limit.
    """
    if not body or body.isspace():
        return b""
    if too_many_objects(body.count(b"{") + body.count(b"["), len(body)):
        raise BadRequest("the JSON body has more objects than telemetry of its size can have")
    if b"\\ud" in body or b"\\uD" in body:
        body = _SURROGATES.sub(_whole, body)
    request = _MESSAGES[OFFICIAL_REQUEST[signal].DESCRIPTOR.full_name]
    try:
        return _Cutter(limit).message(request, msgspec.Raw(body), 1)
    except _Problem as problem:
        where = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part[:60]}"
            for part in reversed(problem.path)
        )
        raise BadRequest(
            f"the body is not an OTLP {signal} request in JSON: at ${where}, {problem.what}"
        ) from None
    except RecursionError:
        raise BadRequest("the JSON body is nested too deeply") from None


_SURROGATES: Final = re.compile(
    rb"\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F]..)"  # the group is half a pair
)


def _whole(escape: re.Match[bytes]) -> bytes:
    """U+FFFD for half a surrogate pair, which JavaScript leaves where it cuts inside an emoji."""
    return escape[0] if escape[1] is None else rb"\ufffd"


def too_many_objects(objects: int, size: int) -> bool:
    """Whether a body of this many bytes can not be telemetry, because of its `{` and `[`."""
    return objects > _FREE_OBJECTS + size // _BYTES_AN_OBJECT


# ---------------------------------------------------------------------- requests, cut into records


class _Object(msgspec.Struct):
    """Any JSON object, of which nothing is kept."""


_fields_of = msgspec.json.Decoder(dict[str, msgspec.Raw])
_objects_of = msgspec.json.Decoder(list[_Object])
_items_of = msgspec.json.Decoder(list[msgspec.Raw])


class _Cutter:
    """Goes down to the records by cutting, and counts what comes out."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._room = limit

    def message(self, table: _Message, raw: msgspec.Raw, depth: int) -> bytes:
        """The message that stands in the JSON text `raw`."""
        if depth == _RECORD_DEPTH:
            made = table.encode(_parsed(raw), depth)
            self._room -= len(made)
            if self._room < 0:
                raise TooLarge(self._limit)
            return made
        parts: list[tuple[int, bytes]] = []
        for name, value in _cut(_fields_of, raw).items():
            field = table.fields.get(name)
            if field is None:
                continue
            try:
                if field.inner is None or not field.repeated:
                    found = _parsed(value)
                    if found is not None:
                        parts.append((field.number, field.encode(found, depth)))
                elif bytes(memoryview(value)[:4]) != b"null":
                    _cut(_objects_of, value)  # or a list of numbers would become as many objects
                    for at, one in enumerate(_cut(_items_of, value)):
                        try:
                            made = self.message(field.inner, one, depth + 1)
                        except _Problem as problem:
                            problem.path.append(at)
                            raise
                        parts.append((field.number, field.tag + _varint(len(made)) + made))
            except _Problem as problem:
                problem.path.append(name)
                raise
        parts.sort(key=_number)
        return b"".join([made for _, made in parts])


def _cut(decoder: Any, raw: msgspec.Raw) -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError as error:
        what, _, place = str(error).partition(" - at `$")  # below here, as in $[3]
        problem = _Problem(what)
        problem.path += map(int, re.findall(r"\[(\d+)\]", place))
        raise problem from None


def _parsed(raw: msgspec.Raw) -> Any:
    """The value as Python objects. Text need not be UTF-8: for one bad name not all is lost."""
    try:
        return json.loads(bytes(raw).decode("utf-8", "replace"))
    except ValueError as error:
        raise _Problem(str(error)) from None


def _number(part: tuple[int, bytes]) -> int:
    return part[0]


# ---------------------------------------------------------------------- tables


class _Field:
    """One field: how its JSON value becomes bytes."""

    __slots__ = ("encode", "inner", "number", "repeated", "tag")

    def __init__(self, field: FieldDescriptor, inner: _Message | None) -> None:
        self.number = field.number
        self.repeated = field.is_repeated
        self.inner = inner
        wire, one = (2, inner.encode) if inner is not None else _scalar(field)
        self.tag = _varint(field.number << 3 | (2 if field.is_packed else wire))
        self.encode: _Encode = self._one(field, wire, one)
        if field.is_packed:
            self.encode = self._packed(one)
        elif self.repeated:
            self.encode = self._many(self.encode)

    def _one(self, field: FieldDescriptor, wire: int, content: _Encode) -> _Encode:
        tag, always = self.tag, field.has_presence or field.is_repeated
        step = 1 if self.inner is not None else 0

        def delimited(value: Any, depth: int) -> bytes:
            made = content(value, depth + step)
            return tag + _varint(len(made)) + made if made or always else b""

        def plain(value: Any, depth: int) -> bytes:
            made = content(value, depth)
            return tag + made if always or any(made) else b""

        return delimited if wire == 2 else plain

    @staticmethod
    def _many(one: _Encode) -> _Encode:
        def encode(values: Any, depth: int) -> bytes:
            return b"".join(_each(values, one, depth))

        return encode

    def _packed(self, one: _Encode) -> _Encode:
        def encode(values: Any, depth: int) -> bytes:
            made = b"".join(_each(values, one, depth))
            return self.tag + _varint(len(made)) + made if made else b""

        return encode


def _each(values: Any, one: _Encode, depth: int) -> list[bytes]:
    if type(values) is not list:
        raise _wrong("a list", values)
    made: list[bytes] = []
    try:
        for value in values:
            made.append(one(value, depth))
    except _Problem as problem:
        problem.path.append(len(made))
        raise
    return made


class _Message:
    """One message: its fields, by every name that JSON may use."""

    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: dict[str, _Field] = {}

    def encode(self, value: Any, depth: int) -> bytes:
        """The content of the message."""
        if type(value) is not dict:
            raise _wrong("an object", value)
        if depth > _MAX_DEPTH:
            raise _Problem(f"more than {_MAX_DEPTH} messages are nested")
        fields = self.fields
        parts: list[tuple[int, bytes]] = []
        name = ""
        try:
            for name, inside in value.items():
                field = fields.get(name)
                if field is not None and inside is not None:
                    parts.append((field.number, field.encode(inside, depth)))
        except _Problem as problem:
            problem.path.append(name)
            raise
        if len(parts) > 1:
            parts.sort(key=_number)  # as serializers write them, so that equal records are equal
        return b"".join([made for _, made in parts])


_MESSAGES: Final[dict[str, _Message]] = {}


def _message(descriptor: Descriptor) -> _Message:
    known = _MESSAGES.get(descriptor.full_name)
    if known is not None:
        return known
    made = _MESSAGES[descriptor.full_name] = _Message()
    for field in descriptor.fields:
        inner = _message(field.message_type) if field.message_type is not None else None
        made.fields[field.json_name] = made.fields[field.name] = _Field(field, inner)
    return made


# ---------------------------------------------------------------------- scalars


def _scalar(field: FieldDescriptor) -> tuple[int, _Encode]:
    """The wire type of a field, and what makes its bytes."""
    match field.type:
        case _F.TYPE_STRING:
            return 2, _text
        case _F.TYPE_BYTES:
            return 2, _hex if field.name in _HEX_FIELDS else _base64
        case _F.TYPE_BOOL:
            return 0, _bool
        case _F.TYPE_ENUM if field.enum_type is not None:
            return 0, _enum({value.name: value.number for value in field.enum_type.values})
        case _F.TYPE_DOUBLE:
            return 1, _double
        case _:
            return _integer(*_INTEGERS[field.type])


_U32, _U64 = (0, (1 << 32) - 1), (0, (1 << 64) - 1)
_I32, _I64 = (-(1 << 31), (1 << 31) - 1), (-(1 << 63), (1 << 63) - 1)
_INTEGERS: Final = {
    _F.TYPE_INT32: (_I32, ""),
    _F.TYPE_INT64: (_I64, ""),
    _F.TYPE_UINT32: (_U32, ""),
    _F.TYPE_UINT64: (_U64, ""),
    _F.TYPE_SINT32: (_I32, "zigzag"),
    _F.TYPE_SINT64: (_I64, "zigzag"),
    _F.TYPE_FIXED32: (_U32, "<I"),
    _F.TYPE_FIXED64: (_U64, "<Q"),
    _F.TYPE_SFIXED32: (_I32, "<i"),
    _F.TYPE_SFIXED64: (_I64, "<q"),
}
"""Range and form of each kind of integer; no form is a plain varint."""

_WHOLE: Final = re.compile(r"-?[0-9]{1,20}\Z")
_REAL: Final = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?\Z")
_BEYOND: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _varint(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _integer(span: tuple[int, int], form: str) -> tuple[int, _Encode]:
    low, high = span

    def read(value: Any) -> int:
        if type(value) is str:
            if _WHOLE.match(value):
                value = int(value)
            elif _REAL.match(value):
                value = float(value)
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int:
            raise _wrong("a whole number", value)
        if not low <= value <= high:
            raise _Problem(f"{_shown(value)} is not between {low} and {high}")
        return value

    if form == "zigzag":
        return 0, lambda value, _: _varint(
            (n << 1) ^ (n >> 63) if (n := read(value)) < 0 else n << 1
        )
    if form:
        pack = struct.Struct(form).pack
        return 1 if form in ("<Q", "<q") else 5, lambda value, _: pack(read(value))
    return 0, lambda value, _: _varint(read(value) & _U64[1])


def _enum(numbers: dict[str, int]) -> _Encode:
    _, integer = _integer(_I32, "")

    def encode(value: Any, depth: int) -> bytes:
        if type(value) is str and not _WHOLE.match(value):
            if value not in numbers:
                raise _Problem(f"{_shown(value)} is none of {', '.join(numbers)}")
            value = numbers[value]
        return integer(value, depth)

    return encode


_pack_double = struct.Struct("<d").pack


def _double(value: Any, _: int) -> bytes:
    if type(value) is str:
        if value in _BEYOND:
            value = _BEYOND[value]
        elif _REAL.match(value):
            value = float(value)
    if type(value) not in (int, float):
        raise _wrong("a number", value)
    try:
        return _pack_double(value)
    except OverflowError:
        raise _Problem(f"{_shown(value)} is too large for a double") from None


def _bool(value: Any, _: int) -> bytes:
    if type(value) is not bool:
        raise _wrong("true or false", value)
    return b"\1" if value else b"\0"


def _text(value: Any, _: int) -> bytes:
    if type(value) is not str:
        raise _wrong("a string", value)
    return value.encode()  # no half surrogates: see _whole


def _hex(value: Any, _: int) -> bytes:
    if type(value) is not str:
        raise _wrong("an id as hexadecimal text", value)
    try:
        return binascii.unhexlify(value)
    except ValueError:
        raise _Problem(
            f"{_shown(value)} is no hexadecimal id (OTLP/JSON ids are not base64)"
        ) from None


_URL_SAFE: Final = str.maketrans("-_", "+/")


def _base64(value: Any, _: int) -> bytes:
    if type(value) is not str:
        raise _wrong("bytes as base64 text", value)
    bare = value.translate(_URL_SAFE).rstrip("=")
    try:
        return binascii.a2b_base64(bare + "=" * (-len(bare) % 4), strict_mode=True)
    except ValueError:
        raise _Problem(f"{_shown(value)} is no base64") from None


def _wrong(expected: str, value: Any) -> _Problem:
    kinds = {dict: "an object", list: "a list", type(None): "null"}
    return _Problem(f"expected {expected}, got {kinds.get(type(value)) or _shown(value)}")


def _shown(value: Any) -> str:
    """A value in a message, short."""
    if type(value) is int and value.bit_length() > 128:
        return f"a number of {value.bit_length()} bits"
    text = json.dumps(value[:40] if type(value) is str else value)
    return text[:-1] + '…"' if type(value) is str and len(value) > 40 else text


for _signal in Signal:
    _message(OFFICIAL_REQUEST[_signal].DESCRIPTOR)
