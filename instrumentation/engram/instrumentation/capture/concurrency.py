"""Exceptions that would be lost: of futures nobody reads, of tasks and threads, with their trace.

A future's exception is told when the future is thrown away unread, as asyncio does for its tasks:
what the app reads, however late, is the app's to handle. Tasks and threads are told by
OpenTelemetry's `exceptions` instrumentor already, but outside of the trace they belong to.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import os
import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, Final

import wrapt
from opentelemetry import trace
from opentelemetry._logs import SeverityNumber, get_logger
from opentelemetry.context import Context, attach, detach, get_current

_CONTEXT: Final = "_engram_context"
_FINISHED: Final = "FINISHED"

handling: ContextVar[bool] = ContextVar("engram.handling", default=False)
"""True while a loop says what was lost: its own log line would be the same once more."""
_installed = False


def install() -> str:
    """Patch thread pools, event loops and the hook of threads."""
    global _installed
    if not _installed:
        _installed = True
        _watch_pools()
        _watch_tasks()
        _watch_threads()
    return "on"


def _in_trace() -> Context | None:
    """The context, when there is a trace in it."""
    context = get_current()
    return context if trace.get_current_span(context).get_span_context().is_valid else None


# -- thread pools ----------------------------------------------------------------------------------


class _Watched(Future):  # type: ignore[type-arg]
    """A future that knows whether its exception was read."""

    _engram_read = False
    _engram_context: Context | None = None
    _engram_name = ""

    def result(self, timeout: float | None = None) -> Any:
        """See `Future`."""
        self._engram_read = True
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """See `Future`."""
        self._engram_read = True
        return super().exception(timeout)

    def __del__(self) -> None:
        if (
            not self._engram_read
            and self._state == _FINISHED
            and self._exception is not None
            and _lost.qsize() < _MOST_LOST
        ):
            # The collector of garbage may have come while this thread holds a lock of the SDK. So
            # it is told by another one; `put` of a SimpleQueue is made to be called from here.
            _lost.put((self._exception, self._engram_name, self._engram_context))


_Lost = tuple[BaseException, str, Context | None]
_lost: queue.SimpleQueue[_Lost] = queue.SimpleQueue()
_MOST_LOST: Final = 1000
"""What waits to be told holds the frames it failed in; a forked child may have nobody who tells."""
_telling_in = 0
"""The process in which a thread tells what is lost: a fork has none."""


def _tell_all() -> None:
    """At the end of the program: what is still waiting."""
    with contextlib.suppress(queue.Empty):
        while True:
            _tell(*_lost.get_nowait())


def _tell_forever() -> None:
    while True:
        _tell(*_lost.get())


def _have_teller() -> None:
    global _telling_in
    if _telling_in != os.getpid():
        _telling_in = os.getpid()
        threading.Thread(target=_tell_forever, name="engram-lost", daemon=True).start()


def _watch_pools() -> None:
    original: Any = ThreadPoolExecutor.submit
    atexit.register(_tell_all)  # before the SDK's own, which was registered earlier

    @functools.wraps(original)
    def submit(self: ThreadPoolExecutor, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        future: Any = original(self, fn, *args, **kwargs)
        if future.__class__ is Future:
            with contextlib.suppress(RuntimeError):  # no more threads, at the very end
                _have_teller()
            # The work may be done by now, but nobody else has the future yet: until it is returned
            # here, none can read its exception or throw it away.
            watched: Any = future
            watched._engram_context, watched._engram_name = get_current(), _name(fn)
            future.__class__ = _Watched
        return future

    ThreadPoolExecutor.submit = submit  # type: ignore[assignment,method-assign]


def _name(fn: Any) -> str:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return str(getattr(fn, "__qualname__", type(fn).__qualname__))


def _tell(error: BaseException, name: str, context: Context | None) -> None:
    if not isinstance(error, Exception):
        return
    with contextlib.suppress(Exception):  # the interpreter may be on its way out
        get_logger("engram.concurrency").emit(
            context=context,
            severity_number=SeverityNumber.ERROR,
            severity_text="ERROR",
            event_name="exception",
            body=f"Exception in a thread pool was never read: {name}",
            attributes={"code.function.name": name},
            exception=error,
        )


# -- tasks -----------------------------------------------------------------------------------------


def _watch_tasks() -> None:
    _watch_loop(asyncio.BaseEventLoop, told=True)
    # No instrumentor tells what is lost in uvloop: there the loop's own log line does.
    wrapt.register_post_import_hook(lambda uvloop: _watch_loop(uvloop.Loop, told=False), "uvloop")


def _watch_loop(loop: Any, *, told: bool) -> None:
    _note_context(loop)
    original = loop.call_exception_handler

    @functools.wraps(original)
    def call_exception_handler(self: Any, context: dict[str, Any]) -> None:
        with _Told(context, told=told):
            original(self, context)

    loop.call_exception_handler = call_exception_handler


def _note_context(loop: Any) -> None:
    original = loop.create_task

    @functools.wraps(original)
    def create_task(self: Any, coro: Any, *args: Any, **kwargs: Any) -> Any:
        task = original(self, coro, *args, **kwargs)
        context = _in_trace()
        if context is not None:
            with contextlib.suppress(AttributeError):  # a task class of somebody's own, with slots
                setattr(task, _CONTEXT, context)
        return task

    loop.create_task = create_task


class _Told:
    """In the trace of the task that failed, while the loop tells it."""

    def __init__(self, said: dict[str, Any], *, told: bool) -> None:
        failed = said.get("task") or said.get("future")
        self._context = getattr(failed, _CONTEXT, None)
        self._told = told and isinstance(said.get("exception"), Exception)

    def __enter__(self) -> None:
        self._token = attach(self._context) if self._context is not None else None
        self._flag = handling.set(self._told)

    def __exit__(self, *_: object) -> None:
        handling.reset(self._flag)
        if self._token is not None:
            detach(self._token)


# -- threads ---------------------------------------------------------------------------------------


def _watch_threads() -> None:
    """The threading instrumentor leaves a thread's context before its hook is called."""
    original = threading.excepthook

    def excepthook(args: Any, /) -> Any:
        context = getattr(args.thread, "_otel_context", None)
        token = attach(context) if context is not None else None
        try:
            return original(args)
        finally:
            if token is not None:
                detach(token)

    threading.excepthook = excepthook


__all__ = ["handling", "install"]
