"""Web pages in real Chromium, with a hand that is trusted, before a real `engram collect`."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.collector.chromium import CHROMIUM, Chromium, Tab, until
from tests.collector.test_up import free_port

from engram.exporters.ask import ask
from engram.exporters.errors import EngramError
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_read_only

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"
)

QUIET_S = 1.5
KEY = "a-key-of-a-browser"
CONFIG = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}", browser: {{keys: {keys}}}}}}}}}
processors:
  batch: {{timeout: 100ms}}
exporters:
  memory: {{}}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [batch], exporters: [memory]}}
    logs: {{receivers: [otlp], processors: [batch], exporters: [memory]}}
    metrics: {{receivers: [otlp], processors: [batch], exporters: [memory]}}
"""


@dataclass
class Collect:
    """`engram collect` in a process, which may go and come back."""

    folder: Path
    keys: str = "[]"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it, until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "config.yaml"
        config.write_text(CONFIG.format(port=self.port, keys=self.keys))
        command = [sys.executable, "-m", "engram.collector.cli", "--home", str(self.home.root)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--config", str(config), "collect"], stdout=log, stderr=log
            )
        until(
            lambda: (self.process and self.process.poll() is not None) or self.health(), "started"
        )
        assert self.process.poll() is None, (self.folder / "log").read_text()

    def health(self) -> bool:
        """Whether it answers."""
        try:
            urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """End it. Safe twice."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    @property
    def home(self) -> Home:
        """Its home."""
        return Home(self.folder / "home")

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def script(self, service: str, more: str = "") -> str:
        """The tag that a page has."""
        return f'<script src="{self.url}/engram.js" data-service="{service}" {more}></script>'

    def rows(self, service: str) -> list[dict[str, Any]]:
        """The memories of a service, of all that was acknowledged."""
        with contextlib.suppress(EngramError):
            ask(self.home, "flush")
        try:
            with contextlib.closing(attach_read_only(self.home)) as db:
                found = db.execute(
                    "SELECT * FROM memories WHERE service_name = ? ORDER BY time_unix_nano",
                    [service],
                )
                names = [column[0] for column in found.description]
                return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        except Exception:
            return []

    def settled(
        self, service: str, enough: Callable[[list[dict[str, Any]]], Any]
    ) -> list[dict[str, Any]]:
        """The memories once there are enough, and then none came for a while: none comes twice."""
        rows: list[dict[str, Any]] = []
        deadline, since = time.monotonic() + 60, time.monotonic()
        while time.monotonic() < deadline:
            now = self.rows(service)
            if len(now) != len(rows) or not enough(now):
                since = time.monotonic()
            rows = now
            if time.monotonic() - since > QUIET_S:
                return rows
            time.sleep(0.2)
        raise AssertionError([(row["type"], row["title"]) for row in rows])


@dataclass
class Site:
    """A web server: pages by path, and what was asked of it."""

    server: ThreadingHTTPServer
    pages: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Paths, each with its traceparent."""

    lossy: str = ""
    """The collector behind `/lossy`, of which the first answers get lost on the way."""

    lost: int = 0

    @property
    def url(self) -> str:
        """Its origin."""
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def told(self, path: str) -> str | None:
        """The traceparent of the last request for a path."""
        return next(told for asked, told in reversed(self.asked) if asked == path)


@contextlib.contextmanager
def serving() -> Iterator[Site]:
    """A served on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            served.asked.append((self.path, self.headers["traceparent"]))
            script = self.path.endswith(".js")
            page = served.pages.get(self.path.partition("?")[0], "ok")
            self.answer(200, page.encode(), "text/javascript" if script else "text/html")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            request = urllib.request.Request(
                f"{served.lossy}/v1/logs", body, {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=20) as answer:
                status = answer.status
            if served.lost < 2:
                served.lost += 1
                status = 503
            self.answer(status, b"{}", "application/json")

        def do_OPTIONS(self) -> None:
            self.answer(204, b"", "text/plain")

        def answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("content-type", f"{kind}; charset=utf-8")
            self.send_header("content-length", str(len(body)))
            self.send_header("access-control-allow-origin", "*")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Site(server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def collect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collect]:
    """One collector for the pages that leave it running."""
    one = Collect(tmp_path_factory.mktemp("collect"))
    try:
        one.start()
        yield one
    finally:
        one.stop()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One browser; each test has a context of its own."""
    one = Chromium(tmp_path_factory.mktemp("chromium"))
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def tab(chromium: Chromium) -> Iterator[Tab]:
    """A page of a browser that knows nothing yet."""
    with chromium.tab() as one:
        yield one


@pytest.fixture
def site() -> Iterator[Site]:
    """A site of its own."""
    with serving() as one:
        yield one


def count(rows: list[dict[str, Any]]) -> Counter[str]:
    """How many of each type."""
    return Counter(row["type"] for row in rows)


SHOP = """<!doctype html><title>Shop</title>%s
<h1>Something large enough to be the largest</h1><p id="shifts">moves</p>
<button id="buy">Buy</button><button id="who">Log in</button>
<a id="leave" href="/bye">Leave</a>
<form><input name="email"><input name="size" data-engram-remember>
<input name="note" data-engram-remember>
<input name="cc" autocomplete="cc-number" data-engram-remember>
<input name="word" type="password" data-engram-remember><button>Send</button></form>
<script>
document.forms[0].onsubmit = (event) => { event.preventDefault(); document.title = "sent" }
document.getElementById("who").onclick = () => engram.identify("u-7")
document.getElementById("buy").onclick = () => { // a slow answer to a hand
  for (const end = performance.now() + 60; performance.now() < end;);
}
requestAnimationFrame(() => setTimeout(() => {
  document.getElementById("shifts").style.marginTop = "80px"
  document.title = "Moved"
}, 100))
</script>"""


