"""Automations, workflows and syncs; and the ways of people through pages and forms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from engram.learning.intervals import wilson
from engram.learning.jobs.failing import FAILURES, FLOOR
from engram.learning.jobs.journeys.browsing import BROKEN, FORMS, RAGED
from engram.learning.jobs.journeys.workflows import VISITS
from engram.learning.report.ask import ask, limits
from engram.learning.report.model import Row, Section, Statement, Table
from engram.learning.report.period import DAY, Period
from engram.learning.report.words import clean, counted, duration, number, percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engram.learning.jobs.runner import Read

_MOST: Final = 10


def section(
    read: Read, period: Period, extra: Iterable[Statement], *, brief: bool = False
) -> Section:
    """What ran by itself, and what people did."""
    statements = list(extra)
    runs = _runs(read, period)
    total, failed = (sum(row[one] for row in runs) for one in ("n", "failed"))
    if total:
        low, high = wilson(failed, total)
        worst = next((row for row in runs if row["failed"]), runs[0])
        kinds = counted(len(runs), "workflow, job or sync", "workflows, jobs and syncs")
        statements.append(
            Statement(
                f"{counted(total, 'run')} of {kinds} ended, {number(failed)} failed: "
                f"{percent(failed / total)} (95 % interval {percent(low)} to {percent(high)}).",
                total, tuple(worst["wrong"] or worst["ids"]),
            )
        )  # fmt: skip
    statements += still_failing(runs)
    tables: list[Table] = []
    if runs and not brief:
        tables.append(
            Table(
                "Workflows, automations, jobs and syncs; those that failed most first.",
                ("what", "n", period.other, "failed (95 % interval)", "p50", "p95", "why"),
                tuple(_run(row) for row in runs[:_MOST]),
                max(0, len(runs) - _MOST),
            )
        )
    if not brief:
        tables += _states(read, period)
        tables += _pages(read, period)
    quiet = "No workflow ended, and nobody opened a page."
    return Section("work", "Workflows and journeys", tuple(statements), tuple(tables), quiet)


def still_failing(runs: Iterable[dict[str, Any]], most: int = 3) -> list[Statement]:
    """Of rows with name, n, failed, why and wrong those that fail more than one in ten."""
    made = []
    for row in runs:
        low, high = wilson(row["failed"], row["n"])
        if row["failed"] >= FAILURES and low >= FLOOR:
            why = f", most often {clean(row['why'], 60)}" if row["why"] else ""
            text = f"{clean(row['name'], 80)} fails: {number(row['failed'])} of "
            text += f"{counted(row['n'], 'run')} ({percent(low)} to {percent(high)}){why}."
            made.append(Statement(text, row["n"], tuple(row["wrong"] or ()), mark="failing"))
    return made[:most]


def _runs(read: Read, period: Period) -> list[dict[str, Any]]:
    return ask(
        read,
        """
        WITH ended AS (
            SELECT subject AS name, time_unix_nano >= $since AS now, outcome = 'error' AS failed,
                coalesce(duration_ns / 1e6, TRY_CAST(attributes->>'$.duration_ms' AS DOUBLE)) AS ms,
                attributes->>'$.error_type' AS why, time_unix_nano AS moment, id
            FROM lake.memories
            WHERE type IN ('workflow_state', 'integration_sync', 'webhook_event')
                AND subject IS NOT NULL AND outcome IS NOT NULL
                AND time_unix_nano >= $before AND time_unix_nano < $until
                AND (time_unix_nano >= $since OR time_unix_nano < $before_until)
        )
        SELECT name, count(*) FILTER (now) AS n, count(*) FILTER (NOT now) AS n_before,
            count(*) FILTER (now AND failed) AS failed,
            quantile_cont(ms, [0.5, 0.95]) FILTER (now) AS quantiles,
            mode(why) FILTER (now AND failed) AS why,
            arg_max(id, (moment, id), 3) FILTER (now AND failed) AS wrong,
            arg_max(id, (moment, id), 3) FILTER (now) AS ids
        FROM ended GROUP BY name HAVING n > 0
        ORDER BY failed DESC, n DESC, name
        """,
        **limits(period),
    ).to_dicts()


def _run(row: dict[str, Any]) -> Row:
    low, high = wilson(row["failed"], row["n"])
    quantiles = row["quantiles"] or [None, None]
    return Row(
        (
            clean(row["name"], 80), number(row["n"]), number(row["n_before"]),
            f"{percent(row['failed'] / row['n'])} ({percent(low)} to {percent(high)})",
            *("" if one is None else duration(one) for one in quantiles),
            clean(row["why"] or "", 60),
        ),
        tuple(row["wrong"] or row["ids"]),
    )  # fmt: skip


def _states(read: Read, period: Period) -> Iterable[Table]:
    """How long runs stay in each state, and how many are still in it."""
    found = ask(
        read,
        f"""
        SELECT workflow, state, count(*) AS n,
            quantile_cont(stayed / 1e6, [0.5, 0.95]) AS quantiles,
            count(*) FILTER (stayed IS NULL) AS there,
            arg_max(id, (coalesce(stayed, 9e18), id), 3) AS ids
        FROM ({VISITS.replace("$1", "$long_ago").replace("$2", "$until")})
        WHERE moment >= $since
        GROUP BY ALL ORDER BY workflow, min(moment - coalesce(stayed, 0)), state
        """,
        long_ago=max(0, period.since - 7 * DAY),
        **limits(period),
    ).to_dicts()
    rows = tuple(
        Row(
            (
                clean(f"{row['workflow']}: {row['state']}", 80), number(row["n"]),
                *("" if one is None else duration(one) for one in row["quantiles"] or (None, None)),
                number(row["there"]),
            ),
            tuple(row["ids"]),
        )
        for row in found[: 2 * _MOST]
    )  # fmt: skip
    if rows:
        yield Table(
            "States of runs: how long until the next one, and how many had none yet.",
            ("state", "n", "p50", "p95", "last so far"),
            rows,
            max(0, len(found) - 2 * _MOST),
        )


def _pages(read: Read, period: Period) -> Iterable[Table]:
    found = ask(
        read,
        """
        WITH views AS (
            SELECT subject AS page, id, lead(subject, 1, '(left)') OVER (
                PARTITION BY service_name, session_id ORDER BY time_unix_nano, id
            ) AS next, session_id
            FROM lake.memories
            WHERE type = 'page_view' AND nullif(session_id, '') IS NOT NULL
                AND subject IS NOT NULL
                AND time_unix_nano >= $since AND time_unix_nano < $until
        )
        SELECT page, next, count(DISTINCT session_id) AS n, arg_max(id, id, 2) AS ids,
            sum(count(*)) OVER (PARTITION BY page) AS views, count(*) AS times
        FROM views GROUP BY page, next ORDER BY n DESC, page, next
        """,
        **limits(period),
    ).to_dicts()
    if found:
        yield Table(
            "Ways through pages: where sessions went next.",
            ("from and to", "sessions", "share of views"),
            tuple(
                Row(
                    (
                        clean(f"{row['page']} → {row['next']}", 80), number(row["n"]),
                        percent(row["times"] / int(row["views"])),
                    ),
                    tuple(row["ids"]),
                )
                for row in found[:_MOST]
            ),
            max(0, len(found) - _MOST),
        )  # fmt: skip
    yield from _shares(
        read, period, "Forms: sessions that viewed the page, and submitted it.", "submitted",
        "SELECT page AS name, sum(n)::BIGINT AS n, sum(k)::BIGINT AS k, list(id) FILTER (id IS NOT "
        f"NULL)[:3] AS ids FROM ({FORMS.replace('$3', '$1')}) GROUP BY page",
    )  # fmt: skip
    for caption, column, query in (
        ("Pages on which sessions had an error.", "had an error", BROKEN),
        ("Elements that were clicked again and again.", "clicked in rage", RAGED),
    ):
        yield from _shares(
            read, period, caption, column,
            "SELECT name, count(*) AS n, count(*) FILTER (failed) AS k, "
            f"list(id ORDER BY id) FILTER (failed)[:3] AS ids FROM ({query}) GROUP BY name "
            "HAVING k > 0",
        )  # fmt: skip


def _shares(read: Read, period: Period, caption: str, column: str, query: str) -> Iterable[Table]:
    rows: Sequence[dict[str, Any]] = read(
        f"SELECT * FROM ({query}) ORDER BY k DESC, n DESC, name", [period.since, period.until]
    ).to_dicts()
    if not rows:
        return
    made = []
    for row in rows[:_MOST]:
        low, high = wilson(row["k"], row["n"])
        share = f"{percent(row['k'] / row['n'])} ({percent(low)} to {percent(high)})"
        made.append(
            Row(
                (clean(row["name"], 80), number(row["n"]), number(row["k"]), share),
                tuple(row["ids"] or ()),
            )
        )
    yield Table(
        caption, ("where", "sessions", column, "share (95 % interval)"), tuple(made),
        max(0, len(rows) - _MOST),
    )  # fmt: skip


__all__ = ["section", "still_failing"]
