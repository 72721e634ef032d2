"""What do all jobs cost: a first pass over everything, and five minutes?

    python bench/learning/passes.py [--spans 2000000] [--home DIR] [--keep]

Fills a home with two days of telemetry (`report.py`), merges its files as `collect` does, and then
runs all jobs as `learn` does, in a process of their own: over everything, over five minutes, and
over those in which an hour and a day end, when most is looked at; CPU seconds and peak memory are
those that the ledger has of each job. Then for an hour in rounds, in which jobs take turns.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))
from report import DAY, EPOCH_NS, fill  # type: ignore[import-not-found, unused-ignore]

from engram.exporters.ask import ask
from engram.exporters.control import ControlServer
from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.home import Home

_MINUTE = 60 * 10**9
_RUN = """
import json, sys
from pathlib import Path
from engram.exporters.home import Home
from engram.learning.jobs import JOBS, runner
from engram.learning.jobs.budget import Budget
runner.ask = lambda *a, **k: {}
now, since = int(sys.argv[2]), int(sys.argv[3])
one = runner.Runner(Home(Path(sys.argv[1])), JOBS, clock=lambda: now,
                    budget=Budget(seconds=600.0, resident_bytes=6 << 30))
print(json.dumps([[r.job, r.cpu_seconds, r.seconds, r.peak_bytes >> 20, r.insights, r.error]
                  for r in one.step(since=since)]))
"""


_ROUND = """
import json, resource, sys
from pathlib import Path
from engram.exporters.home import Home
from engram.learning.jobs import JOBS, runner
from engram.learning.jobs.budget import Budget
from engram.learning.jobs.turns import turn
now = int(sys.argv[2])
one = runner.Runner(Home(Path(sys.argv[1])), JOBS, clock=lambda: now,
                    budget=Budget(seconds=600.0, resident_bytes=6 << 30))
names = turn(one, now)
one.step(names)
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss >> 10, names]))
"""


@contextmanager
def collecting(home: Home) -> Iterator[Engine]:
    """A home that takes what jobs say."""
    engine = Engine(home, EngineSettings())
    engine.start()
    control = ControlServer(engine)
    control.start()
    try:
        yield engine
    finally:
        control.shutdown()
        engine.shutdown(60)


def rounds(root: Path, begin: int) -> None:
    """An hour as `learn` lives it, a process for each round; after a first one over everything.

    On a copy: what the jobs say is stored.
    """
    copy = Path(tempfile.mkdtemp(prefix="rounds-")) / "home"
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns("learn"))
    cpus, walls, peak = [], [], 0
    with collecting(Home(copy)) as engine:
        for at in range(14):
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", _ROUND, str(copy), str(begin + at * 5 * _MINUTE)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            wall = time.perf_counter() - began
            engine.wait_committed(engine.end, 60)
            cpu, most, names = json.loads(done.stdout)
            print(f"  round {at:2}: {cpu:5.2f} CPU-s, {wall:5.2f} s, {', '.join(names)}")
            if at > 1:  # the first looks at everything, and the second learns what a round costs
                cpus.append(cpu)
                walls.append(wall)
                peak = max(peak, most)
    shutil.rmtree(copy.parent)
    print(f"an hour of rounds, each with its start: median {median(cpus):.2f} CPU-s and "
          f"{median(walls):.2f} s, most {max(cpus):.2f} and {max(walls):.2f}, "
          f"peak {peak:,} MB")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=2_000_000)
    parser.add_argument("--home", type=Path, help="a home that was filled before, or where to fill")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    root = options.home or Path(tempfile.mkdtemp(prefix="passes-")) / "home"
    home = Home(root)
    if not home.catalog.exists():
        fill(home, options.spans)
        with collecting(home):
            ask(home, "compact", timeout_s=3_600)
    end = EPOCH_NS + 2 * DAY
    try:
        for what, since, until in (
            ("everything", 0, end),
            ("five minutes", end - 25 * _MINUTE, end - 20 * _MINUTE),
            ("five minutes in which an hour and a day end", end - 5 * _MINUTE, end),
        ):
            done = subprocess.run(
                [sys.executable, "-c", _RUN, str(root), str(until), str(since)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            runs = json.loads(done.stdout)
            cpu, seconds = (sum(run[at] for run in runs) for at in (1, 2))
            peak = max(run[3] for run in runs)
            print(f"{what}: {cpu:.1f} CPU-s, {seconds:.1f} s, peak {peak:,} MB")
            for job, cpu, seconds, peak, insights, error in runs:
                print(f"  {job:14} {cpu:7.2f} CPU-s {seconds:7.2f} s {peak:6,} MB "
                      f"{insights:5} insights {error}")  # fmt: skip
        rounds(root, end - 65 * _MINUTE)
    finally:
        if not options.keep:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
