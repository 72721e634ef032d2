"""Models, tools and nodes: what keeps failing, what changed, and no word by chance."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.learning.days import DAY, HOUR, MIDNIGHT
from tests.learning.home import Collecting
from tests.telemetry import attributes, span_id, trace_id

from engram.exporters.home import Home
from engram.learning.intervals import difference, discoveries, fisher, pooled, student, wilson
from engram.learning.jobs import Runner, Window
from engram.learning.jobs.agents import Agents, Day, changes
from engram.learning.jobs.daily import Before
from engram.learning.jobs.failing import bucket_of, failing


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[Collecting]:
    """A home that was never used."""
    made = Collecting(Home(tmp_path / "home"))
    yield made
    made.close()


def call(
    number: int, when: int, *, ms: float = 500, error: str = "", trace: int | None = None,
    **said: Any,
) -> Span:  # fmt: skip
    """A span of an LLM call, a tool or a node."""
    made = Span(
        trace_id=trace_id(number if trace is None else trace), span_id=span_id(number),
        name="call", kind=Span.SPAN_KIND_CLIENT, start_time_unix_nano=when,
        end_time_unix_nano=when + int(ms * 1e6),
        attributes=attributes({**said, **({"error.type": error} if error else {})}),
    )  # fmt: skip
    if error:
        made.status.code = Status.STATUS_CODE_ERROR
    return made


CHAT: dict[str, Any] = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m-1", "gen_ai.agent.name": "AUREA"}  # fmt: skip
TOOL: dict[str, Any] = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}
NODE: dict[str, Any] = {"langgraph.node": "plan"}


def said(collecting: Collecting, now: int, since: int | None = None) -> list[tuple[Any, ...]]:
    """All that the job said, after it ran at a time."""
    run = Runner(collecting.home, [Agents()], clock=lambda: now).step(since=since)[0]
    assert not run.error
    collecting.commit()
    return collecting.rows(
        "SELECT title, epoch_ns(time), attributes->>'$.why', "
        "json_array_length(attributes->'$.evidence'), id "
        "FROM lake.ai_insight ORDER BY time, title"
    )


def test_what_keeps_failing_is_said_once(collecting: Collecting) -> None:
    """At the run with which there was enough of it, with evidence and the most frequent reason."""
    spans = []
    for n in range(40):
        when = MIDNIGHT + n * HOUR // 4
        spans.append(call(3 * n, when, error="TimeoutError" if n % 3 == 2 else "", **NODE))
        spans.append(call(3 * n + 1, when, error="Refused" if n == 7 else "", **TOOL))
        spans.append(call(3 * n + 2, when, error="429" if n in (1, 20) else "", **CHAT))
    collecting.send(*spans)
    rows = said(collecting, MIDNIGHT + DAY // 2)
    then = MIDNIGHT + 17 * HOUR // 4
    assert [row[0] for row in rows] == ["Graph node plan keeps failing: 6 of 18 runs in shop"]
    assert rows[0][1:4] == (then, "TimeoutError", 5)
    # More of it, and an earlier look, and the same look again: nothing else is said.
    collecting.send(*(call(900 + n, MIDNIGHT + 11 * HOUR + n, error="E", **NODE) for n in range(9)))
    assert said(collecting, MIDNIGHT + DAY) == rows
    assert said(collecting, MIDNIGHT + DAY, since=0) == rows
    later = bucket_of(MIDNIGHT, 7 * DAY) + 7 * DAY
    collecting.send(*(call(990 + n, later + n, error="E", **NODE) for n in range(4)))
    assert len(said(collecting, later + DAY)) == 2


def test_tries_of_one_run_are_one(collecting: Collecting) -> None:
    """A tool that is asked again until it answers has answered."""
    spans = [
        call(5 * n + m, MIDNIGHT + n * HOUR + m, trace=n, error="E" if m < 4 else "", **TOOL)
        for n in range(8)
        for m in range(5)
    ]
    collecting.send(*spans)
    assert said(collecting, MIDNIGHT + DAY) == []
    storm = [call(100 + m, MIDNIGHT + m, trace=99, error="E", **TOOL) for m in range(9)]
    collecting.send(*storm)
    assert said(collecting, MIDNIGHT + DAY) == []


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_hour_by_hour_says_what_one_look_says(seed: int) -> None:
    """What an earlier run has seen is left out, and nothing is lost by that."""
    rng = random.Random(seed)
    rows = []
    for name in range(40):
        rate = rng.choice((0.02, 0.1, 0.2, 0.4))
        for run in range(rng.choice((20, 80, 300))):
            when = MIDNIGHT + rng.randrange(9 * DAY)
            failed = rng.random() < rate
            if name % 2 and failed:  # tried before, which is the same run
                rows.append((f"n{name}", when - 9, True, f"{name}-{run}-0", f"t{name}-{run}"))
            rows.append((f"n{name}", when, failed, f"{name}-{run}", f"t{name}-{run}"))
    schema = ["name", "begun", "failed", "id", "trace_id"]
    known = pl.DataFrame(rows, schema=schema, orient="row")  # noqa: F841 - DuckDB finds it
    with duckdb.connect() as lake:
        lake.execute(
            "CREATE TABLE r AS SELECT '' AS service, *, begun AS moment, begun AS recorded_at, "
            "NULL::VARCHAR AS why FROM known"
        )

        def read(sql: str, values: Sequence[Any] = ()) -> pl.DataFrame:
            return lake.execute(sql, list(values)).pl()

        def said_in(since: int, until: int) -> set[str]:
            runs = "SELECT * FROM r WHERE begun >= $1 AND begun < $2"
            window = Window(since, until)
            found = failing(read, window, runs, job="j", kind="k", title="{name} keeps failing")
            return {f"{one.id} {one.title} {one.time_unix_nano}" for one in found}

        whole = said_in(0, MIDNIGHT + 10 * DAY)
        step = 3 * HOUR
        parts = [said_in(MIDNIGHT + n * step, MIDNIGHT + (n + 1) * step) for n in range(80)]
    assert len(whole) > 10
    assert set().union(*parts) == whole


# -- what changed ----------------------------------------------------------------------------------


def some_days(seed: int, slower: float = 1.0, failing: float = 0.0, n: int = 50) -> list[Day]:
    """Ten days, of which the last three may be otherwise."""
    rng = random.Random(seed)
    return [
        Day(
            day, n, sum(rng.random() < (failing if day >= 7 and failing else 0.01)
                        for _ in range(n)),
            500 * rng.lognormvariate(0, 0.08) * (slower if day >= 7 else 1), 900.0, (f"m{day}",),
        )
        for day in range(10)
    ]  # fmt: skip


def test_a_change_is_told_and_chance_is_not() -> None:
    """A model that takes twice as long, and one that fails more; of 500 that did neither, none."""
    many = {("shop", f"m{n}", ""): some_days(n) for n in range(500)}
    assert [one.title for one in changes(many, 10 * DAY)] == []
    many["shop", "slow", "AUREA"] = some_days(1, slower=2)
    many["shop", "wrong", ""] = some_days(2, failing=0.3)
    found = list(changes(many, 10 * DAY))
    assert [one.facts["measure"] for one in found] == ["latency", "failures"]
    slow, wrong = found
    assert slow.title.startswith("slow of AUREA in shop answers slower: ")
    assert slow.facts["low"] > 1.25
    assert slow.facts["low"] < 2 < slow.facts["high"]
    assert slow.evidence == ("m7", "m8", "m9")
    assert wrong.facts["state"] == "worse"
    assert wrong.facts["low"] > 0
    quick = {("shop", "quick", ""): some_days(1, slower=0.5)}
    assert [one.facts["state"] for one in changes(quick, 10 * DAY)] == ["better"]
    assert list(changes({("shop", "few", ""): some_days(1, slower=2, n=5)}, 10 * DAY)) == []


def test_a_change_is_said_once_in_four_weeks(collecting: Collecting) -> None:
    """By real spans, at the end of a day; the days after it say nothing new."""
    rng = random.Random(1)
    number = 0
    for day in range(12):
        spans = []
        for _ in range(25):
            number += 1
            when = MIDNIGHT + day * DAY + rng.randrange(DAY)
            ms = (900 if day >= 7 else 300) * rng.lognormvariate(0, 0.2)
            spans.append(call(number, when, ms=ms, **CHAT))
        collecting.send(*spans)
    first = said(collecting, MIDNIGHT + 10 * DAY + 2 * HOUR)
    assert len(first) == 1
    assert first[0][0].startswith("m-1 of AUREA in shop answers slower: ")
    assert first[0][1] == MIDNIGHT + 10 * DAY - 1
    assert said(collecting, MIDNIGHT + 12 * DAY + 2 * HOUR) == first
    assert said(collecting, MIDNIGHT + 12 * DAY + 2 * HOUR, since=0) == first


def test_what_was_said_is_quiet_for_four_weeks() -> None:
    """Said in the lake or in this run; the same moment is the same statement, and stays."""
    slow = {("shop", "slow", ""): some_days(1, slower=2)}
    one = next(iter(changes(slow, 10 * DAY)))
    said_at = one.time_unix_nano

    def read(sql: str, values: Sequence[Any] = ()) -> pl.DataFrame:
        return pl.DataFrame({"what": [one.facts["what"]], "moment": [said_at]})

    before = Before(read, "agents", Window(0, 99 * DAY))
    again = [replace(one, time_unix_nano=said_at + day * DAY) for day in (0, 1, 27, 29, 30, 58)]
    kept = [it.time_unix_nano for it in before.fresh(again)]
    assert kept == [said_at, said_at + 29 * DAY, said_at + 58 * DAY]


# -- the statistics --------------------------------------------------------------------------------


def test_intervals_are_those_of_the_books() -> None:
    """Wilson, Newcombe's example, Student's table, the tea that was tasted."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    assert difference(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert student(8) == pytest.approx(2.306, rel=0.002)
    assert student(3) == pytest.approx(3.182, rel=0.01)
    assert fisher(3, 4, 1, 4) == pytest.approx(0.4857, abs=1e-4)
    assert fisher(8, 10, 1, 10) == pytest.approx(0.0055, abs=1e-4)
    assert discoveries([0.01, 0.04, 0.03, 0.5]) == [True, False, False, False]
    assert discoveries([0.01, 0.02, 0.03, 0.5]) == [True, True, True, False]
    assert discoveries([]) == []
    rng = random.Random(5)
    groups = [([rng.gauss(0, 1) for _ in range(3)], [rng.gauss(0, 1) for _ in range(7)])
              for _ in range(2000)]  # fmt: skip
    rejected = sum(pooled(one, other)[0] < 0.05 for one, other in groups)
    assert 70 <= rejected <= 130
