"""Warnings in logs that are new, come in numbers, or have gone, by what they say and not by words.

Messages become patterns (`engram.learning.patterns`; a template that the logger sent along is used
as it is), per service and for records from WARN on that are no exception: those are errors, and the
job `errors` has them. Three statements, each at the moment when it became true:

* **new**: three times or more, never in the 30 days before, in a service that logged on a day
  before. Of most of them a week says enough; only where it says that something is new is more read.
* **spike**: ten times or more in an hour, and far more than in any hour of the week before
  (see `unusual`).
* **gone**: on three days or more of the week, and not for two days while its service logs on.

A pattern keeps its id: what was said of earlier is mined together with what is new, so a pattern
that became more general is known by the id that it had, and the statement says so.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from engram.learning.jobs.insight import Insight
from engram.learning.jobs.unusual import LEAST, spike
from engram.learning.jobs.window import Window
from engram.learning.patterns import mine, pattern_id

if TYPE_CHECKING:
    import polars as pl

    from engram.learning.jobs.runner import Read

HOUR: Final = 3600 * 10**9
DAY: Final = 24 * HOUR
WEEK: Final = 7 * DAY

WARN: Final = 13
"""Severity number."""

NEW: Final = 3
YOUNG_HOURS: Final = 24
"""Hours that must be known before an hour can be unusual."""
GONE_DAYS: Final = 3
SILENCE: Final = 2 * DAY

_LATE: Final = DAY
_MOST: Final = 200_000
"""Distinct messages of a run; of more the most frequent."""

_KNOWN_DAYS: Final = 30

_TEMPLATE: Final = (
    "coalesce(json_extract_string(attributes, '$.\"{OriginalFormat}\"'), "
    "json_extract_string(attributes, '$.\"message_template.text\"'), "
    "json_extract_string(attributes, '$.\"log.record.template\"'))"
)
"""What .NET, Serilog and others send along."""


@dataclass(slots=True)
class Pattern:
    """A pattern of one service."""

    service: str
    template: str
    id: str
    was: tuple[str, ...] = ()
    """Ids that it was known by besides."""
    hours: dict[int, int] = field(default_factory=dict)
    """Occurrences by hour since 1970."""
    first: int = 1 << 62
    last: int = 0
    example: str = ""


class Logs:
    """The job."""

    name = "logs"
    about = "warnings in logs that are new, spiking or gone"

    def run(self, read: Read, window: Window) -> Iterable[Insight]:
        """See the module."""
        window = Window(max(0, window.since - _LATE), window.until)
        since = max(0, window.since - WEEK) // HOUR * HOUR
        rows = _messages(read, since, window.until)
        if rows.is_empty():
            return
        ages = read(
            """
            SELECT coalesce(service_name, '') AS service, min(time_unix_nano) AS first,
                max(time_unix_nano) AS last
            FROM lake.logs WHERE time_unix_nano >= ? AND time_unix_nano < ?
                AND scope_name IS DISTINCT FROM 'engram.self' GROUP BY ALL
            """,
            [since, window.until],
        )
        alive = {row["service"]: (row["first"], row["last"]) for row in ages.iter_rows(named=True)}
        known, new = _known(read, window.until)
        candidates = set()
        for pattern in patterns(rows.iter_rows(named=True), known):
            first, last = alive.get(pattern.service, (window.until, 0))
            for insight in changes(pattern, window, first, last):
                if insight.facts["state"] != "new":
                    yield insight
                elif (pattern.service, pattern.id) not in new:  # it is new once
                    candidates.add(pattern.service)
        if not candidates:
            return
        before = max(0, window.since - _KNOWN_DAYS * DAY)
        some = _messages(read, before, window.until, sorted(candidates))
        for pattern in patterns(some.iter_rows(named=True), known):
            if (pattern.service, pattern.id) not in new:
                for insight in changes(pattern, window, *alive[pattern.service]):
                    if insight.facts["state"] == "new":
                        yield insight


def _messages(read: Read, since: int, until: int, services: Sequence[str] = ()) -> pl.DataFrame:
    """Warnings by service, template or body, and hour; of all services, or of some."""
    some = f"AND coalesce(service_name, '') IN ({', '.join('?' * len(services))})"
    return read(
        f"""
        SELECT coalesce(service_name, '') AS service, {_TEMPLATE} AS template,
            CASE WHEN {_TEMPLATE} IS NULL THEN body END AS body,
            time_unix_nano // {HOUR} AS hour, count(*) AS n,
            min(time_unix_nano) AS first, max(time_unix_nano) AS last, min(body) AS example
        FROM lake.logs
        WHERE severity_number >= {WARN} AND exception_type IS NULL AND event_name IS NULL
            AND body IS NOT NULL AND scope_name IS DISTINCT FROM 'engram.learning'
            AND scope_name IS DISTINCT FROM 'engram.self'
            AND time_unix_nano >= ? AND time_unix_nano < ? {some if services else ""}
        GROUP BY ALL ORDER BY count(*) DESC, service, template, body, hour LIMIT {_MOST}
        """,
        [since, until, *services],
    )


def patterns(
    rows: Iterable[Mapping[str, Any]], known: Mapping[str, Sequence[tuple[str, str]]]
) -> list[Pattern]:
    """The patterns of grouped records; `known` has template and id by service, oldest first."""
    by_service: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_service[row["service"]].append(row)
    made: list[Pattern] = []
    for service, some in sorted(by_service.items()):
        texts = [row["template"] or _text(row["body"]) for row in some]
        before = known.get(service, ())
        found = mine([*texts, *(template for template, _ in before)])
        named: dict[int, list[str]] = defaultdict(list)
        for (_, id_), of in zip(before, found.of[len(texts) :], strict=True):
            named[of].append(id_)
        mine_: dict[str, Pattern] = {}
        for row, of, text in zip(some, found.of, texts, strict=False):
            template = row["template"] or found.templates[of]
            one = mine_.get(template)
            if one is None:
                ids = named.get(of, []) if not row["template"] else []
                own = pattern_id(template, service)
                one = mine_[template] = Pattern(
                    service, template, ids[0] if ids else own, tuple(dict.fromkeys(ids[1:]))
                )
            one.hours[row["hour"]] = one.hours.get(row["hour"], 0) + row["n"]
            if row["first"] < one.first:
                one.example = _text(row["example"]) or text
            one.first = min(one.first, row["first"])
            one.last = max(one.last, row["last"])
        made += mine_.values()
    return made


def changes(pattern: Pattern, window: Window, born: int, alive: int) -> Iterator[Insight]:
    """What became true of a pattern in a window; its service logged from `born` to `alive`."""
    total = sum(pattern.hours.values())
    if (
        window.since <= pattern.first < window.until
        and total >= NEW
        and pattern.first - born >= DAY
    ):
        yield _said(pattern, "new", pattern.first, 0.7, n=total)
    yield from _spikes(pattern, window, born)
    days = {hour // 24 for hour in pattern.hours}
    moment = pattern.last + SILENCE
    if len(days) >= GONE_DAYS and window.since <= moment < window.until and alive >= moment:
        yield _said(pattern, "gone", moment, 0.4, str(pattern.last), n=total)


def _spikes(pattern: Pattern, window: Window, born: int) -> Iterator[Insight]:
    for hour, n in sorted(pattern.hours.items()):
        end = (hour + 1) * HOUR
        # Of an hour that is not over nobody knows how many there will be: it is told when it is.
        if n < LEAST or not window.since <= end < window.until:
            continue
        begin = max(hour - 7 * 24, born // HOUR)
        if hour - begin < YOUNG_HOURS:
            continue
        week = [pattern.hours.get(one, 0) for one in range(begin, hour)]
        if n >= spike(week):
            yield _said(
                pattern, "spike", end, 0.75, str(hour), n=n, usual_an_hour=float(median(week)),
                most_an_hour=max(week),
            )  # fmt: skip


def _said(
    pattern: Pattern, state: str, moment: int, importance: float, where: str = "", **facts: Any
) -> Insight:
    service = pattern.service or None
    words = {"new": "New warning", "spike": "Warning spikes", "gone": "Warning has gone"}[state]
    when = datetime.fromtimestamp(moment / 1e9, UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [
        pattern.template,
        f"state: {state}",
        f"since: {when}",
        f"for example: {pattern.example}",
    ]
    if pattern.was:
        lines.append(f"grouped because all are {pattern.template}: {', '.join(pattern.was)}")
    lines += [f"{name.replace('_', ' ')}: {json.dumps(value)}" for name, value in facts.items()]
    return Insight(
        job=Logs.name,
        key=(state, pattern.service, pattern.id, where),
        title=f"{words}{f' in {service}' if service else ''}: {pattern.template}"[:300],
        content="\n".join(lines)[:4000],
        time_unix_nano=moment,
        service=service,
        importance=importance,
        subject=f"{pattern.service}: log {pattern.id}",
        tags=(f"state:{state}",),
        facts={
            "state": state, "pattern": pattern.id, "template": pattern.template[:1000], **facts,
        },
    )  # fmt: skip


def _known(read: Read, until: int) -> tuple[dict[str, list[tuple[str, str]]], set[tuple[str, str]]]:
    """Templates that were said of, with their ids, by service, oldest first; and what was new."""
    rows = read(
        """
        SELECT coalesce(service_name, '') AS service,
            json_extract_string(attributes, '$.template') AS template,
            json_extract_string(attributes, '$.pattern') AS pattern,
            json_extract_string(attributes, '$.state') AS state
        FROM lake.memories
        WHERE type = 'ai_insight' AND trust = 'engram'
            AND json_extract_string(attributes, '$.job') = ?
            AND time_unix_nano >= ? AND time_unix_nano < ?
        ORDER BY time_unix_nano, id
        """,
        [Logs.name, max(0, until - _KNOWN_DAYS * DAY), until],
    )
    known: dict[str, list[tuple[str, str]]] = defaultdict(list)
    new: set[tuple[str, str]] = set()
    for row in rows.iter_rows(named=True):
        if row["state"] == "new":
            new.add((row["service"], row["pattern"]))
        said = (row["template"], row["pattern"])
        if row["template"] and said not in known[row["service"]]:
            known[row["service"]].append(said)
    return dict(known), new


def _text(body: str | None) -> str:
    """The text of a record's body, which is JSON."""
    try:
        said = json.loads(body or '""')
    except ValueError:
        return body or ""
    return said if isinstance(said, str) else body or ""


JOB: Final = Logs()

__all__ = ["JOB", "Logs", "Pattern", "changes", "patterns"]
