"""One call too often within a run: N+1 queries and calls, the same call again, retry storms.

* **n_plus_one**: the same query or endpoint five times or more, one after the
  other, with other values or with values that cannot be seen. (The number is the one that is usual
  among products; less is more often a page with five parts than a loop.) Saved: all but the
  longest, as one query for all of them takes about as long as one.
* **repeated_call**: the very same read, all values seen and equal, three times or more in a run,
  all well, and nothing written in between. Twice is more often two layers that both look.
* **retry_storm**: the same call fails three times or more in a run, and the pauses between do not
  grow: a client that waits longer each time is a polite one, until its sixth failure.

What is far apart is no loop: who polls waits in between. What overlaps is no loop either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from engram.learning.jobs.optimizations.reading import MS

if TYPE_CHECKING:
    import polars as pl

LOOP: Final = 5
AGAIN: Final = 3
FAILURES: Final = 3
IMPOLITE: Final = 6
"""Failures that no pause excuses."""

SHORT: Final = 100 * MS
"""A pause that is none."""
_OVERLAP: Final = 1.1

OF_RUN: Final = ("trace_id", "entry", "run", "run_began", "took", "version")
"""Columns of a row that are those of its run."""


def _timed(rows: pl.DataFrame, keys: list[str], least: int) -> pl.DataFrame:
    """Groups of so many at least, as `group`, in time: with `pause` (after the one before), `busy`.

    Keys are texts: as one number they group many times faster.
    """
    import polars as pl

    began, ended = pl.col("began"), pl.col("ended")
    before = ended.cum_max().shift(1).over("group")
    many = rows.with_columns(pl.struct(keys).hash().alias("group")).filter(
        pl.len().over("group") >= least
    )
    return many.sort("began", "ended", "span_id").with_columns(
        pl.max_horizontal(pl.lit(0), began - before).alias("pause"),
        pl.max_horizontal(
            pl.lit(0), ended - pl.max_horizontal(began, before.fill_null(began))
        ).alias("busy"),
        (ended - began).alias("length"),
    )


def _sums() -> list[pl.Expr]:
    import polars as pl

    return [
        pl.len().alias("times"),
        pl.col("place").first(),
        pl.col("began").min(),
        pl.col("ended").max(),
        pl.col("busy").sum(),
        pl.col("length").sum(),
        pl.col("length").max().alias("longest"),
        pl.col("length").median().alias("usual"),
        pl.col("pause").median(),
        pl.col("service", "operation", *OF_RUN).first(),
    ]


def _in_a_row() -> pl.Expr:
    """One after the other, without waiting in between."""
    import polars as pl

    pause = pl.col("pause").fill_null(0)
    return (pl.col("length") <= _OVERLAP * pl.col("busy")) & (
        pause <= pl.max_horizontal(pl.lit(SHORT), 5 * pl.col("usual"))
    )


def loops(calls: pl.DataFrame) -> pl.DataFrame:
    """N+1."""
    import polars as pl

    keys = ["place", "service", "family", "operation", "host"]
    fine = calls.filter(pl.col("counts") & ~pl.col("failed") & ~pl.col("paged"))
    fine = fine.filter((pl.col("family") != "http") | pl.col("url").is_not_null())
    found = (
        _timed(fine, keys, LOOP)
        .group_by("group")
        .agg(
            *_sums(),
            pl.col("exact").n_unique().alias("distinct"),
            pl.col("exact").is_null().any().alias("unseen"),
        )
        .filter(
            (pl.col("times") >= LOOP)
            & _in_a_row()
            & (pl.col("unseen") | (pl.col("distinct") >= LOOP))
        )
    )
    return found.with_columns(
        pl.lit("n_plus_one").alias("kind"), (pl.col("busy") - pl.col("longest")).alias("wasted")
    )


def again(calls: pl.DataFrame) -> pl.DataFrame:
    """The same read again."""
    import polars as pl

    keys = ["place", "service", "family", "operation", "host", "exact"]
    seen = calls.filter(pl.col("exact").is_not_null() & pl.col("reads") & pl.col("counts"))
    found = (
        _timed(seen, keys, AGAIN)
        .group_by("group")
        .agg(*_sums(), pl.col("failed").any())
        .filter((pl.col("times") >= AGAIN) & ~pl.col("failed") & _in_a_row())
    )
    writes = calls.filter(~pl.col("reads").fill_null(False) & pl.col("counts")).select(
        "place", pl.col("began").alias("written")
    )
    changed = (
        found.join(writes, on="place")
        .filter(pl.col("written").is_between(pl.col("began"), pl.col("ended")))
        .select("group")
        .unique()
    )
    return found.join(changed, on="group", how="anti").with_columns(
        pl.lit("repeated_call").alias("kind"), (pl.col("busy") - pl.col("longest")).alias("wasted")
    )


def storms(calls: pl.DataFrame) -> pl.DataFrame:
    """The same failing call, again and again."""
    import polars as pl

    keys = ["place", "service", "family", "operation", "host", "call"]
    # A statement whose values cannot be seen may be another one each time: that is no retry.
    seen = calls.filter((pl.col("family") != "db") | pl.col("exact").is_not_null())
    seen = seen.with_columns(pl.coalesce("exact", "operation").alias("call"))
    failing = _timed(seen.filter("failed"), keys, FAILURES)
    pause = pl.col("pause")
    found = (
        failing.group_by("group")
        .agg(
            *_sums(),
            pause.drop_nulls().first().alias("first_pause"),
            pause.drop_nulls().last().alias("last_pause"),
            pause.max().alias("most"),
            pl.col("busy").first().alias("needed"),
        )
        .filter(
            (pl.col("times") >= FAILURES)
            & (pl.col("length") <= _OVERLAP * pl.col("busy"))
            & (
                (pl.col("times") >= IMPOLITE)
                | (pl.col("most") <= SHORT)
                | (pl.col("last_pause") < 1.5 * pl.col("first_pause"))
            )
        )
    )
    return found.with_columns(
        pl.lit("retry_storm").alias("kind"), (pl.col("busy") - pl.col("needed")).alias("wasted")
    )


def repeats(calls: pl.DataFrame) -> pl.DataFrame:
    """All three."""
    import polars as pl

    columns = ["kind", "service", "operation", "began", "ended", "times", "wasted",
               *OF_RUN]  # fmt: skip
    return pl.concat([part(calls).select(columns) for part in (loops, again, storms)])


__all__ = ["again", "loops", "repeats", "storms"]
