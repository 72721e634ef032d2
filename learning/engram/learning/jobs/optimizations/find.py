"""Patterns: what is wasted, by service, entry operation and offending operation.

A trace counts when it loses enough to matter; a pattern when it has happened often enough to be
one, in a share of the runs and of their time that is worth a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from engram.learning.jobs.optimizations import context, models, slow
from engram.learning.jobs.optimizations.names import named
from engram.learning.jobs.optimizations.reading import (
    MS,
    Period,
    addresses,
    calls,
    runs,
    with_runs,
)  # fmt: skip
from engram.learning.jobs.optimizations.repeats import repeats
from engram.learning.jobs.optimizations.serial import serial

if TYPE_CHECKING:
    import polars as pl

    from engram.learning.jobs.runner import Read

LEAST: Final = 5
"""Affected runs that make a pattern."""
RUNS: Final = 0.01
"""Of all runs, the share that must be affected."""
LOST: Final = 50 * MS
"""What a trace must lose to repeated calls to be counted, or `PART` of its run."""
PART: Final = 0.1
OF_TIME: Final = 0.01
"""Of the time of all runs, the share that must be lost (slow queries: `PART`)."""

IN_TOKENS: Final = ("context_sent_again", "context_twice", "oversize_context")
"""Kinds whose saving is in tokens."""

_COLUMNS: Final = ("kind", "service", "entry", "operation", "trace_id", "run", "run_began", "took",
                   "version", "times", "wasted", "tokens")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Name:
    """What makes a pattern that one."""

    kind: str
    service: str
    entry: str
    operation: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """In the key of an insight."""
        return (self.kind, self.service, self.entry, self.operation)

    @property
    def unit(self) -> str:
        """Of its saving."""
        return "tokens" if self.kind in IN_TOKENS else "ms"


@dataclass(frozen=True, slots=True)
class Found:
    """A pattern in a look: its affected runs in time, and all runs of its entry."""

    name: Name
    affected: pl.DataFrame
    """`trace_id`, `began`, `times`, `wasted`, `tokens`, `version`."""
    runs: pl.DataFrame
    """`began`, `took`, `version`."""

    @property
    def wasted(self) -> list[float]:
        """Of each affected run, in the unit of the pattern."""
        if self.name.unit == "tokens":
            return [float(one) for one in self.affected["tokens"]]
        return [one / MS for one in self.affected["wasted"]]

    @property
    def stands(self) -> bool:
        """Whether it is often and large enough to be told."""
        n, total = self.affected.height, self.runs.height
        if n < LEAST or n < RUNS * total:
            return False
        if self.name.kind in ("retry_storm", "same_prompt", "same_tool_call", *IN_TOKENS):
            return True
        part = PART if self.name.kind == "slow_query" else OF_TIME
        return int(self.affected["wasted"].sum()) >= part * int(self.runs["took"].sum())


def look(read: Read, span: Period) -> tuple[dict[Name, Found], pl.DataFrame]:
    """All patterns, also those too rare to be told; and the runs of the look."""
    import polars as pl

    run = runs(read, span)
    parts = [*_called(read, span, run), *_asked(read, span, run)]
    queries = slow.executions(read, span)
    parts.append(slow.slow(with_runs(queries, run)))
    wasted = pl.concat(
        [
            part.with_columns(
                pl.col("tokens") if "tokens" in part.columns else pl.lit(0).alias("tokens")
            ).select(
                pl.col(name).cast(pl.Int64)
                if name in ("run", "times", "wasted", "tokens") else pl.col(name)
                for name in _COLUMNS
            )
            for part in parts
        ]
    )  # fmt: skip
    each = (
        wasted.group_by("kind", "service", "entry", "operation", "run")
        .agg(
            pl.col("trace_id", "run_began", "version").first(),
            pl.col("times", "wasted", "tokens").sum(),
        )
        .sort("kind", "service", "entry", "operation", "run")
    )
    entries = dict(run.group_by("service", "entry", maintain_order=True))
    found = {}
    for key, part in each.group_by("kind", "service", "entry", "operation", maintain_order=True):
        name = Name(*(str(one) for one in key))
        affected = part.select(
            "trace_id", pl.col("run_began").alias("began"), "times", "wasted", "tokens", "version"
        )
        of = entries[name.service, name.entry].select("began", "took", "version")
        found[name] = Found(name, affected, of)
    return found, run


def _called(read: Read, span: Period, run: pl.DataFrame) -> list[pl.DataFrame]:
    import polars as pl

    called = with_runs(named(calls(read, span)), run)
    repeated = repeats(called)
    elapsed = pl.col("ended") - pl.col("began")
    matters = (elapsed >= LOST) | (elapsed >= PART * pl.col("took"))
    repeated = repeated.filter(matters | (pl.col("kind") == "retry_storm"))
    waiting = serial(called, lambda traces: addresses(read, span, traces))
    return [repeated, waiting.filter(pl.col("wasted") >= PART * pl.col("took"))]


def _asked(read: Read, span: Period, run: pl.DataFrame) -> list[pl.DataFrame]:
    asked = models.asked(read, span)
    of_runs = with_runs(asked, run)
    return [
        models.within(of_runs),
        with_runs(models.sent_again(asked), run),
        models.cacheable(of_runs),
        context.repeated(of_runs),
        context.oversize(of_runs),
    ]


__all__ = ["IN_TOKENS", "LEAST", "Found", "Name", "look"]
