"""What thousands of small commits do to a lake: files, catalogue, commit time, query time.

    python bench/commits.py [--commits 5000] [--rows 20]

A quiet day is many commits of few spans each. Nothing here may grow with the number of commits for
ever: a commit must not get slower (the slope), and compaction must bring files, catalogue and query
time back.
Maintenance runs as in `collect`, one whole round every `--every` commits; `--every 0` never.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from engram.exporters.home import Home
from engram.exporters.lake import attach_read_only
from engram.exporters.lake.writer import Batch, LakeWriter
from engram.exporters.otlp.decode import Decoder
from engram.exporters.otlp.values import NoRedaction
from engram.exporters.rules import Rules
from engram.exporters.signals import Signal

sys.path.insert(0, str(Path(__file__).parent))
from telemetry import Telemetry  # type: ignore[import-not-found, unused-ignore]


def _files(folder: Path) -> int:
    return sum(1 for path in folder.rglob("*.parquet"))


def _query_ms(home: Home) -> float:
    """The median of five counts by a reader that is attached already."""
    with attach_read_only(home) as connection:
        times = []
        for _ in range(6):
            started = time.perf_counter()
            connection.execute("SELECT count(*), max(end_time_unix_nano) FROM spans").fetchone()
            times.append(time.perf_counter() - started)
    return statistics.median(times[1:]) * 1e3


def _row(label: str, home: Home, times: list[float]) -> None:
    catalogue = sum(p.stat().st_size for p in home.lake.glob("catalog.sqlite*"))
    took = np.array(times or [float("nan")]) * 1e3
    print(
        f"| {label} | {_files(home.data)} | {catalogue / 1e6:.2f} | {np.median(took):.1f} | "
        f"{np.percentile(took, 99):.1f} | {_query_ms(home):.1f} |",
        flush=True,
    )


def _maintain(lake: LakeWriter, grace_s: float) -> float:
    started = time.perf_counter()
    for _ in lake.maintenance(grace_s=grace_s):
        pass
    return time.perf_counter() - started


def run(home: Home, commits: int, rows: int, every: int) -> None:
    home.create()
    lake = LakeWriter(home, "bench")
    lake.open()
    rules = Rules.load()
    decoder = Decoder(NoRedaction(), rules.wanted, rules.resource_wanted)
    telemetry = Telemetry()
    print("| commits | files | catalogue MB | commit p50 ms | p99 ms | count query ms |")
    print("|---:|---:|---:|---:|---:|---:|")
    times: list[float] = []
    rounds: list[float] = []
    window = max(1, commits // 10)
    stored = 0
    for number in range(1, commits + 1):
        decoder.add(Signal.TRACES, telemetry.traces(rows).SerializeToString())
        records = decoder.finish()
        stored += len(records)
        memories = rules.apply(records.span_frame, "span")
        batch = Batch(number, records.spans, records.logs, records.metrics, memories)
        started = time.perf_counter()
        lake.commit(batch)
        times.append(time.perf_counter() - started)
        if every and number % every == 0:
            rounds.append(_maintain(lake, 0.0))
        if number % window == 0:
            _row(str(number), home, times[-window:])
    rounds.append(_maintain(lake, 0.0))
    _row("compacted", home, [])
    after = []
    for number in range(commits + 1, commits + 51):
        decoder.add(Signal.TRACES, telemetry.traces(rows).SerializeToString())
        records = decoder.finish()
        stored += len(records)
        empty = rules.apply(pl.DataFrame(), "span")
        started = time.perf_counter()
        lake.commit(Batch(number, records.spans, records.logs, records.metrics, empty))
        after.append(time.perf_counter() - started)
    _row("and 50 more", home, after)
    with attach_read_only(home) as connection:
        row = connection.execute("SELECT count(*) FROM spans").fetchone()
    if not row or row[0] != stored:
        raise SystemExit(f"{row} spans in the lake, {stored} committed")
    lake.close()
    slope = np.polyfit(np.arange(len(times)), np.array(times) * 1e3, 1)[0]
    print(f"\nslope {slope * 1000:+.2f} ms per 1,000 commits; ", end="")
    print(f"{len(rounds)} rounds of maintenance, {sum(rounds):.1f} s, longest {max(rounds):.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commits", type=int, default=5000)
    parser.add_argument("--rows", type=int, default=24, help="spans a commit (whole traces of 8)")
    parser.add_argument("--every", type=int, default=60, help="a round of maintenance this often")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="commits-"))
    try:
        run(Home(root), options.commits, options.rows, options.every)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
