"""Engram about itself: what roles tell, that it is kept apart, and what the job makes of it."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from tests.learning.home import Collecting
from tests.telemetry import T0
from tests.telemetry import request as user_request

from engram.collector import jobs, query
from engram.collector.exporters.forward import Forwarder
from engram.collector.exporters.settings import Retry
from engram.collector.itself import collect_teller
from engram.exporters import own
from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.home import Home
from engram.exporters.itself.notes import Notes, Taken
from engram.exporters.itself.settings import COMPACT, HOUR, PACE, Chosen, Settings, new_in, write
from engram.exporters.itself.shape import shape
from engram.exporters.itself.told import about_itself, request
from engram.exporters.signals import Encoding, Signal
from engram.learning.alerts.settings import Alerts
from engram.learning.itself import Itself
from engram.learning.jobs import Insight, Run, Runner, Window
from engram.learning.jobs.insight import request as insights_request
from engram.learning.jobs.itself import About
from engram.learning.jobs.itself.applied import apply
from engram.learning.jobs.itself.decisions import chosen
from engram.learning.jobs.itself.ledger import Hourly, due, of_hour
from engram.learning.jobs.itself.trials import Decision, decide
from engram.learning.jobs.itself.work import Cell, told
from engram.learning.jobs.runner import Reader


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[Collecting]:
    """A home that was never used."""
    made = Collecting(Home(tmp_path / "home"))
    yield made
    made.close()


def log(text: str, at: int = T0) -> LogRecord:
    """A user's log record."""
    made = LogRecord(time_unix_nano=at, severity_number=9)  # type: ignore[arg-type]
    made.body.string_value = text
    return made


# -- what is told ----------------------------------------------------------------------------------


def test_the_shape_of_a_statement_has_no_value_of_it() -> None:
    """Strings of every kind, numbers, quoted names and comments; also what is not closed."""
    secrets = (
        "SELECT * FROM memories WHERE user_id = 'secret' AND n > 4711",
        "SELECT E'sec\\'secret' , $$secret$$, $a$ secret $$ $a$ -- secret",
        'SELECT 1 AS "secret" /* secret */ FROM t WHERE x = $secret',
        "SELECT 'secret",
        "SELECT 'it''s secret' /* secret",
        "SELECT x'secret', N'secret', .4711e5 FROM t WHERE a ILIKE '%secret%'",
        "SELECT * FROM t WHERE n = 'ünï' OR ünïsecret = 3".replace("ünïsecret", "'secret'"),
    )
    for one in secrets:
        assert "secret" not in shape(one), one
        assert "4711" not in shape(one), one
        assert shape(one).startswith("SELECT")
    assert shape("select a from t where b in (1, 2,  3)") == shape("select a from t where b in (7)")


def test_only_a_slow_statement_is_noted_by_its_shape() -> None:
    """And only while somebody collects notes."""
    notes = Notes()
    notes.statement("SELECT 1", 5_000)
    assert not notes.take().values
    notes.on = True
    notes.statement("SELECT 1", 3)
    notes.statement("SELECT 'me' FROM t", 2_000)
    taken = notes.take()
    assert taken.values["sql.n"] == 2
    assert taken.slow == {"SELECT ? FROM t": [2_000]}
    assert not notes.take().values


def test_collect_tells_what_it_did_and_not_that_it_told(collecting: Collecting) -> None:
    """One record for all commits since; its own commit is none of them, so there is no loop."""
    teller = collect_teller(collecting.engine)
    collecting.engine.notes.on = True
    assert not teller.tell()  # idle
    collecting.send(log("one"))
    collecting.send(log("two"))
    before = collecting.engine.end
    assert teller.tell()
    deadline = time.monotonic() + 20
    while collecting.engine.end == before and time.monotonic() < deadline:
        time.sleep(0.02)
    collecting.commit()
    assert not teller.tell()
    rows = collecting.rows(
        "SELECT event_name, attributes, service_name FROM lake.logs WHERE scope_name = ?",
        [own.ITSELF],
    )
    assert len(rows) == 1
    told = json.loads(rows[0][1])
    assert told["commit.n"] == 2
    assert told["commit.rows"] == 2
    assert told["ack.n"] == 2
    assert told["role"] == "collect"
    assert told["compact_interval"] == 30


