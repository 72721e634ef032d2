"""What a user's app installs: names on the wire, the captures, the distribution and the Python API.

The names below are loaded when they are first used, so importing this package costs next to
nothing. Imports OpenTelemetry and the standard library only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from engram.instrumentation.api.deciding import Decided, decide
    from engram.instrumentation.api.decisions import (
        decision,
        last_decision,
        record_decision,
        record_outcome,
    )
    from engram.instrumentation.api.endpoints import endpoint_memory
    from engram.instrumentation.api.errors import (
        HandledError,
        error_handler,
        handle_error,
        handle_error_async,
    )
    from engram.instrumentation.api.marks import Remembered, remember
    from engram.instrumentation.api.optimizations import optimization, optimizations
    from engram.instrumentation.api.people import context, session, user
    from engram.instrumentation.api.remedies import (
        apply_remedy,
        apply_remedy_async,
        remedies,
        remedy,
    )
    from engram.instrumentation.api.service import Memory, MemoryService, SyncMemoryService
    from engram.instrumentation.api.work import (
        automation_run,
        calculation,
        record_calculation,
        record_solution,
        remember_preference,
        sync_run,
        webhook_received,
        workflow,
        workflow_state,
    )

_MODULES: Final = {
    "decisions": ("decision", "last_decision", "record_decision", "record_outcome"),
    "deciding": ("Decided", "decide"),
    "endpoints": ("endpoint_memory",),
    "errors": ("HandledError", "error_handler", "handle_error", "handle_error_async"),
    "marks": ("Remembered", "remember"),
    "optimizations": ("optimization", "optimizations"),
    "people": ("context", "session", "user"),
    "remedies": ("apply_remedy", "apply_remedy_async", "remedies", "remedy"),
    "service": ("Memory", "MemoryService", "SyncMemoryService"),
    "work": (
        "automation_run", "calculation", "record_calculation", "record_solution",
        "remember_preference", "sync_run", "webhook_received", "workflow", "workflow_state",
    ),
}  # fmt: skip
_HOME: Final = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.api.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


__all__ = [
    "Decided",
    "HandledError",
    "Memory",
    "MemoryService",
    "Remembered",
    "SyncMemoryService",
    "apply_remedy",
    "apply_remedy_async",
    "automation_run",
    "calculation",
    "context",
    "decide",
    "decision",
    "endpoint_memory",
    "error_handler",
    "handle_error",
    "handle_error_async",
    "last_decision",
    "optimization",
    "optimizations",
    "record_calculation",
    "record_decision",
    "record_outcome",
    "record_solution",
    "remedies",
    "remedy",
    "remember",
    "remember_preference",
    "session",
    "sync_run",
    "user",
    "webhook_received",
    "workflow",
    "workflow_state",
]
