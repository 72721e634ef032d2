"""Errors: what is new, back, spiking or gone, how often, and whom it hit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from engram.learning.jobs.errors import PATTERN
from engram.learning.report import compare
from engram.learning.report.ask import ask, limits
from engram.learning.report.insights import Said
from engram.learning.report.model import Row, Section, Statement, Table
from engram.learning.report.period import HOUR, Period
from engram.learning.report.words import clean, counted, listed, number

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

_STATES: Final = ("new", "back", "spike", "gone")
"""In the order in which they are told."""
_MOST: Final = 10

_ERRORS: Final = "type IN ('system_error', 'ui_error') AND fingerprint IS NOT NULL"


@dataclass(slots=True)
class Pattern:
    """How often an error occurred, and whom it hit."""

    title: str = ""
    n: int = 0
    before: int = 0
    users: int = 0
    ids: tuple[str, ...] = ()
    versions: list[str] = field(default_factory=list)
    now: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    then: dict[int, float] = field(default_factory=lambda: defaultdict(float))


def patterns(read: Read, period: Period, *, brief: bool = False) -> dict[tuple[str, str], Pattern]:
    """By service and pattern, as the job `errors` names them."""
    found: dict[tuple[str, str], Pattern] = defaultdict(Pattern)
    for row in ask(
        read,
        f"""
        SELECT coalesce(service_name, '') AS service, {PATTERN} AS pattern,
            time_unix_nano >= $since AS now,
            (time_unix_nano - CASE WHEN time_unix_nano >= $since
                THEN $since ELSE $before END) // {HOUR} AS hour,
            count(*) AS n
        FROM lake.memories
        WHERE {_ERRORS} AND time_unix_nano >= $before AND time_unix_nano < $until
            AND (time_unix_nano >= $since OR time_unix_nano < $before_until)
        GROUP BY ALL
        """,
        **limits(period),
    ).iter_rows(named=True):
        one = found[row["service"], row["pattern"]]
        if row["now"]:
            one.n += row["n"]
            one.now[row["hour"]] += row["n"]
        else:
            one.before += row["n"]
            one.then[row["hour"]] += row["n"]
    for row in ask(
        read,
        f"""
        SELECT coalesce(service_name, '') AS service, {PATTERN} AS pattern,
            arg_min(title, (time_unix_nano, id)) AS title,
            arg_max(id, (time_unix_nano, id), 3) AS ids,
            count(DISTINCT nullif(user_id, '')) AS users
        FROM lake.memories
        WHERE {_ERRORS} AND time_unix_nano >= $since AND time_unix_nano < $until
        GROUP BY ALL
        """,
        **limits(period),
    ).iter_rows(named=True):
        one = found[row["service"], row["pattern"]]
        one.title, one.ids, one.users = row["title"] or "", tuple(row["ids"]), row["users"]
    if not brief:
        _versions(read, period, found)
    return dict(found)


def _versions(read: Read, period: Period, of: dict[tuple[str, str], Pattern]) -> None:
    """Of the services that failed, from the spans that did; where no span did, from the logs."""
    if not any(one.n for one in of.values()):
        return
    for row in ask(
        read,
        f"""
        WITH failed AS MATERIALIZED (
            SELECT coalesce(service_name, '') AS service, {PATTERN} AS pattern,
                trace_id, span_id, sources
            FROM lake.memories
            WHERE {_ERRORS} AND time_unix_nano >= $since AND time_unix_nano < $until
        ),
        origin AS (
            SELECT f.service, f.pattern, s.resource
            FROM failed AS f JOIN lake.spans AS s
                ON s.trace_id = f.trace_id AND s.span_id = f.span_id
            WHERE s.start_time_unix_nano >= $since - {HOUR} AND s.start_time_unix_nano < $until
            UNION
            SELECT f.service, f.pattern, l.resource
            FROM (SELECT service, pattern, unnest(sources) AS source FROM failed) AS f
            JOIN lake.logs AS l ON l.content_hash = f.source
            WHERE l.time_unix_nano >= $since AND l.time_unix_nano < $until
                AND (l.exception_type IS NOT NULL OR l.severity_number >= 17)
        )
        SELECT service, pattern,
            list_sort(list(DISTINCT resource ->> '$."service.version"')) AS versions
        FROM origin WHERE (resource ->> '$."service.version"') IS NOT NULL
        GROUP BY ALL
        """,
        **limits(period),
    ).iter_rows(named=True):
        of[row["service"], row["pattern"]].versions = row["versions"]


def section(read: Read, period: Period, of: Sequence[Said], *, brief: bool = False) -> Section:
    """What the job said, with the numbers of the period, and the errors that simply go on.

    In brief: without the versions that failed, and without the table.
    """
    known = patterns(read, period, brief=brief)
    ranked = sorted(
        of, key=lambda one: (_rank(one.state), -one.importance, -_n(known, one), one.time, one.id)
    )
    statements = tuple(_statement(one, known.get(_key(one))) for one in ranked[:20])
    total = sum(one.n for one in known.values())
    if not total and not statements:
        before = sum(one.before for one in known.values())
        quiet = "No error" + (f"; {period.other} there were {number(before)}" if before else "")
        return Section("errors", "Errors", quiet=quiet + ".")
    if total:
        statements = (*statements, _total(period, known, total))
    tables = () if brief else _table(period, known)
    return Section("errors", "Errors", statements, tables)


def _statement(one: Said, now: Pattern | None) -> Statement:
    parts = []
    if now is not None and now.n:
        parts.append(counted(now.n, "time"))
        if now.users:
            parts.append(counted(now.users, "user"))
        if now.versions:
            word = "version" if len(now.versions) == 1 else "versions"
            parts.append(f"{word} {listed(now.versions)}")
    made = one.statement(", ".join(parts))
    return Statement(
        made.text, max(made.n, now.n if now else 0), made.evidence, made.detail, made.mark,
        made.importance,
    )  # fmt: skip


def _total(period: Period, known: dict[tuple[str, str], Pattern], total: int) -> Statement:
    now: dict[int, float] = defaultdict(float)
    then: dict[int, float] = defaultdict(float)
    for one in known.values():
        for hours, into in ((one.now, now), (one.then, then)):
            for hour, n in hours.items():
                into[hour] += n
    change = compare.counts(now, then)
    kinds = sum(1 for one in known.values() if one.n)
    before = sum(one.before for one in known.values())
    worst = max(known.values(), key=lambda one: one.n)
    return Statement(
        f"{counted(total, 'error')} of {counted(kinds, 'kind')}, {period.other} "
        f"{number(before)}: {change.words}.",
        total, worst.ids, mark=change.verdict if change.verdict in ("up", "down") else "",
    )  # fmt: skip


def _table(period: Period, known: dict[tuple[str, str], Pattern]) -> tuple[Table, ...]:
    ranked = sorted(
        ((key, one) for key, one in known.items() if one.n), key=lambda it: (-it[1].n, it[0])
    )
    if not ranked:
        return ()
    rows = tuple(
        Row(
            (
                clean(f"{key[0]}: {one.title}" if key[0] else one.title, 100), number(one.n),
                number(one.before), compare.counts(one.now, one.then).words,
                number(one.users) if one.users else "",
                listed(one.versions) if one.versions else "",
            ),
            one.ids,
        )
        for key, one in ranked[:_MOST]
    )  # fmt: skip
    columns = ("error", "n", period.other, "change", "users", "versions")
    return (Table("The most frequent ones.", columns, rows, max(0, len(ranked) - _MOST)),)


def _key(one: Said) -> tuple[str, str]:
    return one.service, str(one.facts.get("pattern", ""))


def _n(known: dict[tuple[str, str], Pattern], one: Said) -> int:
    found = known.get(_key(one))
    return found.n if found else 0


def _rank(state: str) -> int:
    return _STATES.index(state) if state in _STATES else len(_STATES)


__all__ = ["Pattern", "patterns", "section"]