def test_it_is_kept_apart(collecting: Collecting) -> None:
    """No memory is made of it, no count has it, and a request of it is known as such."""
    collecting.send(log("one"))
    before = collecting.engine.status()
    with query.reader(collecting.home) as connection:
        counts = query.counts(connection)
    body = request("serve", T0, Taken(60.0, {"search.n": 3}, {"SELECT ?": [1200.0]}))
    collecting.engine.admit(Signal.LOGS, body, Encoding.IDENTITY, trusted=True, itself=True).result(
        20
    )
    collecting.commit()
    assert collecting.rows("SELECT count(*) FROM lake.logs") == [(3,)]
    after = collecting.engine.status()
    for name in ("requests", "records", "memories", "commits", "duplicates"):
        assert after[name] == before[name], name
    with query.reader(collecting.home) as connection:
        assert query.counts(connection) == counts
    assert about_itself(Signal.LOGS, body)


def test_who_is_not_us_is_not_believed(collecting: Collecting) -> None:
    """Records of the same scope that came over the network are no evidence of anything."""
    day = T0 // DAY * DAY
    body = request("collect", day + HOUR, Taken(3600.0, {"maintenance.ms": 9e5, COMPACT: 60}))
    collecting.admit(Signal.LOGS, body)  # not by the control socket
    collecting.commit()
    reader = Reader(collecting.home)
    assert told(reader.read, 0, 2**62) == ([], [])
    reader.close()


# -- what is tried, kept, taken back ---------------------------------------------------------------

DAY = 24 * HOUR
START = T0 // DAY * DAY // HOUR
"""The hour at which it begins."""

ABOUT = Itself()


class Living:
    """A home through which hours pass: roles tell, the job runs, what it says goes back in."""

    def __init__(self, collecting: Collecting, about: Itself = ABOUT) -> None:
        self.collecting, self.about, self.hour = collecting, about, START
        self.job = About(about)
        self.said: list[Insight] = []
        self.reader = Reader(collecting.home)  # attaching it costs half a second

    def in_force(self, setting: str, usual: float) -> float:
        """As whoever owns the setting reads it."""
        return Settings(self.collecting.home).value(setting, usual, self.hour * HOUR)

    def tell(self, role: str, values: Mapping[str, float]) -> None:
        """A role tells of this hour."""
        body = request(role, (self.hour + 1) * HOUR, Taken(3600.0, dict(values)))
        engine = self.collecting.engine
        engine.admit(Signal.LOGS, body, Encoding.IDENTITY, trusted=True, itself=True).result(20)

    def learn(self) -> list[Insight]:
        """A round of jobs, ten minutes after the hour began."""
        self.collecting.commit()
        now = self.hour * HOUR + HOUR // 6
        window = Window(now - HOUR, now)
        found = self.run(window)
        if found:
            assert self.run(window) == found  # the same lake and window
            body = insights_request(found)
            engine = self.collecting.engine
            engine.admit(Signal.LOGS, body, Encoding.IDENTITY, trusted=True).result(20)
            self.collecting.commit()
            assert self.run(window) == found  # and with what it said in it
        apply(self.collecting.home, self.about, now, decided=bool(found))
        self.said += found
        return found

    def run(self, window: Window) -> list[Insight]:
        """The job alone."""
        return list(self.job.run(self.reader.read, window))

    def decisions(self) -> list[tuple[object, ...]]:
        """What was said of settings."""
        names = ("setting", "action", "old", "new")
        found = [one.facts for one in self.said if one.facts["what"] == "setting"]
        return [tuple(one[name] for name in names) for one in found]


def maintenance(living: Living, hours: int, ms: Callable[[int, float], float]) -> None:
    """Hours of `collect`, in which maintenance takes what `ms` says of the hour and the value."""
    for _ in range(hours):
        value = living.in_force(COMPACT, 60.0)
        commits = {"commit.n": 3600, "commit.ms": 36e3 + living.hour % 7}
        took = ms(living.hour, value)
        living.tell("collect", {**commits, "maintenance.ms": took, COMPACT: value})
        living.hour += 1


def load(hour: int, of: int = 0) -> float:
    """Day and night, and noise that is the same in every run: times the usual."""
    noise = random.Random(f"{hour} {of}").gauss(0, 0.1)
    return math.exp(math.sin(2 * math.pi * hour / 24) + noise)


