"""What a model is given that it cannot need: the same text twice, and much more than usual.

* **context_twice**: long texts (a document, a history, a result) are in the messages of one call
  more than once: 1,024 tokens of it and a fifth of the call at least. A conversation that grows
  has each of its texts once, and is no matter of this.
* **oversize_context**: of the runs of an operation some, a quarter at most, begin with four times
  the tokens of the usual one and 4,096 more, apart from the others (few are between twice and four
  times the usual: sizes that only vary have no such gap, whatever their spread), and what they
  give is no better as far as can be seen: they fail no less often, and their answers are as long
  (the 95 % interval of the difference of medians ends below a half). Only the first call of a
  run counts, since later ones carry what came before. Whether the long ones were in need of it
  cannot be seen, and the words say so.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from engram.learning.jobs.optimizations.savings import difference

if TYPE_CHECKING:
    import polars as pl

LONG_TEXT: Final = 1024
"""Characters of a text that counts when it is repeated; shorter ones are words like "yes"."""
LEAST_TWICE: Final = 1024
"""Tokens that are there again."""
PART_TWICE: Final = 0.2
"""Of a call, the share of them."""

OVERSIZE: Final = 4.0
USUAL: Final = 2.0
"""Up to so many times the median is usual; from there to `OVERSIZE` is the gap."""
GAP: Final = 0.25
"""For each oversize run, runs in the gap."""
MORE_TOKENS: Final = 4096
MINORITY: Final = 0.25
LEAST_RUNS: Final = 20
FAIL_LESS: Final = 0.1
"""If so few failures of long ones are less likely than this by the others' rate (binomial), they
may be better."""
LONGER: Final = 0.5
"""If their answers may be so much longer, they may be better."""


def twice(messages: str) -> str:
    """SQL: the characters of long texts in a list of messages that are there already."""
    texts = f"""list_filter(
        json_extract_string({messages}, '$[*].parts[*].content')
            || json_extract_string({messages}, '$[*].content'),
        lambda text: strlen(text) >= {LONG_TEXT})"""
    total = "coalesce(list_sum(list_transform({}, lambda text: strlen(text))), 0)"
    return (
        f"CASE WHEN strlen({messages}) >= {2 * LONG_TEXT} AND {messages} LIKE '[%' "
        f"AND json_valid({messages}) "
        f"THEN CAST({total.format(texts)} "
        f"- {total.format(f'list_distinct({texts})')} AS BIGINT) END"
    )


def repeated(calls: pl.DataFrame) -> pl.DataFrame:
    """`context_twice`, of calls that know their run."""
    import polars as pl

    share = pl.col("twice") / pl.col("size")
    tokens = (pl.col("tokens_in") * share).floor().cast(pl.Int64)
    return (
        calls.filter(~pl.col("tool") & ~pl.col("failed") & (share >= PART_TWICE))
        .with_columns(tokens.alias("tokens"))
        .filter(pl.col("tokens") >= LEAST_TWICE)
        .with_columns(
            pl.lit("context_twice").alias("kind"), pl.lit(1, pl.Int64).alias("times"),
            pl.lit(0, pl.Int64).alias("wasted"),
        )
    )  # fmt: skip


def oversize(calls: pl.DataFrame) -> pl.DataFrame:
    """`oversize_context`, of calls that know their run."""
    import polars as pl

    of = ["service", "entry", "operation"]
    first = (
        calls.filter(~pl.col("tool") & pl.col("tokens_in").is_not_null())
        .sort("began", "span_id")
        .unique(["run", *of], keep="first", maintain_order=True)
        .with_columns(pl.col("tokens_in").median().over(of).alias("usual"))
        .with_columns((pl.col("tokens_in") / pl.col("usual")).alias("ratio"))
        .with_columns(
            (
                (pl.col("ratio") >= OVERSIZE)
                & (pl.col("tokens_in") - pl.col("usual") >= MORE_TOKENS)
            ).alias("large"),
            (pl.col("ratio") > USUAL).alias("above"),
        )
    )
    few = (
        first.group_by(of, maintain_order=True)
        .agg(
            pl.len().alias("n"), pl.col("large").sum().alias("of_large"),
            (pl.col("above") & ~pl.col("large")).sum().alias("between"),
        )
        .filter(
            (pl.col("n") >= LEAST_RUNS) & (pl.col("of_large") >= 1)
            & (pl.col("of_large") <= MINORITY * pl.col("n"))
            & (pl.col("between") <= GAP * pl.col("of_large"))
        )
    )  # fmt: skip
    some = first.join(few, on=of, how="semi")
    kept = [part for _, part in some.group_by(of, maintain_order=True) if _no_better(part)]
    return (
        pl.concat([some.clear(), *kept])
        .filter(pl.col("large") & ~pl.col("failed"))
        .with_columns(
            pl.lit("oversize_context").alias("kind"), pl.lit(1, pl.Int64).alias("times"),
            pl.lit(0, pl.Int64).alias("wasted"),
            (pl.col("tokens_in") - pl.col("usual")).floor().cast(pl.Int64).alias("tokens"),
        )
    )  # fmt: skip


def _no_better(runs: pl.DataFrame) -> bool:
    """Whether long runs of an operation fail as often as others and answer at no more length."""
    import polars as pl

    large, usual = runs.filter("large"), runs.filter(~pl.col("above"))
    n, failures = large.height, int(large["failed"].sum())
    rate = int(usual["failed"].sum()) / max(1, usual.height)
    chance = sum(
        math.comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in range(min(failures, n) + 1)
    )
    if chance < FAIL_LESS:
        return False
    longs, others = (
        [float(one) for one in part.filter(~pl.col("failed"))["tokens_out"].drop_nulls()]
        for part in (large, usual)
    )
    if len(longs) < 2 or len(others) < 2:
        return False
    more = difference(longs, others)
    middle = sorted(others)[len(others) // 2]
    return more.high <= LONGER * middle


__all__ = ["oversize", "repeated", "twice"]
