"""One call, one event, one memory: what all functions of the API emit by."""

from __future__ import annotations

import hashlib
import logging
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry import baggage
from opentelemetry._logs import Logger, LogRecord, SeverityNumber, get_logger_provider

from engram.instrumentation.api.values import listed, plain, said, text

SCOPE: Final = "engram"
CARRIED: Final = ("user.id", "session.id", "engram.tenant")
"""What of the baggage is copied to telemetry. Never anything else: baggage is not ours."""

_PAYLOAD: Final = 96
"""Attributes of one record: the SDK drops what is beyond 128, and warns."""

_ALIASES: Final = {"performance_optimization": "optimization"}
_NOT_A_TYPE: Final = re.compile(r"[^a-z0-9]+")
_RESERVED: Final = (
    "engram.", "code.", "thread.", "otel.", "telemetry.", "exception.stacktrace", "event.name",
    "user.id", "session.id", "gen_ai.conversation.id", "color_message", "logger.",
)  # fmt: skip
"""What the collector takes for its own: such names of an app go into `more`."""

_log = logging.getLogger("engram.instrumentation")
_told: set[str] = set()
_logger: tuple[object, Logger] | None = None


def internal(error: BaseException) -> None:
    """Something of ours failed: say it once for each cause, and go on."""
    try:
        cause = f"{type(error).__name__}: {error}"[:200]
        if cause not in _told and len(_told) < 20:
            _told.add(cause)
            _log.warning("engram: a memory was lost: %s", cause)
    except Exception:  # noqa: BLE001, S110 - a log handler may be what is broken
        pass


@dataclass(frozen=True, slots=True)
class Remembered:
    """What became, or will become, a memory."""

    id: str
    """The memory's id in the lake, known before it is there."""

    type: str
    title: str

    def __str__(self) -> str:
        return self.id


def memory_type(name: str) -> str:
    """The name as a memory type: lower_snake_case."""
    made = _NOT_A_TYPE.sub("_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(name)).lower())
    made = made.strip("_")
    if not made or made[0].isdigit():
        made = f"type_{made}" if made else "system_event"
    return _ALIASES.get(made, made)


def source_key(key: object = None) -> str:
    """What identifies a memory inside its type: of the app's own key a hash, else a new one.

    A hash, because the collector would redact a key that holds an address, and the id would differ.
    """
    if key is None:
        return uuid.uuid4().hex
    return hashlib.blake2b(text(key).encode(), digest_size=16).hexdigest()


def identity(type_: str, source: str) -> str:
    """The id that the collector gives to a mark with this source key."""
    return hashlib.blake2b(f"{type_}\0\0id:{source}".encode(), digest_size=12).hexdigest()


def _current() -> Logger:
    global _logger
    provider = get_logger_provider()
    if _logger is None or _logger[0] is not provider:
        _logger = (provider, provider.get_logger(SCOPE))
    return _logger[1]


def listening() -> bool:
    """Whether anybody would get an event; when not, the work for one is saved."""
    try:
        return _current().enabled(event_name="engram.")
    except Exception as error:  # noqa: BLE001 - the app must not notice us
        internal(error)
        return False


def described(
    title: object,
    *,
    source: str | None = None,
    amends: str | None = None,
    tags: Iterable[object] = (),
    importance: float | None = None,
    subject: object = None,
    outcome: bool | None = None,
    verbatim: bool = False,
    payload: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """The attributes of a mark's event, bounded and without secrets."""
    attributes: dict[str, Any] = {}
    more: dict[str, Any] = {}
    for key, value in (payload or {}).items():
        if value is None:
            continue
        name = text(str(key), 200)
        room = len(attributes) < _PAYLOAD and not name.startswith(_RESERVED)
        (attributes if room else more)[name] = value
    # Once over the whole: it masks what stands under the name of a secret.
    attributes = {k: v for k, v in attributes.items() if k}
    made = {k: _masked(k, v) for k, v in attributes.items()}
    if more:
        made["more"] = plain(more)
    made["engram.title"] = text(title, 1_000)
    if source is not None:
        made["engram.id"] = source
    if amends is not None:
        made["engram.amends"] = amends
    labels = listed(tags)
    if labels:
        made["engram.tags"] = [said(tag, 200) for tag in labels[:100]]
    if importance is not None:
        made["engram.importance"] = float(importance)
    if subject is not None:
        made["engram.subject"] = said(subject)
    with suppress(Exception):  # somebody's __bool__
        if outcome is not None:
            made["engram.outcome"] = "ok" if outcome else "error"
    if verbatim:
        made["engram.verbatim"] = True
    return made


def _masked(name: str, value: object) -> Any:
    """The value, unless it stands under the name of a secret; as text where it resists."""
    found = plain({name: value})
    return found[name] if isinstance(found, dict) else found


def emit(
    type_: str,
    title: object,
    *,
    content: object = None,
    who: Mapping[str, object] | None = None,
    **fields: Any,
) -> None:
    """One event: with `source` it makes the memory of that key, with `amends` it adds to one.

    The other fields are those of `described`.
    """
    try:
        logger = _current()
        if not logger.enabled(event_name=f"engram.{type_}"):
            return
        made = described(title, **fields)
        for name in CARRIED:
            person = (who or {}).get(name)
            if person is None or person == "":
                person = baggage.get_baggage(name)
            if person is not None:
                made[name] = said(person)
        now = time.time_ns()
        logger.emit(
            LogRecord(
                timestamp=now,
                observed_timestamp=now,
                severity_number=SeverityNumber.INFO,
                body=None if content is None else plain(content),
                attributes=made,
                event_name=f"engram.{type_}",
            )
        )
    except Exception as error:  # noqa: BLE001 - the app must not notice us
        internal(error)


def remember(
    type: str,
    title: object,
    content: object = None,
    *,
    tags: Iterable[object] = (),
    importance: float | None = None,
    key: object = None,
    subject: object = None,
    success: bool | None = None,
    user_id: object = None,
    session_id: object = None,
    **attributes: object,
) -> Remembered:
    """Remember one fact, of any type; `key` makes several reports of one fact one memory."""
    return mark(
        type, title, content=content, tags=tags, importance=importance, key=key, subject=subject,
        outcome=success, who={"user.id": user_id, "session.id": session_id}, payload=attributes,
    )  # fmt: skip


def mark(
    type_: str,
    title: object,
    *,
    key: object = None,
    **fields: Any,
) -> Remembered:
    """Emit an event that makes a memory, and say what its id is."""
    try:
        name = memory_type(type_)
        source = source_key(key)
        made = Remembered(identity(name, source), name, text(title, 1_000))
    except Exception as error:  # noqa: BLE001 - somebody's __str__
        internal(error)
        return Remembered("", "system_event", "")
    emit(name, title, source=source, **fields)
    return made
