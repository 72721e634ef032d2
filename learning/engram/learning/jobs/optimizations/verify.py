"""Whether a pattern is still there, and what its end brought.

Gone is said by exposure, as of errors: so many runs of the operation without the pattern that a
tenth of its former rate is ruled out (`engram.learning.exposure`, an e-value, so that looking every
five minutes is honest). A pattern whose operation does not run is not gone.

Then the runs before and after are compared. The estimate is of a mean (the saving of all runs, over
the runs), so a mean is what it is held against; the difference of the medians is told beside it. It
is before and after, not with and without: what else changed in that time is in it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from engram.learning.exposure import Exposure, Judgement, judge
from engram.learning.jobs.optimizations.find import Found, Name
from engram.learning.jobs.optimizations.reading import HOUR, MINUTE, MS, RUN_NAME
from engram.learning.jobs.optimizations.savings import Interval, difference

if TYPE_CHECKING:
    import polars as pl

    from engram.learning.jobs.runner import Read

MARGIN: Final = MINUTE
"""Before the end of a look: of a run that has just ended, calls may still be on their way."""
COMPARED: Final = 2000
"""Runs of each side, those nearest to the change."""
FEWEST: Final = 20
"""Runs of each side without which nothing is compared."""


@dataclass(frozen=True, slots=True)
class Known:
    """What was said of a pattern last."""

    name: Name
    state: str
    time: int
    last: int
    """Begin of the last affected run that was known then."""
    n: int
    runs: int
    saving: Interval
    """Per run, in the pattern's unit."""
    version: str | None
    id: str


@dataclass(frozen=True, slots=True)
class Gone:
    """A pattern that ended."""

    last: int
    """Begin of the last affected run."""
    moment: int
    """Begin of the last run that was looked at."""
    judgement: Judgement
    version: str | None
    """Of the newest run."""


def gone(found: Found | None, runs: pl.DataFrame, known: Known | None, until: int) -> Gone | None:
    """The end of a pattern that a look (and what was said before) shows; else None.

    `runs` are those of the entry, in time.
    """
    import polars as pl

    seen = [] if found is None else found.affected["began"].to_list()
    last = max([*seen, *([] if known is None else [known.last])], default=0)
    clean = runs.filter((pl.col("began") > last) & (pl.col("began") < until - MARGIN))
    if clean.is_empty():
        return None
    earlier = runs.filter(pl.col("began") <= last)
    if known is not None and known.n > len(seen):
        before = Exposure((max(known.n, known.runs),), (known.n,))
    else:
        hours = _by_hour(earlier["began"])
        affected = _by_hour(pl.Series(seen, dtype=pl.Int64))
        before = Exposure(
            tuple(hours.values()),
            tuple(min(count, affected.get(hour, 0)) for hour, count in hours.items()),
        )
    after = _by_hour(clean["began"])
    said = judge(before, Exposure(tuple(after.values()), (0,) * len(after)))
    if said.verdict != "resolved":
        return None
    return Gone(last, int(clean["began"][-1]), said, clean["version"][-1])


def _by_hour(began: pl.Series) -> dict[int, int]:
    hours: dict[int, int] = {}
    for one in began.to_list():
        hours[one // HOUR] = hours.get(one // HOUR, 0) + 1
    return hours


@dataclass(frozen=True, slots=True)
class Measured:
    """Durations of runs before and after, in ms."""

    median: Interval
    """Before minus after: what was saved."""
    mean: Interval
    before: int
    after: int

    def verdict(self, estimate: Interval) -> str:
        """Whether the estimate held."""
        if self.mean.low <= 0 <= self.mean.high:
            return "unclear"
        if self.mean.high < estimate.low:
            return "less" if self.mean.low > 0 else "slower"
        return "more" if self.mean.low > estimate.high else "held"


def measured(read: Read, name: Name, end: Gone) -> Measured | None:
    """The runs on both sides of a pattern's end; None when they are too few to say."""
    import polars as pl

    sides = []
    for when, order, bound in (("<=", "DESC", end.last), (">", "ASC", end.last)):
        rows = read(
            f"SELECT end_time_unix_nano - start_time_unix_nano AS took FROM lake.spans "
            f"WHERE coalesce(service_name, '') = ? AND {RUN_NAME} = ? "
            f"AND start_time_unix_nano {when} ? "
            "AND start_time_unix_nano >= ? AND start_time_unix_nano <= ? "
            "AND (kind IN (2, 5) OR (parent_span_id IS NULL AND kind <> 3)) "
            f"ORDER BY start_time_unix_nano {order}, span_id LIMIT {COMPARED}",
            [name.service, name.entry, bound, end.last - 7 * 24 * HOUR, end.moment],
        )
        sides.append((rows["took"].cast(pl.Float64) / MS).to_list())
    before, after = sides
    if min(len(before), len(after)) < FEWEST:
        return None
    return Measured(
        difference(before, after), difference(before, after, "mean"), len(before), len(after)
    )


__all__ = ["FEWEST", "Gone", "Known", "Measured", "gone", "measured"]
