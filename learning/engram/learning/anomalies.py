"""How unusual each point of a series is, by the points up to it and none after.

Two questions are asked of every point: how far is it, and how far is the mean of the last dozen,
from what the last thousands of points were, in their standard deviations. The mean of both is the
deviation. What is not above all of the last few hundred points is the rest of something already
said, and is scored down: an alarm is one point, not a day of them (`bench/learning/anomalies.py`).
Time of day takes no part: seasonal residuals, differences and logarithms were tried and did worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engram.exporters.errors import BadRequest

_PAST: Final = 5_000
"""Points that are remembered."""

_WARM: Final = 30
"""Points without which nothing can be said."""

_RECENT: Final = (1, 12)
"""Points whose mean is judged, as a spike and as a shift."""

_QUIET: Final = 400
"""Points for which an alarm silences what is not above it."""

_MUTED: Final = 0.25
"""What is left of a score that is silenced."""

_HALF: Final = 4.0
"""The deviation that scores 0.5."""

_STILL: Final = 1e-3
"""Deviations smaller than this share of the mean are no news, however still the series was."""

_ROUNDING: Final = 1e-7
"""And smaller than this share of the largest value so far: sums of floats are not exact."""

Floats = NDArray[np.float64]


def anomaly_scores(
    times: ArrayLike | Sequence[object], values: ArrayLike | Sequence[float | None]
) -> Floats:
    """A score from 0 to 1 for every value, 0 where it is no number.

    Raises:
        BadRequest: values are no list of numbers, or not as many as timestamps.
    """
    try:
        said = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise BadRequest("values must be numbers or null") from None
    if said.ndim != 1:
        raise BadRequest("values must be a flat list of numbers")
    if len(times) != len(said):  # type: ignore[arg-type]
        raise BadRequest(f"{len(times)} timestamps and {len(said)} values")  # type: ignore[arg-type]
    scores = np.zeros(len(said))
    there = np.abs(said) < 1e150  # squares must not overflow; NaN is not there either
    known = said[there]
    if len(known) > _WARM:
        deviation = np.mean([_deviation(_mean(known, size)) for size in _RECENT], axis=0)
        scores[there] = _rare(deviation / (deviation + _HALF))
    return scores


def _mean(values: Floats, size: int) -> Floats:
    """The mean of the last `size` values at each."""
    if size == 1:
        return values
    total = sum(
        np.concatenate((np.zeros(back), values[: len(values) - back]))
        for back in range(min(size, len(values)))
    )
    return np.asarray(total / np.minimum(np.arange(1, len(values) + 1), size))


def _deviation(values: Floats) -> Floats:
    """Standard deviations from the mean of the past, the point itself left out."""
    from_first = values - values[0]
    at = np.arange(len(values))
    start = np.maximum(at - _PAST, 0)
    size = np.maximum(at - start, 1)
    total = np.concatenate(([0.0], np.cumsum(from_first)))
    squares = np.concatenate(([0.0], np.cumsum(from_first**2)))
    mean = (total[at] - total[start]) / size
    variance = (squares[at] - squares[start]) / size - mean**2
    largest = np.maximum.accumulate(np.abs(from_first))
    usual = np.sqrt(np.maximum(variance, 0.0)) + _STILL * np.abs(mean + values[0])
    usual += _ROUNDING * np.concatenate(([0.0], largest[:-1]))
    off = np.abs(from_first - mean)
    # From nothing but zeros to anything: as unusual as can be, yet a number.
    found = np.divide(off, usual, out=np.where(off > 0, 1e6, 0.0), where=usual > 0)
    found[:_WARM] = 0.0
    return np.asarray(np.minimum(found, 1e6))


def _rare(scores: Floats) -> Floats:
    """Scores, muted where they are no record since the last alarm."""
    said = scores * _MUTED
    record, since = 0.0, 0
    for at, score in enumerate(scores.tolist()):
        if at - since > _QUIET:
            record = 0.0
        if score > record:
            said[at] = score
            record, since = score, at
    return said


__all__ = ["anomaly_scores"]
