"""FastAPI before and since its own telemetry: the same app leaves the same memories."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.instrumentation.running import BIN, Collector, collecting, eventually, free_port, running

APP = """
import logging
from fastapi import BackgroundTasks, FastAPI, HTTPException
from pydantic import BaseModel

app = FastAPI()
log = logging.getLogger("shop")

class Order(BaseModel):
    item: str
    count: int = 1

@app.get("/")
def root(): return {}
@app.get("/items/{number}")
def item(number: int):
    log.warning("item %s is rare", number)
    return {"number": number}
@app.post("/orders")
async def order(order: Order): return {}
@app.get("/teapot")
def teapot(): raise HTTPException(418, "short and stout")
@app.get("/down")
def down(): raise HTTPException(503, "not now")
@app.get("/boom")
def boom(): raise ValueError("kaboom")
@app.get("/later")
def later(background: BackgroundTasks):
    background.add_task(fails)
    return {}
def fails(): raise OSError("no mail")
"""
TYPES = ("request_intent", "request_outcome", "system_error", "workflow_state")
ALIKE = ("type", "title", "content", "outcome", "user_id", "session_id", "subject", "importance")


@pytest.fixture(scope="session")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the last FastAPI that has no telemetry of its own."""
    folder = tmp_path_factory.mktemp("older")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check",
         "--target", folder, "fastapi<0.142"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"pip cannot install an older FastAPI: {done.stderr.strip()[-200:]}")
    assert not (folder / "fastapi" / "telemetry").exists()
    return folder


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """One collector for both."""
    with collecting(tmp_path_factory.mktemp("collector")) as one:
        yield one


def _memories(
    collector: Collector, folder: Path, service: str, path: tuple[Path, ...] = ()
) -> list[tuple[Any, ...]]:
    port = free_port()
    command: list[str | Path] = [BIN / "uvicorn", "app:app", "--port", str(port)]
    with running(
        folder, command, endpoint=collector.url, service=service, port=port, python_path=path
    ) as app:
        who = {"baggage": "user.id=ada,session.id=s1", "user-agent": "test"}
        assert app.get("/items/7?api_key=k1&size=2&size=3", **who) == 200
        assert app.get("/items/seven", **who) == 422
        assert app.post("/orders", {"item": "tea"}, **who) == 200
        assert app.post("/orders", {"count": "many"}, **who) == 422
        assert app.get("/nowhere", **who) == 404
        assert app.get("/teapot", **who) == 418
        assert app.get("/down", **who) == 503
        assert app.get("/boom", **who) == 500
        app.get("/later", **who)
    collector.wait(service, "workflow_state", "fails")

    def rows() -> list[dict[str, Any]]:
        found = [
            row
            for row in collector.memories(service, *TYPES)
            if row["user_id"] == "ada" or row["type"] == "system_error"
        ]
        outcomes = [row for row in found if row["type"] == "request_outcome"]
        return found if len(outcomes) == 9 else []

    found = eventually(rows)
    assert found, [row["title"] for row in collector.memories(service)]
    for row in found:
        if row["type"] == "request_outcome":  # how long it took
            row["title"] = row["title"].rsplit(" in ", 1)[0]
            row["content"] = row["content"].split("\n", 1)[0].rsplit(" in ", 1)[0]
        if row["type"] in ("system_error", "workflow_state"):
            row["content"] = None  # stacks and durations
        if row["type"] == "request_intent":
            row["content"] = row["content"].replace(str(port), "PORT")
    return sorted((tuple(row[name] for name in ALIKE) for row in found), key=repr)


def test_both_generations_give_the_same(collector: Collector, older: Path, tmp_path: Path) -> None:
    """Native telemetry and the contrib instrumentor: equal memories, in type, words and outcome."""
    (tmp_path / "app.py").write_text(APP)
    new = _memories(collector, tmp_path, "new")
    old = _memories(collector, tmp_path, "old", (older,))
    assert [row for row in new if row not in old] == [row for row in old if row not in new]
    assert new == old
    kinds = [row[0] for row in new]
    assert kinds.count("request_intent") == kinds.count("request_outcome") == 9
    said = "\n".join(str(row[2]) for row in new if row[0] == "request_intent")
    assert '"count": "many"' in said  # what was wrong with the request is known
    assert "k1" not in said
