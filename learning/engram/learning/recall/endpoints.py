"""What is remembered of an endpoint: how it does, what helps it, what fails in it.

Asked at each request, so nothing is read for an answer: a table of all operations is made in one
look at the lake and kept for a minute. When it is older, the old one answers while a thread makes
the new one, so only the very first question waits.
"""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from engram.exporters.errors import EngramError, NotFound
from engram.learning.recall.items import Item
from engram.learning.recall.ranking import wilson
from engram.learning.recall.revisions import applied
from engram.learning.recall.rows import moment
from engram.learning.recall.suspects import suspicious

if TYPE_CHECKING:
    from engram.learning.recall.engine import Recall

KEPT_S: Final = 60.0
"""How long the table answers before it is made again."""

DAYS: Final = 7
"""Of requests and errors that are counted."""

_NEWEST: Final = 5
"""Requests of each operation that are named."""

_MOST: Final = 5
"""Errors and optimizations of each operation."""

_METHOD: Final = re.compile(r"\s*([A-Za-z]+)\s*[: ]\s*(/\S*)\s*")
_PARAMETER: Final = re.compile(r"\{[^/}]*\}|<[^/>]*>|:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class Failing:
    """A failure that an operation has had."""

    title: str
    fingerprint: str | None
    count: int
    first_seen: datetime | None
    last_seen: datetime | None
    memory_id: str
    """Of the newest."""


@dataclass(frozen=True, slots=True)
class EndpointMemory:
    """What is remembered of one operation. No requests: it was not seen in these days."""

    operation: str
    service: str | None
    days: int
    n: int = 0
    errors: int = 0
    refused: int = 0
    """4xx: the caller's fault."""
    error_rate: float | None = None
    error_rate_low: float = 0.0
    error_rate_high: float = 1.0
    p50_ms: float | None = None
    p95_ms: float | None = None
    last_seen: datetime | None = None
    requests: tuple[str, ...] = ()
    """Ids of the newest requests' memories."""
    optimizations: tuple[Item, ...] = ()
    """What was learned about it, newest first; what failed says so in its outcome."""
    known_errors: tuple[Failing, ...] = ()
    """Most frequent first."""
    as_of: datetime | None = None
    """When this was counted."""

    def json(self) -> dict[str, Any]:
        """For REST and programs."""
        from engram.learning.recall.window import as_json

        def text(at: datetime | None) -> str | None:
            return None if at is None else at.isoformat()

        told = {
            name: getattr(self, name)
            for name in ("operation", "service", "days", "n", "errors", "refused", "error_rate",
                         "error_rate_low", "error_rate_high", "p50_ms", "p95_ms")
        }  # fmt: skip
        return {
            **told,
            "last_seen": text(self.last_seen), "as_of": text(self.as_of),
            "requests": list(self.requests),
            "optimizations": [as_json(one) for one in self.optimizations],
            "known_errors": [
                {**asdict(one), "first_seen": text(one.first_seen),
                 "last_seen": text(one.last_seen)}
                for one in self.known_errors
            ],
        }  # fmt: skip


@dataclass(slots=True)
class _Table:
    """All operations: by service and operation, and by operation over all services."""

    made_at: float
    rows: dict[tuple[str | None, str], EndpointMemory] = field(default_factory=dict)


class Endpoints:
    """The table of a home's operations. Safe for several threads."""

    def __init__(self, recall: Recall) -> None:
        self._recall = recall
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._table: _Table | None = None

    def of(self, operation: str, service: str | None = None) -> EndpointMemory:
        """What is remembered of `GET /path`, `GET:/path`, or another name of an operation."""
        name = normal(operation)
        table = self._current()
        found = table.rows.get((service, name))
        if found is None:
            route = _route_of(name, service, table.rows)
            found = table.rows.get((service, route)) if route else None
        return found or EndpointMemory(name, service, DAYS, as_of=None)

    def _current(self) -> _Table:
        table = self._table
        if table is not None:
            if time.monotonic() - table.made_at > KEPT_S and self._making.acquire(blocking=False):
                threading.Thread(target=self._again, name="engram-endpoints", daemon=True).start()
            return table
        with self._lock:
            if self._table is None:
                self._table = self._made()
            return self._table

    def _again(self) -> None:
        try:
            self._table = self._made()
        except EngramError:
            pass  # the old one answers, and the next question tries again
        finally:
            self._making.release()

    def _made(self) -> _Table:
        recall = self._recall
        now = recall.clock()
        since = now - DAYS * 86_400 * 10**9
        table = _Table(time.monotonic())
        try:
            counted = recall.lake.ask(_REQUESTS, [since, now])
            failed = recall.lake.ask(_FAILURES, [since, now])
        except NotFound:
            return table
        failures: dict[tuple[str | None, str], list[Failing]] = defaultdict(list)
        for service, subject, print_, title, count, first, last, id_ in failed:
            one = Failing(title or "", print_, count, moment(first), moment(last), id_)
            for key in dict.fromkeys(((service, normal(subject)), (None, normal(subject)))):
                failures[key].append(one)
        learned = self._learned(now)
        for service, operation, n, errors, refused, quantiles, last, ids, everywhere in counted:
            key = (None if everywhere else service, normal(operation))
            share, low, high = wilson(errors, n)
            p50, p95 = (None if one is None else round(one / 1e6, 3) for one in quantiles)
            table.rows[key] = EndpointMemory(
                key[1], key[0], DAYS, n, errors, refused, round(share, 4), round(low, 4),
                round(high, 4), p50, p95, moment(last), tuple(ids or ())[:_NEWEST],
                _helps(learned, key), _worst(failures.get(key, ())), moment(now),
            )  # fmt: skip
        for key in {*failures, *learned} - {*table.rows}:
            table.rows[key] = EndpointMemory(
                key[1], key[0], DAYS, optimizations=_helps(learned, key),
                known_errors=_worst(failures.get(key, ())), as_of=moment(now),
            )  # fmt: skip
        return table

    def _learned(self, now: int) -> dict[tuple[str | None, str], list[Item]]:
        """Optimizations by the operation that they are about."""
        changes = self._recall.revisions.all()
        found: dict[tuple[str | None, str], list[Item]] = defaultdict(list)
        for one in self._recall.lake.items(
            "type = 'optimization' AND source = 'mark' AND coalesce(trust, 'unknown') NOT IN "
            "('browser', 'unknown') AND time_unix_nano <= ?",
            [now], "ORDER BY time_unix_nano DESC, id LIMIT 1000",
        ):  # fmt: skip
            one = applied(one, changes.get(one.id, ()))
            if one.hidden or one.superseded_by is not None or suspicious(one):
                continue
            told = {one.subject, one.meta_data.get("operation"), one.meta_data.get("endpoint")}
            for name in {normal(str(name)) for name in told if name}:
                for service in dict.fromkeys((one.service, None)):
                    found[service, name].append(one)
        return found


_REQUESTS: Final = """
SELECT service_name, operation, count(*), count(*) FILTER (outcome = 'error'),
    count(*) FILTER (outcome IS NULL), approx_quantile(duration_ns, [0.5, 0.95]),
    max(time_unix_nano), list(id ORDER BY time_unix_nano DESC, id) FILTER (newest <= 5),
    grouping(service_name) = 1
FROM (
    SELECT service_name, split_part(title, ' → ', 1) AS operation, outcome, duration_ns,
        time_unix_nano, id,
        row_number() OVER (PARTITION BY service_name, split_part(title, ' → ', 1)
                           ORDER BY time_unix_nano DESC, id) AS newest
    FROM lake.memories
    WHERE type = 'request_outcome' AND time_unix_nano BETWEEN ? AND ?
)
GROUP BY GROUPING SETS ((service_name, operation), (operation))
"""
"""The title of such a memory begins with its operation: cheaper than fields out of JSON."""

_FAILURES: Final = """
SELECT service_name, subject, fingerprint, arg_max(title, time_unix_nano), count(*),
    min(time_unix_nano), max(time_unix_nano), arg_max(id, time_unix_nano)
FROM lake.memories
WHERE type = 'system_error' AND subject IS NOT NULL AND time_unix_nano BETWEEN ? AND ?
GROUP BY service_name, subject, fingerprint
"""


def normal(operation: str) -> str:
    """One spelling of an operation: `GET /path`, without a query or a slash at the end."""
    found = _METHOD.fullmatch(operation)
    if found is None:
        return " ".join(operation.split())
    path = found[2].split("?")[0]
    return f"{found[1].upper()} {path.rstrip('/') or '/'}"


def _route_of(
    operation: str, service: str | None, rows: Mapping[tuple[str | None, str], EndpointMemory]
) -> str | None:
    """The route that a path with its parameters filled in belongs to: the most literal one."""
    found = [
        name
        for of, name in rows
        if of == service and _PARAMETER.search(name) and _pattern(name).fullmatch(operation)
    ]
    return min(found, key=lambda name: (len(_PARAMETER.findall(name)), name), default=None)


@lru_cache(maxsize=4_096)
def _pattern(route: str) -> re.Pattern[str]:
    return re.compile("[^/]+".join(map(re.escape, _PARAMETER.split(route))))


def _helps(
    learned: Mapping[tuple[str | None, str], list[Item]], key: tuple[str | None, str]
) -> tuple[Item, ...]:
    return tuple(learned.get(key, ())[:_MOST])


def _worst(failures: list[Failing] | tuple[Failing, ...]) -> tuple[Failing, ...]:
    """The most frequent; those of one fingerprint, in several services, together."""
    merged: dict[str, Failing] = {}
    for one in failures:
        key = one.fingerprint or one.title
        if key in merged:
            other = merged[key]
            first = min(filter(None, (one.first_seen, other.first_seen)), default=None)
            last = max(filter(None, (one.last_seen, other.last_seen)), default=None)
            newer = one if one.last_seen == last else other
            merged[key] = replace(
                newer, count=one.count + other.count, first_seen=first, last_seen=last
            )
        else:
            merged[key] = one
    return tuple(sorted(merged.values(), key=lambda one: (-one.count, one.title))[:_MOST])


__all__ = ["DAYS", "KEPT_S", "EndpointMemory", "Endpoints", "Failing", "normal"]
