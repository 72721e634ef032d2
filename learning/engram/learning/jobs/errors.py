"""Errors that are new, came back, come in numbers, or have gone.

A pattern is, in a service, a type of exception and the innermost frame of the app's own: what a
message says besides (a name, an article) makes no other error of it. Without such a frame it is the
fingerprint: type and masked message. Four statements are made of a pattern, each at the moment when
it became true:

* **new**: its first occurrence, ever.
* **back**: it occurs after a silence of a day and of ten times its usual gap (the median), having
  occurred three times before.
* **spike**: ten times or more in an hour, and 6 standard deviations of a Poisson variable above its
  usual hour (median of the hours of the week before, zeros counted, at least 1).
* **gone**: it occurred ten times on two days or more, and now not for a day and ten times its usual
  gap, while its service goes on answering requests. That is silence, not proof: the code that
  failed may not have run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from engram.learning.jobs.insight import Insight
from engram.learning.jobs.resembling import METHOD, Said, more
from engram.learning.jobs.window import Window

if TYPE_CHECKING:
    import polars as pl

    from engram.learning.jobs.runner import Read

HOUR: Final = 3600 * 10**9
DAY: Final = 24 * HOUR

SILENCE: Final = DAY
GAPS: Final = 10
"""A silence is this many of the usual gaps, and `SILENCE` at least."""
BEFORE: Final = 3
"""Occurrences that a pattern must have had to come back."""
SPIKE: Final = 10
SPIKE_SIGMAS: Final = 6.0
REGULAR: Final = 10
REGULAR_DAYS: Final = 2

_LATE: Final = DAY
"""What arrives this late is still looked at; what is said again is stored once."""

PATTERN: Final = (
    "coalesce(json_extract_string(attributes, '$.type') || ' in ' || "
    "json_extract_string(attributes, '$.frame'), fingerprint)"
)

_HISTORY: Final = 30 * DAY
"""Occurrences that are looked at besides the new ones; of a pattern's age, all."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """The occurrences of one error in one service, in time."""

    service: str
    name: str
    """Type and frame, or the fingerprint."""
    title: str
    type: str
    times: tuple[int, ...]
    ids: tuple[str, ...]
    first: int
    """Its first occurrence ever."""

    @property
    def gap(self) -> float:
        """Median time between occurrences; infinite when there are fewer than two."""
        if len(self.times) < 2:
            return math.inf
        return median(b - a for a, b in pairwise(self.times))


class Errors:
    """The job."""

    name = "errors"
    about = "errors that are new, back, spiking or gone"

    def run(self, read: Read, window: Window) -> Iterable[Insight]:
        """See the module."""
        window = Window(max(0, window.since - _LATE), window.until)
        from_ = max(0, window.since - _HISTORY)
        rows = read(
            f"SELECT id, coalesce(service_name, '') AS service, {PATTERN} AS pattern, "
            "time_unix_nano, title, json_extract_string(attributes, '$.type') AS type "
            "FROM lake.memories WHERE type IN ('system_error', 'ui_error') "
            "AND fingerprint IS NOT NULL "
            "AND time_unix_nano >= ? AND time_unix_nano < ?",
            [from_, window.until],
        )
        ages = read(
            f"SELECT coalesce(service_name, '') AS service, {PATTERN} AS pattern, "
            "min(time_unix_nano) AS first FROM lake.memories "
            "WHERE type IN ('system_error', 'ui_error') "
            "AND fingerprint IS NOT NULL AND time_unix_nano < ? GROUP BY ALL",
            [window.until],
        )
        alive = read(
            "SELECT coalesce(service_name, '') AS service, max(time_unix_nano) AS last "
            "FROM lake.memories WHERE type = 'request_outcome' AND time_unix_nano >= ? "
            "AND time_unix_nano < ? GROUP BY ALL",
            [window.until - DAY, window.until],
        )
        answering = {row["service"]: row["last"] for row in alive.iter_rows(named=True)}
        found = list(patterns(rows, ages))
        new = [
            (one.service, one.name, one.ids[0], one.first) for one in found
            if window.since <= one.first < window.until and one.times[0] == one.first
        ]  # fmt: skip
        said = more(read, new, PATTERN)
        for pattern in found:
            for insight in changes(pattern, window, answering.get(pattern.service)):
                yield _with(insight, said.get((pattern.service, pattern.name)))


def patterns(rows: pl.DataFrame, ages: pl.DataFrame) -> Iterator[Pattern]:
    """The patterns of some occurrences, each in the order of time."""
    age = {(row["service"], row["pattern"]): row for row in ages.iter_rows(named=True)}
    ordered = rows.sort("time_unix_nano", "id")
    for key, some in ordered.group_by("service", "pattern", maintain_order=True):
        service, name = str(key[0]), str(key[1])
        known = age[service, name]
        yield Pattern(
            service, name, str(some["title"][0] or ""), str(some["type"][0] or "error"),
            tuple(some["time_unix_nano"].to_list()), tuple(some["id"].to_list()),
            int(known["first"]),
        )  # fmt: skip


