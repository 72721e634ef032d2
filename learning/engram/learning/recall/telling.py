"""What is known of an error as a text, fenced, for whoever may take it for orders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from engram.learning.recall import fence

if TYPE_CHECKING:
    from engram.learning.recall.known import KnownError, KnownPattern

_MATCH: Final = {
    "exact": "This error was seen before.", "file": "Errors of this file were seen before.",
    "similar": "This error was not seen; only others like it were.",
    "none": "No error like this is remembered.",
}  # fmt: skip

_SOLUTIONS: Final = 3
_SIMILAR: Final = 2
_CHARACTERS: Final = 400
"""Of a solution."""


def told(known: KnownError) -> str:
    """The answer, between the marks of a fence."""
    body = [_MATCH[known.match]]
    for pattern in known.patterns:
        body += _pattern(pattern)
    if known.similar:
        body.append("Similar errors; what helped there may not help here:")
        for pattern in known.similar[:_SIMILAR]:
            body += _pattern(pattern)
    return fence.fenced("\n".join(body))


def _pattern(one: KnownPattern) -> Iterator[str]:
    state = "" if one.state is None else f"; state: {fence.clean(one.state)}"
    yield (
        f"- {fence.clean(one.title)}: seen {one.count:,} times from {one.first_seen:%Y-%m-%d} to "
        f"{one.last_seen:%Y-%m-%d %H:%M} UTC in {fence.clean(one.service or '?')}{state}"
    )
    if not one.solutions:
        yield "  no solution is remembered"
    for solution in one.solutions[:_SOLUTIONS]:
        how = f"worked {solution.worked} of {solution.tried} times" if solution.tried else "untried"
        text = fence.clean(solution.content)
        yield f"  solution ({solution.tier}, {how}): {fence.clean(solution.title)}"
        if text and text != fence.clean(solution.title):
            yield f"    {fence.shortened(text, _CHARACTERS, solution.id)}"
        yield f"    id={fence.clean(solution.id)}"


__all__ = ["told"]
