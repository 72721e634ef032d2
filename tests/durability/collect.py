"""An engine behind the HTTP receiver, to be killed: `collect.py HOME PORT [SETTING=N ...]`."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from engram.collector.receivers import OtlpHttpConfig, OtlpHttpReceiver
from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.home import Home


def main(home: str, port: str, *settings: str) -> None:
    """Collect until SIGTERM."""
    numbers = {name: float(value) for name, value in (one.split("=") for one in settings)}
    if "commit_rows" in numbers:
        numbers["commit_rows"] = int(numbers["commit_rows"])
    engine = Engine(Home(Path(home)), EngineSettings(**numbers))  # type: ignore[arg-type]
    receiver = OtlpHttpReceiver(OtlpHttpConfig(endpoint=f"127.0.0.1:{port}"), engine)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    engine.start()
    receiver.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    stop.wait()
    receiver.shutdown()
    engine.shutdown(3.0)


if __name__ == "__main__":
    main(*sys.argv[1:])
