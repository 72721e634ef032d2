"""Predictions: limits that will be crossed within a day, versions that will go on failing.

Each is a statement with a deadline and a probability, and is scored once it can be: `hit`, `miss`,
or `expired` when nothing could be seen. What is foreseen and how is in `series`, of what in
`requests`, `gauges`, `tokens` and `deploys`; `record` is what was said before.

Series are of whole hours, so they are looked at when an hour has ended, and new versions in every
run. There is never more than one open prediction of a series, and none where the limit was crossed
within the last day: that is no news. A kind of which fewer than half came true lately says nothing
aloud (`muted`, in its tags) until its silent predictions are better.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from engram.learning.jobs.insight import Insight
from engram.learning.jobs.predictions import deploys, gauges, requests, tokens, words
from engram.learning.jobs.predictions.record import EXPIRED, HIT, MISS, NAME, Made, Record, standing
from engram.learning.jobs.predictions.series import (
    DAY_HOURS,
    HOUR,
    Evidence,
    Watched,
    foresee,
)
from engram.learning.jobs.window import Window
from engram.learning.limits import Limits

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

DAY: Final = DAY_HOURS * HOUR

GRACE: Final = 1
"""Hours after the deadline until a prediction is judged: some telemetry is late."""

SEEN: Final = 0.5
"""Share of the hours up to the deadline that must be known to say that it did not come true."""

AFTER: Final = 50
"""Requests of a version after its prediction, without which it cannot be judged."""

_FAILURES: Final = (
    "SELECT id FROM lake.memories WHERE type = 'request_outcome' AND time_unix_nano >= ? AND "
    "time_unix_nano < ? AND coalesce(service_name, '') = ? AND outcome = 'error' "
    "ORDER BY time_unix_nano DESC, id LIMIT 5"
)


class Predictions:
    """The job."""

    name = NAME
    about = "limits that will be crossed, versions that fail more; and whether it came true"

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()

    def run(self, read: Read, window: Window) -> Iterable[Insight]:
        """See the module."""
        yield from self._deploys(read, window.until)
        end = window.until // HOUR
        if window.since >= end * HOUR:
            return  # no hour has ended since
        record = Record.read(read, end * HOUR)
        watched = {one.key: one for one in self._watched(read, end)}
        yield from self._scores(record, window, end * HOUR)
        yield from self._outcomes(read, record, watched, end)
        taken = {one.series for one in record.open}
        for key, series in watched.items():
            if key not in taken and (found := foresee(series)) is not None:
                evidence = _evidence(read, series.evidence)
                yield words.predicted(series, found, record.standing(series.kind), evidence)

    def _watched(self, read: Read, end: int) -> Iterator[Watched]:
        by_hour = requests.by_hour(read, end)
        yield from requests.latencies(by_hour, self._limits, end)
        yield from requests.budgets(by_hour, self._limits, end)
        yield from gauges.gauges(read, self._limits, end)
        yield from tokens.tokens(read, self._limits, end)

    def _deploys(self, read: Read, until: int) -> Iterator[Insight]:
        suspects = deploys.suspects(read, until)
        found = list(deploys.regressions(deploys.versions(read, suspects, until), until))
        if not found:
            return
        record = Record.read(read, until)
        said = {one.series for one in record.made}
        for one in found:
            if words.series_of(one.new.service, one.new.name) not in said:
                query = Evidence(_FAILURES, (one.new.first, until, one.new.service))
                evidence = _evidence(read, query)
                yield words.regressed(one, until, record.standing("regression"), evidence)

    # -- scoring -----------------------------------------------------------------------------------

    def _outcomes(
        self, read: Read, record: Record, watched: dict[tuple[str, ...], Watched], end: int
    ) -> Iterator[Insight]:
        for made in record.open:
            if made.kind != "regression":
                judged = judge(made, watched.get(made.series), end)
            elif end * HOUR >= made.deadline + GRACE * HOUR:
                versions = deploys.versions(read, [made.series[1]], end * HOUR)
                judged = _judge_version(made, versions)
            else:
                continue
            if judged is not None:
                verdict, moment, why = judged
                yield words.outcome(made, verdict, moment, end * HOUR, why)

    def _scores(self, record: Record, window: Window, now: int) -> Iterator[Insight]:
        """When a day has begun: how good each kind is that was scored since it was last said."""
        day = now // DAY * DAY
        if window.since >= day:
            return
        since = window.since // DAY * DAY
        for kind in sorted({one.kind for one in record.scored if since <= one.as_of < day}):
            until = [one for one in record.scored if one.kind == kind and one.as_of < day]
            evidence = tuple(one.prediction for one in until[-5:])
            yield words.score(standing(kind, until), day, evidence)


def judge(made: Made, series: Watched | None, end: int) -> tuple[str, int, str] | None:
    """How a prediction turned out, when, and why; None: it is open. `end` is as in `Watched`."""
    first, last = made.as_of // HOUR, made.deadline // HOUR
    values = np.zeros(0) if series is None else series.between(first, last)
    over = np.flatnonzero(values >= made.limit)
    if series is not None and len(over):
        # A series that begins later than the prediction has its first values later.
        hour = max(first, series.end - len(series.values)) + int(over[0])
        return HIT, (hour + 1) * HOUR, f"{values[over[0]]:.4g} reached {made.limit:.4g}"
    if end < last + GRACE:
        return None
    known = int(np.isfinite(values).sum())
    if known < SEEN * (last - first):
        return EXPIRED, made.deadline, f"only {known} of {last - first} hours were seen"
    highest = float(np.nanmax(values))
    return MISS, made.deadline, f"the highest was {highest:.4g}, below {made.limit:.4g}"


def _judge_version(made: Made, versions: dict[str, list[deploys.Version]]) -> tuple[str, int, str]:
    *_, service, _, name = made.series
    one = next((one for one in versions.get(service, ()) if one.name == name), None)
    first, last = made.as_of // HOUR + 1, made.deadline // HOUR
    after = [] if one is None else [two for hour, two in one.hours.items() if first <= hour < last]
    runs, failed = sum(one[0] for one in after), sum(one[1] for one in after)
    if runs < AFTER:
        return EXPIRED, made.deadline, f"only {runs} more requests: it was taken back, perhaps"
    told = f"{failed} of {runs} requests failed after it was said ({100 * failed / runs:.2f} %)"
    return (HIT if failed / runs >= made.limit else MISS), made.deadline, told


def _evidence(read: Read, query: Evidence) -> tuple[str, ...]:
    return tuple(read(query.sql, query.values)["id"].to_list()) if query.sql else ()


JOB: Final = Predictions()

__all__ = ["JOB", "Predictions", "judge"]
