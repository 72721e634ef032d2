"""Decisions with their options and confidence, and what came of them."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, Final, overload

from engram.instrumentation.api.calls import Call, P, R, around, quietly
from engram.instrumentation.api.marks import Remembered, emit, identity, mark, source_key
from engram.instrumentation.api.values import json_text, listed, said

_TYPE: Final = "business_decision"
_ID: Final = re.compile(r"[0-9a-f]{24}")
_last: ContextVar[Remembered | None] = ContextVar("engram.decision", default=None)


def record_decision(
    name: str,
    options: Iterable[object] = (),
    chosen: object = None,
    *,
    confidence: float | None = None,
    reason: object = None,
    inputs: object = None,
    key: object = None,
    tags: Iterable[object] = (),
    importance: float | None = None,
    **attributes: object,
) -> Remembered:
    """Remember a decision. Keep its `id` (or give a `key`) for `record_outcome`."""
    made = mark(
        _TYPE,
        f"{said(name)}: {_short(chosen)}",
        key=key,
        content=reason,
        tags=tags,
        importance=importance,
        subject=name,
        payload={
            "decision": name,
            "options": listed(options),
            "chosen": chosen,
            "confidence": confidence,
            "reason": reason,
            "inputs": inputs,
            **attributes,
        },
    )
    _last.set(made)
    return made


def last_decision() -> Remembered | None:
    """The newest decision of this thread or task, also one by `@decision`."""
    return _last.get()


def record_outcome(
    decision: Remembered | object,
    outcome: object,
    *,
    value: float | None = None,
    success: bool | None = None,
    **attributes: object,
) -> Remembered:
    """What came of a decision, at any time and from any process; arrives before or after it.

    `decision` is what `record_decision` returned, its id, or the key that it was given. The outcome
    becomes fields of the decision's memory, which keeps its title and content. A decision has one
    outcome: of several that differ the one whose JSON is larger stays, in every order of arrival.
    """
    id_ = quietly(_id, decision) or ""
    title = f"Outcome: {_short(outcome)}"
    emit(
        _TYPE,
        title,
        amends=id_,
        outcome=success,
        payload={
            "outcome": outcome,
            "outcome_value": value,
            "outcome_success": success,
            "outcome_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **attributes,
        },
    )
    return Remembered(id_, _TYPE, title)


def _id(decision: object) -> str:
    found = said(getattr(decision, "id", decision))
    return found if _ID.fullmatch(found) else identity(_TYPE, source_key(decision))


def _short(value: object) -> str:
    return quietly(json_text, value, 80) or "?"


@overload
def decision(name: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def decision(
    name: str | None = None,
    options: Iterable[object] = (),
    *,
    chosen: Callable[[Any], object] | None = None,
    confidence: float | Callable[[Any], float] | None = None,
    reason: object | Callable[[Any], object] = None,
    tags: Iterable[object] = (),
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def decision(
    name: Any = None,
    options: Iterable[object] = (),
    *,
    chosen: Callable[[Any], object] | None = None,
    confidence: float | Callable[[Any], float] | None = None,
    reason: object | Callable[[Any], object] = None,
    tags: Iterable[object] = (),
) -> Any:
    """Of a function that decides: each result is a decision, its arguments the inputs.

    `chosen`, `confidence` and `reason` may be functions of the result; `last_decision()` tells
    the id.
    """
    if callable(name):
        return decision()(name)
    known = tuple(listed(options))

    def of(part: object, result: Any) -> Any:
        return quietly(part, result) if callable(part) else part

    def after(call: Call) -> None:
        if call.error is None:
            record_decision(
                name or call.function.__name__,
                known,
                of(chosen, call.result) if chosen else call.result,
                confidence=of(confidence, call.result),
                reason=of(reason, call.result),
                inputs=call.inputs(),
                tags=tags,
            )

    return lambda function: around(function, after)
