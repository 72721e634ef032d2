"""Change points: a step is found where it is, noise has none, and nothing breaks it."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.exporters.errors import BadRequest
from engram.learning import lab
from engram.learning.changepoints import Series, changepoints


def noise(rng: np.random.Generator, length: int, rho: float = 0.0) -> Series:
    """AR(1) of variance 1."""
    out = rng.normal(size=length) * math.sqrt(1 - rho * rho)
    for at in range(1, length):
        out[at] += rho * out[at - 1]
    return out


@pytest.mark.parametrize("length", [60, 288, 2000])
def test_a_clear_step_is_found_within_two_points(length: int) -> None:
    """Up or down, anywhere in the middle, at any scale."""
    rng = np.random.default_rng(1)
    for turn in range(40):
        values = noise(rng, length)
        at = int(rng.integers(length // 5, 4 * length // 5))
        values[at:] += 6 * (-1) ** turn
        found = changepoints(values * 10.0 ** (turn - 20))
        assert len(found) == 1
        assert abs(found[0] - at) <= 2


def test_two_changes_and_a_return() -> None:
    """An hour of trouble has a beginning and an end."""
    values = noise(np.random.default_rng(2), 288)
    values[150:162] += 12
    assert changepoints(values) == [150, 162]


@pytest.mark.parametrize(("rho", "rate"), [(0.0, 0.01), (0.5, 0.02), (0.8, 0.05)])
def test_noise_has_no_changes(rho: float, rate: float) -> None:
    """Not more than at the stated rate of the series, of several lengths."""
    rng = np.random.default_rng(3)
    series = [noise(rng, length, rho) for length in (30, 100, 288) for _ in range(60)]
    assert np.mean([bool(changepoints(one)) for one in series]) <= rate


def test_single_outliers_are_no_changes() -> None:
    """Nor do they hide one."""
    values = noise(np.random.default_rng(4), 200)
    values[[30, 77, 150]] += [400, -300, 500]
    assert changepoints(values) == []
    values[100:] += 8
    assert [abs(one - 100) <= 2 for one in changepoints(values)] == [True]


def test_gaps_are_left_out_and_indices_stay() -> None:
    """The index is that of the values said, gaps and all."""
    values = [1.0, 1.1] * 20 + [math.nan] * 15 + [5.0, 5.1] * 20
    assert changepoints(values) == [55]


numbers = st.floats() | st.sampled_from([0.0, 1.0, -1.0, 1e308, -1e308, 5e-324])


@settings(max_examples=150, deadline=None)
@given(st.lists(numbers, max_size=60))
def test_any_numbers_give_ascending_indices(values: list[float]) -> None:
    """Whatever they are; the same again, and scaled by a power of two."""
    found = changepoints(values)
    assert found == sorted(set(found))
    assert all(0 < one < len(values) and math.isfinite(values[one]) for one in found)
    assert changepoints(values) == found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(-40, 40), st.integers(-100, 100))
def test_shift_and_scale_do_not_matter(seed: int, power: int, shift: int) -> None:
    """Nor does the sign."""
    rng = np.random.default_rng(seed)
    values = noise(rng, 80, 0.3) + 3 * (np.arange(80) > int(rng.integers(10, 70)))
    found = changepoints(values)
    assert changepoints(-values * 2.0**power) == found
    assert changepoints(values + shift) == found


def test_constants_and_short_series_have_none() -> None:
    """From 0 to 10 points, equal or not there."""
    for length in range(11):
        assert changepoints([7.0] * length) == []
        assert changepoints([math.nan] * length) == []
        assert changepoints([0.1] * length) == []
    assert changepoints([1e15 + 0.1] * 500) == []
    assert changepoints([0.0] * 10 + [1.0] * 10) == [10]


def ask(*said: Any) -> list[Any]:
    """Answers of the filter."""
    out = io.BytesIO()
    lab.run("changepoints", io.BytesIO("\n".join(map(json.dumps, said)).encode()), out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_the_filter() -> None:
    """One line out for each line in; nonsense has a word."""
    step = [1, 2] * 10 + [None] + [50, 51.5] * 10
    answers = ask({"id": "a", "values": step}, {"id": 2, "values": []}, {"values": [None]})
    assert answers == [
        {"id": "a", "changepoints": [21]},
        {"id": 2, "changepoints": []},
        {"id": None, "changepoints": []},
    ]
    wrongs: list[Any] = [
        {}, {"values": 5}, {"values": ["1"]}, {"values": [[1]]}, {"values": [True]},
        {"values": [10**400]}, [],
    ]  # fmt: skip
    for wrong in wrongs:
        with pytest.raises(BadRequest):
            ask(wrong)
