"""The last second of a server: uvicorn ends by the signal that stopped it, past Python's own end.

Nothing that is registered for the end of the process runs then, so what waits to be sent would be
lost. It is sent when the server has answered its last request, for two seconds at most.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from typing import Any, Final

import wrapt
from opentelemetry import metrics, trace
from opentelemetry._logs import get_logger_provider

_LONGEST_S: Final = 2.0
_installed = False


def install() -> str:
    """Wait for uvicorn."""
    global _installed
    if not _installed:
        _installed = True
        wrapt.register_post_import_hook(_wrap, "uvicorn.server")
    return "on"


def _wrap(server: Any) -> None:
    original = server.Server._serve

    @functools.wraps(original)
    async def serve(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await original(self, *args, **kwargs)
        finally:
            flush()

    server.Server._serve = serve


def flush(seconds: float = _LONGEST_S) -> None:
    """Send what waits, and wait for it no longer than this."""
    providers = trace.get_tracer_provider(), get_logger_provider(), metrics.get_meter_provider()
    threads = [threading.Thread(target=_flush, args=(one,), daemon=True) for one in providers]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds  # of all three together
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0.0))


def _flush(provider: Any) -> None:
    with contextlib.suppress(Exception):  # the server must end
        provider.force_flush()


__all__ = ["flush", "install"]
