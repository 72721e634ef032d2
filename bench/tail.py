"""What `engram tail` costs while nothing comes in.

    python bench/tail.py [--seconds 30]

Measured 2026-11, 2 shared cores: 0.03 % of a core, 103 MB resident.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from engram.exporters.engine import Engine
from engram.exporters.home import Home


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=30.0)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(Home(Path(folder)))
        engine.start()
        time.sleep(3)  # the lake is made
        command = [sys.executable, "-m", "engram.collector.cli", "--home", folder, "tail"]
        tail = psutil.Popen(command, stdout=subprocess.DEVNULL)
        try:
            time.sleep(5)  # it has begun
            before, begun = tail.cpu_times(), time.monotonic()
            time.sleep(seconds)
            after, passed = tail.cpu_times(), time.monotonic() - begun
            used = after.user + after.system - before.user - before.system
            print(f"{100 * used / passed:.2f} % of a core, {tail.memory_info().rss / 1e6:.0f} MB")
        finally:
            tail.terminate()
            tail.wait()
            engine.shutdown()


if __name__ == "__main__":
    main()
