"""What came of decisions: options that succeed less than they did, less than others, or only here.

A decision counts when its outcome is known (`record_outcome(..., success=...)`), at the time of the
outcome. Judged at the end of each day, each statement once in four weeks. Of all that is compared
that day, over all decisions, Benjamini and Hochberg choose what may be believed (1 % false).

* **drift**: an option's successes of the last week against the four weeks before.
* **calibration**: stated confidence against success, over four weeks.
* **option**: the option that succeeds most against the one that is chosen most, over four weeks.
  They were chosen in different cases, so this is a reason to try, and no proof; it is said so.
* **context**: an option where one input has one value, against all its other cases.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from engram.learning.jobs.daily import Before, ends
from engram.learning.jobs.decisions.judge import judge
from engram.learning.jobs.decisions.known import contexts, known
from engram.learning.jobs.insight import Insight
from engram.learning.jobs.window import Window

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read


class Decisions:
    """The job."""

    name = "decisions"
    about = "options that succeed less than before, than others or than was thought"
    patient = True

    def run(self, read: Read, window: Window) -> Iterable[Insight]:
        """See the module."""
        if due := list(ends(window)):
            before = Before(read, self.name, window)
            for end in due:
                if days := known(read, end):
                    yield from before.fresh(judge(days, contexts(read, end), end, self.name))


JOB: Final = Decisions()

__all__ = ["JOB", "Decisions"]
