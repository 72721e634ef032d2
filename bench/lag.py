"""How old is what can be asked? SQL and search lag at a steady rate, everything running.

    python bench/lag.py [--rate 2000] [--seconds 30]

Starts `engram up` in a fresh home on free ports, sends spans of `bench/telemetry.py` at the rate,
and, one after the other, logs that are marked as decisions and hold a word of their own. Asks by
SQL until the memory is there, then by search until the word is found.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from engram.collector.config import DEFAULT_FILE
from engram.exporters.home import Home
from engram.exporters.lake import attach_read_only

sys.path.insert(0, str(Path(__file__).parent))
from telemetry import requests  # type: ignore[import-not-found, unused-ignore]

_PORTS = {4317: 24317, 4318: 24318, 4319: 24319}


def marked(word: str) -> bytes:
    """One log that is a memory with a word of its own."""
    request = ExportLogsServiceRequest()
    logs = request.resource_logs.add()
    record = logs.scope_logs.add().log_records.add(
        time_unix_nano=time.time_ns(), event_name="engram.business_decision"
    )
    record.body.string_value = f"The answer of this second is {word}"
    return request.SerializeToString()


def post(signal: str, body: bytes) -> None:
    url = f"http://127.0.0.1:{_PORTS[4318]}/v1/{signal}"
    headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as answer:
        answer.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=int, default=2000)
    parser.add_argument("--seconds", type=int, default=30)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        text = DEFAULT_FILE.read_text()
        for port, free in _PORTS.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free}")
        config.write_text(text)
        home = Home(Path(folder, "home"))
        command = [sys.executable, "-m", "engram.collector.cli", "--home", str(home.root)]
        command += ["--config", str(config), "--json", "up"]
        with Path(folder, "log").open("w") as log:
            up = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert up.stdout is not None
            up.stdout.readline()
            measure(home, given.rate, given.seconds)
        finally:
            up.terminate()
            up.wait(20)


def measure(home: Home, rate: int, seconds: int) -> None:
    per_request = 500
    count = rate * seconds // per_request
    bodies = [gzip.compress(b, 1) for b in requests(count * per_request, batch=per_request)]
    stop = threading.Event()

    def send() -> None:
        started = time.monotonic()
        for i, body in enumerate(bodies):
            time.sleep(max(0.0, started + i * per_request / rate - time.monotonic()))
            post("traces", body)
        stop.set()

    threading.Thread(target=send, daemon=True).start()
    time.sleep(3)
    sql: list[float] = []
    search: list[float] = []

    def watch(word: str, sent: float) -> None:
        with attach_read_only(home, threads=1) as lake:
            query = (
                "SELECT count(*) FROM memories WHERE type = 'business_decision' AND content LIKE ?"
            )
            while lake.execute(query, [f"%{word}%"]).fetchone() == (0,):
                time.sleep(0.1)
        sql.append(time.monotonic() - sent)
        url = f"http://127.0.0.1:{_PORTS[4319]}/api/search?limit=1&q=" + urllib.parse.quote(word)
        while word not in urllib.request.urlopen(url, timeout=30).read().decode():
            time.sleep(0.2)
        search.append(time.monotonic() - sent)

    n = 0
    while not stop.is_set():
        word = f"quokka{n:04d}x"
        post("logs", gzip.compress(marked(word)))
        watch(word, time.monotonic())
        n += 1
    print(json.dumps({"spans/s": rate, "asked": n}))
    for name, lags in (("SQL", sql), ("search", search)):
        lags.sort()
        p50, p95 = statistics.median(lags), lags[int(len(lags) * 0.95)]
        print(f"{name:7s} lag p50 {p50:.2f} s  p95 {p95:.2f} s  max {lags[-1]:.2f} s")


if __name__ == "__main__":
    main()
