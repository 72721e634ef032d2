"""Kills a collector under load, again and again, and counts what is there in the end."""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.durability import load
from tests.durability.verify import Record, catalogue_problems, stored
from tests.durability.workload import QUIET

from engram.exporters.engine import Engine
from engram.exporters.home import Home

_REPOSITORY = Path(__file__).parents[2]


def free_port() -> int:
    """A port nobody has."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def start(home: Home, port: int, *settings: str) -> subprocess.Popen[str]:
    """A collector, not yet ready."""
    script = _REPOSITORY / "tests/durability/collect.py"
    return subprocess.Popen(
        [sys.executable, str(script), str(home.root), str(port), *settings],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=_REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(_REPOSITORY)},
    )  # fmt: skip


def ready(process: subprocess.Popen[str]) -> bool:
    """Wait until it takes requests; False when it ended first."""
    assert process.stdout is not None
    return process.stdout.readline() == "ready\n"


class Sender(threading.Thread):
    """Sends named records without end; what was not acknowledged is sent again until it is."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._prefix = name
        self._halt = threading.Event()
        self._connection: http.client.HTTPConnection | None = None
        self.acked: set[Record] = set()
        self.resent = 0

    def run(self) -> None:
        """Until `finish`; the request under way is still sent until it is acknowledged."""
        number = 0
        while not self._halt.is_set():
            number += 1
            name = f"{self._prefix}-{number}"
            kind = ("spans", "spans", "logs", "metrics")[number % 4]
            names = [f"{name}.{i}" for i in range(5)]
            body = {"spans": load.spans, "logs": load.logs, "metrics": load.metrics}[kind](*names)
            path = f"/v1/{'traces' if kind == 'spans' else kind}"
            while not self._post(path, body):
                self.resent += 1
                time.sleep(0.02)
            self.acked.update((kind, one) for one in names)

    def finish(self) -> None:
        """Stop after the request under way."""
        self._halt.set()
        self.join(60)
        if self._connection is not None:
            self._connection.close()

    def _post(self, path: str, body: bytes) -> bool:
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            headers = {"content-type": "application/x-protobuf"}
            self._connection.request("POST", path, body, headers)
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            self._connection = None
            return False
        return answer.status == 200


@dataclass(slots=True)
class Figures:
    """What came of it."""

    kills: Counter[str] = field(default_factory=Counter)
    """By the moment: while starting, while running, after SIGTERM."""

    acked: int = 0
    resent: int = 0
    stored: int = 0
    lost: int = 0
    doubled: int = 0
    quarantined: int = 0
    catalogue: list[str] = field(default_factory=list)


def run(home: Home, kills: int, *, seed: int = 1, senders: int = 2) -> Figures:
    """Kill this often, at random moments: starting, committing, compacting, stopping."""
    chance = random.Random(seed)
    port = free_port()
    figures = Figures()
    sending = [Sender(port, f"s{n}") for n in range(senders)]
    for sender in sending:
        sender.start()
    settings = ("commit_interval_s=0.05", "compact_interval_s=0.3", "query_grace_s=0.5")
    for _ in range(kills):
        process = start(home, port, *settings)
        moment = chance.choices(("starting", "running", "stopping"), (2, 7, 1))[0]
        if moment == "starting":
            time.sleep(chance.uniform(0.2, 1.5))
        elif ready(process):
            time.sleep(chance.uniform(0.1, 2.5))
            if moment == "stopping":
                process.terminate()
                time.sleep(chance.uniform(0.0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        figures.kills[moment] += 1
    process = start(home, port, *settings)
    assert ready(process)
    for sender in sending:
        sender.finish()
    process.terminate()
    process.communicate(timeout=20)
    engine = Engine(home, QUIET)
    engine.start()
    engine.wait_committed(engine.end, 120)
    engine.shutdown(30)
    found = stored(home)
    acked = set().union(*(sender.acked for sender in sending))
    figures.acked, figures.stored = len(acked), found.records.total()
    figures.resent = sum(sender.resent for sender in sending)
    figures.lost = sum(1 for key in acked if not found.records[key])
    figures.doubled = sum(n - 1 for n in found.records.values()) + len(found.doubled)
    figures.quarantined = sum(1 for _ in home.quarantine.iterdir())
    figures.catalogue = catalogue_problems(home)
    return figures
