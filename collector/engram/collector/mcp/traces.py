"""A trace in few words, however large it is: numbers first, then its skeleton.

DuckDB counts; what comes into Python is a few hundred rows. The skeleton is the critical path (at
each span the child that ends last), the errors that no child explains, the spans with the most time
of their own, and what is repeated most below one parent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from engram.collector.mcp.reader import Reader
from engram.collector.mcp.text import value
from engram.exporters.errors import NotFound

if TYPE_CHECKING:
    import duckdb

_MOST_SPANS: Final = 2_000_000
_DEPTH: Final = 200
"""Where a path ends, also one that is a circle."""

_ONE: Final = f"""
CREATE OR REPLACE TEMP TABLE one AS
SELECT
    span_id, parent_span_id, coalesce(service_name, '') AS service, name, status_code,
    coalesce(error_type, status_message) AS error, start_time_unix_nano AS begun,
    greatest(end_time_unix_nano, start_time_unix_nano) AS ended
FROM lake.spans
WHERE trace_id = ?
LIMIT {_MOST_SPANS}
"""

_TOTALS: Final = """
SELECT
    count(*), count(DISTINCT service), count(*) FILTER (status_code = 2), min(begun), max(ended),
    count(*) FILTER (parent_span_id IS NULL OR parent_span_id NOT IN (SELECT span_id FROM one))
FROM one
"""

_BY_NAME: Final = """
WITH below AS (
    SELECT parent_span_id AS span_id, sum(ended - begun) AS taken FROM one
    WHERE parent_span_id IS NOT NULL GROUP BY ALL
)
SELECT
    service, name, count(*) AS spans, count(*) FILTER (status_code = 2) AS errors,
    sum(greatest(ended - begun - coalesce(taken, 0), 0)) / 1e6 AS own_ms,
    quantile_cont((ended - begun) / 1e6, 0.5), quantile_cont((ended - begun) / 1e6, 0.95),
    max(ended - begun) / 1e6
FROM one LEFT JOIN below USING (span_id)
GROUP BY service, name
ORDER BY own_ms DESC, spans DESC, service, name
LIMIT ?
"""

_PATH: Final = f"""
WITH RECURSIVE last_child AS MATERIALIZED (
    SELECT parent_span_id, arg_max(span_id, (ended, span_id)) AS span_id FROM one
    WHERE parent_span_id IS NOT NULL GROUP BY ALL
),
root AS (
    SELECT span_id FROM one
    WHERE parent_span_id IS NULL OR parent_span_id NOT IN (SELECT span_id FROM one)
    ORDER BY ended - begun DESC, span_id LIMIT 1
),
path AS (
    SELECT span_id, 0 AS depth FROM root
    UNION ALL
    SELECT last_child.span_id, depth + 1
    FROM path JOIN last_child ON last_child.parent_span_id = path.span_id
    WHERE depth < {_DEPTH}
)
SELECT depth, service, name, (begun - ?) / 1e6, (ended - begun) / 1e6, status_code = 2, span_id
FROM path JOIN one USING (span_id)
ORDER BY depth
"""

_ERRORS: Final = """
SELECT
    service, name, value_or_none, count(*) AS spans, (min(begun) - ?) / 1e6, arg_min(span_id, begun)
FROM (
    SELECT *, left(coalesce(error, ''), 200) AS value_or_none FROM one
    WHERE status_code = 2
        AND span_id NOT IN (
            SELECT parent_span_id FROM one WHERE status_code = 2 AND parent_span_id IS NOT NULL
        )
)
GROUP BY service, name, value_or_none
ORDER BY spans DESC, min(begun)
LIMIT ?
"""

_SLOW: Final = """
WITH below AS (
    SELECT parent_span_id AS span_id, sum(ended - begun) AS taken, count(*) AS children FROM one
    WHERE parent_span_id IS NOT NULL GROUP BY ALL
)
SELECT
    service, name, (begun - ?) / 1e6, (ended - begun) / 1e6,
    greatest(ended - begun - coalesce(taken, 0), 0) / 1e6 AS own_ms, coalesce(children, 0), span_id
