"""The shape of a statement: its words without any value, so that nobody's data is in it.

Whatever is quoted, counted or commented is left out, also quoted names: an alias may be a person.
What cannot be told apart for sure (a quote that is not closed) is left out to the end.
"""

from __future__ import annotations

import re
from typing import Final

_MOST: Final = 300
_READ: Final = 20_000

_VALUES: Final = re.compile(
    r"""
      --[^\n]* | /\*.*?(?:\*/|\Z)                   # comments
    | \b[eE]'(?:\\.|''|[^'\\])*(?:'|\Z)             # strings with escapes
    | '(?:''|[^'])*(?:'|\Z)                         # strings, also those that are not closed
    | "(?:""|[^"])*(?:"|\Z)                         # quoted names
    | (?P<tag>\$\w*\$).*?(?:(?P=tag)|\Z)            # dollar-quoted strings
    | \$\w+                                         # parameters
    | (?<!\w)[0-9][\w.]*                            # numbers, with exponents and underscores
    """,
    re.VERBOSE | re.DOTALL,
)
_MANY: Final = re.compile(r"\?(?:\s*,\s*\?)+")
_ODD: Final = re.compile(r"[^\x20-\x7e]+")


def shape(sql: str) -> str:
    """The words of a statement, with `?` for every value; lists of values are one."""
    told = _VALUES.sub(lambda found: " " if found[0][:2] in ("--", "/*") else "?", sql[:_READ])
    told = _ODD.sub("?", " ".join(told.split()))
    return _MANY.sub("?", told)[:_MOST]


__all__ = ["shape"]
