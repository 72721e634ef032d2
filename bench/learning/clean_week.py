"""What do all jobs say of a week of 50 services in which nothing is wrong?

    python bench/learning/clean_week.py [--seed 1] [--step 1] [--five]

Fills a lake with three weeks of `clean_telemetry.py`. Two are warm-up, in which jobs learn what is
usual (each error is new once); in the third they run every `--step` hours, with `--five` every five
minutes on its Wednesday. Alerts are chosen by the product's own rules and state.
Goal: 2 a week at most.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent))
from clean_telemetry import DAY, HOUR, MONDAY, Week  # type: ignore[import-not-found, unused-ignore]

from engram.exporters.control import ControlServer
from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_read_only
from engram.learning.alerts.choose import found
from engram.learning.alerts.outbox import Outbox
from engram.learning.alerts.settings import Alerts
from engram.learning.jobs import JOBS
from engram.learning.jobs.runner import Runner

DAYS: Final = 21
WARM: Final = 14
MINUTE: Final = 60 * 10**9
BEGIN: Final = MONDAY * HOUR
WEEK: Final = BEGIN + WARM * DAY


def moments(step: int, *, five: bool) -> Iterator[int]:
    """When jobs run: after a week four times a day, then every few hours, a day as they would."""
    yield from range(BEGIN + 7 * DAY, WEEK, 6 * HOUR)
    for at in range(WEEK, WEEK + 7 * DAY, step * HOUR):
        yield at
        if five and WEEK + 2 * DAY <= at < WEEK + 3 * DAY:
            yield from range(at + 5 * MINUTE, at + step * HOUR, 5 * MINUTE)
    yield WEEK + 7 * DAY


def ran(
    home: Home, step: int, only: str | None, log: Any, *, five: bool
) -> tuple[list[dict[str, Any]], Counter[str], int]:
    """Every run of a week; the alerts, CPU seconds by job, and how many runs there were."""
    settings = Alerts()
    outbox = Outbox(home.root / "learn" / "bench-alerts.json", settings, ())
    engine = Engine(home, EngineSettings(commit_interval_s=0.05))
    engine.start()
    control = ControlServer(engine)
    control.start()
    now, runs = 0, 0
    alerts: list[dict[str, Any]] = []
    cpu: Counter[str] = Counter()
    jobs = [job for job in JOBS if only is None or job.name in only.split(",")]
    runner = Runner(home, jobs, clock=lambda: now)
    try:
        for now in moments(step, five=five):
            runs += 1
            done = runner.step()
            for run in done:
                cpu[run.job] += run.cpu_seconds
                if run.error:
                    raise SystemExit(f"{run.job} failed: {run.error}")
            if not any(run.insights for run in done):
                continue
            engine.wait_committed(engine.end, 60)
            with attach_read_only(home, threads=1, memory_limit="256MB") as lake:
                some = found(lake, 0, now - DAY, settings.min_importance)
            outbox.take(some, now)
            for one in outbox.state.waiting:
                alerts.append(one["message"] | {"now": now})
                print(_when(now), one["message"].get("job"), one["message"]["title"], file=log,
                      flush=True)  # fmt: skip
            outbox.state.waiting.clear()
    finally:
        control.shutdown()
        engine.shutdown(10)
    return alerts, cpu, runs


def said(home: Home, since: int, until: int) -> Counter[tuple[str, str]]:
    """How many insights of a time there are, by job and tag."""
    with attach_read_only(home, threads=1, memory_limit="256MB") as lake:
        rows = lake.execute(
            "SELECT json_extract_string(attributes, '$.job') AS job, tags FROM lake.memories "
            "WHERE job IS NOT NULL AND trust = 'engram' "
            "AND time_unix_nano >= ? AND time_unix_nano < ?",
            [since, until],
        ).fetchall()
    told: Counter[tuple[str, str]] = Counter()
    for job, tags in rows:
        told[job, next((one for one in tags if one.startswith(("state:", "tier:"))), "")] += 1
    return told


def _when(moment: int) -> str:
    return datetime.fromtimestamp(moment / 1e9, UTC).strftime("%a %m-%d %H:%M")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--step", type=int, default=1, help="hours between runs")
    parser.add_argument("--five", action="store_true", help="a day every five minutes, too")
    parser.add_argument("--jobs", help="only these, with commas")
    parser.add_argument("--home", type=Path, help="a folder, filled before or to be filled")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--show", action="store_true", help="what each alert says")
    options = parser.parse_args()
    folder = options.home or Path(tempfile.mkdtemp(prefix="clean-week-"))
    week = Week(folder, options.seed, DAYS)
    if not week.home.catalog.exists():
        began = time.process_time()
        spans, memories = week.fill()
        print(f"{spans:,} spans and {memories:,} memories besides of requests; "
              f"{time.process_time() - began:.0f} CPU-seconds", flush=True)  # fmt: skip
    try:
        alerts, cpu, runs = ran(
            week.home, options.step, options.jobs, sys.stderr, five=options.five
        )
        for name, since, until in (("warm-up", 0, WEEK), ("the week", WEEK, WEEK + 8 * DAY)):
            told = [one for one in alerts if since <= one["now"] < until]
            print(f"\n{name}: {len(told)} alerts", dict(Counter(str(a.get("job")) for a in told)))
            print(
                "  insights:",
                {" ".join(key): n for key, n in sorted(said(week.home, since, until).items())},
            )
        for one in told:
            print(f"  {_when(one['now'])} {one.get('job')}: {one['title']}")
            if options.show:
                print("    " + str(one["content"]).replace("\n", "\n    "))
                print("    " + json.dumps(one.get("facts", {}))[:500])
        print(f"\n{runs} runs: " + ", ".join(f"{job} {s:.0f}" for job, s in cpu.most_common()),
              f"CPU-seconds, {sum(cpu.values()):.0f} in all")  # fmt: skip
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
