"""What does enrichment cost? CPU of learn and of collect, and bytes, at a steady rate.

    python bench/enrich.py [--rate 1000] [--seconds 90]

Runs twice, without and with the enricher: `engram collect` in a fresh home takes spans of
`bench/telemetry.py` at the rate, stamped with the present. Of 1,000 of them 250 to 270 memories are
kept by themselves and know no user, which is many. Then it compacts and counts bytes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from engram.collector.config import DEFAULT_FILE
from engram.exporters.ask import ask
from engram.exporters.home import Home
from engram.exporters.lake import attach_read_only

sys.path.insert(0, str(Path(__file__).parent))
from telemetry import requests  # type: ignore[import-not-found, unused-ignore]

_LEARN = """
import sys, threading
from engram.exporters.home import Home
from engram.learning.enrich import Enricher
Enricher(Home.find(sys.argv[1])).run(threading.Event())
"""
_PORTS = {4317: 24417, 4318: 24418}
_PER_REQUEST = 500


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def present(body: bytes, now: int) -> bytes:
    """The request with its times moved to now."""
    made = ExportTraceServiceRequest.FromString(body)
    spans = [s for r in made.resource_spans for scope in r.scope_spans for s in scope.spans]
    shift = now - min(span.start_time_unix_nano for span in spans)
    for span in spans:
        span.start_time_unix_nano += shift
        span.end_time_unix_nano += shift
        for event in span.events:
            event.time_unix_nano += shift
    return gzip.compress(made.SerializeToString(), 1)


def run(rate: int, seconds: int, *, enrich: bool) -> dict[str, float]:
    count = rate * seconds // _PER_REQUEST
    begin = time.time_ns()
    bodies = [
        present(body, begin + i * _PER_REQUEST * 10**9 // rate)
        for i, body in enumerate(requests(count * _PER_REQUEST, batch=_PER_REQUEST))
    ]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        text = DEFAULT_FILE.read_text()
        for port, free in _PORTS.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free}")
        config.write_text(text)
        home = Home(Path(folder, "home"))
        command = [sys.executable, "-m", "engram.collector.cli", "--home", str(home.root)]
        command += ["--config", str(config), "collect"]
        running = [subprocess.Popen(command, stderr=subprocess.DEVNULL)]
        if enrich:
            running.append(subprocess.Popen([sys.executable, "-c", _LEARN, str(home.root)]))
        try:
            return measure(home, bodies, rate, [psutil.Process(one.pid) for one in running])
        finally:
            for one in running:
                one.terminate()
                one.wait(20)


def measure(
    home: Home, bodies: list[bytes], rate: int, running: list[psutil.Process]
) -> dict[str, float]:
    url = f"http://127.0.0.1:{_PORTS[4318]}/v1/traces"
    headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
    time.sleep(6)  # all is imported, and the lake is there
    before = [cpu(one) for one in running]
    started = time.monotonic()
    for i, body in enumerate(bodies):
        time.sleep(max(0.0, started + i * _PER_REQUEST / rate - time.monotonic()))
        with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
            answer.read()
    time.sleep(22)  # two near passes
    used = [cpu(one) - was for one, was in zip(running, before, strict=True)]
    hundred = len(bodies) * _PER_REQUEST / 100_000
    figures = {"collect, CPU-s per 100k spans": used[0] / hundred}
    if len(used) > 1:
        figures["learn, CPU-s per 100k spans"] = used[1] / hundred
        time.sleep(20)
        idle = cpu(running[1])
        time.sleep(60)
        figures["learn, CPU-s per hour, idle"] = (cpu(running[1]) - idle) * 60
        figures["learn, resident MB"] = running[1].memory_info().rss / 1e6
    ask(home, "compact", timeout_s=300, grace_s=0.0)
    ask(home, "compact", timeout_s=300, grace_s=0.0)
    with attach_read_only(home) as lake:
        (events,) = lake.execute("SELECT count(*) FROM logs").fetchone() or (0,)
        known = lake.execute(
            "SELECT count(*), count(user_id) FROM memories WHERE index_as = 'memory'"
        ).fetchone() or (0, 0)
    figures["events"], figures["memories kept by themselves"], figures["with a user"] = (
        events, *known,
    )  # fmt: skip
    for name in ("spans", "memories", "logs"):
        size = sum(one.stat().st_size for one in (home.data / "main" / name).glob("*.parquet"))
        figures[f"bytes a span, {name}"] = size / hundred / 100_000
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=90)
    given = parser.parse_args()
    for enrich in (False, True):
        figures = run(given.rate, given.seconds, enrich=enrich)
        rounded = {name: round(value, 2) for name, value in figures.items()}
        print(json.dumps({"enriched": enrich, **rounded}, indent=1), flush=True)


if __name__ == "__main__":
    main()
