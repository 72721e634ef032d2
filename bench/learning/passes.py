"""What do all jobs cost: a first pass over everything, and five minutes?

    python bench/learning/passes.py [--spans 2000000] [--home DIR] [--keep]

Fills a home with two days of telemetry (`report.py`), and then runs all jobs as `learn` does, in a
process of their own: over everything, over five minutes, and over those in which an hour and a day
end, when most is looked at. CPU seconds and peak memory are those that the ledger has of each job. What the first pass says is thrown away, so
nobody collects.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from report import DAY, EPOCH_NS, fill  # type: ignore[import-not-found, unused-ignore]

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
    finally:
        if not options.keep:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
