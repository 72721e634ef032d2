"""What in a message is surely a value: addresses, paths, times, numbers, ids.

The expressions are those of Rust's `regex`: linear time, no look-around. They run over columns.
"""

from __future__ import annotations

from typing import Final

import polars as pl

WILDCARD: Final = "<*>"

_MARK: Final = "\x00"
"""Stands for a value while masks run: no log has it, and it is no word character."""

_UNITS: Final = (
    "[KMGTP]i?B|[Bb]ytes?|B|[mnuµ]?s|sec|secs|seconds?|min|mins|minutes?|hours?|days?|[KMG]?Hz"
)

_MASKS: Final = (
    # A message that holds the mark already: what it says there cannot be told from a value.
    (r"\x00", " "),
    (r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>\])]+", _MARK),
    (r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b", _MARK),
    (r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b", _MARK),
    (r"\b\d{1,3}(?:\.\d{1,3}){3}(?:[:/]\d+)*\b", _MARK),
    (r"(?:\b[0-9a-fA-F]{1,2}:){3,}[0-9a-fA-F]{1,2}\b", _MARK),
    (r"\b0[xX][0-9a-fA-F]+\b", _MARK),
    # Paths of two parts and more; one part may be a route or a word such as `/api`.
    (r"(^|[\s\"'=(\[,:])(?:/[\w.@%+~$-]+){2,}/?", "${1}" + _MARK),
    (r"\b[A-Za-z]:\\[^\s\"',;\])]+", _MARK),
    (r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\b", _MARK),
    (r"\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b", _MARK),
    # Hexadecimal with letters and digits in it.
    (r"\b(?:[0-9]+[a-fA-F]|[a-fA-F]+[0-9])[0-9a-fA-F]{4,}\b", _MARK),
    (rf"[-+]?\b\d+(?:\.\d+)? ?(?:{_UNITS})\b", _MARK),
    (r"[-+]?\d+(?:[.,:]\d+)*%?", _MARK),
    # Nothing between brackets is a value too, one that is not there.
    (r"\(\s*\)", f"({_MARK})"),
    (r"\[\s*\]", f"[{_MARK}]"),
    (r"\{\s*\}", f"{{{_MARK}}}"),
)


def masked(messages: pl.Series) -> pl.Series:
    """The messages with values masked by a mark, as `clusters` reads them."""
    found = pl.Series("masked", messages, dtype=pl.String)
    for pattern, instead in _MASKS:
        found = found.str.replace_all(pattern, instead)
    return found


__all__ = ["WILDCARD", "masked"]
