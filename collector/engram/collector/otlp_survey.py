"""Which signal an OTLP request in protobuf is, and how many records it has.

The three kinds of request begin alike: resources (field 1), scopes (2), records (2). Only the
fields of a record differ. Nothing is parsed: tags are read and lengths jumped over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from engram.exporters.signals import Signal

_VARINT, _FIXED64, _LEN, _FIXED32 = 0, 1, 2, 5
_LOG: Final = frozenset({(1, _FIXED64), (11, _FIXED64), (2, _VARINT), (7, _VARINT), (8, _FIXED32)})
_SPAN: Final = frozenset(
    {(7, _FIXED64), (8, _FIXED64), (6, _VARINT), (10, _VARINT), (12, _VARINT), (14, _VARINT),
     (16, _FIXED32)}
)  # fmt: skip
_METRIC_DATA: Final = (5, 7, 9, 10, 11)

Slice = tuple[int, int, int, int]
"""Field number, wire type, begin and end of the value."""


def survey(body: bytes, signal: Signal | None = None) -> tuple[Signal | None, int]:
    """The signal (None: it cannot be told) and the number of spans, logs or metric points.

    Raises:
        ValueError: it is not framed like a request.
    """
    found = list(_records(body))
    for begin, end in found:
        signal = signal or _signal(body, begin, end)
        if signal is not None:
            break
    if signal is Signal.METRICS:
        return signal, sum(_points(body, begin, end) for begin, end in found)
    return signal, len(found)


def _fields(body: bytes, at: int, end: int) -> Iterator[Slice]:
    while at < end:
        tag, at = _varint(body, at, end)
        field, wire = tag >> 3, tag & 7
        begin = at
        if wire == _VARINT:
            _, at = _varint(body, at, end)
        elif wire == _FIXED64:
            at += 8
        elif wire == _FIXED32:
            at += 4
        elif wire == _LEN:
            size, begin = _varint(body, at, end)
            at = begin + size
        else:
            raise ValueError(f"at byte {begin} stands no field")
        if at > end or not field:
            raise ValueError(f"at byte {begin} a field runs past the end of its message")
        yield field, wire, begin, at


def _varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end:
        byte = body[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            break
    raise ValueError(f"at byte {at} a number does not end")


def _records(body: bytes) -> Iterator[tuple[int, int]]:
    for field, wire, begin, end in _fields(body, 0, len(body)):
        if (field, wire) != (1, _LEN):
            continue
        for field_, wire_, begin_, end_ in _fields(body, begin, end):
            if (field_, wire_) != (2, _LEN):
                continue
            for record in _fields(body, begin_, end_):
                if record[:2] == (2, _LEN):
                    yield record[2:]


def _signal(body: bytes, begin: int, end: int) -> Signal | None:
    fields = list(_fields(body, begin, end))
    kinds = {(field, wire) for field, wire, _, _ in fields}
    if kinds & _LOG:
        return Signal.LOGS
    if kinds & _SPAN:
        return Signal.TRACES
    sizes = {field: end_ - begin_ for field, _, begin_, end_ in fields}
    if (1, _LEN) in kinds:
        if sizes[1] == 16 and sizes.get(2) == 8 and not any(f in sizes for f in _METRIC_DATA[1:]):
            return Signal.TRACES
        return Signal.METRICS
    return Signal.LOGS if (5, _LEN) in kinds else None


def _points(body: bytes, begin: int, end: int) -> int:
    return sum(
        1
        for field, wire, first, last in _fields(body, begin, end)
        if wire == _LEN and field in _METRIC_DATA
        for point in _fields(body, first, last)
        if point[:2] == (1, _LEN)
    )
