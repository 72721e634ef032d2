"""What an incident began with: a leaf, a way, a deploy before it; unclear; nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.learning.days import event
from tests.learning.home import Collecting
from tests.learning.systems import BEGIN, HOUR, Fault, System

from engram.exporters.ask import ask
from engram.exporters.home import Home
from engram.exporters.signals import Signal
from engram.learning.jobs import Insight, Runner, performance
from engram.learning.jobs.causes import JOB
from engram.learning.jobs.insight import request

START = 26
"""The hour in which it begins."""


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[Collecting]:
    """A home that was never used."""
    made = Collecting(Home(tmp_path / "home"))
    yield made
    made.close()


def told(collecting: Collecting, state: str, hours: int) -> str:
    """What the job `performance` says of the front; its memory."""
    one = Insight(
        job="performance", key=(state,), title=f"GET /front is {state}", content="so it is",
        time_unix_nano=BEGIN + (START + hours) * HOUR, service="front",
        subject=f"front: GET /front {state}", tags=(f"state:{state}",),
        facts={"state": state, "operation": "GET /front", "since": BEGIN + START * HOUR},
    )  # fmt: skip
    ask(collecting.home, "append", signal=str(Signal.LOGS), body=request([one]), trusted=True)
    collecting.commit()
    return str(collecting.rows("SELECT id FROM lake.memories WHERE title = ?", [one.title])[0][0])


def causes(collecting: Collecting, hours: int) -> list[dict[str, Any]]:
    """What the job says after the incident."""
    now = BEGIN + (START + hours) * HOUR
    [run] = Runner(collecting.home, [JOB], clock=lambda: now).step(since=now - HOUR // 12)
    assert run.error == ""
    collecting.commit()
    rows = collecting.rows(
        "SELECT title, content, subject, importance, tags, attributes FROM lake.ai_insight "
        "WHERE list_contains(tags, 'job:causes') ORDER BY title"
    )
    return [
        {"title": r[0], "content": r[1], "subject": r[2], "importance": r[3], "tags": r[4]}
        | json.loads(r[5])
        for r in rows
    ]


def lived(collecting: Collecting, fault: Fault, state: str, **more: Any) -> dict[str, Any]:
    """The statement on a fault."""
    hours = 6 if state == "slower" else 2
    system = System(**more)
    collecting.admit(Signal.TRACES, system.hours(0, START, 30))
    collecting.admit(Signal.TRACES, system.hours(START, START + hours, 30, fault))
    collecting.commit()
    told(collecting, state, hours)
    [one] = causes(collecting, hours)
    return one


def test_a_slow_leaf_three_hops_down(collecting: Collecting) -> None:
    """Is named first, with its numbers, under the incident's subject; and is said once."""
    one = lived(collecting, Fault(slower={"db": 4.0}), "slower")
    assert one["title"].startswith("Cause: GET /db (db) (")
    assert one["title"].endswith("of: GET /front is slower")
    assert one["subject"] == "front: GET /front slower"
    assert one["cause_service"] == "db"
    assert one["importance"] < 0.7  # the incident was an alert already
    assert "own a run" in one["content"]
    assert "95 %" in one["content"]
    assert one["evidence"][0] == one["incident"]
    assert "no deploy, flag or configuration change was seen near it" in one["content"]
    traces = {row[0] for row in collecting.rows("SELECT DISTINCT trace_id FROM lake.spans")}
    assert one["traces"]
    assert set(one["traces"]) <= traces
    assert [again["title"] for again in causes(collecting, 6)] == [one["title"]]
    assert len(causes(collecting, 7)) == 1


def test_a_failing_leaf(collecting: Collecting) -> None:
    """Its callers fail as often, and are not named."""
    one = lived(collecting, Fault(failing={"stock": 0.2}), "worse")
    assert one["causes"][0] == "GET /stock (stock)"
    assert not one["unclear"]
    assert "own failures of 100 runs" in one["content"]


@pytest.mark.parametrize("state", ["slower", "worse"])
def test_a_bad_way_between_two(collecting: Collecting, state: str) -> None:
    """Neither side is slow or fails by itself."""
    way = "cart -> stock"
    fault = Fault(slower={way: 15.0}) if state == "slower" else Fault(failing={way: 0.2})
    one = lived(collecting, fault, state)
    assert one["causes"][0] == way
    assert f"cause: the way {way}: " in one["content"]


