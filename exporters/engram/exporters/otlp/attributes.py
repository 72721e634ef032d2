"""Attributes: three quarters of what decoding costs, so they are handled by the batch.

Distinct attributes, as raw KeyValue bytes, have a number; a record is a run of these numbers.
The rest (joining the JSON text of a record, spreading the wanted values into columns) is done once
per batch, in Arrow. So an attribute that was seen before costs one dictionary access, made in C.

Texts are searched for secrets by the batch too: one pass in Rust tells the few that the redactor
has to read (2 µs a kilobyte, where reading it in Python takes 40).

A new one is parsed by hand where it has the common shape, a short key and one string, int, bool or
double: a message object costs three times as much. What keeps coming back is kept from batch to
batch, but not the values of keys that turn out to be different every time, nor long ones.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from json.encoder import encode_basestring
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from engram.exporters.otlp import wire
from engram.exporters.otlp.values import REDACTED, Redact, ValueWriter, double_json, key_json, text

_KEPT_BYTES: Final = 256
"""Longer attributes are texts and stacks, which seldom repeat."""
_KEPT_VALUES: Final = 512
"""A key with more distinct values than this is not worth keeping."""
_KEPT: Final = 50_000
_KEYS: Final = 10_000
_REDACTED_JSON: Final = f'"{REDACTED}"'

_double: Final = struct.Struct("<d").unpack_from


@dataclass(slots=True)
class _Key:
    json: str
    """With the colon behind it."""
    slot: int
    redacted: bool
    room: int = _KEPT_VALUES
    """How many more of its values are kept."""


@dataclass(slots=True)
class _Members:
    """Attributes by number."""

    json: list[str] = field(default_factory=list)
    """`"key":value`"""
    slotted: list[int] = field(default_factory=list)
    """Numbers of those whose key has a slot, and beside it the slot and the plain text."""
    slots: list[int] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)
    place: dict[int, int] = field(default_factory=dict)
    """Where in `slots` and `plain` a number's are."""
    unchecked: list[tuple[int, int, _Key]] = field(default_factory=list)
    """Texts that may hold a secret: their number, place in `plain` or -1, and key."""
    texts: list[str] = field(default_factory=list)


