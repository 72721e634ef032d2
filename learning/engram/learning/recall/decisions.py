"""How similar decisions turned out: by option, with intervals, and how right the confidence was.

All that a policy needs, whether it is a person, code or a model, and no advice: the numbers are
those of decisions of which an outcome is known, the others are only counted. What a page in a
browser claims to have been decided counts nothing.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from engram.learning.recall.items import ALL, Item, Scope
from engram.learning.recall.ranking import wilson
from engram.learning.recall.revisions import UNTRUSTED
from engram.learning.recall.rows import number
from engram.learning.recall.suspects import DECISIONS

if TYPE_CHECKING:
    from engram.learning.recall.engine import Recall

MOST: Final = 100
"""Similar decisions that are looked at."""

_GOOD: Final = frozenset(("success", "succeeded", "successful", "ok", "good", "positive", "true",
                          "worked", "won", "yes"))  # fmt: skip
_BAD: Final = frozenset(("failure", "failed", "fail", "error", "bad", "negative", "false", "lost",
                         "rejected", "no", "rolled_back"))  # fmt: skip
_BINS: Final = (0.0, 0.5, 0.7, 0.9, 1.0)
"""Of stated confidence."""

_DUE: Final = ("outcome_due", "due_at", "due", "deadline")
"""Fields of a decision that say when its outcome should be known."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of successes with its 95 % interval (Wilson)."""

    n: int
    """Of known outcome."""
    worked: int
    rate: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Option:
    """How an option did where it was chosen."""

    option: str
    chosen: int
    """How often, also where nothing is known of the outcome."""
    success: Rate
    examples: tuple[str, ...]
    """Ids of memories, most similar first."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Decisions of about the same stated confidence."""

    low: float
    high: float
    stated: float
    """The mean of what was stated."""
    success: Rate


@dataclass(frozen=True, slots=True)
class Calibration:
    """Whether decisions of which somebody was so sure turned out well so often."""

    n: int
    stated: float | None
    observed: float | None
    brier: float | None
    """Mean squared error of the stated confidence: 0 is right each time, 0.25 is a coin."""
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class DecisionHistory:
    """What is remembered of decisions like one that is to be made."""

    context: str
    options: tuple[Option, ...]
    """The one with the best lower end of its interval first."""
    overall: Rate
    without_outcome: int
    calibration: Calibration
    due: tuple[Item, ...]
    """Similar decisions whose outcome should be known by now and is not."""
    similar: tuple[Item, ...]
    """The decisions, most similar first."""
    note: str = ""

    def json(self) -> dict[str, Any]:
        """For REST and programs."""
        from engram.learning.recall.window import as_json

        return {
            "context": self.context,
            "options": [asdict(one) for one in self.options],
            "overall": asdict(self.overall),
            "without_outcome": self.without_outcome,
            "calibration": asdict(self.calibration),
            "due": [as_json(one) for one in self.due],
            "similar": [as_json(one) for one in self.similar],
            "note": self.note,
        }


def decision_history(
    recall: Recall,
    context: str,
    options: Sequence[object] = (),
    *,
    scope: Scope = ALL,
    limit: int = MOST,
    as_of_ns: int | None = None,
) -> DecisionHistory:
    """See `Recall.decision_history`."""
    now = recall.clock() if as_of_ns is None else as_of_ns
    found = recall.search(
        context, scope=scope, types=DECISIONS, limit=limit, as_of_ns=as_of_ns, fold=False
    )
    similar = [one for one in found.items if (one.trust or "unknown") not in UNTRUSTED]
    chosen: dict[str, list[Item]] = defaultdict(list)
    names = {_same(option): _name(option) for option in options}
    for one in similar:
        option = choice(one)
        if option is not None:
            chosen[_same(option)].append(one)
            names.setdefault(_same(option), _name(option))
    wanted = [_same(option) for option in options] or [*chosen]
    told = [
        Option(
            names[key],
            len(chosen.get(key, ())),
            rate(map(succeeded, chosen.get(key, ()))),
            tuple(one.id for one in chosen.get(key, ())[:5]),
        )
        for key in dict.fromkeys(wanted)
    ]
    told.sort(key=lambda one: (-one.success.low, -one.success.n, -one.chosen, one.option))
    outcomes = [succeeded(one) for one in similar]
    return DecisionHistory(
        context=context,
        options=tuple(told),
        overall=rate(outcomes),
        without_outcome=outcomes.count(None),
        calibration=calibration(similar),
        due=tuple(one for one in similar if _is_due(one, now)),
        similar=tuple(similar),
        note=found.note,
    )


