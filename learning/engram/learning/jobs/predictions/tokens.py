"""What models use of a day's budget of tokens. Nothing is read where there is no budget."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from engram.learning.jobs.predictions.series import (
    DAY_HOURS,
    HISTORY,
    HOUR,
    Evidence,
    Watched,
    hours,
)
from engram.learning.limits import Limits

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

# Memories and not spans: a call that is reported as span and as event is one of them.
_USED: Final = (
    "coalesce(TRY_CAST(json_extract_string(attributes, '$.input_tokens') AS DOUBLE), 0) + "
    "coalesce(TRY_CAST(json_extract_string(attributes, '$.output_tokens') AS DOUBLE), 0)"
)
_TYPES: Final = "type IN ('ai_response', 'aurea_response')"


def tokens(read: Read, limits: Limits, end: int) -> Iterator[Watched]:
    """The tokens of each day so far."""
    if not limits.tokens_per_day:
        return
    frame = read(
        f"SELECT time_unix_nano // {HOUR} AS hour, sum({_USED}) AS used, '' AS service "
        f"FROM lake.memories WHERE {_TYPES} AND time_unix_nano >= ? AND time_unix_nano < ? "
        "GROUP BY ALL",
        [(end - HISTORY) * HOUR, end * HOUR],
    )
    for _, (adds,) in hours(frame, ["service"], ["used"], end, fill=0.0):
        values, day = np.cumsum(adds), (np.arange(end - len(adds), end) // DAY_HOURS)
        begins = np.searchsorted(day, day)  # the place where the day of each hour begins
        values = values - np.where(begins > 0, values[begins - 1], 0.0)
        yield Watched(
            "tokens", "", "tokens of a day", "", "tokens", float(limits.tokens_per_day),
            "configured", end, values, adds=adds,
            evidence=Evidence(
                f"SELECT id FROM lake.memories WHERE {_TYPES} AND time_unix_nano >= ? AND "
                f"time_unix_nano < ? ORDER BY {_USED} DESC, id LIMIT 5",
                ((end - DAY_HOURS) * HOUR, end * HOUR),
            ),
        )  # fmt: skip


__all__ = ["tokens"]
