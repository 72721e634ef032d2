"""Vectors of 192 numbers in 66 bytes, and the search over them.

Each number becomes one of six levels (half steps around zero: -2.5 .. 2.5), three of them share a
byte (6 x 6 x 6 = 216), and two more bytes keep the length, so cosines come out right. A query is
not rounded: its products with the 216 patterns of every byte are made once, and a row's score is
64 look-ups. That is exact over all rows, without an index: 20 ms CPU for 100,000 rows.

Why not what LanceDB has: in 0.40 its search takes float16, float32 and (Hamming only) uint8, and
no fixed-size list is compressed, so 192 numbers are 384 bytes. Six levels lose nothing that the
ops sets can see (docs/adr/004-search-index.md).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIMS: Final = 192
CODE_BYTES: Final = DIMS // 3 + 2
CODE_VERSION: Final = "6x3"
"""Part of the index's identity."""

_LEVELS: Final = 6
_CLIP: Final = 2.2
"""Numbers beyond this many standard deviations take the outermost level."""

_ROWS_AT_ONCE: Final = 4_096


def pack(vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The codes of unit vectors (n x 192 -> n x 66). Zeros, which are no vector, score 0 always."""
    import numpy as np

    step = np.sqrt(np.mean(vectors**2, axis=1, keepdims=True)) * (_CLIP * 2 / _LEVELS)
    empty = step[:, 0] == 0
    step[empty] = 1
    levels = np.clip(np.floor(vectors / step) + _LEVELS // 2, 0, _LEVELS - 1)
    length = np.linalg.norm(levels - (_LEVELS - 1) / 2, axis=1)
    inverse = np.where(empty, 0, 1 / length).astype(np.float16)
    triples = levels.astype(np.uint8).reshape(len(vectors), DIMS // 3, 3)
    codes = np.empty((len(vectors), CODE_BYTES), dtype=np.uint8)
    codes[:, :-2] = triples[:, :, 0] * 36 + triples[:, :, 1] * 6 + triples[:, :, 2]
    codes[:, -2:] = inverse.view(np.uint8).reshape(-1, 2)
    return codes


def cosines(codes: NDArray[np.uint8], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """The cosine of a unit query with every code."""
    import numpy as np

    tables = np.ascontiguousarray(query.reshape(DIMS // 3, 3) @ _patterns().T)
    scores = np.zeros(len(codes), dtype=np.float32)
    for start in range(0, len(codes), _ROWS_AT_ONCE):
        part = codes[start : start + _ROWS_AT_ONCE]
        out = scores[start : start + _ROWS_AT_ONCE]
        for place, table in enumerate(tables):
            out += table.take(part[:, place])
    inverse = np.ascontiguousarray(codes[:, -2:]).view(np.float16)[:, 0]
    scores *= inverse
    return scores


@cache
def _patterns() -> NDArray[np.float32]:
    import numpy as np

    byte = np.arange(_LEVELS**3)
    levels = np.stack([byte // 36, byte // 6 % 6, byte % 6], axis=1)
    return (levels - (_LEVELS - 1) / 2).astype(np.float32)
