"""What does the report of a busy day cost, and the jobs behind it?

    python bench/learning/report.py [--spans 1000000] [--home DIR] [--keep]

Spreads so many spans of `bench/telemetry.py` over two days (an eighth of them requests, an eighth
calls of models), stores them as `engram collect` does, and then takes the CPU seconds and the peak
memory of a process of its own for the report, and for each of the jobs decisions, journeys, agents
and report: over everything, at the end of a day, and for five minutes in the middle of one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.home import Home
from engram.exporters.signals import Encoding, Signal

sys.path.insert(0, str(Path(__file__).parents[1]))
from telemetry import EPOCH_NS, Telemetry  # type: ignore[import-not-found, unused-ignore]

_HOUR: Final = 3600 * 10**9
DAY: Final = 24 * _HOUR
_BATCH: Final = 512
_IN_FLIGHT: Final = 64

_REPORT = """
import sys, time
from pathlib import Path
from engram.collector.report import facts, report
from engram.exporters.home import Home
from engram.learning.report import html, markdown
told = report(Home(Path(sys.argv[1])), sys.argv[2])
pages = len(markdown(told)), len(html(told))
"""
_JOB = """
import sys
from pathlib import Path
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_read_only
from engram.learning.jobs import JOBS, Window
job = next(one for one in JOBS if one.name == sys.argv[2])
lake = attach_read_only(Home(Path(sys.argv[1])), threads=1, memory_limit="512MB")
read = lambda sql, values=(): lake.execute(sql, list(values)).pl()
found = list(job.run(read, Window(int(sys.argv[3]), int(sys.argv[4]))))
pages = len(found), sum(len(one.content) for one in found)
"""
_TOLD = """
import json, resource, sys
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"cpu_s": round(used.ru_utime + used.ru_stime, 2),
    "peak_mb": used.ru_maxrss // 1024, "made": pages}))
"""


def fill(home: Home, spans: int) -> None:
    """Two days of telemetry."""
    telemetry = Telemetry(1)
    count = -(-spans // _BATCH)
    engine = Engine(home, EngineSettings())
    engine.start()
    waiting = []
    for at in range(count):
        made = telemetry.traces(_BATCH)
        shift = at * (2 * DAY // count - 10**9)  # request k is k seconds after the first already
        for resource in made.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    span.start_time_unix_nano += shift
                    span.end_time_unix_nano += shift
                    for event in span.events:
                        event.time_unix_nano += shift
        body = made.SerializeToString()
        waiting.append(engine.admit(Signal.TRACES, body, Encoding.IDENTITY))
        if len(waiting) > _IN_FLIGHT:
            waiting.pop(0).result(120)
    for one in waiting:
        one.result(120)
    engine.wait_committed(engine.end, 600)
    engine.shutdown(60)


def measured(code: str, *arguments: str) -> dict[str, object]:
    """CPU seconds and peak memory of a process that does only this."""
    done = subprocess.run(
        [sys.executable, "-c", code + _TOLD, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--home", type=Path, help="a home that was filled before, or where to fill")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    root = options.home or Path(tempfile.mkdtemp(prefix="report-")) / "home"
    home = Home(root)
    if not home.catalog.exists():
        fill(home, options.spans)
    end = EPOCH_NS + 2 * DAY
    try:
        print("report       ", measured(_REPORT, str(root), "2026-01-02"))
        for job in ("decisions", "journeys", "agents", "report"):
            for what, since, until in (
                ("all", 0, end + 3 * _HOUR),
                ("end of a day", end, end + 3 * _HOUR),
                ("5 minutes", end - 12 * _HOUR - _HOUR // 12, end - 12 * _HOUR),
            ):
                told = measured(_JOB, str(root), job, str(since), str(until))
                print(f"{job:13} {what:12}", told)
    finally:
        if not options.keep:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
