"""`engram doctor`: environments that are made wrong, each in one way, and a real collector."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.interop.collecting import Collecting, collecting

from engram.instrumentation.doctor import Level, collector, environment, interpreter
from engram.instrumentation.doctor.findings import Finding

_OURS = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collecting]:
    """A collector that listens."""
    with collecting(tmp_path_factory.mktemp("doctor") / "home") as one:
        yield one


def doctor(
    *arguments: str, cwd: Path, home: Path | None = None, **variables: str
) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """`engram doctor` in a process: exit code, and findings by what they are about."""
    before = ["--home", str(home)] if home else []
    done = subprocess.run(
        [sys.executable, "-m", "engram.collector.cli", *before, "--json", "doctor", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env={**_OURS, **variables},
    )
    assert "Traceback" not in done.stderr, done.stderr
    answer = json.loads(done.stdout)
    assert answer["healthy"] == (done.returncode == 0)
    by_name: dict[str, list[dict[str, Any]]] = {}
    for one in answer["findings"]:
        by_name.setdefault(one["about"], []).append(one)
    return done.returncode, by_name


def problems(variables: dict[str, str]) -> list[str]:
    """What the environment check says that is not well."""
    found = environment.check(variables, named=True)
    return [f"{one.level} {one.about}" for one in found if one.level is not Level.OK]


def test_a_record_goes_there_and_back(running: Collecting, tmp_path: Path) -> None:
    """With the home of the collector: acknowledged and queried; no memory is made of it."""
    at = f"http://127.0.0.1:{running.http_port}"
    home = running.engine.home.root
    _, found = doctor(cwd=tmp_path, home=home, OTEL_EXPORTER_OTLP_ENDPOINT=at)
    (trip,) = found["round trip"]
    assert trip["level"] == "ok", trip
    assert "it can be queried" in trip["text"]
    assert any(one["text"].endswith(": Engram") for one in found["port"])
    assert len(running.rows("logs", "engram-doctor")) == 1
    assert running.rows("memories", "engram-doctor") == []


def test_without_the_lake_the_answer_is_enough(running: Collecting, tmp_path: Path) -> None:
    """No home: the acknowledgement; the home of another: said."""
    at = f"http://127.0.0.1:{running.http_port}"
    _, found = doctor(cwd=tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=at)
    assert found["round trip"][0]["level"] == "ok"
    assert "no lake at hand" in found["round trip"][0]["text"]


def test_a_record_that_never_arrives_is_a_problem(
    running: Collecting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acknowledged, and not in the lake that was given."""
    monkeypatch.setattr(collector, "_WAIT_S", 0.3)
    at = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{running.http_port}"}
    found = [one for one in collector.check(at, lambda _: False) if one.about == "round trip"]
    assert [one.level for one in found] == [Level.PROBLEM]


def test_nobody_listens(tmp_path: Path) -> None:
    """A closed port is a problem, once, and the exit code is 1."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        at = f"http://127.0.0.1:{free.getsockname()[1]}"
        code, found = doctor(cwd=tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=at)
    assert code == 1
    assert [one["level"] for one in found["port"]].count("problem") == 1
    assert "round trip" not in found


@pytest.mark.parametrize("at", ["h:4318", "ftp://h:4318", "http://[::1", "http://:4318"])
def test_what_is_no_url_is_not_knocked_at(at: str) -> None:
    """The environment's findings say it; ports of some other place would mislead."""
    assert list(collector.check({"OTEL_EXPORTER_OTLP_ENDPOINT": at}, None)) == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, []),
        ({"OTEL_SDK_DISABLED": "true"}, ["problem sdk"]),
        ({"OTEL_CONFIG_FILE": "x.yaml"}, ["warning sdk"]),
        ({"OTEL_LOGS_EXPORTER": "none"}, ["problem exporter"]),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            },
            ["problem endpoint"] * 3,
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4317"}, ["problem endpoint"] * 3),
        (
            {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://127.0.0.1:4318"},
            ["problem endpoint"],
        ),
        (
            {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://h:4318/v1/logs"},
            ["warning endpoint"],
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "h:4318"}, ["problem endpoint"] * 3),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1"}, ["problem endpoint"] * 3),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "thrift"}, ["problem endpoint"] * 3),
        (
            {
                "ENGRAM_CAPTURE_CONTENT": "false",
                "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "EVENT_ONLY",
            },
            ["warning content"],
        ),
    ],
)
def test_variables_that_contradict_each_other(
    variables: dict[str, str], expected: list[str]
) -> None:
    """Each is named, and what is well is not."""
    assert problems(variables) == expected


