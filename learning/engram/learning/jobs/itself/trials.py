"""Whether a setting should be tried otherwise, and whether what was tried helped.

A trial is a switchback experiment: old and new value take turns by the hour, in pairs of hours
whose order a hash chose (`exporters/itself/settings.py`), and the logarithms of what the hours of a
pair cost are compared. (Bojinov, Simchi-Levi and Zhao 2023 give the design; the interval is
Student's t over pairs.) What changes slowly, as load does, is the same for both. There are two
looks, each with 99 %, and one end of the interval keeps: a setting that does nothing is kept in
fewer than one trial of a hundred.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Final, Literal, NamedTuple

from engram.exporters.itself.settings import COMPACT, HOUR, PACE, bounds, new_in
from engram.learning.intervals import Interval, student
from engram.learning.jobs.itself.work import Cell

Action = Literal["tried", "kept", "taken back"]

DAY: Final = 24

LOOKS: Final = (12, 24)
"""Pairs of hours after which a trial is judged: one day, and two."""

_Z: Final = 2.575829303548901
"""99 % of a normal distribution."""

LEAST: Final = 0.9
"""A change that saves less than a tenth is not worth that anybody has to know of it."""

WORSE: Final = 1.1
"""What is guarded may cost a tenth more."""

LONGEST: Final = 7 * DAY
"""Hours after which a trial without enough pairs ends."""

QUIET: Final = 28 * DAY
"""What was taken back is not tried again for so long."""

MAINTENANCE: Final = 0.05
"""Share of the time that maintenance may take: it runs in the committer's thread."""

CPU: Final = 0.1
"""Share of one core that a job may take, day in, day out."""

OVER: Final = 3
"""Runs of a day over their budget: one or two are a catching up."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Something that was decided about a setting."""

    setting: str
    action: Action
    old: float
    new: float
    hour: int
    """At whose beginning."""
    id: str = ""
    """Its memory."""
    n: int = 0
    reason: str = ""
    ratio: float | None = None
    """New over old."""
    interval: Interval | None = None


class Effect(NamedTuple):
    """New over old, by pairs of hours."""

    n: int
    ratio: float
    interval: Interval
    """99 %."""


def in_force(setting: str, decisions: Sequence[Decision]) -> float:
    """What was decided last; the usual value where nothing was."""
    last = _last(setting, decisions)
    if last is None:
        limits = bounds(setting)
        return limits.usual if limits else math.nan
    return last.old if last.action == "taken back" else last.new


def decide(
    hour: int,
    cells: Mapping[str, Mapping[int, Cell]],
    decisions: Sequence[Decision],
    allowed: Callable[[str], bool],
) -> Decision | None:
    """What to do at the beginning of an hour, after earlier decisions: one thing at most.

    Two trials at once would be one effect with two causes.
    """
    settings = sorted({*cells, *(one.setting for one in decisions)})
    for setting in settings:
        last = _last(setting, decisions)
        if last is not None and last.action == "tried":
            return _judged(hour, last, cells.get(setting, {})) if allowed(setting) else None
    for setting in settings:
        if allowed(setting):
            found = _proposed(hour, setting, cells.get(setting, {}), decisions)
            if found is not None:
                return found
    return None


def _last(setting: str, decisions: Sequence[Decision]) -> Decision | None:
    mine = [one for one in decisions if one.setting == setting]
    return max(mine, key=lambda one: one.hour, default=None)


# -- to try ----------------------------------------------------------------------------------------


def _proposed(
    hour: int, setting: str, cells: Mapping[int, Cell], decisions: Sequence[Decision]
) -> Decision | None:
    last, limits = _last(setting, decisions), bounds(setting)
    if limits is None:
        return None
    if last is not None and hour - last.hour < (DAY if last.action == "kept" else QUIET):
        return None
    old = in_force(setting, decisions)
    new = limits.held(2 * old)
    day = [one for at, one in cells.items() if hour - DAY <= at < hour and one.value == old]
    if new <= old or len(day) < DAY // 2:
        return None
    share = sum(one.cost for one in day) / sum(one.seconds for one in day)
    if setting == COMPACT:
        if share / 1e3 <= MAINTENANCE:
            return None
        reason = (
            f"maintenance took {share / 10:.1f} % of the time in {len(day)} hours; "
            f"{MAINTENANCE:.0%} is meant"
        )
    else:
        over = int(sum(one.guards.get("over", (1.0, 1.0))[0] - 1 for one in day))
        if share <= CPU and over < OVER:
            return None
        reason = f"job {setting.removeprefix(PACE)} took {share:.0%} of a core in {len(day)} hours"
        reason += f", and was over its budget {over} times" if over else ""
    return Decision(setting, "tried", old, new, hour, n=len(day), reason=reason)


