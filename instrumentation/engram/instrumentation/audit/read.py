"""The audit itself: which files are read, and every finding in them."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from . import calls, decisions, handlers, jobs
from .code import Code, Module
from .findings import Report
from .instrumented import installed_here
from .routes import Routes

_NOT_CODE: Final = frozenset(
    {
        "__pycache__",
        "build",
        "dist",
        "node_modules",
        "site-packages",
        "venv",
        "env",
        "virtualenv",
    }
)
_TESTS: Final = frozenset({"tests", "test", "testing"})
_TEST_FILE: Final = re.compile(r"^(?:test_.*|.*_test|conftest)\.py$")


def audit(path: Path, *, tests: bool = False, instrumented: frozenset[str] | None = None) -> Report:
    """Read a file or a folder of Python code; nothing of it is imported or run."""
    if instrumented is None:
        instrumented = installed_here()
    report, code, modules = Report(), Code(), list[Module]()
    root = path if path.is_dir() else path.parent
    base = _base(root)
    for file in _files(path, tests=tests):
        report.files += 1
        shown = file.relative_to(root).as_posix()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of odd escapes in the code that is read
                at = file.resolve().relative_to(base)
                modules.append(code.add(file.read_bytes(), at, shown))
        except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as error:
            report.unread.append((shown, f"{type(error).__name__}: {error}"))
    routes = Routes(code, instrumented)
    hooked = any(
        "TracingHook" in said or said.startswith("openfeature.contrib.hook.opentelemetry")
        for module in modules
        for said in module.scope.imports.values()
    )
    for module in modules:
        try:
            report.findings += [
                *routes.find(module),
                *calls.find_nodes(code, module),
                *calls.find_llm(code, module, instrumented),
                *jobs.find_jobs(code, module, instrumented),
                *handlers.find_handlers(code, module),
                *decisions.find_decisions(code, module, hooked),
            ]
        except RecursionError as error:
            report.unread.append((module.file, f"RecursionError: {error}"))
    report.findings.sort(key=lambda one: (one.file, one.line, one.kind, one.name))
    return report


def _base(root: Path) -> Path:
    """Where imports begin: above the packages that the folder itself is part of."""
    at = root.resolve()
    while (at / "__init__.py").exists() and at.parent != at:
        at = at.parent
    return at


def _files(path: Path, *, tests: bool) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(
            name
            for name in folders
            if name not in _NOT_CODE
            and not name.startswith(".")
            and (tests or name not in _TESTS)
            and not os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))
        )
        for name in sorted(names):
            if name.endswith(".py") and (tests or not _TEST_FILE.match(name)):
                found = Path(folder, name)
                if found.is_file():  # not a dangling link, nor a pipe
                    yield found
