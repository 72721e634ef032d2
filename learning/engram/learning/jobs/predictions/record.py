"""What was predicted before, and how it turned out: read back from the lake.

A prediction and its outcome carry `as_of`, the moment they were said. A run sees those of earlier
moments only, so a run that is repeated says the same.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from engram.exporters import own

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

NAME: Final = "predictions"
"""Of the job."""

HIT, MISS, EXPIRED = "hit", "miss", "expired"

LAST: Final = 20
"""Scored predictions of a kind that say how good it is."""

YOUNG: Final = 10
"""Fewer say nothing yet."""

FLOOR: Final = 0.5
"""A kind of which less came true says nothing aloud until it is better."""

PRIOR: Final = 10
"""The method's own probability counts like as many predictions of that kind."""


@dataclass(frozen=True, slots=True)
class Made:
    """A prediction that was made."""

    id: str
    """Of its memory."""
    as_of: int
    kind: str
    series: tuple[str, ...]
    title: str
    service: str
    limit: float
    deadline: int
    """In ns."""
    probability: float
    muted: bool


@dataclass(frozen=True, slots=True)
class Scored:
    """How one turned out."""

    prediction: str
    kind: str
    as_of: int
    verdict: str
    probability: float
    time: int
    muted: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """How good a kind is, over what could be judged."""

    kind: str
    hits: int
    misses: int
    expired: int
    brier: float | None
    lately: tuple[int, int]
    """Hits and all of the last `LAST`."""

    @property
    def n(self) -> int:
        """Predictions that could be judged."""
        return self.hits + self.misses

    @property
    def rate(self) -> float | None:
        """Share that came true."""
        return self.hits / self.n if self.n else None

    @property
    def muted(self) -> bool:
        """Whether it cried wolf too often lately."""
        hits, n = self.lately
        return n >= YOUNG and hits / n < FLOOR

    def calibrated(self, probability: float) -> float:
        """A probability, corrected by how those before turned out (a beta prior of `PRIOR`)."""
        hits, n = self.lately
        return (hits + PRIOR * probability) / (n + PRIOR)


@dataclass(frozen=True, slots=True)
class Record:
    """All of it."""

    made: tuple[Made, ...] = ()
    scored: tuple[Scored, ...] = ()
    _ids: frozenset[str] = field(default=frozenset())

    @classmethod
    def read(cls, read: Read, before: int) -> Record:
        """What was said before a moment."""
        rows = read(
            "SELECT id, title, coalesce(service_name, '') AS service, time_unix_nano, attributes "
            "FROM lake.memories WHERE type = 'ai_insight' "
            "AND list_contains(tags, ?) AND json_extract_string(attributes, '$.job') = ? "
            "ORDER BY time_unix_nano, id",
            [f"scope:{own.SCOPE}", NAME],
        )
        made, scored = [], []
        for row in rows.iter_rows(named=True):
            facts = _facts(row["attributes"])
            try:
                if int(facts["as_of"]) >= before:
                    continue
                if facts["says"] == "prediction":
                    made.append(_made(row, facts))
                elif facts["says"] == "outcome":
                    scored.append(_scored(row, facts))
            except (KeyError, TypeError, ValueError):
                continue  # not ours, whatever it calls itself
        scored.sort(key=lambda one: (one.as_of, one.time, one.prediction))
        return cls(tuple(made), tuple(scored), frozenset(one.prediction for one in scored))

    @property
    def open(self) -> list[Made]:
        """Those that were not scored yet."""
        return [one for one in self.made if one.id not in self._ids]

    def standing(self, kind: str) -> Standing:
        """How good a kind is."""
        return standing(kind, [one for one in self.scored if one.kind == kind])

    def standings(self) -> list[Standing]:
        """Of every kind that was scored."""
        kinds: dict[str, list[Scored]] = defaultdict(list)
        for one in self.scored:
            kinds[one.kind].append(one)
        return [standing(kind, some) for kind, some in sorted(kinds.items())]


def standing(kind: str, scored: Sequence[Scored]) -> Standing:
    """How good a kind is, of its scored predictions in the order of their scoring."""
    judged = [one for one in scored if one.verdict != EXPIRED]
    hits = [one.verdict == HIT for one in judged]
    brier = (
        sum((one.probability - hit) ** 2 for one, hit in zip(judged, hits, strict=True))
        / len(judged)
        if judged
        else None
    )
    lately = hits[-LAST:]
    return Standing(
        kind, sum(hits), len(hits) - sum(hits), len(scored) - len(hits), brier,
        (sum(lately), len(lately)),
    )  # fmt: skip


def _made(row: dict[str, Any], facts: dict[str, Any]) -> Made:
    series = json.loads(facts["series"])
    return Made(
        str(row["id"]), int(facts["as_of"]), str(facts["kind"]), tuple(str(one) for one in series),
        str(row["title"]), str(row["service"]), float(facts["limit"]), int(facts["deadline_ns"]),
        float(facts["probability"]), bool(facts.get("muted")),
    )  # fmt: skip


def _scored(row: dict[str, Any], facts: dict[str, Any]) -> Scored:
    return Scored(
        str(facts["prediction"]), str(facts["kind"]), int(facts["as_of"]), str(facts["verdict"]),
        float(facts["probability"]), int(row["time_unix_nano"]), bool(facts.get("muted")),
    )  # fmt: skip


def _facts(text: str | None) -> dict[str, Any]:
    try:
        told = json.loads(text or "{}")
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


__all__ = [
    "EXPIRED",
    "FLOOR",
    "HIT",
    "LAST",
    "MISS",
    "NAME",
    "Made",
    "Record",
    "Scored",
    "Standing",
    "standing",
]
