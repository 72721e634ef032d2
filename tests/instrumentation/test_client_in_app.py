"""The error handler, the endpoint's memory and `decide`, in an app that may find nobody."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from engram.instrumentation import decide, endpoint_memory, error_handler, handle_error, remedy
from engram.instrumentation.api import asking, remedies
from engram.instrumentation.api.endpoints import EndpointCache


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody answers, and what a test registers goes with it."""
    monkeypatch.setenv("ENGRAM_API", "http://127.0.0.1:9")
    monkeypatch.setattr(remedies, "_registered", {})
    asking.client.cache_clear()
    yield
    asking.client.cache_clear()


def test_an_error_of_fastapi_is_remedied_and_still_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off, dry-run, on; the answer is 500 each time."""
    ran: list[str] = []
    remedy("mend", "ZeroDivisionError")(lambda error: ran.append(str(error)))
    app = FastAPI()
    error_handler(app)
    app.get("/x")(lambda: 1 / 0)
    client = TestClient(app, raise_server_exceptions=False)
    for mode, times in (("off", 0), ("dry-run", 0), ("on", 1)):
        monkeypatch.setenv("ENGRAM_REMEDIES", mode)
        assert client.get("/x").status_code == 500
        assert len(ran) == times
    with pytest.raises(ZeroDivisionError):
        TestClient(app).get("/x")


def test_errors_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook that was there is still called, in the main thread and in others."""
    monkeypatch.setenv("ENGRAM_REMEDIES", "on")
    ran: list[str] = []
    before: list[Any] = []
    remedy("mend", ValueError)(lambda error: ran.append(str(error)))
    monkeypatch.setattr(sys, "excepthook", lambda *said: before.append(said[1]))
    monkeypatch.setattr(threading, "excepthook", lambda said: before.append(said.exc_value))
    error_handler()
    main, other = ValueError("a"), ValueError("b")
    sys.excepthook(ValueError, main, None)
    threading.excepthook(threading.ExceptHookArgs((ValueError, other, None, None)))
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert ran == ["a", "b"]
    assert before[:2] == [main, other]
    assert len(before) == 3


def test_what_was_done_is_told() -> None:
    """With remedies off: remembered, nothing known, nothing run."""
    handled = handle_error(OSError("disk"))
    assert len(handled.memory_id) == 24
    assert (handled.known, handled.run, handled.fixed) == ({}, None, False)


def test_an_endpoint_does_not_wait_for_its_memory() -> None:
    """The first request gets nothing at once, one question is asked, later ones get the answer."""
    go, asked = threading.Event(), []

    def ask(operation: str) -> dict[str, Any]:
        asked.append(operation)
        go.wait(20)
        return {"n": 3}

    cache = EndpointCache(ask, fresh_s=1e9)
    assert [cache.get("GET /x") for _ in range(5)] == [{}] * 5
    go.set()
    deadline = time.monotonic() + 20
    while not cache.get("GET /x") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert cache.get("GET /x") == {"n": 3}
    assert asked == ["GET /x"]


def test_the_dependency_in_an_app() -> None:
    """FastAPI gives it the request; nobody there is an empty dict."""
    app = FastAPI()

    @app.get("/orders/{n}")
    def read(n: int, known: Annotated[dict[str, Any], Depends(endpoint_memory())]) -> Any:
        return {"known": known}

    assert TestClient(app).get("/orders/3").json() == {"known": {}}


def test_a_policy_decides() -> None:
    """By options and history; its own errors are the app's."""
    made = decide("ship", ["a", "b"], lambda options, history: options[len(history)])
    assert (made.chosen, made.history, len(made.id)) == ("a", {}, 24)
    with pytest.raises(IndexError):
        decide("ship", [], lambda options, history: options[0])
