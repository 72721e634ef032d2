"""Limit crossings: a leak is foreseen in time, and what is no leak is not."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.learning.crossing import crossing

STEP_S = 300
DAY = 288


def busy(days: int, seed: int = 1) -> np.ndarray:
    """A day's shape and noise."""
    at = np.arange(days * DAY)
    noise = np.random.default_rng(seed).normal(size=len(at))
    return 50 + 10 * np.sin(at * 2 * np.pi / DAY) + 2 * noise


def test_a_leak_is_foreseen_half_a_day_before() -> None:
    """With a daily shape over it, and when that is about."""
    values = busy(8)
    values[4 * DAY :] += np.arange(4 * DAY) / DAY * 20
    over = next(at for at in range(0, len(values), 12) if np.median(values[at : at + 12]) >= 110)
    said = crossing(values[: over - 150], STEP_S, 110)
    assert said.probability >= 0.5
    assert said.after_s is not None
    assert abs(said.after_s - 150 * STEP_S) < 7 * 3600
    assert crossing(values[: over + 24], STEP_S, 110).after_s == 0


def test_what_fills_up_within_a_day_is_foreseen() -> None:
    """In 30 hours, by its own last hours: the day before it knows nothing of it."""
    for seed in range(3):
        values = busy(8, seed)
        full = 30 * 12
        values[-full:] += np.arange(full) / full * 200
        over = next(
            at for at in range(0, len(values), 12) if np.median(values[at : at + 12]) >= 200
        )
        said = crossing(values[: over - 9 * 12], STEP_S, 200)
        assert said.probability >= 0.5
        assert said.after_s is not None
        assert abs(said.after_s - 9 * 3600) <= 4 * 3600


def test_a_step_is_no_fast_rise() -> None:
    """However large it is, at whatever hour one looks at it."""
    for seed in range(3):
        values = busy(8, seed)
        values[7 * DAY :] += 60
        for hours in range(1, 24):
            assert crossing(values[: 7 * DAY + hours * 12], STEP_S, 200).probability < 0.5


def test_a_line_over_a_gap_is_no_rise() -> None:
    """A quiet night without a value, and then a high one: between them nobody knows."""
    values = np.tile(50 + 5 * np.sin(np.arange(24) * 2 * np.pi / 24), 8)
    values += np.random.default_rng(3).normal(size=len(values))
    values[-14:-2] = np.nan
    values[-2:] = 130
    for end in (len(values) - 1, len(values)):
        assert crossing(values[:end], 3600, 140).probability < 0.5


def test_nearer_is_more_probable() -> None:
    """Of a leak that goes on, the closer the limit the surer."""
    values = busy(8)
    values[5 * DAY :] += np.arange(3 * DAY) / DAY * 20
    said = [crossing(values, STEP_S, limit).probability for limit in (124, 130, 136, 142)]
    assert said == sorted(said, reverse=True)
    assert said[0] - said[2] > 0.1


def test_what_is_no_leak_is_not_foreseen() -> None:
    """A day's rise, a step, noise, a limit far away, a fall."""
    for seed in range(3):
        values = busy(8, seed)
        assert all(
            crossing(values[:at], STEP_S, 80).probability < 0.5
            for at in range(2 * DAY, 8 * DAY, 36)
        )
        values[5 * DAY :] += 15  # up to 77, and no further
        assert all(
            crossing(values[:at], STEP_S, 86).probability < 0.5
            for at in range(2 * DAY, 8 * DAY, 36)
        )
    assert crossing(np.arange(8.0 * DAY), STEP_S, 1e6).after_s is None
    assert crossing(-np.arange(8.0 * DAY), STEP_S, 100).probability == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(), max_size=80),
    st.sampled_from([60.0, 3600.0, 7000.0, 86400.0, 1e9]),
    st.floats(),
)
def test_any_numbers_give_a_probability(values: list[float], step_s: float, limit: float) -> None:
    """Whatever they are."""
    said = crossing(np.array(values), step_s, limit)
    assert 0 <= said.probability <= 1
    assert said.after_s is None or 0 <= said.after_s <= 86400
    assert math.isfinite(said.probability)
