"""Run inside the interpreter of the app: what is installed there, and what became of it, as JSON.

Standard library only, and no import of Engram is taken for granted: that is what is asked.
It is started with the environment of `engram run`, so that what it says is what the app would get.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import sys
from typing import Any

MARK = "engram-probe:"


def _dists(group: str) -> list[dict[str, str]]:
    return [
        {"name": one.name, "dist": one.dist.name if one.dist else "?"}
        for one in importlib.metadata.entry_points(group=group)
    ]


def _conflicts() -> dict[str, dict[str, str]]:
    """Of every instrumentor: why it would not load; empty when it would."""
    try:
        from opentelemetry.instrumentation.dependencies import get_dist_dependency_conflicts
    except ImportError:
        return {}
    told = {}
    for one in importlib.metadata.entry_points(group="opentelemetry_instrumentor"):
        try:
            found = get_dist_dependency_conflicts(one.dist) if one.dist else None
            has = bool(found and (found.found or getattr(found, "found_any", None)))
            kind = "" if found is None else "version" if has else "missing"
            told[one.name] = {"kind": kind, "why": str(found or "")}
        except Exception as error:  # noqa: BLE001 - metadata of somebody else
            told[one.name] = {"kind": "broken", "why": f"{type(error).__name__}: {error}"}
    return told


def _fastapi() -> str:
    spec = importlib.util.find_spec("fastapi")
    if spec is None:
        return ""
    places = spec.submodule_search_locations or ()
    native = any(os.path.isdir(os.path.join(place, "telemetry")) for place in places)
    return "native" if native else "contrib"


def facts() -> dict[str, Any]:
    """All of it."""
    distro = sys.modules.get("engram.instrumentation.distro")
    capture = sys.modules.get("engram.instrumentation.capture")
    own = sys.modules.get("sitecustomize")
    versions = {}
    for name in ("engram", "opentelemetry-sdk", "uvicorn", "gunicorn", "fastapi"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": sys.version.split()[0],
        "executable": sys.executable,
        "isolated": bool(sys.flags.isolated or sys.flags.ignore_environment or sys.flags.no_site),
        "versions": versions,
        "distros": _dists("opentelemetry_distro"),
        "instrumentors": _dists("opentelemetry_instrumentor"),
        "conflicts": _conflicts(),
        "fastapi": _fastapi(),
        "sitecustomize": getattr(own, "__file__", None),
        "loaded": dict(getattr(distro, "instrumentors", {})),
        "captures": dict(getattr(capture, "installed", {})),
        "active": bool(distro is not None and getattr(distro, "is_active", bool)()),
    }


if __name__ == "__main__":
    print(MARK + json.dumps(facts()))  # noqa: T201 - this is its answer
