"""Whether an operation's usual duration or share of errors has changed, and since when.

An hour is compared with the same hour of the days before (the median of up to seven), so that what
rises every morning is nothing new. A level has changed when the six newest hours all differ in the
same direction, by a fifth in the mean, and by more than the differences of the days before explain.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal

from engram.learning.jobs.performance.hours import Hour, added

HOURS: Final = 6
"""Newest hours that must agree."""
LEAST_RUNS: Final = 20
"""Of an hour; one with fewer says nothing."""
EACH: Final = math.log(1.1)
MEAN: Final = math.log(1.2)
LEAST_MS: Final = 5.0
SIGMAS: Final = 6.0
DAYS: Final = 7
NORMAL: Final = 1.4826
"""Standard deviations of a normal distribution in a median absolute deviation."""
LEAST_NOISE: Final = 0.02
"""Of a log-duration: buckets are 6 % wide."""

ERROR_HOURS: Final = 2
ERROR_RUNS: Final = 200
ERROR_SHARE: Final = 0.02
"""Percentage points that the share of errors must have risen, in all."""


@dataclass(frozen=True, slots=True)
class Change:
    """A level that changed."""

    what: Literal["latency", "errors"]
    since: int
    """The first hour of the new level."""
    known: int
    """The hour at whose end it was known."""
    before: Hour
    after: Hour
    size: float
    """latency: the ratio of the medians. errors: the difference of the shares."""
    low: float
    high: float
    """95 % interval of it."""


def changes(hours: Mapping[int, Hour], first: int, end: int) -> Iterator[Change]:
    """The changes that became known at the end of an hour from `first` to before `end`."""
    found: set[tuple[str, int]] = set()
    for hour in range(first, end):
        for one in (_latency(hours, hour), _errors(hours, hour)):
            if one is None:
                continue
            # While a level is high it goes on being so: only its beginning is a change.
            if (one.what, one.since) not in found and not _told(hours, one, hour):
                found.add((one.what, one.since))
                yield one


def _told(hours: Mapping[int, Hour], one: Change, hour: int) -> bool:
    before = _latency(hours, hour - 1) if one.what == "latency" else _errors(hours, hour - 1)
    return before is not None and (before.size > 1) == (one.size > 1)


def differences(hours: Mapping[int, Hour], hour: int) -> float | None:
    """log(median of an hour / usual median of that hour of the day)."""
    now = hours.get(hour)
    if now is None or now.runs < LEAST_RUNS:
        return None
    past = [
        one.quantile(0.5) for day in range(1, DAYS + 1)
        if (one := hours.get(hour - 24 * day)) is not None and one.runs >= LEAST_RUNS
    ]  # fmt: skip
    if not past:
        return None
    return math.log(max(now.quantile(0.5), 1e-6) / max(median(past), 1e-6))


def _latency(hours: Mapping[int, Hour], hour: int) -> Change | None:
    newest = [differences(hours, one) for one in range(hour - HOURS + 1, hour + 1)]
    said = [one for one in newest if one is not None]
    if len(said) < HOURS:
        return None
    mean = sum(said) / HOURS
    sign = 1 if mean > 0 else -1
    if abs(mean) < MEAN or any(sign * one < EACH for one in said):
        return None
    past = [
        one for at in range(hour - HOURS - 24 * 3, hour - HOURS + 1)
        if (one := differences(hours, at)) is not None
    ]  # fmt: skip
    middle = median(past) if past else 0.0
    noise = max(LEAST_NOISE, NORMAL * median([abs(one - middle) for one in past] or [0.1]))
    if abs(mean) < SIGMAS * noise / math.sqrt(HOURS):
        return None
    since = hour - HOURS + 1
    after = added([hours[one] for one in range(since, hour + 1)])
    same = [one - 24 * day for one in range(since, hour + 1) for day in range(1, DAYS + 1)]
    before = added([hours[one] for one in same if one in hours])
    if abs(after.quantile(0.5) - before.quantile(0.5)) < LEAST_MS:
        return None
    spread = math.sqrt(sum((one - mean) ** 2 for one in said) / (HOURS - 1) / HOURS)
    width = 2.571 * max(spread, noise / math.sqrt(HOURS))  # Student's t with 5 degrees of freedom
    return Change(
        "latency", since, hour, before, after,
        math.exp(mean), math.exp(mean - width), math.exp(mean + width),
    )  # fmt: skip


def _errors(hours: Mapping[int, Hour], hour: int) -> Change | None:
    since = hour - ERROR_HOURS + 1
    newest = [hours[one] for one in range(since, hour + 1) if one in hours]
    past = [hours[one] for one in range(hour - 24 * DAYS, since) if one in hours]
    after, before = added(newest), added(past)
    if len(newest) < ERROR_HOURS or after.runs < ERROR_RUNS or before.runs < ERROR_RUNS:
        return None
    p, q = after.errors / after.runs, before.errors / before.runs
    # The worst hour of before counts too: what happens every night at three is nothing new.
    worst = max((one.errors / one.runs for one in past if one.runs >= LEAST_RUNS), default=q)
    if p - max(q, worst) < ERROR_SHARE:
        return None
    pooled = (after.errors + before.errors) / (after.runs + before.runs)
    error = math.sqrt(pooled * (1 - pooled) * (1 / after.runs + 1 / before.runs))
    if error <= 0 or (p - q) / error < SIGMAS:
        return None
    width = 1.96 * math.sqrt(p * (1 - p) / after.runs + q * (1 - q) / before.runs)
    return Change("errors", since, hour, before, after, p - q, p - q - width, p - q + width)


__all__ = ["Change", "changes", "differences"]
