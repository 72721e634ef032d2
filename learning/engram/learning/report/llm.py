"""Models: calls, tokens, cost where the telemetry says it, failures; and nodes and tools of agents.

Engram knows no prices and invents none. A cost is what a span says of its own call
(`gen_ai.usage.cost`, `llm.cost.total`, `llm.usage.total_cost`), and of how many calls it is known
is said with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from engram.learning.intervals import wilson
from engram.learning.report import compare
from engram.learning.report.ask import ask, limits
from engram.learning.report.model import Chart, Row, Section, Statement, Table
from engram.learning.report.period import HOUR, Period
from engram.learning.report.words import clean, counted, duration, number, percent
from engram.learning.report.work import still_failing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engram.learning.jobs.runner import Read

_MOST: Final = 10

_TOKENS: Final = (
    "coalesce(TRY_CAST(attributes->>'$.input_tokens' AS DOUBLE), 0)",
    "coalesce(TRY_CAST(attributes->>'$.output_tokens' AS DOUBLE), 0)",
)
_COSTS: Final = ("gen_ai.usage.cost", "llm.cost.total", "llm.usage.total_cost")
"""What calls say of their price: OpenLIT and others, OpenInference, Langfuse's old name."""


class Calls:
    """Calls of models, of the period and of the one before."""

    def __init__(self, read: Read, period: Period) -> None:
        self.period = period
        rows = ask(
            read,
            f"""
            WITH calls AS (
                SELECT time_unix_nano >= $since AS now,
                    (time_unix_nano - CASE WHEN time_unix_nano >= $since
                        THEN $since ELSE $before END) // {HOUR} AS hour,
                    (time_unix_nano - CASE WHEN time_unix_nano >= $since
                        THEN $since ELSE $before END) // {period.slot} AS slot,
                    coalesce(subject, 'unknown model') AS model,
                    coalesce(attributes->>'$.agent', '') AS agent,
                    outcome = 'error' AS failed, duration_ns / 1e6 AS ms,
                    {_TOKENS[0]} AS input, {_TOKENS[1]} AS output, time_unix_nano AS moment, id
                FROM lake.memories
                WHERE type = 'ai_response' AND time_unix_nano >= $before
                    AND time_unix_nano < $until
                    AND (time_unix_nano >= $since OR time_unix_nano < $before_until)
            )
            SELECT grouping(model) AS whole, now, hour, slot, model, agent, count(*) AS n,
                count(*) FILTER (failed) AS failed, sum(input) AS input, sum(output) AS output,
                quantile_cont(ms, [0.5, 0.95]) AS quantiles,
                arg_max(id, (coalesce(ms, 0), id), 3) AS slow,
                arg_max(id, (moment, id), 3) FILTER (failed) AS wrong
            FROM calls
            GROUP BY GROUPING SETS ((now), (now, hour), (now, slot), (now, model, agent))
            """,
            **limits(period),
        )
        self._rows = rows.to_dicts()

    def total(self, now: bool = True) -> dict[str, Any] | None:
        """Of a whole period; None when there was no call."""
        for row in self._rows:
            if row["now"] is now and row["whole"] and row["hour"] is None and row["slot"] is None:
                return row
        return None

    def models(self) -> list[dict[str, Any]]:
        """Of the period, by model and agent, the most used first."""
        found = [row for row in self._rows if row["now"] and not row["whole"]]
        return sorted(found, key=lambda row: (-row["n"], row["model"], row["agent"]))

    def before(self, model: str, agent: str) -> dict[str, Any] | None:
        """The same of the period before."""
        for row in self._rows:
            if not row["now"] and not row["whole"] and (row["model"], row["agent"]) == (
                model, agent,
            ):  # fmt: skip
                return row
        return None

    def hours(self, of: str, now: bool = True) -> dict[int, float]:
        """One number by the hour."""
        return {
            row["hour"]: float(row[of])
            for row in self._rows
            if row["now"] is now and row["hour"] is not None
        }

    def chart(self) -> tuple[Chart, ...]:
        """Tokens by the hour; calls where no provider tells tokens."""
        if self.total() is None and self.total(now=False) is None:
            return ()
        tokens = any(row["input"] + row["output"] for row in self._rows)
        both = [
            {
                row["slot"]: float(row["input"] + row["output"] if tokens else row["n"])
                for row in self._rows
                if row["now"] is now and row["slot"] is not None
            }
            for now in (True, False)
        ]
        slots = range(self.period.slots)
        title = "Tokens of models" if tokens else "Calls of models"
        now, before = (tuple(one.get(at) for at in slots) for one in both)
        return (Chart(title, "", now, before),)


def section(
    read: Read, period: Period, calls: Calls, extra: Iterable[Statement], *, brief: bool = False
) -> Section:
    """Models, then what agents did with them. In brief: without cost and tables."""
    title = "Models and agents"
    said = tuple(extra)
    runs, fails = ((), ()) if brief else _runs(read, period)
    said += fails
    total = calls.total()
    if total is None and not said and not runs:
        before = calls.total(now=False)
        quiet = "No model was called"
        quiet += f"; {period.other} there were {counted(before['n'], 'call')}" if before else ""
        return Section("llm", title, quiet=quiet + ".")
    if total is None:
        return Section("llm", title, said, runs)
    known, cost = (0, 0.0) if brief else _cost(read, period)
    statements = (*said, *_statements(calls, total, known, cost))
    tables = () if brief else (_table(period, calls), *runs)
    return Section("llm", title, statements, tables)


