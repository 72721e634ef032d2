"""What an app does with an error: remember it, ask what is known of it, let a remedy try."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from dataclasses import dataclass, field
from typing import Any

from opentelemetry import trace

from engram.instrumentation.api.asking import asked, client
from engram.instrumentation.api.calls import quietly
from engram.instrumentation.api.marks import mark
from engram.instrumentation.api.remedies import RemedyRun, apply_remedy, apply_remedy_async
from engram.instrumentation.api.values import said


@dataclass(frozen=True, slots=True)
class HandledError:
    """What is known of an error, and what was done."""

    memory_id: str
    """Of the `system_error`; empty where a capture remembers the error of the current span."""

    known: dict[str, Any] = field(default_factory=dict)
    """As `Client.find_known_error` says it; empty where nobody answered in time. It is data."""

    run: RemedyRun | None = None
    """What came of the remedy; None: remedies are off, or none is registered for this error."""

    @property
    def fixed(self) -> bool:
        """Whether a registered remedy ran and helped."""
        return self.run is not None and self.run.fixed


def handle_error(error: BaseException, **facts: Any) -> HandledError:
    """Remember, look up, remedy. Raises nothing and waits 150 ms at most, besides the remedy."""
    remembered = quietly(_remember, error) or ""
    known = _known(error)
    return HandledError(remembered, known, apply_remedy(error, **facts))


async def handle_error_async(error: BaseException, **facts: Any) -> HandledError:
    """`handle_error` that does not hold up the event loop; its remedies may be async."""
    remembered = quietly(_remember, error) or ""
    known = await asyncio.to_thread(_known, error)
    return HandledError(remembered, known, await apply_remedy_async(error, **facts))


def error_handler(app: Any = None) -> None:
    """Do that for every error that nobody caught: of a FastAPI app, or of this process.

    The app's own handler of `Exception` still makes the answer, and the error is still raised.
    """
    if app is None:
        _of_the_process()
        return
    before = app.exception_handlers.get(Exception)

    async def handler(request: Any, error: Exception) -> Any:
        await handle_error_async(error)
        if before is not None:
            answer = before(request, error)
            return await answer if asyncio.iscoroutine(answer) else answer
        from starlette.responses import PlainTextResponse

        return PlainTextResponse("Internal Server Error", status_code=500)

    app.add_exception_handler(Exception, handler)


def _of_the_process() -> None:
    main, threads = sys.excepthook, threading.excepthook

    def of_main(kind: type[BaseException], error: BaseException, trace_: Any) -> None:
        if isinstance(error, Exception):  # not Ctrl-C
            quietly(handle_error, error)
        main(kind, error, trace_)

    def of_thread(failed: threading.ExceptHookArgs) -> None:
        if isinstance(failed.exc_value, Exception):
            quietly(handle_error, failed.exc_value)
        threads(failed)

    sys.excepthook, threading.excepthook = of_main, of_thread


def _remember(error: BaseException) -> str:
    # The capture of a request remembers what its span died of: twice would count as two.
    if trace.get_current_span().is_recording():
        return ""
    kind = type(error).__qualname__
    return mark(
        "system_error", f"{kind}: {said(error)}", subject=kind,
        content="".join(traceback.format_exception(error)),
        payload={"error_type": kind, "error_message": said(error, 4_096)},
    ).id  # fmt: skip


def _known(error: BaseException) -> dict[str, Any]:
    return asked(
        "find_known_error",
        lambda: client().find_known_error(
            error_type=type(error).__qualname__, message=said(error, 4_096) or type(error).__name__
        ),
        {},
    )


__all__ = ["HandledError", "error_handler", "handle_error", "handle_error_async"]
