"""Attributes and values by the batch: three quarters of what decoding costs.

All attributes of a batch, of spans, events, logs and points alike, are slices of one slab. Equal
ones are found first (two thirds are repetitions), and only the distinct ones are read: in step,
where they have a short key and one string, int, bool or double; all other shapes one by one.
Then Arrow gathers the JSON text of each record, and the wanted values into columns.

Texts are searched for secrets by the batch too: one pass in Rust tells the few that the redactor
has to read (2 µs a kilobyte, where reading it in Python takes 40).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from engram.exporters.otlp import wire
from engram.exporters.otlp.slab import Ints, Slab, distinct, replaced, strings
from engram.exporters.otlp.values import REDACTED, Redact, ValueWriter, double_json, key_json, text
from engram.exporters.otlp.walk import Found, Shape, walk

_KEYS: Final = 10_000
_PAIR: Final = Shape(wire.KeyValue)
_VALUE: Final = Shape(wire.AnyValue)
_UNSAFE: Final = r'[\x00-\x1f"\\]'
"""What JSON text cannot hold as it is."""
_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_CONTROL: Final = r"[\x00-\x1f]"


@dataclass(frozen=True, slots=True)
class Group:
    """Values of one kind."""

    rows: Ints
    """Which of the values."""
    quote: str
    inner: pl.Series
    """The JSON text inside the quotes, or all of it where there are none."""
    plain: pl.Series
    """The string itself, or JSON; null where there is no value."""


class Values:
    """Reads AnyValue messages, many at once, and replaces the secrets in texts."""

    def __init__(self, redact: Redact) -> None:
        self._redact = redact
        self._writer = ValueWriter(redact)

    def read(self, slab: Slab, at: Ints, size: Ints) -> list[Group]:
        """The values in groups; every row is in exactly one."""
        found = walk(_VALUE, slab, at, size)
        tags = np.where(~found.odd & (found.fields == 1), slab.u8[at], 0)
        groups = []
        quoted = np.flatnonzero(tags == _STRING)
        if len(quoted):
            where, length = found.slice("string_value")
            rows, plain = _texts(slab, where[quoted], length[quoted])
            tags[quoted] = 0
            quoted = quoted[rows]
            tags[quoted] = _STRING
            plain = self.redacted(plain)
            groups.append(Group(quoted, '"', _escaped(plain), plain))
        for tag, name, write in _NUMBERS:
            rows = np.flatnonzero(tags == tag)
            if len(rows):
                plain = write(found.number(name)[rows])
                groups.append(Group(rows, "", plain, plain))
        rest = np.flatnonzero(~np.isin(tags, _SIMPLE))
        if len(rest):
            groups.append(self._slowly(rest, slab.raws(at[rest], size[rest])))
        return groups

    def _slowly(self, rows: Ints, raws: list[bytes]) -> Group:
        json: list[str] = []
        plain: list[str | None] = []
        for raw in raws:
            value = wire.AnyValue.FromString(raw)
            kind = value.WhichOneof("value")
            if kind == "string_value":  # no UTF-8
                written, shown = self._writer.string(value.string_value)
                json.append(written)
                plain.append(shown)
            else:
                json.append(self._writer.value(value))
                plain.append(json[-1] if kind else None)
        return Group(rows, "", strings(json), strings(plain))

    def redacted(self, plain: pl.Series) -> pl.Series:
        """The texts with their secrets replaced."""
        rows = np.asarray(self._redact.suspicious(plain), np.int64)
        return replaced(plain, rows, strings([*map(self._redact.text, plain.gather(rows))]))


def _texts(slab: Slab, at: Ints, size: Ints) -> tuple[Ints, pl.Series]:
    """Slices as text, and which of them those are: all that are UTF-8."""
    try:
        return np.arange(len(at)), slab.views(at, size).cast(pl.String)
    except pl.exceptions.ComputeError:
        rows = np.flatnonzero([_is_text(raw) for raw in slab.raws(at, size)])
        return rows, slab.views(at[rows], size[rows]).cast(pl.String)


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _escaped(plain: pl.Series) -> pl.Series:
    """The texts as they stand inside the quotes of a JSON string."""
    rows = plain.str.contains(_UNSAFE).arg_true().to_numpy().astype(np.int64)
    if not len(rows):
        return plain
    written = plain.gather(rows)
    for character, escape in _ESCAPES.items():
        written = written.str.replace_all(character, escape, literal=True)
    rare = written.str.contains(_CONTROL).arg_true().to_numpy().astype(np.int64)
    if len(rare):
        texts = [encode_basestring(text)[1:-1] for text in plain.gather(rows[rare])]
        written = replaced(written, rare, strings(texts))
    return replaced(plain, rows, written)


def _integers(numbers: Ints) -> pl.Series:
    return pl.Series(numbers).cast(pl.String)


def _booleans(numbers: Ints) -> pl.Series:
    return strings(["false", "true"]).gather((numbers != 0).astype(np.int64))


def _doubles(numbers: Ints) -> pl.Series:
    return strings([*map(double_json, numbers.view(np.float64).tolist())])


_STRING: Final = 0x0A
_NUMBERS: Final = (
    (0x18, "int_value", _integers),
    (0x10, "bool_value", _booleans),
    (0x21, "double_value", _doubles),
)
"""Tags of AnyValue, its fields, and how a column of them is written."""
_SIMPLE: Final = (_STRING, *(tag for tag, _, _ in _NUMBERS))


@dataclass(frozen=True, slots=True)
class _Key:
    json: str
    """With a comma before it and a colon behind."""
    slot: int
    redacted: bool


@dataclass(frozen=True, slots=True)
class Members:
    """The attributes of a batch: the distinct ones, and which of them each one is."""

    texts: pl.Series
    """`,"key":value` of each distinct attribute, then `}` and `,}`."""
    plain: pl.Series
    """The plain value of each, null where there is none; and one null behind them."""
    slots: NDArray[np.int16]
    """The slot of each one's key, -1 where nobody wants it or it has no value."""
    codes: Ints
    """By attribute: which of the distinct ones."""

    def part(self, first: int, last: int) -> Members:
        """The attributes from `first` up to `last`."""
        return Members(self.texts, self.plain, self.slots, self.codes[first:last])

    def objects(self, ends: Ints) -> pa.Array:
        """The JSON objects of records, whose attributes end at `ends`.

        Members and closing braces are gathered into one run of text, of which each record is a
        slice; the comma that begins it becomes its opening brace.
        """
        records, total = len(ends), len(self.codes) + len(ends)
        counts = np.diff(ends, prepend=0)
        closing = ends + np.arange(records)
        order = np.empty(total, np.int64)
        is_member = np.ones(total, bool)
        is_member[closing] = False
        order[is_member] = self.codes
        order[closing] = len(self.texts) - np.where(counts > 0, 2, 1)
        run = self.texts.gather(order).to_arrow(compat_level=pl.CompatLevel.oldest())
        _, offsets, data = run.buffers()
        begins = np.zeros(records + 1, np.int32)
        begins[1:] = np.frombuffer(offsets, np.int64)[closing + 1]
        written = np.frombuffer(data, np.uint8).copy() if records else np.zeros(0, np.uint8)
        written[begins[:-1]] = _OPEN
        buffers = [None, pa.py_buffer(begins), pa.py_buffer(written)]
        return pa.Array.from_buffers(pa.string(), records, buffers)

    def columns(self, names: list[str], ends: Ints) -> dict[str, pl.Series]:
        """The plain values of the wanted attributes that are there, as one column per key."""
        slots = self.slots[self.codes]
        found = np.flatnonzero(slots >= 0)
        if not len(found):
            return {}
        slots = slots[found]
        rows = np.searchsorted(ends, found, side="right")
        order = np.argsort(slots, kind="stable")
        present = np.flatnonzero(np.bincount(slots))
        starts = np.searchsorted(slots[order], present)
        made = {}
        for slot, mine in zip(present.tolist(), np.split(order, starts[1:]), strict=True):
            column = np.full(len(ends), len(self.plain) - 1, np.uint32)
            column[rows[mine]] = self.codes[found[mine]]  # of equal keys the last one counts
            made[names[slot]] = self.plain.gather(column).alias(f"attr:{names[slot]}")
        return made


