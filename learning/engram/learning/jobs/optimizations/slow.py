"""Slow queries: a statement whose 95th percentile is at half a second or more.

With few runs a percentile is a guess, so it is asked the other way round: that at least one in
twenty takes half a second, with the lower bound of the share (Wilson, 95 %). And it must matter:
a tenth of the time of the runs that it is part of. What it could take instead, no trace tells:
called saved is what is above half a second, as if it were brought down to there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from engram.learning.jobs.optimizations.names import named
from engram.learning.jobs.optimizations.reading import MS, Period, paths

if TYPE_CHECKING:
    import polars as pl

    from engram.learning.jobs.runner import Read

SLOW: Final = 500 * MS
SHARE: Final = 0.05
ENOUGH: Final = 5
"""Slow runs that a statement must have had."""


def executions(read: Read, span: Period) -> pl.DataFrame:
    """All runs of the statements that have the name of some slow ones."""
    found = read(
        f"""
        WITH slow AS (
            SELECT service_name, name FROM lake.spans
            WHERE start_time_unix_nano >= ? AND start_time_unix_nano < ? AND kind = 3
                AND db_system_name IS NOT NULL
                AND end_time_unix_nano - start_time_unix_nano >= {SLOW}
            GROUP BY ALL HAVING count(*) >= {ENOUGH}
        )
        SELECT trace_id, span_id, coalesce(service_name, '') AS service, name,
            start_time_unix_nano AS began, end_time_unix_nano AS ended, status_code = 2 AS failed,
            json_extract_string(attributes, {paths("db.query.text", "db.statement")}) AS said
        FROM lake.spans JOIN slow USING (service_name, name)
        WHERE start_time_unix_nano >= ? AND start_time_unix_nano < ? AND kind = 3
            AND db_system_name IS NOT NULL
        """,
        [span.since, span.until] * 2,
    )
    return statements(found)


def statements(found: pl.DataFrame) -> pl.DataFrame:
    """The rows with `operation`."""
    import polars as pl

    none = pl.lit(None, pl.String)
    return named(
        found.with_columns(
            pl.coalesce(pl.col("said").list.get(0), pl.col("said").list.get(1)).alias("statement"),
            pl.lit("db").alias("family"),
            *(none.alias(name) for name in ("url", "template", "method", "host", "rpc",
                                            "parameters")),
        )
    )  # fmt: skip


def slow(rows: pl.DataFrame) -> pl.DataFrame:
    """The slow statements' runs, of rows that know the run they are part of."""
    import polars as pl

    keys = ["service", "entry", "operation"]
    length = pl.col("ended") - pl.col("began")
    z = 1.96
    n, k = pl.len().cast(pl.Float64), (length >= SLOW).sum().cast(pl.Float64)
    p = k / n
    low = (
        (p + z * z / (2 * n) - z * (p * (1 - p) / n + z * z / (4 * n * n)).sqrt())
        / (1 + z * z / n)
    )  # fmt: skip
    some = (
        rows.group_by(keys)
        .agg(k.alias("slow"), low.alias("low"), length.quantile(0.95).alias("p95"))
        .filter((pl.col("slow") >= ENOUGH) & (pl.col("low") >= SHARE) & (pl.col("p95") >= SLOW))
    )
    return (
        rows.join(some, on=keys, how="semi")
        .filter(length >= SLOW)
        .group_by(*keys, "trace_id", "run", "run_began", "took", "version")
        .agg(
            pl.col("began").min(),
            pl.col("ended").max(),
            pl.len().alias("times"),
            (length - SLOW).sum().alias("wasted"),
            pl.col("span_id").first(),
        )
        .with_columns(pl.lit("slow_query").alias("kind"))
    )


__all__ = ["ENOUGH", "SHARE", "SLOW", "executions", "slow"]
