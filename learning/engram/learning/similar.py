"""Errors of the same cause: how alike two exceptions are by their frames, type and message.

An exact fingerprint misses a third of the duplicates, which differ in a frame or two. Here frames
count by how rare they are among the errors of the same scope and by how near they are to where the
exception was raised (weighted Jaccard, w = ln(1 + N/n) / (1 + position)^0.6), once as functions
and, less, as modules; equal types and common words of the message add to it. Line numbers are left
out: they change with every release and add nothing (`bench/learning/similar.py`).
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

_DECAY: Final = 0.6
_MODULES: Final = 0.3
_TYPE: Final = 0.2
_WORDS: Final = 0.2
_NO_WORDS: Final = 0.3
"""Likeness of two messages without words."""

_ALL: Final = 1 + _MODULES + _TYPE + _WORDS
_FRAMES: Final = 100
"""Innermost frames that are looked at."""

_CANDIDATES: Final = 5_000
"""Traces that are compared at most: those that share most."""

_WORD: Final = re.compile(r"[^\W\d_]{3,}")

Frame = tuple[str, str]
"""Module (or class, or file) and function."""


@dataclass(frozen=True, slots=True)
class Trace:
    """An exception as it is compared. Frames begin where it was raised."""

    id: str
    type: str
    message: str
    frames: tuple[Frame, ...]

    @property
    def functions(self) -> list[str]:
        """The frames by function."""
        return [f"{module}.{function}" for module, function in self.frames[:_FRAMES]]

    @property
    def modules(self) -> list[str]:
        """The frames by module; classes inside of others (`A$1`) count as the outer one."""
        return [module.split("$")[0] for module, _ in self.frames[:_FRAMES]]

    @property
    def words(self) -> frozenset[str]:
        """The words of the message, without numbers."""
        return frozenset(_WORD.findall(self.message))


class SimilarTraces:
    """The traces of one scope: a project, a service. Not for several threads."""

    def __init__(self) -> None:
        self._traces: dict[str, Trace] = {}
        self._having: dict[str, set[str]] = defaultdict(set)
        self._weighted: dict[str, tuple[dict[str, float], dict[str, float]]] = {}

    def __len__(self) -> int:
        return len(self._traces)

    def add(self, traces: Iterable[Trace]) -> None:
        """Add traces; one of an id that is here is replaced."""
        for trace in traces:
            self.discard(trace.id)
            self._traces[trace.id] = trace
            for feature in _features(trace):
                self._having[feature].add(trace.id)
        self._weighted.clear()  # how rare a frame is has changed

    def discard(self, id_: str) -> None:
        """Remove a trace, if it is here."""
        trace = self._traces.pop(id_, None)
        for feature in _features(trace) if trace else ():
            self._having[feature].discard(id_)
        self._weighted.clear()

    def search(self, trace: Trace, k: int = 10) -> list[tuple[str, float]]:
        """Ids of the most similar traces with their likeness (0..1), best first, itself left out.

        Traces that share neither frame, module, type nor word are not similar at all.
        """
        shared: Counter[str] = Counter()
        for feature in _features(trace):
            shared.update(self._having.get(feature, ()))
        del shared[trace.id]
        mine = self._weights(trace)
        scored = [
            (id_, self._likeness(trace, mine, self._traces[id_]))
            for id_, _ in shared.most_common(_CANDIDATES)
        ]
        scored.sort(key=lambda one: (-one[1], one[0]))
        return scored[:k]

    def _likeness(
        self, trace: Trace, mine: tuple[dict[str, float], dict[str, float]], other: Trace
    ) -> float:
        theirs = self._weighted.get(other.id)
        if theirs is None:
            theirs = self._weighted[other.id] = self._weights(other)
        words, others = trace.words, other.words
        either = len(words | others)
        score = (
            _jaccard(mine[0], theirs[0])
            + _MODULES * _jaccard(mine[1], theirs[1])
            + _TYPE * (trace.type == other.type)
            + _WORDS * (len(words & others) / either if either else _NO_WORDS)
        )
        return score / _ALL

    def _weights(self, trace: Trace) -> tuple[dict[str, float], dict[str, float]]:
        return (
            self._weigh(f"f {one}" for one in trace.functions),
            self._weigh(f"m {one}" for one in trace.modules),
        )

    def _weigh(self, features: Iterable[str]) -> dict[str, float]:
        weights: dict[str, float] = {}
        for position, feature in enumerate(features):
            having = len(self._having.get(feature, ())) or 1
            weight = math.log(1 + len(self._traces) / having) / (1 + position) ** _DECAY
            weights[feature] = max(weights.get(feature, 0.0), weight)
        return weights


def _features(trace: Trace) -> set[str]:
    return {
        f"t {trace.type}",
        *(f"f {one}" for one in trace.functions),
        *(f"m {one}" for one in trace.modules),
        *(f"w {one}" for one in trace.words),
    }


def _jaccard(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Weighted: the sum of the lesser weights over that of the greater ones (Ruzicka)."""
    common = sum(min(weight, other[name]) for name, weight in one.items() if name in other)
    either = sum(one.values()) + sum(other.values()) - common
    return common / either if either else 0.0


__all__ = ["Frame", "SimilarTraces", "Trace"]
