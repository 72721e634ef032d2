"""Predictions: how many come true, how sure they may be, what a clean week says, what a pass costs.

    python bench/learning/predictions.py series [SEED]   # arrays: leaks and none, hour by hour
    python bench/learning/predictions.py clean FOLDER    # a lake: 50 services, nothing wrong
    python bench/learning/predictions.py pass FOLDER [MILLION]   # a lake of 10 million spans

Everything is made with fixed seeds. `FOLDER` must be empty, and may be deleted.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from engram.exporters.control import ControlServer
from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_sql, connect
from engram.learning.jobs.predictions import Predictions, judge
from engram.learning.jobs.predictions.record import Made, Scored, standing
from engram.learning.jobs.predictions.series import HISTORY, HOUR, Watched, foresee, own_limit
from engram.learning.jobs.runner import Runner
from engram.learning.jobs.window import Window

END = 497_200
"""An hour to stand at."""


def shapes(rng: np.random.Generator, hours: int) -> np.ndarray:
    """Noise of any memory, a day, sometimes a step or skew; around 1."""
    noise, rho = rng.normal(size=hours), rng.uniform(0, 0.98)
    for at in range(1, hours):
        noise[at] += rho * noise[at - 1]
    noise /= noise.std()
    if rng.random() < 0.3:
        noise = np.exp(noise)
    day = rng.uniform(0, 3) * np.sin(np.arange(hours) * 2 * np.pi / 24 + rng.uniform(0, 6))
    step = (np.arange(hours) >= rng.integers(hours)) * rng.choice([0, 0, 2, 5])
    return np.maximum(20 + noise + day + step, 0.1) / 20


def walk(values: np.ndarray, limit: float) -> list[tuple[float, str, float, int]]:
    """Hour by hour, as the job does: probability, verdict, lead (h) and hour of each prediction."""
    told, made, last = [], None, len(values)
    for end in range(HISTORY, last):
        begin = max(0, end - HISTORY)
        series = Watched(
            "saturation", "s", "m", "", "", limit, "known", END + end, values[begin:end]
        )
        if made is not None:
            judged = judge(made, series, END + end)
            if judged is not None:
                verdict, moment, _ = judged
                said = made.as_of // HOUR - END
                told.append((made.probability, verdict, (moment - made.as_of) / HOUR, said))
                made = None
            continue
        found = foresee(series)
        if found is not None:
            deadline = (END + end + found.deadline) * HOUR
            made = Made(
                "p", (END + end) * HOUR, "saturation", series.key, "", "s", limit, deadline,
                found.probability, False,
            )  # fmt: skip
    return told


def series(seed: int) -> None:
    """A leak at any speed in every second series, with limits at the job's distance and closer."""
    for times in (3.0, 1.5):
        print(f"limit at {times:g} times the median or more:")
        _series(seed, times)


