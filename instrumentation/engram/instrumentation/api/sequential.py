"""Evidence that may be looked at after every observation: bets against a hypothesis.

Who bets on each observation, at odds that are fair under the hypothesis, has no more on average
than what was put in, whenever he stops (Ville's inequality: to have 1/a of it at any time has a
chance of at most a). So a wealth of 20 is a test at five per cent, however often it is looked at
(Ramdas, Grünwald, Vovk and Shafer, Statistical Science 2023). Several stakes at once share the
money, because the best one depends on an effect that nobody knows before.
"""

from __future__ import annotations

import math
from typing import Final

ENOUGH: Final = 20.0
"""Wealth that is a verdict: an error of the first kind of at most five per cent."""
ALARM: Final = 1000.0
"""Of a `Watch`: a false alarm in 1,000 observations at the limit on average, far rarer below it."""

_COIN: Final = (0.05, 0.1, 0.2, 0.4, 0.8)
_SHARE: Final = (0.02, 0.05, 0.2)
"""Of the most that could be staked against a share."""


class Bet:
    """Against: something happens in a share of at most `share` of the cases."""

    def __init__(self, share: float = 0.5) -> None:
        self._share = share
        stakes = [2 * part for part in _COIN] if share == 0.5 else [part / share for part in _SHARE]
        self._stakes = stakes
        self._log = [0.0] * len(stakes)

    def see(self, happened: bool) -> None:
        """One more case. It MUST be chosen without a look at what it will show."""
        gain = (1.0 if happened else 0.0) - self._share
        for at, stake in enumerate(self._stakes):
            self._log[at] += math.log1p(stake * gain)

    @property
    def wealth(self) -> float:
        """Evidence against it; 1 is none."""
        return math.fsum(math.exp(min(one, 300.0)) for one in self._log) / len(self._log)


class Watch(Bet):
    """The same for what may begin at any time: what was lost before is forgiven."""

    def see(self, happened: bool) -> None:
        """One more case."""
        super().see(happened)
        self._log = [max(0.0, one) for one in self._log]


def median_between(ordered: list[float]) -> tuple[float, float, float]:
    """The median of some ordered values with its 95 % interval, from their ranks.

    Exact but for the normal approximation of a binomial; of few values, their range.
    """
    count = len(ordered)
    half = 0.98 * math.sqrt(count)
    low, high = math.floor(count / 2 - half) - 1, math.ceil(count / 2 + half)
    middle = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return middle, ordered[max(0, low)], ordered[min(count - 1, high)]


__all__ = ["ALARM", "ENOUGH", "Bet", "Watch", "median_between"]
