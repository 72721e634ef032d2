"""Whether an error is resolved, and by what: runs that did not fail, not silence.

Two ways to cut a history. By version: all runs of versions after the last one that failed, so an
old version that still runs somewhere, or an event that comes late, decides nothing. By time, where
there is no such version: all runs after the last failure. The cut was chosen by looking at the
failures, between as many moments as there were; the evidence has to be so much stronger.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engram.learning.exposure import Exposure, Judgement, judge
from engram.learning.jobs.solutions.history import History
from engram.learning.jobs.solutions.read import Glance

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

HOUR = 3600 * 10**9


@dataclass(frozen=True, slots=True)
class Resolution:
    """What can be said of an error now."""

    judgement: Judgement
    since: str
    """The first version that does not fail; "" when the cut is by time."""
    cut: int
    """When that version was first seen, or the last failure."""
    moment: int
    """When it became resolved, in the time of the runs; 0 where it is not."""
    runs_before: int
    failures_before: int


def resolution(history: History) -> Resolution | None:
    """What can be said; None when it never failed in a run."""
    import numpy as np

    places = np.flatnonzero(history.failed)
    if not len(places):
        return None
    newest = int(history.on[places].max())
    fixed = history.on > newest
    if fixed.any() and int(places[-1]) < len(history.on):
        first = int(np.flatnonzero(fixed)[0])
        before = ~fixed
        before[: int(places[0])] = False  # what ran before it existed
        cut, since = history.start(first), history.version(first)
        failing_versions = len(np.unique(history.on[places]))
        found = _judged(history, before, fixed, splits=failing_versions)
        return _said(history, found, fixed, since, cut, before)
    before = np.zeros(len(history.failed), bool)
    # The last failure ends the period by definition: it says nothing about the rate.
    before[int(places[0]) : int(places[-1])] = True
    after = np.zeros(len(history.failed), bool)
    after[int(places[-1]) + 1 :] = True
    found = _judged(history, before, after, splits=len(places))
    return _said(history, found, after, "", history.start(int(places[-1])), before)


def perhaps_resolved(runs: Glance) -> bool:
    """Whether a closer look may find an error resolved; False is certain.

    Where the newest version fails, only the time can tell, by the runs after the last failure. They
    are never worth more than when bursts are left out and all failures belong to the time before.
    """
    if runs.newest not in runs.on:
        return True
    if not runs.after:
        return False
    failures = len(runs.failures)
    before = Exposure((max(runs.between, failures),), (failures,))
    return judge(before, Exposure((runs.after,), (0,))).verdict == "resolved"


def _judged(
    history: History, before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_], *, splits: int
) -> Judgement:
    return judge(_hours(history, before), _hours(history, after), splits=splits)


def _said(
    history: History,
    found: Judgement,
    after: npt.NDArray[np.bool_],
    since: str,
    cut: int,
    before: npt.NDArray[np.bool_],
) -> Resolution:
    import numpy as np

    moment = 0
    if found.verdict == "resolved":
        # The clean run by which there was enough: the same however many follow.
        alone = judge(_hours(history, before), Exposure((), ()), splits=found.splits).needed or 0
        moment = history.start(int(np.flatnonzero(after)[max(0, alone - 1)]))
    return Resolution(
        found, since, cut, moment, int(before.sum()), int((before & history.failed).sum())
    )


def _hours(history: History, of: npt.NDArray[np.bool_]) -> Exposure:
    import numpy as np

    hours = history.starts[of] // HOUR
    if not len(hours):
        return Exposure((), ())
    hours -= hours.min()
    runs = np.bincount(hours)
    failures = np.bincount(hours, weights=history.failed[of]).astype(int)
    ran = runs > 0
    return Exposure(tuple(runs[ran].tolist()), tuple(failures[ran].tolist()))


__all__ = ["Resolution", "perhaps_resolved", "resolution"]