def changes(pattern: Pattern, window: Window, answering: int | None) -> Iterator[Insight]:
    """What became true of a pattern within the window.

    `answering` is when its service last answered a request within the day before the window's end.
    """
    if window.since <= pattern.first < window.until:
        yield _said(pattern, "new", pattern.first, "New error", 0.8, pattern.ids[:1], n=1)
    yield from _back(pattern, window)
    yield from _spikes(pattern, window)
    if answering is not None:
        yield from _gone(pattern, window, answering)


def _silence(pattern_gap: float) -> float:
    return max(float(SILENCE), GAPS * pattern_gap) if math.isfinite(pattern_gap) else math.inf


def _back(pattern: Pattern, window: Window) -> Iterator[Insight]:
    for at in range(BEFORE, len(pattern.times)):
        before, now = pattern.times[at - 1], pattern.times[at]
        if now - before < SILENCE or not window.since <= now < window.until:
            continue
        usual = median(b - a for a, b in pairwise(pattern.times[:at]))
        if now - before >= _silence(usual):
            yield _said(
                pattern, "back", now, "Error is back", 0.85, pattern.ids[at - 1 : at + 1],
                n=at + 1, silent_hours=round((now - before) / HOUR, 1),
            )  # fmt: skip


def _spikes(pattern: Pattern, window: Window) -> Iterator[Insight]:
    hours: dict[int, list[int]] = {}
    for at, when in enumerate(pattern.times):
        hours.setdefault(when // HOUR, []).append(at)
    for hour, places in sorted(hours.items()):
        if len(places) < SPIKE or not window.since <= pattern.times[places[-1]] < window.until:
            continue
        begin = max(hour - 7 * 24, pattern.first // HOUR)
        week = [len(hours.get(one, ())) for one in range(begin, hour)]
        if len(week) < 24:
            continue  # too young to know what is usual
        usual = max(1.0, float(median(week)))
        if len(places) < usual + SPIKE_SIGMAS * math.sqrt(usual):
            continue
        # The moment at which it was too many: the same however many follow.
        enough = max(SPIKE, math.ceil(usual + SPIKE_SIGMAS * math.sqrt(usual)))
        moment = pattern.times[places[enough - 1]]
        yield _said(
            pattern, "spike", moment, "Error spikes", 0.85,
            tuple(pattern.ids[at] for at in places[:enough]),
            n=enough, usual_an_hour=usual, where=str(hour),
        )  # fmt: skip


def _gone(pattern: Pattern, window: Window, answering: int) -> Iterator[Insight]:
    last = pattern.times[-1]
    days = {when // DAY for when in pattern.times}
    if len(pattern.times) < REGULAR or len(days) < REGULAR_DAYS:
        return
    moment = last + int(min(_silence(pattern.gap), 2**62))
    if window.since <= moment < window.until and answering >= moment:
        yield _said(
            pattern, "gone", moment, "Error has gone", 0.6, pattern.ids[-3:],
            n=len(pattern.times), silent_hours=round((moment - last) / HOUR, 1),
            where=str(last),
        )  # fmt: skip


def _said(
    pattern: Pattern,
    state: str,
    moment: int,
    words: str,
    importance: float,
    evidence: tuple[str, ...],
    where: str = "",
    **facts: Any,
) -> Insight:
    service = pattern.service or None
    when = datetime.fromtimestamp(moment / 1e9, UTC).strftime("%Y-%m-%d %H:%M UTC")
    content = [f"{pattern.title}", f"state: {state}", f"since: {when}"]
    content += [f"{name.replace('_', ' ')}: {json.dumps(value)}" for name, value in facts.items()]
    return Insight(
        job=Errors.name,
        key=(state, pattern.service, pattern.name, where or str(moment)),
        title=f"{words}{f' in {service}' if service else ''}: {pattern.title}"[:300],
        content="\n".join(content),
        time_unix_nano=moment,
        service=service,
        importance=importance,
        tags=(f"state:{state}",),
        evidence=evidence,
        facts={
            "state": state, "pattern": pattern.name, "error_type": pattern.type, **facts,
        },
    )  # fmt: skip


def _with(insight: Insight, said: Said | None) -> Insight:
    """Of what is new, the version and what it is perhaps."""
    if said is None or insight.facts["state"] != "new":
        return insight
    lines, facts = [insight.content], dict(insight.facts)
    if said.version:
        lines.append(f"version: {said.version}")
        facts["version"] = said.version
    if said.like:
        lines.append(f"perhaps the same as: {said.like} (likeness {said.likeness}: {said.because})")
        facts |= {"like": said.like, "likeness": said.likeness, "method": METHOD}
    return replace(insight, content="\n".join(lines), facts=facts)


JOB: Final = Errors()

__all__ = ["JOB", "Errors", "Pattern", "changes", "patterns"]
