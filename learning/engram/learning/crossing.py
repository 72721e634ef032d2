"""Whether a limit will be crossed within a day, and when: disks, queues, latency, spend.

A leak is a trend that lasts. So the last day is compared with the day before, hour by hour, which
takes the daily shape out; the rise must be more than its noise, and it must still go on in the last
half day, which a step does not. What comes is today's shape, lifted as much as today was over
yesterday. Without two days the trend is that of the last day alone.

What fills up within a day cannot wait for a day to pass. Where at least five days are known, the
last 16 hours, without their daily shape, are looked at too, in quarters: the second half must be
above the first by five times what such halves usually differ by in this series (so noise of any
memory is its own measure), and every quarter above the one before, which a step is not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

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


_SOON: Final = 16
"""Hours of a fast rise: 12 see it earlier and cry wolf more, 24 are what a day is for."""

_SOON_DAYS: Final = 5
"""Days that must be known to know what is usual in so few hours."""

_SOON_RISE: Final = 5.0
"""The difference of their halves, in usual ones: there is one question each hour, and their noise
has heavier tails than a normal distribution."""

_EACH: Final = 0.25
"""Share of an even rise that each quarter must have at least."""


_SEEN: Final = 0.75
"""Share of the hours of each quarter that must be known, and not drawn over."""

_STOPS: Final = 0.25
"""Uncertainty of a rise that goes on, as a share of it: leaks pause, and are mended."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """How probable it is within a day, and after how many seconds (None: not expected)."""

    probability: float
    after_s: float | None


_NEVER: Final = Crossing(0.0, None)


def crossing(values: Series, step_s: float, limit: float) -> Crossing:
    """Whether a series with a value each `step_s` seconds rises to `limit` within 24 hours."""
    hours, known = _hourly(np.asarray(values, np.float64).ravel(), step_s)
    if len(hours) < 2 * _DAY or not math.isfinite(limit):
        return _NEVER
    scale = max(float(np.abs(hours).max()), abs(limit)) or 1.0
    hours, limit = hours / scale, limit / scale
    if np.median(hours[-3:]) >= limit:
        return Crossing(1.0, 0.0)
    # A line that was drawn over a gap rises as evenly as nothing else does.
    both = known[-2 * _DAY :].reshape(2, _DAY).sum(axis=1)
    slow = _daily(hours, limit) if both.min() >= _DAY // 2 else _NEVER
    each = known[-_SOON:].reshape(4, -1)
    fast = _soon(hours, limit) if each.mean(axis=1).min() >= _SEEN else _NEVER
    return max(slow, fast, key=lambda one: one.probability)


def _daily(hours: Series, limit: float) -> Crossing:
    """By the last day and the one before it."""
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
    return _reached(comes, limit, math.hypot(error, noise / 2), hours)


def _soon(hours: Series, limit: float) -> Crossing:
    """By the last hours, against all such hours before."""
    if len(hours) < _SOON_DAYS * _DAY:
        return _NEVER
    shape = _shape(hours, but=1)
    rest = hours - np.tile(shape, len(hours) // _DAY + 1)[-len(hours) :]
    each = _SOON // 4
    quarters = np.median(rest[-_SOON:].reshape(4, each), axis=1)
    rise = _halves(quarters)
    slope = rise / (2 * each)
    if rise <= 1e-9 or not (np.diff(quarters) >= _EACH * slope * each).all():
        return _NEVER
    windows = np.lib.stride_tricks.sliding_window_view(rest[:-_SOON], _SOON)
    past = _halves(np.median(windows.reshape(-1, 4, each), axis=2).T)
    usual = float(np.median(past))
    noise = 1.4826 * float(np.median(np.abs(past - usual)))
    if rise - usual <= _SOON_RISE * noise:
        return _NEVER
    steps = np.arange(1, _DAY + 1)
    # The median of three hours is that of the one in the middle, an hour ago.
    comes = float(np.median(rest[-3:])) + slope * (steps + 1) + shape
    comes = comes[:_SOON]  # no farther than was seen
    return _reached(comes, limit, noise, hours)


def _halves(quarters: Series) -> Any:
    """By how much the second half is above the first."""
    return (quarters[3] + quarters[2] - quarters[1] - quarters[0]) / 2


def _reached(comes: Series, limit: float, noise: float, hours: Series) -> Crossing:
    """What is foreseen is uncertain by its noise, and by half of what is still to come."""
    reached = np.flatnonzero(comes >= limit)
    highest = float(comes.max())
    spread = math.hypot(noise, _STOPS * (highest - float(np.median(hours[-3:])))) or 1e-9
    probability = 0.5 * (1 + math.erf((highest - limit) / spread / math.sqrt(2)))
    if not len(reached):
        return Crossing(min(probability, 0.49), None)
    return Crossing(max(probability, 0.5), float((reached[0] + 1) * _HOUR))


def _shape(hours: Series, but: int = 2) -> Series:
    """The day's shape of the days before the last ones, around 0; flat when there are too few."""
    past = hours[: -but * _DAY] if len(hours) >= 5 * _DAY else hours[:0]
    days = len(past) // _DAY
    if days < 3:
        return np.zeros(_DAY)
    rows = past[len(past) - days * _DAY :].reshape(days, _DAY)
    return np.asarray(np.median(rows - np.median(rows, axis=1, keepdims=True), axis=0))


def _hourly(values: Series, step_s: float) -> tuple[Series, Any]:
    """Medians by hour, up to 14 days; gaps drawn over. Rarer values are held, up to a point.

    And which hours have a value of their own.
    """
    known = np.flatnonzero(np.isfinite(values))
    if not len(known) or step_s > _RAREST * _HOUR:
        return values[:0], values[:0]
    filled = np.interp(np.arange(known[0], len(values)), known, values[known])
    points = max(1, round(_HOUR / step_s))
    if step_s > _HOUR:
        each = max(1, round(step_s / _HOUR))
        seen: Any = np.repeat(np.isfinite(values[known[0] :]), each)
        return np.repeat(filled, each)[-14 * _DAY :], seen[-14 * _DAY :]
    hours = min(len(filled) // points, 14 * _DAY)
    by_hour = filled[len(filled) - hours * points :].reshape(hours, points)
    seen = np.isfinite(values[len(values) - hours * points :]).reshape(hours, points).any(axis=1)
    return np.asarray(np.median(by_hour, axis=1)), seen


__all__ = ["Crossing", "crossing"]
