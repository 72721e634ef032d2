"""A version that fails more than the one before it: said as early as it can be known.

A version is `service.version` of the resource. Failures of the new one are held against those of
the versions before it, by an e-value, which may be looked at every five minutes (Ville's
inequality, see `engram.learning.exposure`): the null hypothesis is that it fails at most `TIMES` as
often as the upper bound of the old rate. Failures come in bursts, so both counts are divided by the
design effect of the old version's hours.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from engram.learning.exposure import Exposure, e_value, wilson_low
from engram.learning.jobs.predictions.series import HOUR

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

TIMES: Final = 2.0
"""A new version that fails less than this many times as often is no regression to wake up for."""

LEAST: Final = 0.005
"""The old rate counts as this at least: of a service that never failed nobody knows it better."""

ENOUGH: Final = 200.0
"""The e-value that says so: a false alarm in 200 deploys at most; ten a day are one in 20 days."""

FEWEST: Final = 10
"""Failures (by the design effect) without which nothing is said."""

BASE: Final = 200
"""Requests that the old versions must have had."""

MOST: Final = 20_000
"""Requests after which a version is no new one any more, and an hour; and a day in any case."""

LOOK: Final = 48
"""Hours that are looked at."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a service: requests and failures by the hour."""

    service: str
    name: str
    first: int
    """Its first request, in ns."""
    hours: dict[int, tuple[int, int]]

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(runs for runs, _ in self.hours.values())

    @property
    def failed(self) -> int:
        """All failures."""
        return sum(failed for _, failed in self.hours.values())


@dataclass(frozen=True, slots=True)
class Regression:
    """A new version that fails more."""

    new: Version
    old: str
    """The newest of the versions before it."""
    old_requests: int
    old_failed: int
    limit: float
    """The highest rate of failures that would be no regression."""
    e_value: float
    low: float
    """Lower bound of the new rate (97.5 %)."""


def suspects(read: Read, until: int) -> list[str]:
    """The services that answer by a version that did not answer a day ago.

    Two slices of an hour are read and not two days: most of the time nothing was deployed.
    """

    def answered(begin: int) -> set[tuple[str, str]]:
        rows = read(
            "SELECT DISTINCT coalesce(service_name, '') AS service, resource FROM lake.spans "
            "WHERE kind = 2 AND start_time_unix_nano >= ? AND start_time_unix_nano < ?",
            [begin, begin + HOUR],
        ).rows()
        return {(service, _version(resource)) for service, resource in rows}

    now = {one for one in answered(until - HOUR) if one[1]}
    return sorted({service for service, _ in now - answered(until - 25 * HOUR)}) if now else []


def versions(read: Read, services: Sequence[str], until: int) -> dict[str, list[Version]]:
    """The versions of services that answered lately, oldest first."""
    if not services:
        return {}
    rows = read(
        "SELECT coalesce(service_name, '') AS service, resource, "
        f"start_time_unix_nano // {HOUR} AS hour, count(*) AS requests, "
        "count(*) FILTER (status_code = 2 OR http_response_status_code >= 500) AS failed, "
        "min(start_time_unix_nano) AS first "
        "FROM lake.spans WHERE kind = 2 AND start_time_unix_nano >= ? AND start_time_unix_nano < ? "
        f"AND coalesce(service_name, '') IN ({', '.join('?' * len(services))}) GROUP BY ALL",
        [until - LOOK * HOUR, until, *services],
    )
    names = {one: _version(one) for one in rows["resource"].unique().to_list()}
    found: dict[tuple[str, str], tuple[dict[int, tuple[int, int]], int]] = {}
    for service, resource, hour, requests, failed, first in rows.rows():
        name = names[resource]
        if not name:
            continue
        hours, begun = found.get((service, name), ({}, first))
        before = hours.get(hour, (0, 0))
        hours[hour] = (before[0] + requests, before[1] + failed)
        found[service, name] = (hours, min(begun, first))
    made: dict[str, list[Version]] = defaultdict(list)
    for (service, name), (hours, first) in found.items():
        made[service].append(Version(service, name, first, hours))
    return {
        service: sorted(some, key=lambda one: (one.first, one.name))
        for service, some in sorted(made.items())
    }


def regressions(of: dict[str, list[Version]], until: int) -> Iterator[Regression]:
    """The newest version of each service, where it fails more than those before it."""
    for some in of.values():
        *olds, new = some
        before = Exposure(*_hourly(olds))
        age = until - new.first
        if before.n < BASE or age > 24 * HOUR or (age > HOUR and new.requests > MOST):
            continue
        found = judge(before, new, olds[-1].name)
        if found is not None:
            yield found


def judge(before: Exposure, new: Version, old: str) -> Regression | None:
    """Whether a version fails more than those before it did."""
    effect = before.design_effect
    limit = min(0.99, TIMES * max(LEAST, _wilson_high(before.k / effect, before.n / effect)))
    runs, failed = new.requests / effect, new.failed / effect
    if failed < FEWEST:
        return None
    # That the successes are rarer than the least that the null hypothesis allows.
    evidence = e_value(runs - failed, runs, 1 - limit)
    if evidence < ENOUGH:
        return None
    return Regression(new, old, before.n, before.k, limit, evidence, wilson_low(failed, runs))


def _hourly(olds: list[Version]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    hours: dict[int, tuple[int, int]] = {}
    for one in olds:
        for hour, (runs, failed) in one.hours.items():
            before = hours.get(hour, (0, 0))
            hours[hour] = (before[0] + runs, before[1] + failed)
    ordered = [hours[hour] for hour in sorted(hours)]
    return tuple(runs for runs, _ in ordered), tuple(failed for _, failed in ordered)


def _wilson_high(k: float, n: float) -> float:
    """Upper bound of a rate: what the lower one leaves of its opposite."""
    return 1 - wilson_low(n - k, n)


def _version(resource: str | None) -> str:
    try:
        told = json.loads(resource or "{}").get("service.version")
    except (ValueError, AttributeError):
        return ""
    return told if isinstance(told, str) else ""


__all__ = ["LOOK", "Regression", "Version", "judge", "regressions", "suspects", "versions"]