def test_slow_maintenance_is_tried_less_often_and_kept_when_it_helps(
    collecting: Collecting,
) -> None:
    """It is said with its reason, both values take turns, and the effect is said with n."""
    living = Living(collecting)
    maintenance(living, 12, lambda hour, value: 4e5 * load(hour))
    living.learn()
    assert living.decisions() == [(COMPACT, "tried", 60.0, 120.0)]
    seen = set()
    for _ in range(24):
        seen.add(living.in_force(COMPACT, 60.0))
        maintenance(living, 1, lambda hour, value: 4e5 * load(hour) * (60 / value) ** 0.5)
    assert seen == {60.0, 120.0}
    assert list(jobs.changed(collecting.home)) == [
        "Engram changed compact_interval: every 120 s (tried in turns with 60; docs/jobs/itself.md)"
    ]
    living.learn()
    assert living.decisions()[1:] == [(COMPACT, "kept", 60.0, 120.0)]
    facts = living.said[-1].facts
    assert facts["n"] == 12
    assert facts["low"] < 0.5**0.5 < facts["high"] < 1
    assert "Measured" in living.said[-1].content
    tried = collecting.rows("SELECT id FROM lake.memories WHERE title LIKE 'Engram tries%'")
    assert [(one,) for one in living.said[-1].evidence] == tried
    living.hour += 1
    assert living.in_force(COMPACT, 60.0) == 120.0
    assert {one.service for one in living.said} == {"engram"}


def test_a_value_that_does_not_help_is_taken_back_in_a_home(collecting: Collecting) -> None:
    """It costs more: said, and the next hours are as before."""
    living = Living(collecting)
    maintenance(living, 12, lambda hour, value: 4e5)
    living.learn()
    maintenance(living, 48, lambda hour, value: 4e5 * load(hour) * (value / 60) ** 0.5)
    living.learn()
    assert [one[1] for one in living.decisions()] == ["tried", "taken back"]
    assert "it costs more" in living.said[-1].content
    assert not Settings(collecting.home).chosen()
    assert living.in_force(COMPACT, 60.0) == 60.0


def lived(
    hours: int, ms: Callable[[int, float], float], sql: Callable[[int, float], float] | None = None
) -> list[Decision]:
    """Decisions of hours that pass without a home: what is decided is in force from then on."""
    decisions: list[Decision] = []
    told: dict[int, Cell] = {}
    for hour in range(START, START + hours):
        found = decide(hour, {COMPACT: told}, decisions, ABOUT.may_change)
        if found is not None:
            decisions.append(found)
        held = chosen(decisions).get(COMPACT)
        value = held.at(COMPACT, hour * HOUR) if held else 60.0
        guards = {} if sql is None else {"sql": (100 * sql(hour, value), 100.0)}
        told[hour] = Cell(value, ms(hour, value), 3600.0, guards)
    return decisions


def test_what_does_nothing_is_not_kept() -> None:
    """Placebos, with a day and a night and noise: all are taken back, and not tried again soon."""
    for trial in range(40):
        found = lived(14 * 24, lambda hour, value, trial=trial: 4e5 * load(hour, trial))  # type: ignore[misc]
        assert [one.action for one in found] == ["tried", "taken back"], trial
        assert "could not be shown" in found[1].reason


def test_what_makes_others_slower_is_taken_back() -> None:
    """It saves half, and queries pay for it."""
    found = lived(
        40,
        lambda hour, value: 4e5 * (60 / value),
        lambda hour, value: load(hour) * (80 if value > 60 else 50),
    )
    assert [one.action for one in found] == ["tried", "taken back"]
    assert "sql became 1.6" in found[1].reason


def test_what_helps_goes_on_to_its_bound() -> None:
    """Twice, twice again, and never beyond ten minutes; each with a trial of its own."""
    found = lived(20 * 24, lambda hour, value: 4e6 * load(hour) * 60 / value)
    kept = [one.new for one in found if one.action == "kept"]
    assert kept == [120.0, 240.0, 480.0, 600.0]
    assert len(found) == 8


