"""Which interpreter the app runs in, and what a probe in it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from .findings import Finding, ok, problem, warning
from .probe import MARK

_PYTHON: Final = re.compile(r"(?:python|pypy)[\d.]*(?:\.exe)?$")
_BOOTSTRAP: Final = Path(__file__).parent.parent / "bootstrap"
_INSTALL: Final = "pip install engram in the environment of the app"


def interpreter(command: Sequence[str]) -> tuple[str, list[str]]:
    """The interpreter of a command with its own flags; of a script, that of its first line.

    Raises:
        ValueError: it is no Python program that can be found.
    """
    words = list(command)
    if words and Path(words[0]).name == "engram" and words[1:2] == ["run"]:
        words = words[words.index("--") + 1 :] if "--" in words else words[2:]
    elif words and Path(words[0]).name == "opentelemetry-instrument":
        words = words[1:]
    if not words:
        raise ValueError("say the command after --, such as: engram doctor -- python app.py")
    found = shutil.which(words[0])
    if found is None:
        raise ValueError(f"there is no program {words[0]}")
    if _PYTHON.search(Path(words[0]).name):
        flags = []
        for word in words[1:]:
            if not re.fullmatch(r"-[IESsPuOB]+", word):
                break
            flags.append(word)
        return found, flags
    with open(found, "rb") as file:
        head = file.read(512).split(b"\n")
    first = head[0].decode("utf-8", "replace")
    if first.startswith("#!"):
        asked = first[2:].split()
        if Path(asked[0]).name == "env" and len(asked) > 1:
            return shutil.which(asked[-1]) or asked[-1], []
        if _PYTHON.search(Path(asked[0]).name):
            return asked[0], [one for one in asked[1:] if re.fullmatch(r"-[IESsP]+", one)]
        for line in head[1:3]:  # an entry point whose path is too long for the first line
            longer = re.match(r"'''exec' \"?([^\" ]+)", line.decode("utf-8", "replace"))
            if longer:
                return longer[1], []
    raise ValueError(f"{found} is no Python program; use --python PATH")


def probe(python: str, flags: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """Ask the interpreter, as `engram run` would start it. It sends nothing.

    Raises:
        ValueError: it did not answer.
    """
    asked = dict(environment)
    paths = [str(_BOOTSTRAP), *filter(None, asked.get("PYTHONPATH", "").split(os.pathsep))]
    asked["PYTHONPATH"] = os.pathsep.join(paths)
    asked.setdefault("OTEL_PYTHON_DISTRO", "engram")
    asked.setdefault("OTEL_PYTHON_CONFIGURATOR", "engram")
    for signal in ("TRACES", "LOGS", "METRICS"):
        asked[f"OTEL_{signal}_EXPORTER"] = "none"
    asked.pop("OTEL_CONFIG_FILE", None)
    # Not as a file: its folder would be on the path, where the app's modules are looked for.
    script = (Path(__file__).parent / "probe.py").read_text()
    try:
        done = subprocess.run(  # noqa: S603 - the program that was named
            [python, *flags, "-c", script], env=asked, capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"{python} could not be asked: {error}") from error
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            found: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return found
    said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    raise ValueError(f"{python} could not be asked: {said}")


def check(
    python: str | None, command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[Finding]:
    """What the app's interpreter has, and what is captured in it."""
    try:
        program, flags = interpreter(command) if command else (python or sys.executable, [])
        facts = probe(program, flags, environment)
    except (ValueError, OSError) as error:
        yield problem("python", str(error), "--python PATH of the app's interpreter")
        return
    said = f"{facts['executable']} ({facts['python']})"
    if facts["isolated"]:
        yield problem(
            "python",
            f"{said} is started with {' '.join(flags) or '-I, -E or -S'}: PYTHONPATH is not read",
            "start it without, or call opentelemetry's auto_instrumentation.initialize() yourself",
        )
    elif "engram" not in facts["versions"]:
        yield problem("python", f"{said} has no engram: nothing is captured", _INSTALL)
    elif not facts["active"]:
        yield problem("python", f"{said}: the distribution did not start", _why_not(facts))
    else:
        yield ok("python", f"{said}, engram {facts['versions']['engram']}")
    yield from _distros(facts, environment)
    yield from _instrumentors(facts)
    yield from _captures(facts)


