"""What is a spike, a silence or news among errors that follow the load and come in clusters."""

from __future__ import annotations

import random
from itertools import pairwise

import polars as pl

from engram.learning.alerts.choose import Found, wanted
from engram.learning.alerts.settings import Alerts
from engram.learning.jobs import Insight, Window
from engram.learning.jobs.errors import DAY, HOUR, RARE, Pattern, changes, patterns
from engram.learning.jobs.unusual import CHANCE, silences, spike

ALWAYS = Window(0, 2**62)


def said(times: list[int], others: int = 0) -> list[Insight]:
    """What is said of an error at some times."""
    ids = tuple(f"m{one}" for one in range(len(times)))
    error = Pattern("shop", "p", "E in f", "E", tuple(times), ids, times[0], others)
    return list(changes(error, ALWAYS, None))


def aloud(some: list[Insight]) -> list[str]:
    """The states that somebody is told of."""
    return [
        str(one.facts["state"]) for one in some
        if wanted(Found("", one.type, one.title, "", 0, one.importance, one.tags, "", {}), Alerts())
    ]  # fmt: skip


def hours_of_business(weeks: int, an_hour: float, seed: int) -> list[int]:
    """Errors of a service that works from 8 to 18, with a retry now and then; day 0 is a Monday."""
    rng = random.Random(seed)
    times = []
    for hour in range(weeks * 7 * 24):
        if hour // 24 % 7 < 5 and 8 <= hour % 24 < 18:
            for _ in range(sum(rng.random() < an_hour / 10 for _ in range(10))):
                when = hour * HOUR + rng.randrange(HOUR)
                times += [when + n * HOUR // 120 for n in range(1 + 2 * (rng.random() < 0.2))]
    return sorted(times)


def test_nights_and_weekends_are_no_end_of_an_error() -> None:
    """An error that comes hourly at work, in clusters, is not back each Monday, nor spiking."""
    for seed in range(5):
        times = hours_of_business(4, 1.0, seed)
        after = [one for one in said(times) if one.time_unix_nano >= 8 * DAY]
        assert [str(one.facts["state"]) for one in after] == []


def test_a_silence_is_as_rare_as_it_says() -> None:
    """Of errors that come at random, one gap in a thousand is taken for a silence, or fewer."""
    rng = random.Random(7)
    gaps = silent = 0
    for _ in range(400):
        times = [0]
        for _ in range(30):
            times.append(times[-1] + round(rng.expovariate(1 / (2 * DAY))))
        for (before, now), limit in zip(pairwise(times), silences(times), strict=False):
            gaps += 1
            silent += now - before >= limit
    assert silent <= 2 * CHANCE * gaps
    often = [n * 6 * HOUR for n in range(40)]
    assert [*silences(often)][-1] <= 4 * DAY  # and yet it ends


def test_a_spike_is_far_above_the_highest_hour() -> None:
    """A morning is none, however empty the night; what doubles the highest hour is one."""
    night_and_day = [0] * 14 + [8, 10, 12, 15, 11, 9, 10, 12, 9, 8]
    assert max(night_and_day) * 2 < spike(night_and_day) <= 40
    assert spike([0] * 168) == 10
    assert spike([1000, 900]) == 2000


def test_where_new_errors_are_usual_only_those_that_last_are_news() -> None:
    """The first occurrence is kept quiet where others were new; the third within a day is not."""
    assert aloud(said([DAY])) == ["new"]
    assert aloud(said([DAY, DAY + 1, DAY + 2])) == ["new"]  # said once
    assert aloud(said([DAY], others=RARE + 1)) == []
    assert aloud(said([DAY, DAY + HOUR, DAY + 2 * HOUR], others=RARE + 1)) == ["lasting"]
    assert aloud(said([DAY, 2 * DAY, 3 * DAY], others=RARE + 1)) == []


def test_what_else_is_new_is_counted_over_all_services() -> None:
    """Of the week before its own first occurrence, itself and later ones left out."""
    firsts = {"a": DAY, "b": 2 * DAY, "c": 3 * DAY, "d": 9 * DAY, "e": 10 * DAY}
    ages = pl.DataFrame(
        [{"service": f"s{name}", "pattern": name, "first": at} for name, at in firsts.items()]
    )
    rows = pl.DataFrame(
        [{"id": name, "service": f"s{name}", "pattern": name, "time_unix_nano": at, "title": "",
          "type": ""} for name, at in firsts.items()]
    )  # fmt: skip
    assert {one.name: one.others for one in patterns(rows, ages)} == {
        "a": 0, "b": 1, "c": 2, "d": 2, "e": 2,
    }  # fmt: skip
