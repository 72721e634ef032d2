"""What a job concludes, and its way back in: an event like any other, by the road of everything.

An insight is a statement about a moment, with its evidence, and is never changed: what is so now is
a query. So a job that runs again over the same telemetry says the same bytes, and they are stored
once.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from engram.exporters import own, trust

EVIDENCE: Final = "evidence"
"""Field of an insight: ids of memories it was made from, some of them when they are many."""

MOST_EVIDENCE: Final = 20


@dataclass(frozen=True, slots=True)
class Insight:
    """One conclusion."""

    job: str
    """Who says so."""
    key: tuple[str, ...]
    """What makes it this one: equal keys of a job are the same insight."""
    title: str
    content: str
    time_unix_nano: int
    """When it became so, in the time of the events."""
    type: str = "ai_insight"
    """The type of memory that it becomes."""
    service: str | None = None
    importance: float = 0.7
    subject: str | None = None
    """What it is about: of several statements on one subject the newest holds."""
    tags: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Numbers and names it rests on; `n` is the number of observations."""

    @property
    def id(self) -> str:
        """Its source key: a hash of job and key."""
        said = json.dumps([self.job, *self.key], ensure_ascii=False)
        return blake2b(said.encode("utf-8", "replace"), digest_size=16).hexdigest()


def request(insights: Iterable[Insight]) -> bytes:
    """Insights as one OTLP request. The same insights make the same bytes, in any order."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    by_service: dict[str, list[Insight]] = defaultdict(list)
    for insight in insights:
        by_service[insight.service or own.SERVICE].append(insight)
    made = ExportLogsServiceRequest()
    for service, some in sorted(by_service.items()):
        resource = made.resource_logs.add()
        resource.resource.attributes.add(key="service.name").value.string_value = service
        resource.resource.attributes.add(key=trust.ATTRIBUTE).value.string_value = "engram"
        scope = resource.scope_logs.add()
        scope.scope.name = own.SCOPE
        for insight in sorted(some, key=lambda one: one.id):
            record = scope.log_records.add(
                event_name=f"engram.{insight.type}", time_unix_nano=max(0, insight.time_unix_nano)
            )
            _set(record.attributes, "engram.id", insight.id)
            _set(record.attributes, "engram.title", insight.title)
            _set(record.attributes, "engram.content", insight.content)
            _set(record.attributes, "engram.importance", insight.importance)
            _set(record.attributes, "engram.tags", [f"job:{insight.job}", *insight.tags])
            if insight.subject is not None:
                _set(record.attributes, "engram.subject", insight.subject)
            _set(record.attributes, "job", insight.job)
            _set(record.attributes, EVIDENCE, list(insight.evidence[:MOST_EVIDENCE]))
            for name, value in sorted(insight.facts.items()):
                if value is not None:
                    _set(record.attributes, name, value)
    raw: bytes = made.SerializeToString()
    return raw


def _set(attributes: Any, key: str, value: Any) -> None:
    one = attributes.add(key=key).value
    if isinstance(value, list | tuple):
        one.array_value.SetInParent()
        for item in value:
            one.array_value.values.add().string_value = str(item)
    elif isinstance(value, bool):
        one.bool_value = value
    elif isinstance(value, int):
        one.int_value = value
    elif isinstance(value, float):
        one.double_value = value
    else:
        one.string_value = str(value)


__all__ = ["EVIDENCE", "MOST_EVIDENCE", "Insight", "request"]
