"""Which records arrived lately: a bounded set of 64-bit hashes.

Set-associative like a processor's cache: a hash belongs to one bucket of eight, and a full bucket
forgets its oldest. Four million hashes are 33 MB, and a batch is looked up in one vectorised pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_WAYS = 8


class RecentHashes:
    """Remembers about `capacity` hashes; an old one is forgotten when its bucket is full."""

    def __init__(self, capacity: int = 1 << 22) -> None:
        buckets = max(1, capacity // _WAYS)
        self._bits = max(1, (buckets - 1).bit_length())
        self._table = np.zeros((1 << self._bits, _WAYS), np.uint64)
        self._next = np.zeros(1 << self._bits, np.uint8)

    def _buckets(self, hashes: NDArray[np.uint64]) -> NDArray[Any]:
        return (hashes >> np.uint64(64 - self._bits)).astype(np.int64)

    def new(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of `hashes` are neither remembered nor a repetition inside the array."""
        if not len(hashes):
            return np.zeros(0, bool)
        table = self._table[self._buckets(hashes)]
        known: NDArray[np.bool_] = (table == hashes[:, None]).any(axis=1)
        first = np.zeros(len(hashes), bool)
        first[np.unique(hashes, return_index=True)[1]] = True
        fresh: NDArray[np.bool_] = first & ~known
        return fresh

    def add(self, hashes: NDArray[np.uint64]) -> None:
        """Remember distinct hashes, oldest first."""
        if not len(hashes):
            return
        buckets = self._buckets(hashes)
        order = np.argsort(buckets, kind="stable")
        buckets, hashes = buckets[order], hashes[order]
        starts = np.flatnonzero(np.r_[True, buckets[1:] != buckets[:-1]])
        counts = np.diff(np.r_[starts, len(buckets)])
        rank = np.arange(len(buckets)) - np.repeat(starts, counts)
        self._table[buckets, (self._next[buckets] + rank) % _WAYS] = hashes
        firsts = buckets[starts]
        self._next[firsts] = (self._next[firsts] + counts) % _WAYS
