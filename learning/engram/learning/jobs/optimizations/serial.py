"""Reads of other services one after the other that could run at the same time.

Whether one needs what another answered cannot be seen in a trace. What can be seen is whether it
might: an id in the address of a later call that was neither in the request nor in the first call's
address may come from an answer. So only calls are named whose ids were all known at the beginning,
that are reads, that follow each other without other work in between, and whose parent runs no calls
at the same time anyway. Even then it is said as "could".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from engram.learning.jobs.optimizations.reading import MS
from engram.learning.jobs.optimizations.repeats import OF_RUN

if TYPE_CHECKING:
    import polars as pl

EACH: Final = 30 * MS
"""A shorter call is not worth the trouble of a second task."""
SAVED: Final = 100 * MS
"""What a trace must lose to be counted, about what a person notices."""
BETWEEN: Final = 10 * MS
"""Between two calls in a row; longer, and an answer may have been worked on."""

_IDS: Final = r"[^/?&=#]*\d[^/?&=#]*|[^/?&=#]{24,}"


def serial(calls: pl.DataFrame, asked: Callable[[pl.Series], pl.DataFrame]) -> pl.DataFrame:
    """Rows like those of `repeats`; `asked` gives the addresses that some traces were asked for."""
    import polars as pl

    keys = ["trace_id", "service", "parent"]
    pause = pl.col("began") - pl.col("ended").cum_max().shift(1).over("group")
    fits = (
        (pl.col("family") == "http")
        & pl.col("reads")
        & ~pl.col("failed")
        & pl.col("url").is_not_null()
        & (pl.col("ended") - pl.col("began") >= EACH)
    ).fill_null(False)
    follows = pl.col("fits").shift(1).over("group").fill_null(False) & (pl.col("pause") <= BETWEEN)
    siblings = calls.filter(pl.col("parent").is_not_null()).with_columns(
        pl.struct(keys).hash().alias("group"), fits.alias("fits")
    )
    near = (
        siblings.filter(pl.col("fits").sum().over("group") >= 2)
        .sort("began", "ended", "span_id")
        .with_columns(pause.alias("pause"))
        .filter((pl.col("pause").fill_null(0) >= 0).all().over("group"))
    )
    grouped = (
        near.with_columns((~follows).cum_sum().over("group").alias("chain"))
        .filter("fits")
        .group_by("group", "chain", maintain_order=True)
        .agg(
            pl.col("service", *OF_RUN).first(),
            pl.len().alias("times"),
            pl.col("operation"),
            pl.col("operation").n_unique().alias("distinct"),
            pl.col("url").str.replace(r"^[a-zA-Z][\w+.-]*://[^/]*", ""),
            pl.col("began").min(),
            pl.col("ended").max(),
            (pl.col("ended") - pl.col("began")).sum().alias("length"),
            (pl.col("ended") - pl.col("began")).max().alias("longest"),
            pl.col("span_id").first(),
        )
        .filter(
            (pl.col("times") >= 2)
            & (pl.col("distinct") == pl.col("times"))
            & (pl.col("length") - pl.col("longest") >= SAVED)
        )
    )
    grouped = grouped.join(asked(grouped["trace_id"].unique()), on="trace_id", how="left")
    known = pl.concat_str(
        pl.col("address").fill_null(""), pl.col("url").list.first(), separator="/"
    ).str.extract_all(_IDS)
    later = pl.col("url").list.slice(1).list.join("/").str.extract_all(_IDS)
    return grouped.filter(later.list.set_difference(known).list.len() == 0).select(
        pl.lit("serial_calls").alias("kind"),
        "service",
        *OF_RUN,
        pl.col("operation").list.join(", then ").str.slice(0, 300),
        "began",
        "ended",
        "times",
        (pl.col("length") - pl.col("longest")).alias("wasted"),
        "span_id",
    )


__all__ = ["serial"]
