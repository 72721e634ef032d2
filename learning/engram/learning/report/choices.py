"""Decisions: what was decided, what came of it, how sure it was, and what is still to come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from engram.learning.intervals import wilson
from engram.learning.jobs.decisions.known import KNOWN
from engram.learning.report.ask import ask, limits
from engram.learning.report.model import Row, Section, Statement, Table
from engram.learning.report.period import DAY, Period
from engram.learning.report.words import clean, counted, duration, number, percent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engram.learning.jobs.runner import Read

_MOST: Final = 10
_LONGEST: Final = 180 * DAY
_USUAL: Final = 28 * DAY
"""Outcomes that a success rate is made of: those of one day are few."""
_LATE: Final = 10
"""Outcomes that tell how long one usually takes."""


def section(
    read: Read, period: Period, extra: Iterable[Statement], *, brief: bool = False
) -> Section:
    """What the job said, then the day, then four weeks of outcomes."""
    said = tuple(extra)
    known = KNOWN.replace("$1", "$first").replace("$2", "$until")
    first = max(0, period.until - _LONGEST)
    row = ask(
        read,
        """
        SELECT count(*) FILTER (time_unix_nano >= $since) AS n,
            count(*) FILTER (time_unix_nano < $before_until) AS before,
            arg_max(id, (time_unix_nano, id), 3) FILTER (time_unix_nano >= $since) AS ids
        FROM lake.memories
        WHERE type = 'business_decision' AND (attributes->>'$.chosen') IS NOT NULL
            AND time_unix_nano >= $before AND time_unix_nano < $until
        """,
        **limits(period),
    ).to_dicts()[0]
    statements = list(said)
    if row["n"]:
        text = f"{counted(row['n'], 'decision')} {'was' if row['n'] == 1 else 'were'} made, "
        text += f"{period.other} {number(row['before'])}."
        statements.append(Statement(text, row["n"], tuple(row["ids"])))
    came = ask(
        read,
        f"""
        SELECT count(*) AS n, count(*) FILTER (success) AS k,
            arg_max(id, (known_at, id), 3) AS ids
        FROM ({known}) WHERE known_at >= $since AND known_at < $until
        """,
        first=first,
        **limits(period),
    ).to_dicts()[0]
    if came["n"]:
        low, high = wilson(came["k"], came["n"])
        text = f"{counted(came['n'], 'outcome')} became known: {percent(came['k'] / came['n'])} "
        text += f"succeeded (95 % interval {percent(low)} to {percent(high)})."
        statements.append(Statement(text, came["n"], tuple(came["ids"])))
    statements += _due(read, period, known, first)
    tables: tuple[Table, ...] = ()
    if statements and not brief:
        tables = (*_options(read, period, known, first), *_bins(read, period, known, first))
    quiet = "Nothing was decided, no outcome came, and none is overdue."
    return Section("decisions", "Decisions", tuple(statements), tables, quiet)


def _due(read: Read, period: Period, known: str, first: int) -> list[Statement]:
    """Decisions without an outcome that are later than nine of ten, or than the app itself said."""
    rows = ask(
        read,
        f"""
        WITH usual AS (
            SELECT service, decision, quantile_cont(took, 0.9) AS takes
            FROM ({known}) WHERE known_at < $until
            GROUP BY ALL HAVING count(took) >= {_LATE}
        ),
        open AS (
            SELECT coalesce(service_name, '') AS service,
                coalesce(attributes->>'$.decision', subject) AS decision, id,
                time_unix_nano AS moment,
                epoch_ns(TRY_CAST(attributes->>'$.due' AS TIMESTAMPTZ)) AS due
            FROM lake.memories
            WHERE type = 'business_decision' AND outcome IS NULL
                AND (attributes->>'$.chosen') IS NOT NULL
                AND (attributes->>'$.outcome') IS NULL
                AND time_unix_nano >= $first AND time_unix_nano < $until
        )
        SELECT decision, count(*) AS n, arg_min(id, (moment, id), 3) AS ids,
            any_value(takes) AS takes
        FROM open LEFT JOIN usual USING (service, decision)
        WHERE coalesce(due, moment + takes) < $until
        GROUP BY decision ORDER BY n DESC, decision
        """,
        first=first,
        until=period.until,
    )
    made = []
    for row in rows.iter_rows(named=True):
        why = ""
        if row["takes"] is not None:
            why = f"; nine of ten are known after {duration(row['takes'] / 1e6)}"
        text = f"{counted(row['n'], 'outcome')} of {clean(row['decision'], 60)} due{why}."
        made.append(Statement(text, row["n"], tuple(row["ids"]), mark="due"))
    return made


def _options(read: Read, period: Period, known: str, first: int) -> Iterable[Table]:
    found = ask(
        read,
        f"""
        SELECT decision, chosen, count(*) AS n, count(*) FILTER (success) AS k,
            avg(confidence) AS confidence,
            avg((confidence - success::INTEGER) ** 2) AS brier,
            arg_max(id, (known_at, id), 3) AS ids
        FROM ({known}) WHERE known_at >= $until - {_USUAL} AND known_at < $until
        GROUP BY ALL ORDER BY n DESC, decision, chosen
        """,
        first=first,
        until=period.until,
    ).to_dicts()
    if found:
        yield Table(
            "Options, by the outcomes of four weeks.",
            ("option", "n", "succeeded (95 % interval)", "confidence", "Brier score"),
            tuple(_option(row) for row in found[:_MOST]),
            max(0, len(found) - _MOST),
        )


def _option(row: dict[str, Any]) -> Row:
    low, high = wilson(row["k"], row["n"])
    sure = row["confidence"] is not None
    return Row(
        (
            clean(f"{row['decision']}: {row['chosen']}", 80), number(row["n"]),
            f"{percent(row['k'] / row['n'])} ({percent(low)} to {percent(high)})",
            percent(row["confidence"]) if sure else "", f"{row['brier']:.3f}" if sure else "",
        ),
        tuple(row["ids"]),
    )  # fmt: skip


def _bins(read: Read, period: Period, known: str, first: int) -> Iterable[Table]:
    """Of those that were so sure, how many succeeded."""
    found = ask(
        read,
        f"""
        SELECT least(4, floor(confidence * 5)::INTEGER) AS bin, count(*) AS n,
            count(*) FILTER (success) AS k, avg(confidence) AS confidence,
            arg_max(id, (known_at, id), 3) AS ids
        FROM ({known})
        WHERE known_at >= $until - {_USUAL} AND known_at < $until
            AND confidence BETWEEN 0 AND 1
        GROUP BY bin ORDER BY bin
        """,
        first=first,
        until=period.until,
    ).to_dicts()
    if sum(row["n"] for row in found) >= _LATE:
        rows = []
        for row in found:
            low, high = wilson(row["k"], row["n"])
            rows.append(
                Row(
                    (
                        f"{20 * row['bin']} to {20 * row['bin'] + 20} %", number(row["n"]),
                        percent(row["confidence"]),
                        f"{percent(row['k'] / row['n'])} ({percent(low)} to {percent(high)})",
                    ),
                    tuple(row["ids"]),
                )
            )  # fmt: skip
        yield Table(
            "How sure it was, and how often right.",
            ("confidence", "n", "on average", "succeeded (95 % interval)"),
            tuple(rows),
        )


__all__ = ["section"]