# -- to judge --------------------------------------------------------------------------------------


def _judged(hour: int, trial: Decision, cells: Mapping[int, Cell]) -> Decision | None:
    pairs = list(_pairs(trial, cells, hour))
    looked = [n for n in LOOKS if n <= len(pairs)]
    late = hour - trial.hour >= LONGEST
    if not looked and not late:
        return None
    if not looked:
        return _end(trial, "taken back", hour, None, f"in a week only {len(pairs)} pairs of hours "
                    f"could be compared, not {LOOKS[0]}: no effect is known")  # fmt: skip
    last = looked[-1] == LOOKS[-1] or late
    pairs = pairs[: looked[-1]]
    cost = effect([(_log(old.share), _log(new.share)) for old, new in pairs])
    worse = _worse(pairs)
    if worse:
        return _end(trial, "taken back", hour, cost, worse)
    if cost.interval.high < 1 and cost.ratio <= LEAST:
        return _end(trial, "kept", hour, cost, "it costs less, and nothing that is guarded more")
    if not last:
        return None
    if cost.interval.low > 1:
        return _end(trial, "taken back", hour, cost, "it costs more")
    return _end(trial, "taken back", hour, cost, "that it helps could not be shown")


def _pairs(trial: Decision, cells: Mapping[int, Cell], hour: int) -> Iterator[tuple[Cell, Cell]]:
    """Old and new, of each two hours that were as they should have been."""
    for first in range((trial.hour + 1) // 2 * 2, hour - 1, 2):
        one, other = cells.get(first), cells.get(first + 1)
        if one is None or other is None:
            continue
        old, new = (other, one) if new_in(trial.setting, first) else (one, other)
        if old.value == trial.old and new.value == trial.new:
            yield old, new


def _worse(pairs: Sequence[tuple[Cell, Cell]]) -> str:
    """What is guarded and became worse; "" when nothing is known to."""
    for name in sorted({name for old, _ in pairs for name in old.guards}):
        both = [
            (_log(_mean(old.guards[name])), _log(_mean(new.guards[name])))
            for old, new in pairs
            if name in old.guards and name in new.guards
        ]
        if len(both) >= LOOKS[0]:
            found = effect(both)
            if found.interval.low > 1 and found.ratio > WORSE:
                return f"{name} became {found.ratio:.2f} times what it was (n = {found.n})"
    return ""


def effect(logs: Sequence[tuple[float, float]]) -> Effect:
    """The mean ratio of pairs (old, new) of logarithms, and where it is with 99 %."""
    gaps = [new - old for old, new in logs]
    n, centre = len(gaps), fmean(gaps)
    spread = student(n - 1, _Z) * stdev(gaps) / math.sqrt(n)
    return Effect(
        n, math.exp(centre), Interval(math.exp(centre - spread), math.exp(centre + spread))
    )


def _end(trial: Decision, action: Action, hour: int, found: Effect | None, reason: str) -> Decision:
    return Decision(
        trial.setting, action, trial.old, trial.new, hour, trial.id,
        n=found.n if found else 0, reason=reason, ratio=found.ratio if found else None,
        interval=found.interval if found else None,
    )  # fmt: skip


def _mean(of: tuple[float, float]) -> float:
    return of[0] / of[1]


def _log(value: float) -> float:
    return math.log(max(value, 1e-6))  # nothing at all is less than a microsecond in a second


__all__ = [
    "DAY", "HOUR", "LOOKS", "Action", "Decision", "Effect", "decide", "effect", "in_force",
]  # fmt: skip
