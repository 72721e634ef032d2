"""Whether today differs from the day before, or only looks so.

Traffic has its hours, and errors and slowness come in bursts, so records are not independent and
the usual intervals are far too narrow: with a million requests everything differs. The hour is
the unit that is compared, each with the same hour of the period before.

* **counts**: of all that came in an hour of both periods, the share that came in the later one.
  Its Wilson interval, with counts divided by the dispersion between hours (Pearson's chi-square by
  its degrees of freedom), gives the interval of the ratio.
* **rates**: Newcombe's interval of the difference, with counts divided by the same dispersion.
* **quantiles**: Student's interval of the mean of log(p95 of the hour / p95 of the same hour).

Where there is too little in common nothing is said: `unknown`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from engram.learning.exposure import Exposure
from engram.learning.intervals import Interval, difference, mean, wilson
from engram.learning.report.words import times

HOURS: Final = 4
"""Hours that two periods must have in common: fewer say nothing about how hours differ."""
ENOUGH: Final = 20
"""Records of each period, or of an hour where its quantile is meant."""

Verdict = Literal["up", "down", "same", "unknown"]
Hours = Mapping[int, float]
"""A number for each hour of a period, counted from its begin."""


@dataclass(frozen=True, slots=True)
class Change:
    """A difference with its 95 % interval: of a ratio, or of a rate (in its own unit)."""

    verdict: Verdict
    interval: Interval | None = None
    ratio: bool = True

    @property
    def words(self) -> str:
        """`no change`, `up`, `down`, with the interval."""
        if self.interval is None:
            return "too little to compare"
        if self.ratio:
            between = f"{times(self.interval.low)} to {times(self.interval.high)}"
        else:
            low, high = (f"{100 * one:+.2f}".replace("-", "\u2212") for one in self.interval)
            between = f"{low} to {high} points"
        said = {"up": "up", "down": "down", "same": "no change that can be told"}[self.verdict]
        return f"{said} ({between})"


UNKNOWN: Final = Change("unknown")


def counts(now: Hours, before: Hours) -> Change:
    """How many came, as a ratio."""
    both = sorted(set(now) | set(before))
    if len(both) < HOURS or min(sum(now.values()), sum(before.values())) < 1:
        return UNKNOWN
    if sum(now.values()) + sum(before.values()) < ENOUGH:
        return UNKNOWN
    later = [int(now.get(hour, 0)) for hour in both]
    all_ = [int(now.get(hour, 0) + before.get(hour, 0)) for hour in both]
    seen = Exposure(tuple(all_), tuple(later))
    effect = seen.design_effect
    low, high = wilson(seen.k / effect, seen.n / effect)
    ratios = Interval(low / (1 - low), high / (1 - high) if high < 1 else math.inf)
    return Change(_verdict(Interval(ratios.low - 1, ratios.high - 1)), ratios)


def rates(now: tuple[Hours, Hours], before: tuple[Hours, Hours], least: int = ENOUGH) -> Change:
    """How often something happened: what happened by the hour, and of how many."""
    one, other = _exposure(*now), _exposure(*before)
    if one.n < least or other.n < least:
        return UNKNOWN
    effect = max(one.design_effect, other.design_effect)
    found = difference(one.k / effect, one.n / effect, other.k / effect, other.n / effect)
    return Change(_verdict(found), found, ratio=False)


def quantiles(now: Hours, before: Hours) -> Change:
    """A quantile by the hour (of hours with `ENOUGH` records), as a ratio."""
    logs = [
        math.log(now[hour] / before[hour])
        for hour in sorted(set(now) & set(before))
        if now[hour] > 0 and before[hour] > 0
    ]
    if len(logs) < HOURS:
        return UNKNOWN
    low, high = mean(logs)
    return Change(_verdict(Interval(low, high)), Interval(math.exp(low), math.exp(high)))


def _exposure(happened: Hours, of: Hours) -> Exposure:
    hours = sorted(of)
    return Exposure(
        tuple(int(of[hour]) for hour in hours), tuple(int(happened.get(hour, 0)) for hour in hours)
    )


def _verdict(of: Interval) -> Verdict:
    if not of.excludes_zero:
        return "same"
    return "up" if of.low > 0 else "down"


__all__ = ["ENOUGH", "HOURS", "UNKNOWN", "Change", "Hours", "counts", "quantiles", "rates"]
