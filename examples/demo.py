"""`make demo`: a shop that knows nothing of Engram, remembered and questioned.

Starts `engram up` on a fresh home, runs `examples/shop` by `engram run` beside a payment
provider and a model server, sends it customers, reads the lake with SQL from another process *while
it is written*, lists the memories, answers questions, and looks at the page. Ends with code 1 and
says what was missing when something was.

DEMO_SECONDS=15 is the length of the traffic. On a terminal, or with DEMO_KEEP=1, it stays up until
Ctrl-C.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHOP = ROOT / "examples/shop"
BIN = Path(sys.executable).parent
SECONDS = float(os.environ.get("DEMO_SECONDS", "15"))
QUESTIONS = (("why was the card declined?", "declined"), ("what does a teapot cost", "teapot"))
"""What is asked, and a word of the answer."""
WANTED = (
    "request_intent",
    "request_outcome",
    "system_error",
    "api_call",
    "ai_response",
    "user_interaction",
    "langgraph_node",
    "langgraph_outcome",
    "webhook_event",
    "integration_sync",
    "performance_metric",
)
missing: list[str] = []

sys.path.insert(0, str(SHOP))
from customers import shopping  # noqa: E402 - the shop's folder is no package


def say(text: str) -> None:
    print(text, flush=True)


def check(holds: bool, text: str) -> None:
    if not holds:
        missing.append(text)
        say(f"  MISSING: {text}")


def port(wanted: int) -> int:
    """The port that is wanted, or a free one when it is taken."""
    for number in (wanted, 0):
        with socket.socket() as one, contextlib.suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", number))
            return int(one.getsockname()[1])
    raise SystemExit("no free port")


def engram(home: Path, *arguments: str) -> Any:
    """A question to Engram, in a process of its own, as JSON."""
    done = subprocess.run(
        [BIN / "engram", "--home", home, "--json", *arguments], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return json.loads(done.stdout)


@contextlib.contextmanager
def process(name: str, command: list[Any], log: Path, **options: Any) -> Iterator[Any]:
    """A process that is stopped at the end, by SIGTERM and then for good."""
    with log.open("wb") as out:
        # Its own session: Ctrl-C comes to us, and we stop things in order.
        started = subprocess.Popen(
            [str(part) for part in command], stderr=out, start_new_session=True, **options
        )
        try:
            yield started
        except BaseException:
            say(f"--- the end of {log.name}")
            say("\n".join(log.read_text(errors="replace").splitlines()[-15:]))
            raise
        finally:
            started.send_signal(signal.SIGTERM)
            try:
                started.wait(8)
            except subprocess.TimeoutExpired:
                say(f"{name} does not stop; killing it")
                started.kill()
                started.wait()


def request(url: str, body: Any = None) -> int:
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"} if data else {}
    asked = urllib.request.Request(url, data=data, headers=headers)
    if not url.startswith("http://127.0.0.1:"):
        raise ValueError(url)
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def wait_for(url: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            request(url)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def traffic(shop: str, home: Path) -> None:
    """Customers for a while; every few seconds, SQL from a second process while rows come in."""
    looks: list[float] = []
    seen: list[float] = []

    def look(passed: float) -> None:
        if passed < (looks[-1] if looks else 0) + 3:
            return
        looks.append(passed)
        with contextlib.suppress(RuntimeError):  # no lake yet
            counts = engram(
                home,
                "sql",
                "SELECT (SELECT count(*) FROM spans) AS spans, "
                "(SELECT count(*) FROM logs) AS logs, count(*) AS memories FROM memories",
            )[0]
            if counts["memories"]:
                seen.append(passed)
            say(f"  {passed:4.0f} s  " + "  ".join(f"{v} {k}" for k, v in counts.items()))

    statuses = shopping(shop, SECONDS, between=look)
    say("  answers: " + ", ".join(f"{n} x {status}" for status, n in sorted(statuses.items())))
    check(bool(seen), "memories seen by SQL during the traffic")


def settle(home: Path) -> dict[str, int]:
    """Wait until the last of it can be queried; memories by type."""
    deadline = time.monotonic() + 20
    found: dict[str, int] = {}
    while time.monotonic() < deadline:
        rows = engram(home, "sql", "SELECT type, count(*) AS n FROM memories GROUP BY type")
        found = {row["type"]: row["n"] for row in rows}
        if set(WANTED) <= set(found):
            break
        time.sleep(0.5)
    return found


def answer(home: Path, question: str, word: str) -> list[dict[str, Any]]:
    """Ask until the index has caught up."""
    deadline = time.monotonic() + 60
    while True:
        try:
            hits: list[dict[str, Any]] = engram(home, "search", question, "--limit", "3")
        except RuntimeError as error:
            hits = []
            if time.monotonic() > deadline:
                say(f"  {error}")
        if any(word in str(hit) for hit in hits) or time.monotonic() > deadline:
            return hits
        time.sleep(1)


def show(home: Path, page: str) -> None:
    """Print what was remembered, and note what was not."""
    say("\nWhat it remembers")
    found = settle(home)
    for kind, number in sorted(found.items(), key=lambda one: -one[1]):
        examples = engram(
            home,
            "sql",
            f"SELECT title FROM memories WHERE type = '{kind}' ORDER BY time_unix_nano LIMIT 1",
        )
        say(f"  {number:6} {kind:18} {(examples or [{'title': ''}])[0]['title']}")
    for kind in WANTED:
        check(kind in found, f"memories of type {kind}")

    for question, word in QUESTIONS:
        say(f'\nengram search "{question}"')
        hits = answer(home, question, word)
        for hit in hits:
            say(f"  {hit['score']:.3f}  {hit['type']:16} {hit['title']}")
            content = " ".join(str(hit["content"]).split())
            say(f"         {content[:110]}")
        check(any(word in str(hit) for hit in hits), f"an answer to: {question}")

    status = request(page)
    say(f"\nThe page: {page} answers {status}")
    check(status == 200, "the page")


def main() -> int:
    home = Path(tempfile.mkdtemp(prefix="engram-demo-"))
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    try:
        code = run(home, begun)
    finally:
        if missing:
            say(f"the home is kept for a look: {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)
    return code


def run(home: Path, begun: float) -> int:
    text = re.sub(
        r"(?<=127\.0\.0\.1:)431[789]\b",
        lambda found: str(port(int(found[0]))),
        (ROOT / "otel-config.yaml").read_text(),
    )
    config = home / "otel-config.yaml"
    config.write_text(text)
    command = [BIN / "engram", "--home", home / "home", "--config", config, "--json", "up"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    say(f"engram up  (home {home / 'home'})")
    with process("engram up", command, home / "up.log", stdout=subprocess.PIPE) as up:
        line = up.stdout.readline()
        if not line:
            raise SystemExit("engram up did not start; its log is above")
        facts = json.loads(line)
        endpoints = facts["endpoints"]
        say(f"  ready after {time.monotonic() - begun:.1f} s: " + ", ".join(endpoints.values()))

        number, outside, model = port(8000), port(8001), port(8099)
        shop = f"http://127.0.0.1:{number}"
        settings = {
            "SHOP_OUTSIDE": f"http://127.0.0.1:{outside}",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{model}/v1",
            "OPENAI_API_KEY": "none",
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoints["otlp_http"],
            "OTEL_METRIC_EXPORT_INTERVAL": "5000",
        }
        launch = [BIN / "engram", "run", "--service", "shop", "--", BIN / "uvicorn"]
        launch += ["--app-dir", SHOP, "--port", number, "--log-level", "warning", "app:app"]
        with contextlib.ExitStack() as world:
            for name, program in (
                ("the world outside", [SHOP / "outside.py", outside]),
                ("the model", [ROOT / "examples/fake_llm.py", "--port", model]),
            ):
                world.enter_context(
                    process(name, [sys.executable, *program], home / "outside.log", env=environ)
                )
            say("engram run -- uvicorn app:app  (no line of Engram in it)")
            world.enter_context(
                process("the shop", launch, home / "shop.log", env={**environ, **settings})
            )
            wait_for(f"{shop}/articles/tea", 30)
            say(f"  {SECONDS:.0f} s of customers, and SQL from a second process meanwhile")
            traffic(shop, home / "home")
        show(home / "home", endpoints["api"])

        say(f"\n{time.monotonic() - begun:.0f} s in all.")
        keep = os.environ.get("DEMO_KEEP") or str(int(not missing and sys.stdin.isatty()))
        if keep == "1":
            say(f"Still up: {endpoints['api']}  (Ctrl-C stops it)")
            with contextlib.suppress(KeyboardInterrupt):
                up.wait()
    for text in missing:
        say(f"missing: {text}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