def test_a_trial_that_cannot_be_judged_ends() -> None:
    """A home that is used for an hour a day: after a week it is as before."""
    found = lived(12 + 10 * 24, lambda hour, value: 4e5)
    assert found[0].action == "tried"
    trial = found[0]
    assert decide(trial.hour + 100, {}, [trial], ABOUT.may_change) is None
    ended = decide(trial.hour + 168, {}, [trial], ABOUT.may_change)
    assert ended is not None
    assert ended.action == "taken back"
    assert "no effect is known" in ended.reason


def test_a_job_over_its_budget_runs_less_often(collecting: Collecting) -> None:
    """Its pace is tried; within the round only jobs that are due run; others are left alone."""
    living = Living(collecting)
    for _ in range(12):
        costs = {"job.slow.runs": 12, "job.slow.cpu_s": 600, "job.slow.over": 1,
                 "job.slow.pace": 1, "job.quick.runs": 12, "job.quick.cpu_s": 3,
                 "job.quick.pace": 1, "job.engram.cpu_s": 3000, "job.engram.pace": 1}  # fmt: skip
        living.tell("learn", costs)
        living.hour += 1
    living.learn()
    assert living.decisions() == [("pace.slow", "tried", 1.0, 2.0)]
    assert "over its budget 12 times" in living.said[0].content
    write(collecting.home, {PACE + "slow": Chosen(2.0, 1.0, False)})

    class Named:
        about = ""

        def __init__(self, name: str) -> None:
            self.name = name

        def run(self, read: Any, window: Window) -> list[Insight]:
            return []

    runner = Runner(collecting.home, (Named("slow"), Named("quick")))
    settings, now = Settings(collecting.home), 1_800_000_000
    assert due(runner, settings, now * 10**9) == ["slow", "quick"]
    runner.ledger = [Run(name, now, 1.0, 0, 0, 0) for name in ("slow", "quick")]
    assert due(runner, settings, (now + 300) * 10**9) == ["quick"]
    assert due(runner, settings, (now + 598) * 10**9) == ["slow", "quick"]


@pytest.mark.parametrize(
    "about", [Itself(keep=(COMPACT,)), Itself(change=False), Itself(record=False)]
)
def test_what_an_operator_says_is_left_alone(collecting: Collecting, about: Itself) -> None:
    """And what was in force is not any more."""
    write(collecting.home, {COMPACT: Chosen(300.0, 60.0, False)})
    living = Living(collecting, about)
    apply(collecting.home, about, START * HOUR, decided=False)
    maintenance(living, 13, lambda hour, value: 4e5)
    living.learn()
    assert living.decisions() == []
    assert living.in_force(COMPACT, 60.0) == 60.0


def test_a_file_of_settings_is_held_to_the_bounds(tmp_path: Path) -> None:
    """Whoever wrote it, whatever it says."""
    home = Home(tmp_path / "home")
    write(home, {COMPACT: Chosen(1e9, 60.0, False), "retention": Chosen(1.0, 0.0, False)})
    settings = Settings(home)
    assert settings.value(COMPACT, 60.0, 0) == 600.0
    assert settings.value("retention", 7.0, 0) == 7.0
    path = home.root / "learn" / "settings.json"
    for text in ("{", "[]", '{"compact_interval": 3}', '{"compact_interval": {"value": "x"}}'):
        path.write_text(text)
        assert Settings(home).value(COMPACT, 60.0, 0) == 60.0


def test_turns_are_fair() -> None:
    """Each value once in two hours, and in no order that the hours of a day would know."""
    first = [new_in(COMPACT, hour) for hour in range(0, 2000, 2)]
    assert all(new_in(COMPACT, 2 * n + 1) is not one for n, one in enumerate(first))
    assert 400 < sum(first) < 600


# -- what is said ----------------------------------------------------------------------------------


def test_hours_of_the_jobs_are_told_once(collecting: Collecting) -> None:
    """From the ledger, with the pace that was in force; an idle hour is not told of."""
    hour = START
    runs = [Run("errors", hour * 3600.0 + 300 * n, 1.0, 0, 0, 0, "", 4.0) for n in range(12)]
    runs.append(Run("logs", hour * 3600.0, 1.0, 0, 0, 0, "", 0.1, over_budget=True))
    assert of_hour(runs[:1], hour) is None
    hourly = Hourly(collecting.home)
    assert hourly.tell(runs, (hour + 1) * HOUR)
    assert not hourly.tell(runs, (hour + 1) * HOUR)
    collecting.commit()
    reader = Reader(collecting.home)
    work, _ = told(reader.read, 0, 2**62)
    reader.close()
    assert work[0].hour == hour
    assert work[0].values["job.errors.cpu_s"] == 48
    assert work[0].values["job.logs.over"] == 1
    assert work[0].values["job.errors.pace"] == 1


