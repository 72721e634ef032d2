"""When a count is a spike and when a silence is one, against all that was before.

What fails or warns does not come evenly: it follows the load, which has days and weekends, and it
comes in clusters, since whoever failed tries again. So neither is held against a Poisson process
around what is usual, by which every busy morning is a spike and every weekend an end.

* **A spike** is twice as many in an hour as in any hour of the week before, and by 6 standard
  deviations of a Poisson variable more. The highest of a week knows the load, the clusters and how
  uneven it is without a model of them: of exchangeable hours one in 169 is above it by chance, and
  that it is so by half of itself again is what noise with any such week behind it hardly does.
* **A silence** is longer than chance allows and twice as long as any before. Of m gaps that add up
  to S, another one of the same exponential distribution is x or longer with probability
  (S / (S + x))^m (gap over total is beta distributed); `CHANCE` is what that may be. Occurrences of
  one quarter of a day are one: they are clusters, or a morning's load.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

HOUR: Final = 3600 * 10**9

LEAST: Final = 10
"""Occurrences in an hour that can be a spike."""
SIGMAS: Final = 6.0
TIMES: Final = 2.0
"""Of the highest count, and of the longest gap."""

_ONE: Final = 6 * HOUR

SHORTEST: Final = 24 * HOUR
"""No silence is shorter: nights are no end."""
CHANCE: Final = 0.0001
"""That a gap is no end but a usual one. Fifty services have hundreds of errors that come once in
days, with a thousand gaps in a week: one of them is taken for a silence in ten weeks."""


def spike(before: Iterable[int]) -> int:
    """How many in an hour are a spike, after the counts of the hours before it."""
    high = max(1, max(before, default=1))
    return max(LEAST, math.ceil(max(TIMES * high, high + SIGMAS * math.sqrt(high))))


def silences(times: Sequence[int], chance: float = CHANCE) -> Iterator[float]:
    """After each of some times, in order, how long nothing has to come to be a silence (ns)."""
    first = last = None
    gaps, longest = 0, 0
    for time in times:
        if first is None or last is None:
            first = last = time
        elif time // _ONE > last // _ONE:
            gaps, longest, last = gaps + 1, max(longest, time - last), time
        if gaps < 2:
            yield math.inf  # twice says nothing about what is usual
        else:
            rare = (last - first) * (chance ** (-1 / gaps) - 1)
            yield max(float(SHORTEST), TIMES * longest, rare)


__all__ = ["CHANCE", "LEAST", "SHORTEST", "silences", "spike"]
