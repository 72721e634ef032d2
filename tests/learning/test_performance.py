"""Performance: levels that changed and those that only swing; what slow requests have in common."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.learning.home import Collecting
from tests.telemetry import T0, attributes, span_id, trace_id

from engram.exporters.home import Home
from engram.exporters.signals import Signal
from engram.learning.jobs import Runner
from engram.learning.jobs.performance import JOB
from engram.learning.jobs.performance.hours import HOUR, PER_DOUBLING, Hour, milliseconds
from engram.learning.jobs.performance.levels import Change, changes
from engram.learning.jobs.performance.slow import differences

START = T0 // HOUR
MS = 10**6


def hour(median_ms: float, runs: int = 100, errors: int = 0, seed: int = 0) -> Hour:
    """Durations spread by a factor around a median."""
    draw = random.Random(f"{seed} {median_ms}")
    made = Hour()
    for _ in range(runs):
        ns = median_ms * math.exp(draw.gauss(0, 0.5)) * MS
        bucket = math.floor(math.log2(ns) * PER_DOUBLING)
        made.buckets[bucket] = made.buckets.get(bucket, 0) + 1
    made.runs, made.errors = runs, errors
    return made


def life(days: int, of: Callable[[int], Hour | None]) -> dict[int, Hour]:
    """Hours from the start."""
    return {START + at: one for at in range(days * 24) if (one := of(at)) is not None}


def found(hours: dict[int, Hour]) -> list[Change]:
    """All changes in a life."""
    return list(changes(hours, min(hours), max(hours) + 1))


def daily(at: int) -> float:
    """A median that doubles in the evening."""
    return 40.0 * (1.5 + 0.5 * math.sin(at / 24 * 2 * math.pi))


def test_a_level_that_rose_is_known_after_six_hours() -> None:
    """Since when, how much with an interval, once; in spite of the time of the day."""
    hours = life(6, lambda at: hour(daily(at) * (1.35 if at >= 100 else 1), seed=at))
    [one] = found(hours)
    assert (one.what, one.since - START) in {("latency", at) for at in range(98, 104)}
    assert one.known == one.since + 5
    assert one.low < 1.35 < one.high or abs(one.size - 1.35) < 0.12
    faster = life(6, lambda at: hour(daily(at) * (0.6 if at >= 100 else 1), seed=at))
    assert [one.size < 1 for one in found(faster)] == [True]


@pytest.mark.parametrize("seed", range(10))
def test_what_only_swings_is_no_change(seed: int) -> None:
    """Days, noise, a burst of two hours, a quiet night, and a few milliseconds."""
    draw = random.Random(seed)
    noisy = life(9, lambda at: hour(daily(at) * math.exp(draw.gauss(0, 0.06)), seed=at + seed))
    assert found(noisy) == []
    burst = life(9, lambda at: hour(daily(at) * (3 if 100 <= at < 102 else 1), seed=at + seed))
    assert found(burst) == []
    nights = life(
        9, lambda at: hour(daily(at), seed=at + seed) if at % 24 > 6 else hour(300, 4, seed=at)
    )
    assert found(nights) == []
    tiny = life(9, lambda at: hour(2.0 * (1.6 if at >= 100 else 1), seed=at + seed))
    assert found(tiny) == []


def test_a_rising_share_of_errors_is_known_after_two_hours() -> None:
    """But not what happens every night, nor a single error."""
    hours = life(5, lambda at: hour(40, 200, 20 if at >= 80 else 1, seed=at))
    [one] = [change for change in found(hours) if change.what == "errors"]
    assert (one.since - START, one.known - START) in ((79, 80), (80, 81))
    assert one.low > 0.02
    nightly = life(5, lambda at: hour(40, 200, 20 if at % 24 == 3 else 0, seed=at))
    assert [change for change in found(nightly) if change.since > START + 30] == []


def test_what_tells_slow_from_fast() -> None:
    """The value, its shares, strongest first; nothing where nothing does."""
    slow = [{"url.query": "q=t", "server": "a" if n % 2 else "b", "id": n} for n in range(30)]
    fast = [{"url.query": "q=te", "server": "a" if n % 2 else "b", "id": n} for n in range(90)]
    [one] = differences(slow, fast)
    assert (one.name, one.value, one.slow, one.fast) == ("url.query", "q=t", 1.0, 0.0)
    assert differences(fast[:30], fast[30:]) == []
    assert differences(slow[:2], fast) == []


def test_many_attributes_by_chance_find_nothing() -> None:
    """The false discovery rate is held over all that is compared."""
    draw = random.Random(3)
    runs = [{f"a{k}": draw.randrange(3) for k in range(100)} for _ in range(200)]
    wrong = len(differences(runs[:100], runs[100:]))
    assert wrong <= 1


def test_buckets() -> None:
    """A bucket's middle is within 3 % of what is in it."""
    for ns in (10**6, 123_456_789, 5 * 10**9):
        bucket = math.floor(math.log2(ns) * PER_DOUBLING)
        assert milliseconds(bucket) == pytest.approx(ns / MS, rel=0.03)


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[Collecting]:
    """A home that was never used."""
    made = Collecting(Home(tmp_path / "home"))
    yield made
    made.close()


