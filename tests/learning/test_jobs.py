"""Jobs: when they run, what goes wrong, and the first of them over planted errors."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.learning.home import Collecting
from tests.telemetry import STACK, T0, attributes, span_id, trace_id

from engram.collector import jobs as command
from engram.exporters.errors import NotFound
from engram.exporters.home import Home
from engram.learning.jobs import JOBS, Insight, Runner, Window, process
from engram.learning.jobs.budget import Budget, resident
from engram.learning.jobs.errors import DAY, HOUR, Errors, Pattern, changes, patterns
from engram.learning.jobs.errors import JOB as ERRORS
from engram.learning.jobs.insight import request
from engram.learning.jobs.runner import Read

ALWAYS = Window(0, 2**62)


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[Collecting]:
    """A home that was never used."""
    made = Collecting(Home(tmp_path / "home"))
    yield made
    made.close()


# -- the job, over times alone ---------------------------------------------------------------------


def pattern(times: Iterable[int], first: int | None = None) -> Pattern:
    """Occurrences at some times."""
    at = tuple(sorted(times))
    ids = tuple(f"m{one}" for one in range(len(at)))
    return Pattern("shop", "fp", "E in f: no", "E", at, ids, at[0] if first is None else first)


def states(
    times: Iterable[int], window: Window = ALWAYS, answering: int | None = None
) -> list[str]:
    """What is said of a pattern."""
    return [str(one.facts["state"]) for one in changes(pattern(times), window, answering)]


def test_new_is_said_once_and_in_its_window() -> None:
    """The first occurrence ever, and no other."""
    assert states([DAY, DAY + 5]) == ["new"]
    assert states([DAY, DAY + 5], Window(DAY + 1, 2 * DAY)) == []
    assert states([DAY], Window(0, DAY)) == []  # the end is not in it


def test_back_needs_a_silence_that_is_long_for_it() -> None:
    """A day, twice its longest gap, and longer than chance makes one of its gaps."""
    hourly = [n * HOUR for n in range(7 * 24)]
    assert states([*hourly, hourly[-1] + 3 * DAY]) == ["new", "back"]
    assert states([*hourly, hourly[-1] + 2 * DAY]) == ["new"]
    assert states([*hourly[:6], 4 * DAY]) == ["new"]  # one morning says nothing of days
    daily = [n * DAY for n in range(6)]
    assert states([*daily, 5 * DAY + 26 * DAY]) == ["new"]
    assert states([*daily, 5 * DAY + 27 * DAY]) == ["new", "back"]
    assert states([0, 3 * DAY]) == ["new"]  # twice says nothing about what is usual


def test_a_spike_is_one_statement_however_many_follow() -> None:
    """Against the usual hour of a week; its moment and words do not change when more come."""
    usual = [n * HOUR + m for n in range(48) for m in (1, 2)]
    burst = [48 * HOUR + m for m in range(20)]
    found = list(changes(pattern([*usual, *burst]), ALWAYS, None))
    spikes = [one for one in found if one.facts["state"] == "spike"]
    assert len(spikes) == 1
    more = list(changes(pattern([*usual, *burst, 48 * HOUR + 99]), ALWAYS, None))
    assert spikes[0] in more
    assert states([*usual, *burst[:8]]) == ["new"]
    assert states(range(40)) == ["new"]  # too young to know what is usual
    rng = random.Random(3)
    steady = [
        n * HOUR + rng.randrange(HOUR) for n in range(400) for _ in range(rng.randrange(8, 17))
    ]
    assert states(steady) == ["new"]


def test_gone_needs_a_service_that_still_answers() -> None:
    """Silence of a service that says nothing at all is no news of one error."""
    times = [n * HOUR for n in range(48)]
    later = times[-1] + 2 * DAY
    assert states(times, answering=later) == ["new", "gone"]
    assert states(times, answering=None) == ["new"]
    assert states(times, answering=times[-1] + DAY // 2) == ["new"]
    assert states(times[:5], answering=later) == ["new"]


def test_patterns_do_not_depend_on_the_order_of_rows() -> None:
    """Rows of the lake have no order."""
    rows = [
        {"id": f"i{n}", "service": "s", "pattern": f"f{n % 3}", "time_unix_nano": n * HOUR,
         "title": f"t{n}", "type": "E"}
        for n in range(30)
    ]  # fmt: skip
    ages = pl.DataFrame([{"service": "s", "pattern": f"f{n}", "first": n * HOUR} for n in range(3)])
    straight = {one.name: one for one in patterns(pl.DataFrame(rows), ages)}
    random.Random(1).shuffle(rows)
    assert {one.name: one for one in patterns(pl.DataFrame(rows), ages)} == straight
    assert straight["f0"].title == "t0"


# -- insights --------------------------------------------------------------------------------------


def test_the_same_insights_are_the_same_bytes() -> None:
    """In any order; and the key alone makes the identity."""
    one = Insight("j", ("a",), "T", "c", 5, facts={"n": 3, "ok": True, "rate": 0.5})
    other = Insight("j", ("b",), "T", "c", 5, service="shop")
    assert request([one, other]) == request([other, one])
    assert one.id != other.id
    assert one.id == Insight("j", ("a",), "other", "words", 9).id


# -- the runner ------------------------------------------------------------------------------------


class Planted:
    """A job that does as it is told."""

    about = "planted"

    def __init__(self, name: str, *found: Insight, fails: bool = False) -> None:
        self.name, self.found, self.fails = name, found, fails
        self.windows: list[Window] = []

    def run(self, read: Read, window: Window) -> Sequence[Insight]:
        """As told."""
        self.windows.append(window)
        if self.fails:
            raise ValueError("planted")
        return self.found


def test_a_failure_is_its_own_and_is_tried_again(collecting: Collecting) -> None:
    """The others run; the watermark of the one that failed stays; a new process goes on from it."""
    now = 100
    bad, good = Planted("bad", fails=True), Planted("good")
    runner = Runner(collecting.home, [bad, good], clock=lambda: now)
    assert [run.error for run in runner.step()] == ["ValueError: planted", ""]
    now = 200
    runner = Runner(collecting.home, [bad, good], clock=lambda: now)
    runner.step()
    assert bad.windows == [Window(0, 100), Window(0, 200)]
    assert good.windows == [Window(0, 100), Window(100, 200)]
    bad.fails = False
    runner.step(["bad"], since=7)
    assert bad.windows[-1] == Window(7, 200)
    runner.step(["bad"])
    assert bad.windows[-1] == Window(0, 200)  # `since` is a look back, not a watermark
    last = runner.last("bad")
    assert last is not None
    assert not last.error
    with pytest.raises(NotFound, match="bad, good"):
        runner.step(["tea"])


def test_without_a_collector_nothing_is_lost(tmp_path: Path) -> None:
    """What was found is found again when there is one."""
    home = Home(tmp_path / "home")
    home.create()
    job = Planted("j", Insight("j", ("a",), "T", "c", 5))
    runner = Runner(home, [job], clock=lambda: 100)
    assert "no collector runs" in runner.step()[0].error
    with_one = Collecting(home)
    try:
        assert not runner.step()[0].error
        with_one.commit()
        assert with_one.rows("SELECT title FROM lake.ai_insight") == [("T",)]
    finally:
        with_one.close()
    assert job.windows == [Window(0, 100), Window(0, 100)]


class Costly:
    """A job without end, of one kind or the other."""

    about = "nothing"

    def __init__(self, name: str, sql: bool) -> None:
        self.name = name
        self.sql = sql
        self.windows: list[Window] = []

    def run(self, read: Read, window: Window) -> Iterable[Insight]:
        """Go on and on."""
        self.windows.append(window)
        if window.until - max(T0, window.since) < 40 * HOUR:
            return [insight(self.name)]
        if self.sql:
            read(
                "SELECT count(*) FROM range(10000000) a, range(10000000) b "
                "WHERE a.range + b.range = 7",
                [],
            )
        while True:
            json.dumps([1] * 100)


def insight(job: str) -> Insight:
    """Something that was found."""
    return Insight(job, ("k",), "T", "C", T0)


@pytest.mark.parametrize("sql", [True, False])
def test_a_run_over_budget_ends_and_halves_its_window(collecting: Collecting, sql: bool) -> None:
    """It is written down, the others run, and what is behind is caught up with in smaller steps."""
    collecting.send(failing(1, T0, "KeyError"))
    now = T0 + 100 * HOUR
    costly, other = Costly("costly", sql), Planted("other")
    runner = Runner(collecting.home, [costly, other], clock=lambda: now, budget=Budget(seconds=0.6))
    first, second = runner.step()
    assert (first.over_budget, second.error) == (True, "")
    assert "longer than its budget of 0.6 s" in first.error
    assert first.cpu_seconds > 0
    assert first.peak_bytes > 1 << 20
    assert [run.over_budget for _ in range(2) for run in runner.step(["costly"])] == [True, False]
    runner.step(["costly"])
    assert [w.until for w in costly.windows][:3] == [now, T0 + 50 * HOUR, T0 + 25 * HOUR]
    assert costly.windows[3] == Window(T0 + 25 * HOUR, now)
    assert collecting.rows("SELECT 1 FROM lake.ai_insight WHERE title = 'T'")


def test_memory_has_a_budget_too(collecting: Collecting) -> None:
    """A job that takes more ends."""

    class Greedy:
        name, about = "greedy", "nothing"

        def run(self, read: Read, window: Window) -> Iterable[Insight]:
            taken = []
            while True:
                taken.append(bytearray(b"x") * (8 << 20))

    budget = Budget(resident_bytes=resident() + (200 << 20))
    [run] = Runner(collecting.home, [Greedy()], budget=budget).step()
    assert run.over_budget
    assert "MB" in run.error


def test_jobs_run_in_a_process_of_their_own(collecting: Collecting) -> None:
    """What it finds is there, the ledger is written, and it ends when it is told to."""
    collecting.send(*(failing(n, T0 + n * 10**9, "KeyError") for n in range(5)))
    assert process.once(collecting.home, threading.Event()) == 0
    collecting.commit()
    assert collecting.rows("SELECT 1 FROM lake.ai_insight WHERE title LIKE 'New error%'")
    ledger = json.loads((collecting.home.root / "learn/jobs.json").read_text())
    assert {run["job"] for run in ledger["runs"]} == {job.name for job in JOBS}
    stop = threading.Event()
    stop.set()
    assert process.once(collecting.home, stop) is None


def test_garbage_in_the_ledger_is_no_end(collecting: Collecting) -> None:
    """It is looked at again from the beginning."""
    path = collecting.home.root / "learn/jobs.json"
    path.parent.mkdir()
    path.write_text("{")
    job = Planted("j")
    Runner(collecting.home, [job], clock=lambda: 5).step()
    assert job.windows == [Window(0, 5)]
    assert json.loads(path.read_text())["marks"] == {"j": 5}


def failing(number: int, when: int, error: str, says: str = "no") -> Span:
    """A failing request."""
    made = Span(
        trace_id=trace_id(number), span_id=span_id(number), name="POST /orders",
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=when, end_time_unix_nano=when + 10**8,
    )  # fmt: skip
    made.attributes.extend(attributes({"http.request.method": "POST", "http.route": "/orders"}))
    made.status.code = Status.STATUS_CODE_ERROR
    event = {"exception.type": error, "exception.message": says, "exception.stacktrace": STACK}
    made.events.add(name="exception", time_unix_nano=when, attributes=attributes(event))
    return made


def test_five_minutes_tick_and_the_insight_is_there(collecting: Collecting) -> None:
    """A planted fault, a clock that ticks unattended, one insight with its evidence; once."""
    people = ["ann", "bob", "cy", "dora", "eve"]  # in the message: still one error
    collecting.send(*(failing(n, T0 + n * 10**9, "KeyError", people[n]) for n in range(5)))
    now = T0 + HOUR
    runner = Runner(collecting.home, JOBS, clock=lambda: now)
    stop = threading.Event()
    loop = threading.Thread(target=runner.loop, args=(stop,), kwargs={"every_s": 0.05})
    loop.start()
    try:
        for _ in range(400):
            collecting.commit()
            if collecting.rows("SELECT 1 FROM lake.ai_insight"):
                break
            stop.wait(0.05)
        while len(runner.ledger) < 5:
            stop.wait(0.05)
    finally:
        stop.set()
        loop.join()
    collecting.commit()
    rows = collecting.rows(
        "SELECT title, service_name, time_unix_nano, attributes, tags, index_as "
        "FROM lake.memories WHERE type = 'ai_insight'"
    )
    assert len(rows) == 1
    title, service, when, said, tags, index_as = rows[0]
    assert title.startswith("New error in")
    assert "KeyError" in title
    assert when == T0
    facts = json.loads(said)
    assert facts["state"] == "new"
    assert facts["n"] == 1
    errors = collecting.rows("SELECT id, service_name FROM lake.system_error ORDER BY time")
    assert facts["evidence"] == [errors[0][0]]
    assert service == errors[0][1]
    assert "state:new" in tags
    assert index_as == "memory"
    assert collecting.rows("SELECT count(*) FROM lake.logs")[0][0] == 1  # said often, stored once
    assert all(not run.error for run in runner.ledger)


def test_what_jobs_conclude_is_no_evidence_for_them(collecting: Collecting) -> None:
    """An insight is not an error, and a second run finds nothing that is new."""
    collecting.send(failing(1, T0, "KeyError"))
    runner = Runner(collecting.home, [Errors()], clock=lambda: T0 + HOUR)
    assert runner.step()[0].insights == 1
    collecting.commit()
    before: list[Any] = collecting.rows("SELECT id FROM lake.memories ORDER BY id")
    assert runner.step(since=0)[0].insights == 1
    collecting.commit()
    assert collecting.rows("SELECT id FROM lake.memories ORDER BY id") == before


def test_the_command(collecting: Collecting) -> None:
    """What people see."""
    collecting.send(failing(1, T0, "KeyError"))
    listed = command.listed(collecting.home)
    assert [one["job"] for one in listed] == [job.name for job in JOBS]
    assert "never run" in next(command.lines(listed))
    ran = command.run(collecting.home, "errors", "7d")
    assert ran[0]["error"] is None
    assert "0 insights" in next(command.lines(ran))
    assert "0 insights" in next(command.lines(command.listed(collecting.home)))
    assert command.listed(collecting.home)[0]["began"].startswith("20")  # a time to read


def test_a_new_error_says_what_it_is_perhaps(collecting: Collecting) -> None:
    """A renamed function makes a new error; that most frames are the same is said, and no more."""
    frames = "".join(f'  File "/app/shop/n{at}.py", line 3, in f{at}\n    x()\n' for at in range(9))
    inner = f'{frames}  File "/app/shop/net.py", line 3, in ask\n    sock.recv()\n'
    deep = STACK.replace("TimeoutError: gateway", f"{inner}TimeoutError: gateway")
    renamed = deep.replace("in ask", "in ask_again")
    for at, stack in enumerate((deep, renamed, STACK.replace("pay.py", "far.py"))):
        one = failing(at + 1, T0 + at * HOUR, "TimeoutError")
        del one.events[:]
        one.events.add(
            name="exception", time_unix_nano=T0 + at * HOUR,
            attributes=attributes({"exception.type": "TimeoutError", "exception.message": "no",
                                   "exception.stacktrace": stack}),
        )  # fmt: skip
        collecting.send(one)
    [run] = Runner(collecting.home, [ERRORS], clock=lambda: T0 + 5 * HOUR).step()
    assert run.error == ""
    collecting.commit()
    said = [
        json.loads(text)
        for (text,) in collecting.rows("SELECT attributes FROM lake.ai_insight ORDER BY time")
    ]
    assert [one["pattern"] for one in said] == [
        "TimeoutError in net.py:ask", "TimeoutError in net.py:ask_again",
        "TimeoutError in far.py:charge",
    ]  # fmt: skip
    assert [one.get("like") for one in said] == [None, "TimeoutError in net.py:ask", None]
    assert said[1]["likeness"] >= 0.65
