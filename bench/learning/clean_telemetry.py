"""Telemetry of 50 services in which nothing is wrong, as a collector would have stored it.

Clean is not smooth: days, nights and weekends; load and durations with noise that lasts for hours;
heavy tails; failures at a low rate that come in clusters, of errors that are common and of some
that come once in days; warnings in logs likewise; disks that fill and are cleaned, heaps that are
collected; deploys that change nothing; models, tools, decisions, workflows and people who browse.
Everything is drawn with one seed. Rates, levels and shapes are the same from the first day to the
last: whatever is said to have changed has not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_sql, connect

HOUR: Final = 3600 * 10**9
DAY: Final = 24 * HOUR
MONDAY: Final = 497_112 - 497_112 % 168 + 96
"""An hour at which a week begins: Monday, 00:00 UTC (1970 began on a Thursday)."""

SERVICES: Final = 50

Floats = np.ndarray[Any, np.dtype[np.float64]]


def lasting(rng: np.random.Generator, n: int, sigma: float, rho: float) -> Floats:
    """Noise with a memory: AR(1) with a standard deviation."""
    steps = rng.normal(size=n) * sigma * np.sqrt(1 - rho**2)
    steps[0] = rng.normal() * sigma
    for at in range(1, n):
        steps[at] += rho * steps[at - 1]
    return np.asarray(steps)


@dataclass(slots=True)
class Service:
    """One service: its load by the hour, its operations, what goes wrong in it at a low rate."""

    name: str
    load: Floats
    """Around 1, by hour."""
    versions: list[int]
    """Hours at which each version began."""
    errors: list[tuple[str, str]] = field(default_factory=list)
    """Type and frame of common ones."""


class Week:
    """A lake of so many hours from `begin`. Constructing writes nothing."""

    def __init__(self, folder: Path, seed: int, days: int) -> None:
        self.home = Home(folder / "home")
        self.rng = np.random.default_rng(seed)
        self.hours = days * 24
        self.begin = MONDAY
        self._row = 0

    def fill(self) -> tuple[int, int]:
        """Write everything; how many spans and memories there are."""
        engine = Engine(self.home, EngineSettings())
        engine.start()
        engine.shutdown(10)
        self._db = connect(threads=2, memory_limit="2GB")
        self._db.execute(attach_sql(self.home, read_only=False))
        spans: list[pl.DataFrame] = []
        memories: list[dict[str, Any]] = []
        logs: list[dict[str, Any]] = []
        for number in range(SERVICES):
            service = self._service(number)
            made = self._requests(service)
            spans.append(made)
            memories += self._errors(service, made)
            logs += self._logs(service)
            memories += self._own(service, number)
        there = self._store_spans(pl.concat(spans))
        self._store_memories(memories)
        self._store_logs(logs)
        self._metrics()
        self._db.close()
        return there, len(memories)

    # -- what there is ---------------------------------------------------------------------------

    def _service(self, number: int) -> Service:
        rng, hours = self.rng, np.arange(self.hours)
        of_day, weekend = hours % 24, hours // 24 % 7 >= 5
        if number % 5 == 4:  # business hours only
            open_ = (of_day >= 8) & (of_day < 18) & ~weekend
            shape = np.where(open_, 1.0, rng.choice([0.0, 0.02]))
        else:
            swing, peak = rng.uniform(0.1, 0.9), rng.uniform(0, 24)
            shape = 1 + swing * np.cos((of_day - peak) * 2 * np.pi / 24)
            shape = shape * np.where(weekend, rng.uniform(0.3, 1.0), 1.0)
        shape = shape * np.exp(lasting(rng, self.hours, 0.15, 0.8))
        deploys = sorted(rng.integers(24, self.hours, rng.integers(1, 5)).tolist())
        frames = [f"{verb} ({noun}.py)" for verb in ("load", "send", "charge", "parse")
                  for noun in ("orders", "client", "store")]  # fmt: skip
        kinds = ("TimeoutError", "ConnectionError", "ValueError", "KeyError", "OperationalError")
        errors = [(str(rng.choice(kinds)), str(one)) for one in rng.permutation(frames)[:8]]
        return Service(f"service-{number:02}", shape, [0, *deploys], errors)

    def _requests(self, service: Service) -> pl.DataFrame:
        """Entry spans; `error` is a pattern, -1 none, and of those that failed without one -2."""
        rng, parts = self.rng, []
        busy = 10 ** rng.uniform(1.0, 2.1)  # requests of an hour, of an operation
        for operation in range(int(rng.integers(2, 6))):
            share = rng.uniform(0.1, 1.0)
            counts = rng.poisson(np.maximum(service.load * busy * share, 0))
            hour = np.repeat(np.arange(self.hours), counts)
            n = len(hour)
            start = np.sort((self.begin + hour) * HOUR + rng.integers(0, HOUR, n))
            level = np.exp(lasting(rng, self.hours, rng.uniform(0.01, 0.06), 0.9))
            level = level * (1 + rng.uniform(0, 0.2) * service.load)
            median = 10 ** rng.uniform(0.7, 2.6)
            ms = median * level[hour] * np.exp(rng.normal(size=n) * rng.uniform(0.3, 0.9))
            ms = ms * np.where(rng.random(n) < 0.005, 1 + rng.pareto(2.0, n) * 3, 1.0)
            rate = 10 ** rng.uniform(-3.5, -2.2) * np.exp(lasting(rng, self.hours, 0.4, 0.7))
            failed = rng.random(n) < rate[hour]
            # Whoever failed tries again, and fails again, three times at most.
            for again in range(1, 4):
                more = np.flatnonzero(failed[:-again] if n > again else failed[:0]) + again
                failed[more] |= (rng.random(len(more)) < 0.1) & (
                    start[more] - start[more - again] < 120 * 10**9
                )
            weights = np.array([0.5, 0.25, 0.15, 0.1])
            error = np.where(failed, rng.choice([0, 1, 2, -2], n, p=weights), -1)
            parts.append(
                pl.DataFrame(
                    {"operation": np.full(n, operation), "start": start, "ms": ms,
                     "failed": failed, "error": error,
                     "kind": np.full(n, 5 if operation == 4 else 2),
                     "child": np.full(n, operation % 2)}
                )
            )  # fmt: skip
        made = pl.concat(parts).sort("start")
        since = made["start"].to_numpy() // HOUR - self.begin
        version = np.searchsorted(np.array(service.versions), since, "right")
        ids = rng.integers(0, 2**62, made.height)
        return made.with_columns(
            pl.lit(service.name).alias("service"), pl.Series("version", version),
            pl.Series("id", ids), pl.Series("host", ids % 4),
        )  # fmt: skip

    def _errors(self, service: Service, made: pl.DataFrame) -> Iterator[dict[str, Any]]:
        """Memories of the errors of failed requests, and of some that come once in days."""
        rng = self.rng
        for row in made.filter("failed").iter_rows(named=True):
            if row["error"] >= 0:
                kind, frame = service.errors[(row["error"] + row["operation"]) % 5]
                trace = f"{row['id']:032x}"
                yield self._error(service, row["start"], kind, frame, trace, f"{row['id']:016x}")
        for kind, frame in service.errors[5:]:
            for moment in self._now_and_then(rng.uniform(0.3, 5)):
                yield self._error(service, moment, kind, frame, None, None)

    def _error(
        self, of: Service, when: int, kind: str, frame: str, trace: str | None, span: str | None
    ) -> dict[str, Any]:
        return self._memory(
            "system_error", when, of.name, title=f"{kind}: it did not work, in {frame}",
            fingerprint=f"{kind} {frame}", trace_id=trace, span_id=span,
            attributes={"type": kind, "frame": frame},
        )  # fmt: skip

    def _now_and_then(self, days: float) -> list[int]:
        """Moments that come once in so many days, at times of any hour."""
        n = self.rng.poisson(self.hours / 24 / days)
        moments = self.begin * HOUR + self.rng.random(n) * self.hours * HOUR
        return sorted(int(one) for one in moments)

    def _logs(self, service: Service) -> Iterator[dict[str, Any]]:
        """Warnings, some rare, and a word every ten minutes that it lives."""
        rng = self.rng
        says = ("retrying request {a} after {b} ms", "slow answer of peer {a}: {b} ms",
                "cache of {a} entries is full, {b} dropped", "clock is {b} ms off",
                "certificate of peer {a} ends in {b} days", "pool has {a} of {b} connections",
                "token of session {a} was refreshed {b} times",
                "lock {a} was held for {b} ms")  # fmt: skip
        for words in rng.permutation(says)[: rng.integers(2, 7)]:
            if rng.random() < 0.4:
                moments = self._now_and_then(rng.uniform(0.3, 5))
            else:
                noise = np.exp(lasting(rng, self.hours, 0.5, 0.7))
                counts = rng.poisson(10 ** rng.uniform(-1.5, 1.2) * noise * service.load)
                hour = np.repeat(np.arange(self.hours), counts)
                moments = ((self.begin + hour) * HOUR + rng.integers(0, HOUR, len(hour))).tolist()
            for moment in moments:
                text = words.format(a=rng.integers(1, 10**6), b=rng.integers(1, 3000))
                yield {"time": moment, "severity": 13, "body": text, "service": service.name}
        for at in range(self.hours * 2):
            yield {"time": self.begin * HOUR + at * HOUR // 2, "severity": 9, "body": "alive",
                   "service": service.name}  # fmt: skip

    # -- what only some services do ----------------------------------------------------------------

    def _own(self, service: Service, number: int) -> Iterator[dict[str, Any]]:
        """What a service does besides: one kind of work for each of five."""
        ways = (self._models, self._decisions, self._workflows, self._people)
        if number % 5 < len(ways):
            yield from ways[number % 5](service)

    def _days(self, a_day: float) -> Iterator[tuple[int, list[int]]]:
        """Of each day a number and the moments of what happens, fewer at weekends."""
        for day in range(self.hours // 24):
            n = self.rng.poisson(a_day * (0.5 if day % 7 >= 5 else 1.0))
            moments = (self.begin + day * 24) * HOUR + self.rng.integers(0, DAY, n)
            yield day, sorted(int(one) for one in moments)

    def _models(self, service: Service) -> Iterator[dict[str, Any]]:
        rng = self.rng
        for model in ("small", "large"):
            a_day, ms, tokens = rng.uniform(10, 150), rng.uniform(300, 4000), rng.uniform(300, 4e3)
            for _, moments in self._days(a_day):
                slow, long = np.exp(rng.normal(size=2) * 0.06)
                for moment in moments:
                    failed = rng.random() < 0.01
                    yield self._memory(
                        "ai_response", moment, service.name, subject=model,
                        outcome="error" if failed else "ok",
                        duration_ns=int(ms * slow * np.exp(rng.normal() * 0.5) * 1e6),
                        attributes={
                            "agent": "writer",
                            "input_tokens": int(tokens * long * np.exp(rng.normal() * 0.6)),
                            "output_tokens": int(200 * np.exp(rng.normal() * 0.5)),
                        },
                    )  # fmt: skip
        for type_, tags in (("langgraph_outcome", []), ("api_call", ["tool:search"])):
            for _, moments in self._days(rng.uniform(5, 100)):
                for moment in moments:
                    yield self._memory(
                        type_, moment, service.name, subject="search", tags=tags,
                        outcome="error" if rng.random() < 0.02 else "ok",
                    )  # fmt: skip

    def _decisions(self, service: Service) -> Iterator[dict[str, Any]]:
        rng = self.rng
        good = {one: rng.uniform(0.5, 0.95) for one in ("approve", "ask", "refuse")}
        for _, moments in self._days(rng.uniform(10, 120)):
            luck = rng.normal() * 0.03
            for moment in moments:
                chosen = str(rng.choice([*good], p=[0.6, 0.3, 0.1]))
                chance = float(np.clip(good[chosen] + luck, 0, 1))
                at = np.datetime64(moment + 600 * 10**9, "ns")
                yield self._memory(
                    "business_decision", moment, service.name, subject="credit",
                    outcome="ok" if rng.random() < chance else "error",
                    attributes={
                        "decision": "credit", "chosen": chosen, "outcome_at": f"{at}Z",
                        "confidence": round(float(np.clip(chance + rng.normal() * 0.1, 0, 1)), 3),
                        "inputs": {"region": str(rng.choice(["north", "south", "west"])),
                                   "tier": str(rng.choice(["a", "b", "c", "d"]))},
                    },
                )  # fmt: skip

    def _workflows(self, service: Service) -> Iterator[dict[str, Any]]:
        rng, run = self.rng, 0
        for name in ("nightly export", "order"):
            for _, moments in self._days(rng.uniform(3, 60)):
                for moment in moments:
                    run += 1
                    yield self._memory(
                        "workflow_state", moment, service.name, subject=name,
                        outcome="error" if rng.random() < 0.02 else "ok",
                    )  # fmt: skip
                    at = moment
                    for state in ("placed", "paid", "sent"):
                        yield self._memory(
                            "workflow_state", at, service.name, subject=f"{name}: {state}",
                            attributes={"workflow": name, "run": f"r{run}", "state": state},
                        )  # fmt: skip
                        at += int(rng.exponential(600) * 1e9)
                        if rng.random() < 0.01:
                            break
        for _, moments in self._days(8):
            for moment in moments:
                yield self._memory(
                    "integration_sync", moment, service.name, subject="ledger",
                    outcome="error" if rng.random() < 0.02 else "ok",
                )  # fmt: skip

    def _people(self, service: Service) -> Iterator[dict[str, Any]]:
        rng, session = self.rng, 0
        bought = rng.uniform(0.2, 0.6)
        for _, moments in self._days(rng.uniform(20, 150)):
            mood = rng.normal() * 0.02
            for moment in moments:
                session += 1
                more: dict[str, Any] = {"session": f"{service.name}-{session}"}
                for page in ("/", "/list", "/cart")[: rng.integers(1, 4)]:
                    moment += int(rng.exponential(40) * 1e9)
                    yield self._memory("page_view", moment, service.name, subject=page, **more)
                    where = {"element": "button.go", "page": page}
                    clicks = 3 if rng.random() < 0.01 else rng.integers(0, 3)
                    for click in range(clicks):
                        yield self._memory(
                            "user_action", moment + (click + 1) * 500_000_000, service.name,
                            subject=page, tags=["action:click"], attributes=where, **more,
                        )  # fmt: skip
                    if page == "/cart" and rng.random() < bought + mood:
                        yield self._memory(
                            "user_action", moment + 10**10, service.name, subject=page,
                            tags=["action:submit"], **more,
                        )  # fmt: skip
                    if rng.random() < 0.01:
                        yield self._memory(
                            "ui_error", moment + 10**9, service.name,
                            title="TypeError: it has no name", fingerprint="ui TypeError",
                            attributes={"type": "TypeError"}, **more,
                        )  # fmt: skip

    def _memory(
        self, type_: str, when: int, service: str, *, title: str = "", subject: str | None = None,
        fingerprint: str | None = None, outcome: str | None = None, duration_ns: int | None = None,
        trace_id: str | None = None, span_id: str | None = None, session: str | None = None,
        tags: Sequence[str] = (), attributes: dict[str, Any] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        self._row += 1
        return {
            "id": f"{self._row * 0x9E3779B97F4A7C15 % 2**64:016x}" * 2, "type": type_,
            "time_unix_nano": when,
            "title": title or f"{type_} {subject}", "tags": list(tags), "service_name": service,
            "subject": subject, "fingerprint": fingerprint, "outcome": outcome,
            "duration_ns": duration_ns, "trace_id": trace_id, "span_id": span_id,
            "session_id": session, "attributes": json.dumps(attributes or {}),
        }  # fmt: skip

    # -- into the lake -----------------------------------------------------------------------------

    def _store_spans(self, spans: pl.DataFrame) -> int:
        """Requests with a call of a database or a peer in every second operation; and outcomes."""
        spans = spans.with_columns(pl.col("start").alias("began")).sort("start")
        db = self._db
        common = """
            printf('%032x', id) AS trace_id, service AS service_name, 'bench' AS collector,
            1 AS sequence, start AS recorded_at, hash(id, {}) AS content_hash
        """
        resource = """
            '{"service.name":"' || service || '","service.version":"1.' || version ||
            '","host.name":"host-' || host || '","process.pid":' || (100 + host) || '}' AS resource
        """
        for day in range(self.hours // 24):
            since = (self.begin + day * 24) * HOUR
            part = spans.filter(pl.col("start").is_between(since, since + DAY, closed="left"))
            db.register("part", part.to_arrow())
            db.execute(f"""
                INSERT INTO lake.spans BY NAME
                SELECT {common.format(1)}, {resource}, printf('%016x', id) AS span_id,
                    CASE WHEN kind = 2 THEN 'GET /operation/' || operation
                        ELSE 'process topic-' || operation END AS name,
                    kind, start AS start_time_unix_nano,
                    start + (ms * 1e6)::BIGINT AS end_time_unix_nano,
                    CASE WHEN failed THEN 2 ELSE 0 END AS status_code, '{{}}' AS attributes,
                    CASE WHEN kind = 2 THEN 'GET' END AS http_request_method,
                    CASE WHEN kind = 2 THEN '/operation/' || operation END AS http_route,
                    CASE WHEN kind <> 2 THEN NULL WHEN failed THEN 500 ELSE 200 END
                        AS http_response_status_code
                FROM part ORDER BY start
            """)
            db.execute(f"""
                INSERT INTO lake.spans BY NAME
                SELECT {common.format(2)}, {resource}, printf('%016x', id + 1) AS span_id,
                    printf('%016x', id) AS parent_span_id, 'SELECT orders' AS name, 3 AS kind,
                    start + (ms * 2e5)::BIGINT AS start_time_unix_nano,
                    start + (ms * 7e5)::BIGINT AS end_time_unix_nano, 0 AS status_code,
                    '{{"db.query.text":"SELECT * FROM orders WHERE id = ?"}}' AS attributes,
                    'postgresql' AS db_system_name
                FROM part WHERE child = 1 ORDER BY start
            """)
            db.execute(f"""
                INSERT INTO lake.memories BY NAME
                SELECT {common.partition(", hash")[0]}, printf('%016x', id) AS span_id,
                    printf('%016x%016x', id, id) AS id,
                    'request_outcome' AS type, start AS time_unix_nano,
                    'GET /operation/' || operation || ' ' || CASE WHEN failed THEN 500 ELSE 200 END
                        AS title, '' AS content,
                    CASE WHEN failed THEN 'error' ELSE 'ok' END AS outcome,
                    (ms * 1e6)::BIGINT AS duration_ns, 0.3 AS importance, [] AS tags,
                    '{{}}' AS attributes, 'span' AS source
                FROM part WHERE kind = 2 ORDER BY start
            """)
        return int(db.execute("SELECT count(*) FROM lake.spans").fetchall()[0][0])

    def _store_memories(self, rows: list[dict[str, Any]]) -> None:
        text = ("id", "type", "title", "service_name", "subject", "fingerprint", "outcome",
                "trace_id", "span_id", "session_id", "attributes")  # fmt: skip
        frame = pl.DataFrame(
            rows,
            schema_overrides=dict.fromkeys(text, pl.String)
            | {"tags": pl.List(pl.String), "duration_ns": pl.Int64},
            infer_schema_length=None,
        )
        self._db.register("rows", frame.sort("time_unix_nano").to_arrow())
        self._db.execute("""
            INSERT INTO lake.memories BY NAME
            SELECT *, title AS content, 0.5 AS importance, 'mark' AS source, 'bench' AS collector,
                1 AS sequence, time_unix_nano AS recorded_at FROM rows
        """)

    def _store_logs(self, rows: list[dict[str, Any]]) -> None:
        self._db.register("rows", pl.DataFrame(rows).sort("time").to_arrow())
        self._db.execute("""
            INSERT INTO lake.logs BY NAME
            SELECT time AS time_unix_nano, time AS observed_time_unix_nano,
                severity AS severity_number, '"' || body || '"' AS body, '{}' AS attributes,
                service AS service_name, 'bench' AS collector, 1 AS sequence, time AS recorded_at,
                hash(time, body, service) AS content_hash
            FROM rows
        """)

    def _metrics(self) -> None:
        """Every quarter of an hour: a disk that is cleaned, a heap that is collected, a queue."""
        rng, n, parts = self.rng, self.hours * 4, []
        at = np.arange(n) / 4
        for number in range(SERVICES):
            day = np.sin((at - rng.uniform(0, 24)) * 2 * np.pi / 24)
            period = rng.uniform(12, 100)
            fills = (at + rng.uniform(0, period)) % period / period
            level = rng.uniform(0.3, 0.6)
            heap = (at + rng.uniform(0, 9)) % rng.uniform(0.5, 9) / 9
            series = {
                "system.filesystem.utilization": level + rng.uniform(0, 0.2) * fills
                + lasting(rng, n, 0.01, 0.98),
                "system.memory.utilization": rng.uniform(0.4, 0.75) + 0.03 * day
                + lasting(rng, n, 0.02, 0.95),
                "jvm.memory.used": 1e9 * (0.3 + 0.05 * day + 0.3 * heap
                                          + lasting(rng, n, 0.02, 0.9)),
                "jvm.memory.limit": np.full(n, 1e9),
                "queue.depth": np.maximum(
                    0, rng.uniform(5, 50) * (1 + 0.6 * day) * np.exp(lasting(rng, n, 0.4, 0.95))),
            }  # fmt: skip
            for name, values in series.items():
                sum_ = name.startswith("jvm")
                parts.append(
                    pl.DataFrame({
                        "time": (self.begin * HOUR + (at * HOUR).astype(np.int64)),
                        "value": values, "name": name, "type": "sum" if sum_ else "gauge",
                        "temporality": pl.Series([2 if sum_ else None] * n, dtype=pl.Int32),
                        "service": f"service-{number:02}",
                    })
                )  # fmt: skip
        self._db.register("points", pl.concat(parts).sort("time", "service", "name").to_arrow())
        self._db.execute("""
            INSERT INTO lake.metrics BY NAME
            SELECT name, type, temporality AS aggregation_temporality, false AS is_monotonic,
                time AS time_unix_nano, 0 AS flags, '{}' AS attributes, value AS value_double,
                service AS service_name, 'bench' AS collector, 1 AS sequence, time AS recorded_at,
                hash(time, name, service) AS content_hash,
                '{"service.name":"' || service || '","host.name":"host-1"}' AS resource
            FROM points
        """)
