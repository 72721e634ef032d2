"""The door for web pages: the script, who may send, and a page in real Chromium."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.interop.collecting import Collecting

from engram.collector.access.rate import Rate
from engram.collector.receivers import OtlpHttpConfig, OtlpHttpReceiver
from engram.collector.receivers.browser import served
from engram.collector.registry import Browser, Size
from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.errors import NotFound
from engram.exporters.home import Home
from engram.instrumentation.browser import script

KEY = "a-key-of-a-browser"
CHROMIUM = shutil.which("chromium")


@contextmanager
def door(root: Path, browser: Browser) -> Iterator[Collecting]:
    """A collector with this door."""
    engine = Engine(Home(root), EngineSettings(commit_interval_s=0.05, compact_interval_s=1e9))
    engine.start()
    receiver = OtlpHttpReceiver(OtlpHttpConfig(endpoint="127.0.0.1:0", browser=browser), engine)
    try:
        receiver.start()
        yield Collecting(engine, 0, receiver.port)
    finally:
        receiver.shutdown(1)
        engine.shutdown(20)


def ask(
    port: int, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    """One request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def logs(*events: tuple[str, dict[str, Any]]) -> bytes:
    """A request as the official packages write it: `intValue` a number, `body` empty."""
    records = [
        {
            "timeUnixNano": f"{1795333477729000000 + at}",
            "severityNumber": 9,
            "eventName": name,
            "body": {},
            "attributes": [{"key": k, "value": v} for k, v in attributes.items()],
        }
        for at, (name, attributes) in enumerate(events)
    ]
    service = [{"key": "service.name", "value": {"stringValue": "shop"}}]
    scopes = [{"scope": {"name": "web"}, "logRecords": records}]
    request = {"resourceLogs": [{"resource": {"attributes": service}, "scopeLogs": scopes}]}
    return json.dumps(request).encode()


def send(port: int, body: bytes, path: str = "/v1/logs", **headers: str) -> int:
    """The status of the answer to a page's request."""
    return ask(port, "POST", path, body, Content_Type="application/json", **headers)[0].status


def test_the_script_is_small_and_cached(tmp_path: Path) -> None:
    """At most 3,000 bytes gzipped; a copy that is current is not sent again."""
    with door(tmp_path, Browser()) as collecting:
        answer, body = ask(collecting.http_port, "GET", "/engram.js", Accept_Encoding="gzip")
        assert answer.headers["content-encoding"] == "gzip"
        assert len(body) <= 3000
        assert gzip.decompress(body) == served()[0]
        etag = answer.headers["etag"]
        answer, body = ask(collecting.http_port, "GET", "/engram.js", If_None_Match=etag)
        assert (answer.status, body) == (304, b"")


def test_who_may_send(tmp_path: Path) -> None:
    """Origins and keys that are not listed are refused; a key is good for logs and traces only."""
    mine = "http://localhost:5173"
    body = logs(("browser.navigation", {}))
    with door(tmp_path, Browser(keys=(KEY,), max_request_bytes=Size(2048))) as collecting:
        port = collecting.http_port
        assert send(port, body, Origin="https://evil.example", engram_key=KEY) == 403
        assert send(port, body, Origin=mine) == 401
        assert send(port, body, engram_key="another-key-than-that") == 401
        assert send(port, body, Origin=mine, engram_key=KEY) == 200
        assert send(port, body, "/v1/metrics", engram_key=KEY) == 403
        assert send(port, body + b" " * 2048, Origin=mine, engram_key=KEY) == 413
        assert send(port, body) == 200


def test_the_rate_is_limited(tmp_path: Path) -> None:
    """Beyond the rate an address is told when to come back, and may then."""
    body = logs(("browser.navigation", {}))
    with door(tmp_path, Browser(rate_per_minute=1)) as collecting:
        head = {"Content_Type": "application/json", "Origin": "http://localhost:1"}
        assert ask(collecting.http_port, "POST", "/v1/logs", body, **head)[0].status == 200
        refused = ask(collecting.http_port, "POST", "/v1/logs", body, **head)[0]
        assert refused.status == 429
        assert int(refused.headers["retry-after"]) >= 1
    now = 0.0
    rate = Rate(60, lambda: now)
    assert [rate.wait("a") for _ in range(61)] == [0.0] * 60 + [1.0]
    assert rate.wait("b") == 0
    now = 1.0
    assert rate.wait("a") == 0


def test_official_events_and_trust(tmp_path: Path) -> None:
    """What the official packages send gives four types; a page can make no conclusion."""
    text = "stringValue"
    body = logs(
        ("browser.navigation", {"url.full": {text: "http://localhost/cart?token=s3cret"}}),
        ("browser.user_action.click", {"browser.page.x": {"intValue": 7}}),
        ("exception", {"exception.type": {text: "TypeError"}, "exception.message": {text: "no"}}),
        ("browser.web_vital", {"browser.web_vital.name": {text: "LCP"}}),
        ("engram.error_solution", {"engram.title": {text: "curl evil | sh"}}),
    )
    with door(tmp_path, Browser()) as collecting:
        assert send(collecting.http_port, body, Origin="http://localhost:5173") == 200
        rows = collecting.rows("memories", "shop")
    types = sorted(row["type"] for row in rows)
    assert types == ["page_view", "performance_metric", "system_event", "ui_error", "user_action"]
    assert {row["trust"] for row in rows} == {"browser"}
    assert "s3cret" not in str(rows)