def _statements(calls: Calls, total: dict[str, Any], known: int, cost: float) -> list[Statement]:
    n, failed = int(total["n"]), int(total["failed"])
    before = calls.total(now=False)
    change = compare.counts(calls.hours("n"), calls.hours("n", now=False))
    then = f", before {number(before['n'])}" if before else ""
    made = [
        Statement(
            f"{counted(n, 'call')}{then}: {change.words}.",
            n, tuple(total["slow"]), mark=_mark(change),
        )
    ]  # fmt: skip
    tokens = total["input"] + total["output"]
    if tokens:
        then = f", before {number(before['input'] + before['output'])}" if before else ""
        made.append(
            Statement(
                f"{number(tokens)} tokens ({number(total['input'])} in, "
                f"{number(total['output'])} out){then}.",
                n, tuple(total["slow"]),
            )
        )  # fmt: skip
    if known:
        made.append(
            Statement(
                f"{cost:,.4g} in cost, as the telemetry says it of {number(known)} of "
                f"{counted(n, 'call')} (in its own currency).",
                known, tuple(total["slow"]),
            )
        )  # fmt: skip
    low, high = wilson(failed, n)
    fails = compare.rates(
        (calls.hours("failed"), calls.hours("n")),
        (calls.hours("failed", now=False), calls.hours("n", now=False)),
    )
    made.append(
        Statement(
            f"{number(failed)} of {counted(n, 'call')} failed: {percent(failed / n)} (95 % "
            f"interval {percent(low)} to {percent(high)}): {fails.words}.",
            n, tuple(total["wrong"] or total["slow"]), mark=_mark(fails),
        )
    )  # fmt: skip
    return made


def _cost(read: Read, period: Period) -> tuple[int, float]:
    """Of how many calls the cost is known, and the sum."""
    said = ", ".join(f"TRY_CAST(s.attributes->>'$.\"{name}\"' AS DOUBLE)" for name in _COSTS)
    row = ask(
        read,
        f"""
        WITH calls AS (
            SELECT trace_id, span_id FROM lake.memories
            WHERE type = 'ai_response' AND span_id IS NOT NULL
                AND time_unix_nano >= $since AND time_unix_nano < $until
        )
        SELECT count(cost) AS known, coalesce(sum(cost), 0.0) AS cost FROM (
            SELECT coalesce({said}) AS cost
            FROM lake.spans AS s
            WHERE contains(s.attributes, 'cost')  -- a tenth of what extracting costs
                AND s.start_time_unix_nano >= $since - {HOUR} AND s.start_time_unix_nano < $until
                AND (s.trace_id, s.span_id) IN (SELECT (trace_id, span_id) FROM calls)
        )
        """,
        **limits(period),
    ).to_dicts()[0]
    return int(row["known"]), float(row["cost"])


def _table(period: Period, calls: Calls) -> Table:
    models = calls.models()
    rows = []
    for row in models[:_MOST]:
        before = calls.before(row["model"], row["agent"])
        quantiles = row["quantiles"] or [None, None]
        low, high = wilson(row["failed"], row["n"])
        rows.append(
            Row(
                (
                    clean(row["model"] + (f" ({row['agent']})" if row["agent"] else ""), 80),
                    number(row["n"]), number(before["n"]) if before else "0",
                    f"{percent(row['failed'] / row['n'])} ({percent(low)} to {percent(high)})",
                    number(row["input"]), number(row["output"]),
                    *("" if one is None else duration(one) for one in quantiles),
                ),
                tuple(row["wrong"] or row["slow"]),
            )
        )  # fmt: skip
    columns = (
        "model (agent)", "calls", period.other, "failed (95 % interval)", "tokens in",
        "tokens out", "p50", "p95",
    )  # fmt: skip
    return Table("By model and agent.", columns, tuple(rows), max(0, len(models) - _MOST))


def _runs(read: Read, period: Period) -> tuple[tuple[Table, ...], tuple[Statement, ...]]:
    """LangGraph nodes and tools: how reliable, how slow, what goes wrong most often."""
    tables: list[Table] = []
    fails: list[Statement] = []
    for caption, column, type_ in (
        ("Steps of graphs.", "node", "type = 'langgraph_outcome'"),
        ("Tools.", "tool", "type = 'api_call' AND list_contains(tags, 'tool:' || subject)"),
    ):
        found = ask(
            read,
            f"""
            SELECT subject AS name, count(*) AS n, count(*) FILTER (outcome = 'error') AS failed,
                quantile_cont(duration_ns / 1e6, 0.95) AS p95,
                mode(attributes->>'$.error_type') FILTER (outcome = 'error') AS why,
                arg_max(id, (time_unix_nano, id), 3) FILTER (outcome = 'error') AS wrong,
                arg_max(id, (coalesce(duration_ns, 0), id), 2) AS slow
            FROM lake.memories
            WHERE {type_} AND subject IS NOT NULL
                AND time_unix_nano >= $since AND time_unix_nano < $until
            GROUP BY subject ORDER BY failed DESC, n DESC, name
            """,
            **limits(period),
        ).to_dicts()
        fails += still_failing(found)
        if found:
            columns = (column, "n", "succeeded (95 % interval)", "p95", "most frequent error")
            rows = tuple(_run(row) for row in found[:_MOST])
            tables.append(Table(caption, columns, rows, max(0, len(found) - _MOST)))
    return tuple(tables), tuple(fails)


def _run(row: dict[str, Any]) -> Row:
    good = row["n"] - row["failed"]
    low, high = wilson(good, row["n"])
    p95 = "" if row["p95"] is None else duration(row["p95"])
    return Row(
        (
            clean(row["name"], 80), number(row["n"]),
            f"{percent(good / row['n'])} ({percent(low)} to {percent(high)})", p95,
            clean(row["why"] or "", 60),
        ),
        tuple(row["wrong"] or row["slow"]),
    )  # fmt: skip


def _mark(change: compare.Change) -> str:
    return change.verdict if change.verdict in ("up", "down") else ""


__all__ = ["Calls", "section"]
