"""The SDK exporters in real apps: durable, handed over, taken over, and never in the app's way."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext

from engram.collector.control import ask
from engram.exporters.control import ControlServer
from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.errors import EngramError, HomeBusy, NotFound
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_read_only
from engram.exporters.lock import HomeLock
from engram.exporters.sdk import EngramSpanExporter, delivery

_BIN = Path(sys.executable).parent

_APP = """
import os, signal, sys, time
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from engram.exporters.sdk import EngramSpanExporter

class Telling(EngramSpanExporter):
    def export(self, spans):
        result = super().export(spans)
        if result.name == "SUCCESS":  # one write: a fork or a kill leaves no half line
            os.write(1, (spans[0].name + "\\n").encode())
        return result

provider = TracerProvider()
exporter = Telling()
provider.add_span_processor(SimpleSpanProcessor(exporter))
tracer = provider.get_tracer("app")
def work(name):
    tracer.start_span(name).end()
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home whose engine is gone when the test is."""
    home = Home(tmp_path / "home")
    yield home
    with contextlib.suppress(EngramError):
        ask(home, "yield")
    if home.root.is_dir():
        lock = HomeLock(home.lock)
        lock.acquire("test", 20)
        lock.release()


def environment(home: Home, **more: str) -> dict[str, str]:
    """The environment of an app."""
    return {**os.environ, "ENGRAM_HOME": str(home.root), "OTEL_SERVICE_NAME": "shop", **more}


def start(home: Home, code: str, **more: str) -> subprocess.Popen[str]:
    """An app that runs."""
    return subprocess.Popen(
        [sys.executable, "-c", _APP + code],
        env=environment(home, **more), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def end(app: subprocess.Popen[str], code: int = 0) -> list[str]:
    """The names of the spans that it was told are stored."""
    out, err = app.communicate(timeout=60)
    assert app.returncode == code, err
    assert err == ""
    return out.split()


def names(home: Home) -> dict[str, int]:
    """Names of the stored spans, and how many there are of each."""
    try:
        with contextlib.closing(attach_read_only(home)) as db:
            return dict(db.execute("SELECT name, count(*) FROM spans GROUP BY name").fetchall())
    except (NotFound, duckdb.Error):
        return {}  # the lake is being made


def eventually(home: Home, expected: set[str]) -> dict[str, int]:
    """The stored spans, as soon as the expected ones are among them, or after 30 s."""
    deadline = time.monotonic() + 30
    while not expected <= (found := names(home)).keys() and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def once(*all_names: str) -> dict[str, int]:
    """Each name once."""
    return dict.fromkeys(all_names, 1)


def holder(home: Home) -> int:
    """The process that wrote its id into the lock last."""
    return int(home.lock.read_text().split()[0])


def test_zero_code(home: Home) -> None:
    """Environment variables alone: all three signals can be queried when the app has ended."""
    code = (
        "import logging; from opentelemetry import trace, metrics\n"
        "with trace.get_tracer('app').start_as_current_span('work'):\n"
        "    logging.getLogger('shop').warning('careful')\n"
        "metrics.get_meter('app').create_counter('orders').add(3)\n"
    )
    done = subprocess.run(
        [str(_BIN / "opentelemetry-instrument"), sys.executable, "-c", code],
        env=environment(
            home, OTEL_TRACES_EXPORTER="engram", OTEL_LOGS_EXPORTER="engram",
            OTEL_METRICS_EXPORTER="engram",
        ),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "engram" not in done.stderr
    eventually(home, {"work"})
    with contextlib.closing(attach_read_only(home)) as db:
        rows = [
            db.execute(f"SELECT {what}, service_name FROM {table}").fetchall()
            for table, what in (("spans", "name"), ("logs", "body"), ("metrics", "name"))
        ]
    assert rows[0] == [("work", "shop")]
    assert rows[1] == [('"careful"', "shop")]
    assert ("orders", "shop") in rows[2]


def test_what_was_exported_survives_kill_9(home: Home) -> None:
    """An app that is killed loses nothing that was a success, with nobody left to flush."""
    app = start(home, "[work(f's{i}') for i in range(30)]\nos.kill(os.getpid(), signal.SIGKILL)")
    told = end(app, -signal.SIGKILL)
    assert len(told) == 30
    assert eventually(home, set(told)) == once(*told)


def test_several_processes_share_a_home(home: Home) -> None:
    """Apps that start at once, before there is a home: every span of each is stored once."""
    code = "[work(f'{sys.argv[0]}{os.getpid()}-{i}') or time.sleep(.01) for i in range(100)]"
    apps = [start(home, code) for _ in range(3)]
    told = [name for app in apps for name in end(app)]
    assert len(told) == 300
    assert eventually(home, set(told)) == once(*told)


def test_forked_children_export_for_themselves(home: Home) -> None:
    """Children of a fork use neither lock nor connection of the parent, and outlive it."""
    app = start(
        home,
        """