def test_a_visit(collect: Collect, site: Site, tab: Tab) -> None:
    """A person logs in, types, sends, leaves, comes back and closes: once each, no secret."""
    site.pages["/shop"] = SHOP % collect.script("visit")
    site.pages["/bye"] = "<title>Bye</title>" + collect.script("visit")
    tab.go(f"{site.url}/shop?token=s3cret#access=s3cret")
    until(lambda: tab.run("document.title") == "Moved", "the shift")
    tab.click("#who")
    tab.click("#buy")
    for name, text in (
        ("email", "me@private.example"), ("size", "XL-remembered"), ("note", "4000 0566 5566 5556"),
        ("cc", "411111"), ("word", "hunter2hunter2"),
    ):  # fmt: skip
        tab.write(f"[name={name}]", text)
    tab.enter()
    until(lambda: tab.run("document.title") == "sent", "the form")
    tab.run("history.pushState({}, '', '/pay?token=s3cret')")
    tab.run("history.pushState({}, '', '/done')")
    tab.back()
    until(lambda: tab.run("location.pathname") == "/pay", "back inside of the page")
    tab.run("location.hash = '#/step/2'")
    tab.run("location.hash = '#id_token=s3cret'")
    with tab.loading():
        tab.click("#leave")  # and the page is gone
    tab.back()
    until(lambda: tab.run("document.readyState") == "complete", "the page again")
    tab.run("setTimeout(() => { throw new TypeError('last-words') })")
    tab.close()

    def enough(rows: list[dict[str, Any]]) -> bool:
        return any("last-words" in row["title"] for row in rows)

    rows = collect.settled("visit", enough)
    found = count(rows)
    assert (found["page_view"], found["user_action"], found["ui_error"]) == (8, 10, 1)
    assert [row["title"] for row in rows if row["type"] == "page_view"] == [
        f"Viewed {page}" for page in ("/shop", "/pay", "/done", "/pay", "/pay#/step/2", "/pay",
                                      "/bye", "/pay")
    ]  # fmt: skip
    vitals = Counter(row["title"].split()[0] for row in rows if row["type"] == "performance_metric")
    # A page that is left at once may not have known its time to first byte.
    assert vitals.pop("TTFB") in (1, 2)
    assert vitals == {"FCP": 1, "LCP": 1, "CLS": 1, "INP": 1}
    submits = [row for row in rows if row["title"].startswith("submit")]
    assert len(submits) == 1
    assert "XL-remembered" in submits[0]["attributes"]
    who = [row["user_id"] for row in rows]
    assert who == sorted(who, key=lambda one: one is not None)  # from the login on, on every page
    assert who[-1] == "u-7"
    assert len({row["session_id"] for row in rows}) == 1
    said = str(rows)
    for secret in ("s3cret", "me@private", "4000 0566", "411111", "hunter2"):
        assert secret not in said
    assert [
        one for one in tab.complaints() if "last-words" not in one and "autocomplete" not in one
    ] == []


CALLS = """<!doctype html><title>Calls</title>%s<script>
const xhr = new XMLHttpRequest
xhr.open('GET', '/xhr')
xhr.onload = () => fetch('/fetch').then(() => {
  const own = new XMLHttpRequest
  own.open('GET', '/own')
  own.setRequestHeader('traceparent', '00-11111111111111111111111111111111-2222222222222222-01')
  own.onload = () => document.title = 'called'
  own.send()
})
xhr.send()
</script>"""


def test_calls_of_the_page_join_its_trace(collect: Collect, site: Site, tab: Tab) -> None:
    """By fetch and by XHR, each with a span of its own; what the page set itself stays."""
    site.pages["/calls"] = CALLS % collect.script("calls")
    tab.go(f"{site.url}/calls")
    until(lambda: tab.run("document.title") == "called", "the calls")
    one, two = (site.told(path) or "" for path in ("/xhr", "/fetch"))
    assert one.split("-")[1] == two.split("-")[1]
    assert one.split("-")[2] != two.split("-")[2]
    assert site.told("/own") == "00-11111111111111111111111111111111-2222222222222222-01"
    assert tab.complaints() == []


def test_a_key_is_asked_for(tmp_path: Path, site: Site, tab: Tab) -> None:
    """A page without it is refused and goes on as if nothing were; one that has it is taken."""
    collect = Collect(tmp_path / "keyed", keys=f"[{KEY}]")
    try:
        collect.start()
        site.pages["/without"] = "<title>Without</title>" + collect.script("without")
        site.pages["/with"] = "<title>With</title>" + collect.script("with", f'data-key="{KEY}"')
        tab.go(f"{site.url}/without")
        tab.go(f"{site.url}/with")
        rows = collect.settled("with", lambda rows: count(rows)["page_view"])
        assert count(rows)["page_view"] == 1
        assert collect.rows("without") == []
    finally:
        collect.stop()


def test_what_is_sent_again_is_stored_once(collect: Collect, site: Site, tab: Tab) -> None:
    """The answers are lost on the way, so the page sends twice what arrived both times."""
    site.lossy = collect.url
    site.pages["/again"] = "<title>Again</title>" + collect.script(
        "again", f'data-endpoint="{site.url}"'
    )
    tab.go(f"{site.url}/again")
    tab.run("engram.event('app.widget.click', {'app.widget.id': 'once'})")
    rows = collect.settled("again", lambda rows: count(rows)["user_action"] and site.lost == 2)
    assert count(rows)["page_view"] == 1
    assert count(rows)["user_action"] == 1
