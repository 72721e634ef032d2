"""The judge of one answer: weighs candidates, folds near-duplicates, leaves out what is hidden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from engram.learning.recall.folding import TELEMETRY, equal, said
from engram.learning.recall.items import Item
from engram.learning.recall.ranking import (
    IMPORTANCE,
    MOST,
    OUTCOME,
    RECENCY,
    UNKNOWN,
    Parts,
    recency,
)
from engram.learning.recall.revisions import TYPE as REVISION
from engram.learning.recall.revisions import Revision, applied
from engram.learning.recall.rows import changed, item_of, moment

if TYPE_CHECKING:
    from engram.exporters.index_read import Candidate, IndexReader, Match
    from engram.learning.lake_rows import LakeRows, MemoryRow
    from engram.learning.search import Ranked

_COMPARED: Final = 50
"""Of what somebody said so often, the newest that are compared word by word."""


class Judging:
    """Implements `engram.learning.search.Judge`. For one answer, in one thread."""

    def __init__(
        self,
        *,
        now_ns: int,
        fold: bool,
        revisions: Mapping[str, Sequence[Revision]],
        types: Sequence[str],
        lake: LakeRows,
    ) -> None:
        self._now = now_ns
        self._fold = fold
        self._revisions = revisions
        self._tells_revisions = REVISION in types
        self._lake = lake
        self.items: dict[str, Item] = {}
        """What is shown, in the order of the answer; with the parts of their scores."""
        self.relevance: dict[str, tuple[float, float]] = {}
        """What words and vector added, without the factor."""
        self._factors: dict[int, float] = {}

    def order(self, ranked: Ranked, index: IndexReader) -> Ranked:
        """By relevance x what is known of age and importance; of alike rows the newest."""
        weighed: list[tuple[float, float, Candidate]] = []
        best: dict[int, tuple[int, int]] = {}
        known = index.facts([candidate.place for *_, candidate in ranked])
        for (by_text, by_vector, candidate), facts in zip(ranked, known, strict=True):
            at = facts.time_unix_nano or 0
            if self._fold and not facts.template:
                before = best.get(facts.likeness)
                if before is not None:
                    if at > before[1]:
                        # Alike rows differ in their times alone.
                        text, vector, old = weighed[before[0]]
                        weighed[before[0]] = (
                            text, vector, candidate._replace(
                                text_score=old.text_score, vector_score=old.vector_score
                            ),
                        )  # fmt: skip
                        self._factors[candidate.place] = self._factors[old.place]
                        best[facts.likeness] = (before[0], at)
                    continue
                best[facts.likeness] = (len(weighed), at)
            parts = Parts(UNKNOWN, UNKNOWN, UNKNOWN)  # of a template the memories differ
            if facts.importance is not None:
                age = recency(facts.type, facts.time_unix_nano, self._now)
                parts = Parts(age, facts.importance, UNKNOWN)
            factor = self._factors[candidate.place] = parts.factor
            weighed.append((by_text * factor, by_vector * factor, candidate))
        weighed.sort(key=lambda one: -(one[0] + one[1]))
        return weighed

    def takes(
        self, row: MemoryRow, match: Match, parts: tuple[float, float], index: IndexReader
    ) -> bool:
        """Whether it is an item of its own that may be shown."""
        if row.type == REVISION and not self._tells_revisions:
            return False
        one = self._told(row)
        if one is None:
            return False
        factor = self._factors.get(match.place, 1 / MOST)
        relevance = (parts[0] / factor, parts[1] / factor)
        beside: list[Item] = []
        if self._fold and match.template is None:
            one, beside = self._alike(one, match, index)
        taken = False
        for some in (one, *beside):
            if not self._fold or not self._folded(some):
                self._show(some, relevance)
                taken = taken or some is one
        return taken

    def _show(self, one: Item, relevance: tuple[float, float]) -> None:
        self.items[one.id] = one
        self.relevance[one.id] = relevance

    def _told(self, row: MemoryRow) -> Item | None:
        """The memory as it is now; None when it is hidden or not valid at that time."""
        one = applied(item_of(row), self._revisions.get(row.id, ()))
        return None if one.hidden or not valid(one, self._now) else one

    def _folded(self, one: Item) -> bool:
        """Whether it is told as one that is shown already, which then counts it."""
        for other in self.items.values():
            if other.id == one.id:
                return True
            if equal(other, one):
                self.items[other.id] = together(other, one)
                return True
        return False

    def _alike(self, one: Item, match: Match, index: IndexReader) -> tuple[Item, list[Item]]:
        """The item with all that are like it, and those that only look so."""
        places, times = index.alike(match.place)
        if len(places) < 2:
            return one, []
        dated = [at for at in times if at]
        if one.memory_type in TELEMETRY and one.source != "mark":
            return _counted(one, len(places), dated), []
        matches = [
            found
            for found in index.told(
                [_candidate(place) for place in places[:_COMPARED] if place != match.place]
            ).values()
            if found.time_unix_nano is not None
        ]
        rows = self._lake.at(
            [found.memory_id for found in matches],
            [found.time_unix_nano or 0 for found in matches],
        )
        same, beside = 1 + max(0, len(places) - _COMPARED), list[Item]()
        words, seen = said(one.title, one.content), [one.time_unix_nano or 0]
        for id_ in sorted(rows, key=lambda id_: (-(rows[id_].time_unix_nano or 0), id_)):
            other = self._told(rows[id_])
            if other is None:
                continue
            if said(other.title, other.content) == words and other.outcome == one.outcome:
                same += 1
                seen.append(other.time_unix_nano or 0)
            else:
                beside.append(other)
        if len(places) > _COMPARED:
            seen += dated
        return _counted(one, same, [at for at in seen if at]), beside


def _candidate(place: int) -> Candidate:
    from engram.exporters.index_read import Candidate

    return Candidate(place, 0.0, 0.0)


def _counted(one: Item, count: int, times: Sequence[int]) -> Item:
    if count < 2:
        return one
    first, last = (moment(min(times)), moment(max(times))) if times else (None, None)
    return changed(one, count=count, first_seen=first, last_seen=last)


def together(one: Item, other: Item) -> Item:
    """The first item, counting the other one."""
    times = [
        at
        for at in (one.first_seen, one.last_seen, one.created_at,
                   other.first_seen, other.last_seen, other.created_at)
        if at is not None
    ]  # fmt: skip
    return changed(
        one,
        count=one.count + other.count,
        first_seen=min(times, default=None),
        last_seen=max(times, default=None),
        importance=max(one.importance, other.importance),
        pinned=one.pinned or other.pinned,
    )


def valid(one: Item, now_ns: int) -> bool:
    """Whether what it says holds at that time, as far as it says until when."""
    now = moment(now_ns)
    assert now is not None  # noqa: S101 - said to the type checker
    if one.valid_from is not None and one.valid_from > now:
        return False
    return one.valid_to is None or one.valid_to > now


WEIGHTS: Final = {"recency": RECENCY, "importance": IMPORTANCE, "outcome": OUTCOME}

__all__ = ["WEIGHTS", "Judging", "together", "valid"]
