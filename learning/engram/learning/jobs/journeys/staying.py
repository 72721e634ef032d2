"""States of workflows in which runs stay longer than they did.

At the end of each day the medians of the last seven days are held against those of the 21 before,
by Student's t of their logarithms: stays of one day are not independent, days are nearly. Days
count that have `STAYS`, and the medians of both sides must be apart by a half. Of all states that
are compared Benjamini and Hochberg choose, 1 % of it may be chance. A run that is still in its
state is not counted, so what is said to take longer rather takes longer still.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from statistics import fmean
from typing import TYPE_CHECKING, Final

from engram.learning.intervals import discoveries, pooled
from engram.learning.jobs.daily import DAY
from engram.learning.jobs.insight import Insight
from engram.learning.jobs.journeys.workflows import VISITS

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

RECENT: Final = 7
USUAL: Final = 21
"""Days that are compared."""
DAYS: Final = (4, 10)
"""Of each, those that there must be."""
STAYS: Final = 10
"""Of a day, for its median to say something."""
LONGER: Final = 1.5
SHARE: Final = 0.01

State = tuple[str, str, str]
"""Service, workflow, state."""


def longer_stays(read: Read, end: int, job: str) -> Iterator[Insight]:
    """What takes longer at the end of a day."""
    rows = read(
        f"""
        SELECT service, workflow, state, moment // {DAY} AS day, median(stayed) AS stay,
            count(*) AS n, arg_max(id, (stayed, id), 2) AS ids
        FROM ({VISITS}) WHERE stayed > 0
        GROUP BY ALL HAVING n >= {STAYS} ORDER BY ALL
        """,
        [max(0, end - (RECENT + USUAL) * DAY), end],
    )
    states: dict[State, list[tuple[int, float, int, list[str]]]] = defaultdict(list)
    for service, workflow, state, day, stay, n, ids in rows.iter_rows():
        states[service, workflow, state].append((day, math.log(stay), n, ids))
    since = end // DAY - RECENT
    tested = []
    for of, days in sorted(states.items()):
        now = [one for one in days if one[0] >= since]
        then = [one for one in days if one[0] < since]
        if len(now) < DAYS[0] or len(then) < DAYS[1]:
            continue
        p, (low, high) = pooled([one[1] for one in now], [one[1] for one in then])
        before, after = (math.exp(fmean(one[1] for one in some)) for some in (then, now))
        n = sum(one[2] for one in now)
        evidence = tuple(id_ for one in now for id_ in one[3])
        tested.append((of, p, math.exp(low), math.exp(high), before, after, n, evidence))
    believed = discoveries([one[1] for one in tested], SHARE)
    for one, so in zip(tested, believed, strict=True):
        (service, workflow, state), p, low, high, before, after, n, evidence = one
        if not so or after < LONGER * before:
            continue
        yield Insight(
            job=job,
            key=("longer", service, workflow, state, str(end)),
            title=f"{workflow} stays longer in {state}: {after / before:.2f} times as long"
            f"{f' in {service}' if service else ''}",
            content=(
                f"{_seconds(after)}, before {_seconds(before)} (medians, by days): "
                f"{low:.2f} to {high:.2f} times (95 % interval)\n"
                f"the last {RECENT} days, {n} stays, against the {USUAL} days before\n"
                "runs that are still in it are not counted"
            ),
            time_unix_nano=end - 1,  # of the day that it is about
            service=service or None,
            importance=0.6,
            tags=("state:longer",),
            evidence=evidence,
            facts={
                "state": "longer", "what": "|".join(("longer", service, workflow, state)),
                "workflow": workflow, "longer_in": state, "n": n, "p": p,
                "now_s": after / 1e9, "before_s": before / 1e9, "low": low, "high": high,
            },
        )  # fmt: skip


def _seconds(ns: float) -> str:
    return f"{ns / 1e9:,.3g} s"


__all__ = ["longer_stays"]