def test_a_day_is_said_once_with_n(collecting: Collecting) -> None:
    """Searches that find nothing, a slow query by its shape, a job over budget; no alert of it."""
    living = Living(collecting, Itself(change=False))
    for hour in range(24):
        slow = {shape("SELECT 'bob' FROM spans"): [2e3, 9e3]} if hour < 4 else {}
        values = {"search.n": 10, "search.nothing": 9}
        body = request("serve", (living.hour + 1) * HOUR - 1, Taken(3600.0, dict(values), slow))
        engine = collecting.engine
        engine.admit(Signal.LOGS, body, Encoding.IDENTITY, trusted=True, itself=True).result(20)
        if hour < 3:
            living.tell("learn", {"job.logs.runs": 12, "job.logs.over": 1, "job.logs.cpu_s": 20})
        living.hour += 1
    for _ in range(3):
        living.hour += 1
        living.learn()
    titles = {str(one.facts["what"]).split(":")[0]: one for one in living.said}
    assert sorted(titles) == ["over", "search", "slow"]
    assert len(living.said) == 3
    assert titles["search"].facts["n"] == 240
    assert titles["slow"].facts["n"] == 8
    assert "bob" not in titles["slow"].content
    settings = Alerts(jobs=(), min_importance=0.0)
    assert not any(tag in settings.tags for one in living.said for tag in one.tags)


def test_recall_that_helped_is_counted_by_kind(collecting: Collecting) -> None:
    """Of those of which somebody said how it turned out."""
    end = START * HOUR + DAY
    said = [
        Insight(
            "mcp", (str(n),), "Worked", "", end - HOUR - n, type="error_resolution",
            facts={"solution": "none", "outcome_success": n < 6, "outcome_by": "agent"},
        )
        for n in range(8)
    ]  # fmt: skip
    said += [Insight("app", ("x",), "Fixed", "", end - HOUR, type="error_resolution",
                     facts={"outcome_success": True})]  # fmt: skip
    engine = collecting.engine
    body = insights_request(said)
    engine.admit(Signal.LOGS, body, Encoding.IDENTITY, trusted=True).result(20)
    collecting.commit()
    living = Living(collecting)
    living.hour = end // HOUR + 1
    living.learn()
    found = [one for one in living.said if str(one.facts["what"]).startswith("recall")]
    assert [(one.facts["helped"], one.facts["n"]) for one in found] == [(6, 8)]
    assert found[0].facts["low"] < 0.75 < found[0].facts["high"]


def test_exporters_do_not_send_it_on(tmp_path: Path) -> None:
    """It stays at home; what came with it goes."""
    engine = Engine(Home(tmp_path / "home"), EngineSettings(commit_interval_s=0.02))
    follower = engine.follow("remote", frozenset({Signal.LOGS}))
    sent: list[bytes] = []

    class Remote:
        def send(self, signal: Signal, body: bytes) -> str:
            sent.append(body)
            return ""

        def close(self) -> None:
            pass

    forwarder = Forwarder(
        "remote", follower, Remote(), {Signal.LOGS: [None]}, retry=Retry(),
        max_request_bytes=1 << 20, quarantine=lambda entry, why: None,
    )  # fmt: skip
    engine.start()
    try:
        ours = request("collect", T0, Taken(60.0, {"commit.n": 1}))
        engine.admit(Signal.LOGS, ours, Encoding.IDENTITY, trusted=True, itself=True).result(20)
        theirs = user_request(Signal.LOGS, [log("theirs")])
        engine.admit(Signal.LOGS, theirs, Encoding.IDENTITY).result(20)
        forwarder.start()
        deadline = time.monotonic() + 20
        while not sent and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        forwarder.shutdown()
        engine.shutdown(10)
    assert b"".join(sent) == theirs
