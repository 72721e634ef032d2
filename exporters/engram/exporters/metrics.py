"""Metric points to the rows that the rules see: one per series and window of five minutes.

A series is a resource, a scope, a metric (name, type, unit) and its attributes in any order.
A row names its series and window, which make the memory's id, and holds the hashes of its points.
It says nothing that needs the point before: deltas, rates and quantiles are computed by the view
`metric_windows` from the stored points, so the order of arrival cannot change them.

Five minutes: SDKs export every 60 s, so a window of one minute would make a memory of every
point, and a quarter of an hour would blur what people ask for ("when did it get slow?").
100 series sent for an hour are 6,000 memories with one minute, 1,200 with five, 400 with fifteen,
at 60 s as at 10 s between exports (`bench/metric_rows.py`).
What it costs: each later commit that adds to a window writes its rows again.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import Any, Final

import polars as pl
import pyarrow as pa

from engram.exporters.merge import canonical_object
from engram.exporters.otlp.values import double_json

WINDOW_NS: Final = 300_000_000_000
"""Length of a window; windows begin at multiples of it."""

POINT_COLUMNS: Final = (
    "name", "description", "unit", "type", "aggregation_temporality", "start_time_unix_nano",
    "time_unix_nano", "attributes", "value_int", "value_double", "count", "sum", "service_name",
    "resource", "scope_name", "scope_version", "scope_attributes", "content_hash",
    "flags",
)  # fmt: skip
"""Columns of `METRICS` that the rows are made from."""
_CONTEXT: Final = ("resource", "scope_name", "scope_version", "scope_attributes", "name", "type",
                   "unit", "attributes")  # fmt: skip
_TEMPORALITY: Final = {1: "delta", 2: "cumulative"}


@lru_cache(maxsize=8192)
def _labels(raw: str | None) -> tuple[str, str, dict[str, str]]:
    """Attributes as canonical JSON, as `key=value` words, and as plain texts."""
    canonical = canonical_object(raw)
    values: dict[str, Any] = json.loads(canonical, strict=False)
    plain = {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}
    return canonical, " ".join(f"{k}={v}" for k, v in plain.items()), plain


@lru_cache(maxsize=8192)
def _series(*context: str | None) -> str:
    *before, labels = context
    texts = [t or "" for t in (*before, _labels(labels)[0])]
    return hashlib.blake2b("\0".join(texts).encode("utf-8", "replace"), digest_size=12).hexdigest()


def _last(row: dict[str, Any]) -> str:
    """The latest point, `[time, start, value]` or `[time, start, count, sum]`.

    Time stands first, and merging keeps the larger text: so the latest point wins.
    """
    times = f"{row['time_unix_nano']},{row['start_time_unix_nano']}"
    if row["count"] is not None:
        total = "null" if row["sum"] is None else double_json(row["sum"])
        return f"[{times},{row['count']},{total}]"
    if row["value_int"] is not None:
        return f"[{times},{row['value_int']}]"
    value = row["value_double"]
    return f"[{times},{'null' if value is None else double_json(value)}]"


def metric_frame(
    table: pa.Table,
    wanted: frozenset[str] = frozenset(),
    resource_wanted: frozenset[str] = frozenset(),
) -> pl.DataFrame:
    """The rows of a batch of points (the columns of `METRICS`), points without a value left out.

    `wanted` and `resource_wanted` are the keys that rules read: each that occurs becomes a column
    `attr:KEY` or `res:KEY`.
    """
    if not table.num_rows:
        return pl.DataFrame()
    points = pl.from_arrow(table.select(POINT_COLUMNS))
    assert isinstance(points, pl.DataFrame)  # noqa: S101
    points = points.filter(pl.col("flags") & 1 == 0, pl.col("name").is_not_null()).with_columns(
        window=pl.col("time_unix_nano") // WINDOW_NS * WINDOW_NS
    )
    if not points.height:
        return pl.DataFrame()
    rows = (
        points.sort("time_unix_nano", "start_time_unix_nano", "content_hash")
        .group_by(*_CONTEXT, "window", maintain_order=True)
        .agg(
            pl.col("time_unix_nano").min().alias("first_ns"),
            pl.col("content_hash").unique().sort().alias("sources"),
            pl.exclude(*_CONTEXT, "window", "content_hash").last(),
        )
    )
    series, labels, texts, plain, last, resources = [], [], [], [], [], []
    for row in rows.iter_rows(named=True):
        canonical, text, values = _labels(row["attributes"])
        series.append(_series(*(row[name] for name in _CONTEXT)))
        labels.append(canonical)
        texts.append(text or None)
        plain.append(values)
        last.append(_last(row))
        resources.append(_labels(row["resource"])[2])
    columns = [("attr:", wanted, plain), ("res:", resource_wanted, resources)]
    none = pl.lit(None, pl.String())
    return rows.with_columns(
        pl.Series("series", series, dtype=pl.String),
        pl.Series("labels", labels, dtype=pl.String),
        pl.Series("attributes", labels, dtype=pl.String),
        pl.Series("labels_text", texts, dtype=pl.String),
        pl.Series("last", last, dtype=pl.String),
        *(
            pl.Series(f"{prefix}{key}", [values.get(key) for values in found], dtype=pl.String)
            for prefix, keys, found in columns
            for key in sorted(keys & set().union(*found))
        ),
        none.alias("trace_id"),
        none.alias("span_id"),
        pl.col("type").alias("metric_type"),
        pl.col("aggregation_temporality")
        .replace_strict(_TEMPORALITY, default=None, return_dtype=pl.String)
        .alias("temporality"),
        pl.col("time_unix_nano").alias("end_time_unix_nano"),
        pl.col("first_ns").alias("time_unix_nano"),
        pl.col("sources").list.first().alias("content_hash"),
        pl.when(pl.col("unit") != "").then("unit").alias("unit"),
        pl.col("window").cast(pl.String).alias("window"),
    )
