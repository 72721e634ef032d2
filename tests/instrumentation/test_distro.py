"""The distribution in real processes: what it sets, what it leaves alone, what it reports once."""

from __future__ import annotations

import datetime
import enum
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import baggage
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from tests.instrumentation.receiving import Receiving, receiving
from tests.instrumentation.running import BIN

from engram.instrumentation.distro import _set_defaults
from engram.instrumentation.processors import PeopleLogRecordProcessor, PeopleSpanProcessor
from engram.instrumentation.redaction import REDACTED, as_json


def _run(code: str, folder: Path, **environment: str) -> tuple[str, Receiving]:
    """What a script under `engram run` prints, and what it sends."""
    (folder / "script.py").write_text(code)
    own = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "ENGRAM_"))}
    with receiving() as receiver:
        done = subprocess.run(
            [BIN / "engram", "run", "--endpoint", receiver.url, "--", sys.executable, "script.py"],
            cwd=folder, env=own | environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, receiver


LOST = """
import asyncio, gc, threading, time
from concurrent.futures import ThreadPoolExecutor
from opentelemetry import trace
tracer = trace.get_tracer("t")
def fails(word): raise LookupError(word)
async def fails_later(word): raise ArithmeticError(word)

async def main():
    with tracer.start_as_current_span("tasks"):
        task = asyncio.create_task(fails_later("task lost")); await asyncio.sleep(0); del task
        await asyncio.sleep(0); gc.collect()
        kept = asyncio.create_task(fails_later("task read"))
        await asyncio.sleep(0.01)
        try: await kept
        except ArithmeticError: pass
        try: await asyncio.get_running_loop().run_in_executor(None, fails, "executor read")
        except LookupError: pass

with tracer.start_as_current_span("pool"):
    pool = ThreadPoolExecutor(1)
    pool.submit(fails, "pool lost")
    kept = pool.submit(fails, "pool read"); time.sleep(0.05)
    assert isinstance(kept.exception(), LookupError)
    list(pool.map(str, [1])); pool.shutdown(); del kept
with tracer.start_as_current_span("thread"):
    one = threading.Thread(target=fails, args=("thread lost",)); one.start(); one.join()
asyncio.run(main()); gc.collect()
"""


def test_what_is_lost_is_told_once_in_its_trace(tmp_path: Path) -> None:
    """Pool, task and thread: told once, in their trace; what the app reads is not told."""
    _, receiver = _run(LOST, tmp_path)
    traces = {span.trace_id: span.name for span in receiver.spans()}
    told = sorted(
        (value.value.string_value, traces.get(record.trace_id, "no trace"))
        for record in receiver.logs()
        for value in record.attributes
        if value.key == "exception.message"
    )
    assert told == [("pool lost", "pool"), ("task lost", "tasks"), ("thread lost", "thread")]


LOCKED = """
import gc, threading
from concurrent.futures import ThreadPoolExecutor
from opentelemetry._logs import get_logger_provider
from opentelemetry.sdk._logs import LogRecordProcessor
lock, told = threading.Lock(), threading.Event()
class Locking(LogRecordProcessor):
    def on_emit(self, log_record):
        if not lock.acquire(timeout=5): print("blocked")
        lock.release(); told.set()
    def shutdown(self): pass
    def force_flush(self, timeout_millis=30000): return True
get_logger_provider().add_log_record_processor(Locking())
def fails(): raise LookupError("lost")
with ThreadPoolExecutor(1) as pool: future = pool.submit(fails)
with lock:  # as the SDK may hold one when garbage is collected
    del future; gc.collect()
print(told.wait(20))
"""


def test_garbage_is_collected_at_any_moment(tmp_path: Path) -> None:
    """What was lost is not told in the thread that throws it away: that one may hold a lock."""
    out, receiver = _run(LOCKED, tmp_path)
    assert out == "True\n"
    assert len(receiver.logs()) == 1


REPORT = """
import json, os
import google.genai, sqlalchemy
with sqlalchemy.create_engine("sqlite://").connect() as db: db.execute(sqlalchemy.text("SELECT 7"))
from engram.instrumentation.capture import installed
from engram.instrumentation.distro import instrumentors
from opentelemetry.instrumentation.google_genai import GoogleGenAiSdkInstrumentor as G
print(json.dumps([instrumentors, installed, G().is_instrumented_by_opentelemetry,
                  {k: v for k, v in os.environ.items() if k.startswith(("OTEL_", "ANTHROPIC"))}]))
"""


def test_newer_libraries_are_instrumented_all_the_same(tmp_path: Path) -> None:
    """Beyond the release that an instrumentor names; and why each is on or off is known."""
    out, receiver = _run(REPORT, tmp_path)
    assert any(span.name.startswith("SELECT") for span in receiver.spans())
    instrumentors, installed, google, environment = json.loads(out)
    assert google
    assert "google-genai" in installed["genai"]
    assert instrumentors["google-genai"] == "left to the capture genai"
    assert instrumentors["sqlalchemy"].startswith("on")
    assert instrumentors["fastapi"].startswith("off: FastAPI reports by itself")
    assert instrumentors["celery"] == "on when imported"
    assert all(not said.startswith("failed") for said in (installed | instrumentors).values())
    assert environment["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] == "EVENT_ONLY"
    assert environment["ANTHROPIC_OPEN_TELEMETRY"] == "false"


CALLS = """
import http.server, threading, urllib.request
import requests
from opentelemetry import baggage, context
heard = []
class Stranger(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        heard.append({name.lower() for name in self.headers})
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *_): pass
stranger = http.server.HTTPServer(("127.0.0.1", 0), Stranger)
threading.Thread(target=stranger.serve_forever, daemon=True).start()
context.attach(baggage.set_baggage("user.id", "ada"))
requests.get(f"http://127.0.0.1:{stranger.server_port}/")
print("traceparent" in heard[0], "baggage" in heard[0])
"""


def test_strangers_do_not_hear_of_users(tmp_path: Path) -> None:
    """The trace goes on to whoever is called; who it is for only when it is asked for."""
    out, receiver = _run(CALLS, tmp_path)
    assert out == "True False\n"
    (span,) = receiver.spans()
    assert {pair.key: pair.value.string_value for pair in span.attributes}["user.id"] == "ada"
    out, _ = _run(CALLS, tmp_path, OTEL_PROPAGATORS="tracecontext,baggage")
    assert out == "True True\n"


def test_exporters_of_the_user_win(tmp_path: Path) -> None:
    """Who names an exporter gets it, and ours for the other signals."""
    code = (
        "import logging; from opentelemetry import trace; logging.warning('a log')\n"
        "with trace.get_tracer('t').start_as_current_span('a span'): pass\n"
    )
    out, receiver = _run(code, tmp_path, OTEL_TRACES_EXPORTER="console")
    assert '"name": "a span"' in out
    assert not receiver.spans()
    assert [record.body.string_value for record in receiver.logs()] == ["a log"]


def test_one_failing_instrumentor_stops_no_other(tmp_path: Path) -> None:
    """A broken instrumentor of somebody else's is recorded; ours and the captures are on."""
    package = tmp_path / "broken-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[opentelemetry_instrumentor]\nbroken = broken:I\n")
    (tmp_path / "broken.py").write_text(
        "class I:\n    def instrument(self, **kwargs): raise ValueError('broken')\n"
    )
    out, _ = _run(REPORT, tmp_path, PYTHONPATH=str(tmp_path))
    instrumentors, installed, _, _ = json.loads(out)
    assert instrumentors["broken"] == "failed: ValueError: broken"
    assert instrumentors["logging"] == "on"
    assert installed["logs"] == "on"


def _defaults(**given: str) -> dict[str, str]:
    environment = dict(given)
    _set_defaults(environment)
    return environment


def test_defaults_are_only_defaults() -> None:
    """What is set stays; grpc gets OpenTelemetry's exporter and port; content can be off."""
    assert _defaults()["OTEL_TRACES_EXPORTER"] == "engram_otlp"
    assert _defaults()["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:4318"
    grpc = _defaults(OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert grpc["OTEL_LOGS_EXPORTER"] == "otlp"
    assert grpc["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:4317"
    assert _defaults(OTEL_TRACES_SAMPLER="always_off")["OTEL_TRACES_SAMPLER"] == "always_off"
    content = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
    assert _defaults(ENGRAM_CAPTURE_CONTENT="false")[content] == "NO_CONTENT"
    assert _defaults(**{content: "SPAN_ONLY"})[content] == "SPAN_ONLY"


def test_a_child_does_not_take_ours_for_the_users() -> None:
    """Defaults are inherited: a worker sees the same, and keeps what a user disabled."""
    parent = _defaults(OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="requests")
    assert _defaults(**parent) == parent
    disabled = parent["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"].split(",")
    assert {"requests", "fastapi", "google-genai"} <= set(disabled)
    theirs = _defaults(OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="google-genai")
    assert "google-genai" not in theirs["ENGRAM_DISABLED_INSTRUMENTATIONS"]


def test_user_and_session_are_copied_and_nothing_else() -> None:
    """Baggage becomes attributes of spans and logs, and never replaces what is there."""
    exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    logs, traces = LoggerProvider(shutdown_on_exit=False), TracerProvider(shutdown_on_exit=False)
    logs.add_log_record_processor(PeopleLogRecordProcessor())
    logs.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    traces.add_span_processor(PeopleSpanProcessor())
    context = baggage.set_baggage("user.id", "ada")
    context = baggage.set_baggage("password", "p1", context)
    context = baggage.set_baggage("session.id", "x" * 1000, context)
    span: Any = traces.get_tracer("t").start_span("s", context, attributes={"session.id": "mine"})
    assert dict(span.attributes) == {"user.id": "ada", "session.id": "mine"}
    logs.get_logger("t").emit(context=context, body="x")
    logs.get_logger("t").emit(context=context, body="x", attributes={"user.id": "bob"})
    bare, own = [dict(one.log_record.attributes or {}) for one in exporter.get_finished_logs()]
    assert bare["user.id"] == "ada"
    assert len(str(bare["session.id"])) == 256
    assert own["user.id"] == "bob"
    assert "password" not in bare


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=2000) | st.binary(max_size=50),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=300), inner),
    max_leaves=60,
)