FROM one LEFT JOIN below USING (span_id)
ORDER BY own_ms DESC, span_id
LIMIT ?
"""

_REPEATED: Final = """
SELECT p.service, p.name, c.service, c.name, count(*) AS times, sum(c.ended - c.begun) / 1e6
FROM one AS c JOIN one AS p ON c.parent_span_id = p.span_id
GROUP BY p.span_id, p.service, p.name, c.service, c.name
HAVING times >= 10
ORDER BY times DESC, p.name, c.name
LIMIT ?
"""


def trace(reader: Reader, trace_id: str, *, full: bool = False) -> list[str]:
    """The lines of one trace, cleaned.

    Raises:
        NotFound: there is no span of it.
    """
    with reader.held() as connection:
        connection.execute(_ONE, [trace_id])
        try:
            return _told(connection, trace_id, 30 if full else 12)
        finally:
            connection.execute("DROP TABLE temp.one")


def _told(connection: duckdb.DuckDBPyConnection, trace_id: str, most: int) -> list[str]:
    def ask(sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return connection.execute(sql, list(values)).fetchall()

    spans, services, errors, begun, ended, roots = ask(_TOTALS)[0]
    if not spans:
        raise NotFound(f"there is no span of the trace {trace_id}")
    lines = [
        f"trace {trace_id}: {spans:,} spans of {services} services, {errors:,} errors, "
        f"{_ms((ended - begun) / 1e6)} in all" + (f", {roots:,} roots" if roots > 1 else ""),
        "", "## Where the time went (own: without children)",
        "service\tspan\tspans\terrors\town\tp50\tp95\tmax",
    ]  # fmt: skip
    for service, name, count, failed, *times in ask(_BY_NAME, most):
        took = "\t".join(map(_ms, times))
        lines.append(f"{_n(service)}\t{_n(name)}\t{count:,}\t{failed:,}\t{took}")
    path = ask(_PATH, begun)
    lines += ["", f"## Critical path ({len(path)} spans; at, took)"]
    for depth, service, name, at, took, failed, _ in _middle_out(path, 2 * most):
        mark = " ERROR" if failed else ""
        indent = "  " * min(depth, 12)
        lines.append(f"{indent}{_n(service)}: {_n(name)} at {_ms(at)} took {_ms(took)}{mark}")
    if errors:
        lines += ["", "## Errors that no child explains"]
        for service, name, error, count, at, span in ask(_ERRORS, begun, most):
            again = f" x{count:,}" if count > 1 else ""
            lines.append(
                f"{_n(service)}: {_n(name)}{again} first at {_ms(at)} (span {span}): "
                f"{value(error, 160)}"
            )
    lines += ["", "## Slowest by their own time"]
    for service, name, at, took, own, children, span in ask(_SLOW, begun, most):
        lines.append(
            f"{_n(service)}: {_n(name)} own {_ms(own)} of {_ms(took)} at {_ms(at)}, "
            f"{children:,} children (span {span})"
        )
    repeated = ask(_REPEATED, most)
    if repeated:
        lines += ["", "## Repeated below one parent (N+1?)"]
        for p_service, p_name, service, name, times, took in repeated:
            lines.append(
                f"{_n(p_service)}: {_n(p_name)} -> {_n(service)}: {_n(name)} x{times:,}, "
                f"{_ms(took)} together"
            )
    return lines


def _middle_out(path: list[tuple[Any, ...]], most: int) -> list[tuple[Any, ...]]:
    """A long path without its middle."""
    if len(path) <= most:
        return path
    left_out = (0, "…", f"{len(path) - most} spans left out", 0.0, 0.0, False, "")
    return [*path[: most // 2], left_out, *path[-(most // 2) :]]


def _n(name: Any) -> str:
    return value(name, 60) or "(none)"


def _ms(ms: float | None) -> str:
    if ms is None:
        return ""
    return f"{ms / 1000:.1f} s" if ms >= 10_000 else f"{ms:.1f} ms" if ms < 100 else f"{ms:.0f} ms"
