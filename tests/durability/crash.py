"""Kills a collector under load, again and again, and counts what is there in the end."""

from __future__ import annotations

import contextlib
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

import psutil
from tests.durability import load
from tests.durability.verify import Record, catalogue_problems, stored
from tests.durability.workload import QUIET

from engram.collector.config import DEFAULT_FILE
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


class Roles:
    """`engram up` with all its roles, any of which can be killed."""

    def __init__(self, home: Home, folder: Path) -> None:
        self.port, self._home = free_port(), home
        self._config = folder / "crash-config.yaml"
        _configure(self._config, self.port, free_port(), free_port())
        self._up: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the supervisor, again after it was killed: its old children may be ending still."""
        command = [sys.executable, "-m", "engram.collector.cli", "--home", str(self._home.root)]
        command += ["--config", str(self._config), "up"]
        for _ in range(50):
            self._up = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=_REPOSITORY
            )
            time.sleep(0.5)
            if self._up.poll() is None:
                return
        raise AssertionError("engram up does not start any more")

    def kill(self, role: str) -> bool:
        """SIGKILL to a role; False when it is not there just now."""
        assert self._up is not None
        if self._up.poll() is not None:  # its collect met the lock of the one before
            self.start()
        if role == "up":
            self._up.kill()
            self._up.wait()
            self.start()
            return True
        for child in psutil.Process(self._up.pid).children():
            with contextlib.suppress(psutil.Error):
                if role in child.cmdline():
                    child.kill()
                    return True
        return False

    def stop(self) -> None:
        """In order."""
        assert self._up is not None
        self._up.terminate()
        self._up.wait(20)


def _configure(path: Path, http: int, grpc: int, api: int) -> None:
    """The default configuration on these ports, with short intervals."""
    text = DEFAULT_FILE.read_text(encoding="utf-8")
    for given, mine in (
        (":4317", f":{grpc}"), (":4318", f":{http}"), (":4319", f":{api}"),
        ("timeout: 1s", "timeout: 50ms"), ("compact_interval: 1m", "compact_interval: 1s"),
    ):  # fmt: skip
        assert given in text
        text = text.replace(given, mine)
    path.write_text(text, encoding="utf-8")


def run_roles(home: Home, folder: Path, kills: int, *, seed: int = 1, senders: int = 2) -> Figures:
    """Kill a random role of `engram up` this often, under load."""
    chance = random.Random(seed)
    figures = Figures()
    roles = Roles(home, folder)
    roles.start()
    sending = [Sender(roles.port, f"s{n}") for n in range(senders)]
    for sender in sending:
        sender.start()
    while figures.kills.total() < kills:
        time.sleep(chance.uniform(0.1, 2.5))
        role = chance.choices(("collect", "learn", "serve", "up"), (4, 3, 1, 2))[0]
        if roles.kill(role):
            figures.kills[role] += 1
    for sender in sending:
        sender.finish()
    roles.stop()
    return _count(home, sending, figures)


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
    return _count(home, sending, figures)


def _count(home: Home, sending: list[Sender], figures: Figures) -> Figures:
    """What is in the lake in the end."""
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
