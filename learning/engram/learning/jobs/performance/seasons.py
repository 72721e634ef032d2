"""Hours of an operation that are unusual for their hour of the week: traffic, p95, errors.

An hour is held against the same hour of the same weekday, one and two weeks before, and the hours
beside those: six in all, and nothing is said before an operation has two weeks. It is unusual when
it is outside all of them by a factor of two and by six standard errors of a count; that is how a
spike is judged, too (`jobs/unusual.py`), and for the same reason: load has memory, so no model of
independent hours holds. Traffic is first scaled by what the last day was to the same day a week
before, in the direction that excuses: what grows or is fading out is no incident.

Fewer runs are judged an hour later than the rest: telemetry may be late, and then it looks so. An
hour in which nothing at all ran anywhere says nothing: most likely nobody listened.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from engram.learning.jobs.performance.hours import Hour, Operation, added

WEEK: Final = 168
REFERENCES: Final = tuple(weeks * WEEK + by for weeks in (1, 2) for by in (-1, 0, 1))
"""Hours before the judged one."""
HISTORY: Final = max(REFERENCES)

TIMES: Final = 2.0
SIGMAS: Final = 6.0
LEAST_RUNS: Final = 50
"""Of an hour, to be judged; for few runs, of those that were to be expected."""
LEAST_MS: Final = 20.0
ERROR_SHARE: Final = 0.05
QUIET: Final = WEEK
"""Hours in which the same of a service is not said again; then it is among the references."""

What = Literal["more", "fewer", "p95", "errors"]


@dataclass(frozen=True, slots=True)
class Unusual:
    """An hour of an operation."""

    operation: Operation
    hour: int
    what: What
    value: float
    low: float
    high: float
    """The least and the greatest of the references (runs scaled by growth; ms; shares)."""
    runs: int
    usual_runs: int
    """Of all references."""


def unusual(
    hours: Mapping[Operation, Mapping[int, Hour]], first: int, end: int
) -> Iterator[Unusual]:
    """What is unusual in the hours from `first` to before `end`, in the order of time."""
    begins = {operation: min(own) for operation, own in hours.items() if own}
    heard = {hour for own in hours.values() for hour in own}
    for hour in range(first, end):
        for operation in sorted(begins):
            if begins[operation] > hour - HISTORY:
                continue
            own = hours[operation]
            yield from _high(operation, own, hour)
            if hour - 1 >= first and hour - 1 in heard:
                yield from _fewer(operation, own, hour - 1)


def _references(own: Mapping[int, Hour], hour: int) -> list[Hour]:
    return [own.get(hour - back) or Hour() for back in REFERENCES]


def _growth(own: Mapping[int, Hour], hour: int) -> float:
    """The last day against the same one a week before."""
    now, then = (
        sum(own[at].runs for at in range(to - 24, to) if at in own) for to in (hour, hour - WEEK)
    )
    return now / then if then else math.inf


def _high(operation: Operation, own: Mapping[int, Hour], hour: int) -> Iterator[Unusual]:
    now = own.get(hour)
    if now is None or now.runs < LEAST_RUNS:
        return
    past = _references(own, hour)
    total = sum(one.runs for one in past)
    most = max(one.runs for one in past)
    if now.runs >= max(TIMES * most, most + SIGMAS * math.sqrt(max(most, 1))):
        scale = max(1.0, _growth(own, hour))
        if now.runs >= max(TIMES * most, SIGMAS * math.sqrt(max(most, 1)) + most) * scale:
            least = min(one.runs for one in past)
            yield Unusual(operation, hour, "more", now.runs, least * scale, most * scale,
                          now.runs, total)  # fmt: skip
    known = [one for one in past if one.runs >= LEAST_RUNS]
    if len(known) < len(REFERENCES) // 2:
        return
    if now.errors:
        shares = [one.errors / one.runs for one in known]
        worst, share = max(shares), now.errors / now.runs
        room = SIGMAS * math.sqrt(max(worst, 1 / now.runs) * (1 - worst) / now.runs)
        if share >= max(TIMES * worst, worst + ERROR_SHARE, worst + room):
            yield Unusual(operation, hour, "errors", share, min(shares), worst, now.runs, total)
    usual = [one.quantile(0.95) for one in known]
    limit = max(TIMES * max(usual), max(usual) + LEAST_MS)
    # Not the quantile of an hour but how many are above the limit: that has a standard error.
    if now.above(limit) >= 0.05 * now.runs + SIGMAS * math.sqrt(0.05 * 0.95 * now.runs):
        value = now.quantile(0.95)
        yield Unusual(operation, hour, "p95", value, min(usual), max(usual), now.runs, total)


def _fewer(operation: Operation, own: Mapping[int, Hour], hour: int) -> Iterator[Unusual]:
    past = _references(own, hour)
    least = min(one.runs for one in past)
    if least < LEAST_RUNS:
        return
    runs = own[hour].runs if hour in own else 0
    expected = least * min(1.0, _growth(own, hour))
    if expected < LEAST_RUNS or runs > min(
        expected / TIMES, expected - SIGMAS * math.sqrt(expected)
    ):
        return
    most = max(one.runs for one in past) * min(1.0, _growth(own, hour))
    yield Unusual(operation, hour, "fewer", runs, expected, most, runs, added(past).runs)


__all__ = ["HISTORY", "QUIET", "REFERENCES", "Unusual", "What", "unusual"]