def choice(one: Item) -> object:
    """What was chosen; None where the decision does not say."""
    for name in ("chosen", "choice", "option", "decision"):
        value = one.meta_data.get(name)
        if value is not None and (name != "decision" or "chosen" not in one.meta_data):
            return value
    return None


def succeeded(one: Item) -> bool | None:
    """Whether a decision turned out well; None: nobody has said yet."""
    said = one.meta_data.get("outcome_success")
    if isinstance(said, bool):
        return said
    for value in (said, one.meta_data.get("outcome"), one.meta_data.get("success")):
        if isinstance(value, bool):
            return value
        words = str(value).strip().casefold()
        if words in _GOOD:
            return True
        if words in _BAD:
            return False
    if one.source == "mark" and one.outcome in ("ok", "error"):
        return one.outcome == "ok"
    return None


def rate(outcomes: Iterable[bool | None]) -> Rate:
    """The share of successes among known outcomes."""
    known = [one for one in outcomes if one is not None]
    worked = sum(known)
    share, low, high = wilson(worked, len(known))
    return Rate(len(known), worked, round(share, 4) if known else None, round(low, 4),
                round(high, 4))  # fmt: skip


def calibration(decisions: Iterable[Item]) -> Calibration:
    """Of decisions whose confidence was stated and whose outcome is known."""
    pairs = []
    for one in decisions:
        stated, came = number(one.meta_data, "confidence"), succeeded(one)
        if stated is not None and came is not None and 0 <= stated <= 1:
            pairs.append((stated, came))
    if not pairs:
        return Calibration(0, None, None, None, ())
    bins = []
    for low, high in itertools.pairwise(_BINS):
        some = [one for one in pairs if low <= one[0] < high or (high == 1.0 == one[0])]
        if some:
            mean = sum(stated for stated, _ in some) / len(some)
            bins.append(Bin(low, high, round(mean, 4), rate(came for _, came in some)))
    n = len(pairs)
    return Calibration(
        n,
        round(sum(stated for stated, _ in pairs) / n, 4),
        round(sum(came for _, came in pairs) / n, 4),
        round(sum((stated - came) ** 2 for stated, came in pairs) / n, 4),
        tuple(bins),
    )


def _is_due(one: Item, now_ns: int) -> bool:
    if succeeded(one) is not None:
        return False
    at = _due(one.meta_data)
    return at is not None and at <= now_ns


def _due(meta: Mapping[str, Any]) -> int | None:
    """When the outcome of a decision should be known, in nanoseconds."""
    for name in _DUE:
        value = meta.get(name)
        if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
            try:
                at = datetime.fromisoformat(value)
            except ValueError:
                continue
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
            return int(at.timestamp()) * 10**9
        told = number({name: value}, name)
        if told is not None:
            return int(told if told > 1e15 else told * 1e9)
    return None


def _name(option: object) -> str:
    return option if isinstance(option, str) else json.dumps(option, default=str)


def _same(option: object) -> str:
    """Equal for spellings of one option."""
    return " ".join(_name(option).casefold().split())


__all__ = [
    "Bin", "Calibration", "DecisionHistory", "Option", "Rate", "calibration", "choice",
    "decision_history", "rate", "succeeded",
]  # fmt: skip
