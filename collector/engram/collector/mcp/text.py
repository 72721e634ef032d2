"""Text for agents: counted, cut at whole lines, and fenced where it was recalled."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from engram.exporters.errors import BadRequest
from engram.learning.recall.fence import clean, fenced

MOST_TOKENS: Final = 6_000
"""Of any result: clients refuse more than 25,000, and an agent pays for each."""

_CHARACTERS: Final = 3.3
"""Of a token, at least, in what we send; in UTF-8 bytes, for other scripts have fewer."""

_OVERHEAD: Final = 150
"""Tokens of fence, notice and the line that says what was cut."""


def tokens(text: str) -> int:
    """How many tokens a text is at most, about."""
    return int(len(text.encode("utf-8", "replace")) / _CHARACTERS) + 1


def fitting(lines: Iterable[str], most: int) -> tuple[list[str], int]:
    """The first lines that fit into so many tokens, and how many do not."""
    kept: list[str] = []
    left, out = float(most), 0
    for line in lines:
        left -= (len(line.encode("utf-8", "replace")) + 1) / _CHARACTERS
        if left < 0 or out:
            out += 1
        else:
            kept.append(line)
    return kept, out


def recalled(lines: Sequence[str], most: int = MOST_TOKENS) -> str:
    """Cleaned lines between marks that say they are data."""
    kept, out = fitting(lines, min(most, MOST_TOKENS) - _OVERHEAD)
    if out:
        kept.append(f"… {out} more lines left out; ask for less, or for one item with get")
    return fenced("\n".join(kept))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], cell: int = 300) -> list[str]:
    """Rows as lines of tab-separated values, each value cleaned and at most so long."""
    return [
        "\t".join(clean(one) for one in columns),
        *("\t".join(value(one, cell) for one in row) for row in rows),
    ]


def value(of: Any, most: int = 300) -> str:
    """A value on one line."""
    if of is None:
        return ""
    if isinstance(of, float):
        return f"{of:.6g}"
    # Cut first: cleaning a long text costs, and what is left out need not be cleaned.
    told = str(of)
    text = clean(told[: most * 2])
    return text if len(text) <= most and len(told) <= most * 2 else f"{text[:most]}…"


_PAIR: Final = re.compile(r"""([\w.\-]+)\s*(>=|<=|=)\s*("[^"]*"|'[^']*'|[^\s,]+)""")


def pairs(text: str) -> list[tuple[str, str, str]]:
    """`a=1, b>="x y"` as names, operators and values.

    Raises:
        BadRequest: there is more in it than such pairs.
    """
    left = _PAIR.sub("", text).replace(",", " ").strip()
    if left:
        raise BadRequest(f"{left[:60]!r} is no name=value; write such as: service=shop, since=2h")
    return [(name, sign, told.strip("\"'")) for name, sign, told in _PAIR.findall(text)]
