"""Wrapping a function, sync or async, without changing what it is, gives or raises."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast

from engram.instrumentation.api.marks import internal, listening
from engram.instrumentation.api.values import arguments

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True)
class Call:
    """One call of a wrapped function, when it has ended."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any = None
    error: BaseException | None = None
    duration_ms: float = 0.0
    begun: Any = None
    """What `before` gave."""

    def inputs(self) -> dict[str, Any]:
        """The arguments by name, bounded and masked."""
        return arguments(self.function, self.args, self.kwargs) if listening() else {}


def quietly(step: Callable[..., Any] | None, *args: Any) -> Any:
    """What the step gives; None when it fails."""
    if step is None:
        return None
    try:
        return step(*args)
    except Exception as error:  # noqa: BLE001 - our part of the app's call
        internal(error)
        return None


def around(
    function: Callable[P, R],
    after: Callable[[Call], object],
    before: Callable[[Call], object] | None = None,
) -> Callable[P, R]:
    """The function, with `before` and `after` told of each call; neither can disturb it."""

    def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Call, int]:
        call = Call(function, args, kwargs)
        call.begun = quietly(before, call)
        return call, time.perf_counter_ns()

    def end(call: Call, started: int, result: Any, error: BaseException | None) -> None:
        call.duration_ms = (time.perf_counter_ns() - started) / 1e6
        call.result, call.error = result, error
        quietly(after, call)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaiting(*args: P.args, **kwargs: P.kwargs) -> Any:
            call, started = begin(args, kwargs)
            try:
                result = await cast(Any, function)(*args, **kwargs)
            except BaseException as error:
                end(call, started, None, error)
                raise
            end(call, started, result, None)
            return result

        return cast("Callable[P, R]", awaiting)

    @functools.wraps(function)
    def calling(*args: P.args, **kwargs: P.kwargs) -> R:
        call, started = begin(args, kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            end(call, started, None, error)
            raise
        end(call, started, result, None)
        return result

    return calling


def name_of(function: Callable[..., Any]) -> str:
    """What a function is called when nobody named it."""
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__).replace(
        "<locals>.", ""
    )