def _why_not(facts: Mapping[str, Any]) -> str:
    at = facts["sitecustomize"] or ""
    if at and Path(at).parent != _BOOTSTRAP and "auto_instrumentation" not in at:
        return f"{at} comes before ours on sys.path: let it go, or make it call ours"
    if not any(one["name"] == "engram" for one in facts["distros"]):
        return f"its entry points are missing: {_INSTALL}, again"
    return "unset OTEL_PYTHON_DISTRO and OTEL_PYTHON_CONFIGURATOR"


def _distros(facts: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[Finding]:
    names = sorted({one["dist"] for one in facts["distros"]})
    said = environment.get("OTEL_PYTHON_DISTRO", "").strip()
    if said and said != "engram":
        yield warning("distro", f"OTEL_PYTHON_DISTRO={said}: Engram's is not used", "unset it")
    elif len(names) > 1 and said != "engram":
        yield warning(
            "distro",
            f"{', '.join(names)} are installed: opentelemetry-instrument takes the first",
            "start it by engram run, or set OTEL_PYTHON_DISTRO and _CONFIGURATOR to engram",
        )
    twice: dict[str, set[str]] = {}
    for one in facts["instrumentors"]:
        twice.setdefault(one["name"], set()).add(one["dist"])
    for name, dists in sorted(twice.items()):
        if len(dists) > 1:
            yield problem(
                "instrumented",
                f"{name}: {' and '.join(sorted(dists))} both instrument it, so calls count twice",
                "uninstall one of them",
            )


def _instrumentors(facts: Mapping[str, Any]) -> Iterator[Finding]:
    for name in sorted({one["name"] for one in facts["instrumentors"]} | set(facts["loaded"])):
        state = facts["loaded"].get(name, "")
        conflict = facts["conflicts"].get(name, {"kind": "", "why": ""})
        if name == "fastapi" and facts["fastapi"] == "native" and not state.startswith("on"):
            if facts["active"]:
                yield ok(name, "FastAPI's own telemetry; the contrib instrumentation stays off")
        elif state.startswith(("on", "left to the capture")):
            if conflict["kind"] == "version":
                said = conflict["why"] if state.startswith("left") else state
                yield warning(
                    name, said, "its calls are seen, but by an instrumentation not made for it"
                )
            else:
                yield ok(name, "instrumented")
        elif conflict["kind"] == "version":
            yield problem(name, conflict["why"], "a release in that range, or engram run")
        elif conflict["kind"] == "missing":
            yield ok(name, "its library is not installed")
        elif state.startswith("failed") or conflict["kind"] == "broken":
            yield problem(name, state or conflict["why"], "is its release one that fits the SDK?")
        elif state:
            yield warning(name, state, "unset it in OTEL_PYTHON_DISABLED_INSTRUMENTATIONS")
        elif not facts["active"]:
            yield warning(name, "not instrumented", "see python above")
    if facts["fastapi"] == "contrib" and not any(
        one["name"] == "fastapi" for one in facts["instrumentors"]
    ):
        yield problem(
            "fastapi", "this FastAPI has no telemetry of its own", "pip install -U fastapi"
        )


def _captures(facts: Mapping[str, Any]) -> Iterator[Finding]:
    for name, state in facts["captures"].items():
        about = f"capture {name}"
        if state.startswith("failed"):
            yield problem(about, state, "report it: this is a fault of Engram")
        elif state.startswith("off"):
            yield warning(about, state, "see its reason")
        else:
            yield ok(about, state)
    listening = facts["captures"].get("logs", "").startswith("on")
    if "uvicorn" in facts["versions"] and facts["active"] and not listening:
        yield warning("uvicorn", "nobody listens to its loggers: their errors are lost", _INSTALL)
