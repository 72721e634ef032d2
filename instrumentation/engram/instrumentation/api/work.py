"""What an app does: calculations, workflows, automations, syncs, webhooks; and what it learned."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self, overload

from engram.instrumentation.api.calls import Call, P, R, around, name_of
from engram.instrumentation.api.marks import Remembered, emit, identity, mark, source_key
from engram.instrumentation.api.values import json_text, listed, plain, said


def record_calculation(
    name: str, inputs: object = None, result: object = None, unit: str | None = None,
    **attributes: object,
) -> Remembered:  # fmt: skip
    """A result that was computed, and from what."""
    return mark(
        "calculation_result",
        f"{said(name)} = {json_text(result, 80)}{'' if unit is None else f' {said(unit)}'}",
        subject=name,
        payload={"name": name, "inputs": inputs, "result": result, "unit": unit, **attributes},
    )


@overload
def calculation(name: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def calculation(
    name: str | None = None, *, unit: str | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def calculation(name: Any = None, *, unit: str | None = None) -> Any:
    """Of a function that computes: each result is remembered with the arguments."""
    if callable(name):
        return calculation()(name)

    def after(call: Call) -> None:
        if call.error is None:
            record_calculation(
                name or call.function.__name__, call.inputs(), plain(call.result), unit,
                duration_ms=round(call.duration_ms, 3),
            )  # fmt: skip

    return lambda function: around(function, after)


def workflow_state(
    name: str, state: str, *, from_state: str | None = None, run: object = None,
    **attributes: object,
) -> Remembered:  # fmt: skip
    """A workflow is in another state: each transition is a memory."""
    arrow = said(state) if from_state is None else f"{said(from_state)} → {said(state)}"
    return mark(
        "workflow_state",
        f"{said(name)}: {arrow}",
        subject=name,
        payload={"workflow": name, "state": state, "from_state": from_state, "run": run,
                 **attributes},
    )  # fmt: skip


class Run:
    """A piece of work from beginning to end: one memory, there from the beginning.

    So what was running when the process died can be seen: a memory of state `started` alone.
    """

    def __init__(
        self, type_: str, name: str, label: str, fields: dict[str, object], key: object = None
    ) -> None:
        self._type, self._name, self._label, self._fields = type_, name, label, fields
        self._source = source_key(key)
        self._started = 0
        self.id = identity(type_, self._source)
        """The memory's id."""

    def set(self, **fields: object) -> None:
        """More to remember of this run: `records=512`, `result="ok"`."""
        self._fields.update(fields)

    def begin(self) -> Self:
        """Remember that it began."""
        self._started = time.perf_counter_ns()
        # It amends what its own end will make, so that the end speaks, whichever is stored first.
        emit(self._type, f"{self._label}: started", amends=self.id, subject=self._name,
             payload={"started": True, **self._fields})  # fmt: skip
        return self

    def end(self, error: BaseException | None = None) -> None:
        """Remember how it ended."""
        state = "failed" if error is not None else "completed"
        duration = (time.perf_counter_ns() - self._started) / 1e6
        emit(
            self._type,
            f"{self._label}: {state}",
            source=self._source,
            subject=self._name,
            outcome=error is None,
            content=None if error is None else plain(error),
            payload={
                **self._fields,
                "state": state,
                "duration_ms": round(duration, 3),
                "error_type": None if error is None else type(error).__qualname__,
            },
        )

    def __enter__(self) -> Self:
        return self.begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.end(error)

    async def __aenter__(self) -> Self:
        return self.begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.end(error)


@overload
def workflow(name: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def workflow(name: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def workflow(name: Any = None) -> Any:
    """Of a function that is a whole workflow: each run is a memory, from its beginning."""
    if callable(name):
        return workflow()(name)

    def before(call: Call) -> Run:
        title = name or name_of(call.function)
        fields: dict[str, object] = {"workflow": title, "inputs": call.inputs()}
        return Run("workflow_state", title, title, fields).begin()

    def after(call: Call) -> None:
        if call.begun is not None:
            if call.error is None:
                call.begun.set(result=call.result)
            call.begun.end(call.error)

    return lambda function: around(function, after, before)


def automation_run(name: str, *, trigger: str | None = None, **fields: object) -> Run:
    """An automation runs inside the block; `run.set(...)` adds what it did."""
    return Run("workflow_state", name, f"Automation {said(name)}",
               {"automation": name, "trigger": trigger, **fields})  # fmt: skip


def sync_run(source: str, target: str, *, records: int | None = None, **fields: object) -> Run:
    """Data is synchronised inside the block; `run.set(records=512)` adds what it did."""
    name = f"{said(source)}→{said(target)}"
    return Run("integration_sync", name, f"Sync {name}",
               {"source": source, "target": target, "records": records, **fields})  # fmt: skip


def webhook_received(
    source: str, event: str, payload: object = None, *, delivery: object = None,
    success: bool | None = None, **attributes: object,
) -> Remembered:  # fmt: skip
    """A webhook came in; with `delivery` a repeated delivery stays one memory."""
    return mark(
        "webhook_event",
        f"Webhook {said(source)} {said(event)}",
        key=None if delivery is None else f"{said(source)} {said(delivery)}",
        subject=source,
        outcome=success,
        payload={"source": source, "event": event, "id": delivery, "payload": payload,
                 **attributes},
    )  # fmt: skip


def record_solution(
    error: str | type[BaseException] | BaseException | re.Pattern[str],
    solution: object,
    *,
    worked: bool | None = None,
    steps: Iterable[object] = (),
    confidence: float | None = None,
    **attributes: object,
) -> Remembered:
    """What helps against an error type (a class or its name) or a pattern of its message."""
    if isinstance(error, re.Pattern):
        against: dict[str, object] = {"pattern": error.pattern}
    elif isinstance(error, BaseException):
        against = {"error_type": type(error).__qualname__, "error_message": said(error, 4_096)}
    else:
        against = {"error_type": error.__qualname__ if isinstance(error, type) else error}
    name = next(iter(against.values()))
    return mark(
        "error_solution",
        f"Fix for {said(name)}: {json_text(solution, 90)}",
        content=solution,
        subject=name,
        outcome=worked,
        payload={**against, "solution": solution, "steps": listed(steps) or None,
                 "worked": worked, "confidence": confidence, **attributes},
    )  # fmt: skip


def remember_preference(user: object, key: str, value: object, **attributes: object) -> Remembered:
    """What a user prefers. A later value is a memory of its own: recall takes the newest."""
    return mark(
        "user_preference",
        f"{said(key)}: {json_text(value, 90)}",
        subject=f"preference:{said(key)}",
        who={"user.id": user},
        payload={"preference": key, "value": value, **attributes},
    )
