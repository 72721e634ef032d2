"""Errors that are new, came back, come in numbers, or have gone.

A pattern is, in a service, a type of exception and the innermost frame of the app's own: what a
message says besides (a name, an article) makes no other error of it. Without such a frame it is the
fingerprint: type and masked message. Four statements are made of a pattern, each at the moment when
it became true:

* **new**: its first occurrence, ever. Large systems have errors that come once and never again,
  some of them each day: where more than `RARE` others were new in the week before, the first
  occurrence is said in a low voice, and aloud (**lasting**) is said the third within a day.
* **back**: it occurs after a silence (see `unusual`), having occurred three times before.
* **spike**: ten times or more in an hour, and far more than in any hour of the week before
  (see `unusual`).
* **gone**: it occurred ten times on two days or more, and now there is a silence, while its service
  goes on answering requests. That is no proof: the code that failed may not have run.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from engram.learning.jobs.insight import Insight
from engram.learning.jobs.resembling import METHOD, Said, more
from engram.learning.jobs.unusual import LEAST, silences, spike
from engram.learning.jobs.window import Window

if TYPE_CHECKING:
    import polars as pl

    from engram.learning.jobs.runner import Read

HOUR: Final = 3600 * 10**9
DAY: Final = 24 * HOUR
WEEK: Final = 7 * DAY

RARE: Final = 2
"""Errors that may have been new in a week for the next one to be news by itself: as many as anybody
should be told of in a week in which nothing is wrong."""
LASTS: Final = 3
"""Occurrences within a day of the first that make it news in any case."""
BEFORE: Final = 3
"""Occurrences that a pattern must have had to come back."""
GONE: Final = 0.01
"""Chance that a silence is none, to say that an error has gone: said in a low voice, and wrong in
one of a hundred it is put right by the next occurrence."""
REGULAR: Final = 10
REGULAR_DAYS: Final = 2

_LATE: Final = DAY
"""What arrives this late is still looked at; what is said again is stored once."""

# Both at once: the text of the attributes is parsed once for it.
_TOLD: Final = "json_extract_string(attributes, ['$.type', '$.frame'])"
TYPE: Final = f"{_TOLD}[1]"
"""SQL: the type of an error's exception."""
PATTERN: Final = f"coalesce({_TOLD}[1] || ' in ' || {_TOLD}[2], fingerprint)"
"""SQL: what makes it the same error."""

_ERRORS: Final = """FROM lake.memories WHERE type IN ('system_error', 'ui_error')
AND fingerprint IS NOT NULL AND time_unix_nano < ?"""

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
    others: int = 0
    """Patterns that were new in the week before its first occurrence, in all services."""


class Errors:
    """The job."""

    name = "errors"
    about = "errors that are new, back, spiking or gone"

    def run(self, read: Read, window: Window) -> Iterable[Insight]:
        """See the module."""
        import polars as pl

        window = Window(max(0, window.since - _LATE), window.until)
        from_ = max(0, window.since - _HISTORY)
        # Of all time, in one scan: only the first of them tells that another is not new.
        everything = read(
            f"SELECT coalesce(service_name, '') AS service, {PATTERN} AS pattern, time_unix_nano, "
            f"'' AS id, '' AS title, '' AS type {_ERRORS}",
            [window.until],
        )
        ages = everything.group_by("service", "pattern").agg(first=pl.col("time_unix_nano").min())
        alive = read(
            "SELECT coalesce(service_name, '') AS service, max(time_unix_nano) AS last "
            "FROM lake.memories WHERE type = 'request_outcome' AND time_unix_nano >= ? "
            "AND time_unix_nano < ? GROUP BY ALL",
            [window.until - DAY, window.until],
        )
        answering = {row["service"]: row["last"] for row in alive.iter_rows(named=True)}
        # Mostly nothing became true of any: what they say is read of those of which something did.
        recent = everything.filter(pl.col("time_unix_nano") >= from_)
        telling = [
            (one.service, one.name)
            for one in patterns(recent, ages)
            if any(changes(one, window, answering.get(one.service)))
        ]
        if not telling:
            return
        rows = read(
            f"SELECT coalesce(service_name, '') AS service, {PATTERN} AS pattern, time_unix_nano, "
            f"id, title, {TYPE} AS type {_ERRORS} AND time_unix_nano >= ? "
            "AND (coalesce(service_name, ''), pattern) IN "
            "(SELECT (unnest(?::VARCHAR[]), unnest(?::VARCHAR[])))",
            [window.until, from_, *([one[part] for one in telling] for part in (0, 1))],
        )
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
    firsts = sorted(ages["first"].to_list())
    for key, some in ordered.group_by("service", "pattern", maintain_order=True):
        service, name = str(key[0]), str(key[1])
        first = int(age[service, name]["first"])
        yield Pattern(
            service, name, str(some["title"][0] or ""), str(some["type"][0] or "error"),
            tuple(some["time_unix_nano"].to_list()), tuple(some["id"].to_list()),
            first, bisect_left(firsts, first) - bisect_left(firsts, first - WEEK),
        )  # fmt: skip


