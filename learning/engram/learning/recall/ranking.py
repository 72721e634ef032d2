"""What else than relevance decides the order: age, importance and measured outcomes, bounded.

    score = relevance x (1 + 0.08 age + 0.05 importance + 0.10 outcome) / 1.23

Each part is 0 to 1, so together they are worth at most 23 % of a memory's relevance: enough to
order what answers a question equally well, and never enough to put what hardly answers it before
what answers it exactly. Nothing is multiplied to nothing: a perfect match of ten years ago stays
one. Age is told as 0.5^(age / half-life). Chatter ages in days; what was decided, solved or
preferred does not age, however much is said after it; and a memory without a time is not punished
for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from engram.learning import intervals
from engram.learning.recall.items import Item
from engram.learning.recall.rows import number

RECENCY: Final = 0.08
IMPORTANCE: Final = 0.05
OUTCOME: Final = 0.10
MOST: Final = 1 + RECENCY + IMPORTANCE + OUTCOME

SUPERSEDED: Final = 0.5
"""What is left of the score of a memory that a newer one took the place of."""

DAY: Final = 86_400_000_000_000

LASTING: Final = frozenset((
    "business_decision", "error_solution", "error_resolution", "optimization", "user_preference",
))  # fmt: skip
"""Types that do not age."""

HALF_LIFE_DAYS: Final[Mapping[str, float]] = {
    # What happened in passing.
    "page_view": 3, "user_action": 3, "system_event": 3, "api_call": 3, "request_intent": 3,
    "request_outcome": 3, "performance_metric": 3, "langgraph_node": 3, "integration_sync": 7,
    "webhook_event": 7, "workflow_state": 7, "langgraph_outcome": 7,
    # What was said, and what failed.
    "user_interaction": 14, "ai_response": 14, "aurea_conversation": 14, "aurea_response": 14,
    "system_error": 14, "ui_error": 14,
    # What was found out.
    "ai_insight": 60, "calculation_result": 60,
}  # fmt: skip
"""Of telemetry days, of conversation weeks, of knowledge months: the steps that several memory
systems found by use. The bound above makes the exact figures matter little."""

_HALF_LIFE: Final = 30.0
"""Days, of all other types."""

MEASURED: Final = frozenset(
    ("business_decision", "error_solution", "error_resolution", "optimization")
)
"""Types of which outcomes are counted."""

_COUNTED: Final = ("engram", "operator")

UNKNOWN: Final = 0.5
"""A part of which nothing is known: neither praise nor blame."""


class Parts(NamedTuple):
    """What decides besides relevance, each 0 to 1."""

    recency: float
    importance: float
    outcome: float

    @property
    def factor(self) -> float:
        """By which the relevance is multiplied: 1 / 1.23 to 1."""
        more = RECENCY * self.recency + IMPORTANCE * self.importance + OUTCOME * self.outcome
        return (1 + more) / MOST


def recency(type_: str | None, at_ns: int | None, now_ns: int) -> float:
    """1 of what is new, of what lasts, and of what has no time; else less by its age."""
    if not at_ns or type_ in LASTING or (type_ or "").endswith("_preference"):
        return 1.0
    days = max(0, now_ns - at_ns) / DAY
    return float(0.5 ** (days / HALF_LIFE_DAYS.get(type_ or "", _HALF_LIFE)))


def wilson(worked: float, tried: float) -> tuple[float, float, float]:
    """The share of successes and its 95 % interval."""
    low, high = intervals.wilson(worked, tried)
    return (min(1.0, worked / tried) if tried > 0 else 0.0), low, high


def tried_and_worked(one: Item) -> tuple[float, float]:
    """How often what a memory tells was tried, and how often it worked; (0, 0): not known.

    Counts are those that Engram observed or an operator gave. What others say of their own success
    is one observation, however often they say that it worked.
    """
    tried = number(one.meta_data, "tried", "n")
    worked = number(one.meta_data, "worked", "successes")
    if tried is not None and worked is not None and tried >= worked >= 0 and tried > 0:
        if one.trust in _COUNTED:
            return tried, worked
        return 1.0, float(2 * worked >= tried)
    if one.outcome in ("ok", "error"):
        return 1.0, float(one.outcome == "ok")
    return 0.0, 0.0


def outcome(one: Item) -> float:
    """How well what it tells has worked: the lower end of the interval; 0.5: nobody knows."""
    if one.memory_type not in MEASURED:
        return UNKNOWN
    tried, worked = tried_and_worked(one)
    if not tried:
        return UNKNOWN
    _, low, high = wilson(worked, tried)
    # One success is little evidence (low 0.21), one failure as little: both stay near the middle.
    return (low + high) / 2


def parts(one: Item, now_ns: int) -> Parts:
    """All that decides besides relevance, of a memory that was read."""
    return Parts(
        recency(one.memory_type, one.time_unix_nano, now_ns),
        min(1.0, max(0.0, one.importance)),
        outcome(one),
    )


__all__ = [
    "LASTING", "MEASURED", "MOST", "SUPERSEDED", "UNKNOWN", "Parts", "outcome", "parts", "recency",
    "tried_and_worked", "wilson",
]  # fmt: skip
