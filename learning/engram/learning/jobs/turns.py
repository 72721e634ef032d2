"""Which jobs run in a round: a round stays short, however much there is.

Most jobs look at more than what is new: an error is judged by its runs of a month. Jobs that can
wait say so (`patient`), and such a one rests in proportion to what it cost: it may take a share of
one core (`SHARE`), or an hour has passed. So in a small home all jobs run in every round, and in a
large one those that cost most take turns. Nothing is lost: a job's next window begins where its
last one ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from engram.learning.jobs.runner import EVERY_S, Job, Run, Runner

SHARE: Final = 1 / 1_200
"""Of one core, for one patient job: 0.25 CPU seconds in each round of five minutes."""

LONGEST_S: Final = 3_600.0
"""A patient job rests for an hour at most."""

ROUND_S: Final = 1.0
"""CPU seconds for the patient jobs of a round together, but for the one that waited longest."""

_CATCHING_UP_NS: Final = 2 * 3_600 * 10**9
"""What a window longer than this cost says nothing about the next one."""


def turn(runner: Runner, now_ns: int, pace: Callable[[str], float] = lambda job: 1.0) -> list[str]:
    """The names of the jobs that run now, in their order.

    `pace`: a job runs in one of so many rounds at most, whatever it costs.
    """
    found: set[str] = set()
    waiting: list[tuple[float, float, str]] = []
    for job in runner.jobs:
        last = runner.last(job.name)
        if last is None or now_ns < last.began * 1e9:
            found.add(job.name)
            continue
        # Half a round early is in time: rounds are not on the second.
        rested = now_ns / 1e9 - last.began + EVERY_S / 2
        if rested < pace(job.name) * EVERY_S:
            continue
        cost = _cost(job, last)
        if cost is None:
            found.add(job.name)
        elif rested >= min(LONGEST_S, cost / SHARE):
            waiting.append((last.began, cost, job.name))
    spent = 0.0
    for _, cost, name in sorted(waiting):
        if not spent or spent + cost <= ROUND_S:
            found.add(name)
            spent += cost
    return [job.name for job in runner.jobs if job.name in found]


def _cost(job: Job, last: Run) -> float | None:
    """What a patient job will cost, as far as that is known."""
    if not getattr(job, "patient", False) or last.error:
        return None
    if last.until - last.since > _CATCHING_UP_NS:
        return None
    return last.cpu_seconds


__all__ = ["LONGEST_S", "ROUND_S", "SHARE", "turn"]
