"""`engram lab METHOD`: a method of learning as a filter, with the product's one configuration.

Anyone can score it on data of their own; it needs no lake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import BinaryIO, Final

from engram.exporters.errors import BadRequest


def run(method: str, source: BinaryIO, target: BinaryIO) -> None:
    """Filter the lines of `source` into `target`.

    Raises:
        BadRequest: there is no such method, or a line is not what it takes.
    """
    if method not in METHODS:
        raise BadRequest(f"no method {method!r}; there is: {', '.join(METHODS)}")
    lines = (line.rstrip(b"\r\n").decode("utf-8", "replace") for line in source)
    for line in METHODS[method](lines):
        target.write(line.encode("utf-8", "replace") + b"\n")
    target.flush()


def patterns(lines: Iterable[str]) -> Iterable[str]:
    """A message a line; `id<TAB>template` a line, in the same order."""
    from engram.learning.patterns import mine, pattern_id

    found = mine(list(lines))
    ids = [f"{pattern_id(one)}\t{one.replace(chr(9), ' ')}" for one in found.templates]
    return (ids[at] for at in found.of)


METHODS: Final[dict[str, Callable[[Iterable[str]], Iterable[str]]]] = {"patterns": patterns}


__all__ = ["METHODS", "patterns", "run"]