_OPEN: Final = ord("{")


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some of the distinct attributes."""

    rows: Ints
    texts: pl.Series
    plain: pl.Series
    slots: NDArray[np.int16]


class Attributes:
    """Reads KeyValue messages, many at once."""

    def __init__(self, redact: Redact, slot_of: dict[str, int]) -> None:
        self._redact = redact
        self._writer = ValueWriter(redact)
        self._values = Values(redact)
        self._slot_of = slot_of
        self._keys: dict[bytes, _Key] = {}

    def object(self, raw_pairs: Iterable[bytes]) -> str:
        """A few KeyValues as the text of a JSON object."""
        return self._writer.object(map(wire.KeyValue.FromString, raw_pairs))

    def read(self, slab: Slab, at: Ints, size: Ints) -> Members:
        """All attributes of a batch, their secrets replaced."""
        if not len(at):
            return Members(_closed([]), strings([None]), np.zeros(0, np.int16), at)
        first, codes = distinct(slab.views(at, size))
        at, size = at[first], size[first]
        pairs = walk(_PAIR, slab, at, size)
        (key_at, _), (value_at, _) = pairs.slice("key"), pairs.slice("value")
        usual = ~pairs.odd & (value_at > 0) & (pairs.fields == 1 + (key_at > 0))
        pieces: list[_Piece] = []
        if usual.any():
            pieces += self._by_kind(slab, pairs, np.flatnonzero(usual))
        if not usual.all():
            rest = np.flatnonzero(~usual)
            pieces.append(self._slowly(rest, slab.raws(at[rest], size[rest])))
        order = np.empty(len(at), np.int64)
        order[np.concatenate([piece.rows for piece in pieces])] = np.arange(len(at))
        plain = pl.concat([*(piece.plain for piece in pieces), strings([None])], rechunk=True)
        slots = np.concatenate([piece.slots for piece in pieces])
        slots[plain[:-1].is_null().to_numpy()] = -1
        return Members(_closed([piece.texts for piece in pieces]), plain, slots, order[codes])

    def _by_kind(self, slab: Slab, pairs: Found, rows: Ints) -> Iterator[_Piece]:
        """Attributes that are a key and a value and nothing else."""
        key_at, key_size = (column[rows] for column in pairs.slice("key"))
        value_at, value_size = (column[rows] for column in pairs.slice("value"))
        first, key_of = distinct(slab.views(key_at, key_size))
        keys = [*map(self._key, slab.raws(key_at[first], key_size[first]))]
        slots = np.array([key.slot for key in keys], np.int16)[key_of]
        hidden = np.array([key.redacted for key in keys])[key_of]
        shown, hidden = np.flatnonzero(~hidden), np.flatnonzero(hidden)
        groups = [
            Group(shown[group.rows], group.quote, group.inner, group.plain)
            for group in self._values.read(slab, value_at[shown], value_size[shown])
        ]
        if len(hidden):
            instead = strings([REDACTED]).new_from_index(0, len(hidden))
            groups.append(Group(hidden, '"', instead, instead))
        for group in groups:
            prefix = strings([key.json + group.quote for key in keys]).gather(key_of[group.rows])
            text_ = pl.concat_str(prefix, group.inner, pl.lit(group.quote))
            mine = rows[group.rows], slots[group.rows]
            yield _Piece(mine[0], pl.select(text_).to_series(), group.plain, mine[1])

    def _slowly(self, rows: Ints, raws: list[bytes]) -> _Piece:
        """The others, by protobuf."""
        texts: list[str] = []
        plain: list[str | None] = []
        slots: list[int] = []
        for raw in raws:
            pair = wire.KeyValue.FromString(raw)
            name, value, shown = self._writer.member(pair)
            texts.append(f",{name}:{value}")
            plain.append(None if pair.key_strindex else shown)
            slots.append(self._key(pair.key).slot)
        return _Piece(rows, strings(texts), strings(plain), np.array(slots, np.int16))

    def _key(self, raw: bytes) -> _Key:
        known = self._keys.get(raw)
        if known is None:
            name = text(raw)
            known = _Key(f",{key_json(raw)}:", self._slot_of.get(name, -1), self._redact.key(name))
            if len(self._keys) >= _KEYS:
                self._keys.clear()
            self._keys[raw] = known
        return known


def _closed(texts: list[pl.Series]) -> pl.Series:
    """The texts with what closes an object behind them: after members, and without any."""
    return pl.concat([*texts, strings(["}", ",}"])], rechunk=True)
