"""A series of hours with a limit, and what is foreseen of it.

Hours are numbered from 1970; the last value is that of the hour before `end`, the first hour that
has not been yet. A gap is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from engram.learning.changepoints import Series as Values

if TYPE_CHECKING:
    import polars as pl

HOUR: Final = 3600 * 10**9
DAY_HOURS: Final = 24

HISTORY: Final = 8 * DAY_HOURS
"""Hours that are looked at: a week, so that a usual Monday is no rise, and the day that rises."""

LASTS: Final = 2
"""Hours in a row in which a crossing must be foreseen: what one hour brings, the next may take."""

Kind = Literal["latency", "error_budget", "saturation", "queue", "tokens", "regression"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A query for the ids of memories that a series was made from, the most telling first."""

    sql: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Watched:
    """A series and its limit."""

    kind: Kind
    service: str
    name: str
    """Operation or metric."""
    labels: str
    """What else tells it from others; may be empty."""
    unit: str
    limit: float
    limit_is: str
    """Where the limit is from."""
    end: int
    values: Values
    """What is compared with the limit."""
    adds: Values | None = None
    """For a budget, what each hour used of it; its values are then shares of the limit."""
    keeps: int = 0
    """For a budget, after how many hours what was used is given back; 0: at the end of the day."""
    evidence: Evidence = Evidence("", ())

    @property
    def key(self) -> tuple[str, ...]:
        """What makes it this series."""
        return (self.kind, self.service, self.name, self.labels)

    def between(self, first: int, last: int) -> Values:
        """Its values from the hour `first` up to the one before `last`."""
        begin = self.end - len(self.values)
        return self.values[max(0, first - begin) : max(0, last - begin)]

    @property
    def is_news(self) -> bool:
        """Whether it was below its limit for a day, as far as is known; and is known just now."""
        lately = self.values[-DAY_HOURS:]
        return bool(np.isfinite(lately[-3:]).any() and not (lately >= self.limit).any())


@dataclass(frozen=True, slots=True)
class Foreseen:
    """That a limit will be crossed. Hours are counted from `Watched.end`."""

    probability: float
    after: float
    """Hours until it is crossed, as is expected."""
    earliest: float
    latest: float | None
    """Where nine of ten such crossings are; None: not within the time that is foreseen."""
    low: float
    high: float
    """Where nine of ten values at the deadline are."""
    deadline: int
    """Hours until it must have come true."""


def foresee(series: Watched) -> Foreseen | None:
    """What is foreseen within a day; None when the limit is rather not crossed."""
    if not series.is_news:
        return None
    if series.adds is None:
        return _level(series)
    before = [_an_hour_ago(series, ago) for ago in range(1, LASTS)]
    if any(one is not None and _budget(one) is None for one in before):
        return None
    return _budget(series)


def _an_hour_ago(series: Watched, ago: int) -> Watched | None:
    """As it was known some hours before; None: that was another day's budget, or nothing was."""
    end = series.end - ago
    if not series.keeps and end // DAY_HOURS != series.end // DAY_HOURS:
        return None
    values, adds = series.values[:-ago], series.adds
    if adds is None or not np.isfinite(values).any():
        return None
    return replace(series, end=end, values=values, adds=adds[:-ago])


def _level(series: Watched) -> Foreseen | None:
    from engram.learning.crossing import crossing
    from engram.learning.forecast import forecast

    found = crossing(series.values, 3600, series.limit)
    if found.probability < 0.5 or not found.after_s:
        return None
    before = [crossing(series.values[:-ago], 3600, series.limit) for ago in range(1, LASTS)]
    if any(one.probability < 0.5 for one in before):
        return None
    comes = forecast(series.values, 3600, DAY_HOURS)
    after = found.after_s / 3600
    earliest, latest = _first(comes.hi90, series.limit), _first(comes.lo90, series.limit)
    return Foreseen(
        found.probability, after, min(earliest or after, after),
        None if latest is None else max(latest, after),
        float(comes.lo90[-1]), float(comes.hi90[-1]), DAY_HOURS,
    )  # fmt: skip


def _budget(series: Watched) -> Foreseen | None:
    """Of a sum that is used up: what it will be, from a forecast of what each hour adds."""
    from engram.learning.forecast import forecast

    adds = series.adds
    if adds is None:
        raise ValueError("a series without a budget")
    ahead = DAY_HOURS if series.keeps else DAY_HOURS - series.end % DAY_HOURS
    new_day = not series.keeps and series.end % DAY_HOURS == 0
    known = series.values[np.isfinite(series.values)]
    now = 0.0 if new_day else float(known[-1])
    comes = forecast(adds, 3600, ahead)
    back = np.zeros(ahead)
    if series.keeps:
        first = len(adds) - series.keeps
        there = adds[max(0, first) : max(0, first + ahead)]
        back[ahead - len(there) :] = np.nan_to_num(there)
    mean, low, high = (
        now + np.cumsum(np.maximum(one, 0.0) - back) for one in (comes.mean, comes.lo90, comes.hi90)
    )
    reached = _first(mean, series.limit)
    if reached is None:
        return None
    # The hours' errors are taken as one: a sum is no more certain than its parts.
    top = int(np.argmax(mean))
    spread = float(high[top] - low[top]) / (2 * 1.645) or 1e-9
    margin = (float(mean[top]) - series.limit) / spread
    probability = 0.5 * (1 + math.erf(margin / math.sqrt(2)))
    return Foreseen(
        max(probability, 0.5), reached, min(_first(high, series.limit) or reached, reached),
        _first(low, series.limit), float(low[-1]), float(high[-1]), ahead,
    )  # fmt: skip


def _first(values: Values, limit: float) -> float | None:
    found = np.flatnonzero(values >= limit)
    return float(found[0] + 1) if len(found) else None


def own_limit(values: Values, times: float = 0.0, least: float = 0.0) -> float | None:
    """A limit from the history before the last two days; None when that is less than two days.

    As far above the 99 % quantile as twice that above the median, `times` the median, and `least`.
    """
    past = values[: -2 * DAY_HOURS]
    past = past[np.isfinite(past)]
    if len(past) < 2 * DAY_HOURS:
        return None
    middle, high = float(np.median(past)), float(np.quantile(past, 0.99))
    return max(high + 2 * (high - middle), times * middle, least)


def hours(
    frame: pl.DataFrame, keys: Sequence[str], values: Sequence[str], end: int, *, fill: float
) -> Iterator[tuple[tuple[Any, ...], list[Values]]]:
    """Rows of (keys, hour, values) as arrays that end with the hour before `end`.

    Each begins with its first hour; an hour without a row is `fill`. In the order of the keys.
    """
    ordered = frame.sort([*keys, "hour"], nulls_last=True)
    for key, rows in ordered.group_by(list(keys), maintain_order=True):
        at = rows["hour"].to_numpy()
        first = int(at[0])
        made = []
        for name in values:
            array = np.full(end - first, fill)
            array[at - first] = rows[name].cast(float).to_numpy()
            made.append(array)
        yield key, made


__all__ = [
    "DAY_HOURS",
    "HISTORY",
    "HOUR",
    "Evidence",
    "Foreseen",
    "Kind",
    "Watched",
    "foresee",
    "hours",
    "own_limit",
]
