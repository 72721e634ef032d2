"""What is too much: the limits that the job `predictions` holds series against.

Settings, so nothing heavy is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """A limit for the 95th percentile of an operation's hour."""

    operation: str = ""
    """As in the titles of requests: `POST /orders`, or a span's name."""

    p95: timedelta = timedelta(0)
    """More than this is too slow."""

    service: str | None = None
    """Only of this service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The share of a service's requests that must not fail."""

    service: str = ""
    """Its name."""

    slo: float = 0.99
    """Between 0 and 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """A limit for a metric that has none of its own."""

    metric: str = ""
    """Its name."""

    limit: float = math.nan
    """As much is too much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Settings of the `predictions` extension: what is too much."""

    slo: float = 0.99
    """Share of the requests of a service that must not fail, over seven days."""

    slos: tuple[Objective, ...] = ()
    """Services with another: `{service, slo}`."""

    latency_times: float = 3.0
    """An operation is too slow at this many times its usual p95, where `latency` says nothing."""

    latency: tuple[Latency, ...] = ()
    """Limits of operations: `{operation, p95}`, and `service` where the operation is not enough."""

    full: float = 0.95
    """Something is full at this share: below 1, as file systems keep some for themselves."""

    gauges: tuple[Gauge, ...] = ()
    """Limits of metrics that have none of their own: `{metric, limit}`."""

    tokens_per_day: int = 0
    """What models may use in a day (UTC), input and output together. 0 is no limit."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        if not 0 < self.slo < 1:
            yield "slo: must be between 0 and 1, such as 0.99"
        for at, one in enumerate(self.slos):
            if not one.service:
                yield f"slos[{at}].service: needs the name of a service"
            if not 0 < one.slo < 1:
                yield f"slos[{at}].slo: must be between 0 and 1, such as 0.999"
        if not self.latency_times > 1:
            yield "latency_times: must be more than 1"
        for at, limit in enumerate(self.latency):
            if not limit.operation:
                yield f"latency[{at}].operation: needs one, such as POST /orders"
            if limit.p95 <= timedelta(0):
                yield f"latency[{at}].p95: must be more than 0"
        for at, gauge in enumerate(self.gauges):
            if not gauge.metric or not math.isfinite(gauge.limit):
                yield f"gauges[{at}]: needs metric and limit"
        if not 0 < self.full <= 1:
            yield "full: must be more than 0, and at most 1"
        if self.tokens_per_day < 0:
            yield "tokens_per_day: must be 0 (no limit) or more"

    def slo_of(self, service: str) -> float:
        """The objective of a service."""
        return next((one.slo for one in self.slos if one.service == service), self.slo)

    def p95_of(self, service: str, operation: str) -> float | None:
        """The limit of an operation in seconds; None where nothing is said."""
        for one in self.latency:
            if one.operation == operation and one.service in (None, service):
                return one.p95.total_seconds()
        return None

    def gauge_of(self, metric: str) -> float | None:
        """The limit of a metric; None where nothing is said."""
        return next((one.limit for one in self.gauges if one.metric == metric), None)


__all__ = ["Gauge", "Latency", "Limits", "Objective"]
