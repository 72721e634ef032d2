"""The script a web page loads to be remembered: `GET /engram.js` of the collector serves it."""

from __future__ import annotations

import re
from collections import Counter
from importlib.resources import files
from string import ascii_letters

__all__ = ["script"]

_LITERAL = re.compile(r"""('[^'\n]*'|/(?:\\.|\[(?:\\.|[^\]\n])*\]|[^/\n])+/[a-z]*)""")
"""Texts and regular expressions. The source divides nothing: each slash starts an expression."""

_BREAK = re.compile(r"(?<=[{(\[,:?&|])\n|\n(?=[})\]])")
"""Line ends that end no statement."""

_SPACE = re.compile(r" *([{}()\[\]=,:;?<>&|+*!-]) *")

_DECLARED = re.compile(r"\b(?:const|let) ([\w,=]+)|\b(\w+)(?==>)|\(([\w,=]+)\)(?=\{|=>)")
_GIVEN = re.compile(r"(?:^|,)([a-z]\w*)")
_NAME = re.compile(r"(?:(?<![\w.])|(?<=\.\.\.))[A-Za-z]\w*")


def script() -> bytes:
    """`engram.js` as it is served: without comments, needless spaces and lines, in short names.

    The source keeps to what makes this safe: comments on lines of their own, no text over
    several lines, no templates, no division, no shorthand (`{name}`). Most line ends stay, so that
    a stack says where.
    """
    source = files(__name__).joinpath("engram.js").read_text(encoding="utf-8")
    lines = (line.strip() for line in source.splitlines())
    kept = "\n".join(line for line in lines if line and not line.startswith("//"))
    parts = _LITERAL.split(kept)
    code = [_BREAK.sub("", _SPACE.sub(r"\1", part)) for part in parts[::2]]
    short = _short(code)
    parts[::2] = [_NAME.sub(lambda name: short.get(name[0], name[0]), part) for part in code]
    return ("".join(parts) + "\n").encode()


def _short(code: list[str]) -> dict[str, str]:
    """One letter for each of the names that the script gives, most used first.

    A name that is also a property somewhere (`a.name`, `name:`) stays.
    """
    text = "''".join(code)
    lists = (one for found in _DECLARED.findall(text) for one in found)
    given = {one for some in lists for one in _GIVEN.findall(some) if len(one) > 1}
    used = Counter(_NAME.findall(text))
    free = [letter for letter in ascii_letters if letter not in used]
    able = [one for one in given if not re.search(rf"(?<!\.\.)\.{one}\b|\b{one}:", text)]
    return dict(zip(sorted(able, key=lambda one: (-used[one], one)), free, strict=False))
