"""The event time that a job looks at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """In ns: what is new is at or after `since` and before `until`."""

    since: int
    until: int


__all__ = ["Window"]