class Attributes(dict[bytes, int]):
    """`attributes[raw]` is the number of an attribute; below zero: in this batch only."""

    def __init__(self, redact: Redact, slot_of: dict[str, int]) -> None:
        super().__init__()
        self._redact = redact
        self._writer = ValueWriter(redact)
        self._slot_of = slot_of
        self._keys: dict[bytes, _Key] = {}
        self._kept = _Members()
        self._passing = _Members()
        self._arrow = pa.array([], pa.string())

    def reset(self) -> None:
        """Begin a new batch."""
        self._passing = _Members()
        if len(self) >= _KEPT or len(self._keys) >= _KEYS:
            self.clear()
            self._keys.clear()
            self._kept = _Members()
            self._arrow = self._arrow[:0]

    def __missing__(self, raw: bytes) -> int:
        key, json, plain, is_text = self._parse(raw)
        if key.room > 0 and len(raw) <= _KEPT_BYTES and len(self) < _KEPT:
            key.room -= 1
            members = self._kept
            number = at = self[raw] = len(members.json)
        else:
            members = self._passing
            at = len(members.json)
            number = ~at
        members.json.append(json)
        slotted = plain is not None and key.slot >= 0
        if is_text:
            members.unchecked.append((at, len(members.plain) if slotted else -1, key))
            members.texts.append(plain or "")
        if plain is not None and slotted:
            members.place[at] = len(members.plain)
            members.slotted.append(at)
            members.slots.append(key.slot)
            members.plain.append(plain)
        return number

    def known(self, number: int) -> tuple[str, int, str]:
        """A numbered attribute, settled: JSON text, slot or -1, plain text."""
        members, at = (self._kept, number) if number >= 0 else (self._passing, ~number)
        place = members.place.get(at, -1)
        if place < 0:
            return members.json[at], -1, ""
        return members.json[at], members.slots[place], members.plain[place]

    def member(self, raw: bytes) -> tuple[str, int, str]:
        """One raw KeyValue by itself: JSON text, slot or -1, plain text."""
        key, json, plain = self._parse_redacted(raw)
        return json, -1 if plain is None else key.slot, plain or ""

    def object(self, raw_pairs: Iterable[bytes]) -> str:
        """Raw KeyValues as the text of a JSON object."""
        return f"{{{','.join([self._parse_redacted(raw)[1] for raw in raw_pairs])}}}"

    # ------------------------------------------------------------------ one attribute

    def settle(self) -> None:
        """Replace the secrets in what is new; to be called before `join` and `columns`."""
        for members in (self._kept, self._passing):
            for i in self._redact.suspicious(members.texts):
                at, place, key = members.unchecked[i]
                plain = self._redact.text(members.texts[i])
                members.json[at] = key.json + encode_basestring(plain)
                if place >= 0:
                    members.plain[place] = plain
            members.texts.clear()
            members.unchecked.clear()

    def _parse_redacted(self, raw: bytes) -> tuple[_Key, str, str | None]:
        key, json, plain, is_text = self._parse(raw)
        if is_text and plain is not None:
            plain = self._redact.text(plain)
            json = key.json + encode_basestring(plain)
        return key, json, plain

    def _parse(self, raw: bytes) -> tuple[_Key, str, str | None, bool]:
        """Key, `"key":value` as JSON, plain text or None, and whether secrets may yet be in it.

        By hand where the bytes are what every encoder writes for a short key and a plain value:
        tag, length, key; tag, length, value; nothing else. All other shapes, and bytes that end
        early or are no UTF-8, are protobuf's.
        """
        try:
            at = 2 + raw[1]
            if raw[0] != 0x0A or at > 129 or raw[at] != 0x12:
                return self._parse_slowly(raw)
            key = self._keys.get(raw[2:at]) or self._key(raw[2:at])
            size = raw[at + 1]
            at += 2
            if size > 127:
                size += (raw[at] << 7) - 128
                at += 1
            if at + size != len(raw) or size > 16383:
                return self._parse_slowly(raw)
            tag = raw[at]
            if tag == 0x0A:
                size = raw[at + 1]
                at += 2
                if size > 127:
                    size += (raw[at] << 7) - 128
                    at += 1
                if at + size != len(raw):
                    return self._parse_slowly(raw)
                plain = raw[at:].decode()
                if not key.redacted:
                    return key, key.json + encode_basestring(plain), plain, True
            elif tag == 0x18:
                if at + 2 == len(raw) and raw[at + 1] < 128:
                    plain = str(raw[at + 1])
                else:
                    number = _varint(raw, at + 1)
                    if number is None:
                        return self._parse_slowly(raw)
                    plain = str(number)
            elif tag == 0x10 and size == 2 and raw[at + 1] < 2:
                plain = "true" if raw[at + 1] else "false"
            elif tag == 0x21 and size == 9:
                plain = double_json(_double(raw, at + 1)[0])
            else:
                return self._parse_slowly(raw)
        except (IndexError, UnicodeDecodeError):
            return self._parse_slowly(raw)
        if key.redacted:
            return key, key.json + _REDACTED_JSON, REDACTED, False
        return key, key.json + plain, plain, False

    def _parse_slowly(self, raw: bytes) -> tuple[_Key, str, str | None, bool]:
        pair = wire.KeyValue.FromString(raw)
        name, value, plain = self._writer.member(pair)
        return self._key(pair.key), f"{name}:{value}", None if pair.key_strindex else plain, False

    def _key(self, raw: bytes) -> _Key:
        known = self._keys.get(raw)
        if known is None:
            name = text(raw)
            known = _Key(f"{key_json(raw)}:", self._slot_of.get(name, -1), self._redact.key(name))
            if len(self._keys) < _KEYS:
                self._keys[raw] = known
        return known

    # ------------------------------------------------------------------ a batch

    def join(self, numbers: list[int], ends: Any) -> Any:
        """The JSON objects of records: the numbers of all of them, and where each record ends."""
        kept = self._kept.json
        if len(self._arrow) < len(kept):
            new = pa.array(kept[len(self._arrow) :], pa.string())
            self._arrow = pa.concat_arrays([self._arrow, new])
        texts = pa.concat_arrays([self._arrow, pa.array(self._passing.json, pa.string())])
        offsets = pa.array(np.concatenate(([0], ends)).astype(np.int32))
        members = texts.take(pa.array(self._places(numbers)))
        joined = pc.binary_join(pa.ListArray.from_arrays(offsets, members), ",")
        return pc.binary_join_element_wise("{", joined, "}", "")

    def _places(self, numbers: list[int]) -> Any:
        """Numbers as places in the kept attributes followed by the passing ones."""
        places = np.array(numbers, np.int64)
        return np.where(places < 0, len(self._kept.json) + ~places, places)

    def columns(self, names: list[str], numbers: list[int], ends: Any) -> dict[str, pl.Series]:
        """The plain values of the wanted attributes that are there, as one column per key."""
        kept, passing = self._kept, self._passing
        slotted = np.array(kept.slotted + [len(kept.json) + at for at in passing.slotted], np.int64)
        of = np.full(len(kept.json) + len(passing.json), -1, np.int32)
        of[slotted] = np.arange(len(slotted), dtype=np.int32)
        entries = of[self._places(numbers)]
        found = np.flatnonzero(entries >= 0)
        if not len(found):
            return {}
        entries = entries[found]
        rows = np.searchsorted(ends, found, side="right")
        slots = np.array(kept.slots + passing.slots, np.int16)[entries]
        order = np.argsort(slots, kind="stable")
        present, starts = np.unique(slots[order], return_index=True)
        plain = pa.array(kept.plain + passing.plain, pa.string())
        made = {}
        for slot, mine in zip(present.tolist(), np.split(order, starts[1:]), strict=True):
            column = np.full(len(ends), -1, np.int32)
            column[rows[mine]] = entries[mine]  # of equal keys in one record the last one counts
            values = plain.take(pa.array(column, mask=column < 0))
            made[names[slot]] = pl.Series(f"attr:{names[slot]}", values)
        return made


def _varint(raw: bytes, at: int) -> int | None:
    """The varint that fills `raw` from `at`; None for what is longer, or negative (ten bytes)."""
    number = shift = 0
    while raw[at] > 127:
        number |= (raw[at] & 127) << shift
        shift += 7
        at += 1
    if shift > 56 or at + 1 != len(raw):
        return None
    return number | raw[at] << shift
