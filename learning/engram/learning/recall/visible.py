"""Text as it is seen: without terminal codes and characters that show nothing."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

BREAKS: Final = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_ANSI: Final = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)?"  # titles, links
    "|\x1b."
)
_CONTROL: Final = re.compile("[\x00-\x08\x0e-\x1b\x1f]")
"""Of ASCII, what neither shows nor breaks a line."""
_UNSEEN: Final = frozenset(("Cc", "Cf", "Co", "Cs", "Cn"))
_BLANK: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters and marks that show nothing."""


def visible(text: str) -> str:
    """A text without what nobody sees: terminal codes, zero-width, bidi and tag characters.

    Letters of full width, which look like others, become those.
    """
    text = _ANSI.sub("", text)
    if text.isascii():
        return _CONTROL.sub("", text)
    kept = []
    for char in text:
        code = ord(char)
        if 0xFF01 <= code <= 0xFF5E:
            kept.append(chr(code - 0xFEE0))
        elif char in _BLANK or 0xFE00 <= code <= 0xFE0F or 0xE0000 <= code <= 0xE0FFF:
            continue
        elif BREAKS.fullmatch(char) or char == "\t" or unicodedata.category(char) not in _UNSEEN:
            kept.append(char)
    return "".join(kept)


__all__ = ["BREAKS", "visible"]
