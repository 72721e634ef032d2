"""Resolved by exposure: the formula, its honesty under peeking, and what is said meanwhile."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.learning.exposure import ENOUGH, Exposure, e_value, hourly, judge, wilson_low

HOUR = 3600 * 10**9


def exposure(hours: int, runs: int, failures: int) -> Exposure:
    """So many hours, each with so many runs and failures."""
    return Exposure((runs,) * hours, (failures,) * hours)


def test_the_formula() -> None:
    """By hand: no failure in n runs is B(.5, n + .5) / B(.5, .5) over (1 - null)^n."""
    n, null = 100, 0.05
    beta = math.gamma(0.5) * math.gamma(n + 0.5) / math.gamma(n + 1)
    assert e_value(0, n, null) == pytest.approx(beta / math.pi / (1 - null) ** n)
    assert e_value(0, 0, null) == 1.0
    assert e_value(50, 100, null) < 1e-1  # it fails as ever


def test_wilson_low() -> None:
    """Of 10 of 10 it is .722 at 95 %."""
    assert wilson_low(10, 10) == pytest.approx(0.722, abs=5e-4)
    assert wilson_low(0, 10) == 0.0


def test_silence_is_not_proof() -> None:
    """Nothing ran: untested. Something ran, not enough: clean, and how many are missing."""
    before = exposure(100, 10, 1)
    assert judge(before, Exposure((), ())).verdict == "untested"
    early = judge(before, exposure(1, 20, 0))
    assert early.verdict == "clean"
    assert early.needed is not None
    assert early.needed > 100
    assert judge(before, exposure(1, 20 + early.needed, 0)).verdict == "resolved"
    assert judge(before, exposure(1, 19 + early.needed, 0)).verdict == "clean"
    assert judge(before, exposure(1, 10**6, 0)).needed == 0


def test_one_failure_since_is_failing_and_one_before_is_unknown() -> None:
    """Whatever the e-value says."""
    before = exposure(100, 10, 1)
    after = Exposure((10**6,), (1,))
    assert judge(before, after).verdict == "failing"
    assert judge(exposure(1, 1000, 1), exposure(1, 10**6, 0)).verdict == "unknown"
    assert judge(Exposure((), ()), exposure(1, 10, 0)).needed is None


def test_bursts_make_runs_count_less() -> None:
    """The same rate in one hour of ten needs more clean runs than in every hour."""
    steady = exposure(100, 100, 2)
    bursty = Exposure((100,) * 100, tuple(20 if at % 10 == 0 else 0 for at in range(100)))
    assert steady.k == bursty.k
    assert steady.design_effect == 1.0
    assert bursty.design_effect > 5
    one, other = judge(steady, exposure(1, 1, 0)), judge(bursty, exposure(1, 1, 0))
    assert one.needed is not None
    assert other.needed is not None
    assert other.needed > 5 * one.needed


def test_who_looks_every_day_is_not_fooled() -> None:
    """The error is as it was, with bursts: "resolved" is said in at most 5 % of lives."""
    dice = random.Random(5)
    fooled = 0
    for _ in range(60):

        def day() -> tuple[list[int], list[int]]:
            failures = [
                sum(dice.random() < 0.5 for _ in range(10)) if dice.random() < 0.1 else 0
                for _ in range(24)
            ]
            return [10] * 24, failures

        runs, failures = [], []
        for _ in range(14):
            more = day()
            runs += more[0]
            failures += more[1]
        before = Exposure(tuple(runs), tuple(failures))
        runs, failures = [], []
        for _ in range(20):
            more = day()
            runs += more[0]
            failures += more[1]
            if judge(before, Exposure(tuple(runs), tuple(failures))).verdict == "resolved":
                fooled += 1
                break
    assert fooled <= 3


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=20),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10)), max_size=5),
)
def test_any_counts_give_an_answer(
    before: list[tuple[int, int]], after: list[tuple[int, int]]
) -> None:
    """No overflow, no division by nothing; more clean runs are never less evidence."""
    one = Exposure(tuple(max(p) for p in before), tuple(min(p) for p in before))
    two = Exposure(tuple(max(p) for p in after), tuple(min(p) for p in after))
    found = judge(one, two)
    assert found.e_value >= 0
    assert math.isfinite(found.e_value)
    if found.verdict == "resolved":
        assert found.e_value >= ENOUGH
        assert found.needed == 0


def test_hours_and_nonsense() -> None:
    """Runs by their time; what cannot be is refused."""
    assert hourly([0, 1, HOUR, 5 * HOUR], [True, False, False, True]) == Exposure(
        (2, 1, 1), (1, 0, 1)
    )
    with pytest.raises(ValueError, match="3 failures in 2 runs"):
        Exposure((2,), (3,))
    with pytest.raises(ValueError, match="both"):
        Exposure((2,), ())
