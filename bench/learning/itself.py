"""What it costs that Engram tells of itself: a note, a record, and the hourly look of the job.

python bench/learning/itself.py
"""

from __future__ import annotations

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
from engram.learning.jobs.runner import Reader
from engram.learning.jobs.window import Window

WEEK_MINUTES = 7 * 24 * 60
START = 500_000 * HOUR


def main() -> None:
    """Print CPU seconds."""
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
