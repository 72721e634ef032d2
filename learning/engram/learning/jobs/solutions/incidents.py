"""Incidents: failures that belong together, told apart by runs that did not fail.

A clock cannot say when trouble is over: an operation that runs twice a day is silent for hours. So
an incident ends when the operation has run so often without failing that, had it gone on failing as
in this incident, so long a row of good runs would have had a chance of 5 % at most: with the lower
95 % bound p of its failure rate in this incident (Wilson), m runs with (1 - p)^m <= .05.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from engram.learning.exposure import wilson_low

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

CHANCE: Final = 0.05
FEWEST: Final = 3
"""Good runs that an end needs, however surely it failed before: runs in flight prove little."""


@dataclass(frozen=True, slots=True)
class Incident:
    """Failures of one pattern in a row. Numbers of runs count from the first of its operation."""

    failing: tuple[int, ...]
    """The runs that failed, in the order in which they began."""

    needed: int
    """Good runs in a row that end it."""

    clean: int
    """Good runs since its last failure, until the next incident or until now."""

    @property
    def first(self) -> int:
        """Its first failing run."""
        return self.failing[0]

    @property
    def last(self) -> int:
        """Its last failing run."""
        return self.failing[-1]

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.clean >= self.needed

    @property
    def end(self) -> int:
        """The run that ended it; it MUST be over."""
        return self.last + self.needed


def clean_runs(failures: int, runs: int) -> int:
    """Good runs in a row that say that what failed at this rate does not any more."""
    low = wilson_low(failures, runs)
    if low <= 0:
        return 1 << 40
    if low >= 1:
        return FEWEST
    return max(FEWEST, math.ceil(math.log(CHANCE) / math.log1p(-low)))


def incidents(failed: npt.NDArray[np.bool_] | Sequence[bool]) -> list[Incident]:
    """The incidents of an operation whose runs, in the order in which they began, failed or not."""
    import numpy as np

    places = np.flatnonzero(np.asarray(failed, dtype=bool)).tolist()
    found: list[Incident] = []
    row: list[int] = []
    for place in places:
        good = place - row[-1] - 1 if row else 0
        # Most follow one another closely: the bound is looked at only where it may matter.
        if good >= FEWEST:
            needed = clean_runs(len(row), row[-1] - row[0] + 1)
            if good >= needed:
                found.append(Incident(tuple(row), needed, good))
                row = []
        row.append(place)
    if row:
        needed = clean_runs(len(row), row[-1] - row[0] + 1)
        found.append(Incident(tuple(row), needed, len(failed) - 1 - row[-1]))
    return found


__all__ = ["CHANCE", "FEWEST", "Incident", "clean_runs", "incidents"]
