"""Notes as OTLP: one log record a minute, and one for each slow statement.

A log record and no metric: a dozen sums that belong together are one row, not twelve series, and
nothing that looks at metrics has to know them (docs/adr/009-engram-about-itself.md).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from engram.exporters import own, trust
from engram.exporters.errors import EngramError
from engram.exporters.itself.notes import Notes, Taken
from engram.exporters.signals import Signal

_LOG: Final = logging.getLogger("engram.itself")

EVERY_S: Final = 60.0
"""A role tells at most this often."""


_SCOPE: Final = own.ITSELF.encode()

WORK: Final = "engram.self.work"
"""Event name of the sums; attributes are `role`, `seconds` and the sums."""

STATEMENT: Final = "engram.self.statement"
"""Event name of a slow statement; attributes are `shape`, `n`, and `ms` as a list."""


def request(
    role: str, at_ns: int, taken: Taken, facts: Mapping[str, float | int] | None = None
) -> bytes:
    """What was noted, as one OTLP request of logs. The same notes make the same bytes."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    made = ExportLogsServiceRequest()
    resource = made.resource_logs.add()
    resource.resource.attributes.add(key="service.name").value.string_value = own.SERVICE
    resource.resource.attributes.add(key=trust.ATTRIBUTE).value.string_value = "engram"
    scope = resource.scope_logs.add()
    scope.scope.name = own.ITSELF
    work = scope.log_records.add(event_name=WORK, time_unix_nano=at_ns)
    work.attributes.add(key="role").value.string_value = role
    _number(work, "seconds", round(taken.seconds, 3))
    for name, value in sorted({**taken.values, **(facts or {})}.items()):
        _number(work, name, round(value, 3) if isinstance(value, float) else value)
    for what, durations in sorted(taken.slow.items()):
        slow = scope.log_records.add(event_name=STATEMENT, time_unix_nano=at_ns)
        slow.attributes.add(key="role").value.string_value = role
        slow.attributes.add(key="shape").value.string_value = what
        _number(slow, "n", len(durations))
        many = slow.attributes.add(key="ms").value.array_value
        for one in durations:
            many.values.add().double_value = one
    raw: bytes = made.SerializeToString()
    return raw


def _number(record: Any, key: str, value: float | int) -> None:
    of = record.attributes.add(key=key).value
    if isinstance(value, int):
        of.int_value = value
    else:
        of.double_value = value


def about_itself(signal: Signal, raw: bytes) -> bool:
    """Whether a request (protobuf) holds nothing but what Engram tells of itself."""
    if signal is not Signal.LOGS or _SCOPE not in raw:
        return False
    from engram.exporters.otlp.wire import STRICT_REQUEST

    scopes = [
        scope.scope.name
        for resource in STRICT_REQUEST[signal].FromString(raw).resource_logs
        for scope in resource.scope_logs
    ]
    return bool(scopes) and all(name == _SCOPE for name in scopes)


class Teller:
    """Tells once a minute what a role did, if it did any of what counts as work.

    What came together while nothing was `worth` telling is told with the next: an idle home writes
    nothing. What cannot be sent is forgotten: it is about us.
    """

    def __init__(
        self,
        role: str,
        notes: Notes,
        send: Callable[[bytes], object],
        *,
        worth: frozenset[str],
        facts: Callable[[], Mapping[str, float | int]] = dict,
        every_s: float = EVERY_S,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._role, self._notes, self._send = role, notes, send
        self._worth, self._facts = worth, facts
        self._every_s, self._clock = every_s, clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="itself", daemon=True)

    def start(self) -> None:
        """Begin to note, and to tell."""
        self._notes.on = True
        self._notes.take()
        self._thread.start()

    def shutdown(self) -> None:
        """Stop; what was not told is forgotten. Safe twice, and without `start`."""
        self._notes.on = False
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def tell(self) -> bool:
        """Tell now, if there is something; whether there was."""
        if not self._notes.has(self._worth):
            return False
        body = request(self._role, self._clock(), self._notes.take(), self._facts())
        try:
            self._send(body)
        except (EngramError, OSError) as error:
            _LOG.debug("what %s did is not told: %s", self._role, error)
        return True

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self.tell()
            except Exception:  # noqa: BLE001 - a role works on without it
                _LOG.exception("what %s does is not told any more", self._role)
                self._notes.on = False
                return


__all__ = ["EVERY_S", "STATEMENT", "WORK", "Teller", "about_itself", "request"]
