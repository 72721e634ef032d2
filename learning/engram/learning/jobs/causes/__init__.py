"""Causes: what an incident that another job told began with, over all services below it.

`incidents` are what others said, `graph` what the traces of the incident look like before and
during, `rank` puts components in order and says when it is unclear, `around` is what changed near
the start, `words` tells it. When nothing was told, no telemetry is read. See docs/jobs/causes.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from engram.learning.jobs.causes.around import around
from engram.learning.jobs.causes.graph import observed
from engram.learning.jobs.causes.incidents import incidents
from engram.learning.jobs.causes.rank import ranked
from engram.learning.jobs.causes.words import said
from engram.learning.jobs.insight import Insight
from engram.learning.jobs.window import Window

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

NAME: Final = "causes"


class Causes:
    """The job."""

    name = NAME
    about = "what an incident began with: ranked causes with evidence, or that it is unclear"

    def run(self, read: Read, window: Window) -> Iterable[Insight]:
        """See the package."""
        for incident in incidents(read, window, NAME):
            seen = observed(read, incident)
            found = ranked(seen, incident)
            near = around(read, incident, sorted({one.service for one in seen.parts.values()}))
            yield said(NAME, incident, found, near)


JOB: Final = Causes()

__all__ = ["JOB", "NAME", "Causes"]
