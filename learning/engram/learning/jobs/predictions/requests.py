"""Requests by the hour: how slow each operation is, and what each service's failures use up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from engram.learning.jobs.predictions.series import (
    HISTORY,
    HOUR,
    Evidence,
    Watched,
    hours,
    own_limit,
)
from engram.learning.limits import Limits

if TYPE_CHECKING:
    import polars as pl

    from engram.learning.jobs.runner import Read

FEWEST: Final = 20
"""Requests of an hour of which a 95th percentile is said: one in twenty."""

NOTICED_S: Final = 0.1
"""No p95 below this is too slow: nobody notices (Nielsen 1993, response times)."""

PERIOD: Final = 7 * 24
"""Hours of an error budget."""

FAILURES: Final = 20
"""Failures of the last day without which a budget is not looked at."""

_OPERATIONS: Final = 500
"""The busiest ones are watched: an operation named by an id is none."""

_OPERATION: Final = "concat_ws(' ', http_request_method, coalesce(http_route, name))"

_SLOWEST: Final = (
    "SELECT id FROM lake.memories WHERE type = 'request_outcome' AND time_unix_nano >= ? AND "
    "time_unix_nano < ? AND service_name = ? AND starts_with(title, ?) "
    "ORDER BY duration_ns DESC, id LIMIT 5"
)
_FAILED: Final = (
    "SELECT id FROM lake.memories WHERE type = 'request_outcome' AND time_unix_nano >= ? AND "
    "time_unix_nano < ? AND service_name = ? AND outcome = 'error' "
    "ORDER BY time_unix_nano DESC, id LIMIT 5"
)


def by_hour(read: Read, end: int) -> pl.DataFrame:
    """Requests, failures and p95 in seconds, of each operation and hour."""
    return read(
        f"SELECT coalesce(service_name, '') AS service, {_OPERATION} AS operation, "
        f"start_time_unix_nano // {HOUR} AS hour, count(*) AS requests, "
        "count(*) FILTER (status_code = 2 OR http_response_status_code >= 500) AS failed, "
        "quantile_disc(end_time_unix_nano - start_time_unix_nano, 0.95) / 1e9 AS p95 "
        "FROM lake.spans WHERE kind = 2 AND start_time_unix_nano >= ? AND start_time_unix_nano < ? "
        "GROUP BY ALL",
        [(end - HISTORY) * HOUR, end * HOUR],
    )


def latencies(frame: pl.DataFrame, limits: Limits, end: int) -> Iterator[Watched]:
    """The p95 of each operation."""
    import polars as pl

    keys = ["service", "operation"]
    busy = frame.group_by(keys).agg(pl.col("requests").sum()).sort(
        "requests", *keys, descending=[True, False, False]
    )  # fmt: skip
    rows = frame.filter(pl.col("requests") >= FEWEST).join(
        busy.head(_OPERATIONS).select(keys), on=keys, how="semi"
    )
    for (service, operation), (values,) in hours(rows, keys, ["p95"], end, fill=np.nan):
        limit, said = limits.p95_of(service, operation), "configured"
        if limit is None:
            limit, said = own_limit(values, limits.latency_times, NOTICED_S), "its own history"
        if limit is not None:
            yield Watched(
                "latency", service, operation, "", "s", limit, said, end, values,
                evidence=Evidence(
                    _SLOWEST, ((end - 24) * HOUR, end * HOUR, service, f"{operation} ")
                ),
            )  # fmt: skip


def budgets(frame: pl.DataFrame, limits: Limits, end: int) -> Iterator[Watched]:
    """What the failures of each service used of its error budget, as a share of it."""
    import polars as pl

    rows = frame.group_by("service", "hour").agg(pl.col("requests", "failed").sum())
    columns = ["requests", "failed"]
    for (service,), (requests, failed) in hours(rows, ["service"], columns, end, fill=0.0):
        if failed[-24:].sum() < FAILURES or len(failed) < 24:
            continue
        slo = limits.slo_of(service)
        allowed = (1 - slo) * float(requests[-PERIOD:].mean()) * PERIOD
        used = np.cumsum(failed)
        used[PERIOD:] -= used[:-PERIOD].copy()
        shares = np.where(
            requests > 0, used / allowed, np.nan
        )  # of a service that stopped: nothing
        yield Watched(
            "error_budget", service, f"{100 * slo:g} % of requests", "", "of the budget",
            1.0, "configured", end, shares, adds=failed / allowed, keeps=PERIOD,
            evidence=Evidence(_FAILED, ((end - 24) * HOUR, end * HOUR, service)),
        )  # fmt: skip


__all__ = ["budgets", "by_hour", "latencies"]
