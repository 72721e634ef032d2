"""What Engram learns of the shop by itself: every planted fault, and nothing of a clean one."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from examples import fake_llm
from examples.shop import customers
from tests.collector.chromium import CHROMIUM, Chromium, until
from tests.instrumentation.running import (
    BIN,
    Collector,
    Program,
    collecting,
    eventually,
    free_port,
    running,
)

from engram.exporters.ask import ask
from engram.learning.jobs import JOBS, Runner
from engram.learning.jobs.errors import LASTS

ROOT = Path(__file__).parents[2]
SHOP = ROOT / "examples/shop"
REQUESTS = 320
HOUR = 3600 * 10**9

FOUND = {
    "declined": ("errors", "New error in shop: PaymentDeclined"),
    "n_plus_one": ("optimizations", "N+1 calls in GET /orders/{customer}"),
    "slow_search": ("performance", "Slow requests in shop: GET /search"),
    "retries": ("optimizations", "Retries without a pause in POST /orders"),
    "lost_task": ("errors", "New error in shop: ConnectionError in engram.concurrency"),
    "bad_catalogue": ("errors", "New error in shop: JSONDecodeError"),
    "same_prompt": ("optimizations", "The same prompt again in POST /assistant"),
    "broken_page": ("errors", "New error in shop-page: TypeError"),
}
"""By planted fault, which job says it and how."""

CONSEQUENCES = ("503 in GET /stock/teapot", "OutOfStock", "sync_catalogue", "POST /orders fails")
"""What faults bring about besides: true statements on the same things."""

LASTING = f", {LASTS} times by now"
"""Said once of a new error that stays, when so many were new that the first was said quietly."""


def learned(folder: Path, faults: str) -> list[tuple[str, str]]:
    """What the jobs say of a shop with some faults, an hour after its customers: job and title."""
    outside_port, port = free_port(), free_port()
    outside = subprocess.Popen([sys.executable, SHOP / "outside.py", str(outside_port)])
    try:
        with fake_llm.serving() as model, collecting(folder / "engram") as collector:
            settings = {
                "SHOP_OUTSIDE": f"http://127.0.0.1:{outside_port}", "SHOP_FAULTS": faults,
                "SHOP_VERSION": "1.1.0", "SHOP_SYNC_S": "1", "OPENAI_BASE_URL": f"{model}/v1",
                "OPENAI_API_KEY": "none", "SHOP_ENGRAM": collector.url,
                "OTEL_RESOURCE_ATTRIBUTES": "service.version=1.1.0",
            }  # fmt: skip
            launch: list[str | Path] = [
                BIN / "uvicorn", "--app-dir", SHOP, "--port", str(port),
                "--log-level", "warning", "app:app",
            ]  # fmt: skip
            with running(
                folder, launch, endpoint=collector.url, service="shop", port=port,
                environment=settings,
            ) as shop:  # fmt: skip
                dice = random.Random(7)
                asks = list(customers.all_of_it(dice))
                asks += [customers.some(dice) for _ in range(REQUESTS - len(asks))]
                for one in asks:
                    customers.send(shop.url, one)
                if CHROMIUM is not None:
                    visit(folder, shop)
                time.sleep(1)
            return statements(collector)
    finally:
        outside.terminate()
        outside.wait(10)


def visit(folder: Path, shop: Program) -> None:
    """A person at the page, who tries the voucher three times."""
    chromium = Chromium(folder / "chromium")
    try:
        with chromium.tab() as tab:
            tab.go(f"{shop.url}/")
            until(lambda: tab.run("!!document.querySelector('#voucher')"), "the page")
            for _ in range(3):
                tab.click("#voucher")
                time.sleep(0.3)
            time.sleep(2)
    finally:
        chromium.close()


def statements(collector: Collector) -> list[tuple[str, str]]:
    """Run all jobs, as it were an hour later."""
    ask(collector.home, "flush")
    runner = Runner(collector.home, JOBS, clock=lambda: time.time_ns() + HOUR)
    assert [run.error for run in runner.step() if run.error] == []
    ask(collector.home, "flush")

    def said() -> list[tuple[str, str]]:
        return [
            (next(tag[4:] for tag in row["tags"] if tag.startswith("job:")), row["title"])
            for service in ("shop", "shop-page", "engram")
            for row in collector.memories(service)
            if row["trust"] == "engram"
        ]

    eventually(said, seconds=5)
    return sorted(said())


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """What is said of the shop with all faults."""
    return learned(tmp_path_factory.mktemp("faulty"), "all")


@pytest.mark.parametrize("fault", sorted(FOUND))
def test_every_planted_fault_is_found(fault: str, faulty: list[tuple[str, str]]) -> None:
    """By the job whose business it is, once."""
    if fault == "broken_page" and CHROMIUM is None:
        pytest.skip("Chromium is not installed: nobody clicks")
    job, title = FOUND[fault]
    assert len([one for one in faulty if one[0] == job and one[1].startswith(title)]) == 1, faulty


def test_nothing_else_is_said(faulty: list[tuple[str, str]]) -> None:
    """But what the faults bring about."""
    known = tuple(title for _, title in FOUND.values())
    others = [
        title
        for _, title in faulty
        if not title.replace(LASTING, "").startswith(known)
        and not any(word in title for word in CONSEQUENCES)
    ]
    assert others == []


def test_nothing_is_said_of_a_clean_shop(tmp_path: Path) -> None:
    """Of the same customers."""
    assert learned(tmp_path, "none") == []
