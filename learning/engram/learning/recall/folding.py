"""Near-duplicates become one item with a count; what contradicts stays side by side.

Telemetry repeats itself with other numbers: one type, service and user, and the masked text equal
or nearly so, is one thing that happened often. What somebody *said* (a person, a model, a decision,
an insight) is one only where the words are the same: "the limit is 5" and "the limit is 7" differ
in a number alone and contradict each other, and so do texts that differ in a "not".
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from engram.exporters.embedding.masking import mask
from engram.learning.recall.items import Item

TELEMETRY: Final = frozenset((
    "system_error", "ui_error", "system_event", "request_intent", "request_outcome", "api_call",
    "performance_metric", "langgraph_node", "langgraph_outcome", "workflow_state", "user_action",
    "page_view", "webhook_event", "integration_sync",
))  # fmt: skip
"""Types that a program reports; in them numbers and ids say which time it was, not what it was."""

_SHINGLE: Final = 3
_ALIKE: Final = 0.8
"""Of the word triples of both texts that both have (Jaccard), to be near-equal."""

_CHARS: Final = 1_500
_WORD: Final = re.compile(r"[^\W_]+|<[a-z]+>")
_SPOKEN: Final = re.compile(r"[^\W_]+|[<>=≤≥+%-]+")
"""Signs too: `x > 5` and `x < 5` are no repetition."""

_FILLERS: Final = frozenset(("a", "an", "the", "please"))


def equal(one: Item, other: Item) -> bool:
    """Whether two items are told as one."""
    if (one.memory_type, one.service, one.user_id, one.outcome) != (
        other.memory_type, other.service, other.user_id, other.outcome,
    ):  # fmt: skip
        return False
    if one.memory_type not in TELEMETRY or one.source == "mark":
        return said(one.title, one.content) == said(other.title, other.content)
    if one.fingerprint and other.fingerprint and one.fingerprint == other.fingerprint:
        return True
    return _near(one.title, other.title) and _near(one.content, other.content)


@lru_cache(maxsize=4_096)
def said(title: str, content: str) -> str:
    """What was said, without case, punctuation and fillers: equal texts say the same."""
    words = _SPOKEN.findall(f"{title}\n{content}".casefold())
    return " ".join(word for word in words if word not in _FILLERS)


def _near(one: str, other: str) -> bool:
    if one == other:
        return True
    mine, theirs = _shingles(one[:_CHARS]), _shingles(other[:_CHARS])
    if not mine or not theirs:
        return mine == theirs
    return len(mine & theirs) >= _ALIKE * len(mine | theirs)


@lru_cache(maxsize=2_048)
def _shingles(text: str) -> frozenset[tuple[str, ...]]:
    """The triples of neighbouring words of the masked text; of a short one, itself."""
    words = _WORD.findall(mask(text).casefold())
    if len(words) < _SHINGLE:
        return frozenset((tuple(words),)) if words else frozenset()
    return frozenset(tuple(words[at : at + _SHINGLE]) for at in range(len(words) - _SHINGLE + 1))


__all__ = ["TELEMETRY", "equal", "said"]
