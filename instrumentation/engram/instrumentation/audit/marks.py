"""Whether code says itself what is to be remembered: by our Python API or a plain OTel mark."""

from __future__ import annotations

import ast
from typing import Final

from .code import Code, Function, Scope

API: Final = frozenset(
    {
        "remember",
        "record_decision",
        "record_outcome",
        "decision",
        "calculation",
        "workflow",
        "workflow_state",
        "automation_run",
        "webhook_received",
        "sync_run",
        "record_solution",
        "remember_preference",
        "remedy",
        "optimization",
        "create_memory",
    }
)
"""The names of `engram.instrumentation` that make a memory; `create_memory` of `MemoryService`."""

_EMITTERS: Final = frozenset(
    {"add_event", "emit", "start_span", "start_as_current_span", "LogRecord"}
)
_TOLD: Final = 2  # levels of the app's own functions that are looked into


def said_by(node: ast.expr, code: Code, scope: Scope) -> str | None:
    """What an expression makes a memory with: a decorator, a call, a `with`; or None."""
    call = node if isinstance(node, ast.Call) else None
    path = code.resolve(call.func if call else node, scope)
    name = path.rsplit(".", 1)[-1] if path else None
    if path and name in API and path.startswith("engram."):
        return name
    if call is None:
        return None
    last = call.func.attr if isinstance(call.func, ast.Attribute) else name
    if last == "record_exception":
        return "record_exception"
    if last in _EMITTERS:
        for value in (*call.args, *(word.value for word in call.keywords)):
            text = code.text(value, scope)
            if text is not None and text.startswith("engram."):
                return text
    return None


def of_function(function: Function, code: Code, scope: Scope, levels: int = _TOLD) -> str | None:
    """What a function says: its decorators, its body, or what the app's functions it calls say."""
    for decorator in function.decorator_list:
        found = said_by(decorator, code, scope)
        if found:
            return f"@{found}"
    inside = scope.inner.get(id(function), scope)
    return of_body(function.body, code, inside, levels)


def of_body(body: list[ast.stmt], code: Code, scope: Scope, levels: int = _TOLD) -> str | None:
    """The same of statements."""
    calls = [node for one in body for node in ast.walk(one) if isinstance(node, ast.Call)]
    for call in calls:
        found = said_by(call, code, scope)
        if found:
            return f"{found}()" if found.isidentifier() else found
    if levels > 1:
        for call in calls:
            at = code.definition(code.resolve(call.func, scope))
            if at is not None and not isinstance(at[0], ast.ClassDef):
                found = of_function(at[0], code, at[1], levels - 1)
                if found:
                    return f"{at[0].name}(), which says {found}"
    return None