def test_slow_requests_say_where_their_time_went(collecting: Collecting) -> None:
    """A query below them, and the parameter that they have; told once a day."""
    request = ExportTraceServiceRequest()
    batch = request.resource_spans.add()
    batch.resource.attributes.extend(attributes({"service.name": "shop"}))
    spans = batch.scope_spans.add().spans
    for n in range(120):
        slow = n % 6 == 0
        at, took = T0 + n * 10**10, (1_400 if slow else 20) * MS
        query: dict[str, Any] = {
            "http.request.method": "GET", "http.route": "/search",
            "url.query": "q=t" if slow else f"q=te{n}",
        }  # fmt: skip
        spans.add(
            trace_id=trace_id(n + 1), span_id=span_id(2 * n + 1), name="GET /search",
            kind=Span.SPAN_KIND_SERVER, start_time_unix_nano=at, end_time_unix_nano=at + took,
            attributes=attributes(query),
        )  # fmt: skip
        spans.add(
            trace_id=trace_id(n + 1), span_id=span_id(2 * n + 2), parent_span_id=span_id(2 * n + 1),
            name="SELECT articles", kind=Span.SPAN_KIND_CLIENT, start_time_unix_nano=at + 2 * MS,
            end_time_unix_nano=at + took - 2 * MS, attributes=attributes({"db.system.name": "pg"}),
        )  # fmt: skip
    collecting.admit(Signal.TRACES, request.SerializeToString())
    collecting.commit()
    now = T0 + 2 * HOUR
    for _ in range(2):
        [run] = Runner(collecting.home, [JOB], clock=lambda: now).step(since=0)
        assert run.error == ""
        collecting.commit()
    rows = collecting.rows("SELECT title, content FROM lake.ai_insight")
    assert len(rows) == 1
    title, content = rows[0]
    assert title == "Slow requests in shop: GET /search, 20 of 120: SELECT articles (shop)"
    assert "time went to: SELECT articles (shop) 100%" in content
    assert "slow ones have url.query = q=t: 100% of them, 0% of the others" in content


def week(collecting: Collecting, *, slow: bool, fails: bool) -> None:
    """Three days of an operation whose database, or whose payments, get worse on the last."""
    request = ExportTraceServiceRequest()
    kinds = {}
    for version in ("1", "2"):
        batch = request.resource_spans.add()
        batch.resource.attributes.extend(
            attributes({"service.name": "shop", "service.version": version})
        )
        kinds[version] = batch.scope_spans.add().spans
    draw = random.Random(5)
    number = 0
    for at in range(72):
        late = at >= 60
        for _ in range(110):
            number += 1
            begin = (START + at) * HOUR + draw.randrange(HOUR - 10**9)
            query = int(20 * MS * math.exp(draw.gauss(0, 0.2)) * (2 if late and slow else 1))
            failed = fails and late and draw.random() < 0.1
            spans = kinds["2" if late else "1"]
            status = {"code": 2} if failed else {}
            spans.add(
                trace_id=trace_id(number), span_id=span_id(3 * number), name="POST /orders",
                kind=Span.SPAN_KIND_SERVER, start_time_unix_nano=begin, status=status,
                end_time_unix_nano=begin + query + 12 * MS,
            )  # fmt: skip
            spans.add(
                trace_id=trace_id(number), span_id=span_id(3 * number + 1), name="SELECT orders",
                parent_span_id=span_id(3 * number), kind=Span.SPAN_KIND_CLIENT,
                start_time_unix_nano=begin + MS, end_time_unix_nano=begin + MS + query,
            )  # fmt: skip
            spans.add(
                trace_id=trace_id(number), span_id=span_id(3 * number + 2), name="POST pay",
                parent_span_id=span_id(3 * number), kind=Span.SPAN_KIND_CLIENT, status=status,
                start_time_unix_nano=begin + 2 * MS + query,
                end_time_unix_nano=begin + 9 * MS + query,
            )  # fmt: skip
    collecting.admit(Signal.TRACES, request.SerializeToString())
    collecting.commit()


def said(collecting: Collecting) -> list[tuple[str, str]]:
    """What the job says of three days, the moments of the first two left out."""
    now = (START + 72) * HOUR
    [run] = Runner(collecting.home, [JOB], clock=lambda: now).step(since=(START + 50) * HOUR)
    assert run.error == ""
    collecting.commit()
    return collecting.rows("SELECT title, content FROM lake.ai_insight ORDER BY title")


def test_slower_with_a_deploy_and_its_cause(collecting: Collecting) -> None:
    """The database below it, and not what else it calls."""
    week(collecting, slow=True, fails=False)
    [(title, content)] = said(collecting)
    assert title.startswith("POST /orders is slower: 3")
    assert title.endswith("in shop with version 2")
    assert "cause: SELECT orders (shop) (" in content
    assert "version 2 was first seen" in content


def test_failing_and_where_it_begins(collecting: Collecting) -> None:
    """The deepest span that failed."""
    week(collecting, slow=False, fails=True)
    [(title, content)] = said(collecting)
    assert title.startswith("POST /orders fails more: 0.0% -> ")
    assert "cause: POST pay (shop) (100%" in content


def test_nothing_of_a_week_in_which_nothing_happened(collecting: Collecting) -> None:
    """Although there was a deploy."""
    week(collecting, slow=False, fails=False)
    assert said(collecting) == []
