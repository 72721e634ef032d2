"""What an agent wants remembered: an event like any other, by OTLP, into the running collector."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from engram.exporters.ask import ask
from engram.exporters.home import Home
from engram.exporters.memories import memory_id
from engram.exporters.signals import Signal


def key_of(*parts: object) -> str:
    """A source key that is the same for the same fact: writing twice is harmless."""
    told = json.dumps(parts, ensure_ascii=False, default=str)
    return hashlib.blake2b(told.encode("utf-8", "replace"), digest_size=16).hexdigest()


def append(
    home: Home,
    type_: str,
    title: str,
    *,
    trust: str,
    agent: str,
    service: str | None = None,
    key: str | None = None,
    amends: str | None = None,
    content: str = "",
    tags: Sequence[str] = (),
    success: bool | None = None,
    who: Mapping[str, str | None] | None = None,
    payload: Mapping[str, Any] | None = None,
    wait_s: float = 10.0,
) -> str:
    """Store one event; the id of the memory that it makes or amends, once it can be read.

    Raises:
        NotRunning: no collector runs in this home.
        Overloaded, BadRequest: it was not taken.
    """
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    made = ExportLogsServiceRequest()
    batch = made.resource_logs.add()
    _set(batch.resource.attributes, {"service.name": service or "agent", "engram.trust": trust})
    scope = batch.scope_logs.add()
    scope.scope.name = "engram.mcp"
    now = time.time_ns()
    record = scope.log_records.add(
        event_name=f"engram.{type_}", time_unix_nano=now, observed_time_unix_nano=now
    )
    _set(
        record.attributes,
        {
            **(payload or {}), **(who or {}), "agent": agent, "engram.title": title,
            "engram.content": content, "engram.id": key, "engram.amends": amends,
            "engram.tags": list(tags) or None,
            "engram.outcome": None if success is None else "ok" if success else "error",
        },
    )  # fmt: skip
    # `vouched`: the mark of trust is ours, from the caller's token, and not the sender's.
    ask(home, "append", signal=str(Signal.LOGS), body=made.SerializeToString(), vouched=True)
    ask(home, "flush", timeout_s=wait_s)
    return amends or memory_id(type_, "", f"id:{key}")


def _set(attributes: Any, values: Mapping[str, Any]) -> None:
    for name, of in values.items():
        if of is None or of == "":
            continue
        one = attributes.add(key=name).value
        if isinstance(of, bool):
            one.bool_value = of
        elif isinstance(of, int):
            one.int_value = of
        elif isinstance(of, float):
            one.double_value = of
        elif isinstance(of, list | tuple):
            for part in of:
                one.array_value.values.add().string_value = str(part)
        else:
            one.string_value = str(of)
