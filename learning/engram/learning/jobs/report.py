"""The learnings of each day that is over, kept as a memory: what `engram report` says, in short.

Once a day, two hours after its end in UTC, so that what came late and what other jobs said of it is
in. A day of which nothing is stored has no report. It runs last, and what it keeps is no input to
the next one. What it keeps are the sentences; the tables are in `engram report`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from engram.learning.jobs.daily import DAY, HOUR, ends
from engram.learning.jobs.insight import Insight
from engram.learning.jobs.window import Window

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

MOST: Final = 2_000
"""Characters of what is kept."""


class Reports:
    """The job."""

    name = "report"
    about = "the learnings of each day that is over, in short"

    def run(self, read: Read, window: Window) -> Iterable[Insight]:
        """See the module."""
        # The report reads what jobs said, and knows them: a circle at import.
        from engram.learning.report import Period, build, something, summary
        from engram.learning.report.period import day_of

        # The first run finds a past that nobody asked for: the last day is enough of it.
        for end in ends(window, 7 if window.since else 1, grace=2 * HOUR):
            day = day_of(end - DAY)
            if not something(read, day):
                continue
            # Of the time of the window, not of the clock: the day is over in both.
            told = build(read, Period.of(day, 1, end), brief=True)
            yield Insight(
                job=self.name,
                key=(day.isoformat(),),
                title=f"Learnings of {day.isoformat()}",
                content=summary(told, MOST),
                time_unix_nano=end - 1,
                importance=0.6 if told.headline else 0.3,
                evidence=tuple(dict.fromkeys(id_ for one in told.headline for id_ in one.evidence)),
                facts={
                    "date": day.isoformat(),
                    "n": sum(len(one.statements) for one in told.sections),
                },
            )


JOB: Final = Reports()

__all__ = ["JOB", "MOST", "Reports"]
