"""Vectors in few bytes, and the exact search over them: 192 numbers in 66 bytes.

Each number becomes one of six levels (half steps around zero: -2.5 .. 2.5), three of them share a
byte (6 x 6 x 6 = 216), and two more bytes keep the length, so cosines come out right. A query is
hardly rounded: its products with all pairs of such bytes are made once (2 ms), in 16 bits, and a
row's score is 32 look-ups. That is right to 0.0006 over all rows, without an index: 4 ms CPU for
100,000 rows (6 where they were in 32 bits).

Why not what LanceDB has: in 0.40 its search takes float16, float32 and (Hamming only) uint8, and
no fixed-size list is compressed, so 192 numbers are 384 bytes. Six levels lose nothing that the
ops sets can see (docs/adr/004-search-index.md).
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIMS: Final = 192
"""Of the built-in model's vectors in the index. Those of other models keep their own number."""

CODE_VERSION: Final = "6x3"
"""Part of the index's identity."""

_LEVELS: Final = 6
_BYTE: Final = _LEVELS**3
_CLIP: Final = 2.2
"""Numbers beyond this many standard deviations take the outermost level."""

_BLOCK: Final = 65_536
"""Rows whose scores are added up at once: they stay in the cache between look-ups."""


_BLOCKS_ALONE: Final = 4
"""Fewer blocks than these are not worth a second thread."""

_SPARSE: Final = 4
"""Of a block's rows, one in so many or fewer are gathered first."""

_MOST_SUM: Final = 32_767

_THREADS: Final = min(4, os.cpu_count() or 1)


def code_bytes(dims: int) -> int:
    """Bytes of the code of a vector of so many numbers."""
    return -(-dims // 3) + 2


CODE_BYTES: Final = code_bytes(DIMS)


def pack(vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The codes of unit vectors (n x dims -> n x bytes). Zeros, no vector, score 0 always."""
    import numpy as np

    count, dims = vectors.shape
    step = np.sqrt(np.mean(vectors**2, axis=1, keepdims=True)) * (_CLIP * 2 / _LEVELS)
    empty = step[:, 0] == 0
    step[empty] = 1
    levels = np.clip(np.floor(vectors / step) + _LEVELS // 2, 0, _LEVELS - 1)
    length = np.linalg.norm(levels - (_LEVELS - 1) / 2, axis=1)
    inverse = np.where(empty, 0, 1 / length).astype(np.float16)
    width = code_bytes(dims) - 2
    padded = np.zeros((count, width * 3), dtype=np.uint8)
    padded[:, :dims] = levels
    triples = padded.reshape(count, width, 3)
    codes = np.empty((count, width + 2), dtype=np.uint8)
    codes[:, :-2] = triples[:, :, 0] * 36 + triples[:, :, 1] * 6 + triples[:, :, 2]
    codes[:, -2:] = inverse.view(np.uint8).reshape(-1, 2)
    return codes


class Codes:
    """Codes in memory, by column, in the order they were added. Not for several threads."""

    def __init__(self, width: int) -> None:
        self._pairs = -(-(width - 2) // 2)
        self._count = 0
        self._columns: list[NDArray[np.uint16]] = []
        self._inverse: list[NDArray[np.float16]] = []

    def __len__(self) -> int:
        return self._count

    def append(self, codes: NDArray[np.uint8]) -> None:
        """Add rows at the end."""
        import numpy as np

        start = self._count
        self._count += len(codes)
        while len(self._columns) * _BLOCK < self._count:
            self._columns.append(np.zeros((self._pairs, _BLOCK), dtype=np.uint16))
            self._inverse.append(np.zeros(_BLOCK, dtype=np.float16))
        self.replace(np.arange(start, self._count), codes)

    def replace(self, places: NDArray[np.int64], codes: NDArray[np.uint8]) -> None:
        """Overwrite the rows at some places."""
        import numpy as np

        even = np.zeros((len(codes), self._pairs * 2), dtype=np.uint8)
        even[:, : codes.shape[1] - 2] = codes[:, :-2]
        pairs = even.view("<u2")
        inverse = np.ascontiguousarray(codes[:, -2:]).view(np.float16)[:, 0]
        blocks = places // _BLOCK
        for block in np.unique(blocks):
            here = blocks == block
            at = places[here] % _BLOCK
            self._columns[block][:, at] = pairs[here].T
            self._inverse[block][at] = inverse[here]

    def cosines(
        self, query: NDArray[np.float32], only: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """The cosine of a unit query with every row; 0 where `only` is given and false."""
        import numpy as np

        tables, unit = _tables(query, self._pairs)
        scores = np.zeros(self._count, dtype=np.float32)

        def add(block: int) -> None:
            start, end = block * _BLOCK, min((block + 1) * _BLOCK, self._count)
            some = None if only is None else np.flatnonzero(only[start:end])
            if some is not None and len(some) > (end - start) // _SPARSE:
                some = None
            if some is not None and not len(some):
                return
            # Looked up in memory's order by all rows, or by the few that are wanted.
            of = slice(0, end - start) if some is None else some
            total = np.zeros(end - start if some is None else len(some), dtype=np.int16)
            added = np.empty_like(total)
            for column, table in zip(self._columns[block], tables, strict=True):
                # Every number is in the table: "wrap" spares numpy a check, a third of the time.
                np.take(table, column[of], out=added, mode="wrap")
                total += added
            scores[start:end][of] = total * unit * self._inverse[block][of]

        if len(self._columns) < _BLOCKS_ALONE:
            for block in range(len(self._columns)):
                add(block)
        else:
            with ThreadPoolExecutor(_THREADS) as pool:  # numpy looks up without the GIL
                list(pool.map(add, range(len(self._columns))))
        if only is not None:
            scores[~only] = 0
        return scores


def cosines(codes: NDArray[np.uint8], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """The cosine of a unit query with every code."""
    kept = Codes(codes.shape[1])
    kept.append(codes)
    return kept.cosines(query)


def _tables(query: NDArray[np.float32], pairs: int) -> tuple[NDArray[np.int16], np.float32]:
    """For each pair of bytes, read as a little-endian number, what it adds to the product.

    In 16 bits, and what one of them is worth: no sum can be larger than fits.
    """
    import numpy as np

    padded = np.zeros(pairs * 6, dtype=np.float32)
    padded[: len(query)] = query
    exact = padded.reshape(-1, 3) @ _patterns().T
    most = float(np.abs(exact).max(axis=1).sum())
    unit = most / (_MOST_SUM - 2 * pairs) or 1.0  # each is rounded by a half at most
    of_byte = np.zeros((pairs * 2, 256), dtype=np.int16)
    of_byte[:, :_BYTE] = np.rint(exact / unit)
    both = np.empty((pairs, 256, 256), dtype=np.int16)
    # The greater byte is below 216 in every code: the rest of a table is never looked up.
    np.add(of_byte[1::2, :_BYTE, None], of_byte[0::2, None, :], out=both[:, :_BYTE])
    return both.reshape(pairs, 65_536), np.float32(unit)


@cache
def _patterns() -> NDArray[np.float32]:
    import numpy as np

    byte = np.arange(_BYTE)
    levels = np.stack([byte // 36, byte // 6 % 6, byte % 6], axis=1)
    return (levels - (_LEVELS - 1) / 2).astype(np.float32)
