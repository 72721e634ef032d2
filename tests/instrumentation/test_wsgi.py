"""Flask and Django under `engram run`: what a request wants is told before its view runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.instrumentation.running import BIN, Collector, collecting, free_port, running

FLASK = """
import os, time
from flask import Flask, request

app = Flask(__name__)

@app.get("/")
def root(): return "up"
@app.post("/orders/<shop>")
def order(shop): return {"got": request.get_json(), "again": request.get_data(as_text=True)}
@app.post("/raw")
def raw(): return {"stream": request.stream.read().decode()}
@app.post("/wsgi")
def wsgi(): return {"stream": request.environ["wsgi.input"].read().decode()}
@app.post("/hangs")
def hangs(): time.sleep(60)
"""

SETTINGS = """
DEBUG, SECRET_KEY, ALLOWED_HOSTS, ROOT_URLCONF = False, "x", ["*"], "shop"
MIDDLEWARE = ["shop.marks"]
"""

DJANGO = """
import os, time
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop_settings")
from django.http import JsonResponse
from django.urls import path

def marks(get_response):
    def middleware(request):
        response = get_response(request)
        response["x-mine"] = "yes"
        return response
    return middleware
def root(request): return JsonResponse({"up": True})
def order(request, shop):
    import json
    return JsonResponse({"got": json.loads(request.body), "again": request.body.decode()})
def raw(request): return JsonResponse({"stream": request.read().decode()})
def hangs(request): time.sleep(60)
urlpatterns = [path("", root), path("orders/<shop>", order), path("raw", raw), path("hangs", hangs)]
from django.core.wsgi import get_wsgi_application
app = get_wsgi_application()
"""

ROUTES = {"flask": "/orders/<shop>", "django": "orders/<shop>"}


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector for all tests of this file."""
    with collecting(tmp_path_factory.mktemp("collect")) as one:
        yield one


def serve(port: int) -> list[str | Path]:
    """Gunicorn with one worker."""
    return [BIN / "gunicorn", "-w", "1", "-b", f"127.0.0.1:{port}", "shop:app"]


def answer(url: str, body: bytes) -> str:
    """What is answered to a POST of JSON."""
    import urllib.request

    asked = urllib.request.Request(
        url, data=body, headers={"content-type": "application/json", "x-user-id": "u-1"}
    )
    with urllib.request.urlopen(asked, timeout=30) as response:
        told: str = response.read().decode()
        return told + str(response.headers.get("x-mine", ""))


def write(folder: Path, framework: str) -> None:
    """The app."""
    (folder / "shop.py").write_text(FLASK if framework == "flask" else DJANGO)
    (folder / "shop_settings.py").write_text(SETTINGS)


@pytest.mark.parametrize("framework", ["flask", "django"])
def test_route_arguments_and_body(collector: Collector, tmp_path: Path, framework: str) -> None:
    """Redacted, once for each request; and the app still reads its body as it likes."""
    write(tmp_path, framework)
    port = free_port()
    body = b'{"item": "tea", "password": "hunter2"}'
    with running(
        tmp_path, serve(port), endpoint=collector.url, service=framework, port=port
    ) as app:
        told = answer(f"{app.url}/orders/berlin?express=1&gift=a&gift=b", body)
        assert told.count("hunter2") == 2
        assert told.endswith("yes") is (framework == "django")  # the app's own settings hold
        for path in ("/raw", *(["/wsgi"] if framework == "flask" else [])):
            assert "hunter2" in answer(app.url + path, body)
    ended = collector.wait(framework, "request_outcome", "orders/")
    (intent,) = collector.wait(framework, "request_intent", "tea")[:1]
    same = [
        row for row in collector.memories(framework, "request_intent")
        if row["trace_id"] == intent["trace_id"]
    ]  # fmt: skip
    assert len(same) == 1
    assert len(intent["sources"]) == 2  # the event before the work and the span after it
    assert ROUTES[framework] in intent["title"]
    assert '"shop": "berlin"' in intent["content"]
    assert '"express": "1"' in intent["content"]
    assert '["a", "b"]' in intent["content"]
    assert "hunter2" not in str(intent)
    assert intent["user_id"] == "u-1"
    assert len(ended) == 1


@pytest.mark.parametrize("framework", ["flask", "django"])
def test_an_intent_survives_kill_9(collector: Collector, tmp_path: Path, framework: str) -> None:
    """The worker dies in the middle of a request."""
    write(tmp_path, framework)
    port, service = free_port(), f"{framework}-dies"
    with running(tmp_path, serve(port), endpoint=collector.url, service=service, port=port) as app:
        asking: subprocess.Popen[Any] = subprocess.Popen(
            [sys.executable, "-c", "import sys, urllib.request as u; u.urlopen(u.Request("
             "sys.argv[1], data=b'{\"item\": \"the last one\"}',"
             "headers={'content-type': 'application/json'}))", f"{app.url}/hangs"],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        collector.wait(service, "request_intent", "the last one")
        os.killpg(app.process.pid, signal.SIGKILL)
        asking.wait(20)
    (intent,) = collector.wait(service, "request_intent", "the last one")
    assert len(intent["sources"]) == 1
    ended = collector.memories(service, "request_outcome")
    assert [row["title"] for row in ended if "hangs" in row["title"]] == []