def _series(seed: int, times: float) -> None:
    rng, hours, total = np.random.default_rng(seed), HISTORY + 10 * 24, 600
    record: list[Scored] = []
    days, crossed, caught = [0.0, 0.0], [0, 0], [0, 0]
    leads: list[float] = []  # of every leak, 0 where none was foreseen
    false, early, said = [0, 0], 0, []
    began = time.process_time()
    for number in range(total):
        leaks, begin = number % 2, hours
        values = shapes(rng, hours)
        limit = own_limit(values[:HISTORY], times) or 0.0
        if leaks:
            begin = HISTORY + int(rng.integers(24, 72))
            way = np.maximum(np.arange(hours) - begin, 0) / rng.uniform(12, 120)
            values = values + (limit - np.median(values)) * way ** rng.choice([1.0, 1.0, 2.0])
        over = np.flatnonzero(values[HISTORY:] >= limit)
        until = HISTORY + int(over[0]) + 1 if len(over) else hours
        found = walk(values[: min(hours, until + 26)], limit)
        before = standing("saturation", record)
        for probability, verdict, _, _ in found:
            sure = before.calibrated(probability)
            record.append(Scored("p", "saturation", number, verdict, sure, number, False))
            if verdict != "expired":
                said.append((probability, sure, verdict == "hit"))
        days[leaks] += (until - HISTORY) / 24
        crossed[leaks] += bool(len(over))
        hits = [lead for _, verdict, lead, _ in found if verdict == "hit"]
        caught[leaks] += bool(hits)
        if leaks and len(over):
            leads.append(hits[0] if hits else 0.0)
        # Of what leaks and is over the limit a day later than it was said, it was said too early.
        missed = [hour for _, verdict, _, hour in found if verdict == "miss"]
        early += sum(hour > begin for hour in missed)
        false[leaks] += sum(hour <= begin for hour in missed)
    spent = time.process_time() - began
    for name, at in (("nothing leaks", 0), ("leaks", 1)):
        print(
            f"  {name}: {total // 2} series, {days[at]:.0f} days until the limit; crossed "
            f"{crossed[at]}, of them predicted {caught[at]}; {false[at]} false"
        )
    seen = [lead for lead in leads if lead]
    print(
        f"  of 100 series-days {100 * sum(false) / sum(days):.2f} false and "
        f"{100 * early / sum(days):.2f} too early; lead, median {np.median(seen):.1f} h, "
        f"of all leaks {np.median(leads):.1f} h, 12 h or more of "
        f"{np.mean(np.array(leads) >= 12):.0%}"
    )
    rate = float(np.mean([hit for _, _, hit in said]))
    print(f"  {len(said)} predictions, {rate:.1%} hits")
    for name, place in (("method's own", 0), ("by the record", 1)):
        brier = np.mean([(one[place] - one[2]) ** 2 for one in said])
        print(f"  Brier, {name}: {brier:.3f} (always the hit rate: {rate * (1 - rate):.3f})")
        for low, high in ((0.0, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 1.0)):
            part = [one[2] for one in said if low <= one[place] < high + (high == 1)]
            if part:
                print(f"    said {low:.0%} to {high:.0%}: {np.mean(part):.0%} of {len(part)}")
    print(f"  {spent:.1f} CPU-seconds for {sum(days) * 24:,.0f} hours of series")


class Lake:
    """A home whose lake is written in SQL: what a collector would have stored."""

    def __init__(self, folder: str) -> None:
        self.home = Home(Path(folder) / "home")
        engine = Engine(self.home, EngineSettings())
        engine.start()
        engine.shutdown(10)
        self.db = connect(threads=2, memory_limit="2GB")
        self.db.execute(attach_sql(self.home, read_only=False))

    def spans(self, services: int, each: int, hours: int, end: int) -> None:
        """Requests of `services`, each with 3 operations: log-normal, with a day; 0.3 % fail."""
        for day in range(end - hours, end, 24):
            self.db.execute(f"""
                INSERT INTO lake.spans (trace_id, span_id, name, kind, start_time_unix_nano,
                    end_time_unix_nano, status_code, attributes, service_name, resource,
                    http_request_method, http_route, http_response_status_code, collector, sequence,
                    recorded_at)
                WITH made AS (
                    SELECT range AS n, hash(range, {day}) AS h, hash(range, {day}, 1) AS h1,
                        hash(range, {day}, 2) AS h2, hash(range, {day}, 3) AS h3
                    FROM range({services * each * 24})
                ),
                placed AS (
                    SELECT *, n % {services} AS service, n // {services} % 3 AS operation,
                        ({day} + n * 24 // {services * each * 24}) * {HOUR} + h1 % {HOUR} AS began,
                        sqrt(-2 * ln(greatest(1e-9, (h % 1000000) / 1e6)))
                            * cos(2 * pi() * (h2 % 1000000) / 1e6) AS z
                    FROM made
                )
                SELECT printf('%032x', h), printf('%016x', h1), 'GET',
                    CASE WHEN h3 % 5 < 2 THEN 2 ELSE 3 END, began,
                    began + CAST((40 + 60 * operation) * exp(0.6 * z) * 1e6
                    * (1 + 0.15 * sin(began / {24 * HOUR} * 2 * pi())) AS BIGINT),
                    CASE WHEN h2 % 1000 < 3 THEN 2 ELSE 0 END, '{{}}', 'service-' || service,
                    '{{"service.name":"service-' || service || '","service.version":"' ||
                    CASE WHEN began >= ({end} - 84 + service) * {HOUR} THEN '1.1' ELSE '1.0' END ||
                    '","host.name":"host-' || (h3 % 4) ||
                    '","process.pid":' || (h3 % 4 + 100) || '}}',
                    'GET', '/operation/' || operation,
                    CASE WHEN h2 % 1000 < 3 THEN 500 ELSE 200 END, 'bench', 1, began FROM placed
            """)

    def metrics(self, services: int, hours: int, end: int) -> None:
        """Of each service every five minutes: a disk, a heap with its limit, a queue."""
        for name, value, temporality in (
            ("system.filesystem.utilization", "0.6 + 0.02 * z + 0.02 * season", "NULL"),
            ("jvm.memory.used", "5e8 + 5e7 * z + 5e7 * season", "2"),
            ("jvm.memory.limit", "1e9", "2"),
            ("queue.depth", "50 + 10 * z + 20 * season", "NULL"),
        ):
            self.db.execute(f"""
                INSERT INTO lake.metrics (name, type, aggregation_temporality, is_monotonic,
                    time_unix_nano, flags, attributes, value_double, service_name, resource,
                    collector, sequence, recorded_at)
                WITH made AS (
                    SELECT s.range AS service,
                        {end - hours} * {HOUR} + p.range * {HOUR // 12} AS moment,
                        sqrt(-2 * ln(greatest(
                            1e-9, (hash(s.range, p.range, '{name}') % 1000000) / 1e6)))
                            * cos(2 * pi() * (hash(p.range, s.range) % 1000000) / 1e6) AS z
                    FROM range({services}) s, range({hours * 12}) p
                )
                SELECT '{name}', CASE WHEN {temporality} IS NULL THEN 'gauge' ELSE 'sum' END,
                    {temporality}, false, moment, 0, '{{"pool":"old"}}', {value},
                    'service-' || service,
                    '{{"service.name":"service-' || service || '","host.name":"host-1"}}',
                    'bench', 1, moment
                FROM (SELECT *, sin(moment / {24 * HOUR} * 2 * pi() + service) AS season FROM made)
            """)


