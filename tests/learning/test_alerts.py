"""Alerts: to a real server and a real command, once, not too often, and not from history."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.learning.home import Collecting

from engram.collector import alerts as command
from engram.collector.config import DEFAULT_FILE, load, parse
from engram.collector.effective import effective
from engram.exporters.errors import ConfigError, NotFound
from engram.exporters.home import Home
from engram.exporters.signals import Signal
from engram.learning.alerts import choose
from engram.learning.alerts.alerter import Alerter
from engram.learning.alerts.choose import Found
from engram.learning.alerts.hooks import Answer, CommandHook, WebhookHook, hooks
from engram.learning.alerts.outbox import DAY, FIRST_WAIT, HOUR, Outbox
from engram.learning.alerts.settings import Alerts, Command, Webhook
from engram.learning.jobs import Insight
from engram.learning.jobs.insight import request as insights

NOW = 1_790_000_000 * 10**9
MINUTE = HOUR // 60


class Server:
    """A server that keeps what it is told, and answers as it is told."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.delay = threading.Event()
        self.delay.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.bodies.append(json.loads(body))
                outer.headers.append({key.lower(): one for key, one in self.headers.items()})
                outer.delay.wait(20)
                self.send_response(outer.status)
                if outer.status == 302:
                    self.send_header("location", "/elsewhere")
                self.send_header("content-length", "5")
                self.end_headers()
                self.wfile.write(b"heard")

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def close(self) -> None:
        """Stop."""
        self.delay.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that says yes."""
    made = Server()
    yield made
    made.close()


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[Collecting]:
    """A home that was never used."""
    made = Collecting(Home(tmp_path / "home"))
    yield made
    made.close()


class Listening:
    """A hook that keeps what it is told."""

    name = "listening"
    about = "listening"

    def __init__(self, *answers: Answer) -> None:
        self.heard: list[Mapping[str, Any]] = []
        self.answers = list(answers)
        self.before: Callable[[], None] = lambda: None

    def send(self, message: Mapping[str, Any]) -> Answer:
        """Keep it."""
        self.heard.append(message)
        self.before()
        return self.answers.pop(0) if self.answers else Answer(True, False, "")


def insight(number: int, *, at: int = NOW, about: str = "", state: str = "new") -> Found:
    """Something found."""
    return Found(
        f"m{number}", "ai_insight", f"New error {number}", "words", at, 0.8, (f"state:{state}",),
        "shop", {"job": "errors", "pattern": about or f"p{number}", "evidence": "[]"},
    )  # fmt: skip


# -- choosing --------------------------------------------------------------------------------------


def test_what_is_wanted_is_chosen_by_job_tag_and_importance() -> None:
    """Each of them can say no; the default wants what is new, back, spiking, predicted."""
    one = insight(1)
    assert choose.wanted(one, Alerts())
    assert choose.wanted(insight(1, state="predicted"), Alerts())
    assert not choose.wanted(insight(1, state="gone"), Alerts())
    assert not choose.wanted(insight(1, state="silent"), Alerts())
    assert choose.wanted(insight(1, state="gone"), Alerts(tags=()))
    assert not choose.wanted(one, Alerts(min_importance=0.81))
    assert not choose.wanted(one, Alerts(jobs=("predictions",)))
    assert choose.wanted(one, Alerts(jobs=("errors",)))


def test_of_one_subject_there_is_one_alert_in_the_quiet_time(tmp_path: Path) -> None:
    """The same pattern again is quiet; another service or pattern is not; later it is told."""
    hook = Listening()
    box = Outbox(tmp_path / "alerts.json", Alerts(), [hook])
    box.take([insight(1, about="a"), insight(2, about="a"), insight(3, about="b")], NOW)
    box.take([insight(4, about="a", at=NOW + HOUR)], NOW + HOUR)
    later = NOW + 7 * HOUR
    box.take([insight(2, about="a"), insight(5, about="a", at=later)], later)
    box.send(later)
    assert [one["id"] for one in hook.heard] == ["m1", "m3", "m5"]


def test_the_eleventh_of_an_hour_comes_in_one_message(tmp_path: Path) -> None:
    """At once for those of now, an hour later for those that follow."""
    hook = Listening()
    box = Outbox(tmp_path / "alerts.json", Alerts(), [hook])
    box.take([insight(at) for at in range(25)], NOW)
    box.take([insight(at) for at in range(30, 35)], NOW + 5 * MINUTE)
    box.send(NOW + 5 * MINUTE)
    assert [one["kind"] for one in hook.heard] == ["alert"] * 10 + ["summary"]
    said = hook.heard[-1]
    assert said["count"] == 15
    assert [one["id"] for one in said["alerts"]] == [f"m{at}" for at in range(10, 25)]
    assert said["alerts"][0]["url"] == "http://127.0.0.1:4319/api/memories/m10"
    box.take([insight(40, at=NOW + HOUR)], NOW + HOUR)
    box.send(NOW + HOUR)
    assert [one["kind"] for one in hook.heard[11:]] == ["alert", "summary"]
    assert hook.heard[-1]["count"] == 5


def test_history_is_no_news(tmp_path: Path) -> None:
    """What happened more than a day ago is not told, on the first run or any other."""
    hook = Listening()
    box = Outbox(tmp_path / "alerts.json", Alerts(), [hook])
    box.take([insight(1, at=NOW - DAY - 1), insight(2, at=NOW - DAY + 1)], NOW)
    box.send(NOW)
    assert [one["id"] for one in hook.heard] == ["m2"]


# -- durable ---------------------------------------------------------------------------------------


def test_a_restart_sends_nothing_twice_and_forgets_nothing(tmp_path: Path) -> None:
    """Not what was sent, not the limit; what waits is sent, and what was held back."""
    path, hook = tmp_path / "learn/alerts.json", Listening()
    box = Outbox(path, Alerts(per_hour=2), [hook])
    box.take([insight(1), insight(2)], NOW)
    box.send(NOW)
    box.take([insight(3)], NOW)  # a summary of one, which waits
    box = Outbox(path, Alerts(per_hour=2), [hook])
    box.take([insight(at) for at in (1, 2, 3, 4)], NOW + MINUTE)
    box.send(NOW + MINUTE)
    assert [one["kind"] for one in hook.heard] == ["alert", "alert", "summary"]
    box = Outbox(path, Alerts(per_hour=2), [hook])
    box.take([], NOW + HOUR)
    box.send(NOW + HOUR)
    assert [one["title"] for one in hook.heard[3:]] == ["1 more alert"]


def test_what_was_on_its_way_when_the_process_died_is_not_sent_again(tmp_path: Path) -> None:
    """It may have arrived."""
    path, hook = tmp_path / "alerts.json", Listening()
    box = Outbox(path, Alerts(), [hook])
    box.take([insight(1), insight(2)], NOW)

    class Died(BaseException):
        """As by `kill -9`."""

    def die() -> None:
        raise Died

    hook.before = die
    with pytest.raises(Died):
        box.send(NOW)
    hook.before = lambda: None
    box = Outbox(path, Alerts(), [hook])
    box.take([insight(1), insight(2)], NOW + MINUTE)
    box.send(NOW + MINUTE)
    assert [one["id"] for one in hook.heard] == ["m1", "m2"]


def test_a_hook_that_fails_is_tried_again_later_and_later(tmp_path: Path) -> None:
    """In order, and the other hook does not wait for it. What it refuses is not sent again."""
    bad = Listening(*[Answer(False, True, "away")] * 3, Answer(False, False, "refused"))
    good = Listening()
    good.name = "good"
    box = Outbox(tmp_path / "alerts.json", Alerts(), [bad, good])
    box.take([insight(1), insight(2)], NOW)
    box.send(NOW)
    assert len(bad.heard) == 1
    assert [one["id"] for one in good.heard] == ["m1", "m2"]
    assert box.next_try() == NOW + FIRST_WAIT
    box.send(NOW + FIRST_WAIT - 1)
    assert len(bad.heard) == 1
    box.send(NOW + FIRST_WAIT)
    assert box.next_try() == NOW + 3 * FIRST_WAIT
    box.send(NOW + 3 * FIRST_WAIT)
    box.send(NOW + 10 * FIRST_WAIT)
    assert [one["id"] for one in bad.heard] == ["m1", "m1", "m1", "m1", "m2"]
    assert box.next_try() is None
    assert [one["id"] for one in good.heard] == ["m1", "m2"]


def test_what_cannot_be_sent_for_a_day_is_given_up(tmp_path: Path) -> None:
    """And what is for a hook that is no more."""
    bad = Listening(*[Answer(False, True, "away")] * 9)
    box = Outbox(tmp_path / "alerts.json", Alerts(), [bad])
    box.take([insight(1)], NOW)
    box.send(NOW)
    box.send(NOW + DAY + 1)
    assert box.next_try() is None
    assert len(bad.heard) == 1
    box.take([insight(2, at=NOW + DAY)], NOW + DAY + 1)
    gone = Outbox(tmp_path / "alerts.json", Alerts(), [])
    gone.send(NOW + DAY + 2)
    assert gone.next_try() is None


# -- hooks -----------------------------------------------------------------------------------------


def test_a_webhook_gets_the_whole_message(server: Server) -> None:
    """JSON with headers of the settings; what came back is said."""
    hook = WebhookHook(Webhook(url=server.url, headers={"authorization": "Bearer k"}))
    message = choose.alert(insight(1, at=NOW), Alerts(url="http://127.0.0.1:9/"))
    answer = hook.send(message)
    assert answer == Answer(True, False, "200 heard")
    (body,) = server.bodies
    assert body["version"] == 1
    assert body["kind"] == "alert"
    assert body["id"] == "m1"
    assert body["title"] == "New error 1"
    assert body["facts"]["pattern"] == "p1"
    assert body["url"] == "http://127.0.0.1:9/api/memories/m1"
    assert server.headers[0]["authorization"] == "Bearer k"
    assert server.headers[0]["content-type"] == "application/json"
    assert server.headers[0]["engram-alert-id"] == "m1"
    assert "/hook" not in hook.about  # it may be the secret


@pytest.mark.parametrize(
    ("status", "again"), [(500, True), (429, True), (404, False), (302, False), (204, None)]
)
def test_what_a_server_says_decides_whether_to_try_again(
    server: Server, status: int, again: bool | None
) -> None:
    """It may be away or busy, or it does not want this. A redirection is not followed."""
    server.status = status
    answer = WebhookHook(Webhook(url=server.url)).send(choose.trial(NOW))
    assert answer.ok is (again is None)
    if again is not None:
        assert answer.again is again
    assert str(status) in answer.text
    assert len(server.bodies) == 1


def test_nobody_there_and_nobody_who_answers(server: Server) -> None:
    """Both come back, as something to try again."""
    server.delay.clear()
    quick = timedelta(milliseconds=200)
    silent = WebhookHook(Webhook(url=server.url, timeout=quick)).send(choose.trial(NOW))
    assert not silent.ok
    assert silent.again
    other = Server()
    other.close()
    nobody = WebhookHook(Webhook(url=other.url)).send(choose.trial(NOW))
    assert not nobody.ok
    assert nobody.again
    assert "refused" in nobody.text


def test_a_command_reads_it_from_its_input_and_not_from_its_arguments(tmp_path: Path) -> None:
    """There is no shell to understand what telemetry says."""
    kept, bad = tmp_path / "kept", "$(touch /tmp/x); `id`"
    script = (
        "import sys, pathlib; print('done'); "
        "pathlib.Path(sys.argv[1]).write_text(repr(sys.argv) + sys.stdin.read())"
    )
    hook = CommandHook(Command(argv=(sys.executable, "-c", script, str(kept))))
    one = insight(1, about=bad)
    answer = hook.send(choose.alert(one, Alerts()))
    assert answer.ok
    assert answer.text == "exit code 0 done"
    arguments, _, said = kept.read_text().partition("]")
    assert bad not in arguments
    assert json.loads(said)["facts"]["pattern"] == bad


def test_a_command_that_fails_hangs_or_is_not_there(tmp_path: Path) -> None:
    """Each is an answer; what a hanging one started dies with it."""
    failed = CommandHook(Command(argv=("/bin/sh", "-c", "echo no; exit 3"))).send({"id": "x"})
    assert (failed.ok, failed.text) == (False, "exit code 3 no")
    missing = CommandHook(Command(argv=(str(tmp_path / "none"),))).send({"id": "x"})
    assert not missing.ok
    assert "cannot be started" in missing.text
    mark = tmp_path / "mark"
    script = f"(sleep 3; touch {mark}) & sleep 60"
    hangs = Command(argv=("/bin/sh", "-c", script), timeout=timedelta(milliseconds=500))
    hung = CommandHook(hangs).send({"id": "x"})
    assert not hung.ok
    assert "killed" in hung.text
    time.sleep(3.5)
    assert not mark.exists()


# -- over a lake -----------------------------------------------------------------------------------


def found(number: int, at: int, **facts: Any) -> Insight:
    """An insight of a job."""
    return Insight(
        "errors", (str(number),), f"New error {number}", "words", at, service="shop",
        importance=0.8, tags=("state:new",),
        facts={"state": "new", "pattern": f"p{number}", **facts},
    )  # fmt: skip


def test_from_the_lake_to_the_hook_once(collecting: Collecting, server: Server) -> None:
    """An import of history says nothing; what is new is told, also over a restart, once."""
    now = time.time_ns()
    old = [found(at, now - 30 * DAY + at * HOUR) for at in range(20)]
    collecting.admit(Signal.LOGS, insights(old))
    settings = Alerts(webhooks=(Webhook(url=server.url),))
    alerter = Alerter(collecting.home, settings)
    assert alerter.step() == 0
    collecting.admit(Signal.LOGS, insights([found(50, now - HOUR), found(51, now - HOUR)]))
    assert alerter.step() == 2
    assert Alerter(collecting.home, settings).step() == 0
    ids = collecting.rows(
        "SELECT id, title FROM lake.memories WHERE time_unix_nano > ? ORDER BY id", [now - DAY]
    )
    assert sorted((one["id"], one["title"]) for one in server.bodies) == ids
    assert {one["job"] for one in server.bodies} == {"errors"}
    assert {one["state"] for one in server.bodies} == {"new"}
    # What no job said is no alert, whatever it calls itself.
    body = insights([found(60, now)]).replace(b"engram.learning", b"somebody.others")
    collecting.admit(Signal.LOGS, body)
    assert alerter.step() == 0


def test_garbage_in_the_state_is_no_flood(collecting: Collecting, server: Server) -> None:
    """What was there may have been told already; what comes then is."""
    now = time.time_ns()
    collecting.admit(Signal.LOGS, insights([found(1, now)]))
    collecting.commit()
    path = collecting.home.root / "learn/alerts.json"
    path.parent.mkdir()
    path.write_text('{"waiting": 3')
    settings = Alerts(webhooks=(Webhook(url=server.url),))
    alerter = Alerter(collecting.home, settings)
    assert alerter.step() == 0
    collecting.admit(Signal.LOGS, insights([found(2, now)]))
    assert alerter.step() == 1
    assert [one["title"] for one in server.bodies] == ["New error 2"]


def test_the_loop_is_woken_by_the_jobs_and_ends_when_told(
    collecting: Collecting, server: Server
) -> None:
    """A thread of its own, which a round of jobs wakes."""
    collecting.admit(Signal.LOGS, insights([found(1, time.time_ns())]))
    stop, wake = threading.Event(), threading.Event()
    alerter = Alerter(collecting.home, Alerts(webhooks=(Webhook(url=server.url),)))
    thread = threading.Thread(target=alerter.loop, args=(stop, wake))
    thread.start()
    try:
        assert not server.bodies
        wake.set()
        deadline = time.monotonic() + 60
        while not server.bodies and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        stop.set()
        wake.set()
        thread.join(60)
    assert [one["title"] for one in server.bodies] == ["New error 1"]
    assert not thread.is_alive()


# -- settings and command --------------------------------------------------------------------------


def read(text: str) -> Any:
    """The default configuration with other alerts."""
    base = DEFAULT_FILE.read_text()
    begin, end = base.index("  alerts:"), base.index("\nservice:")
    return parse(base[:begin] + f"  alerts: {text}\n" + base[end:], Path("x.yaml"), {})


def test_settings_are_checked() -> None:
    """Everything that is wrong is said, with its path."""
    settings = command.settings_of(
        read("{webhooks: [{url: 'https://a.example/x', timeout: 2s}], quiet: 1h}")
    )
    assert settings.webhooks == (Webhook(url="https://a.example/x", timeout=timedelta(seconds=2)),)
    assert settings.quiet == timedelta(hours=1)
    for text, wrong in (
        ("{webhooks: [{url: 'file:///etc/passwd'}]}", r"alerts\.webhooks\[0\]\.url.*http"),
        ("{webhooks: [{headers: {}}]}", r"webhooks\[0\]\.url"),
        ("{webhooks: [{uri: 'http://a'}]}", "unknown key; did you mean|unknown key.*url"),
        ("{commands: [{argv: []}]}", r"commands\[0\]\.argv.*program"),
        ("{commands: [{argv: 'rm -r /'}]}", "must be a list"),
        ("{per_hour: 0}", "per_hour"),
        ("{min_importance: 2}", "min_importance"),
    ):
        with pytest.raises(ConfigError, match=wrong):
            read(text)


def test_what_is_in_effect_is_shown_without_secrets() -> None:
    """Headers, and what is behind the host of a webhook."""
    config = read("{webhooks: [{url: 'https://u:p@a.example/T0/secret', headers: {a: secret}}]}")
    shown = str(effective(config)["extensions"]["alerts"])
    assert "https://****@a.example/****" in shown
    assert "secret" not in shown
    assert "http://127.0.0.1:4319" in shown


def test_the_command_says_what_came_back(server: Server) -> None:
    """Every hook, with its answer; without one, what to do."""
    with pytest.raises(NotFound, match=r"alerts\.webhooks"):
        command.try_out(load(DEFAULT_FILE, {}))
    told = command.try_out(
        read(f"{{webhooks: [{{url: '{server.url}'}}], commands: [{{argv: ['/bin/false']}}]}}")
    )
    assert [one["ok"] for one in told] == [True, False]
    assert server.bodies[0]["kind"] == "test"
    lines = [*command.lines(told)]
    assert lines[0].startswith("ok      webhook http://127.0.0.1")
    assert lines[1] == "failed  command false: exit code 1"


def test_the_same_hook_twice_is_one() -> None:
    """Whoever is listed twice is told once."""
    one = Webhook(url="http://a.example/x")
    assert len(hooks(Alerts(webhooks=(one, one), commands=(Command(argv=("a",)),)))) == 2
