"""The examples in other languages, over plain OTLP: what they leave behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.interop.collecting import Collecting, collecting
from tests.interop.packages import installed

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collecting]:
    """One collector for all examples."""
    with collecting(tmp_path_factory.mktemp("examples") / "home") as running:
        yield running


def kinds(target: Collecting, service: str) -> Counter[str]:
    """How many memories of each type a service has."""
    return Counter(row["type"] for row in target.rows("memories", service))


def test_node(target: Collecting, pytestconfig: pytest.Config) -> None:
    """Three tickets and a customer too many; each request and decision once."""
    place = installed(pytestconfig, EXAMPLES / "node")
    own = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    own |= {
        "OTEL_SERVICE_NAME": "tickets",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{target.http_port}",
    }
    office = subprocess.Popen(
        ["node", "--require", "./telemetry.js", "app.js", "0"],
        cwd=place, env=own, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert office.stdout is not None
        port = int(office.stdout.readline())
        statuses = []
        for _ in range(4):
            buy = urllib.request.Request(f"http://127.0.0.1:{port}/tickets", data=b"{}")
            try:
                with urllib.request.urlopen(buy, timeout=30) as answer:
                    statuses.append(answer.status)
            except urllib.error.HTTPError as error:
                statuses.append(error.code)
                error.close()
        assert statuses == [201, 201, 201, 409]
        office.terminate()
        assert office.wait(30) == 0
    finally:
        office.kill()
        office.communicate()
    found = kinds(target, "tickets")
    del found["performance_metric"]  # what Node measures of itself
    assert found == {
        "request_intent": 4, "request_outcome": 4, "business_decision": 4,
    }  # fmt: skip
    rows = target.rows("memories", "tickets")
    titles = [row["title"] for row in rows if row["type"] != "performance_metric"]
    assert titles.count("Send the customer home") == 1
    assert sum("409" in title for title in titles) == 1


def test_java(target: Collecting) -> None:
    """A job of a clock that fails, and what it decides: without any package."""
    if shutil.which("java") is None or shutil.which("javac") is None:
        pytest.skip("no Java here: its example is not tested")
    run = ["java", str(EXAMPLES / "java/Nightly.java"), f"http://127.0.0.1:{target.http_port}"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    trace = done.stdout.strip()
    rows = {row["type"]: row for row in target.rows("memories", "nightly")}
    assert {row["trace_id"] for row in rows.values()} == {trace}
    assert rows["business_decision"]["title"] == "Keep the old prices"
    assert rows["integration_sync"]["outcome"] == "error"
    assert "12 prices" in rows["system_error"]["title"]
