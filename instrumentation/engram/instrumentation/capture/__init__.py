"""What is captured with zero code, beyond what the official instrumentations see.

A capture is a module of this package with one function, `install() -> str`: it MUST be safe to call
twice, MUST NOT import the library that it is for (`wrapt.when_imported` waits for the app to do
so), and says in a few words what it did. Whatever a capture does inside the app MUST NOT raise.
"""

from __future__ import annotations

import importlib
import logging
from typing import Final

CAPTURES: Final = (
    "fastapi",
    "wsgi",
    "frameworks",
    "logs",
    "concurrency",
    "schedulers",
    "servers",
    "genai",
    "langgraph",
)
"""Modules of this package, in the order of their installation."""

_log = logging.getLogger("engram.instrumentation")

installed: dict[str, str] = {}
"""What each capture said of itself, or why it could not be installed; `engram doctor` shows it."""


def install_all() -> None:
    """Install every capture; one that fails leaves the others alone."""
    for name in CAPTURES:
        try:
            module = importlib.import_module(f"{__name__}.{name}")
            installed[name] = module.install()
        except ModuleNotFoundError as error:
            installed[name] = f"off: no module {error.name}"
        except Exception as error:  # noqa: BLE001 - the app must start, whatever is wrong with us
            installed[name] = f"failed: {type(error).__name__}: {error}"
            _log.warning("engram: capture %s is off: %s", name, error, exc_info=True)


__all__ = ["CAPTURES", "install_all", "installed"]
