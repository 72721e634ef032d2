"""Forecasts: known shapes go on, intervals hold what comes, and nothing breaks it."""

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
from engram.learning.forecast import forecast

HOUR = 3600


def test_a_day_goes_on() -> None:
    """At its hour, by its size; also with gaps in it."""
    at = np.arange(24 * 14 + 24)
    truth = 100 + 40 * np.sin(at * 2 * np.pi / 24)
    history = truth[:-24].copy()
    assert np.abs(forecast(history, HOUR, 24).mean - truth[-24:]).max() < 1
    history[[5, 100, 101, 102, 250]] = np.nan
    assert np.abs(forecast(history, HOUR, 24).mean - truth[-24:]).max() < 4


def test_a_week_goes_on() -> None:
    """The weekend is not a weekday."""
    at = np.arange(24 * 7 * 5)
    values = np.where(at // 24 % 7 < 5, 100.0, 20.0) + np.sin(at)
    said = forecast(values[: -24 * 7], HOUR, 24 * 7).mean
    assert np.abs(said - values[-24 * 7 :]).mean() < 8


def test_a_ramp_goes_on() -> None:
    """A disk that fills by a little each hour."""
    values = 10 + 0.5 * np.arange(300) + np.random.default_rng(1).normal(size=300)
    said = forecast(values[:-24], HOUR, 24)
    assert np.abs(said.mean - (10 + 0.5 * np.arange(276, 300))).max() < 4


def test_after_a_step_the_new_level_counts() -> None:
    """Not the mean of both."""
    values = np.r_[np.full(200, 10.0), np.full(60, 90.0)] + np.random.default_rng(2).normal(
        size=260
    )
    assert np.abs(forecast(values, HOUR, 12).mean - 90).max() < 8


def test_nine_of_ten_are_inside() -> None:
    """About: white noise, a wandering level and a noisy day together."""
    rng = np.random.default_rng(3)
    inside = []
    for turn in range(45):
        values = rng.normal(size=400)
        if turn % 3 == 1:
            values = np.cumsum(values)
        elif turn % 3 == 2:
            values += 5 * np.sin(np.arange(400) * 2 * np.pi / 24)
        said = forecast(values[:-24], HOUR, 24)
        inside.append(np.mean((said.lo90 <= values[-24:]) & (values[-24:] <= said.hi90)))
    assert 0.82 <= np.mean(inside) <= 0.98


def test_what_was_never_negative_does_not_become_so() -> None:
    """Counts and durations."""
    values = np.maximum(0, 50 - 0.3 * np.arange(160))
    said = forecast(values, HOUR, 48)
    assert min(said.mean.min(), said.lo90.min()) >= 0
    assert forecast(values - 100, HOUR, 48).lo90.min() < -90


def test_no_history_is_no_forecast_and_little_is_a_wide_one() -> None:
    """0 to 10 points."""
    assert np.isnan(forecast(np.array([]), 60, 3).mean).all()
    assert np.isnan(forecast(np.array([math.nan] * 5), 60, 3).hi90).all()
    for length in range(1, 11):
        said = forecast(np.full(length, 7.5), 60, 3)
        assert said.mean == pytest.approx([7.5] * 3)
        assert said.lo90 == pytest.approx([7.5] * 3)
    said = forecast(np.array([1.0, 3.0]), 60, 2)
    assert (said.hi90 - said.lo90 >= 2).all()


numbers = st.floats() | st.sampled_from([0.0, 1.0, -1.0, 1e308, -1e308, 5e-324])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(numbers, max_size=120),
    st.sampled_from([0.001, 1.0, 60.0, 1234.5, 21600.0, 86400.0, 1e9]),
    st.integers(1, 30),
)
def test_any_numbers_give_ordered_finite_answers(
    values: list[float], step_s: float, horizon: int
) -> None:
    """And the same again."""
    said = forecast(np.array(values), step_s, horizon)
    assert len(said.mean) == len(said.lo90) == len(said.hi90) == horizon
    if any(map(math.isfinite, values)):
        assert np.isfinite([said.mean, said.lo90, said.hi90]).all()
        assert (said.lo90 <= said.mean).all()
        assert (said.mean <= said.hi90).all()
    again = forecast(np.array(values), step_s, horizon)
    assert np.array_equal(said.mean, again.mean, equal_nan=True)


def test_scale_does_not_matter() -> None:
    """Nor, for what is sometimes negative, the shift."""
    values = np.random.default_rng(4).normal(size=200)
    one = forecast(values, HOUR, 24)
    assert forecast(values * 1e200, HOUR, 24).mean == pytest.approx(one.mean * 1e200, rel=1e-6)
    assert forecast(values - 50, HOUR, 24).hi90 == pytest.approx(one.hi90 - 50, abs=1e-6)


def ask(*said: Any) -> list[Any]:
    """Answers of the filter."""
    out = io.BytesIO()
    lab.run("forecast", io.BytesIO("\n".join(map(json.dumps, said)).encode()), out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_the_filter() -> None:
    """One line out for each line in; nonsense has a word."""
    good = {"id": "a", "values": [3, None, 3, 3.0], "step_s": 60, "horizon": 2}
    three = pytest.approx([3, 3])
    assert ask(good, {**good, "id": 7, "values": []}) == [
        {"id": "a", "mean": three, "lo90": three, "hi90": three},
        {"id": 7, "mean": [None] * 2, "lo90": [None] * 2, "hi90": [None] * 2},
    ]
    wrongs: list[Any] = [{"horizon": 0}, {"horizon": 1.5}, {"horizon": 10**6}, {"horizon": None},
                  {"step_s": 0}, {"step_s": -1}, {"step_s": "60"}, {"step_s": 10**400},
                  {"values": "x"}, {"values": [{}]}
    ]  # fmt: skip
    for wrong in wrongs:
        with pytest.raises(BadRequest):
            ask({**good, **wrong})
