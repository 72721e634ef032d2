"""Which spans are looked at: the newest of them, and of those the candidates.

A look costs the same however large the lake is: it goes back as far as a number of spans allows,
and seven days at most. So a quiet home is judged by a week and a busy one by minutes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from engram.learning.jobs.window import Window

if TYPE_CHECKING:
    import polars as pl

    from engram.learning.jobs.runner import Read

MINUTE: Final = 60 * 10**9
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
MS: Final = 10**6

FARTHEST: Final = 7 * DAY
BUCKET: Final = 5 * MINUTE

FIRST: Final = 500_000
"""Spans of a look at a window longer than `LONG`: the first one, or after days off."""
EACH: Final = 50_000
"""Spans of the look of every five minutes; those of its own window come on top, up to `FIRST`."""
LONG: Final = HOUR

FAMILIES: Final = ("db", "http", "rpc")


@dataclass(frozen=True, slots=True)
class Period:
    """The event time that a look covers."""

    since: int
    until: int


def period(read: Read, window: Window) -> Period:
    """How far a window's look goes back: in whole buckets, the newest one always."""
    begin = max(0, window.until - FARTHEST) // BUCKET * BUCKET
    counts = read(
        f"SELECT start_time_unix_nano // {BUCKET} AS bucket, count(*) AS spans FROM lake.spans "
        "WHERE start_time_unix_nano >= ? AND start_time_unix_nano < ? GROUP BY 1 ORDER BY 1 DESC",
        [begin, window.until],
    )
    short = window.until - window.since <= LONG
    since, seen = window.until // BUCKET * BUCKET, 0
    for bucket, spans in counts.iter_rows():
        own = short and (bucket + 1) * BUCKET > window.since
        seen += spans
        if seen > (FIRST if own or not short else EACH) and seen > spans:
            break
        since = bucket * BUCKET
    return Period(since, window.until)


_OURS: Final = "coalesce(scope_name, '') <> 'engram.learning'"

_FAILED: Final = (
    "(status_code = 2 OR coalesce(http_response_status_code, 0) >= 500 "
    "OR coalesce(http_response_status_code, 0) IN (408, 429))"
)

_NAMES: Final = (
    "db.query.text", "db.statement", "url.full", "http.url", "url.template", "rpc.service",
    "rpc.method", "peer.service",
)  # fmt: skip

RUN_NAME: Final = (
    "regexp_replace(coalesce(http_request_method || ' ' || http_route, name), '[0-9]+', '{n}', 'g')"
)
"""What a run is called: its route, or its name without numbers."""


def paths(*names: str) -> str:
    """JSON paths of attributes, as an SQL list."""
    return "[" + ", ".join(f"'$.\"{name}\"'" for name in names) + "]"


def runs(read: Read, span: Period) -> pl.DataFrame:
    """Runs of operations: what a service was asked to do, and what it began by itself."""
    found = read(
        f"SELECT trace_id, coalesce(service_name, '') AS service, {RUN_NAME} AS entry, "
        "start_time_unix_nano AS began, end_time_unix_nano - start_time_unix_nano AS took, "
        "json_extract_string(resource, '$.\"service.version\"') AS version "
        "FROM lake.spans WHERE start_time_unix_nano >= ? AND start_time_unix_nano < ? "
        f"AND (kind IN (2, 5) OR (parent_span_id IS NULL AND kind <> 3)) AND {_OURS}",
        [span.since, span.until],
    )
    ordered = found.sort("began", "trace_id", "service", "entry", "took")
    return ordered.with_row_index("run")


