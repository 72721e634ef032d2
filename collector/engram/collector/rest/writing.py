"""Writing: an event of OTLP as the Python API makes it, appended by the collector's control socket.

The id that is answered is the one that the memory has in the lake. Trust is that of the token, as a
mark on the resource that the collector takes from this road and from no other.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from engram.collector.access import Principal
from engram.exporters.ask import ask
from engram.exporters.errors import BadRequest, EngramError, Overloaded
from engram.exporters.home import Home
from engram.exporters.signals import Signal
from engram.exporters.trust import ATTRIBUTE as TRUST
from engram.instrumentation.api.marks import SCOPE, described, identity, source_key
from engram.instrumentation.api.values import json_text, plain, text

if TYPE_CHECKING:
    from engram.learning.recall.items import Item

REVISION: Final = "memory_revision"
ENRICHMENT: Final = "enrichment"

TRIED: Final = ("error_solution", "optimization")
"""Types of which each try is a memory of its own."""

_APPEND_S: Final = 15.0
WAIT_S: Final = 15.0
"""How long `wait` waits. A commit takes about a second at most."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event to be logged."""

    type: str
    title: str
    content: str | None = None
    source: str | None = None
    """The source key, of an event that makes a memory."""
    amends: str | None = None
    """The id, of an event that adds to a memory."""
    tags: Iterable[str] = ()
    importance: float | None = None
    subject: str | None = None
    outcome: bool | None = None
    user_id: str | None = None
    session_id: str | None = None
    service: str | None = None
    payload: Mapping[str, Any] | None = None

    @property
    def id(self) -> str:
        """The memory's id in the lake."""
        return self.amends or identity(self.type, self.source or "")


@dataclass(frozen=True, slots=True)
class Written:
    """An event that is on disk."""

    id: str
    position: int
    """The log's position behind it."""
    committed: bool
    """Whether it can be queried already."""
    time_unix_nano: int


class Writer:
    """Writes to one home, by the collector that runs there."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def write(self, event: Event, who: Principal, *, wait: bool) -> Written:
        """Log an event; with `wait`, until it can be queried or 15 s are over.

        Raises:
            NotRunning: no collector runs.
            Overloaded: it takes nothing now.
            BadRequest: it never will take this.
        """
        now = time.time_ns()
        body = request(event, who, now)
        answer = ask(
            self._home, "append", timeout_s=_APPEND_S, signal=str(Signal.LOGS), body=body,
            trusted=True,
        )  # fmt: skip
        if answer.get("rejected"):
            raise BadRequest(str(answer.get("message")))
        position = int(answer["position"])
        committed = wait and self._wait(position)
        return Written(event.id, position, committed, now)

    def _wait(self, position: int) -> bool:
        """Whether what is before a position can be queried. It is durable in any case."""
        try:
            ask(self._home, "wait", timeout_s=WAIT_S + 2, position=position)
        except Overloaded:
            raise
        except EngramError:
            return False
        return True


def outcome_of(
    target: Item, outcome: Any, who: Principal, *, success: bool | None, value: float | None = None,
    notes: str | None = None,
) -> Event:  # fmt: skip
    """The event that says what came of a memory.

    A memory has one outcome. But a solution or an optimisation may be tried often: each try whose
    success is told is a memory of its own, and the rate counts them.
    """
    said = {
        "outcome": outcome, "outcome_value": value, "outcome_success": success,
        "outcome_notes": notes, "outcome_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "outcome_by": who.name,
    }  # fmt: skip
    if target.memory_type in TRIED and success is not None:
        return Event(
            "error_resolution", f"{'Worked' if success else 'Failed'}: {target.title}",
            content=json_text(outcome, 4_000) if outcome else notes, source=source_key(),
            outcome=success, service=target.service,
            payload={**said, "solution": target.id, "fix": target.title, "success": success,
                     "result": "fixed" if success else "failed"},
        )  # fmt: skip
    return Event(
        target.memory_type, f"Outcome: {json_text(outcome, 80)}", amends=target.id,
        outcome=success, service=target.service, payload=said,
    )  # fmt: skip


def own_source(key: object | None, who: Principal) -> str:
    """The source key of a memory that somebody names by a key of his own.

    An operator's key is the key that an app would give. An agent's is apart: it cannot name, and
    thereby change, what an app or a person has said.
    """
    if key is None:
        return source_key()
    return source_key(key if who.trust == "operator" else f"{who.trust}\0{key}")


def request(event: Event, who: Principal, now_ns: int) -> bytes:
    """The OTLP request of one event."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    made = ExportLogsServiceRequest()
    batch = made.resource_logs.add()
    service = who.service or event.service
    if service is not None:
        batch.resource.attributes.add(key="service.name").value.string_value = text(service, 200)
    batch.resource.attributes.add(key=TRUST).value.string_value = who.trust
    scope = batch.scope_logs.add()
    scope.scope.name = SCOPE
    record = scope.log_records.add(
        event_name=f"engram.{event.type}", time_unix_nano=now_ns, observed_time_unix_nano=now_ns
    )
    attributes = described(
        event.title, source=event.source, amends=event.amends, tags=event.tags,
        importance=event.importance, subject=event.subject, outcome=event.outcome, verbatim=True,
        payload=event.payload,
    )  # fmt: skip
    attributes["engram.actor"] = who.name
    for name, value in (("user.id", event.user_id), ("session.id", event.session_id)):
        if value is not None:
            attributes[name] = text(value, 500)
    if event.content is not None:
        record.body.string_value = str(plain(event.content))
    for name, value in attributes.items():
        _put(record.attributes.add(key=name).value, value)
    raw: bytes = made.SerializeToString()
    return raw


def _put(into: Any, value: Any) -> None:
    match value:
        case None:
            pass
        case bool():
            into.bool_value = value
        case int():
            into.int_value = value
        case float():
            into.double_value = value
        case str():
            into.string_value = value
        case dict():
            into.kvlist_value.SetInParent()
            for name, one in value.items():
                _put(into.kvlist_value.values.add(key=name).value, one)
        case _:
            into.array_value.SetInParent()
            for one in value:
                _put(into.array_value.values.add(), one)
