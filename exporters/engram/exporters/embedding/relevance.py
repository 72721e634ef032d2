"""How alike two texts must be for a model to mean something by it.

Cosines do not carry over between models (two sentences about the weather: 0.67 in one, 0.22 in
another), so each model is asked about texts that have nothing to do with each other. What it gives
the most alike of them is noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

from engram.exporters.embedding.codes import cosines, pack

if TYPE_CHECKING:
    from engram.exporters.embedding.models import Embedder

_SHARE: Final = 0.95
"""Of the pairs below are less alike than what counts as relevant.

Of 140 questions about nothing stored, 88 are then answered "nothing relevant", and 3 right answers
of 580 are lost; at 0.995 it is 114 and 17 (bench/search_quality.py)."""

BY_CHANCE: Final = 20
"""Rows that may be as alike by chance: twice the places of an answer."""

_UNRELATED: Final = (
    "the database refuses new connections",
    "a user asked for a refund of the second invoice",
    "the model's answer was cut off at the token limit",
    "certificate of the mail server expired",
    "rain is expected along the coast tomorrow",
    "she plays the violin in a small orchestra",
    "bake the bread until the crust is golden",
    "disk is full on the backup machine",
    "the train to the airport leaves every twenty minutes",
    "image thumbnails are generated twice",
    "the goalkeeper saved a penalty in the last minute",
    "a cookie banner covers the checkout button",
    "the translation of the poem keeps its rhyme",
    "memory grows until the process is killed",
    "the museum is closed on Mondays",
    "feature flag for dark mode was enabled",
    "the patient should rest and drink enough water",
    "messages in the queue are delivered out of order",
    "the mountain path is blocked by snow",
    "prices of coffee rose after the harvest",
    "search results show deleted products",
    "the child learned to ride a bicycle",
    "clock of the sensor drifts by seconds each day",
    "he painted the fence green",
)


@dataclass(frozen=True, slots=True)
class Unrelated:
    """The cosines that a model gives to texts that have nothing to do with each other."""

    mean: float
    deviation: float
    least: float
    """More alike than `_SHARE` of the pairs."""

    def least_cosine(self, rows: int) -> float:
        """The cosine below which likeness says nothing, where so many rows are compared.

        Among many rows some are alike by chance: of a normal distribution `BY_CHANCE` of them are
        above this. What is less alike would not be found among those.
        """
        if rows * (1 - _SHARE) <= BY_CHANCE:
            return self.least
        beyond = NormalDist(self.mean, self.deviation).inv_cdf(1 - BY_CHANCE / rows)
        return max(self.least, beyond)


def unrelated(embedder: Embedder) -> Unrelated:
    """What this model gives to texts that have nothing in common."""
    import numpy as np

    vectors = embedder.embed(_UNRELATED)
    codes = pack(vectors)
    alike = np.stack([cosines(codes, vector) for vector in vectors])
    pairs = alike[~np.eye(len(alike), dtype=bool)]
    return Unrelated(
        float(pairs.mean()), max(float(pairs.std()), 1e-6), float(np.quantile(pairs, _SHARE))
    )
