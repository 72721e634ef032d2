"""Hours that are unusual for their hour of the week, and those that are not."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import NormalDist

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.learning.home import Collecting
from tests.telemetry import T0, attributes, span_id, trace_id

from engram.exporters.home import Home
from engram.exporters.signals import Signal
from engram.learning.jobs import Runner
from engram.learning.jobs.performance import JOB
from engram.learning.jobs.performance.hours import HOUR, PER_DOUBLING, Hour
from engram.learning.jobs.performance.seasons import REFERENCES, unusual

MS = 10**6
START = T0 // HOUR
NOW = START + 500
"""The hour that is judged."""

One = tuple[float, float, int]
"""Runs, milliseconds and errors of an hour."""


SPREAD = [NormalDist().inv_cdf((rank + 0.5) / 20) for rank in range(20)]


def hour(runs: float, ms: float, errors: int) -> Hour:
    """Durations spread around a median: twentieths of a normal distribution."""
    made = Hour(runs=int(runs) // 20 * 20, errors=errors)
    for rank in SPREAD:
        bucket = math.floor(math.log2(ms * math.exp(0.4 * rank) * MS) * PER_DOUBLING)
        made.buckets[bucket] = made.buckets.get(bucket, 0) + made.runs // 20
    return made


def week(at: int) -> float:
    """Runs of an hour: days, and half of it at weekends."""
    return (300 + 200 * math.sin(at / 24 * 2 * math.pi)) * (0.5 if at // 24 % 7 >= 5 else 1)


def found(of: Callable[[int], One], first: int = NOW, begin: int = START) -> list[tuple[str, int]]:
    """What is unusual from `first` to two hours after the judged one."""
    own = {at: hour(*of(at)) for at in range(begin, NOW + 2)}
    other = {at: hour(100, 20, 0) for at in range(begin, NOW + 2)}
    hours = {("shop", "GET /a"): own, ("shop", "GET /b"): other}
    return [(one.what, one.hour - NOW) for one in unusual(hours, first, NOW + 2)]


@pytest.mark.parametrize(
    ("what", "of"),
    [
        ("more", lambda at: (week(at) * (3 if at == NOW else 1), 40, 0)),
        ("fewer", lambda at: (week(at) * (0.2 if at == NOW else 1), 40, 0)),
        ("p95", lambda at: (week(at), 40 * (4 if at == NOW else 1), 0)),
        ("errors", lambda at: (week(at), 40, 45 if at == NOW else 1)),
    ],
)
def test_an_hour_is_unusual(what: str, of: Callable[[int], One]) -> None:
    """Of each kind one."""
    assert found(of) == [(what, 0)]


def test_what_is_usual_elsewhere_is_unusual_here() -> None:
    """Errors of the night's job, by day; the same ones at night are nothing new."""

    def nightly(at: int) -> One:
        return week(at), 40, 30 if at % 24 == NOW % 24 else 0

    assert found(nightly) == []
    assert found(lambda at: (week(at), 40, 30 if at % 24 == 3 + NOW % 24 or at == NOW else 0)) == [
        ("errors", 0)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_what_is_usual(seed: int) -> None:
    """Noise that lasts, growth, an operation that is new, an hour in which nobody listened."""
    draw = random.Random(seed)
    noise = {at: math.exp(draw.gauss(0, 0.15)) for at in range(START, NOW + 2)}
    assert found(lambda at: (week(at) * noise[at], 40 * noise[at], at % 3), NOW - 100) == []
    grows = {at: 2.4 if at > NOW - 40 else 1.0 for at in range(START, NOW + 2)}
    assert found(lambda at: (week(at) * grows[at], 40, 0)) == []
    assert found(lambda at: (week(at) / grows[at], 40, 0)) == []
    assert found(lambda at: (900 if at == NOW else 300, 40, 0), begin=NOW - 330) == []
    hours = {("shop", "GET /a"): {at: hour(200, 40, 0) for at in range(START, NOW + 2)
                                  if at != NOW}}  # fmt: skip
    assert list(unusual(hours, NOW, NOW + 2)) == []


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[Collecting]:
    """A home that was never used."""
    made = Collecting(Home(tmp_path / "home"))
    yield made
    made.close()


def send(collecting: Collecting, services: int) -> None:
    """Two hours of failures of two operations of some services, and the hours they go by."""
    request = ExportTraceServiceRequest()
    number = 0
    for service in range(services):
        batch = request.resource_spans.add()
        batch.resource.attributes.extend(attributes({"service.name": f"s{service}"}))
        spans = batch.scope_spans.add().spans
        for at in sorted({now - back for now in (NOW, NOW + 1) for back in (0, *REFERENCES)}):
            for run in range(120):
                number += 1
                begin = at * HOUR + run * 10**9
                failed = at >= NOW and run % 3 == 0
                spans.add(
                    trace_id=trace_id(number), span_id=span_id(number), name=f"GET /{run % 2}",
                    kind=Span.SPAN_KIND_SERVER, start_time_unix_nano=begin,
                    end_time_unix_nano=begin + 10 * MS, status={"code": 2} if failed else {},
                )  # fmt: skip
    collecting.admit(Signal.TRACES, request.SerializeToString())
    collecting.commit()


def step(collecting: Collecting, until: int) -> list[tuple[str, str]]:
    """A pass at the end of an hour; all that was said of unusual hours."""
    [run] = Runner(collecting.home, [JOB], clock=lambda: until * HOUR).step(
        since=(until - 1) * HOUR
    )
    assert run.error == ""
    collecting.commit()
    return collecting.rows(
        "SELECT title, content FROM lake.ai_insight "
        "WHERE json_extract_string(attributes, '$.state') = 'unusual' ORDER BY title"
    )


def test_an_incident_is_said_once(collecting: Collecting) -> None:
    """Two operations of a service are one; the next hour of it is no news; again is the same."""
    send(collecting, services=1)
    [(title, content)] = step(collecting, NOW + 1)
    assert title == "GET /0 and 1 more: more errors than usual at this hour in s0"
    assert "errors 33.3%; usual at this hour 0.0% to 0.0%, 60 runs" in content
    assert "Traces: " in content
    assert step(collecting, NOW + 2) == [(title, content)]
    assert step(collecting, NOW + 1) == [(title, content)]


def test_many_services_are_one_incident(collecting: Collecting) -> None:
    """Three at once."""
    send(collecting, services=3)
    [(title, content)] = step(collecting, NOW + 2)
    assert title == "GET /0 and 5 more: more errors than usual at this hour in 3 services"
    assert "s2: GET /1: errors" in content
