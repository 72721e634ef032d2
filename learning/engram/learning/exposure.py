"""Whether an error is resolved: by runs of the code that did not fail, not by silence.

An error at one in ten runs that is silent for a day in which nothing ran is not resolved. What
counts is exposure: executions of the operation that used to fail, and how many failed. Before a
change that was k0 of n0, since then k1 of n1. The null hypothesis is that the error still has at
least a tenth of its former rate; it is rejected by an e-value, which may be looked at every day
(Ville's inequality: the chance that it ever reaches 1/alpha under the null is at most alpha), so a
report that peeks is as honest as one that waits:

    E = B(k1 + a, n1 - k1 + b) / B(a, b) / sup { p^k1 (1-p)^(n1-k1) : p >= p_low / 10 }

a beta-binomial mixture over the supremum of the null (universal inference, Wasserman, Ramdas and
Balakrishnan, PNAS 2020). p_low is the lower 97.5 % bound of the former rate (Wilson), the other
2.5 % are for E, which is why it has to reach 40.

Errors come in bursts, so runs are not independent: both counts are divided by the design effect,
the index of dispersion of failures by the hour (variance over what a binomial would have),
estimated before the change and never below 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

FRACTION: Final = 10.0
"""Resolved means: less than the former rate divided by this."""

ENOUGH: Final = 40.0
"""The e-value that says so: 1 / 2.5 %."""

_Z: Final = 1.959963984540054
_A: Final = 0.5
"""Of the mixture's beta distribution (Jeffreys' prior)."""

_MOST_RUNS: Final = 1 << 40

Verdict = Literal["unknown", "untested", "failing", "clean", "resolved"]


@dataclass(frozen=True, slots=True)
class Exposure:
    """Runs of an operation and failures among them, by the hour; hours without runs are left out.

    Raises:
        ValueError: more failures than runs, or fewer than none.
    """

    runs: tuple[int, ...]
    failures: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.runs) != len(self.failures):
            raise ValueError("an hour has both, runs and failures")
        for runs, failures in zip(self.runs, self.failures, strict=True):
            if not 0 <= failures <= runs:
                raise ValueError(f"{failures} failures in {runs} runs")

    @property
    def n(self) -> int:
        """All runs."""
        return sum(self.runs)

    @property
    def k(self) -> int:
        """All failures."""
        return sum(self.failures)

    @property
    def design_effect(self) -> float:
        """How many runs are worth one independent run: at least 1.

        Pearson's chi-square of the hours against one rate, by its degrees of freedom.
        """
        hours = [(r, f) for r, f in zip(self.runs, self.failures, strict=True) if r]
        if len(hours) < 2 or not 0 < self.k < self.n:
            return 1.0
        rate = self.k / self.n
        chi = sum((f - r * rate) ** 2 / (r * rate * (1 - rate)) for r, f in hours)
        return max(1.0, chi / (len(hours) - 1))


@dataclass(frozen=True, slots=True)
class Judgement:
    """What can be said, and on what."""

    verdict: Verdict
    """`unknown`: it hardly ever failed before. `untested`: it has not run since. `failing`: it
    failed since. `clean`: it has not, and it is too early. `resolved`."""
    e_value: float
    """Evidence against the error still being there."""
    runs: int
    """Since the change."""
    failures: int
    needed: int | None
    """Clean runs that are still needed; None when there is no number of them."""
    rate_before: float
    rate_low: float
    """Lower bound of it, 97.5 %."""
    design_effect: float
    splits: int = 1


def judge(before: Exposure, after: Exposure, *, splits: int = 1) -> Judgement:
    """Whether an error is resolved since a change.

    `splits`: between how many moments the change was chosen by looking at the failures; the
    e-value has to be so much larger (Bonferroni).
    """
    enough = ENOUGH * max(1, splits)
    effect = before.design_effect
    rate = before.k / before.n if before.n else 0.0
    low = wilson_low(before.k / effect, before.n / effect)
    null = low / FRACTION

    def evidence(failures: float, runs: float) -> float:
        return e_value(failures / effect, runs / effect, null)

    found = evidence(after.k, after.n)
    needed = None if null <= 0 else _needed(lambda more: evidence(after.k, after.n + more), enough)
    verdict: Verdict
    if null <= 0 or before.k < 2:
        verdict = "unknown"
    elif not after.n:
        verdict = "untested"
    elif after.k:
        verdict = "failing"
    else:
        verdict = "resolved" if found >= enough else "clean"
    return Judgement(verdict, found, after.n, after.k, needed, rate, low, effect, max(1, splits))


def e_value(k: float, n: float, null: float) -> float:
    """Evidence that a rate is below `null` after k failures of n runs; 1 says nothing."""
    if n <= 0 or null <= 0:
        return 1.0
    if null >= 1:
        raise ValueError("a rate of 1 cannot be the least of the null hypothesis")
    mixture = _log_beta(k + _A, n - k + _A) - _log_beta(_A, _A)
    worst = max(null, k / n)
    likelihood = (k * math.log(worst) if k else 0.0) + (
        (n - k) * math.log1p(-worst) if n > k else 0.0
    )
    return math.exp(min(700.0, mixture - likelihood))


def wilson_low(k: float, n: float, z: float = _Z) -> float:
    """Lower bound of a rate (Wilson 1927)."""
    if n <= 0 or k <= 0:
        return 0.0
    rate = k / n
    centre = rate + z * z / (2 * n)
    spread = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, (centre - spread) / (1 + z * z / n))


def _needed(evidence: Callable[[int], float], enough: float) -> int | None:
    """The fewest further clean runs with which there is enough."""
    if evidence(0) >= enough:
        return 0
    high = 1
    while evidence(high) < enough:
        high *= 2
        if high > _MOST_RUNS:
            return None
    low = high // 2
    while low + 1 < high:
        middle = (low + high) // 2
        if evidence(middle) >= enough:
            high = middle
        else:
            low = middle
    return high


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def hourly(times: Sequence[int], failed: Sequence[bool], hour: int = 3600 * 10**9) -> Exposure:
    """Exposure of runs at some times (ns)."""
    runs: dict[int, list[int]] = {}
    for time, fails in zip(times, failed, strict=True):
        one = runs.setdefault(time // hour, [0, 0])
        one[0] += 1
        one[1] += fails
    return Exposure(
        tuple(one[0] for _, one in sorted(runs.items())),
        tuple(one[1] for _, one in sorted(runs.items())),
    )


__all__ = [
    "ENOUGH",
    "FRACTION",
    "Exposure",
    "Judgement",
    "e_value",
    "hourly",
    "judge",
    "wilson_low",
]
