"""The job over logs: warnings that are new, spike or go, and ids that stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from tests.learning.home import Collecting
from tests.telemetry import T0, attributes

from engram.exporters.home import Home
from engram.learning.jobs import Runner, Window
from engram.learning.jobs.logs import DAY, HOUR, JOB, Pattern, changes, patterns

ALWAYS = Window(0, 2**62)
START = T0 // HOUR


def pattern(hours: dict[int, int]) -> Pattern:
    """Occurrences by hours after the start."""
    made = {START + hour: n for hour, n in hours.items()}
    first, last = min(made), max(made)
    return Pattern("shop", "disk <*> is full", "p", (), made, first * HOUR, last * HOUR, "disk 3")


def states(hours: dict[int, int], *, window: Window = ALWAYS, alive_h: int = 0) -> list[str]:
    """What is said of it; its service logged from the start on."""
    alive = (START + (alive_h or max(hours))) * HOUR
    found = changes(pattern(hours), window, START * HOUR, alive)
    return [str(one.facts["state"]) for one in found]


def test_new_needs_a_service_that_is_known_and_three_times() -> None:
    """A service that has just begun has nothing but new warnings."""
    assert states({30: 3}) == ["new"]
    assert states({30: 2}) == []
    assert states({3: 30}) == []
    assert states({30: 3}, window=Window((START + 31) * HOUR, 2**62)) == []


def test_a_spike_is_told_once_its_hour_is_over() -> None:
    """Against the usual hour; ten times at least."""
    usual = dict.fromkeys(range(60), 2)
    assert states({**usual, 61: 30}) == ["spike"]
    assert states({**usual, 61: 9}) == []
    assert states({**usual, 61: 30}, window=Window(0, (START + 61) * HOUR + 5)) == []
    often = dict.fromkeys(range(60), 100)
    assert states({**often, 61: 130}) == []
    assert states({2: 50}) == []  # nobody knows yet what is usual


def test_gone_needs_days_before_and_a_service_that_logs_on() -> None:
    """Silence of the whole service is no good news."""
    days = {0: 1, 26: 1, 50: 1}
    assert states(days, alive_h=50 + 48) == ["gone"]
    assert states(days, alive_h=60) == []
    assert states({0: 1, 1: 1}, alive_h=80) == []


def row(body: str, hour: int = 0, n: int = 1, template: str | None = None) -> dict[str, Any]:
    """A group as SQL gives it."""
    at = (START + hour) * HOUR
    return {"service": "shop", "template": template, "body": f'"{body}"', "hour": START + hour,
            "n": n, "first": at, "last": at, "example": f'"{body}"'}  # fmt: skip


def test_a_pattern_that_becomes_more_general_keeps_its_id() -> None:
    """It is known by what it was called first, and says what else it was."""
    [one] = patterns([row("disk 3 is full"), row("disk 41 is full", 2)], {})
    assert (one.template, one.hours) == ("disk <*> is full", {START: 1, START + 2: 1})
    known = {"shop": [("disk <*> is full", "old"), ("disk <*> is full", "older")]}
    [again] = patterns([row("disk 7 is full")], known)
    assert (again.id, again.was) == ("old", ("older",))


def test_a_template_that_was_sent_is_used() -> None:
    """And not mined again."""
    found = patterns([row("user ann left", template="user {name} left"), row("user bob left")], {})
    assert sorted(one.template for one in found) == ["user bob left", "user {name} left"]


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[Collecting]:
    """A home that was never used."""
    made = Collecting(Home(tmp_path / "home"))
    yield made
    made.close()


def log(text: str, when: int, severity: int = 13, **more: Any) -> LogRecord:
    """One record."""
    made = LogRecord(time_unix_nano=when, severity_number=severity, attributes=attributes(more))  # type: ignore[arg-type]
    made.body.string_value = text
    return made


def titles(collecting: Collecting, now: int) -> Sequence[str]:
    """What is remembered after a run."""
    [run] = Runner(collecting.home, [JOB], clock=lambda: now).step(since=0)
    assert run.error == ""
    collecting.commit()
    rows = collecting.rows("SELECT title FROM lake.ai_insight ORDER BY title")
    return [title for (title,) in rows]


def test_from_a_lake(collecting: Collecting) -> None:
    """A warning that comes on the second day; none of what is an error, or no news."""
    hourly = [log("started job 7", T0 + n * HOUR, 9) for n in range(60)]
    known = [log(f"cache is cold for {n} ms", T0 + n * HOUR) for n in range(60)]
    new = [log(f"pool of {n} connections exhausted", T0 + 40 * HOUR + n) for n in range(5)]
    error = [
        log("it broke", T0 + 41 * HOUR + n, 17, **{"exception.type": "E", "exception.message": "m"})
        for n in range(5)
    ]
    collecting.send(*hourly, *known, *new, *error)
    now = T0 + 3 * DAY
    said = titles(collecting, now)
    assert said == ["New warning in shop: pool of <*> connections exhausted"]
    collecting.send(log("pool of 77 connections exhausted", T0 + 43 * HOUR))
    [again] = Runner(collecting.home, [JOB], clock=lambda: now).step(since=0)
    assert again.insights == 0  # new is said once


def test_what_comes_once_in_weeks_is_not_new_each_time(collecting: Collecting) -> None:
    """A week without it says too little; three weeks before it was there, and one was not."""
    now = T0 + 30 * DAY
    hourly = [log("started job 7", T0 + n * 6 * HOUR, 9) for n in range(4 * 30)]
    rare = [log(f"certificate ends in {n} days", T0 + 9 * DAY + n) for n in range(4)]
    again = [log(f"certificate ends in {n} days", now - 5 * HOUR + n) for n in range(4)]
    new = [log(f"pool of {n} connections exhausted", now - 4 * HOUR + n) for n in range(4)]
    collecting.send(*hourly, *rare, *again, *new)
    [run] = Runner(collecting.home, [JOB], clock=lambda: now).step(since=now - HOUR)
    assert run.error == ""
    collecting.commit()
    rows = collecting.rows("SELECT title FROM lake.ai_insight")
    assert rows == [("New warning in shop: pool of <*> connections exhausted",)]
