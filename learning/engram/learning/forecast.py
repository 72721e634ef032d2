"""What a series will be: a blend of closed forms, weighted by how they did lately.

Each form is a profile (none, the day, the week: medians by time of day or week), plus a level (what
is left, exponentially weighted, from slow to the last value) and, in one form of each profile, a
trend (the median slope). They forecast from several points of the past; a form counts by the
inverse fourth power of its mean error there. The interval is what the blend's own errors were at
those points, by how far ahead (conformal quantiles), so it is as wide as the series is hard.

Nothing is fitted by search: a forecast from a month of hours costs a millisecond. Gaps are drawn
over.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from engram.learning.changepoints import Series

_DAY: Final = 86_400
_RATES: Final = (0.2, 0.5, 0.9)
"""Share of a new value in the level."""

_MEMORY: Final = 200
"""Points of which a level is made."""

_TREND: Final = 96
"""Points of which a trend is made, at least; and four times the horizon."""

_PERIODS: Final = 14
"""Days (or weeks) in a profile."""

_POINTS: Final = 40_000
_ORIGINS: Final = 8
_SHARPNESS: Final = 4.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """Values by step ahead, and where nine of ten will be between. NaN when nothing is known."""

    mean: Series
    lo90: Series
    hi90: Series


def forecast(values: Series, step_s: float, horizon: int) -> Forecast:
    """The next `horizon` values of a series with one each `step_s` seconds, oldest first."""
    said = np.asarray(values, np.float64).ravel()[-_POINTS:]
    known = np.flatnonzero(np.isfinite(said))
    if not len(known):
        nothing = np.full(horizon, np.nan)
        return Forecast(nothing, nothing, nothing)
    scale = float(np.abs(said[known]).max()) or 1.0
    series = np.interp(np.arange(known[0], len(said)), known, said[known] / scale)
    origin, spread = float(np.median(series)), float(np.ptp(series))
    mean, below, above = _blend((series - origin) / (spread or 1.0), step_s, horizon)
    floor = 0.0 if series.min() >= 0 else -np.inf  # counts and durations stay what they are
    with np.errstate(over="ignore"):
        out = [
            np.nan_to_num(np.maximum(one * spread + origin, floor) * scale)
            for one in (mean, mean + below, mean + above)
        ]
    return Forecast(*out)


def _blend(series: Series, step_s: float, horizon: int) -> tuple[Series, Series, Series]:
    """The mean, and how far the interval reaches below (negative) and above it."""
    n = len(series)
    periods = _periods(n, step_s)
    now = np.array(list(_forms(series, periods, horizon)))
    ahead = min(horizon, max(1, n // 4))
    first = max(2 * max(periods) if periods[-1] else 0, n // 3, 3)
    origins = sorted({int(one) for one in np.linspace(first, n - ahead, _ORIGINS)}) if n > 4 else []
    origins = [one for one in origins if first <= one <= n - ahead]
    recent = n - ahead - np.arange(_ORIGINS) * ahead
    origins = [int(one) for one in recent if one >= first] or origins
    if not origins:
        mean = now.mean(axis=0)
        wide = np.full(horizon, 1.5 if np.ptp(series) else 0.0)
        return mean, -wide, wide
    past = np.array([list(_forms(series[:one], periods, ahead)) for one in origins])
    truth = np.array([series[one : one + ahead] for one in origins])
    errors = np.abs(past - truth[:, None]).mean(axis=2)
    weights = 1 / (np.mean(errors, axis=0) + 1e-6) ** _SHARPNESS
    weights /= weights.sum()
    off = truth - np.einsum("f,ofh->oh", weights, past)
    below, above = _interval(off, horizon)
    return weights @ now, below, above


def _periods(n: int, step_s: float) -> list[int]:
    """The profiles there is enough history for, in points; 0 is none."""
    found = [0]
    for seconds, least in ((_DAY, 3), (7 * _DAY, 3)):
        points = round(seconds / step_s)
        fits = abs(points * step_s - seconds) < step_s / 100 * points and points >= 4
        if fits and n >= least * points:
            found.append(points)
    return found


def _forms(series: Series, periods: list[int], horizon: int) -> Iterator[Series]:
    """What each form forecasts."""
    n = len(series)
    steps = np.arange(1, horizon + 1)
    for period in periods:
        if period:
            whole = min(n // period, _PERIODS)
            shape = series[n - whole * period :].reshape(whole, period)
            shape = _middle(shape - _middle(shape.T)[:, None])
            ahead = shape[(steps - 1) % period]
            used = min(whole * period, max(_MEMORY, _TREND, 4 * horizon))
            rest = series[n - used :] - shape[np.arange(-used, 0) % period]
        else:
            ahead = np.zeros(horizon)
            rest = series[-max(_MEMORY, _TREND, 4 * horizon) :]
        level = rest[-_MEMORY:] @ _decays(min(len(rest), _MEMORY))
        for one in level:
            yield ahead + one
        yield ahead + level[-2] + _slope(rest) * steps


@lru_cache(maxsize=256)
def _decays(n: int) -> Series:
    """Weights of n values, oldest first, for each rate."""
    age = np.arange(n)[::-1, None]
    weights = (1 - np.array(_RATES)) ** age
    return np.asarray(weights / weights.sum(axis=0))


def _slope(rest: Series) -> float:
    """Per step: the median of what half the series lies above the half before."""
    half = len(rest) // 2
    return float(_middle(rest[-half:] - rest[-2 * half : -half])) / half if half else 0.0


def _middle(rows: Series) -> Series:
    """The median of each column; `np.median` costs four times as much on so few."""
    ordered = np.sort(rows, axis=0)
    n = len(ordered)
    return np.asarray((ordered[(n - 1) // 2] + ordered[n // 2]) / 2)


def _interval(off: Series, horizon: int) -> tuple[Series, Series]:
    """5 % and 95 % of the errors, in three parts of the horizon, growing by the root beyond."""
    ahead = off.shape[1]
    edges = sorted({0, -(-ahead // 3), -(-2 * ahead // 3), ahead})
    places, low, high = [], [], []
    for start, end in itertools.pairwise(edges):
        part = np.sort(off[:, start:end].ravel())
        # errors of one origin are alike: as many count as there are origins
        rank = min(1.0, 0.95 * (1 + 1 / off.shape[0]))
        places.append((start + end + 1) / 2)
        low.append(min(0.0, float(np.quantile(part, 1 - rank))))
        high.append(max(0.0, float(np.quantile(part, rank))))
    steps = np.arange(1, horizon + 1)
    beyond = np.sqrt(np.maximum(steps, ahead) / ahead)
    return np.interp(steps, places, low) * beyond, np.interp(steps, places, high) * beyond


__all__ = ["Forecast", "forecast"]
