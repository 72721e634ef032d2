"""A shop's days: requests, errors, models and decisions at known times, as real OTLP."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.telemetry import STACK, attributes, span_id, trace_id

from engram.learning.report.period import DAY, HOUR

MIDNIGHT = 1_790_035_200_000_000_000
"""2026-09-22 00:00 UTC: the day that is told. The one before is what it is compared with."""
assert MIDNIGHT % DAY == 0

_numbers = itertools.count(1)


def asked(
    when: int, ms: float = 20, *, route: str = "/orders", failed: bool = False, **more: Any
) -> Span:
    """An answered request."""
    number = next(_numbers)
    made = Span(
        trace_id=trace_id(number), span_id=span_id(number), name=f"GET {route}",
        kind=Span.SPAN_KIND_SERVER, start_time_unix_nano=when,
        end_time_unix_nano=when + int(ms * 1e6),
        attributes=attributes(
            {"http.request.method": "GET", "http.route": route,
             "http.response.status_code": 500 if failed else 200, **more}
        ),
    )  # fmt: skip
    if failed:
        made.status.code = Status.STATUS_CODE_ERROR
    return made


def raised(when: int, error: str, says: str = "no", user: str = "") -> Span:
    """A request that failed with an exception."""
    who: dict[str, Any] = {"user.id": user} if user else {}
    made = asked(when, route="/pay", failed=True, **who)
    event = {"exception.type": error, "exception.message": says, "exception.stacktrace": STACK}
    made.events.add(name="exception", time_unix_nano=when, attributes=attributes(event))
    return made


def traffic(
    begin: int, an_hour: int = 40, ms: float = 20, failing: float = 0.0, seed: int = 1
) -> Iterator[Span]:
    """A day of requests, all hours alike."""
    rng = random.Random(seed)
    for hour in range(24):
        for _ in range(an_hour):
            when = begin + hour * HOUR + rng.randrange(HOUR)
            yield asked(when, ms * rng.lognormvariate(0, 0.3), failed=rng.random() < failing)


def event(type_: str, when: int, title: str = "", **more: Any) -> LogRecord:
    """An explicit mark; `subject`, `outcome`, `id` and so on are `engram.*`, the rest its own."""
    record = LogRecord(event_name=f"engram.{type_}", time_unix_nano=when)
    ours = ("subject", "outcome", "id", "amends", "importance")
    said = {f"engram.{name}" if name in ours else name: value for name, value in more.items()}
    for name, value in ({"engram.title": title} | said if title else said).items():
        one = record.attributes.add(key=name)
        if isinstance(value, list):
            one.value.array_value.SetInParent()
            for item in value:
                one.value.array_value.values.add().string_value = str(item)
        else:
            one.value.CopyFrom(attributes({name: value})[0].value)
    return record


__all__ = ["DAY", "HOUR", "MIDNIGHT", "asked", "event", "raised", "traffic"]
