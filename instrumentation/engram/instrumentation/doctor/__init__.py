"""Whether what should be captured is captured, and arrives: `engram doctor`.

It asks the app's own interpreter, the environment variables, the ports and the collector. Standard
library only here; whether a record can be queried is asked by whoever has a lake.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from . import collector, environment, interpreter
from .collector import MARKER
from .findings import Finding, Level, Stored


def examine(
    command: Sequence[str] = (),
    *,
    python: str | None = None,
    variables: Mapping[str, str] | None = None,
    stored: Stored | None = None,
) -> Iterator[Finding]:
    """Every finding, as it is found."""
    found = os.environ if variables is None else variables
    yield from interpreter.check(python, command, found)
    yield from environment.check(found, named=bool(command))
    yield from collector.check(found, stored)


__all__ = ["MARKER", "Finding", "Level", "Stored", "examine"]
