"""A real `engram collect` and real programs under `engram run`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_read_only

BIN = Path(sys.executable).parent
LONG_S = 45.0
_T = TypeVar("_T")


def free_port() -> int:
    """A port that was free just now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def eventually(read: Callable[[], _T], *, seconds: float = LONG_S) -> _T:
    """What `read` gives once it is true; its last answer when it never is."""
    end = time.monotonic() + seconds
    while True:
        found = read()
        if found or time.monotonic() > end:
            return found
        time.sleep(0.1)


@dataclass
class Collector:
    """A collector in a process of its own."""

    home: Home
    url: str

    def memories(self, service: str, *types: str) -> list[dict[str, Any]]:
        """The memories of a service, as they are now."""
        try:
            with contextlib.closing(attach_read_only(self.home)) as db:
                found = db.execute(
                    "SELECT * FROM memories WHERE service_name = ? ORDER BY time_unix_nano",
                    [service],
                )
                names = [column[0] for column in found.description]
                rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        except Exception:  # the lake is being made
            return []
        return [row for row in rows if not types or row["type"] in types]

    def wait(self, service: str, type_: str, text: str = "") -> list[dict[str, Any]]:
        """The memories of a type whose title or content has the text, once there is one."""

        def read() -> list[dict[str, Any]]:
            return [
                row
                for row in self.memories(service, type_)
                if text in row["title"] or text in (row["content"] or "")
            ]

        found = eventually(read)
        assert found, [(row["type"], row["title"]) for row in self.memories(service)]
        return found


@contextlib.contextmanager
def collecting(root: Path) -> Iterator[Collector]:
    """`engram collect` of a home below the folder, on a free port."""
    root.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = root / "config.yaml"
    config.write_text(
        f"""
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}
exporters:
  memory: {{}}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [memory]}}
    logs: {{receivers: [otlp], exporters: [memory]}}
    metrics: {{receivers: [otlp], exporters: [memory]}}
"""
    )
    log = (root / "collect.log").open("w")
    process = subprocess.Popen(
        [BIN / "engram", "--home", root / "home", "--config", config, "collect"],
        stdout=log,
        stderr=log,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        assert eventually(lambda: answers(f"{url}/v1/traces")), (root / "collect.log").read_text()
        yield Collector(Home(root / "home"), url)
    finally:
        stop(process)
        log.close()


def answers(url: str) -> bool:
    """Whether anybody speaks HTTP there."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except OSError:
        return False
    return True


@dataclass
class Program:
    """A program under `engram run`."""

    process: subprocess.Popen[str]
    log: Path
    url: str = ""

    def get(self, path: str, **headers: str) -> int:
        """The status of a GET."""
        return self.send(urllib.request.Request(self.url + path, headers=headers))

    def post(self, path: str, body: Any, **headers: str) -> int:
        """The status of a POST of JSON."""
        return self.send(
            urllib.request.Request(
                self.url + path,
                data=json.dumps(body).encode(),
                headers={"content-type": "application/json", **headers},
            )
        )

    def send(self, request: urllib.request.Request) -> int:
        """The status of a request."""
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                status: int = response.status
                return status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code


@contextlib.contextmanager
def running(
    folder: Path,
    command: Sequence[str | Path],
    *,
    endpoint: str,
    service: str = "",
    port: int = 0,
    python_path: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Program]:
    """A program with everything captured; waits until it answers when it has a port."""
    log = folder / f"{service or 'program'}.log"
    own = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "ENGRAM_"))}
    own |= environment or {}
    if python_path:
        own["PYTHONPATH"] = os.pathsep.join(map(str, python_path))
    options = ["--endpoint", endpoint, *(["--service", service] if service else [])]
    with log.open("w") as output:
        process = subprocess.Popen(
            [BIN / "engram", "run", *options, "--", *command],
            cwd=folder,
            env=own,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        program = Program(process, log, f"http://127.0.0.1:{port}" if port else "")
        try:
            if port:
                up = eventually(lambda: answers(f"{program.url}/") or process.poll() is not None)
                assert up, log.read_text()
                assert process.poll() is None, log.read_text()
            yield program
        finally:
            stop(process)


def stop(process: subprocess.Popen[Any]) -> None:
    """End a process, and what it started when it has a session of its own."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(20)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if process.pid != os.getpgrp():
            os.killpg(process.pid, signal.SIGKILL)


__all__ = [
    "BIN", "Collector", "Program", "answers", "collecting", "eventually", "free_port",
    "running", "stop",
]  # fmt: skip
