"""Systems of services that call one another, with a fault at a known place: real OTLP.

A front calls a cart, which calls the stock and the prices; the stock asks a database. A run has a
span of each, client spans in between, and ways of 2 ms.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.telemetry import T0, attributes, span_id, trace_id

HOUR = 3600 * 10**9
MS = 10**6
BEGIN = T0 // HOUR * HOUR

SHOP: Mapping[str, tuple[str, ...]] = {
    "front": ("cart",), "cart": ("stock", "prices"), "stock": ("db",), "prices": (), "db": (),
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """What is worse while it lasts; a name is a service, `a -> b` the way between two."""

    slower: Mapping[str, float] = field(default_factory=dict)
    """Times as long."""
    failing: Mapping[str, float] = field(default_factory=dict)
    """Share of the calls."""
    load: float = 1.0
    """Times as many runs."""


class System:
    """Makes the spans of runs."""

    def __init__(
        self, calls: Mapping[str, tuple[str, ...]] = SHOP, *, front: str = "front", seed: int = 1,
        versions: Callable[[str, int], str] = lambda service, at: "1",
    ) -> None:  # fmt: skip
        self.calls, self.front, self.versions = calls, front, versions
        self.draw = random.Random(seed)
        self.own = {one: 5.0 * (1 + at % 3) for at, one in enumerate(calls)}
        self.runs = self.spans = 0

    def hours(self, first: int, last: int, an_hour: int, fault: Fault | None = None) -> bytes:
        """A request with all runs of some hours."""
        fault = fault or Fault()
        request = ExportTraceServiceRequest()
        batches: dict[tuple[str, str], list[Span]] = {}
        for hour in range(first, last):
            for _ in range(int(an_hour * fault.load)):
                self.runs += 1
                at = BEGIN + hour * HOUR + self.draw.randrange(HOUR - 10**10)
                self._call(self.front, b"", at, at, fault, batches)
        for (service, version), spans in batches.items():
            one = request.resource_spans.add()
            one.resource.attributes.extend(
                attributes({"service.name": service, "service.version": version})
            )
            one.scope_spans.add().spans.extend(spans)
        return request.SerializeToString()

    def _span(self) -> bytes:
        self.spans += 1
        return span_id(self.spans)

    def _took(self, ms: float, what: str, fault: Fault) -> int:
        return int(ms * MS * math.exp(self.draw.gauss(0, 0.25)) * fault.slower.get(what, 1.0))

    def _call(
        self, service: str, parent: bytes, at: int, run: int, fault: Fault,
        batches: dict[tuple[str, str], list[Span]],
    ) -> tuple[int, bool]:  # fmt: skip
        """A call's end, and whether it failed."""
        trace, me = trace_id(self.runs), self._span()
        now = at + self._took(self.own[service], service, fault)
        failed = self.draw.random() < fault.failing.get(service, 0.002)
        batch = batches.setdefault((service, self.versions(service, run)), [])
        for other in self.calls[service]:
            client, begin, way = self._span(), now, f"{service} -> {other}"
            lost = self.draw.random() < fault.failing.get(way, 0.0)
            there = begin + self._took(1, way, fault)
            ended, bad = self._call(other, client, there, run, fault, batches)
            now = ended + self._took(1, way, fault)
            batch.append(
                Span(
                    trace_id=trace, span_id=client, parent_span_id=me, name=f"call {other}",
                    kind=Span.SPAN_KIND_CLIENT, start_time_unix_nano=begin,
                    end_time_unix_nano=now, status=_status(bad or lost),
                )
            )  # fmt: skip
            failed = failed or bad or lost
        batch.append(
            Span(
                trace_id=trace, span_id=me, parent_span_id=parent, name=f"GET /{service}",
                kind=Span.SPAN_KIND_SERVER, start_time_unix_nano=at, end_time_unix_nano=now,
                status=_status(failed),
            )
        )  # fmt: skip
        return now, failed


def _status(failed: bool) -> Status:
    return Status(code=Status.STATUS_CODE_ERROR if failed else Status.STATUS_CODE_UNSET)


__all__ = ["BEGIN", "HOUR", "SHOP", "Fault", "System"]
