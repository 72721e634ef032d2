"""Which memories talk to their reader instead of telling something, and which solutions to believe.

No list of phrases finds every attack, so nothing is let through because of this one: all recalled
text is fenced. But what matches is never offered as a solution or as what was decided.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

from engram.learning.recall.injections import MARKUP, TALK, found
from engram.learning.recall.items import Item
from engram.learning.recall.ranking import tried_and_worked
from engram.learning.recall.revisions import UNTRUSTED
from engram.learning.recall.visible import BREAKS, visible

SOLUTIONS: Final = ("error_solution", "error_resolution", "optimization")
DECISIONS: Final = ("business_decision",)

_INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f\x80-\x84\x86-\x9f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064"
    "\u2066-\u206f\ufeff\U000e0000-\U000e0fff\u034f\u115f\u1160\u3164\uffa0]"
)
_SPACED: Final = re.compile(r"\b(?:\w[\s._*-]{1,2}){5,}\w\b")
_MIXED: Final = re.compile(r"[a-z][013457@$][a-z]|\b[013457@$][a-z]{2}")
_LEET: Final = tuple(str.maketrans(f"0{one}34578@$", f"o{of}eastbas") for one, of in ("1i", "1l"))


def suspicious(one: Item) -> bool:
    """Whether a memory's text talks to its reader, poses as somebody else, or hides something."""
    return _suspicious(f"{one.title}\n{one.content}")


@lru_cache(maxsize=4_096)
def _suspicious(text: str) -> bool:
    if _INVISIBLE.search(text):
        return True
    plain = unicodedata.normalize("NFKC", BREAKS.sub("\n", visible(text))).lower()
    if found(MARKUP, plain):
        return True
    flat = " ".join(plain.split())
    ways = {flat}
    if _SPACED.search(flat):
        ways.add(_SPACED.sub(lambda found: re.sub(r"[\s._*-]", "", found[0]), flat))
    if _MIXED.search(flat):
        ways |= {flat.translate(leet) for leet in _LEET}
    return any(found(TALK, some) for some in ways)


def believed(one: Item) -> bool:
    """Whether it may be told as a known solution or optimization.

    Somebody must have said that it is one: text of logs, spans and pages is none, whatever it
    claims. What an agent says must have worked once. And it must not have failed whenever tried.
    """
    if one.memory_type not in SOLUTIONS or one.source != "mark" or one.hidden:
        return False
    if (one.trust or "unknown") in UNTRUSTED or one.superseded_by is not None or suspicious(one):
        return False
    tried, worked = tried_and_worked(one)
    if tried and not worked:
        return False
    return bool(worked) or (one.trust != "agent" and one.memory_type != "error_resolution")


__all__ = ["DECISIONS", "SOLUTIONS", "believed", "suspicious"]
