"""Killed and stopped under load. `bench/crash.py` does it two hundred times."""

from __future__ import annotations

import http.client
import subprocess
import time
from pathlib import Path

from tests.durability import load
from tests.durability.crash import free_port, ready, run, run_roles, start
from tests.durability.verify import stored
from tests.durability.workload import QUIET

from engram.exporters.engine import Engine
from engram.exporters.home import Home


def test_kill_9_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Six kills at random moments under load: what was acknowledged is stored, once."""
    figures = run(Home(tmp_path / "home"), 6, seed=3)
    assert figures.acked > 100
    assert (figures.lost, figures.doubled, figures.quarantined) == (0, 0, 0)
    assert figures.catalogue == []


def test_killed_roles_lose_and_double_nothing(tmp_path: Path) -> None:
    """So do kills of any role of `engram up`, the supervisor among them."""
    figures = run_roles(Home(tmp_path / "home"), tmp_path, 5, seed=7)
    assert len(figures.kills) > 1
    assert figures.acked > 50
    assert (figures.lost, figures.doubled, figures.quarantined) == (0, 0, 0)
    assert figures.catalogue == []


def test_sigterm_with_a_backlog(tmp_path: Path) -> None:
    """With much that is not yet committed, SIGTERM ends it within 5 s, and nothing is lost."""
    home, port = Home(tmp_path / "home"), free_port()
    process = start(home, port, "commit_interval_s=600", "commit_rows=1e9")
    assert ready(process)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    names: list[str] = []
    for i in range(150):
        some = [f"b{i}.{n}" for n in range(300)]
        headers = {"content-type": "application/x-protobuf"}
        for _ in range(30):
            connection.request("POST", "/v1/traces", load.spans(*some), headers)
            answer = connection.getresponse()
            told = answer.read()
            if answer.status != 503:  # of a busy machine: a client sends it again
                break
            time.sleep(1)
        assert answer.status == 200, told
        names += some
    connection.close()
    asked = time.monotonic()
    process.terminate()
    try:
        process.communicate(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert time.monotonic() - asked < 5
    engine = Engine(home, QUIET)
    engine.start()
    engine.wait_committed(engine.end, 60)
    engine.shutdown(30)
    assert stored(home).records == {("spans", name): 1 for name in names}
