"""The runs of the operations in which an error occurs, and which of them failed by it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from engram.learning.jobs.solutions.trials import Change


@dataclass(frozen=True, slots=True)
class History:
    """One error in one service: what could have failed by it, and what did.

    The arrays have one entry for each run, in the order in which the runs began.
    """

    service: str
    pattern: str
    """Type and frame, or the fingerprint, as the job `errors` has it."""
    title: str
    type: str
    operations: tuple[str, ...]
    """Names of the spans that may fail by it; none: the error knows no span, and the entry spans
    of its service count as runs."""
    starts: npt.NDArray[np.int64]
    """Unix nanoseconds."""
    failed: npt.NDArray[np.bool_]
    on: npt.NDArray[np.int32]
    """Into `versions`."""
    versions: tuple[str, ...]
    """service.version, in the order in which they were first seen; "" where none is known."""
    ids: tuple[str, ...]
    """Of the memories of its occurrences, oldest first."""
    times: tuple[int, ...]
    """Of these memories."""

    def start(self, place: int) -> int:
        """When a run began."""
        return int(self.starts[place])

    def version(self, place: int) -> str:
        """The version of the service in a run."""
        return self.versions[int(self.on[place])]

    def exposed(self, place: int, change: Change) -> bool:
        """Whether a run had a change: of a deploy those of its version and of later ones."""
        if change.kind != "deploy" or change.version not in self.versions:
            return True
        return int(self.on[place]) >= self.versions.index(change.version)

    def until(self, moment: int) -> History:
        """What was known at a moment."""
        import numpy as np

        runs = int(np.searchsorted(self.starts, moment, side="right"))
        memories = sum(time <= moment for time in self.times)
        return replace(
            self, starts=self.starts[:runs], failed=self.failed[:runs], on=self.on[:runs],
            ids=self.ids[:memories], times=self.times[:memories],
        )  # fmt: skip

    def good(self, start: int, end: int, change: Change) -> npt.NDArray[np.intp]:
        """Of the runs from `start` to before `end`, those that began with a change in place."""
        import numpy as np

        having = self.starts[start:end] > change.time_unix_nano
        if change.kind == "deploy" and change.version in self.versions:
            having &= self.on[start:end] >= self.versions.index(change.version)
        return np.flatnonzero(having) + start

    def is_of(self, error_type: str) -> bool:
        """Whether this is an error of a type, named with or without its module."""
        return self.type.rpartition(".")[2] == error_type.rpartition(".")[2]


__all__ = ["History"]