work("parent")
time.sleep(3)  # the engine serves, and we are connected to it
work("connected")
children = []
for n in range(3):
    if not (pid := os.fork()):
        for i in range(20):
            work(f"child{n}-{i}")
        provider.shutdown()
        os._exit(0)
    children.append(pid)
work("beside")
for pid in children:
    os.waitpid(pid, 0)
work("after")
""",
    )
    told = end(app)
    assert len(told) == 64
    assert eventually(home, set(told)) == once(*told)


def test_a_forked_child_keeps_nothing(tmp_path: Path) -> None:
    """A child that lives on holds no lock, no log and no socket of a parent that is dead."""
    code = f"""
import os, sys, time
from pathlib import Path
from engram.exporters.control import ControlServer
from engram.exporters.engine import Engine
from engram.exporters.home import Home
home = Home(Path({str(tmp_path / "home")!r}))
engine = Engine(home); engine.start(); control = ControlServer(engine); control.start()
if os.fork():
    os.kill(os.getpid(), 9)
open = [os.readlink(f"/proc/self/fd/{{n}}") for n in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{{n}}")]
print([name for name in open if "collect" in name or name.endswith(".wal")], flush=True)
print(engine._lock.held, flush=True)
sys.stdin.read()
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == "[]\n"
    assert child.stdout.readline() == "False\n"
    assert child.wait(20) == -signal.SIGKILL  # the parent; its child lives on
    home = Home(tmp_path / "home")
    with socket.socket(socket.AF_UNIX) as connection, pytest.raises(ConnectionRefusedError):
        connection.connect(str(home.control))
    HomeLock(home.lock).acquire("test", 5)  # it would wait for the child
    child.stdin.close()
    child.stdout.close()


def _forever(flag: Path) -> str:
    """An app that exports until a file exists."""
    return (
        f"i = 0\nwhile not os.path.exists({str(flag)!r}):\n"
        "    work(f's{i}'); i += 1; time.sleep(.01)"
    )


def test_an_engine_that_dies_costs_nothing(home: Home, tmp_path: Path) -> None:
    """Engines are killed while an app exports: all is stored, and nothing twice."""
    app = start(home, _forever(tmp_path / "flag"))
    killed: set[int] = set()
    deadline = time.monotonic() + 30
    while len(killed) < 2 and time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, IndexError):
            if home.control.exists() and (pid := holder(home)) not in {app.pid, *killed}:
                time.sleep(0.2)  # it serves
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        time.sleep(0.02)
    (tmp_path / "flag").touch()
    out, err = app.communicate(timeout=60)
    told = out.split()
    assert len(killed) == 2
    assert told == [f"s{i}" for i in range(len(told))], err
    assert eventually(home, {*told}) == once(*told)


