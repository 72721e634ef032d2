"""The bounded set of recent hashes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engram.exporters.recent import RecentHashes

_HASHES = st.integers(1, 2**64 - 1)


def array(values: list[int]) -> NDArray[np.uint64]:
    """As a column."""
    return np.array(values, np.uint64)


def take(recent: RecentHashes, values: list[int]) -> list[int]:
    """What the engine does: find the new ones, remember them."""
    hashes = array(values)
    new = hashes[recent.new(hashes)]
    recent.add(new)
    return [int(value) for value in new]


@given(st.lists(st.lists(_HASHES, max_size=8), max_size=12))
def test_it_is_a_set_that_forgets_the_oldest(batches: list[list[int]]) -> None:
    """Each bucket is a Python list of its last eight: known are exactly those."""
    recent = RecentHashes(16)
    buckets: dict[int, list[int]] = {0: [], 1: []}
    for batch in batches:
        expected: list[int] = []
        for value in batch:
            if value not in buckets[value >> 63] and value not in expected:
                expected.append(value)
        assert take(recent, batch) == expected
        for value in expected:
            bucket = buckets[value >> 63]
            bucket.append(value)
            del bucket[:-8]


@given(st.sets(_HASHES, max_size=200), st.integers(1, 50))
def test_under_capacity_it_is_a_set(values: set[int], size: int) -> None:
    """With room to spare no batch is new a second time, in whatever split."""
    recent = RecentHashes(1 << 14)
    ordered = sorted(values, key=lambda v: v * 0x9E3779B97F4A7C15 % 2**64)
    spread = [v * 0x9E3779B97F4A7C15 % 2**64 or 1 for v in ordered]
    by_bucket: dict[int, int] = {}
    for value in spread:
        by_bucket[value >> 53] = by_bucket.get(value >> 53, 0) + 1
    fits = [value for value in spread if by_bucket[value >> 53] <= 8]
    for i in range(0, len(fits), size):
        assert take(recent, fits[i : i + size]) == fits[i : i + size]
    assert take(recent, fits[::-1]) == []


def test_repetitions_inside_one_array() -> None:
    """Of equal hashes in one array the first is new."""
    recent = RecentHashes(64)
    assert recent.new(array([5, 7, 5, 5, 7, 9])).tolist() == [True, True, False, False, False, True]
    assert recent.new(array([])).tolist() == []
    recent.add(array([]))


def test_memory_is_bounded() -> None:
    """A million hashes leave a small table small, and the latest are still known."""
    recent = RecentHashes(1 << 10)
    size = recent._table.nbytes
    chance = np.random.default_rng(1)
    for _ in range(10):
        last = chance.integers(1, 2**63, 100_000).astype(np.uint64) * np.uint64(2)
        recent.add(last[recent.new(last)])
    assert recent._table.nbytes == size <= (1 << 10) * 8 * 2
    assert not recent.new(last[-20:]).all()
