"""What rebuilding memories costs, and what it does to an ingest that goes on.

    python bench/rederive.py [--spans 100000] [--rate 2000]

A home is filled under the built-in rules, then rebuilt three times: with the same rules (all is
compared, nothing stored), with one rule more (each memory gets its version), and with titles of two
types changed; the last one while spans keep coming, each request timed until it is acknowledged.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.home import Home
from engram.exporters.rederive import rederive
from engram.exporters.rules import Rules
from engram.exporters.signals import Encoding, Signal

sys.path.insert(0, str(Path(__file__).parent))
from telemetry import requests  # type: ignore[import-not-found, unused-ignore]

MORE: list[dict[str, Any]] = [
    {"name": "nothing", "type": "nothing", "signal": "span", "title": ["x"],
     "when": {"value": "name", "is": "no span has this name"}},
]  # fmt: skip
OTHER: list[dict[str, Any]] = [
    {"name": name, "type": name, "signal": "span", "when": {"value": "kind", "is": 2},
     "title": [f"{name}: {{operation}}"], "scope": ["trace_id"], "key": ["span_id"],
     "index_as": "template"}
    for name in ("request_intent", "request_outcome")
]  # fmt: skip


class Sender(threading.Thread):
    """Sends requests of 64 spans at a rate; how long each acknowledgement took (s)."""

    def __init__(self, engine: Engine, bodies: list[bytes], rate: float) -> None:
        super().__init__(daemon=True)
        self._engine, self._bodies, self._pause = engine, bodies, 64 / rate
        self.stop = threading.Event()
        self.took: list[float] = []

    def run(self) -> None:
        """Until stopped, or nothing is left."""
        for body in self._bodies:
            if self.stop.wait(self._pause):
                return
            started = time.perf_counter()
            self._engine.admit(Signal.TRACES, body, Encoding.IDENTITY).result(60)
            self.took.append(time.perf_counter() - started)


def _rebuild(home: Home, label: str, own: list[dict[str, Any]], sender_rate: float = 0.0) -> None:
    engine = Engine(home, EngineSettings(rules=own))
    engine.start()
    engine.wait_ready(60)
    rules = Rules.load(own)
    sender = None
    if sender_rate:
        bodies = [bytes(body) for body in requests(60_000, batch=64, seed=7)]
        sender = Sender(engine, bodies, sender_rate)
        sender.start()
    slices: list[float] = []

    def apply(changes: Any) -> list[str]:
        started = time.perf_counter()
        stale = engine.replace(changes, rules.version)
        slices.append(time.perf_counter() - started)
        return stale

    started, cpu = time.perf_counter(), time.process_time()
    outcome = rederive(home, rules, apply)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    acks = ""
    if sender is not None:
        sender.stop.set()
        sender.join()
        took = sorted(sender.took)
        p99 = took[int(len(took) * 0.99)] * 1e3
        acks = f"{statistics.median(took) * 1e3:.1f} / {p99:.1f} of {len(took)}"
    engine.shutdown(20)
    stored = len(slices)
    print(
        f"| {label} | {outcome.records} | {outcome.count('changed')} | "
        f"{outcome.count('restamped')} | {wall:.1f} | {cpu / max(1, outcome.records) * 1e6:.0f} | "
        f"{stored} | {statistics.median(slices) * 1e3 if slices else 0:.0f} / "
        f"{max(slices, default=0) * 1e3:.0f} | {acks} |",
        flush=True,
    )


def main() -> None:
    """Fill and rebuild."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--spans", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        engine = Engine(home)
        engine.start()
        for body in requests(options.spans):
            engine.admit(Signal.TRACES, body, Encoding.IDENTITY).result(60)
        engine.wait_committed(engine.end, 600)
        engine.shutdown(20)
        print(
            "| rules | records | changed | new version only | wall s | CPU us a record | slices | "
            "a slice ms, median / max | ack ms p50 / p99 meanwhile |\n|---|" + "---:|" * 8
        )
        _rebuild(home, "the same", [])
        _rebuild(home, "one more", MORE)
        _rebuild(home, "two others, while spans come", OTHER, options.rate)
        print(f"peak RSS {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MB")


if __name__ == "__main__":
    main()
