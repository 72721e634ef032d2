"""What every processor here is, a function on one OTLP request, and how a failure is said."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from engram.collector.ottl import Row, rows
from engram.collector.ottl.rows import points, records, resources, scopes
from engram.exporters import own
from engram.exporters.errors import EngramError
from engram.exporters.signals import Signal

_LOG = logging.getLogger("engram.processors")

_QUIET_S: Final = 10.0
"""A processor that fails on every record says so this often, not every time."""

__all__ = ["Errors", "Stage", "points", "prune", "records", "resources", "rows", "scopes"]


class Stage(Protocol):
    """A processor of one pipeline. MUST be a pure function of the request."""

    def __call__(self, signal: Signal, request: Any) -> int:
        """Change the request in place; the number of spans, events, logs or points dropped."""
        ...


class Errors:
    """What `error_mode` says about a condition or statement that fails on a record."""

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self._said = -_QUIET_S
        self._unsaid = 0

    def holds(self, condition: Callable[[Row], bool], row: Row) -> bool:
        """Whether the condition holds; one that fails and is ignored does not."""
        try:
            return condition(row)
        except EngramError as error:
            self._failed(error)
            return False

    def apply(self, edit: Callable[[Row], None], row: Row) -> None:
        """Apply a statement; one that fails and is ignored changes nothing more."""
        try:
            edit(row)
        except EngramError as error:
            self._failed(error)

    def _failed(self, error: EngramError) -> None:
        if self._mode == "propagate":
            raise error
        self._unsaid += 1
        now = time.monotonic()
        if self._mode == "ignore" and now - self._said >= _QUIET_S:
            _LOG.warning("a statement failed on %d records, the last: %s", self._unsaid, error)
            self._said, self._unsaid = now, 0


def prune(signal: Signal, request: Any, drop: Callable[[Row], int | None]) -> int:
    """Drop records, then scopes and resources that are empty by it; the number dropped.

    `drop` is asked for every span, log record and metric, and answers how many are gone with it,
    or None to keep it. What Engram says of itself is not asked for: it belongs to memories that
    were kept.
    """
    dropped = 0
    outer = resources(signal, request)
    for i in range(len(outer) - 1, -1, -1):
        row, inner = Row(outer[i]), scopes(signal, outer[i])
        for j in range(len(inner) - 1, -1, -1):
            if inner[j].scope.name in (own.SCOPE, own.ITSELF):
                continue
            row.scope, found = inner[j], records(signal, inner[j])
            gone = 0
            for k in range(len(found) - 1, -1, -1):
                row.span = row.log = row.metric = found[k]
                count = drop(row)
                if count is not None:
                    del found[k]
                    dropped += count
                    gone += 1
            if gone and not found:
                del inner[j]
        if not inner:
            del outer[i]
    return dropped
