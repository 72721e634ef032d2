"""Decisions and what came of them: what is said, what is chance, and how sure somebody was."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from tests.exporters.remembering import value
from tests.learning.days import DAY, HOUR, MIDNIGHT, event
from tests.learning.home import Collecting

from engram.exporters.home import Home
from engram.learning.jobs import Runner
from engram.learning.jobs.decisions import Decisions
from engram.learning.jobs.decisions.judge import judge
from engram.learning.jobs.decisions.known import Context, Day

END = MIDNIGHT + 35 * DAY


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[Collecting]:
    """A home that was never used."""
    made = Collecting(Home(tmp_path / "home"))
    yield made
    made.close()


def decided(
    number: int, when: int, chosen: str, success: bool | None = None, *, after: int = HOUR,
    confidence: float | None = None, **inputs: Any,
) -> Iterator[LogRecord]:  # fmt: skip
    """A decision, and its outcome where it is known, as `record_decision` and `_outcome` say it."""
    sure = {} if confidence is None else {"confidence": confidence}
    made = event(
        "business_decision", when, f"loan: {chosen}", subject="loan", id=f"d{number}",
        decision="loan", chosen=chosen, **sure,
    )  # fmt: skip
    made.attributes.add(key="inputs").value.CopyFrom(value(inputs))
    yield made
    if success is not None:
        from engram.exporters.memories import memory_id

        at = datetime.fromtimestamp((when + after) / 1e9, UTC).isoformat(timespec="seconds")
        yield event(
            "business_decision", when + after, "Outcome",
            amends=memory_id("business_decision", "", f"id:d{number}"),
            outcome="ok" if success else "error", outcome_success=success, outcome_at=at,
        )  # fmt: skip


def said(collecting: Collecting, now: int) -> list[tuple[Any, ...]]:
    """All that the job said, after it ran at a time."""
    run = Runner(collecting.home, [Decisions()], clock=lambda: now).step()[0]
    assert not run.error
    collecting.commit()
    return collecting.rows(
        "SELECT title, epoch_ns(time), attributes->>'$.state', attributes->'$.evidence' "
        "FROM lake.ai_insight ORDER BY time, title"
    )


def test_an_option_that_got_worse_is_told_once(collecting: Collecting) -> None:
    """By when outcomes were known; the option that stayed as good is not told."""
    rng = random.Random(1)
    records: list[LogRecord] = []
    for n in range(35 * 8):
        day = n // 8
        when = MIDNIGHT + day * DAY + (n % 8) * HOUR
        good = 0.85 if n % 2 or day < 28 else 0.3
        records += decided(n, when, "yes" if n % 2 == 0 else "no", rng.random() < good, after=HOUR)
    collecting.send(*records)
    rows = said(collecting, END - DAY)  # not yet the last day
    assert all(row[1] < END for row in rows)
    rows = said(collecting, END + 2 * HOUR)
    assert len(rows) == 1
    title, moment, state, evidence = rows[0]
    assert title.startswith("loan: yes succeeds less often: ")
    assert state == "worse"
    assert MIDNIGHT + 30 * DAY <= moment <= END
    shown = json.loads(evidence)
    known = collecting.rows("SELECT id FROM lake.business_decision WHERE outcome = 'error'")
    assert shown
    assert {(one,) for one in shown} <= set(known)
    assert said(collecting, END + 5 * DAY) == rows


def test_where_an_option_fails_is_found_in_its_inputs(collecting: Collecting) -> None:
    """One value of one input; an input that is a number or a name is none."""
    rng = random.Random(2)
    records: list[LogRecord] = []
    for n in range(400):
        region = "north" if n % 4 == 0 else "south"
        good = 0.3 if region == "north" else 0.8
        records += decided(
            n, MIDNIGHT + n * HOUR, "yes", rng.random() < good, region=region, score=n,
            new=n % 3 == 0,
        )  # fmt: skip
    collecting.send(*records)
    rows = said(collecting, MIDNIGHT + 18 * DAY)
    assert [row[2] for row in rows] == ["worse here"]
    assert "yes succeeds less often where region is north: " in rows[0][0]


def days(rate: Callable[[int], float], confidence: float = 0.0, seed: int = 1) -> list[Day]:
    """Thirty-five days of one option, ten outcomes each."""
    rng = random.Random(seed)
    made = []
    for day in range(35):
        k = sum(rng.random() < rate(day) for _ in range(10))
        sure = 10 if confidence else 0
        made.append(
            Day("shop", "loan", "yes", END // DAY - 35 + day, 10, k, sure, k if sure else 0,
                sure * confidence, sure * confidence * (1 - confidence),
                k * (1 - confidence) ** 2 + (10 - k) * confidence**2, (f"f{day}",), (f"o{day}",))
        )  # fmt: skip
    return made


def states(found: list[Day], contexts: list[Context] | None = None) -> list[str]:
    """What is said of some days."""
    return [str(one.facts["state"]) for one in judge(found, contexts or [], END, "decisions")]


def test_chance_is_no_news() -> None:
    """A thousand options that did not change, and one bad day: hardly a word."""
    false = sum(len(states(days(lambda _: 0.7, seed=seed))) for seed in range(1000))
    assert false <= 10
    burst = days(lambda day: 0.0 if day == 30 else 0.8)
    assert states(burst) == []
    assert states(days(lambda day: 0.8 if day < 28 else 0.3)) == ["worse"]
    assert states(days(lambda day: 0.3 if day < 28 else 0.8)) == ["better"]


def test_confidence_is_held_against_what_came() -> None:
    """Too sure, not sure enough, and right."""
    assert states(days(lambda _: 0.6, confidence=0.95)) == ["overconfident"]
    assert states(days(lambda _: 0.9, confidence=0.5)) == ["underconfident"]
    assert states(days(lambda _: 0.8, confidence=0.8)) == []
    one = next(iter(judge(days(lambda _: 0.6, confidence=0.95), [], END, "decisions")))
    assert one.facts["brier"] == pytest.approx(0.6 * 0.05**2 + 0.4 * 0.95**2, abs=0.05)
    assert one.facts["n"] == 280
    assert one.facts["low"] < 0.6 < one.facts["high"]


def test_a_better_option_is_a_reason_to_try() -> None:
    """The most frequent one against the best one, with the caution."""
    usual = days(lambda _: 0.5)
    rare = [
        Day("shop", "loan", "no", one.day, 2, 2, 0, 0, 0.0, 0.0, 0.0, (), (f"b{one.day}",))
        for one in usual
    ]
    found = list(judge([*usual, *rare], [], END, "decisions"))
    assert [one.facts["state"] for one in found] == ["better option"]
    assert "no proof" in found[0].content
    assert found[0].title.startswith("loan: no succeeds more often than yes: 100% of 56, ")


def test_of_many_contexts_the_least_p_is_no_discovery() -> None:
    """The best of a thousand contexts that make no difference is not told."""
    rng = random.Random(7)
    contexts = []
    for at in range(1000):
        k, others = (sum(rng.random() < 0.7 for _ in range(n)) for n in (30, 100))
        contexts.append(Context("shop", "loan", "yes", f"i{at}", "x", 30, k, 100, others, (), ()))
    assert states(days(lambda _: 0.7), contexts) == []
    contexts.append(Context("shop", "loan", "yes", "region", "north", 30, 5, 100, 70, (), ()))
    assert states(days(lambda _: 0.7), contexts) == ["worse here"]
