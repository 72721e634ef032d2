"""Change points: where the level of a series changes, and stays changed.

Piecewise constant by least squares, with a price for each change: `_PRICE` ln n of the variance of
the whole series, found by dynamic programming over a grid that is then refined. Telemetry is
autocorrelated, and a wandering level looks like steps: a change stays only when it is also more
than the long-run variance of what is left over, which grows with its lag-1 autocorrelation, would
do by chance. Single outliers are drawn in first; gaps are left out.

It looks for changes that matter in the range of the series: a step of less than about a quarter of
the greatest one in it is not found (cut the series there and ask again).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

_PRICE: Final = 3.0
_CHANCE: Final = 2.0
"""A change must be this many sqrt(2 ln n) of its standard error."""

_RHO: Final = 0.8
"""Autocorrelation that is believed at most: above it nothing would ever be a change."""

_SHORTEST: Final = 2
"""Points of a segment."""

_LEAST: Final = 6
"""Points of a series in which anything can be said."""

_GRID: Final = 128
_OUTLIER: Final = 6.0
"""Robust standard deviations from both neighbours' median."""

Series = npt.NDArray[np.float64]


def changepoints(values: npt.ArrayLike) -> list[int]:
    """Indices in `values` at which a new level begins, ascending. NaN and infinity are gaps."""
    said = np.asarray(values, np.float64).ravel()
    at = np.flatnonzero(np.isfinite(said))
    if len(at) < _LEAST:
        return []
    series = _standard(said[at])
    if series is None:
        return []
    sums = _Sums(tamed(series))
    cuts = _refined(sums, _segmented(sums))
    return [int(at[cut]) for cut in _by_more_than_chance(sums, cuts)]


class _Sums:
    """Sums of a series up to each point, so that the sum of any segment is one subtraction."""

    def __init__(self, series: Series) -> None:
        self.series = series - series.mean()
        self.n = len(series)
        self.upto = np.concatenate(([0.0], np.cumsum(self.series)))
        self.variance = float(np.mean(self.series**2))

    def explained(self, start: Any, end: Any) -> Any:
        """By how much a level of its own for start..end lowers the squared error."""
        return (self.upto[end] - self.upto[start]) ** 2 / (end - start)


def _standard(series: Series) -> Series | None:
    """Mean 0 and spread 1, without overflow on the way; None for a constant."""
    greatest = np.abs(series).max()
    if greatest == 0:
        return None
    series = series / greatest
    series = series - series.mean()
    spread = series.std()
    return None if spread < 1e-9 else series / spread


def tamed(series: Series) -> Series:
    """Single points far from their neighbours on both sides become the neighbours' median."""
    padded = np.concatenate((series[2:0:-1], series, series[-2:-4:-1]))
    n = len(series)
    around = np.sort([padded[0:n], padded[1 : n + 1], padded[3 : n + 3], padded[4 : n + 4]], axis=0)
    middle = (around[1] + around[2]) / 2
    off = np.abs(series - middle)
    usual = 1.4826 * np.median(off) or off.mean()
    # two equal points are no outlier, so the step itself and short pulses stay
    far = (off > _OUTLIER * usual) & (off > 2 * (around[3] - around[0]))
    return np.where(far, middle, series)


def _segmented(sums: _Sums) -> list[int]:
    """The cheapest segments on a grid: F(t) = min over s of F(s) - explained(s, t) + price."""
    step = max(1, -(-sums.n // _GRID))
    grid = np.append(np.arange(0, sums.n - step + 1 if step > 1 else sums.n, step), sums.n)
    start, end = grid[:, None], grid[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        cost = _PRICE * np.log(sums.n) * max(sums.variance, 1e-12) - sums.explained(start, end)
    cost[end - start < _SHORTEST] = np.inf
    columns = np.arange(len(grid))
    best, before = cost[0].copy(), np.zeros(len(grid), np.intp)
    for _ in columns:  # one more segment each time, until that helps no longer
        ways = best[:, None] + cost
        of = ways.argmin(axis=0)
        total = ways[of, columns]
        better = total < best - 1e-9
        if not better.any():
            break
        best[better], before[better] = total[better], of[better]
    cuts, place = [], int(before[-1])
    while place > 0:
        cuts.append(int(grid[place]))
        place = int(before[place])
    return cuts[::-1]


def _refined(sums: _Sums, cuts: list[int]) -> list[int]:
    """Each cut moved to the best place between its neighbours, twice."""
    for _ in range(2):
        for which, _cut in enumerate(cuts):
            left = cuts[which - 1] if which else 0
            right = cuts[which + 1] if which + 1 < len(cuts) else sums.n
            places = np.arange(left + _SHORTEST, right - _SHORTEST + 1)
            if len(places):
                gain = sums.explained(left, places) + sums.explained(places, right)
                cuts[which] = int(places[gain.argmax()])
    return cuts


def _by_more_than_chance(sums: _Sums, cuts: list[int]) -> list[int]:
    """Without the changes that such noise, as autocorrelated as it is, makes by itself."""
    needed = _CHANCE**2 * 2 * np.log(sums.n)
    while cuts:
        edges = np.array([0, *cuts, sums.n])
        sizes = np.diff(edges)
        levels = np.diff(sums.upto[edges]) / sizes
        rest = sums.series - np.repeat(levels, sizes)
        error = float(np.sum(rest**2)) / max(1, sums.n - len(sizes))
        rho = float(rest[1:] @ rest[:-1]) / max(float(rest @ rest), 1e-12)
        rho = min(_RHO, max(0.0, rho + 4 * len(sizes) / sums.n * (rho > 0)))
        error = max(error * (1 + rho) / (1 - rho), 1e-9)
        gains = sizes[:-1] * sizes[1:] / (sizes[:-1] + sizes[1:]) * np.diff(levels) ** 2 / error
        least = int(gains.argmin())
        if gains[least] >= needed:
            break
        del cuts[least]
    return cuts


__all__ = ["Series", "changepoints", "tamed"]
