"""Background jobs: Celery, FastAPI's background tasks, APScheduler, asyncio, pools and threads."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

from . import marks
from .code import Code, Function, Module, Place, Scope
from .findings import Finding, Kind, Verdict

_CELERY: Final = re.compile(
    r"^(?:celery\.(?:.*\.)?(?:Celery\(\)\.task|shared_task|task))(?:\(\))?$"
)
_SCHEDULER: Final = re.compile(r"^apscheduler\.\S*Scheduler\(\)\.(add_job|scheduled_job)(?:\(\))?$")
_BACKGROUND: Final = re.compile(
    r"^(?:(?:fastapi|starlette)\.(?:.*\.)?BackgroundTasks\(\)\.add_task|starlette\.background\.BackgroundTask)$"
)
_TASK: Final = re.compile(
    r"^asyncio\.(?:create_task|ensure_future|(?:get_event_loop|get_running_loop|new_event_loop)\(\)\.create_task"
    r"|TaskGroup\(\)\.create_task|run_coroutine_threadsafe)$"
)
_POOL: Final = re.compile(r"^concurrent\.futures\.(?:thread\.)?ThreadPoolExecutor\(\)\.submit$")
_PROCESSES: Final = re.compile(
    r"^(?:concurrent\.futures\.(?:process\.)?ProcessPoolExecutor\(\)\.submit|multiprocessing\.Process)$"
)
_THREAD: Final = re.compile(r"^threading\.(?:Thread|Timer)$")

_FAILURES: Final = "only its failure, as system_error with its trace; that it ran is not remembered"
_WORKFLOW: Final = "wrap the function in @workflow, or automation_run where it matters that it ran"


def find_jobs(code: Code, module: Module, instrumented: frozenset[str]) -> Iterator[Finding]:
    """Where work is handed to run later or beside."""
    for place in code.places[module.file]:
        node = place.node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in node.decorator_list:
                path = code.resolve(decorator, place.scope)
                # A Celery app that comes from outside the code base is still called `app.task`.
                if path is None and _is_task(decorator) and _imports_celery(module):
                    path = "celery.shared_task"
                if path and (_CELERY.match(path) or _SCHEDULER.match(path)):
                    yield _job(module, node.lineno, path, node, code, place.scope, instrumented)
                    break
        elif isinstance(node, ast.Call):
            path = code.resolve(node.func, place.scope)
            if path is None:
                continue
            if _CELERY.match(path) or path.endswith(".scheduled_job"):
                continue  # a decorator, found at its function
            target = _target(path, node)
            if target is not None:
                function, around = _function(target, code, place)
                yield _job(module, node.lineno, path, function, code, around, instrumented, target)


def _is_task(decorator: ast.expr) -> bool:
    at = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(at, ast.Attribute) and at.attr == "task"


def _imports_celery(module: Module) -> bool:
    return any(one.split(".")[0] == "celery" for one in module.scope.imports.values())


def _target(path: str, call: ast.Call) -> ast.expr | None:
    """What will run, when a call hands something over."""
    if _THREAD.match(path) or path == "multiprocessing.Process":
        words = {word.arg: word.value for word in call.keywords}
        place = 1 if len(call.args) > 1 else None
        return words.get("target") or words.get("function") or (call.args[place] if place else None)
    patterns = (_SCHEDULER, _BACKGROUND, _TASK, _POOL, _PROCESSES)
    if any(pattern.match(path) for pattern in patterns):
        words = {word.arg: word.value for word in call.keywords}
        return call.args[0] if call.args else words.get("func") or words.get("coro")
    return None


def _function(target: ast.expr, code: Code, place: Place) -> tuple[Function | None, Scope]:
    named = target.func if isinstance(target, ast.Call) else target
    at = code.definition(code.resolve(named, place.scope))
    if at is None or isinstance(at[0], ast.ClassDef):
        return None, place.scope
    return at[0], at[1]


def _job(
    module: Module,
    line: int,
    path: str,
    function: Function | None,
    code: Code,
    scope: Scope,
    instrumented: frozenset[str],
    target: ast.expr | None = None,
) -> Finding:
    named = target.func if isinstance(target, ast.Call) else target
    name = function.name if function else ast.unparse(named)[:60] if named is not None else "?"
    verdict, why, do = _told(path, instrumented)
    if verdict is not Verdict.ZERO_CODE and function is not None:
        said = marks.of_function(function, code, scope)
        if said:
            verdict, why, do = Verdict.EXPLICIT, f"{function.name} says {said}", ""
    how = "celery" if _CELERY.match(path) else path.replace("()", "").rsplit(".", 1)[-1]
    return Finding(
        file=module.file,
        line=line,
        kind=Kind.JOB,
        name=f"{how} {name}",
        verdict=verdict,
        why=why,
        do=do,
        seen_as=(name.rsplit(".", 1)[-1],),
    )


def _told(path: str, instrumented: frozenset[str]) -> tuple[Verdict, str, str]:
    if _CELERY.match(path):
        if "celery" in instrumented:
            return Verdict.ZERO_CODE, "workflow_state or integration_sync, by Celery's signals", ""
        return Verdict.NONE, "nothing instruments Celery", "instrument celery"
    if _SCHEDULER.match(path):
        return Verdict.ZERO_CODE, "workflow_state of every run, by the scheduler's events", ""
    if _BACKGROUND.match(path):
        return Verdict.ZERO_CODE, "part of its request's trace: a span, and its failure", ""
    if _PROCESSES.match(path):
        return (
            Verdict.NONE,
            "another process, whose failure comes back only where its result is read",
            "read its result, and " + _WORKFLOW,
        )
    return Verdict.PARTIAL, _FAILURES, _WORKFLOW
