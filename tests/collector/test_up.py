"""`engram up` with real processes: everything comes up, comes back, and goes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from engram.collector.config import DEFAULT_FILE

READY_S = 60.0


@dataclass
class Up:
    """A running `engram up`."""

    process: subprocess.Popen[str]
    home: Path
    config: Path
    log: Path
    facts: dict[str, Any]

    @property
    def endpoints(self) -> dict[str, str]:
        """URLs by name."""
        found: dict[str, str] = self.facts["endpoints"]
        return found

    def child(self, name: str) -> psutil.Process | None:
        """The live process of a role, found by its command line."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    if name in one.cmdline():
                        return one
        return None

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command on the same home."""
        return engram("--home", str(self.home), "--json", *arguments)


def engram(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a process."""
    return subprocess.run(
        [sys.executable, "-m", "engram.collector.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=90,
    )


def free_config(path: Path, **ports: int) -> Path:
    """The default configuration on free ports."""
    names = {"4317": "grpc", "4318": "http", "4319": "api"}

    def free(port: re.Match[str]) -> str:
        return str(ports.get(names[port[0]], free_port()))

    text = re.sub(r"(?<=127\.0\.0\.1:)431[789]\b", free, DEFAULT_FILE.read_text())
    path.write_text(text)
    return path


def free_port() -> int:
    """A port nobody has."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Up]:
    """Everything, on free ports in a fresh home."""
    home, log = folder / "home", folder / "up.log"
    config = free_config(folder / "config.yaml")
    with log.open("w") as out:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "engram.collector.cli"),
                *("--home", str(home), "--config", str(config), "--json", "up"),
            ],
            stdout=subprocess.PIPE,
            stderr=out,
            text=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        yield Up(process, home, config, log, json.loads(line))
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One running `engram up` for the tests that leave it running."""
    with running(tmp_path_factory.mktemp("up")) as one:
        yield one


def eventually(holds: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.1)
    return found


def span(name: str, seed: int) -> bytes:
    """One request with one server span that failed."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    attribute = resource.resource.attributes.add(key="service.name")
    attribute.value.string_value = "shop"
    made = resource.scope_spans.add().spans.add(name=name)
    made.kind = Span.SPAN_KIND_SERVER
    made.trace_id = seed.to_bytes(16, "big")
    made.span_id = seed.to_bytes(8, "big")
    made.start_time_unix_nano = time.time_ns() - 10**6
    made.end_time_unix_nano = time.time_ns()
    made.status.code = Status.STATUS_CODE_ERROR
    return request.SerializeToString()


def send(url: str, body: bytes) -> int:
    """POST OTLP/HTTP; the status."""
    headers = {"content-type": "application/x-protobuf"}
    asked = urllib.request.Request(url + "/v1/traces", data=body, headers=headers)
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return int(answer.status)


def get(url: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    """GET; status, body and headers, also of an error."""
    asked = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), dict(error.headers)


def count(up: Up, name: str) -> int:
    """Spans of a name in the lake, by SQL from another process; -1 before there is a lake."""
    done = up.cli("sql", f"SELECT count(*) AS n FROM spans WHERE name = '{name}'")
    return int(json.loads(done.stdout)[0]["n"]) if done.returncode == 0 else -1


def test_a_span_can_be_queried_while_it_runs(up: Up) -> None:
    """What was acknowledged is in SQL of another process soon after, and on the page."""
    assert send(up.endpoints["otlp_http"], span("GET /road", 1)) == 200
    eventually(lambda: count(up, "GET /road") == 1, "the span in SQL", 20)
    status, body, headers = get(up.endpoints["api"])
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "GET /road" in body


def test_search_finds_it_by_serve_and_in_process(up: Up) -> None:
    """What was stored is found soon after, by the running serve and without it."""
    assert send(up.endpoints["otlp_http"], span("GET /teapots/brewing", 6)) == 200

    def found() -> bool:
        done = up.cli("search", "brewing teapots", "--limit", "3")
        return done.returncode == 0 and any(
            "brewing" in str(hit) for hit in json.loads(done.stdout)
        )

    eventually(found, "a hit", 60)
    token = up.cli("token", "create", "--scope", "read", "--name", "other")
    assert token.returncode == 0, token.stderr
    try:
        assert found()
        noted = up.home / "access/audit.jsonl"
        assert '"who": "local"' in noted.read_text().splitlines()[-1]  # serve was asked
    finally:
        assert up.cli("token", "revoke", "other").returncode == 0
    where = up.home / "serve.json"
    kept = where.read_text()
    where.unlink()
    try:
        assert found()
    finally:
        where.write_text(kept)


def test_status_and_flush_ask_the_collector(up: Up) -> None:
    """`engram status` shows the running collector; `engram flush` waits for what is durable."""
    assert send(up.endpoints["otlp_http"], span("GET /flush", 2)) == 200
    done = up.cli("flush")
    assert done.returncode == 0, done.stderr
    assert count(up, "GET /flush") == 1
    facts = json.loads(up.cli("status").stdout)
    assert facts["running"] is True
    assert facts["collector"]["committed"] > 0
    assert facts["tables"]["spans"] >= 1


def test_second_up_on_a_home_is_4(up: Up, tmp_path: Path) -> None:
    """The home has one writer: the second one says who has it and leaves."""
    config = free_config(tmp_path / "second.yaml")
    done = engram("--home", str(up.home), "--config", str(config), "up")
    assert done.returncode == 4, done.stderr
    assert "written by another process" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["http", "grpc", "api"])
def test_port_in_use_names_it(up: Up, tmp_path: Path, name: str) -> None:
    """A port that is taken is one clear line, and nothing is left running."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = free_config(tmp_path / "taken.yaml", **{name: port})
        done = engram("--home", str(tmp_path / "h"), "--config", str(config), "up")
    assert done.returncode == 2, done.stderr
    assert f"port {port} is already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_page_refuses_other_hosts(up: Up) -> None:
    """A name that was rebound to this machine gets nothing; errors are JSON."""
    status, body, _ = get(up.endpoints["api"], Host="evil.example:4319")
    assert status == 403
    assert json.loads(body)["error"]["status"] == 403
    assert get(up.endpoints["api"] + "api/status")[0] == 200
    assert get(up.endpoints["api"] + "nowhere")[0] == 404


def test_killed_child_comes_back_and_loses_nothing(up: Up) -> None:
    """`kill -9` of collect right after a 200: it is restarted, and the span is there once."""
    before = up.child("collect")
    assert before is not None
    assert send(up.endpoints["otlp_http"], span("GET /killed", 3)) == 200
    before.send_signal(signal.SIGKILL)

    def back() -> bool:
        after = up.child("collect")
        return after is not None and after.pid != before.pid

    eventually(back, "a new collect")

    def accepts() -> bool:
        with contextlib.suppress(OSError):
            return send(up.endpoints["otlp_http"], span("GET /after", 4)) == 200
        return False

    eventually(accepts, "the port open again")
    eventually(lambda: count(up, "GET /killed") >= 1, "the span of the killed collect")
    assert count(up, "GET /killed") == 1
    assert "collect was killed by SIGKILL" in up.log.read_text()


@pytest.mark.parametrize("name", ["serve", "learn"])
def test_other_children_come_back(up: Up, name: str) -> None:
    """The other roles are restarted too."""
    before = eventually(lambda: up.child(name), name)
    before.send_signal(signal.SIGKILL)
    eventually(lambda: (now := up.child(name)) and now.pid != before.pid, f"a new {name}")


def test_supervisor_is_small(up: Up) -> None:
    """The supervisor is standard library only, and small."""
    resident = psutil.Process(up.process.pid).memory_info().rss
    assert resident < 40 << 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_everything_is_gone_within_five_seconds(tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C stop all of it within five seconds; what was acknowledged stays."""
    with running(tmp_path) as up:
        assert send(up.endpoints["otlp_http"], span("GET /last", 5)) == 200
        children = psutil.Process(up.process.pid).children(recursive=True)
        assert len(children) >= 3
        begun = time.monotonic()
        up.process.send_signal(number)
        assert up.process.wait(10) == 0
        assert time.monotonic() - begun < 6.0  # five, and room for a busy machine
        assert not [child for child in children if child.is_running()]
        assert "Traceback" not in up.log.read_text()
        assert not (up.home / "serve.json").exists()


def test_children_die_with_the_supervisor(tmp_path: Path) -> None:
    """`kill -9` of the supervisor leaves no process behind."""
    with running(tmp_path) as up:
        children = psutil.Process(up.process.pid).children(recursive=True)
        os.kill(up.process.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive
