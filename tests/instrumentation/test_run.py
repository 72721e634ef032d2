"""`engram run` with real servers and a real collector: all arrives, and nothing is in the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.instrumentation.receiving import receiving
from tests.instrumentation.running import BIN, Collector, collecting, eventually, free_port, running

from engram.instrumentation.run import BOOTSTRAP, environment_for, service_name

APP = """
import asyncio, logging, os, time
from concurrent.futures import ThreadPoolExecutor
from fastapi import BackgroundTasks, FastAPI, Request
from pydantic import BaseModel

app = FastAPI()
log = logging.getLogger("shop")
pool = ThreadPoolExecutor(2)

class Order(BaseModel):
    item: str
    password: str = ""

def fails(): raise LookupError("lost in a pool")
async def task_fails(): raise ArithmeticError("lost in a task")
def mail(): log.info("mail was sent")
def bad_mail(): raise OSError("no mail today")

@app.get("/")
def root(): return os.getpid()
@app.post("/orders/{shop}")
async def order(shop: str, order: Order):
    log.info("order of %s", order.item)
    return {}
@app.post("/hangs")
def hangs(order: Order): time.sleep(3600)
@app.get("/boom")
def boom(): raise ValueError("kaboom")
@app.get("/lost")
def lost():
    pool.submit(fails)
    return {}
@app.get("/read")
def read():
    try: pool.submit(fails).result()
    except LookupError: pass
    return {}
@app.get("/task")
async def task():
    asyncio.get_running_loop().create_task(task_fails())
    await asyncio.sleep(0.01)
    import gc; gc.collect()
    return {}
@app.get("/later")
def later(background: BackgroundTasks):
    background.add_task(mail)
    background.add_task(bad_mail)
    return {}
"""


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """One collector for all tests of this file; each has a service name of its own."""
    with collecting(tmp_path_factory.mktemp("collector")) as one:
        yield one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the app."""
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def _uvicorn(port: int, *more: str) -> list[str | Path]:
    return [BIN / "uvicorn", "app:app", "--port", str(port), *more]


def test_a_request_is_remembered(collector: Collector, folder: Path) -> None:
    """One intent with what was asked, one outcome; user and session; no secret; logs of INFO."""
    port = free_port()
    with running(folder, _uvicorn(port), endpoint=collector.url, service="one", port=port) as app:
        who = {"baggage": "user.id=ada,session.id=s1,other=x"}
        assert app.post("/orders/berlin?token=t0p", {"item": "tea", "password": "p1"}, **who) == 200
        (outcome,) = collector.wait("one", "request_outcome", "/orders")
        (intent,) = collector.wait("one", "request_intent", "/orders")
    assert intent["title"] == "Intent: POST /orders/{shop}"
    assert '"item": "tea"' in intent["content"]
    assert '"shop": "berlin"' in intent["content"]
    assert "p1" not in intent["content"]
    assert "t0p" not in intent["content"]
    assert (intent["user_id"], intent["session_id"]) == ("ada", "s1")
    assert len(intent["sources"]) == 2  # the event before, the span after
    assert outcome["outcome"] == "ok"
    assert intent["trace_id"] == outcome["trace_id"]


def test_without_content_no_body(collector: Collector, folder: Path) -> None:
    """A chat route's prompt is in its body: with content off it stays in the app."""
    port, off = free_port(), {"ENGRAM_CAPTURE_CONTENT": "false"}
    with running(
        folder, _uvicorn(port), endpoint=collector.url, service="mute", port=port, environment=off
    ) as app:
        assert app.post("/orders/berlin", {"item": "my whole secret story"}) == 200
        collector.wait("mute", "request_outcome", "/orders")
        (intent,) = collector.wait("mute", "request_intent", "/orders")
    assert "story" not in str(intent)
    assert '"shop": "berlin"' in intent["content"]