def test_service_name_is_missing_only_without_a_command() -> None:
    """`engram run` names the service; plain instrumentation does not."""
    unnamed = list(environment.check({}, named=False))
    assert [one.level for one in unnamed if one.about == "service.name"] == [Level.WARNING]
    for said in ({"OTEL_SERVICE_NAME": "a"}, {"OTEL_RESOURCE_ATTRIBUTES": "x=y,service.name=b"}):
        assert problems(said) == []


def checked(*command: str, **variables: str) -> dict[str, Finding]:
    """What the interpreter of a command has, by what it is about."""
    found = interpreter.check(None, command or (sys.executable,), {**_OURS, **variables})
    return {one.about: one for one in found}


def test_this_environment_is_instrumented() -> None:
    """The distribution starts in the probe, and says what it instrumented."""
    found = checked()
    assert found["python"].level is Level.OK, found["python"]
    assert found["httpx"].text == "instrumented"
    assert "FastAPI's own telemetry" in found["fastapi"].text
    assert found["capture logs"].level is Level.OK


def test_a_library_beyond_its_cap(tmp_path: Path) -> None:
    """An OpenAI client newer than its instrumentation is said with both releases."""
    stub = tmp_path / "openai-9.1.0.dist-info"
    stub.mkdir()
    (stub / "METADATA").write_text("Metadata-Version: 2.1\nName: openai\nVersion: 9.1.0\n")
    found = checked(PYTHONPATH=str(tmp_path))["openai"]
    assert found.level is Level.WARNING
    assert "openai 9.1.0" in found.text
    plain = checked(PYTHONPATH=str(tmp_path), OTEL_PYTHON_DISTRO="distro")
    assert plain["openai"].level is Level.PROBLEM
    assert "<4" in plain["openai"].text


def test_two_instrumentations_of_one_library(tmp_path: Path) -> None:
    """Two packages under one name count every call twice."""
    stub = tmp_path / "rival_openai-1.0.dist-info"
    stub.mkdir()
    (stub / "METADATA").write_text("Metadata-Version: 2.1\nName: rival-openai\nVersion: 1.0\n")
    (stub / "entry_points.txt").write_text("[opentelemetry_instrumentor]\nopenai = nowhere:No\n")
    found = checked(PYTHONPATH=str(tmp_path))["instrumented"]
    assert found.level is Level.PROBLEM
    assert "rival-openai" in found.text


def test_what_is_switched_off_is_said() -> None:
    """By the environment: a warning with the variable."""
    found = checked(OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="httpx")["httpx"]
    assert found.level is Level.WARNING
    assert "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS" in found.text


def test_isolated_python() -> None:
    """`python -I` reads no PYTHONPATH: nothing starts."""
    found = checked(sys.executable, "-I", "app.py")["python"]
    assert found.level is Level.PROBLEM
    assert "-I" in found.text


def test_an_interpreter_without_engram(tmp_path: Path) -> None:
    """The app's environment is looked at, not the one of the command: by path, by script."""
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    python = tmp_path / "bare" / "bin" / "python"
    script = tmp_path / "serve"
    script.write_text(f"#!{python}\nprint(1)\n")
    script.chmod(0o755)
    for command in ((str(python), "app.py"), (str(script),), ("engram", "run", "--", str(script))):
        found = checked(*command)["python"]
        assert found.level is Level.PROBLEM
        assert "has no engram" in found.text
        assert str(python) in found.text


def test_what_is_no_python_program() -> None:
    """A shell, or nothing at all, is said and not guessed."""
    assert "no Python program" in checked("/bin/sh", "-c", "x")["python"].text
    assert "no program" in checked("no-such-program")["python"].text
