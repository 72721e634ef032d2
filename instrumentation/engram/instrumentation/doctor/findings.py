"""One line of `engram doctor`: how bad it is, what it is, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TypeAlias


class Level(StrEnum):
    """How bad it is. Only a problem makes the exit code 1."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    about: str
    text: str
    do: str = ""

    def facts(self) -> dict[str, str]:
        """As JSON has it."""
        return asdict(self)


Stored: TypeAlias = Callable[[str], bool | None]
"""Whether a log record with this marker can be queried; None where no lake can be asked."""


def ok(about: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(Level.OK, about, text)


def warning(about: str, text: str, do: str) -> Finding:
    """It works, and less than one might think is captured."""
    return Finding(Level.WARNING, about, text, do)


def problem(about: str, text: str, do: str) -> Finding:
    """Something that is meant to be captured is not."""
    return Finding(Level.PROBLEM, about, text, do)