def calls(read: Read, span: Period) -> pl.DataFrame:
    """All calls of the traces in which a call is repeated, or in which some may wait in a row.

    Attributes are read of these only. `text` is the statement or the address, `family` one of
    `FAMILIES`.
    """
    import polars as pl

    found = read(
        f"""
        WITH near AS (
            SELECT hash(trace_id) AS trace, hash(trace_id, service_name, name) AS same,
                hash(trace_id, service_name, parent_span_id) AS siblings,
                db_system_name IS NULL AND (http_request_method IN ('GET', 'HEAD'))
                    AND end_time_unix_nano - start_time_unix_nano >= {30 * MS} AS waits
            FROM lake.spans
            WHERE start_time_unix_nano >= ? AND start_time_unix_nano < ? AND kind = 3
                AND gen_ai_operation_name IS NULL AND {_OURS}
        ),
        wanted AS (
            SELECT any_value(trace) AS trace FROM near GROUP BY same HAVING count(*) >= 3
            UNION
            SELECT any_value(trace) FROM near WHERE waits GROUP BY siblings HAVING count(*) >= 2
        ),
        found AS (
            SELECT trace_id, span_id, parent_span_id AS parent,
                coalesce(service_name, '') AS service, name,
                start_time_unix_nano AS began, end_time_unix_nano AS ended,
                {_FAILED} AS failed, http_request_method AS method, server_address AS host,
                db_system_name AS system,
                json_extract_string(attributes, {paths(*_NAMES)}) AS said,
                CASE WHEN contains(attributes, '"db.query.parameter.') THEN array_to_string(
                    regexp_extract_all(attributes, '"db[.]query[.]parameter[.][^,}}]*'), ' ') END
                    AS parameters
            FROM lake.spans
            WHERE start_time_unix_nano >= ? AND start_time_unix_nano < ? AND kind = 3
                AND gen_ai_operation_name IS NULL AND {_OURS}
                AND hash(trace_id) IN (SELECT trace FROM wanted)
        )
        SELECT * EXCLUDE (said),
            coalesce(said[1], said[2]) AS statement, coalesce(said[3], said[4]) AS url,
            said[5] AS template, coalesce(said[6] || '/' || said[7], said[7], said[6]) AS rpc
        FROM found
        """,
        [span.since, span.until] * 2,
    )
    family = (
        pl.when(pl.col("system").is_not_null())
        .then(pl.lit("db"))
        .when(pl.col("method").is_not_null())
        .then(pl.lit("http"))
        .when(pl.col("rpc").is_not_null())
        .then(pl.lit("rpc"))
    )
    return found.with_columns(family.alias("family")).filter(pl.col("family").is_not_null())


def addresses(read: Read, span: Period, traces: pl.Series) -> pl.DataFrame:
    """What the requests of some traces were sent to: their paths, and what they were asked with."""
    names = ("url.path", "url.query", "http.target", "url.full", "engram.request.arguments")
    return read(
        f"SELECT trace_id, string_agg(array_to_string(json_extract_string(attributes, "
        f"{paths(*names)}), '/'), '/') AS address FROM lake.spans "
        "WHERE start_time_unix_nano >= ? AND start_time_unix_nano < ? AND kind <> 3 "
        "AND trace_id IN (SELECT unnest(?::VARCHAR[])) GROUP BY trace_id",
        [span.since, span.until, traces.to_list()],
    )


def with_runs(rows: pl.DataFrame, run: pl.DataFrame) -> pl.DataFrame:
    """Each row with the run that it is part of.

    Of the runs of its service in its trace that were open when it began, the one begun last; of
    none, the last one before it (work after the answer).
    `place` is where repetition is looked for: the run, or, where several were open at once and it
    may be any of them, the parent. A row without a run (it is not in the look) is left out.
    """
    import polars as pl

    keys = ["trace_id", "service"]
    own = run.select(*keys, "entry", pl.col("began").alias("run_began"), "took", "version", "run")
    parent = pl.col("parent") if "parent" in rows.columns else pl.lit(None, pl.String)
    joined = (
        rows.with_row_index("_row")
        .join(own, on=keys)
        .filter(pl.col("run_began") <= pl.col("began"))
        .with_columns((pl.col("began") <= pl.col("run_began") + pl.col("took")).alias("_open"))
    )
    several = joined.filter("_open").group_by("_row").len().filter(pl.col("len") > 1)
    apart = pl.concat_str(pl.lit("alone "), "_row")
    unclear = pl.col("_row").is_in(several["_row"].implode())
    place = pl.when(unclear).then(pl.coalesce(parent, apart))
    return (
        joined.sort("_row", "_open", "run_began", "run")
        .unique("_row", keep="last", maintain_order=True)
        .with_columns(place.otherwise(pl.col("run").cast(pl.String)).alias("place"))
        .drop("_row", "_open")
    )


__all__ = [
    "BUCKET", "DAY", "EACH", "FAMILIES", "FARTHEST", "FIRST", "HOUR", "LONG", "MINUTE", "MS",
    "RUN_NAME", "Period", "addresses", "calls", "paths", "period", "runs", "with_runs",
]  # fmt: skip
