"""The shop of `examples/`, which imports nothing of ours: every fact is one memory, none missing.

The numbers are those of the table in docs/shop.md.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from examples import fake_llm
from tests.instrumentation.running import BIN, collecting, eventually, free_port, running

ROOT = Path(__file__).parents[2]
SHOP = ROOT / "examples/shop"
REQUESTS = 19


def table() -> dict[str, int]:
    """Type and number of times, as the docs say."""
    text = (ROOT / "docs/shop.md").read_text()
    return {name: int(times) for name, times in re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.M)}


@pytest.fixture(scope="module")
def memories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """What one round of customers leaves behind, the waiting for the shop's door left out."""
    folder = tmp_path_factory.mktemp("shop")
    outside_port, port = free_port(), free_port()
    outside = subprocess.Popen([sys.executable, SHOP / "outside.py", str(outside_port)])
    try:
        with fake_llm.serving() as model, collecting(folder / "engram") as collector:
            settings = {
                "SHOP_OUTSIDE": f"http://127.0.0.1:{outside_port}",
                "SHOP_SYNC_S": "1",
                "OPENAI_BASE_URL": f"{model}/v1",
                "OPENAI_API_KEY": "none",
                "OTEL_METRIC_EXPORT_INTERVAL": "1000",
            }
            launch: list[str | Path] = [
                BIN / "uvicorn",
                "--app-dir",
                SHOP,
                "--port",
                str(port),
                *("--log-level", "warning", "app:app"),  # or it tells of its start and end
            ]
            with running(
                folder, [*map(str, launch)], endpoint=collector.url, service="shop", port=port,
                environment=settings,
            ) as shop:  # fmt: skip

                def done() -> Counter[str]:
                    return Counter(memory["type"] for memory in collector.memories("shop"))

                # The waiting asked for `/` until it was there; what it left is not of the round.
                assert eventually(lambda: done()["request_outcome"])
                known = {memory["id"] for memory in collector.memories("shop", *DOOR)}
                customers = [sys.executable, str(SHOP / "customers.py"), shop.url, "--seconds", "0"]
                said = subprocess.run(customers, capture_output=True, text=True, timeout=120)
                assert said.returncode == 0, said.stderr
                assert eventually(lambda: done()["integration_sync"] >= 2)
            # It has ended, and what it had to say is on the way or there.
            before = eventually(
                lambda: done()["request_outcome"] >= REQUESTS + len(known) // 2 and done()
            )
            assert before
            last = before
            while (now := eventually(done)) != last:
                last = now
            yield [one for one in collector.memories("shop") if one["id"] not in known]
    finally:
        outside.terminate()
        outside.wait(10)


DOOR = ("request_intent", "request_outcome")


def of_job(memory: dict[str, Any]) -> bool:
    """Whether it is of the job on the clock, which runs as often as it likes."""
    return memory["type"] in ("integration_sync", "performance_metric") or (
        "catalogue" in memory["title"] or "JSONDecodeError" in memory["title"]
    )


def test_every_fact_is_one_memory(memories: list[dict[str, Any]]) -> None:
    """As many of each type as the table says, and no other type."""
    found = Counter(memory["type"] for memory in memories if not of_job(memory))
    titles = sorted((memory["type"], memory["title"]) for memory in memories if not of_job(memory))
    assert found == Counter({name: times for name, times in table().items() if times}), titles
    assert {memory["type"] for memory in memories} == set(table())


def test_the_job_is_told_once_for_each_run(memories: list[dict[str, Any]]) -> None:
    """Each run is a sync and a call; each that failed is one error. The stop may cut one short."""
    syncs = [memory for memory in memories if memory["type"] == "integration_sync"]
    failed = [one for one in syncs if one["outcome"] == "error"]
    assert len(syncs) >= 2
    assert failed
    for type_, told in (("api_call", syncs), ("system_error", failed)):
        runs = Counter(one["trace_id"] for one in told)
        also = Counter(one["trace_id"] for one in memories if one["type"] == type_ and of_job(one))
        assert {*runs.values(), *also.values()} == {1}
        assert runs.keys() <= also.keys()
        assert len(also) <= len(runs) + 1


def test_what_was_said_and_by_whom_is_there(memories: list[dict[str, Any]]) -> None:
    """Bodies, errors, conversations, states."""
    text = {memory["title"]: memory["content"] or "" for memory in memories}
    orders = [memory for memory in memories if memory["title"] == "Intent: POST /orders"]
    assert sum('"quantity":3' in memory["content"].replace(" ", "") for memory in orders) == 2
    (declined,) = (title for title in text if title.startswith("PaymentDeclined"))
    assert "app.py" in text[declined]
    refund = [
        one for one in memories if one["type"] == "langgraph_outcome" and "refund" in one["title"]
    ]
    assert len(refund) == 1
    assert "granted" in (refund[0]["content"] or "")
    talks = {one["conversation_id"] for one in memories if one["type"] == "ai_response"}
    assert len(talks - {None}) == 2


def test_the_shop_knows_nothing_of_us() -> None:
    """No import of Engram or OpenTelemetry in it."""
    for path in SHOP.glob("*.py"):
        assert not re.search(r"^\s*(from|import) (engram|opentelemetry)", path.read_text(), re.M)
