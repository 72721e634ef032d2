"""Causes along a graph of calls: what is blamed, what is explained, and when to be silent."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest

from engram.exporters.errors import BadRequest
from engram.learning import lab
from engram.learning.rootcause import Causes, Floats, rank_causes

CHAIN = [("web", "shop"), ("shop", "pay"), ("shop", "mail"), ("pay", "db")]
NAMES = ("web", "shop", "pay", "mail", "db")
SIZE, START = 200, 190


def series(usual: float, seed: int) -> Floats:
    """A metric in its usual variation."""
    return usual * (1 + 0.03 * np.random.default_rng(seed).standard_normal(SIZE))


def shop() -> dict[str, dict[str, Any]]:
    """Every component as ever."""
    return {
        name: {
            "latency": series(100.0, seed),
            "availability": np.full(SIZE, 99.5),
            "requests": series(500.0, seed + 90),
        }
        for seed, name in enumerate(NAMES)
    }


def slow(metrics: dict[str, dict[str, Any]], **by: float) -> None:
    """Make components slow from the fourth point of the incident on."""
    for name, more in by.items():
        metrics[name]["latency"][START + 3 :] += more


def causes(metrics: dict[str, Any], graph: Any = CHAIN, target: str | None = "web") -> Causes:
    """Of the incident at the end."""
    return rank_causes(graph, list(range(SIZE)), metrics, [START, SIZE], target)


def test_the_deepest_that_deviates_is_blamed() -> None:
    """Its callers are slow with it, even slower; what it calls is not."""
    metrics = shop()
    slow(metrics, web=90, shop=90, pay=80)
    found = causes(metrics)
    assert found.ranked[0][0] == "pay"
    assert not found.unclear
    assert all(0 <= score <= 1 for _, score in found.ranked)
    assert {name for name, _ in found.ranked} == set(NAMES)


def test_of_another_kind_at_another_time_or_out_of_reach_counts_less() -> None:
    """The cause fails as the target fails, while it fails, and is called by it."""
    metrics = shop()
    metrics["alone"] = {"availability": np.full(SIZE, 99.5)}
    for name, less in (("web", 20.0), ("mail", 25.0), ("alone", 60.0)):
        metrics[name]["availability"][START + 3 :] -= less
    metrics["db"]["latency"][START:] += 400
    assert causes(metrics).ranked[0][0] == "mail"


def test_better_is_no_cause_and_traffic_is_none() -> None:
    """Faster, and called more often."""
    metrics = shop()
    slow(metrics, web=90, mail=80, pay=-60)
    metrics["db"]["requests"][START:] *= 20
    assert causes(metrics).ranked[0][0] == "mail"


def test_a_cycle_explains_nothing_and_ends() -> None:
    """Two that call each other, the worse one is blamed."""
    metrics = shop()
    slow(metrics, web=40, shop=40, pay=200)
    found = causes(metrics, [*CHAIN, ("pay", "shop"), ("db", "pay"), ("web", "web")])
    assert found.ranked[0][0] == "pay"


def test_silence_when_nothing_deviates_or_the_target_does_not() -> None:
    """And when a series is often as bad as now."""
    assert causes(shop()).unclear
    metrics = shop()
    slow(metrics, mail=300)
    assert causes(metrics).unclear
    often = shop()
    for name in ("web", "pay"):
        for start in range(0, SIZE, 10):
            often[name]["latency"][start + 3 : start + 10] += 80
    assert causes(often).unclear


def test_what_is_missing_does_no_harm() -> None:
    """No metrics, none known, unknown target, no time before, nothing at all."""
    metrics = shop()
    slow(metrics, web=90, pay=80)
    metrics["pay"]["latency"][::7] = np.nan
    metrics |= {"ghost": {}, "mute": {"latency": [None] * SIZE}, "mad": {"x": [1e308] * SIZE}}
    assert causes(metrics).ranked[0][0] == "pay"
    assert causes(metrics, [], None).ranked[0][0] in ("web", "pay")
    assert causes(metrics, CHAIN, "unknown").ranked[0][0] == "pay"
    assert rank_causes(CHAIN, list(range(SIZE)), metrics, [0, SIZE], "web").unclear
    assert rank_causes([], [], {}, [0, 1]) == Causes([], True)


def test_the_filter() -> None:
    """A line out for every line in; nonsense is refused."""
    metrics = shop()
    slow(metrics, web=90, shop=90, pay=80)
    said = {
        "id": "i",
        "graph": CHAIN,
        "times": list(range(SIZE)),
        "metrics": {a: {b: list(v) for b, v in of.items()} for a, of in metrics.items()},
        "incident": [START, SIZE],
        "target": "web",
    }
    target = io.BytesIO()
    lines = json.dumps(said) + "\n" + json.dumps(said | {"id": 2, "incident": [50, 60]})
    lab.run("rootcause", io.BytesIO(lines.encode()), target)
    first, second = map(json.loads, target.getvalue().splitlines())
    assert (first["id"], first["ranked"][0], first["unclear"]) == ("i", "pay", False)
    assert (second["id"], second["unclear"]) == (2, True)
    assert first["scores"] == sorted(first["scores"], reverse=True)
    nonsense: tuple[dict[str, Any], ...] = (
        {"graph": ["ab"]},
        {"graph": [["a"]]},
        {"times": [1]},
        {"times": ["x"]},
        {"metrics": []},
        {"metrics": {"a": {"b": [1]}}},
        {"metrics": {"a": 3}},
        {"incident": [1]},
        {"incident": ["a", "b"]},
    )
    for bad in nonsense:
        with pytest.raises(BadRequest):
            lab.run("rootcause", io.BytesIO(json.dumps(said | bad).encode()), io.BytesIO())