def test_an_intent_survives_kill_9(collector: Collector, folder: Path) -> None:
    """The process dies in the middle of a request: what was wanted is in memory."""
    port = free_port()
    with running(folder, _uvicorn(port), endpoint=collector.url, service="dies", port=port) as app:
        asking = subprocess.Popen(
            [sys.executable, "-c", "import sys, urllib.request as u; u.urlopen(u.Request("
             "sys.argv[1], data=b'{\"item\": \"the last one\"}',"
             "headers={'content-type': 'application/json'}))", f"{app.url}/hangs"],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        collector.wait("dies", "request_intent", "the last one")
        os.kill(app.process.pid, signal.SIGKILL)
        asking.wait(20)
    (intent,) = collector.wait("dies", "request_intent", "the last one")
    assert len(intent["sources"]) == 1
    ended = collector.memories("dies", "request_outcome")
    assert [row["title"] for row in ended if "/hangs" in row["title"]] == []


def test_what_would_be_lost(collector: Collector, folder: Path) -> None:
    """Failures of pools, tasks and background steps: once each, in the trace of their request."""
    port = free_port()
    with running(folder, _uvicorn(port), endpoint=collector.url, service="lost", port=port) as app:
        for path in ("/boom", "/lost", "/read", "/task", "/later"):
            app.get(path)
    collector.wait("lost", "request_outcome", "/later")
    collector.wait("lost", "system_error", "no mail today")
    errors = collector.memories("lost", "system_error")
    intents = {
        row["trace_id"]: row["title"] for row in collector.memories("lost", "request_intent")
    }
    told = sorted((intents.get(row["trace_id"], ""), row["title"]) for row in errors)
    assert told == [
        ("Intent: GET /boom", "ValueError in /boom: kaboom"),
        ("Intent: GET /later", "OSError in /later: no mail today"),
        ("Intent: GET /lost", "LookupError in engram.concurrency: lost in a pool"),
        ("Intent: GET /task", "ArithmeticError in asyncio: lost in a task"),
    ]
    steps = [row["title"] for row in collector.memories("lost", "workflow_state")]
    assert sorted(steps) == ["Background task bad_mail: failed", "Background task mail: done"]


MIDDLE = """
import time
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
async def work(scope, receive, send):
    time.sleep(3600 if scope["path"] == "/hangs" else 0)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
app = OpenTelemetryMiddleware(work)
"""


def test_an_intent_of_another_framework_survives_kill_9(
    collector: Collector, tmp_path: Path
) -> None:
    """By OpenTelemetry's instrumentation of it, as with Flask and Django: told at the beginning."""
    (tmp_path / "app.py").write_text(MIDDLE)
    port, name = free_port(), "middle"
    with running(tmp_path, _uvicorn(port), endpoint=collector.url, service=name, port=port) as app:
        assert app.get("/fine?token=t0p&cup=2") == 200
        collector.wait(name, "request_outcome", "/fine")
        (fine,) = collector.wait(name, "request_intent", "/fine")
        asking = subprocess.Popen(
            [sys.executable, "-c", "import sys, urllib.request as u; u.urlopen(sys.argv[1])",
             f"{app.url}/hangs"],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        (lost,) = collector.wait(name, "request_intent", "/hangs")
        os.kill(app.process.pid, signal.SIGKILL)
        asking.wait(20)
    assert len(fine["sources"]) == 2  # the event before, the span after: one memory
    arguments = json.loads(json.loads(fine["attributes"])["arguments"])
    assert arguments == {"token": "[REDACTED]", "cup": "2"}
    assert len(lost["sources"]) == 1


@pytest.mark.parametrize("how", ["reload", "workers", "gunicorn"])
def test_servers_with_children(collector: Collector, folder: Path, how: str) -> None:
    """Reloaded children, workers and pre-forked processes are captured as the first one is."""
    port = free_port()
    command = _uvicorn(port, *(["--reload"] if how == "reload" else ["--workers", "2"]))
    if how == "gunicorn":
        (folder / "wsgi.py").write_text(
            "import logging\n"
            "def app(environ, start):\n"
            "    logging.getLogger('shop').warning('order of tea')\n"
            "    start('200 OK', []); return [b'']\n"
        )
        command = [BIN / "gunicorn", "-w", "2", "-b", f"127.0.0.1:{port}", "wsgi:app"]
    with running(folder, command, endpoint=collector.url, service=how, port=port) as app:
        if how == "gunicorn":
            app.get("/")
            collector.wait(how, "system_event", "order of tea")
            return
        app.post("/orders/a", {"item": "tea"})
        collector.wait(how, "request_intent", "/orders")
        collector.wait(how, "request_outcome", "/orders")
        if how == "reload":
            (folder / "app.py").write_text(APP + "\n@app.get('/new')\ndef new(): return {}\n")
            assert eventually(lambda: app.get("/new") == 200)
            collector.wait(how, "request_outcome", "/new")


def test_scripts_and_modules(collector: Collector, tmp_path: Path) -> None:
    """`python script.py` and `python -m`: named after themselves, and a crash is an error."""
    (tmp_path / "nightly.py").write_text("raise RuntimeError('no night')\n")
    for arguments, name in ((["nightly.py"], "nightly"), (["-m", "nightly"], "nightly")):
        with running(tmp_path, [sys.executable, *arguments], endpoint=collector.url) as program:
            assert program.process.wait(60) == 1
        collector.wait(name, "system_error", "no night")


def test_jobs_of_apscheduler(collector: Collector, tmp_path: Path) -> None:
    """Each run has a trace of its own, whoever started the scheduler; a failure is in it."""
    (tmp_path / "jobs.py").write_text(
        "import time\n"
        "from apscheduler.schedulers.background import BackgroundScheduler\n"
        "from apscheduler.triggers.date import DateTrigger\n"
        "from opentelemetry import trace\n"
        "def good(): pass\n"
        "def bad(): raise ValueError('bad night')\n"
        "class Rude(DateTrigger):\n"
        "    def __str__(self): raise RuntimeError('no')\n"
        "with trace.get_tracer('t').start_as_current_span('starter'):\n"
        "    s = BackgroundScheduler(); s.start()\n"
        "    s.add_job(good, Rude()); s.add_job(bad)\n"
        "    time.sleep(1)\n"
    )
    with running(tmp_path, [sys.executable, "jobs.py"], endpoint=collector.url) as program:
        assert program.process.wait(60) == 0, program.log.read_text()
    (bad,) = collector.wait("jobs", "workflow_state", "bad")
    (good,) = collector.wait("jobs", "workflow_state", "good")
    (error,) = collector.wait("jobs", "system_error", "bad night")
    assert (bad["outcome"], good["outcome"]) == ("error", "ok")
    assert error["trace_id"] == bad["trace_id"] != good["trace_id"]


def test_a_celery_worker(collector: Collector, tmp_path: Path) -> None:
    """A task run by a forked worker is a memory of the worker."""
    (tmp_path / "tasks.py").write_text(
        "from celery import Celery\n"
        f"app = Celery('tasks', broker='filesystem://', backend='file://{tmp_path}/out')\n"
        "app.conf.broker_transport_options = {'data_folder_in': 'queue',"
        " 'data_folder_out': 'queue', 'control_folder': 'control'}\n"
        "@app.task\n"
        "def add(x, y): return x + y\n"
    )
    for name in ("queue", "control", "out"):
        (tmp_path / name).mkdir()
    worker: list[str | Path] = [BIN / "celery", "-A", "tasks", "worker", "-c", "1", "-l", "info"]
    with running(tmp_path, worker, endpoint=collector.url, service="worker"):
        subprocess.run(
            [sys.executable, "-c", "import tasks; tasks.add.delay(1, 2)"],
            cwd=tmp_path, check=True, timeout=60,
        )  # fmt: skip
        collector.wait("worker", "workflow_state", "tasks.add")


def test_plain_opentelemetry_instrument(collector: Collector, tmp_path: Path) -> None:
    """The distribution alone, by OpenTelemetry's own command, beside opentelemetry-distro."""
    (tmp_path / "plain.py").write_text("import logging; logging.warning('plain words')\n")
    done = subprocess.run(
        [BIN / "opentelemetry-instrument", sys.executable, "plain.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={**os.environ, "OTEL_PYTHON_DISTRO": "engram", "OTEL_PYTHON_CONFIGURATOR": "engram",
             "OTEL_SERVICE_NAME": "plain", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url},
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr == "WARNING:root:plain words\n"  # what it is without us
    collector.wait("plain", "system_event", "plain words")


def test_no_collector(folder: Path) -> None:
    """Nobody listens: every request is answered, memory stays, and the end is not held up."""
    port, nobody = free_port(), f"http://127.0.0.1:{free_port()}"
    queues = {"OTEL_BSP_MAX_QUEUE_SIZE": "512", "OTEL_BLRP_MAX_QUEUE_SIZE": "512"}
    queues["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"] = queues["OTEL_BLRP_MAX_EXPORT_BATCH_SIZE"] = "128"
    with running(
        folder, _uvicorn(port), endpoint=nobody, service="alone", port=port, environment=queues
    ) as app:
        process = psutil.Process(app.process.pid)
        assert {app.post("/orders/a", {"item": "x" * 1000}) for _ in range(600)} == {200}
        before = process.memory_info().rss
        assert {app.post("/orders/a", {"item": "x" * 1000}) for _ in range(600)} == {200}
        assert process.memory_info().rss - before < 12 << 20
        app.process.terminate()
        app.process.wait(30)
    log = app.log.read_text()
    assert "Traceback" not in log
    assert log.count("telemetry was not taken") <= 3  # one a minute for each signal


def test_the_app_prints_what_it_printed(tmp_path: Path) -> None:
    """Levels, last resort, own sitecustomize and exit code are as without us."""
    (tmp_path / "sitecustomize.py").write_text("import builtins; builtins.mine = 'mine'\n")
    (tmp_path / "says.py").write_text(
        "import logging, sys\n"
        "logging.getLogger('a').info('not shown'); logging.getLogger('a').warning('last resort')\n"
        "logging.basicConfig(format='%(levelname)s %(message)s')\n"
        "logging.getLogger('b').info('not shown'); logging.getLogger('b').error('shown')\n"
        "print(mine); sys.exit(7)\n"
    )
    with receiving() as receiver:
        done = subprocess.run(
            [BIN / "engram", "run", "--endpoint", receiver.url, "--", sys.executable, "says.py"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
        )  # fmt: skip
        logged = [record.body.string_value for record in receiver.logs()]
    assert done.returncode == 7
    assert done.stderr == "last resort\nERROR shown\n"
    assert done.stdout == "mine\n"
    assert logged == ["not shown", "last resort", "not shown", "shown"]


def test_no_such_command(tmp_path: Path) -> None:
    """A clear word and the exit code that shells use."""

    def run(*command: str) -> tuple[int, str]:
        done = subprocess.run(
            [BIN / "engram", "run", "--", *command], cwd=tmp_path, capture_output=True, text=True
        )
        return done.returncode, done.stderr

    assert run("uvicron") == (127, "engram: there is no command 'uvicron' (PATH was searched)\n")
    (tmp_path / "script.py").write_text("")
    code, said = run("./script.py")
    assert code == 126
    assert "engram run -- python ./script.py" in said
    none = subprocess.run([BIN / "engram", "run"], capture_output=True, text=True)
    assert none.returncode == 2
    assert "engram run -- uvicorn app:app" in none.stderr


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("uvicorn app:app", "app"),
        ("/x/bin/uvicorn --port 8000 shop.main:app --reload", "shop"),
        ("gunicorn -b localhost:8000 -w 2 shop.wsgi", "shop"),
        ("gunicorn -b 0.0.0.0:80 shop.web:create_app()", "shop.web"),
        ("python -m uvicorn shop.api:app", "shop"),
        ("python -m shop.jobs 3", "shop.jobs"),
        ("python -X dev -u jobs/nightly.py --all", "nightly"),
        ("python3.11 -c pass", "python"),
        ("celery -A shop.tasks worker", "shop.tasks"),
        ("celery --app=shop.tasks:app beat", "shop.tasks"),
        ("fastapi dev shop.py", "shop"),
        ("flask --app web run", "web"),
        ("pytest tests", "pytest"),
    ],
)
def test_names(command: str, name: str) -> None:
    """The service is named after the app, not after the server, and the same at each start."""
    assert service_name(command.split()) == name


def test_what_the_user_set_wins() -> None:
    """Name and path of the environment stay; the bootstrap is first on the path, once."""
    again = environment_for(["x"], environment_for(["x"], {"PYTHONPATH": "/mine"}))
    assert again["PYTHONPATH"] == f"{BOOTSTRAP}{os.pathsep}/mine"
    assert again["OTEL_SERVICE_NAME"] == "x"
    named = {"OTEL_RESOURCE_ATTRIBUTES": "team=a,service.name=mine"}
    assert "OTEL_SERVICE_NAME" not in environment_for(["x"], named)
    assert environment_for(["x"], {"OTEL_SERVICE_NAME": "mine"})["OTEL_SERVICE_NAME"] == "mine"


def test_it_starts_light() -> None:
    """`engram run` itself imports neither OpenTelemetry nor anything of the server."""
    code = (
        "import sys, os; os.execve = lambda *a: sys.exit("
        "str({'opentelemetry', 'duckdb', 'yaml', 'asyncio'} & set(sys.modules) or ''))\n"
        "from engram.collector.cli import main; main(['run', '--', sys.executable])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""
