"""Except blocks that end an exception: which of them leave something to remember.

A handler that raises again decides nothing and is not listed, nor one of exceptions that are flow
control (`ImportError`, `StopIteration`, an empty queue, a cancelled task), nor a look-up with a
default: one statement that may raise a `KeyError` or `AttributeError`, and one that gives
another value.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

from . import marks
from .code import Code, Module, Place, Scope, walk_own
from .findings import Finding, Kind, Verdict

_FLOW: Final = frozenset(
    {
        "ImportError",
        "ModuleNotFoundError",
        "PackageNotFoundError",
        "StopIteration",
        "StopAsyncIteration",
        "GeneratorExit",
        "KeyboardInterrupt",
        "SystemExit",
        "CancelledError",
        "Empty",
        "Full",
        "QueueEmpty",
        "QueueFull",
        "WebSocketDisconnect",
    }
)
_LOOKUPS: Final = frozenset(
    {"AttributeError", "IndexError", "KeyError", "LookupError", "NameError", "UnboundLocalError"}
)
_LOGS: Final = frozenset(
    {"debug", "info", "warning", "warn", "error", "exception", "critical", "fatal", "log"}
)
_LOGGER: Final = re.compile(r"^(?:self\.|cls\.)?_*(?:\w*log|\w*logger|\w*logging)$", re.IGNORECASE)
_IS_LOGGER: Final = re.compile(r"^(?:logging|structlog|loguru)\b")
_LOUD: Final = frozenset({"error", "exception", "critical", "fatal"})
_SHOWS: Final = frozenset({"print", "str", "repr", "format", "type", "isinstance", "print_exc"})
_ENDS: Final = frozenset({"sys.exit", "os._exit", "exit", "quit", "pytest.fail", "pytest.skip"})


def find_handlers(code: Code, module: Module) -> Iterator[Finding]:
    """Handlers and `contextlib.suppress` that end an exception."""
    for place in code.places[module.file]:
        node = place.node
        if isinstance(node, ast.Try | ast.TryStar):
            for handler in node.handlers:
                names = _names(handler.type)
                if names and all(name in _FLOW for name in names):
                    continue
                told = _handler(handler, code, place.scope)
                if told is None or (told[0] is Verdict.NONE and _looks_up(node, handler, names)):
                    continue
                title = "except " + (", ".join(names) or "all")
                yield _finding(module, handler.lineno, title, told)
        elif isinstance(node, ast.With | ast.AsyncWith):
            yield from _suppressed(node, code, place, module)


def _looks_up(node: ast.Try | ast.TryStar, handler: ast.ExceptHandler, names: list[str]) -> bool:
    """Whether it is a look-up with a default: one statement tried, another value in its place."""
    return (
        bool(names)
        and all(name in _LOOKUPS for name in names)
        and len(node.body) == 1
        and len(handler.body) == 1
        and isinstance(handler.body[0], ast.Return | ast.Assign | ast.AnnAssign | ast.Continue)
    )


def _suppressed(
    node: ast.With | ast.AsyncWith, code: Code, place: Place, module: Module
) -> Iterator[Finding]:
    for item in node.items:
        call = item.context_expr
        if not isinstance(call, ast.Call):
            continue
        if code.resolve(call.func, place.scope) != "contextlib.suppress":
            continue
        names = [name for one in call.args for name in _names(one)]
        if names and all(name in _FLOW for name in names):
            continue
        told = (
            Verdict.NONE,
            "contextlib.suppress ends the exception in silence",
            "try ... except with log.exception(...), or remember(...)",
        )
        yield _finding(module, node.lineno, f"suppress {', '.join(names)}", told)


def _names(node: ast.expr | None) -> list[str]:
    if node is None:
        return []
    if isinstance(node, ast.Tuple):
        return [name for one in node.elts for name in _names(one)]
    return [ast.unparse(node).rsplit(".", 1)[-1]]


def _handler(node: ast.ExceptHandler, code: Code, scope: Scope) -> tuple[Verdict, str, str] | None:
    inside = list(walk_own(node))
    if any(isinstance(one, ast.Raise) for one in inside):
        return None
    calls = [one for one in inside if isinstance(one, ast.Call)]
    if any(
        (code.resolve(call.func, scope) or "") in _ENDS
        or _last(call) in ("set_exception", "fail", "add_note")
        for call in calls
    ):
        return None
    said = marks.of_body(node.body, code, scope)
    if said:
        return Verdict.EXPLICIT, f"it says {said}", ""
    quiet = None
    for call in calls:
        how = _logs(call, node.name, code, scope)
        if how is True:
            return Verdict.ZERO_CODE, f"system_error, of the log record of {_last(call)}()", ""
        if how is False:
            quiet = _last(call)
    if quiet is not None:
        return (
            Verdict.PARTIAL,
            f"{quiet}() without exc_info: a log record, of which no memory is made",
            "log.exception(...), or exc_info=True",
        )
    to = _handed_on(node, inside)
    if to is not None:
        return (
            Verdict.PARTIAL,
            f"the exception is handed on ({to}); remembered only if that logs it",
            "log.exception(...) here, if nobody does",
        )
    return (
        Verdict.NONE,
        "ends the exception in silence",
        "log.exception(...), or remember(...) when it is expected and matters",
    )


def _logs(call: ast.Call, caught: str | None, code: Code, scope: Scope) -> bool | None:
    """True: an error record; False: a quieter one; None: no logging."""
    name = _last(call)
    if name not in _LOGS or not isinstance(call.func, ast.Attribute):
        return None
    owner = code.resolve(call.func.value, scope) or ""
    base = call.func.value
    if isinstance(base, ast.Call):  # logging.getLogger(__name__).error(...)
        base = base.func
    if not _IS_LOGGER.match(owner) and not _LOGGER.match(ast.unparse(base).rsplit(".", 1)[-1]):
        if isinstance(base, ast.Attribute) and _LOGGER.match(ast.unparse(base.value)):
            pass  # log.opt(exception=True).info(...)
        else:
            return None
    if name in _LOUD:
        return True
    level = ast.unparse(call.args[0]) if name == "log" and call.args else ""
    if level.rsplit(".", 1)[-1] in ("ERROR", "CRITICAL", "FATAL"):
        return True
    return any(
        word.arg == "exc_info"
        and not (isinstance(word.value, ast.Constant) and not word.value.value)
        for word in call.keywords
    )


def _handed_on(node: ast.ExceptHandler, inside: list[ast.AST]) -> str | None:
    if node.name is None:
        return None
    for one in inside:
        if isinstance(one, ast.Call) and _last(one) not in _SHOWS and _uses(one, node.name):
            return f"to {_last(one) or 'a call'}"
    for one in inside:
        if (
            isinstance(one, ast.Return | ast.Assign | ast.Yield)
            and one.value is not None
            and _uses(one.value, node.name)
        ):
            return "returned" if isinstance(one, ast.Return) else "kept"
    return None


def _uses(node: ast.AST, name: str) -> bool:
    return any(isinstance(one, ast.Name) and one.id == name for one in ast.walk(node))


def _last(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _finding(module: Module, line: int, name: str, told: tuple[Verdict, str, str]) -> Finding:
    verdict, why, do = told
    return Finding(
        file=module.file,
        line=line,
        kind=Kind.EXCEPT,
        name=name,
        verdict=verdict,
        why=why,
        do=do,
    )
