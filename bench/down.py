"""An app whose collector is down: does it notice?

    python bench/down.py [--minutes 10] [--rate 20]

A FastAPI app under `engram run` that sends to a port where nobody listens, asked at a steady rate.
Prints the times of its answers and its resident memory by the minute; every answer has to be 200.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

BIN = Path(sys.executable).parent
APP = """
import logging
from fastapi import FastAPI
app = FastAPI()
@app.post("/orders/{n}")
def order(n: int, body: dict) -> dict:
    logging.getLogger("shop").info("order %d", n)
    return {"n": n}
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def resident(pid: int) -> float:
    """MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=float, default=20, help="requests a second")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "app.py").write_text(APP)
        port, nobody = free_port(), free_port()
        command = [BIN / "engram", "run", "--endpoint", f"http://127.0.0.1:{nobody}", "--"]
        command += [BIN / "uvicorn", "--port", str(port), "--log-level", "warning", "app:app"]
        log = (Path(folder) / "log").open("w")
        app = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}/orders/"
        time.sleep(5)
        begun, sent = time.monotonic(), 0
        try:
            print("| minute | answers | p50 / p99 / max ms | resident MB |\n|---:|---:|---|---:|")
            for minute in range(1, round(options.minutes) + 1):
                times = []
                while (now := time.monotonic()) < begun + minute * 60:
                    ask = urllib.request.Request(
                        f"{url}{sent}", b'{"a": 1}', {"content-type": "application/json"}
                    )
                    with urllib.request.urlopen(ask, timeout=30) as answer:
                        answer.read()
                    times.append((time.monotonic() - now) * 1000)
                    sent += 1
                    time.sleep(max(0.0, begun + sent / options.rate - time.monotonic()))
                parts = statistics.quantiles(times, n=100)
                print(
                    f"| {minute} | {len(times)} | {parts[49]:.1f} / {parts[98]:.1f} / "
                    f"{max(times):.0f} | {resident(app.pid):.0f} |", flush=True,
                )  # fmt: skip
        finally:
            ending = time.monotonic()
            app.terminate()
            app.wait(60)
            print(f"stopped in {time.monotonic() - ending:.1f} s; it said:")
            print((Path(folder) / "log").read_text()[:600])


if __name__ == "__main__":
    main()
