"""Where ways end: of automations and workflows through their states, of people through pages.

`workflows` and `staying` look at what runs by itself, `browsing` at what people do in a browser.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from engram.learning.jobs.daily import Before, ends
from engram.learning.jobs.insight import Insight
from engram.learning.jobs.journeys import browsing, staying, workflows
from engram.learning.jobs.window import Window

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read


class Journeys:
    """The job."""

    name = "journeys"
    about = "workflows that fail or stop half-way, pages that break, forms that are given up"
    patient = True

    def run(self, read: Read, window: Window) -> Iterable[Insight]:
        """See the module."""
        yield from workflows.points_of_failure(read, window, self.name)
        yield from browsing.points_of_failure(read, window, self.name)
        if due := list(ends(window)):
            before = Before(read, self.name, window)
            for end in due:
                yield from before.fresh(workflows.dead_ends(read, end, self.name))
                yield from before.fresh(staying.longer_stays(read, end, self.name))
                yield from before.fresh(browsing.given_up(read, end, self.name))


JOB: Final = Journeys()

__all__ = ["JOB", "Journeys"]
