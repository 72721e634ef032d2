"""Workflows that fail or stop, pages that break, clicks in rage, forms that are given up."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from tests.exporters.remembering import request
from tests.learning.days import DAY, HOUR, MIDNIGHT, event
from tests.learning.home import Collecting
from tests.telemetry import attributes

from engram.exporters.home import Home
from engram.learning.jobs import Runner
from engram.learning.jobs.journeys import Journeys


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[Collecting]:
    """A home that was never used."""
    made = Collecting(Home(tmp_path / "home"))
    yield made
    made.close()


def said(collecting: Collecting, now: int, since: int | None = None) -> list[tuple[Any, ...]]:
    """All that the job said, after it ran at a time."""
    run = Runner(collecting.home, [Journeys()], clock=lambda: now).step(since=since)[0]
    assert not run.error
    collecting.commit()
    return collecting.rows(
        "SELECT title, epoch_ns(time), attributes->>'$.state', attributes->'$.evidence', id "
        "FROM lake.ai_insight ORDER BY time, title"
    )


def ran(name: str, when: int, *, failed: bool = False, key: int = 0) -> LogRecord:
    """A run of an automation, as `automation_run` tells its end."""
    more = {"error_type": "ValueError"} if failed else {}
    return event(
        "workflow_state", when, f"Automation {name}: end", subject=name, id=f"{name}{key}",
        outcome="error" if failed else "ok", automation=name,
        state="failed" if failed else "completed", **more,
    )  # fmt: skip


def test_an_automation_that_fails_is_said_and_a_good_one_is_not(collecting: Collecting) -> None:
    """Every second run of one fails, one of forty of another; the former is said once."""
    records = []
    for n in range(40):
        records.append(ran("catalogue", MIDNIGHT + n * HOUR, failed=n % 2 == 1, key=n))
        records.append(ran("cleanup", MIDNIGHT + n * HOUR, failed=n == 20, key=n))
    collecting.send(*records)
    rows = said(collecting, MIDNIGHT + 3 * DAY)
    assert [row[0] for row in rows] == ["catalogue keeps failing: 4 of 8 runs in shop"]
    assert rows[0][1] == MIDNIGHT + 7 * HOUR
    shown = json.loads(rows[0][3])
    failed = collecting.rows("SELECT id FROM lake.workflow_state WHERE outcome = 'error'")
    assert len(shown) == 4
    assert {(one,) for one in shown} <= set(failed)
    assert said(collecting, MIDNIGHT + 4 * DAY, since=0) == rows


def test_what_began_and_never_ended_has_failed(collecting: Collecting) -> None:
    """A day after it began; a run that ended late has not."""
    records = []
    for n in range(8):
        begun = event(
            "workflow_state", MIDNIGHT + n * HOUR, "x: started", subject="x", id=f"x{n}",
            workflow="x", started=True,
        )  # fmt: skip
        records.append(begun)
        records += [ran("x", MIDNIGHT + n * HOUR + 9, key=n)] if n % 2 else []
    collecting.send(*records)
    assert said(collecting, MIDNIGHT + DAY) == []
    rows = said(collecting, MIDNIGHT + 2 * DAY)
    assert [row[0] for row in rows] == ["x keeps failing: 4 of 8 runs in shop"]
    assert rows[0][1] == MIDNIGHT + 6 * HOUR + DAY


def test_a_dead_end_is_a_state_that_others_leave(collecting: Collecting) -> None:
    """Orders stop in `paid`; that they end in `sent` is no news, nor that one was paid just now."""
    records = []
    for n in range(40):
        ways = ["new", "paid"] if n % 4 == 0 else ["new", "paid", "sent"]
        for at, state in enumerate(ways):
            when = MIDNIGHT + n * 600 * 10**9 + at * HOUR
            records.append(
                event("workflow_state", when, f"order: {state}", workflow="order", state=state,
                      run=f"r{n}")
            )  # fmt: skip
    collecting.send(*records)
    assert said(collecting, MIDNIGHT + DAY + 2 * HOUR) == []  # it may go on yet
    rows = said(collecting, MIDNIGHT + 3 * DAY)
    assert [(row[0], row[2]) for row in rows] == [
        ("order stops in paid: 10 of 40 runs in shop", "stuck")
    ]
    assert rows[0][1] == MIDNIGHT + 2 * DAY - 1
    assert said(collecting, MIDNIGHT + 6 * DAY) == rows


def stays(days: int, longer: float) -> list[LogRecord]:
    """Orders that stay about ten minutes in `new` and in `paid`; longer in `paid` on five days."""
    dice, records = random.Random(3), []
    for n in range(days * 12):
        day, begun = n // 12, MIDNIGHT + n * 2 * HOUR
        times = [0, int(600e9 * dice.lognormvariate(0, 0.5))]
        factor = longer if day >= days - 5 else 1.0
        times.append(times[1] + int(600e9 * factor * dice.lognormvariate(0, 0.5)))
        for at, state in zip(times, ("new", "paid", "sent"), strict=True):
            records.append(
                event("workflow_state", begun + at, f"order: {state}", workflow="order",
                      state=state, run=f"r{n}")
            )  # fmt: skip
    return records


@pytest.mark.parametrize("longer", [3.0, 1.2])
def test_a_state_in_which_runs_stay_longer(collecting: Collecting, longer: float) -> None:
    """Three times as long on five days of seven is told once; the other state, and a fifth, not."""
    collecting.send(*stays(20, longer))
    end = MIDNIGHT + 20 * DAY
    rows = said(collecting, end + 2 * HOUR, since=end)
    if longer < 2:
        assert rows == []
        return
    [(title, moment, state, _, _)] = rows
    assert title.startswith("order stays longer in paid: ")
    assert 1.5 < float(title.split(": ")[1].split()[0]) < 4
    assert (moment, state) == (end - 1, "longer")
    assert said(collecting, end + DAY + 2 * HOUR, since=end) == rows


# -- browsers --------------------------------------------------------------------------------------


def page(session: str, when: int, path: str) -> LogRecord:
    """A view of a page."""
    return _browser("browser.navigation", session, when, path)


def click(session: str, when: int, path: str, element: str, how: str = "click") -> LogRecord:
    """A click, or a form that was submitted."""
    made = _browser(f"browser.user_action.{how}", session, when, path)
    made.attributes.extend(attributes({"browser.css_selector": element}))
    return made


def broke(session: str, when: int, path: str) -> LogRecord:
    """An uncaught error of a page."""
    made = _browser("exception", session, when, path)
    made.severity_number = 17  # type: ignore[assignment]
    made.attributes.extend(
        attributes({"exception.type": "TypeError", "exception.message": "x is undefined"})
    )
    return made


def _browser(name: str, session: str, when: int, path: str) -> LogRecord:
    made = LogRecord(event_name=name, time_unix_nano=when, severity_number=9)  # type: ignore[arg-type]
    made.attributes.extend(
        attributes({"session.id": session, "url.path": path, "url.full": f"http://shop{path}"})
    )
    return made


def visit(collecting: Collecting, records: list[LogRecord]) -> None:
    """What a browser sends."""
    browser = {"telemetry.sdk.language": "webjs"}
    for at in range(0, len(records), 500):
        signal, body = request(records[at : at + 500], browser)
        collecting.admit(signal, body)
    collecting.commit()


def test_a_page_that_breaks_and_a_button_that_does_nothing(collecting: Collecting) -> None:
    """By sessions: one that fails ten times is one; patience and other pages are not named."""
    records = []
    for n in range(24):
        session, when = f"s{n}", MIDNIGHT + n * HOUR
        records += [page(session, when, "/"), page(session, when + 10**9, "/cart")]
        if n % 2 == 0:  # two errors each: one observation
            records += [broke(session, when + k * 10**9, "/cart") for k in (2, 3)]
        if n % 2 == 1:
            records += [click(session, when + k * 10**8, "/cart", "button#pay") for k in range(20)]
        else:
            records += [
                click(session, when + k * 2 * 10**9, "/cart", "button#pay") for k in range(5)
            ]
        records += [click(session, when + k * 10**8, "/", "a.more") for k in range(2)]
    records.append(page("s1", MIDNIGHT + 30 * HOUR, "/"))
    records += [broke("s1", MIDNIGHT + 30 * HOUR + k, "/") for k in range(1, 10)]
    visit(collecting, records)
    assert [row[0] for row in said(collecting, MIDNIGHT + 3 * DAY)] == [
        "Page /cart breaks: 4 of 7 sessions had an error on it in shop",
        "People click 3 times and more in a row on button#pay on /cart: "
        "4 of 8 sessions that clicked it in shop",
    ]


def test_a_form_that_is_given_up_is_told_against_the_week_before(collecting: Collecting) -> None:
    """From six of ten to three of ten; a form of which as many as ever submit it is not."""
    rng = random.Random(3)
    records = []
    for day in range(14):
        for n in range(20):
            session, when = f"s{day}-{n}", MIDNIGHT + day * DAY + n * HOUR
            for path, share in (("/signup", 0.6 if day < 7 else 0.3), ("/search", 0.5)):
                records.append(page(session, when, path))
                if rng.random() < share:
                    records.append(click(session, when + 9, path, "form", "submit"))
    visit(collecting, records)
    rows = said(collecting, MIDNIGHT + 14 * DAY + 2 * HOUR)
    assert len(rows) == 1
    assert rows[0][0].startswith("Fewer submit the form on /signup: ")
    assert "of 140 sessions, the week before" in rows[0][0]
