"""Of two statements that say nearly the same, the newer one is told first.

"Anna wants it in red" and, a year later, "Anna wants it in blue" answer a question equally well,
and which of them a vector likes better is chance. Both are told; who asks reads first what was said
last. Only where both are about equally relevant: nothing that answers exactly moves down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from engram.learning.recall.folding import TELEMETRY, said
from engram.learning.recall.items import Item
from engram.learning.recall.rows import changed

_EQUALLY: Final = 0.93
"""Of the relevance of one, at least, that the other one has."""

_SAME_WORDS: Final = 0.7
"""Of the words of both, those that both have."""

_FIRST: Final = 50
"""Of an answer, that are looked at."""


def newest_first(items: Sequence[Item], relevance: Mapping[str, tuple[float, float]]) -> list[Item]:
    """Items, best first, of which a newer statement takes the place before an older one."""
    told = list(items)
    for place in range(1, min(len(told), _FIRST)):
        one = told[place]
        if one.memory_type in TELEMETRY or not one.time_unix_nano or one.superseded_by:
            continue
        for before in range(place):
            if _older(told[before], one, relevance):
                moved = changed(one, score=max(one.score or 0.0, told[before].score or 0.0))
                told.insert(before, moved)
                del told[place + 1]
                break
    return told


def _older(other: Item, one: Item, relevance: Mapping[str, tuple[float, float]]) -> bool:
    """Whether the other one is an older statement of nearly the same."""
    if (other.memory_type, other.user_id, other.service) != (
        one.memory_type, one.user_id, one.service,
    ):  # fmt: skip
        return False
    if not other.time_unix_nano or other.time_unix_nano >= (one.time_unix_nano or 0):
        return False
    if sum(relevance[one.id]) < _EQUALLY * sum(relevance[other.id]):
        return False
    mine, theirs = _words(one.title, one.content), _words(other.title, other.content)
    return len(mine & theirs) >= _SAME_WORDS * len(mine | theirs)


@lru_cache(maxsize=2_048)
def _words(title: str, content: str) -> frozenset[str]:
    return frozenset(said(title, content).split())


__all__ = ["newest_first"]
