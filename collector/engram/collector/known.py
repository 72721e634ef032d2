"""`engram known`: whether an error was seen before, how often, and what helped, for people.

Every text was written by somebody's program, so it goes through `printable`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

from engram.collector.output import printable
from engram.exporters.home import Home

if TYPE_CHECKING:
    from engram.learning.recall import KnownError, KnownPattern


def find(home: Home, text: str | None, **asked: Any) -> KnownError:
    """Look an error up; `-` reads its text from standard input.

    Raises:
        BadRequest: nothing was given.
        NotFound: this home has no lake.
    """
    from engram.learning.recall import Recall

    if text == "-":
        text = sys.stdin.read()
    recall = Recall(home)
    try:
        return recall.known_error(text, **asked)
    finally:
        recall.close()


def told(found: KnownError) -> dict[str, Any]:
    """As JSON has it."""
    return asdict(found)


def lines(found: KnownError) -> Iterable[str]:
    """For people to read."""
    if found.match == "none":
        yield "not seen: nothing like it is remembered"
        return
    if found.match == "similar":
        yield "not seen; these are alike, perhaps of the same cause:"
    for pattern in found.patterns:
        yield from _pattern(pattern)
    for number, pattern in enumerate(found.similar):
        if found.patterns and not number:
            yield "similar errors:"
        yield from _pattern(pattern, "  ")


def _pattern(one: KnownPattern, indent: str = "") -> Iterable[str]:
    times = "once" if one.count == 1 else f"{one.count:,} times"
    service = f" in {_line(one.service)}" if one.service else ""
    yield f"{indent}{_line(one.title)}"
    seen = _when(one.last_seen)
    if one.count > 1:
        seen = f"{_when(one.first_seen)} to {seen}"
    users = "" if not one.users else f", {one.users:,} user{'s' * (one.users > 1)}"
    yield f"{indent}  happened {times}{service}, {seen}{users}"
    if one.state:
        yield f"{indent}  state: {_line(one.state)} since {_when(one.state_since)}"
    yield f"{indent}  why: {_line(one.because)}; newest: {one.memory_id}"
    for solution in one.solutions:
        if solution.kind == "recorded":
            yield f"{indent}  written down: {_line(solution.fix)}  ({solution.id})"
            continue
        sure = "" if solution.low is None else f", at least {solution.low:.0%} of the time"
        yield (
            f"{indent}  {_line(solution.kind)} {_line(solution.fix)}: worked {solution.worked} of "
            f"{solution.tried} times{sure} [{solution.tier}]  ({solution.id})"
        )
    if not one.solutions:
        yield f"{indent}  no solution is known"


def _line(text: str, most: int = 200) -> str:
    return printable(" ".join(text.split()))[:most]


def _when(at: datetime | None) -> str:
    return "?" if at is None else at.strftime("%Y-%m-%d %H:%M")


def write(found: KnownError, out: TextIO) -> None:
    """Lines to a stream."""
    for line in lines(found):
        out.write(line + "\n")


__all__ = ["find", "lines", "told", "write"]
