"""How far a number can be trusted: intervals of rates and ratios, exact tests, many tests at once.

Closed forms, no table of a library: Wilson (1927) for a rate, Newcombe (1998, method 10) for the
difference of two, Fisher's exact test for two rates of few, Benjamini and Hochberg (1995) where
many are tested, Student's t for means of few.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Final, NamedTuple

Z: Final = 1.959963984540054
"""95 % of a normal distribution are within so many standard deviations."""


class Interval(NamedTuple):
    """95 %, both ends."""

    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether there is a difference."""
        return self.low > 0 or self.high < 0


def wilson(k: float, n: float, z: float = Z) -> Interval:
    """A rate of k in n; numbers need not be whole (divided by a design effect)."""
    if n <= 0:
        return Interval(0.0, 1.0)
    rate = min(1.0, max(0.0, k / n))
    centre = rate + z * z / (2 * n)
    spread = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At 0 and n of n the closed form gives the end itself, but for rounding.
    low = 0.0 if k <= 0 else max(0.0, (centre - spread) / scale)
    high = 1.0 if k >= n else min(1.0, (centre + spread) / scale)
    return Interval(low, high)


def difference(k1: float, n1: float, k0: float, n0: float) -> Interval:
    """The rate k1 of n1 minus the rate k0 of n0."""
    if n1 <= 0 or n0 <= 0:
        return Interval(-1.0, 1.0)
    p1, p0 = k1 / n1, k0 / n0
    (low1, high1), (low0, high0) = wilson(k1, n1), wilson(k0, n0)
    below = math.hypot(p1 - low1, high0 - p0)
    above = math.hypot(high1 - p1, p0 - low0)
    return Interval(p1 - p0 - below, p1 - p0 + above)


def mean(values: Sequence[float]) -> Interval:
    """The mean of some independent values; two at least."""
    n = len(values)
    if n < 2:
        return Interval(-math.inf, math.inf)
    spread = student(n - 1) * stdev(values) / math.sqrt(n)
    centre = fmean(values)
    return Interval(centre - spread, centre + spread)


def student(freedom: float, z: float = Z) -> float:
    """What z is to the normal distribution, to Student's t (Cornish and Fisher's expansion).

    Without z: within so many standard errors are 95 %. Off by less than 1.5 % from 3 degrees of
    freedom on, up to z = 3.3; for 95 % of one and two the numbers are known.
    """
    if freedom <= 2 and z == Z:
        return 12.706 if freedom < 2 else 4.303
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def pooled(one: Sequence[float], other: Sequence[float]) -> tuple[float, Interval]:
    """Whether two means differ: two-sided p-value, and the interval of the difference.

    Variances are pooled: of groups this small (three days) nobody knows them apart.
    """
    n1, n0 = len(one), len(other)
    freedom = n1 + n0 - 2
    if min(n1, n0) < 2:
        return 1.0, Interval(-math.inf, math.inf)
    variance = ((n1 - 1) * stdev(one) ** 2 + (n0 - 1) * stdev(other) ** 2) / freedom
    error = math.sqrt(variance * (1 / n1 + 1 / n0))
    gap = fmean(one) - fmean(other)
    spread = student(freedom) * error
    interval = Interval(gap - spread, gap + spread)
    if error == 0:
        return (1.0 if gap == 0 else 0.0), interval
    score = abs(gap) / error
    low, high = 0.0, 40.0  # the expansion grows with z
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student(freedom, middle) < score else (low, middle)
    return math.erfc(low / math.sqrt(2)), interval


def fisher(k1: int, n1: int, k0: int, n0: int) -> float:
    """Two-sided p-value that k1 of n1 and k0 of n0 have one rate."""
    k = k1 + k0
    if not n1 or not n0 or not 0 < k < n1 + n0:
        return 1.0

    def log_weight(at: int) -> float:
        return _log_choose(n1, at) + _log_choose(n0, k - at)

    weights = [log_weight(at) for at in range(max(0, k - n0), min(k, n1) + 1)]
    most = max(weights)
    mine = log_weight(k1)
    total = sum(math.exp(one - most) for one in weights)
    as_rare = sum(math.exp(one - most) for one in weights if one <= mine + 1e-7)
    return min(1.0, as_rare / total)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def discoveries(p_values: Sequence[float], share: float = 0.05) -> list[bool]:
    """Which of many tests may be believed, with at most this share of them false."""
    n = len(p_values)
    order = sorted(range(n), key=lambda at: p_values[at])
    last = -1
    for rank, at in enumerate(order):
        if p_values[at] <= share * (rank + 1) / n:
            last = rank
    believed = [False] * n
    for at in order[: last + 1]:
        believed[at] = True
    return believed


__all__ = [
    "Interval",
    "Z",
    "difference",
    "discoveries",
    "fisher",
    "mean",
    "pooled",
    "student",
    "wilson",
]
