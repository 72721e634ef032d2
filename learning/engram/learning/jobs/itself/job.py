"""The job `engram`: once an hour it decides about settings, once a day it says what was.

Between it reads nothing. Like every job it is a function of the lake and the window: what it said
before is in the lake, and what was in force is in what roles told.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from engram.exporters.itself.settings import HOUR
from engram.learning.itself import OFF, Itself
from engram.learning.jobs import daily
from engram.learning.jobs.insight import Insight
from engram.learning.jobs.itself import decisions
from engram.learning.jobs.itself.said import NAME, of_a_day, recalled
from engram.learning.jobs.itself.trials import LONGEST, decide
from engram.learning.jobs.itself.work import cells, told
from engram.learning.jobs.window import Window

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

_GRACE: Final = 10 * 60 * 10**9
"""After an hour, for what is told of it at its end by a round of jobs (5 minutes)."""


class About:
    """What Engram learns about itself."""

    name = NAME
    about = "Engram itself: what is slow, what helped, which settings it tries, keeps, takes back"

    def __init__(self, settings: Itself = OFF) -> None:
        self.settings = settings

    def run(self, read: Read, window: Window) -> Iterable[Insight]:
        """See the module."""
        yield from self._days(read, window)
        if self.settings.changes:
            yield from self._hours(read, window)

    def _days(self, read: Read, window: Window) -> Iterable[Insight]:
        ends = list(daily.ends(window))
        if not ends:
            return
        before = daily.Before(read, NAME, window)
        for end in ends:
            work, slow = told(read, end - daily.DAY, end)
            found = [*of_a_day(work, slow, end), *recalled(read, end)]
            yield from before.fresh(found)

    def _hours(self, read: Read, window: Window) -> Iterable[Insight]:
        """Of the last hour that fell due: what should have been decided earlier is not any more."""
        hour = (window.until - _GRACE) // HOUR
        if hour * HOUR + _GRACE < window.since or hour <= 0:
            return
        before = decisions.read_back(read, hour * HOUR)
        work, _ = told(read, (hour - LONGEST - 2) * HOUR, hour * HOUR + _GRACE)
        known = cells(one for one in work if one.hour < hour)
        found = decide(hour, known, before, self.settings.may_change)
        if found is not None:
            yield decisions.told(found)


JOB: Final = About()
"""As it is without a configuration: it says, and changes nothing."""

__all__ = ["JOB", "NAME", "About"]
