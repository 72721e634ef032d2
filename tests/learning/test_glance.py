"""A glance at an error's runs leaves out only errors of which there is nothing to say."""

from __future__ import annotations

import random

import numpy as np
import polars as pl
from tests.telemetry import T0

from engram.learning.jobs import Window
from engram.learning.jobs.solutions import statements
from engram.learning.jobs.solutions.history import History
from engram.learning.jobs.solutions.read import Glance, _Runs
from engram.learning.jobs.solutions.resolved import perhaps_resolved
from engram.learning.jobs.solutions.trials import Change, perhaps_decided

MINUTE = 60 * 10**9
VERSIONS = ["", "1", "2", "3"]


def lived(dice: random.Random) -> tuple[History, Glance, list[Change], int]:
    """An error of two operations, with incidents, changes and deploys, and its last moment."""
    count = dice.choice((40, 400, 3_000))
    end = T0 + count * MINUTE
    times = sorted(T0 + dice.randrange(count * 60) * 10**9 + at for at in range(count))
    cuts = sorted(dice.randrange(count) for _ in range(dice.choice((0, 1, 2))))
    mixed = dice.random() < 0.5  # an old version goes on running
    version = [
        max(1, sum(at >= cut for cut in cuts) + 1 - (mixed and dice.random() < 0.4))
        for at in range(count)
    ]
    begin = dice.randrange(count)
    bad = range(begin, min(count, begin + dice.choice((1, 5, 40, 400))))
    rate = dice.choice((0.02, 0.3, 0.9))
    sick, quiet = dice.choice((None, 1, 1, 2)), dice.choice((1, 30))
    failed = [
        dice.random() < (rate if at in bad else rate / quiet) and sick in (None, version[at])
        for at in range(count)
    ]
    stray = [dice.randrange(T0, end) for _ in range(dice.choice((0, 0, 2)))]
    own = np.unique([*(time for time, fails in zip(times, failed, strict=True) if fails), *stray])
    if not len(own):
        own = np.array([times[0]])
    own = own.astype(np.int64)
    frame = pl.DataFrame(
        {"operation": [dice.randrange(2) for _ in times], "start": times, "version": version},
        schema={"operation": pl.Int32, "start": pl.Int64, "version": pl.Int32},
    )
    both = _Runs(frame, VERSIONS)
    starts, on, names, fails = both.with_failures((0, 1), own)
    history = History(
        "shop", "E in f", "E in f: no", "E", ("a", "b"), starts, fails, on, names,
        tuple(f"m{at}" for at in range(len(own))), tuple(own.tolist()),
    )  # fmt: skip
    changes = [
        Change("remedy", dice.choice("ab"), dice.randrange(T0, end), f"c{at}",
               gave_up=dice.random() < 0.1)
        for at in range(dice.choice((0, 0, 0, 1, 6)))
    ]  # fmt: skip
    changes += [
        Change("deploy", VERSIONS[version[cut]], times[cut], version=VERSIONS[version[cut]])
        for cut in cuts
    ]
    return history, both.glance((0, 1), own), changes, end


def test_what_is_left_out_has_nothing_to_say() -> None:
    """Of 1,000 errors, each in a window of its own, and many are left out."""
    said = left_out = 0
    for seed in range(1_000):
        dice = random.Random(seed)
        history, glance, changes, end = lived(dice)
        # Most is said soon after a failure.
        near = dice.choice(history.times) + dice.randrange(20 * MINUTE)
        window = Window(dice.choice((near, near, dice.randrange(T0, end))), end)
        found = list(statements(history, changes, window, {}))
        if perhaps_resolved(glance) or perhaps_decided(glance, changes, window.since):
            said += bool(found)
            continue
        left_out += 1
        assert found == [], f"seed {seed}: {found[0].title}"
    assert said >= 60
    assert left_out >= 120


def test_a_glance_counts() -> None:
    """Of several operations together; a failure that is no run belongs to no version."""
    frame = pl.DataFrame(
        {"operation": [0, 1, 0, 1, 0], "start": [1, 2, 3, 4, 5], "version": [1, 1, 2, 2, 2]},
        schema={"operation": pl.Int32, "start": pl.Int64, "version": pl.Int32},
    )
    both = _Runs(frame, VERSIONS)
    glance = both.glance((0, 1), np.array([2, 4], np.int64))
    assert (glance.on, glance.between, glance.after, glance.newest) == (("1", "2"), 2, 1, "2")
    stray = both.glance((1, 7), np.array([3], np.int64))
    assert (stray.on, stray.between, stray.after, stray.newest) == ((None,), 0, 1, "2")
    nothing = both.glance((7,), np.array([3], np.int64))
    assert (nothing.on, nothing.after) == ((None,), 0)


def beside(runs: list[tuple[int, bool]]) -> tuple[History, Glance]:
    """An error by the version and the outcome of its runs, a minute apart."""
    starts = np.array([T0 + at * MINUTE for at in range(len(runs))])
    frame = pl.DataFrame(
        {"operation": [0] * len(runs), "start": starts, "version": [one for one, _ in runs]},
        schema={"operation": pl.Int32, "start": pl.Int64, "version": pl.Int32},
    )
    own = starts[[fails for _, fails in runs]]
    known = _Runs(frame, VERSIONS)
    begun, on, names, failed = known.with_failures((0,), own)
    ids = tuple(f"m{at}" for at in range(len(own)))
    history = History(
        "shop", "E in f", "E in f: no", "E", ("a",), begun, failed, on, names, ids,
        tuple(own.tolist()),
    )  # fmt: skip
    return history, known.glance((0,), own)


def test_a_new_version_is_judged_while_the_old_one_fails_on() -> None:
    """The old one's failures after the deploy decide nothing about the new one."""
    history, glance = beside([(1, True)] * 20 + [(2, False), (1, True)] * 10 + [(2, False)] * 60)
    done = [Change("deploy", "2", T0 + 20 * MINUTE, version="2")]
    since = T0 + 41 * MINUTE
    found = list(statements(history, done, Window(since, T0 + 200 * MINUTE), {}))
    assert any(one.title.startswith("Version 2 worked 1 of 1") for one in found)
    assert perhaps_decided(glance, done, since)
    assert not perhaps_decided(glance, [Change("remedy", "x", T0)], since)


def test_resolved_by_a_version_while_the_old_one_fails_on() -> None:
    """Runs after the last failure are not all that counts."""
    history, glance = beside([(1, True)] * 60
                             + [(2, False), (2, False), (1, True)] * 300)  # fmt: skip
    found = statements(history, [], Window(0, T0 + 10_000 * MINUTE), {})
    assert any(one.title.startswith("Resolved in shop since version 2") for one in found)
    assert perhaps_resolved(glance)
