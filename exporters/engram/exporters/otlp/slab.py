"""The bytes of many messages in one buffer, read by position and for all messages at once.

A slice of the slab is a pair of arrays, `at` and `size`, one entry a message. Position 0 belongs to
no message, so 0 can say that a field is not there; and there is padding behind the last byte, so
eight bytes can be loaded at any position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_INLINE: Final = 12
"""A string view of up to this many bytes holds them itself."""
_MASKS: Final = np.frombuffer(
    b"".join(b"\xff" * size + bytes(_INLINE - size) for size in range(_INLINE + 1)), "<i4"
).reshape(-1, 3)
_HEX: Final = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), "<u2")
_PADDING: Final = bytes(16)


class Slab:
    """One buffer; `u8`, `u16`, `i32` and `i64` load that much at any position, aligned or not.

    `at` and `size` are the slices of the parts it was made of.
    """

    def __init__(self, parts: list[bytes]) -> None:
        self.size = np.fromiter(map(len, parts), np.int64, len(parts))
        self.at = 1 + np.cumsum(self.size) - self.size
        self._lay(b"".join((b"\0", *parts, _PADDING)))

    def _lay(self, data: bytes) -> None:
        self._data = data
        self._buffer = pa.py_buffer(data)
        self.u8 = np.frombuffer(data, np.uint8)
        self.u16 = self._loads("<u2")
        self.i32 = self._loads("<i4")
        self.i64 = self._loads("<i8")

    def _loads(self, dtype: str) -> NDArray[Any]:
        size = np.dtype(dtype).itemsize
        return np.ndarray((len(self._data) - size + 1,), dtype, self._data, strides=(1,))

    def append(self, parts: list[bytes]) -> tuple[Ints, Ints]:
        """Add messages behind the others; returns where they are."""
        sizes = np.fromiter(map(len, parts), np.int64, len(parts))
        first = len(self._data) - len(_PADDING)
        self._lay(b"".join((self._data[:first], *parts, _PADDING)))
        return first + np.cumsum(sizes) - sizes, sizes

    def raws(self, at: Ints, size: Ints) -> list[bytes]:
        """Slices, each by itself."""
        data = self._data
        return [data[a : a + s] for a, s in zip(at.tolist(), size.tolist(), strict=True)]

    def views(self, at: Ints, size: Ints) -> pl.Series:
        """Slices as a Binary series that points into the slab; nothing long is copied."""
        view = np.zeros((len(at), 4), "<i4")
        view[:, 0] = size
        view[:, 1] = self.i32[at]
        view[:, 3] = at
        short = np.flatnonzero(size <= _INLINE)
        where, mask = at[short], _MASKS[size[short]]
        for word in range(3):
            view[short, word + 1] = self.i32[where + 4 * word] & mask[:, word]
        buffers = [None, pa.py_buffer(view), self._buffer]
        series = pl.from_arrow(pa.Array.from_buffers(pa.binary_view(), len(at), buffers))
        assert isinstance(series, pl.Series)  # noqa: S101
        return series

    def hex(self, at: Ints, size: Ints) -> pa.Array:
        """Slices as lower-case hexadecimal text, null where they are empty."""
        ends = np.cumsum(size)
        total = int(ends[-1]) if len(ends) else 0
        digits = _HEX[self.u8[np.repeat(at - ends + size, size) + np.arange(total)]]
        offsets = np.zeros(len(at) + 1, np.int32)
        offsets[1:] = 2 * ends
        there = size > 0
        valid = None if there.all() else pa.py_buffer(np.packbits(there, bitorder="little"))
        buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(digits)]
        return pa.Array.from_buffers(pa.string(), len(at), buffers)


def strings(values: Sequence[str | None]) -> pl.Series:
    """Texts as a String series, also where there is none to tell the type by."""
    return pl.Series(values, dtype=pl.String)


def distinct(values: pl.Series) -> tuple[Ints, Ints]:
    """Where each distinct value comes first, and for every row which of them it is."""
    frame = pl.DataFrame({"value": values}).with_row_index("row")
    first = frame.select(pl.col("row").first().over("value"))["row"].to_numpy()
    new = first == np.arange(len(first))
    return np.flatnonzero(new), (np.cumsum(new) - 1)[first]


def replaced(values: pl.Series, rows: Ints, by: pl.Series) -> pl.Series:
    """The series with other values in some rows."""
    if not len(rows):
        return values
    source = np.arange(len(values))
    source[rows] = len(values) + np.arange(len(rows))
    return pl.concat([values, by], rechunk=True).gather(source)
