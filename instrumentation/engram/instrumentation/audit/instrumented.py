"""Which libraries tell of themselves under `engram run`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Final

BASE: Final = frozenset(
    {
        "aiohttp-client",
        "asyncio",
        "celery",
        "fastapi",
        "google-genai",
        "anthropic",
        "openai",
        "httpx",
        "requests",
        "sqlalchemy",
        "threading",
        "urllib3",
    }
)
"""Names of the instrumentations that `pip install engram` brings."""


def installed_here() -> frozenset[str]:
    """Those of the base installation, and what this environment has besides (Flask, ...)."""
    return BASE | frozenset(one.name for one in entry_points(group="opentelemetry_instrumentor"))
