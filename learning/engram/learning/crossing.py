"""Whether a limit will be crossed within a day, and when: disks, queues, latency, spend.

A leak is a trend that lasts. So the last day is compared with the day before, hour by hour, which
takes the daily shape out; the rise must be more than its noise, and it must still go on in the last
half day, which a step does not. What comes is today's shape, lifted as much as today was over
yesterday. Without two days the trend is that of the last day alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from engram.learning.changepoints import Series

_HOUR: Final = 3600
_DAY: Final = 24
_RISE: Final = 3.0
"""The rise of a day over the day before, in its standard errors."""

_GOES_ON: Final = 0.5
"""Share of the rise that the last half day must have at least."""

_RAREST: Final = 6
"""Hours between values, at most: with fewer a day has no shape."""

_ALIKE: Final = 6
"""Hours whose deviations count as one: they are autocorrelated."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """How probable it is within a day, and after how many seconds (None: not expected)."""

    probability: float
    after_s: float | None


_NEVER: Final = Crossing(0.0, None)


def crossing(values: Series, step_s: float, limit: float) -> Crossing:
    """Whether a series with a value each `step_s` seconds rises to `limit` within 24 hours."""
    hours = _hourly(np.asarray(values, np.float64).ravel(), step_s)
    if len(hours) < 2 * _DAY or not math.isfinite(limit):
        return _NEVER
    scale = max(float(np.abs(hours).max()), abs(limit)) or 1.0
    hours, limit = hours / scale, limit / scale
    if np.median(hours[-3:]) >= limit:
        return Crossing(1.0, 0.0)
    today, before = hours[-_DAY:], hours[-2 * _DAY : -_DAY]
    lift = today - before
    rise = float(np.median(lift))
    noise = 1.4826 * float(np.median(np.abs(lift - rise)))
    error = noise / math.sqrt(_DAY / _ALIKE)
    if rise <= _RISE * error or rise <= 1e-9:
        return _NEVER
    half = _DAY // 4
    shape = _shape(hours)
    rest = today - shape
    lately = float(np.median(rest[-half:]) - np.median(rest[-2 * half : -half]))
    if lately < _GOES_ON * rise * half / _DAY:
        return _NEVER
    steps = np.arange(1, _DAY + 1)
    level = float(np.median(rest[-3:]))
    comes = np.minimum(today + rise, level + shape + rise * steps / _DAY)
    comes = np.maximum(comes, np.median(today[-3:]) + rise * steps / _DAY * (shape.max() == 0))
    reached = np.flatnonzero(comes >= limit)
    margin = float(comes.max()) - limit
    spread = math.hypot(error, noise / 2) or 1e-9
    probability = 0.5 * (1 + math.erf(margin / spread / math.sqrt(2)))
    if not len(reached):
        return Crossing(min(probability, 0.49), None)
    return Crossing(max(probability, 0.5), float(steps[reached[0]] * _HOUR))


def _shape(hours: Series) -> Series:
    """The day's shape of the days before the last two, around 0; flat when there are too few."""
    past = hours[: -2 * _DAY] if len(hours) >= 5 * _DAY else hours[:0]
    days = len(past) // _DAY
    if days < 3:
        return np.zeros(_DAY)
    rows = past[len(past) - days * _DAY :].reshape(days, _DAY)
    return np.asarray(np.median(rows - np.median(rows, axis=1, keepdims=True), axis=0))


def _hourly(values: Series, step_s: float) -> Series:
    """Medians by hour, up to 14 days; gaps drawn over. Rarer values are held, up to a point."""
    known = np.flatnonzero(np.isfinite(values))
    if not len(known) or step_s > _RAREST * _HOUR:
        return values[:0]
    filled = np.interp(np.arange(known[0], len(values)), known, values[known])
    points = max(1, round(_HOUR / step_s))
    if step_s > _HOUR:
        return np.repeat(filled, max(1, round(step_s / _HOUR)))[-14 * _DAY :]
    hours = min(len(filled) // points, 14 * _DAY)
    return np.asarray(
        np.median(filled[len(filled) - hours * points :].reshape(hours, points), axis=1)
    )


__all__ = ["Crossing", "crossing"]
