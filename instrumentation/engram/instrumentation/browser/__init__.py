"""The script a web page loads to be remembered: `GET /engram.js` of the collector serves it."""

from __future__ import annotations

import re
from importlib.resources import files

__all__ = ["script"]

_LITERAL = re.compile(r"""('[^'\n]*'|`[^`\n]*`|/(?:\\.|\[(?:\\.|[^\]\n])*\]|[^/\n])+/[a-z]*)""")
"""Texts and regular expressions. The source divides nothing: each slash starts an expression."""

_BREAK = re.compile(r"(?<=[{(\[,:?&|])\n|\n(?=[})\]])")
"""Line ends that end no statement."""

_SPACE = re.compile(r" *([{}()\[\]=,:;?<>&|+*]) *")


def script() -> bytes:
    """`engram.js` as it is served: without comments, indentation and needless spaces and lines.

    The source keeps to what makes this safe: comments on lines of their own, no text over
    several lines, no division. Names and most line ends stay, so that a stack can be read.
    """
    source = files(__name__).joinpath("engram.js").read_text(encoding="utf-8")
    lines = (line.strip() for line in source.splitlines())
    kept = "\n".join(line for line in lines if line and not line.startswith("//"))
    parts = _LITERAL.split(kept)
    parts[::2] = [_BREAK.sub("", _SPACE.sub(r"\1", part)) for part in parts[::2]]
    return ("".join(parts) + "\n").encode()
