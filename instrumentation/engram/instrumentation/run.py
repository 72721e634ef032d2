"""`engram run`: starts a program with everything captured, and with no change to it.

The program replaces this process: signals, exit code and terminal are its own.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import which
from typing import Final

NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
"""What a shell, `env` and `nohup` exit with, beside the codes of the program itself."""

BOOTSTRAP: Final = str(Path(__file__).parent / "bootstrap")

_SERVERS: Final = frozenset({"uvicorn", "gunicorn", "hypercorn", "granian", "daphne", "uwsgi"})
_RUNNERS: Final = _SERVERS | {"celery", "flask", "fastapi", "rq", "streamlit"}
_GENERIC: Final = frozenset({"main", "app", "asgi", "wsgi", "server", "api", "application"})
_TARGET: Final = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_][\w.]*(?:\(.*\))?")
_PYTHON: Final = re.compile(r"(?:python|pypy)[\d.]*(?:\.exe)?")


def run(command: Sequence[str], *, endpoint: str = "", service: str = "") -> int:
    """Become the command. Returns only when that is not possible, with the exit code."""
    program = which(command[0])
    if program is None:
        return _why_not(command[0])
    if _is_python(command[0]) and set(command[1:2]) & {"-I", "-E", "-S", "-IS", "-ES"}:
        _say(f"python {command[1]} ignores PYTHONPATH: nothing can be captured")
    environment = environment_for(command, os.environ, endpoint=endpoint, service=service)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(program, list(command), environment)  # noqa: S606 - it is what was asked for
    except OSError as error:
        _say(f"{command[0]} cannot be started: {error.strerror or error}")
        return NOT_EXECUTABLE


def environment_for(
    command: Sequence[str], environment: Mapping[str, str], *, endpoint: str = "", service: str = ""
) -> dict[str, str]:
    """What the program, and each one that it starts, finds in its environment."""
    found = dict(environment)
    found["OTEL_PYTHON_DISTRO"] = found["OTEL_PYTHON_CONFIGURATOR"] = "engram"
    if endpoint:
        found["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
    if service:
        found["OTEL_SERVICE_NAME"] = service
    elif not found.get("OTEL_SERVICE_NAME") and not re.search(
        r"(?:^|,)\s*service\.name\s*=", found.get("OTEL_RESOURCE_ATTRIBUTES", "")
    ):
        found["OTEL_SERVICE_NAME"] = service_name(command)
    paths = found.get("PYTHONPATH", "").split(os.pathsep)
    found["PYTHONPATH"] = os.pathsep.join([BOOTSTRAP, *(p for p in paths if p and p != BOOTSTRAP)])
    return found


def service_name(command: Sequence[str]) -> str:
    """The app module or the script: the same for every start of the same program."""
    program, *rest = command
    name = Path(program).name.removesuffix(".exe")
    if _is_python(program):
        return _of_python(rest) or "python"
    if name in _RUNNERS:
        return _of_runner(name, rest) or name
    return Path(name).stem or name


def _is_python(program: str) -> bool:
    return _PYTHON.fullmatch(Path(program).name) is not None


def _of_python(arguments: Sequence[str]) -> str:
    words = iter(enumerate(arguments))
    for at, word in words:
        if word == "-m" and at + 1 < len(arguments):
            module = arguments[at + 1]
            if module in _RUNNERS:
                return _of_runner(module, arguments[at + 2 :]) or module
            return module.removesuffix(".__main__")
        if word == "-c":
            return ""
        if word in ("-W", "-X"):
            next(words, None)
        elif not word.startswith("-"):
            return Path(word).stem
    return ""


def _of_runner(runner: str, arguments: Sequence[str]) -> str:
    if runner in _SERVERS:
        targets = filter(None, map(_TARGET.fullmatch, arguments))
        found = next((target[1] for target in targets), "")
        if not found and arguments and not arguments[-1].startswith("-"):
            found = arguments[-1] if re.fullmatch(r"[A-Za-z_][\w.]*", arguments[-1]) else ""
        return _module(found)
    for at, word in enumerate(arguments):
        for option in ("-A", "--app"):
            if word == option and at + 1 < len(arguments):
                return _module(arguments[at + 1].partition(":")[0])
            if word.startswith(f"{option}="):
                return _module(word.partition("=")[2].partition(":")[0])
    scripts = [word for word in arguments if word.endswith(".py")]
    return Path(scripts[0]).stem if scripts else ""


def _module(dotted: str) -> str:
    """`shop.main` is the service shop."""
    parts = dotted.removesuffix(".py").replace("/", ".").strip(".").split(".")
    while len(parts) > 1 and parts[-1] in _GENERIC:
        parts.pop()
    return ".".join(parts)


def _why_not(program: str) -> int:
    path = Path(program)
    if os.sep in program and path.is_dir():
        _say(f"{program} is a folder")
        return NOT_EXECUTABLE
    if path.is_file():
        hint = f": engram run -- python {program}" if path.suffix == ".py" else ""
        _say(f"{program} is no program that can be started{hint}")
        return NOT_EXECUTABLE if os.sep in program else NOT_FOUND
    _say(f"there is no command {program!r} (PATH was searched)")
    return NOT_FOUND


def _say(text: str) -> None:
    sys.stderr.write(f"engram: {text}\n")


__all__ = ["BOOTSTRAP", "environment_for", "run", "service_name"]