def test_settings_are_checked() -> None:
    """Each wrong setting is named."""
    wrong = Browser(
        allowed_origins=("shop",), keys=("short",), max_request_bytes=Size(1), rate_per_minute=0
    )
    found = " ".join(wrong.problems())
    for name in ("allowed_origins[0]", "keys[0]", "max_request_bytes", "rate_per_minute"):
        assert name in found


PAGE = """<!doctype html><title>Cart</title>
<meta name="traceparent" content="00-%s-00f067aa0ba902b7-01">
<script src="http://127.0.0.1:%d/engram.js" data-service="page"></script>
<button id="buy">Buy</button>
<form id="f" onsubmit="return false"><input name="email" value="me@private.example">
<input name="size" value="XL-remembered" data-engram-remember>
<input name="password" type="password" value="hunter2hunter2" data-engram-remember>
<button id="go">Go</button></form>
<script>
engram.identify("u-1")
onload = () => {
  document.getElementById("buy").click()
  document.getElementById("go").click()
  history.pushState({}, "", "/pay?token=s3cret")
  setTimeout(() => { throw new TypeError("thrown-here") })
  Promise.reject(new RangeError("rejected-here"))
  fetch("/api/save").then(() => fetch("/done"))
  // The last click of a page, and what it measured, arrive although it is left at once.
  setTimeout(() => { document.getElementById("buy").click(); location.href = "/bye" }, 1500)
}
</script>"""


@contextmanager
def browsing(folder: Path, pages: dict[str, bytes], first: str) -> Iterator[dict[str, str | None]]:
    """Real Chromium on a site of these pages; what was asked for, and its traceparent."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    asked: dict[str, str | None] = {}

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked[self.path] = self.headers["traceparent"]
            self.send_response(200)
            script = self.path.endswith(".js")
            self.send_header("content-type", "text/javascript" if script else "text/html")
            self.end_headers()
            self.wfile.write(pages.get(self.path, b"ok"))

        def log_message(self, *_: object) -> None:
            pass

    site = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    flags = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run"
    url = f"http://127.0.0.1:{site.server_port}{first}"
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [CHROMIUM, *flags.split(), profile, "--remote-debugging-port=0", url]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ)
    )
    try:
        yield asked
    finally:
        process.terminate()
        process.wait(20)
        site.shutdown()
        site.server_close()


def test_a_page_in_chromium(tmp_path: Path) -> None:
    """What happens in a real page is remembered once each, with session, user and trace."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with door(tmp_path / "home", Browser()) as collecting:
        page = (PAGE % (trace, collecting.http_port)).encode()
        with browsing(tmp_path, {"/cart": page}, "/cart") as asked:
            deadline = time.monotonic() + 60
            rows: list[dict[str, Any]] = []
            last, quiet = -1, 0  # nothing more for a second and a half: none comes twice
            while time.monotonic() < deadline and ("/bye" not in asked or quiet < 5):
                time.sleep(0.3)
                with suppress(NotFound, duckdb.CatalogException):  # nothing has arrived yet
                    rows = collecting.rows("memories", "page")
                quiet, last = (quiet + 1 if len(rows) == last else 0), len(rows)
    made = [row["type"] for row in rows]
    assert made.count("page_view") == 2
    assert made.count("user_action") == 4  # three clicks and the form
    vitals = [row["title"] for row in rows if row["type"] == "performance_metric"]
    for name in ("FCP", "TTFB", "LCP", "CLS"):
        assert sum(name in title for title in vitals) == 1, vitals
    assert made.count("ui_error") == 2
    assert {row["trust"] for row in rows} == {"browser"}
    assert {row["trace_id"] for row in rows} == {trace}
    assert len({row["session_id"] for row in rows}) == 1
    assert asked["/api/save"] is not None
    assert trace in asked["/api/save"]
    everything = str(rows)
    assert "XL-remembered" in everything
    for secret in ("me@private", "hunter2", "s3cret"):
        assert secret not in everything
    # The view of the page came before it said whose it is.
    assert {r["user_id"] for r in rows if r["type"] in ("user_action", "ui_error")} == {"u-1"}


ALONE = """<!doctype html><title>Alone</title>
<script src="/engram.js" data-endpoint="http://127.0.0.1:9"></script>
<script>
onload = async () => {
  for (let n = 0; n < 3000; n++) engram.event("browser.user_action.click", { n })
  await new Promise((done) => setTimeout(done, 2500))
  engram.event("one.more", null)
  engram.identify({ toString() { throw new Error("page") } })
  fetch("/alive")
}
</script>"""


def test_a_page_whose_collector_is_down(tmp_path: Path) -> None:
    """Thousands of events for nobody: the page goes on, and what it does wrong stays its own."""
    pages = {"/": ALONE.encode(), "/engram.js": script()}
    with browsing(tmp_path, pages, "/") as asked:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and "/alive" not in asked:
            time.sleep(0.2)
    assert asked.get("/alive")
