"""What runs in a home and what it holds: from the running collector and from the lake itself."""

from __future__ import annotations

import contextlib
from typing import Any

from engram.collector import control, query
from engram.exporters.errors import NotFound
from engram.exporters.home import Home


def status(home: Home) -> dict[str, Any]:
    """Facts about a home.

    Raises:
        NotFound: there is neither a collector nor a lake.
    """
    facts: dict[str, Any] = {"home": str(home.root), "running": False}
    with contextlib.suppress(control.NotRunning):
        facts["collector"] = control.ask(home, "status", timeout_s=10.0)
        facts["running"] = True
    try:
        with query.reader(home) as connection:
            facts |= query.counts(connection)
    except NotFound:
        if not facts["running"]:
            raise
    return facts
