"""Turns: in a small home all jobs run in every round, in a large one the costly ones take turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engram.exporters.home import Home
from engram.learning.jobs import Insight, Run, Runner, Window
from engram.learning.jobs.turns import turn

ROUND = 300
NOW = 1_800_000_000


class Fake:
    """A job that costs nothing but what the ledger says of it."""

    about = ""

    def __init__(self, name: str, *, patient: bool = True) -> None:
        self.name, self.patient = name, patient

    def run(self, read: Any, window: Window) -> list[Insight]:
        """Nothing."""
        return []


def runner(tmp_path: Path, *jobs: Fake) -> Runner:
    """Nothing ran yet."""
    return Runner(Home(tmp_path / "home"), jobs)


def ran(one: Runner, names: Sequence[str], at: float, cost: dict[str, float]) -> None:
    """They did, over the last five minutes."""
    until = int(at * 1e9)
    one.ledger += [
        Run(name, at, 0.1, until - ROUND * 10**9, until, 0, cpu_seconds=cost[name])
        for name in names
    ]


def test_cheap_jobs_run_in_every_round(tmp_path: Path) -> None:
    """Patient or not."""
    one = runner(tmp_path, Fake("a"), Fake("b", patient=False))
    for at in range(NOW, NOW + 5 * ROUND, ROUND):
        names = turn(one, at * 10**9)
        assert names == ["a", "b"]
        ran(one, names, at, {"a": 0.2, "b": 30.0})


def test_costly_ones_take_turns(tmp_path: Path) -> None:
    """Each within its share, no two in a round, none waits for more than an hour."""
    cost = {"now": 2.0, "large": 40.0, "one": 0.9, "two": 0.9, "small": 0.05}
    one = runner(tmp_path, Fake("now", patient=False), *(Fake(name) for name in list(cost)[1:]))
    rounds = []
    for at in range(NOW, NOW + 48 * ROUND, ROUND):
        names = turn(one, at * 10**9)
        ran(one, names, at, cost)
        rounds.append(set(names))
    assert rounds[0] == set(cost)  # nobody knew what they cost
    later = rounds[1:]
    assert all("now" in names for names in rounds)
    assert all(len(names & {"large", "one", "two"}) <= 1 for names in later)
    assert 3 <= sum("large" in names for names in later) <= 4  # each hour, whatever it costs
    assert 8 <= sum("one" in names for names in later) <= 13  # 0.9 s in 18 minutes
    assert sum("small" in names for names in later) >= 30


def test_what_catches_up_or_failed_does_not_wait(tmp_path: Path) -> None:
    """The cost of a month says nothing about five minutes; an error is tried again."""
    one = runner(tmp_path, Fake("a"), Fake("b"), Fake("c"))
    until = NOW * 10**9
    one.ledger = [
        Run("a", NOW, 60.0, 0, until, 9, cpu_seconds=60.0),
        Run("b", NOW, 60.0, until - 10**9, until, 0, "no", cpu_seconds=60.0),
        Run("c", NOW, 60.0, until - 10**9, until, 0, cpu_seconds=60.0),
    ]
    assert turn(one, (NOW + ROUND) * 10**9) == ["a", "b"]


def test_a_clock_that_went_back_stops_no_job(tmp_path: Path) -> None:
    """A run in the future is no reason to wait."""
    one = runner(tmp_path, Fake("a"))
    ran(one, ["a"], NOW + 9_000_000, {"a": 50.0})
    assert turn(one, NOW * 10**9) == ["a"]
