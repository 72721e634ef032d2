"""What can be wrong with a text, and what can go wrong with a record."""

from __future__ import annotations

from engram.exporters.errors import EngramError


class OttlError(EngramError):
    """The text is not in the subset. Columns count from 1."""

    def __init__(self, column: int, problem: str) -> None:
        self.column = column
        super().__init__(f"column {column}: {problem}")


class RunError(EngramError):
    """A statement cannot be applied to one record; `error_mode` says what becomes of it."""