def clean(folder: str) -> None:
    """50 services, each deployed once; a week, hour by hour, through the runner."""
    lake, week = Lake(folder), 7 * 24
    lake.spans(50, 250, HISTORY + week, END)
    lake.metrics(50, HISTORY + week, END)
    engine = Engine(lake.home, EngineSettings(commit_interval_s=0.05))
    engine.start()
    control = ControlServer(engine)
    control.start()
    now = 0
    runner = Runner(lake.home, [Predictions()], clock=lambda: now)
    began = time.process_time()
    said = 0
    for hour in range(END - week, END + 1):
        now = hour * HOUR
        (run,) = runner.step()
        if run.error:
            print(run.error)
        said += run.insights
        if run.insights:
            engine.wait_committed(engine.end, 20)
    spent = time.process_time() - began
    control.shutdown()
    engine.shutdown(10)
    rows = lake.db.execute(
        "SELECT title, tags FROM lake.memories WHERE type = 'ai_insight' ORDER BY time_unix_nano"
    ).fetchall()
    print(f"{week} hours of 50 services, 50 deploys: {said} insights; {spent:.0f} CPU-seconds")
    for title, tags in rows:
        print(f"  {title} {tags}")


def pass_(folder: str, million: float) -> None:
    """A full pass and an increment over many spans, 40 % of them requests."""
    lake = Lake(folder)
    each = round(million * 1e6 / (50 * HISTORY))
    lake.spans(50, each, HISTORY, END)
    lake.metrics(50, HISTORY, END)
    lake.db.close()

    def ran(since: int, until: int) -> tuple[float, float, int]:
        cpu, wall = time.process_time(), time.monotonic()
        read: Any = Runner(lake.home, [])._reader()
        found = list(Predictions().run(read, Window(since, until)))
        return time.process_time() - cpu, time.monotonic() - wall, len(found)

    five = 300 * 10**9
    for name, since, until in (
        ("full pass", 0, END * HOUR),
        ("an hour has ended", END * HOUR - five, END * HOUR),
        ("five minutes", END * HOUR - 2 * five, END * HOUR - five),
    ):
        cpu, wall, found = ran(since, until)
        print(f"{name}: {cpu:.2f} CPU-seconds, {wall:.2f} s, {found} insights")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{50 * each * HISTORY / 1e6:.1f} million spans; peak memory {peak:.0f} MiB, making it too"
    )


if __name__ == "__main__":
    what = sys.argv[1]
    if what == "series":
        series(int(sys.argv[2]) if len(sys.argv) > 2 else 7)
    elif what == "clean":
        clean(sys.argv[2])
    else:
        pass_(sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 10.0)
