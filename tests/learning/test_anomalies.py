"""Anomalies of a series: what each point is scored by, and the filter over JSON lines."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.exporters.errors import BadRequest
from engram.learning import lab
from engram.learning.anomalies import Floats, anomaly_scores


def noise(size: int = 1500, seed: int = 0) -> Floats:
    """A still series."""
    return 50 + np.random.default_rng(seed).standard_normal(size)


def scores(values: Floats) -> Floats:
    """Of a series with a point a minute."""
    return anomaly_scores(60.0 * np.arange(len(values)), values)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.none() | st.floats(), max_size=120), st.integers(0, 120))
def test_a_score_depends_on_the_points_up_to_it(values: list[float | None], cut: int) -> None:
    """Whatever follows, and whatever they are: 0 to 1, and 0 for what is no number."""
    whole = anomaly_scores(range(len(values)), values)
    part = anomaly_scores(range(len(values[:cut])), values[:cut])
    assert whole[: len(part)].tolist() == part.tolist()
    assert np.all((whole >= 0) & (whole <= 1))
    assert not any(one for one, value in zip(whole, values, strict=True) if value is None)


def test_a_prefix_of_a_long_series_scores_the_same() -> None:
    """Past what is remembered too."""
    values = np.cumsum(noise(7000) - 50)
    for cut in (31, 400, 5001, 6500):
        assert np.array_equal(scores(values)[:cut], scores(values[:cut]))


@pytest.mark.parametrize("factor", [1e-6, 0.5, -3.0, 1e6])
def test_the_unit_does_not_matter(factor: float) -> None:
    """Milliseconds or hours."""
    assert scores(factor * noise()) == pytest.approx(scores(noise()), abs=1e-6)


def test_a_spike_and_a_shift_are_above_noise_and_said_once() -> None:
    """The first point of it, not the hundreds after."""
    spike = noise()
    spike[1000] += 9
    found = scores(spike)
    assert found.argmax() == 1000
    assert found[1000] > 1.3 * np.delete(found[200:], 800).max()
    shift = noise()
    shift[1000:] += 6
    found = scores(shift)
    assert 1000 <= found.argmax() < 1012
    assert (found[1020:1380] < 0.25).all()


def test_a_shift_too_small_for_a_point_shows_in_the_mean() -> None:
    """By one point it is noise."""
    shift = noise(3000)
    shift[2500:] += 2.5
    assert 2500 <= scores(shift)[1000:].argmax() + 1000 < 2530


def test_a_still_series_and_one_with_gaps() -> None:
    """No news in a constant; the first change of it is; what is missing changes nothing."""
    assert scores(np.full(500, 0.1)).max() < 1e-9
    zeros = np.zeros(500)
    zeros[300] = 1e-9
    assert scores(zeros).argmax() == 300
    assert scores(zeros)[300] > 0.9
    gaps = np.repeat(noise(), 2)
    gaps[1::2] = np.nan
    assert np.array_equal(scores(gaps)[::2], scores(noise()))
    assert not scores(gaps)[1::2].any()


def test_the_filter() -> None:
    """A line out for every line in, in order; nonsense is refused by name."""
    said = [
        {"id": n, "timestamps": list(range(40)), "values": [None, *range(39)]} for n in (7, "x")
    ]
    target = io.BytesIO()
    lab.run("anomalies", io.BytesIO("\n".join(map(json.dumps, said)).encode()), target)
    answers = [json.loads(line) for line in target.getvalue().splitlines()]
    assert [one["id"] for one in answers] == [7, "x"]
    assert all(len(one["scores"]) == 40 for one in answers)
    for bad in (
        {"timestamps": [1], "values": [1, 2]},
        {"timestamps": [1], "values": ["a"]},
        {"timestamps": [1], "values": [[1]]},
        {"timestamps": 3, "values": [1]},
        {"values": [1]},
    ):
        with pytest.raises(BadRequest):
            lab.run("anomalies", io.BytesIO(json.dumps(bad).encode()), io.BytesIO())
