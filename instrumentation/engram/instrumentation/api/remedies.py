"""Registered fixes: functions of the app that may run when an error comes that they handle.

Off until `ENGRAM_REMEDIES=on` (or `dry-run`, which stops before the fix). What runs is only what
the app registered, never text from a memory. Each run is one `error_resolution`.
"""

from __future__ import annotations

import inspect
import os
import re
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar, cast

from engram.instrumentation.api.breaker import Breaker
from engram.instrumentation.api.calls import quietly
from engram.instrumentation.api.marks import mark
from engram.instrumentation.api.values import said

F = TypeVar("F", bound=Callable[..., Any])
Handles = type[BaseException] | str | re.Pattern[str]
Outcome = Literal["fixed", "dry_run", "refused", "failed", "rolled_back"]

MODE: Final = "ENGRAM_REMEDIES"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """A registered fix. Each step takes the error and the keywords of `apply_remedy`."""

    name: str
    run: Callable[..., Any]
    handles: tuple[Handles, ...]
    """Exception classes, names of such, or patterns of the message."""

    precondition: Callable[..., Any] | None = None
    dry_run: Callable[..., Any] | None = None
    """Says whether the fix would work, and changes nothing; false or an exception refuses."""

    verify: Callable[..., Any] | None = None
    rollback: Callable[..., Any] | None = None
    max_per_hour: int = 5
    description: str = ""
    breaker: Breaker = field(default_factory=Breaker, repr=False, compare=False)

    def fits(self, error: BaseException) -> bool:
        """Whether it handles this error."""
        names = {cls.__name__ for cls in type(error).__mro__}
        return any(
            isinstance(error, one)
            if isinstance(one, type)
            else one in names
            if isinstance(one, str)
            else one.search(str(error)) is not None
            for one in self.handles
        )


@dataclass(frozen=True, slots=True)
class RemedyRun:
    """What came of a remedy."""

    remedy: str
    outcome: Outcome
    detail: str = ""
    result: Any = None
    memory_id: str = ""

    @property
    def fixed(self) -> bool:
        """Whether the fix ran and, where that can be verified, helped."""
        return self.outcome == "fixed"


_registered: dict[str, Remedy] = {}
_lock = threading.Lock()
_inside: ContextVar[bool] = ContextVar("engram.remedy", default=False)
"""A fix that fails by the error it handles must not start itself."""


def remedies() -> tuple[Remedy, ...]:
    """All that is registered, in order of registration."""
    return tuple(_registered.values())


def remedy(
    name: str,
    handles: Handles | tuple[Handles, ...],
    *,
    precondition: Callable[..., Any] | None = None,
    dry_run: Callable[..., Any] | None = None,
    verify: Callable[..., Any] | None = None,
    rollback: Callable[..., Any] | None = None,
    max_per_hour: int = 5,
) -> Callable[[F], F]:
    """Register a function as a fix; the function itself stays as it is."""

    def register(function: F) -> F:
        made = Remedy(
            name=name,
            run=function,
            handles=handles if isinstance(handles, tuple) else (handles,),
            precondition=precondition,
            dry_run=dry_run,
            verify=verify,
            rollback=rollback,
            max_per_hour=max_per_hour,
            description=(function.__doc__ or "").strip(),
            breaker=Breaker(per_hour=max_per_hour),
        )
        with _lock:
            _registered[name] = made
        return function

    return register


def mode() -> Literal["off", "dry-run", "on"]:
    """What `ENGRAM_REMEDIES` allows; anything that is not understood is off."""
    said = os.environ.get(MODE, "").strip().lower()
    return "on" if said in ("on", "true", "1") else "dry-run" if said == "dry-run" else "off"


def _fitting(error: BaseException) -> list[Remedy]:
    return [one for one in remedies() if quietly(one.fits, error)]


async def apply_remedy_async(error: BaseException, **facts: Any) -> RemedyRun | None:
    """Run the first remedy that fits; None when it is off or none fits. Raises nothing of ours."""
    allowed = mode()
    if allowed == "off" or _inside.get():
        return None
    for one in _fitting(error):
        token = _inside.set(True)
        try:
            return await _run(one, error, facts, allowed)
        finally:
            _inside.reset(token)
    return None


def apply_remedy(error: BaseException, **facts: Any) -> RemedyRun | None:
    """`apply_remedy_async` where nothing can be awaited: remedies with async steps are refused."""
    if mode() != "off":
        for one in _fitting(error)[:1]:
            steps = (one.precondition, one.dry_run, one.run, one.verify, one.rollback)
            if any(inspect.iscoroutinefunction(step) for step in steps):
                return RemedyRun(one.name, "refused", "has async steps: use apply_remedy_async")
    running = apply_remedy_async(error, **facts)
    try:
        running.send(None)
    except StopIteration as ended:
        return cast("RemedyRun | None", ended.value)
    running.close()
    return None


async def _step(step: Callable[..., Any], error: BaseException, facts: dict[str, Any]) -> Any:
    made = step(error, **facts)
    return await made if inspect.isawaitable(made) else made


def _why(reason: Exception) -> str:
    return f"{type(reason).__name__}: {said(reason)}"


async def _run(one: Remedy, error: BaseException, facts: dict[str, Any], allowed: str) -> RemedyRun:
    started = time.perf_counter_ns()
    outcome: Outcome = "refused"
    detail = ""
    result: Any = None
    refused = one.breaker.admit()
    if refused is not None:
        return RemedyRun(one.name, "refused", refused)  # no memory: a storm would make thousands
    try:
        for name, step in (("precondition", one.precondition), ("dry run", one.dry_run)):
            if step is not None and (await _step(step, error, facts)) is False:
                detail = name
                break
        else:
            outcome = "dry_run"
    except Exception as reason:  # noqa: BLE001 - a fix must not make it worse
        detail = _why(reason)
    if outcome == "dry_run" and allowed == "on":
        try:
            result = await _step(one.run, error, facts)
            checked = one.verify is None or (await _step(one.verify, error, facts)) is not False
            outcome, detail = ("fixed", "") if checked else ("failed", "not verified")
        except Exception as reason:  # noqa: BLE001 - a fix must not make it worse
            outcome, detail = "failed", _why(reason)
        if outcome == "failed" and one.rollback is not None:
            try:
                await _step(one.rollback, error, facts)
                outcome = "rolled_back"
            except Exception as reason:  # noqa: BLE001 - said in the memory
                detail += f"; rollback failed: {_why(reason)}"
        one.breaker.report(outcome == "fixed")
    kind = type(error).__qualname__
    made = mark(
        "error_resolution",
        f"{one.name}: {outcome} for {kind}",
        subject=kind,
        outcome=None if outcome in ("dry_run", "refused") else outcome == "fixed",
        payload={"remedy": one.name, "error_type": kind, "error_message": said(error, 4_096),
                 "result": outcome, "detail": detail or None,
                 "duration_ms": round((time.perf_counter_ns() - started) / 1e6, 3)},
    )  # fmt: skip
    return RemedyRun(one.name, outcome, detail, result, made.id)