def test_a_collector_takes_the_home(home: Home, tmp_path: Path) -> None:
    """A collector that starts beside such an app gets the home, and what the app exports."""
    flag = tmp_path / "stop"
    app = start(home, _forever(flag))
    eventually(home, {"s0"})  # its engine serves
    before = holder(home)
    config = tmp_path / "otel-config.yaml"
    pipeline = "{receivers: [otlp], processors: [redaction], exporters: [memory]}"
    config.write_text(
        'receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:0"}}}}\n'
        "processors: {redaction: {}}\nexporters: {memory: {}}\n"
        f"service: {{pipelines: {{traces: {pipeline}, logs: {pipeline}, metrics: {pipeline}}}}}\n"
    )
    command = [sys.executable, "-m", "engram.collector.cli", "--home", str(home.root)]
    command += ["--config", str(config), "collect"]
    reader, writer = os.pipe()
    collector = subprocess.Popen(
        [*command, "--ready-fd", str(writer)], pass_fds=[writer],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert json.loads(pipe.read())["pid"] == collector.pid
    assert holder(home) == collector.pid != before
    assert ask(home, "status")["role"] == "engram collect"
    second = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert second.returncode == 4
    assert f"(pid {collector.pid}, engram collect)" in second.stderr
    time.sleep(0.5)
    flag.touch()
    told = end(app)
    ask(home, "flush")
    assert names(home) == once(*told)
    collector.terminate()
    assert "leaves" in collector.communicate(timeout=20)[1]


@pytest.mark.parametrize("engine", ["none", "thread"])
def test_other_ways_to_commit(home: Home, engine: str) -> None:
    """Without an engine the log keeps all until one comes; in a thread nothing else is needed."""
    code = "[work(f's{i}') for i in range(5)]\n"
    code += "exporter.force_flush(60000)\nprovider.shutdown()\n"
    heavy = "{'duckdb', 'polars', 'pyarrow', 'numpy', 'google.protobuf'}"
    code += f"if {engine == 'none'}: print(*({heavy} & set(sys.modules)))"
    told = end(start(home, code, ENGRAM_EXPORTER_ENGINE=engine))
    assert told == [f"s{i}" for i in range(5)]
    if engine == "none":
        assert names(home) == {}
        engine_ = Engine(home)
        engine_.start()
        engine_.wait_committed(engine_.end, 20)
        engine_.shutdown()
    assert names(home) == once(*told)


def test_a_home_that_cannot_be_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app is told once what is wrong; exports fail, and nothing is raised."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("ENGRAM_EXPORTER_ENGINE", "none")
    exporter = EngramSpanExporter(tmp_path / "file" / "home")
    for _ in range(3):
        assert exporter.export([span("x")]) is SpanExportResult.FAILURE
    exporter.shutdown()
    exporter.shutdown()
    assert exporter.export([span("x")]) is SpanExportResult.FAILURE
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert "as home" in warning.getMessage()
    assert "ENGRAM_HOME" in warning.getMessage()


def span(name: str, **attributes: Any) -> ReadableSpan:
    """An ended span."""
    return ReadableSpan(name, SpanContext(1, hash(name) & 0xFFFFFFFF | 1, False),
                        attributes=attributes, start_time=1, end_time=2)  # fmt: skip


def test_an_error_of_ours_does_not_reach_the_app(
    home: Home, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong inside is a failed export and one line in the log."""

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    exporter = EngramSpanExporter(home.root)
    monkeypatch.setattr(exporter._road._delivery, "deliver", broken)
    assert exporter.export([span("x")]) is SpanExportResult.FAILURE
    assert exporter.export([span("x")]) is SpanExportResult.FAILURE
    assert len(caplog.records) == 1


@contextlib.contextmanager
def serving(home: Home, **settings: Any) -> Iterator[Engine]:
    """An engine with its control socket, in this process."""
    engine = Engine(home, EngineSettings(commit_interval_s=0.05, **settings))
    engine.start()
    control = ControlServer(engine)
    control.start()
    try:
        yield engine
    finally:
        control.shutdown()
        engine.shutdown(20)


def test_a_refusal_is_waited_for_and_then_given_up(
    home: Home, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder without room: tried until the time is over, told once, and well again after."""
    monkeypatch.setattr(delivery, "DELIVER_S", 0.3)
    exporter = EngramSpanExporter(home.root)
    with serving(home, limit_memory_bytes=1) as engine:
        deadline = time.monotonic() + 10
        while not engine._resident and time.monotonic() < deadline:
            time.sleep(0.05)
        assert exporter.export([span("a")]) is SpanExportResult.FAILURE
        assert exporter.export([span("a")]) is SpanExportResult.FAILURE
        assert not exporter.force_flush()
        engine.settings = EngineSettings()
        assert exporter.export([span("b")]) is SpanExportResult.SUCCESS
        assert exporter.force_flush()
    assert names(home) == once("b")
    assert [record for record in caplog.records if "memory limit" in record.getMessage()]
    exporter.shutdown()


def test_a_large_batch_goes_in_pieces(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch over the size of a request is halved; a request that stays too large is refused."""
    monkeypatch.setattr("engram.exporters.sdk._REQUEST_BYTES", 20_000)
    exporter = EngramSpanExporter(home.root)
    with serving(home, max_request_bytes=30_000) as engine:
        many = [span(f"s{i}", text=f"{i}" * 5_000) for i in range(9)]
        assert exporter.export(many) is SpanExportResult.SUCCESS
        assert engine.counters.requests > 1
        assert exporter.export([span("big", text="x" * 40_000)]) is SpanExportResult.FAILURE
        assert exporter.export([span("next")]) is SpanExportResult.SUCCESS
        engine.wait_committed(engine.end, 20)
    assert names(home) == once("next", *(f"s{i}" for i in range(9)))
    exporter.shutdown()


def test_a_long_path_is_no_problem(tmp_path: Path) -> None:
    """The socket of a home deep in the file system is reached as any other."""
    home = Home(tmp_path / ("deep" * 20) / ("er" * 40) / "home")
    exporter = EngramSpanExporter(home.root)
    with serving(home) as engine:
        assert exporter.export([span("x")]) is SpanExportResult.SUCCESS
        assert exporter.force_flush()
        assert engine.counters.requests == 1
        exporter.shutdown()


def test_a_request_without_an_answer_is_sent_again(home: Home) -> None:
    """A holder that takes a request and dies before it answers: stored once, by the next way."""
    home.create()
    heard: list[bytes] = []

    def hang_up_once() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as stream:
            size = json.loads(stream.readline())["bytes"]
            heard.append(stream.read(size))
        listener.close()
        home.control.unlink()

    with socket.socket(socket.AF_UNIX) as listener:
        with home.control_address() as path:
            listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=hang_up_once)
        thread.start()
        exporter = EngramSpanExporter(home.root)
        assert exporter.export([span("x")]) is SpanExportResult.SUCCESS
        thread.join()
    assert heard
    exporter.shutdown()
    assert eventually(home, {"x"}) == once("x")


def test_the_lock_tells_who_has_it(tmp_path: Path) -> None:
    """A short hold is waited for, a long one is named."""
    first, second = HomeLock(tmp_path / "lock"), HomeLock(tmp_path / "lock")
    first.acquire("the first")
    with pytest.raises(HomeBusy, match=rf"\(pid {os.getpid()}, the first\)"):
        second.acquire("the second", 0.05)
    threading.Timer(0.1, first.release).start()
    second.acquire("the second", 10)
    assert second.held
    assert not first.held
    second.release()
    second.release()


def test_control_speaks_clearly(home: Home, tmp_path: Path) -> None:
    """What is no request, too large, or not all there gets an answer, and stores nothing."""

    def say(line: bytes) -> Any:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(home.control))
            connection.sendall(line)
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile("rb") as stream:
                return json.loads(stream.readline())

    with serving(home) as engine:
        assert "one JSON object" in say(b"hello\n")["error"]
        assert "number" in say(b'{"command": "append", "bytes": "x"}\n')["error"]
        assert "over the limit" in say(b'{"command": "append", "bytes": 99999999999}\n')["error"]
        head = b'{"command": "append", "signal": "traces", "bytes": 9}\n'
        assert "not complete" in say(head + b"short")["error"]
        assert "not an OTLP" in say(head + b"\xff" * 9)["error"]
        assert "valid Signal" in say(head.replace(b"traces", b"smoke") + b"\xff" * 9)["error"]
        assert "append, yield" in say(b'{"command": "yield"}\n')["error"]
        assert engine.end == 0


def test_peers_of_another_user_are_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket answers its own user and root, whatever the modes are."""
    if os.getuid() == 0:
        pytest.skip("root is always let in")
    with serving(home):
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        with pytest.raises(EngramError):
            ask(home, "status")


def test_nothing_is_left_in_the_way(home: Home) -> None:
    """When the last app has gone its engine goes too, and the lock is free."""
    end(start(home, "work('x')"))
    assert eventually(home, {"x"}) == once("x")
    deadline = time.monotonic() + 20
    free: Callable[[], bool] = lambda: _try_lock(home)  # noqa: E731
    while not free() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert free()
    assert not home.control.exists()


def _try_lock(home: Home) -> bool:
    with home.lock.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