def test_what_came_shortly_before_is_told_and_proves_nothing(collecting: Collecting) -> None:
    """A deploy of a service below; not a flag of a service that has no part in it."""
    change = BEGIN + START * HOUR - 5 * 60 * 10**9

    def versions(service: str, at: int) -> str:
        return "2" if service == "stock" and at >= change - HOUR // 2 else "1"

    collecting.send(event("business_decision", BEGIN, "new prices", flag="f", value="off"))
    collecting.send(event("business_decision", change, "new prices", flag="f", value="on"))
    one = lived(collecting, Fault(slower={"stock": 3.0}), "slower", versions=versions)
    assert one["causes"][0] == "GET /stock (stock)"
    assert one["changes"] == ["deploy 2 (stock)"]
    assert "before it, which proves nothing: deploy 2 in stock" in one["content"]


def test_overload_has_no_component_as_its_cause(collecting: Collecting) -> None:
    """All are slower, so it is unclear, and says that there is more load; no alert."""
    everything = dict.fromkeys(("front", "cart", "stock", "prices", "db"), 1.8)
    one = lived(collecting, Fault(slower=everything, load=2.5), "slower")
    assert one["title"] == "Cause unclear: GET /front is slower"
    assert one["unclear"]
    assert "load: 2.5 times as many runs an hour" in one["content"]
    assert one["importance"] < 0.5
    assert not any(tag.startswith("state:") for tag in one["tags"])


def test_an_incident_that_the_traces_do_not_show_is_unclear(collecting: Collecting) -> None:
    """As when it was said of something else, or has too few traces."""
    one = lived(collecting, Fault(), "slower")
    assert one["unclear"]
    assert "cause_service" not in one


def test_an_error_that_spikes_in_a_service(collecting: Collecting) -> None:
    """Of all its entry spans; the cause is below it. What is new beside it is seen with it."""
    system, moment = System(), BEGIN + START * HOUR + HOUR // 2
    collecting.admit(Signal.TRACES, system.hours(0, START, 60))
    collecting.admit(Signal.TRACES, system.hours(START, START + 1, 120, Fault(failing={"db": 0.5})))
    spike, new = (
        Insight(
            job="errors", key=(state,), title=f"{state} in {service}", content="so it is",
            time_unix_nano=moment, service=service, tags=(f"state:{state}",),
            facts={"state": state, "pattern": "E in f", "n": 20},
        )
        for state, service in (("spike", "stock"), ("new", "db"))
    )  # fmt: skip
    body = request([spike, new])
    ask(collecting.home, "append", signal=str(Signal.LOGS), body=body, trusted=True)
    collecting.commit()
    [one] = causes(collecting, 1)
    assert one["title"].startswith("Cause: GET /db (db) ("), one["content"]
    assert one["title"].endswith("of: spike in stock")
    assert "seen with it: new in db" in one["content"]
    assert len(one["evidence"]) == 2


def test_many_incidents_are_looked_into_pass_by_pass(collecting: Collecting) -> None:
    """Four a pass; none twice, none forgotten."""
    told_ = [
        Insight(
            job="performance", key=(str(n),), title=f"op{n} is slower", content="so it is",
            time_unix_nano=BEGIN + (START + 6) * HOUR, service="front", tags=("state:slower",),
            facts={"state": "slower", "operation": f"op{n}", "since": BEGIN + START * HOUR},
        )
        for n in range(6)
    ]  # fmt: skip
    ask(collecting.home, "append", signal=str(Signal.LOGS), body=request(told_), trusted=True)
    collecting.commit()
    said = [causes(collecting, 6) for _ in range(3)]
    assert [len(one) for one in said] == [4, 6, 6]
    assert {one["why"] for one in said[2]} == {"too few runs have traces"}
    assert len({one["incident"] for one in said[2]}) == 6


def test_nothing_told_is_nothing_said(collecting: Collecting) -> None:
    """Nothing is read of the spans, either."""
    collecting.admit(Signal.TRACES, System().hours(0, 3, 5))
    collecting.commit()
    assert causes(collecting, 1) == []


def test_by_the_road_of_what_performance_says(collecting: Collecting) -> None:
    """Three days, a slow database on the last: incident in one round, its cause in the next."""
    system, late = System({"front": ("db",), "db": ()}), 64
    collecting.admit(Signal.TRACES, system.hours(0, late, 60))
    collecting.admit(Signal.TRACES, system.hours(late, 72, 60, Fault(slower={"db": 3.0})))
    collecting.commit()
    now = BEGIN + 72 * HOUR
    for _ in range(2):
        for run in Runner(collecting.home, [performance.JOB, JOB], clock=lambda: now).step(
            since=BEGIN + 60 * HOUR
        ):
            assert run.error == ""
        collecting.commit()
    titles = [row[0] for row in collecting.rows("SELECT title FROM lake.ai_insight ORDER BY 1")]
    assert [one for one in titles if one.startswith("GET /front is slower")]
    said = [one for one in titles if one.startswith("Cause")]
    assert said
    assert all(one.startswith("Cause: GET /db (db) (") for one in said), said
