"""Work that no request waits for: jobs of APScheduler, and the steps of background tasks.

A job's thread carries the context of whoever started the scheduler, perhaps a request of days ago:
each run gets a trace of its own. A step after the response is told when it begins and when it ends.
"""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import wrapt
from opentelemetry import trace
from opentelemetry._logs import SeverityNumber, get_logger
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode

from engram.instrumentation.api.values import said

_EXECUTORS: Final = ("asyncio", "debug", "gevent", "pool", "tornado", "twisted")
_FAILED: Final = 1 << 13
"""APScheduler's EVENT_JOB_ERROR."""
_STEP: Final = "engram.workflow_state"
_installed = False


def install() -> str:
    """Wait for APScheduler and Starlette."""
    global _installed
    if not _installed:
        _installed = True
        wrapt.register_post_import_hook(_wrap_jobs, "apscheduler.executors.base")
        for name in _EXECUTORS:
            # Each took the function into its own module, perhaps before we came.
            module = f"apscheduler.executors.{name}"
            wrapt.register_post_import_hook(_take_wrapped, module)
        wrapt.register_post_import_hook(_wrap_steps, "starlette.background")
    return "on"


# -- APScheduler -----------------------------------------------------------------------------------


def _wrap_jobs(base: Any) -> None:
    run_job: Callable[..., Any] = base.run_job
    run_coroutine_job: Callable[..., Any] | None = getattr(base, "run_coroutine_job", None)

    @functools.wraps(run_job)
    def traced(job: Any, *args: Any, **kwargs: Any) -> Any:
        with _span(job) as span:
            return _judged(span, run_job(job, *args, **kwargs))

    base.run_job = traced
    if run_coroutine_job is None:
        return

    @functools.wraps(run_coroutine_job)
    async def traced_coroutine(job: Any, *args: Any, **kwargs: Any) -> Any:
        with _span(job) as span:
            return _judged(span, await run_coroutine_job(job, *args, **kwargs))

    base.run_coroutine_job = traced_coroutine


def _take_wrapped(executor: Any) -> None:
    base = importlib.import_module("apscheduler.executors.base")
    for name in ("run_job", "run_coroutine_job"):
        if hasattr(executor, name):
            setattr(executor, name, getattr(base, name))


@contextmanager
def _span(job: Any) -> Iterator[trace.Span]:
    # A trigger may be a class of the app's own, and the job has to run whatever it says.
    name = said(getattr(job, "name", None) or getattr(job, "id", "job"))
    attributes = {"faas.trigger": "timer", "faas.name": name}
    for key in ("id", "trigger"):
        if getattr(job, key, None) is not None:
            attributes[f"engram.job.{key}"] = said(getattr(job, key))
    with trace.get_tracer("engram.apscheduler").start_as_current_span(
        f"job {name}", context=Context(), kind=SpanKind.INTERNAL, attributes=attributes
    ) as span:
        yield span


def _judged(span: trace.Span, events: Any) -> Any:
    """The scheduler logs the exception, in the span; here it is only said that it failed."""
    try:
        failed = [event for event in events if event.code == _FAILED]
        if failed:
            error = failed[0].exception
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(Status(StatusCode.ERROR, said(error, 200)))
    except Exception:  # noqa: BLE001, S110 - the job must go on
        pass
    return events


# -- background tasks ------------------------------------------------------------------------------


def _wrap_steps(background: Any) -> None:
    original: Callable[..., Any] = background.BackgroundTask.__call__

    @functools.wraps(original)
    async def call(self: Any) -> None:
        name = _name(self.func)
        started = time.time_ns()
        try:
            await original(self)
        except BaseException as error:
            _tell(name, started, error)
            raise
        _tell(name, started, None)

    background.BackgroundTask.__call__ = call  # which all kinds of BackgroundTasks run one by one


def _name(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _tell(name: str, started: int, error: BaseException | None) -> None:
    try:
        state = "failed" if error is not None else "done"
        attributes: dict[str, Any] = {
            "engram.title": f"Background task {name}: {state}",
            "engram.subject": name,
            "workflow": name,
            "state": state,
            "duration_ms": (time.time_ns() - started) / 1e6,
        }
        if error is not None:
            attributes["error.type"] = type(error).__qualname__
            attributes["engram.importance"] = 0.7
        get_logger("engram.background").emit(
            timestamp=started,
            severity_number=SeverityNumber.INFO if error is None else SeverityNumber.ERROR,
            event_name=_STEP,
            body=f"Background task {name} {state}",
            attributes=attributes,
        )
    except Exception:  # noqa: BLE001, S110 - the task must go on
        pass


__all__ = ["install"]
