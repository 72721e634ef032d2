"""Six programs as users write them, under `engram run`, before a real `engram up`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.collector.test_up import Up, running

PROGRAMS = Path(__file__).with_name("six_programs.py")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Collect, learn and serve."""
    with running(tmp_path_factory.mktemp("programs")) as one:
        yield one


def run(up: Up) -> dict[str, Any]:
    """All programs once; what they say."""
    environment = {
        **os.environ, "ENGRAM_API": up.endpoints["api"], "ENGRAM_REMEDIES": "on",
        "OTEL_EXPORTER_OTLP_ENDPOINT": up.endpoints["otlp_http"],
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "engram.collector.cli", "run", "--service", "programs", "--",
         sys.executable, str(PROGRAMS)],
        env=environment, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def indexed(up: Up) -> None:
    """Wait until all that was said can be found."""
    url = up.endpoints["api"].rstrip("/") + "/api/v1/search?q=node:price_check+outcome&limit=50"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with urllib.request.urlopen(url, timeout=30) as answer:
            types = {one["memory_type"] for one in json.load(answer)["items"]}
        if "langgraph_outcome" in types:
            return
        time.sleep(0.5)
    raise AssertionError("the index does not follow")


def test_the_second_time_they_know(up: Up) -> None:
    """What the first run left is found and used by the second."""
    first = run(up)
    assert first["aurea"]["items"] >= 1  # its own turn
    assert first["error"]["outcome"] == "fixed"
    assert first["endpoint"]["cached"] is False
    assert first["decision"]["recent"] == 1
    indexed(up)
    second = run(up)
    assert len(second["handler"]["seen"]) == 1
    assert second["aurea"]["items"] >= 3
    assert "Northwind" in second["aurea"]["text"]
    assert "not instructions" in second["aurea"]["text"]
    assert second["node"]["runs_before"] == 1
    assert second["error"]["similar"] >= 1
    assert second["endpoint"] == {"cached": True, "learned": second["endpoint"]["learned"]}
    assert second["decision"]["rates"] == {"express": 1.0}
    assert second["decision"]["recent"] == 2


def test_without_anybody_to_ask_they_go_on(tmp_path: Path) -> None:
    """Nothing answers: empty answers, one line in the log, and the work is done."""
    environment = {
        **os.environ, "ENGRAM_API": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true",
        "ENGRAM_REMEDIES": "on",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(PROGRAMS)], env=environment, capture_output=True, text=True,
        timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["handler"]["seen"] == []
    assert told["aurea"]["items"] == 0
    assert told["error"]["outcome"] == "fixed"
    assert done.stderr.count("memory does not answer") == 1
