"""Requests: how many, how many failed, how slow, and which operations were the slowest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from engram.learning.intervals import wilson
from engram.learning.report import compare
from engram.learning.report.ask import ask, limits
from engram.learning.report.model import Chart, Row, Section, Statement, Table
from engram.learning.report.period import HOUR, Period
from engram.learning.report.words import clean, counted, duration, number, percent

if TYPE_CHECKING:
    from collections.abc import Iterable

    import polars as pl

    from engram.learning.jobs.runner import Read

_FAILED: Final = "(status_code = 2 OR http_response_status_code >= 500)"
_MS: Final = "(end_time_unix_nano - start_time_unix_nano) / 1e6"
_NAME: Final = "coalesce(http_request_method || ' ' || http_route, name)"

_MOST: Final = 10
"""Operations that are shown."""


class Traffic:
    """What was asked and answered: server spans, of the period and of the one before."""

    def __init__(self, read: Read, period: Period) -> None:
        self.period = period
        rows = ask(
            read,
            f"""
            WITH seen AS (
                SELECT
                    start_time_unix_nano >= $since AS now,
                    (start_time_unix_nano - CASE WHEN start_time_unix_nano >= $since
                        THEN $since ELSE $before END) // {HOUR} AS hour,
                    (start_time_unix_nano - CASE WHEN start_time_unix_nano >= $since
                        THEN $since ELSE $before END) // {period.slot} AS slot,
                    {_FAILED} AS failed, {_MS} AS ms
                FROM lake.spans
                WHERE kind = 2 AND start_time_unix_nano >= $before
                    AND start_time_unix_nano < $until
                    AND (start_time_unix_nano >= $since OR start_time_unix_nano < $before_until)
            )
            SELECT now, hour, slot, count(*) AS n, count(*) FILTER (failed) AS failed,
                quantile_cont(ms, [0.5, 0.95]) AS quantiles
            FROM seen
            GROUP BY GROUPING SETS ((now), (now, hour), (now, slot))
            """,
            **limits(period),
        )
        self._rows = rows.to_dicts()

    def total(self, now: bool = True) -> dict[str, Any] | None:
        """Of a whole period; None when nothing was asked."""
        for row in self._rows:
            if row["now"] is now and row["hour"] is None and row["slot"] is None:
                return row
        return None

    def hours(self, of: str, now: bool = True, least: int = 0) -> dict[int, float]:
        """One number by the hour: `n`, `failed`, `p50` or `p95`."""
        return {
            row["hour"]: _value(row, of)
            for row in self._rows
            if row["now"] is now and row["hour"] is not None and row["n"] >= least
        }

    def slots(self, of: str, now: bool = True) -> tuple[float | None, ...]:
        """One number for each bar of a plot."""
        found = {
            row["slot"]: _value(row, of)
            for row in self._rows
            if row["now"] is now and row["slot"] is not None
        }
        return tuple(found.get(at) for at in range(self.period.slots))

    def change(self, of: str) -> compare.Change:
        """What became of it since the period before."""
        now, before = (self.hours(of, one) for one in (True, False))
        if of == "n":
            return compare.counts(now, before)
        if of == "failed":
            return compare.rates((now, self.hours("n")), (before, self.hours("n", now=False)))
        return compare.quantiles(
            *(self.hours(of, one, least=compare.ENOUGH) for one in (True, False))
        )


def section(read: Read, period: Period, traffic: Traffic) -> Section:
    """Requests as a whole."""
    total, before = traffic.total(), traffic.total(now=False)
    if total is None:
        quiet = "No request was answered"
        if before is not None:
            quiet += f"; {period.other} there were {number(before['n'])}"
        return Section("requests", "Requests", quiet=quiet + ".")
    n, failed = int(total["n"]), int(total["failed"])
    ids = _examples(read, period)
    low, high = wilson(failed, n)
    statements = [
        Statement(
            f"{counted(n, 'request')}{_before(before, 'n', number)}: {traffic.change('n').words}.",
            n, ids["slow"], mark=_mark(traffic.change("n")),
        ),
        Statement(
            f"{number(failed)} of {counted(n, 'request')} failed: {percent(failed / n)} "
            f"(95 % interval {percent(low)} to {percent(high)}){_before(before, 'rate', percent)}: "
            f"{traffic.change('failed').words}.",
            n, ids["failed"], mark=_mark(traffic.change("failed")),
        ),
    ]  # fmt: skip
    for of, words in (
        ("p50", "Half of the requests took at most"),
        ("p95", "95 % of the requests took at most"),
    ):
        change = traffic.change(of)
        statements.append(
            Statement(
                f"{words} {duration(_value(total, of))}{_before(before, of, duration)}: "
                f"{change.words}.",
                n, ids["slow"], mark=_mark(change),
            )
        )  # fmt: skip
    return Section("requests", "Requests", tuple(statements))


def charts(traffic: Traffic) -> tuple[Chart, ...]:
    """Requests, failures and p95 by the hour."""
    if traffic.total() is None and traffic.total(now=False) is None:
        return ()
    return tuple(
        Chart(title, unit, traffic.slots(of), traffic.slots(of, now=False))
        for title, of, unit in (
            ("Requests", "n", ""),
            ("Failed requests", "failed", ""),
            ("95th percentile of requests", "p95", "ms"),
        )
    )


def slowest(
    read: Read, period: Period, extra: Iterable[Statement] = (), *, brief: bool = False
) -> Section:
    """Operations by their 95th percentile: those of which it can be said."""
    title = "Slowest operations"
    said = tuple(extra)
    if brief:
        return Section("operations", title, said, quiet="No operation became slow.")
    found = ask(
        read,
        f"""
        SELECT coalesce(service_name, '') AS service, {_NAME} AS operation,
            count(*) AS n, count(*) FILTER ({_FAILED}) AS failed,
            quantile_cont({_MS}, [0.5, 0.95]) AS quantiles,
            arg_max(trace_id, (end_time_unix_nano - start_time_unix_nano, span_id)) AS trace_id,
            arg_max(span_id, (end_time_unix_nano - start_time_unix_nano, span_id)) AS span_id
        FROM lake.spans
        WHERE (kind IN (2, 5) OR parent_span_id IS NULL)
            AND start_time_unix_nano >= $since AND start_time_unix_nano < $until
        GROUP BY ALL
        HAVING n >= {compare.ENOUGH}
        ORDER BY quantiles[2] DESC, service, operation
        LIMIT {_MOST}
        """,
        **limits(period),
    )
    if found.is_empty():
        quiet = f"No operation ran {compare.ENOUGH} times, which its 95th percentile needs."
        return Section("operations", title, said, quiet="" if said else quiet)
    changes = _changes(read, period, found)
    ids = _memories(read, period, found)
    rows = []
    for row in found.iter_rows(named=True):
        p50, p95 = row["quantiles"]
        change = changes.get((row["service"], row["operation"]), compare.UNKNOWN)
        rows.append(
            Row(
                (
                    clean(f"{row['service']} {row['operation']}".strip(), 80), number(row["n"]),
                    percent(row["failed"] / row["n"]), duration(p50), duration(p95), change.words,
                ),
                tuple(ids.get(row["trace_id"], ())),
            )
        )  # fmt: skip
    table = Table(
        f"By the 95th percentile; operations that ran {compare.ENOUGH} times or more.",
        ("operation", "n", "failed", "p50", "p95", f"p95 against {period.other}"),
        tuple(rows),
    )
    return Section("operations", title, said, (table,))


def _changes(read: Read, period: Period, of: pl.DataFrame) -> dict[tuple[str, str], compare.Change]:
    """How the 95th percentile of some operations changed, by hours that both periods have."""
    rows = ask(
        read,
        f"""
        SELECT coalesce(service_name, '') AS service, {_NAME} AS operation,
            start_time_unix_nano >= $since AS now,
            (start_time_unix_nano - CASE WHEN start_time_unix_nano >= $since
                THEN $since ELSE $before END) // {HOUR} AS hour,
            quantile_cont({_MS}, 0.95) AS p95
        FROM lake.spans
        WHERE (kind IN (2, 5) OR parent_span_id IS NULL)
            AND start_time_unix_nano >= $before AND start_time_unix_nano < $until
            AND (start_time_unix_nano >= $since OR start_time_unix_nano < $before_until)
            AND list_contains($names, {_NAME})
        GROUP BY ALL
        HAVING count(*) >= {compare.ENOUGH}
        """,
        **limits(period),
        names=of["operation"].to_list(),
    )
    hours: dict[tuple[str, str], tuple[dict[int, float], dict[int, float]]] = {}
    for row in rows.iter_rows(named=True):
        both = hours.setdefault((row["service"], row["operation"]), ({}, {}))
        both[0 if row["now"] else 1][row["hour"]] = row["p95"]
    return {key: compare.quantiles(now, before) for key, (now, before) in hours.items()}


def _memories(read: Read, period: Period, of: pl.DataFrame) -> dict[str, list[str]]:
    """Memories of the slowest span of each operation, else of its trace; by trace."""
    rows = ask(
        read,
        f"""
        SELECT trace_id,
            list(id ORDER BY list_contains($spans, span_id) DESC, type DESC, id)[:2] AS ids
        FROM lake.memories
        WHERE list_contains($traces, trace_id)
            AND time_unix_nano >= $since - {HOUR} AND time_unix_nano < $until + {HOUR}
        GROUP BY trace_id
        """,
        **limits(period),
        spans=of["span_id"].to_list(),
        traces=of["trace_id"].to_list(),
    )
    return {row["trace_id"]: row["ids"] for row in rows.iter_rows(named=True)}


def _examples(read: Read, period: Period) -> dict[str, tuple[str, ...]]:
    """The slowest requests, and the last that failed, as memories."""
    row = ask(
        read,
        """
        SELECT
            arg_max(id, (coalesce(duration_ns, 0), id), 3) AS slow,
            arg_max(id, (time_unix_nano, id), 3) FILTER (outcome = 'error') AS failed
        FROM lake.memories
        WHERE type = 'request_outcome' AND time_unix_nano >= $since AND time_unix_nano < $until
        """,
        **limits(period),
    ).to_dicts()[0]
    return {name: tuple(ids or ()) for name, ids in row.items()}


def _value(row: dict[str, Any], of: str) -> float:
    match of:
        case "p50":
            return float(row["quantiles"][0])
        case "p95":
            return float(row["quantiles"][1])
        case "rate":
            return float(row["failed"] / row["n"])
    return float(row[of])


def _before(row: dict[str, Any] | None, of: str, words: Any) -> str:
    return "" if row is None else f", before {words(_value(row, of))}"


def _mark(change: compare.Change) -> str:
    return change.verdict if change.verdict in ("up", "down") else ""


__all__ = ["Traffic", "charts", "section", "slowest"]
