"""Does `causes` name the component in which a fault was planted, and what does it cost?

    python bench/learning/causes.py [--systems 60] [--spans 1000000] [--seed 1]

Random systems: 5 to 25 services that call one another as a tree, 40 % of them all at once and the
others one by one, 40 to 150 runs an hour, a daily swing of load and latency, own times spread by a
factor (log-normal, sigma 0.3 to 0.7), a component that is a little worse without a reason, and a
deploy of some service at the beginning. In each one fault is planted: a slow or a failing service,
a slow or a lossy way between two, at any depth; or all are slower at once (a machine, load), or the
incident was said of nothing. What cannot be seen at the front (less than 20 % and 5 ms, or two
percentage points) is drawn again: nobody would ask.

The lake is in memory, with the columns that the job reads; the job is run as it is.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import polars as pl

from engram.learning.jobs.causes import JOB
from engram.learning.jobs.insight import Insight
from engram.learning.jobs.window import Window

HOUR = 3600 * 10**9
BEGIN = 1_790_000_000_000_000_000 // HOUR * HOUR
BEFORE = 24
FAULTS = ("slow service", "failing service", "slow way", "lossy way")
SILENT = ("all slower", "nothing")


@dataclass
class System:
    """A tree of services: the parent of each, its own milliseconds and their spread."""

    parent: list[int]
    own: np.ndarray
    sigma: np.ndarray
    way: np.ndarray
    parallel: list[bool]
    """Whether each calls all that it calls at once."""

    @classmethod
    def drawn(cls, rng: np.random.Generator, size: int) -> System:
        parent = [-1, *(int(rng.integers(max(0, n - 6), n)) for n in range(1, size))]
        return cls(
            parent, rng.lognormal(2.0, 0.7, size), rng.uniform(0.3, 0.7, size),
            rng.lognormal(0.3, 0.5, size), (rng.random(size) < 0.4).tolist(),
        )  # fmt: skip

    def name(self, at: int) -> str:
        return f"GET /s{at} (s{at})"

    def edge(self, at: int) -> str:
        return f"s{self.parent[at]} -> s{at}"


def lived(
    system: System, rng: np.random.Generator, hours: int, an_hour: int, fault: str, at: int,
    deploy: int,
) -> tuple[pl.DataFrame, bool]:  # fmt: skip
    """All spans, and whether the front shows it."""
    size, whole = len(system.parent), BEFORE + hours
    hour = np.arange(whole)
    swing = 1 + 0.3 * np.sin(hour / 24 * 2 * np.pi)
    per_hour = rng.poisson(an_hour * swing)
    start = BEGIN + np.repeat(hour, per_hour) * HOUR
    start = start + rng.integers(0, HOUR - 30 * 10**9, len(start))
    late = start >= BEGIN + BEFORE * HOUR
    n = len(start)
    daily = np.repeat(1 + 0.1 * np.sin(hour / 24 * 2 * np.pi), per_hour)
    # Each component has hours of its own that are a little better or worse.
    noise = np.exp(rng.normal(0, 0.05, (size, whole)))[:, np.repeat(hour, per_hour)]
    own = np.exp(rng.normal(0, 1, (size, n)) * system.sigma[:, None])
    own *= system.own[:, None] * daily * noise
    way = np.exp(rng.normal(0, 0.4, (size, n))) * system.way[:, None]
    bad = rng.random((size, n)) < 0.002
    lost = rng.random((size, n)) < 0.001
    total = float(system.own.sum() + 2 * system.way.sum())
    more = float(rng.uniform(0.25, 1.0)) * total
    share = float(rng.uniform(0.04, 0.25))
    beside = int(rng.integers(size))
    if fault in FAULTS:
        own[beside, late] *= 1.1
    if fault == "slow service":
        own[at, late] *= 1 + more / system.own[at]
    elif fault == "slow way":
        way[at, late] += more / 2
    elif fault == "failing service":
        bad[at] |= late & (rng.random(n) < share)
    elif fault == "lossy way":
        lost[at] |= late & (rng.random(n) < share)
    elif fault == "all slower":
        own[:, late] *= rng.uniform(1.4, 2.5)
    children = [[n for n in range(size) if system.parent[n] == k] for k in range(size)]
    frames: list[pl.DataFrame] = []
    version = [np.where(late, "2", "1") if k == deploy else np.full(n, "1") for k in range(size)]

    def ns(ms: np.ndarray) -> np.ndarray:
        return (ms * 1e6).astype(np.int64)

    def add(
        k: int, span: int, up: int | None, kind: int, name: str, a: Any, b: Any, failed: Any
    ) -> None:
        frames.append(
            pl.DataFrame(
                {
                    "run": np.arange(n), "span": np.full(n, span), "start_time_unix_nano": a,
                    "end_time_unix_nano": b, "status_code": np.where(failed, 2, 0),
                    "version": version[k],
                }
            ).with_columns(
                service_name=pl.lit(f"s{k}"), name=pl.lit(name), kind=pl.lit(kind),
                parent=pl.lit(up, pl.Int64),
            )
        )  # fmt: skip

    def call(k: int, up: int | None, begin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        now, failed = begin + ns(own[k]), bad[k]
        first = now
        for child in children[k]:
            after, now = now, first if system.parallel[k] else now
            ended, below = call(child, 2 * child + 1, now + ns(way[child]))
            client = below | lost[child]
            add(k, 2 * child + 1, 2 * k, 3, "call", now, ended + ns(way[child]), client)
            now, failed = np.maximum(after, ended + ns(way[child])), failed | client
        add(k, 2 * k, up, 2, f"GET /s{k}", begin, now, failed)
        return now, failed

    ended, failed = call(0, None, start)
    took = (ended - start) / 1e6
    old, new = float(np.median(took[~late])), float(np.median(took[late]))
    slower = new > 1.2 * old and new - old > 5
    worse = failed[late].mean() - failed[~late].mean() > 0.02
    return pl.concat(frames), bool(worse if kind_of(fault) == "errors" else slower)


def kind_of(fault: str) -> str:
    return "errors" if fault in ("failing service", "lossy way") else "latency"


def lake(spans: pl.DataFrame, incident: dict[str, Any] | None) -> duckdb.DuckDBPyConnection:
    db = duckdb.connect(config={"threads": 2})
    db.execute("ATTACH ':memory:' AS lake")
    db.execute(
        "CREATE TABLE lake.memories (id VARCHAR, type VARCHAR, trust VARCHAR, title VARCHAR, "
        "subject VARCHAR, service_name VARCHAR, attributes VARCHAR, time_unix_nano BIGINT, "
        "tags VARCHAR[], trace_id VARCHAR)"
    )
    if incident:
        db.execute(
            "INSERT INTO lake.memories VALUES ('m', 'ai_insight', 'engram', 'it is bad', 'it', "
            "'s0', ?, ?, ['job:performance'], NULL)",
            [json.dumps(incident), incident["until"]],
        )
    db.register("made", spans)
    db.execute(
        "CREATE TABLE lake.spans AS SELECT printf('%032x', run) AS trace_id, "
        "printf('%016x', span) AS span_id, CASE WHEN parent IS NOT NULL THEN "
        "printf('%016x', parent) END AS parent_span_id, start_time_unix_nano, "
        "end_time_unix_nano, status_code, service_name, name, kind, "
        "NULL::INTEGER AS http_response_status_code, 'x' AS scope_name, "
        """'{"service.version":"' || version || '"}' AS resource FROM made"""
    )
    db.unregister("made")
    return db


def says(db: duckdb.DuckDBPyConnection, until: int) -> tuple[list[Insight], float]:
    def read(sql: str, values: Sequence[Any] = ()) -> pl.DataFrame:
        return db.execute(sql, list(values)).pl()

    began = time.process_time()
    found = list(JOB.run(read, Window(until - 300 * 10**9, until)))
    return found, time.process_time() - began


def incident_of(fault: str) -> tuple[int, dict[str, Any]]:
    hours = 2 if kind_of(fault) == "errors" else 6
    since = BEGIN + BEFORE * HOUR
    return hours, {
        "job": "performance", "state": "worse" if hours == 2 else "slower",
        "operation": "GET /s0", "since": since, "until": since + hours * HOUR,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", type=int, default=60)
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draw, rng = random.Random(options.seed), np.random.default_rng(options.seed)
    marks: dict[str, Counter[str]] = {}
    for number in range(options.systems):
        fault = (*FAULTS, *SILENT)[number % 6]
        hours, incident = incident_of(fault)
        while True:
            system = System.drawn(rng, draw.randrange(5, 26))
            size = len(system.parent)
            at = draw.randrange(1, size)
            spans, shown = lived(
                system, rng, hours, draw.randrange(40, 151), fault, at, draw.randrange(size)
            )
            if shown or fault == "nothing":
                break
        [one], _ = says(lake(spans, incident), incident["until"])
        right = system.edge(at) if "way" in fault else system.name(at)
        named = list(one.facts["causes"])
        mark = marks.setdefault(fault, Counter())
        mark["n"] += 1
        mark["unclear"] += bool(one.facts["unclear"])
        mark["first"] += named[:1] == [right]
        mark["three"] += right in named
        clear = not one.facts["unclear"]
        mark["wrong"] += clear and (fault in SILENT or named[:1] != [right])
    for fault, mark in marks.items():
        n = mark["n"]
        if fault in FAULTS:
            print(f"{fault:16} n={n:3}  top-1 {mark['first'] / n:.3f}  "
                  f"top-3 {mark['three'] / n:.3f}", end="  ")  # fmt: skip
        else:
            print(f"{fault:16} n={n:3}", end="  ")
        print(f"unclear {mark['unclear'] / n:.3f}  named wrongly {mark['wrong'] / n:.3f}")
    planted = [marks[one] for one in FAULTS if one in marks]
    n = max(1, sum(one["n"] for one in planted))
    print(f"{'all planted':16} n={n:3}  top-1 {sum(one['first'] for one in planted) / n:.3f}  "
          f"top-3 {sum(one['three'] for one in planted) / n:.3f}")  # fmt: skip
    _cost(options.spans, rng)


def _cost(spans: int, rng: np.random.Generator) -> None:
    """CPU of a pass with and without an incident."""
    hours, incident = incident_of("slow service")
    system = System.drawn(rng, 15)
    made, _ = lived(system, rng, hours, spans // (29 * (BEFORE + hours)), "slow service", 9, 3)
    for what, told in (("an incident", incident), ("nothing told", None)):
        db = lake(made, told)
        cpu = sorted(says(db, incident["until"])[1] for _ in range(3))[1]
        print(f"{len(made):,} spans, {what}: {cpu:.3f} s CPU")


if __name__ == "__main__":
    main()