def changes(pattern: Pattern, window: Window, answering: int | None) -> Iterator[Insight]:
    """What became true of a pattern within the window.

    `answering` is when its service last answered a request within the day before the window's end.
    """
    yield from _new(pattern, window)
    yield from _back(pattern, window)
    yield from _spikes(pattern, window)
    if answering is not None:
        yield from _gone(pattern, window, answering)


def _new(pattern: Pattern, window: Window) -> Iterator[Insight]:
    aloud = pattern.others <= RARE
    if window.since <= pattern.first < window.until:
        importance = 0.8 if aloud else 0.6
        facts: dict[str, Any] = {} if aloud else {"new_in_the_week_before": pattern.others}
        yield _said(
            pattern, "new", pattern.first, "New error", importance, pattern.ids[:1], n=1, **facts
        )
    if aloud or len(pattern.times) < LASTS or pattern.times[0] != pattern.first:
        return
    moment = pattern.times[LASTS - 1]
    if moment - pattern.first < DAY and window.since <= moment < window.until:
        yield _said(
            pattern, "lasting", moment, f"New error, {LASTS} times by now", 0.8,
            pattern.ids[:LASTS], where=str(pattern.first), n=LASTS,
        )  # fmt: skip


def _back(pattern: Pattern, window: Window) -> Iterator[Insight]:
    for at, silence in enumerate(silences(pattern.times[:-1]), 1):
        before, now = pattern.times[at - 1], pattern.times[at]
        if at >= BEFORE and now - before >= silence and window.since <= now < window.until:
            yield _said(
                pattern, "back", now, "Error is back", 0.85, pattern.ids[at - 1 : at + 1],
                n=at + 1, silent_hours=round((now - before) / HOUR, 1),
            )  # fmt: skip


def _spikes(pattern: Pattern, window: Window) -> Iterator[Insight]:
    hours: dict[int, list[int]] = {}
    for at, when in enumerate(pattern.times):
        hours.setdefault(when // HOUR, []).append(at)
    for hour, places in sorted(hours.items()):
        if len(places) < LEAST or not window.since <= pattern.times[places[-1]] < window.until:
            continue
        begin = max(hour - 7 * 24, pattern.first // HOUR)
        week = [len(hours.get(one, ())) for one in range(begin, hour)]
        if len(week) < 24:
            continue  # too young to know what is usual
        enough = spike(week)
        if len(places) < enough:
            continue
        # The moment at which it was too many: the same however many follow.
        moment = pattern.times[places[enough - 1]]
        yield _said(
            pattern, "spike", moment, "Error spikes", 0.85,
            tuple(pattern.ids[at] for at in places[:enough]),
            n=enough, usual_an_hour=float(median(week)), most_an_hour=max(week), where=str(hour),
        )  # fmt: skip


def _gone(pattern: Pattern, window: Window, answering: int) -> Iterator[Insight]:
    last = pattern.times[-1]
    days = {when // DAY for when in pattern.times}
    if len(pattern.times) < REGULAR or len(days) < REGULAR_DAYS:
        return
    moment = last + int(min([*silences(pattern.times, GONE)][-1], 2**62))
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
        tags=("state:new", "state:lasting") if state == "lasting" else (f"state:{state}",),
        evidence=evidence,
        facts={
            "state": state, "pattern": pattern.name, "error_type": pattern.type, **facts,
        },
    )  # fmt: skip


def _with(insight: Insight, said: Said | None) -> Insight:
    """Of what is new, the version and what it is perhaps."""
    if said is None or insight.facts["state"] not in ("new", "lasting"):
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