@given(_JSON)
@settings(max_examples=150, deadline=None)
def test_any_value_is_made_small(value: Any) -> None:
    """Whatever a body holds: JSON of bounded length, and no error."""
    told = as_json(value, 500)
    assert len(told) <= 1000
    told.encode()
    json.loads(told, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize("name", ["password", "userPassword", "api_key", "X-Api-Key", "Set-Cookie"])
def test_fields_that_are_never_kept(name: str) -> None:
    """By the name of the field, at any depth; a field that only sounds like it is kept."""
    kept = json.loads(as_json({"a": [{name: "s3cret"}], "passenger": "ada", "pinned": 1}))
    assert kept == {"a": [{name: REDACTED}], "passenger": "ada", "pinned": 1}


@pytest.mark.parametrize(
    "name",
    ["password1", "password_confirmation", "passwordConfirm", "passphrase_again", "access_key"],
)
def test_a_second_password_field_is_secret_too(name: str) -> None:
    """Sign-up forms send the password twice, the second time under a longer name."""
    assert "s3cret" not in as_json({name: "s3cret"})


def test_what_is_escaped_is_cut_before_it_is_json() -> None:
    """A control character is six in JSON."""
    told = as_json({"text": ["\x00" * 900] * 9}, 4096)
    assert len(told) <= 8192
    assert set(json.loads(told)) == {"text"}


class _Color(enum.Enum):
    RED = "red"


class _Cup(pydantic.BaseModel):
    color: _Color = _Color.RED
    made: datetime.date = datetime.date(2026, 11, 23)
    sips: int = 0
    price: float = float("nan")


class _Order(pydantic.BaseModel):
    cups: list[_Cup]
    password: str = "s3cret"

    @pydantic.model_serializer
    def _told(self) -> object:
        pytest.fail("a model is not serialized, only looked at")


def test_a_model_is_told_by_its_fields() -> None:
    """Not by `model_dump`, which walks all of it first; however many cups there are."""
    told = json.loads(as_json(_Order(cups=[_Cup()] * 10_000)))
    assert told["cups"][0] == {"color": "red", "made": "2026-11-23", "sips": 0, "price": "nan"}
    assert len(told["cups"]) <= 51


class _Hostile(dict[str, object]):
    """A mapping that cannot be told."""

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("the app's own")


@pytest.mark.parametrize("value", [10**5000, _Hostile()], ids=["long", "hostile"])
def test_a_value_that_cannot_be_told_costs_only_itself(value: object) -> None:
    """The rest of the arguments is kept; an error here would lose the whole intent."""
    assert json.loads(as_json({"a": 1, "value": value}))["a"] == 1
