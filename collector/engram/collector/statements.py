"""SQL statements out of a pipe or from a prompt: where each one ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO


def complete(text: str) -> bool:
    """Whether the text ends with a semicolon that is neither in a string nor in a comment."""
    ends = _ends(text)
    return bool(ends) and ends[-1] == _last(text)


def _last(text: str) -> int:
    """Where the last token begins, in bytes."""
    import duckdb

    tokens = duckdb.tokenize(text)  # strings and comments that do not end are none
    return tokens[-1][0] if tokens else -1


def _ends(text: str) -> list[int]:
    """Where the semicolons between statements are, in bytes of UTF-8 as DuckDB counts."""
    import duckdb

    if ";" not in text:
        return []
    raw = text.encode()
    return [
        at
        for at, kind in duckdb.tokenize(text)
        if kind == duckdb.token_type.operator and raw[at] == ord(";")
    ]


def split(lines: TextIO) -> Iterator[str]:
    """The statements of a text, each as soon as it is there; the last needs no semicolon."""
    waiting = ""
    for line in lines:
        waiting += line
        if complete(waiting):
            yield from _several(waiting)
            waiting = ""
    yield from _several(waiting)


def _several(text: str) -> Iterator[str]:
    """The statements that stand behind one another, comments alone left out."""
    raw = text.encode()
    ends = _ends(text)
    for start, end in zip([0, *(at + 1 for at in ends)], [*ends, len(raw)], strict=True):
        one = raw[start:end].decode()
        if not _nothing(one):
            yield one


def _nothing(text: str) -> bool:
    import duckdb

    try:
        return not duckdb.extract_statements(text)
    except duckdb.Error:
        return False  # something that is wrong
