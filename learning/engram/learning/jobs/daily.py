"""For statements that need a day: the ends of days in a window, and what was said before.

A job that compares weeks has nothing to say every five minutes. It judges at the end of each day in
UTC, plus an hour for what comes late, and costs nothing in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from engram.learning.jobs.insight import Insight
from engram.learning.jobs.window import Window

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

HOUR: Final = 3600 * 10**9
DAY: Final = 24 * HOUR

GRACE: Final = HOUR
"""After the end of a day, for what comes late and for what other jobs say of it."""

_MOST: Final = 7
"""Days that a first run, or one after a long time, looks back: older news is none."""

QUIET: Final = 28 * DAY
"""What was said is not said again for so long."""


def ends(window: Window, most: int = _MOST, grace: int = GRACE) -> Iterator[int]:
    """The ends of days that fell due in a window, the last ones."""
    first = max(0, window.since - grace - 1, window.until - grace - 1 - most * DAY) // DAY * DAY
    end = first + DAY
    while end + grace < window.until:
        if end + grace >= window.since:
            yield end
        end += DAY


class Before:
    """What a job said, by the field `what` of its insights: in the lake, and in this run."""

    def __init__(self, read: Read, job: str, window: Window) -> None:
        rows = read(
            "SELECT attributes->>'$.what' AS what, time_unix_nano AS moment FROM lake.memories "
            "WHERE type = 'ai_insight' AND source = 'mark' AND list_contains(tags, $1) "
            "AND time_unix_nano >= $2 AND time_unix_nano < $3",
            [f"job:{job}", max(0, window.since - QUIET - 2 * DAY), window.until],
        )
        self._said: dict[str, list[int]] = {}
        for row in rows.iter_rows(named=True):
            if row["what"]:
                self._said.setdefault(row["what"], []).append(row["moment"])

    def fresh(self, found: Iterable[Insight]) -> Iterator[Insight]:
        """Those that were not said in the four weeks before their own moment.

        An insight of that same moment is this one, said by an earlier run over the same window.
        """
        for one in found:
            what, at = str(one.facts["what"]), one.time_unix_nano
            times = self._said.setdefault(what, [])
            if any(at - QUIET <= time < at for time in times):
                continue
            times.append(at)
            yield one


__all__ = ["DAY", "GRACE", "HOUR", "QUIET", "Before", "ends"]
