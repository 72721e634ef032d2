"""How often a trial keeps what helps and what does not, and what telling of itself costs.

python bench/learning/itself.py
"""

from __future__ import annotations

import math
import random
import tempfile
import time
from pathlib import Path

from engram.exporters.engine import Engine
from engram.exporters.home import Home
from engram.exporters.itself.notes import Notes, Taken
from engram.exporters.itself.settings import COMPACT, HOUR
from engram.exporters.itself.told import request
from engram.exporters.signals import Encoding, Signal
from engram.learning.itself import Itself
from engram.learning.jobs.itself import About
from engram.learning.jobs.itself.decisions import chosen
from engram.learning.jobs.itself.trials import Decision, decide
from engram.learning.jobs.itself.work import Cell
from engram.learning.jobs.runner import Reader
from engram.learning.jobs.window import Window

WEEK_MINUTES = 7 * 24 * 60
START = 500_000 * HOUR


TRIALS = 300


def kept(ratio: float, seed: int) -> bool:
    """Whether a value that changes the cost by so much is kept, amid a load that comes and goes."""
    rng, drift = random.Random(seed), 0.0
    decisions: list[Decision] = []
    told: dict[int, Cell] = {}
    first = START // HOUR + 97 * seed  # the order of turns is another in each
    for hour in range(first, first + 12 + 52):
        found = decide(hour, {COMPACT: told}, decisions, Itself().may_change)
        if found is not None:
            decisions.append(found)
        held = chosen(decisions).get(COMPACT)
        value = held.at(COMPACT, hour * HOUR) if held else 60.0
        drift = 0.8 * drift + rng.gauss(0, 0.3)
        load = math.exp(math.sin(2 * math.pi * hour / 24) + drift + rng.gauss(0, 0.1))
        cost = 1e6 * load * (ratio if value > 60 else 1.0)
        told[hour] = Cell(value, cost, 3600.0)
    return any(one.action == "kept" for one in decisions)


def main() -> None:
    """Print what is kept, and CPU seconds."""
    for ratio in (1.0, 0.9, 0.8, 0.7, 0.5):
        n = sum(kept(ratio, seed) for seed in range(TRIALS))
        print(f"a value that costs {ratio:g} times as much: kept in {n} of {TRIALS} trials")
    notes = Notes()
    for on in (False, True):
        notes.on = on
        began = time.process_time()
        for _ in range(200_000):
            notes.note("ack", 0.3)
        each = (time.process_time() - began) / 200_000
        print(f"a note, {'on' if on else 'off'}: {each * 1e6:.2f} us CPU")
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        engine = Engine(home)
        engine.start()
        values = {"commit.n": 60, "commit.ms": 900.0, "maintenance.ms": 400.0, COMPACT: 60.0}
        began = time.process_time()
        for minute in range(WEEK_MINUTES):
            at = START + minute * 60 * 10**9
            body = request("collect", at, Taken(60.0, dict(values)))
            last = engine.admit(Signal.LOGS, body, Encoding.IDENTITY, trusted=True, itself=True)
        last.result(60)
        engine.wait_committed(engine.end, 120)
        each = (time.process_time() - began) / WEEK_MINUTES
        print(f"a record, to the lake: {each * 1e3:.2f} ms CPU")
        reader = Reader(home)
        reader.read("SELECT 1", ())
        until = START + WEEK_MINUTES * 60 * 10**9 + HOUR // 6 + 1
        began = time.process_time()
        found = list(About(Itself()).run(reader.read, Window(until - HOUR // 12, until)))
        print(f"the hourly look at a week: {time.process_time() - began:.2f} s CPU, {len(found)}")
        began = time.process_time()
        list(About(Itself()).run(reader.read, Window(until + HOUR // 2, until + HOUR // 2 + 1)))
        print(f"a round in between: {(time.process_time() - began) * 1e3:.2f} ms CPU")
        reader.close()
        engine.shutdown(10)


if __name__ == "__main__":
    main()
