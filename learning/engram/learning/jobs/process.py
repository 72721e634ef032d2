"""Jobs in a process of their own: what they take of memory goes with them, and they run nicely.

`learn` starts one every five minutes and stays small itself. A process that dies, whatever of,
takes nothing along: the ledger knows what was done, and the next one begins where it ended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from engram.exporters.home import Home
from engram.learning.itself import OFF, Itself
from engram.learning.jobs.runner import EVERY_S, FIRST_S
from engram.learning.limits import Limits

_LOG: Final = logging.getLogger("engram.learn")

_LOOK_S: Final = 0.2
_LEAVE_S: Final = 3.0
MOST_S: Final = 1_800.0
"""For all jobs together; each has a budget of its own (`budget.py`)."""

NICENESS: Final = 10


def loop(
    home: Home,
    stop: threading.Event,
    *,
    limits: Limits | None = None,
    about: Itself = OFF,
    every_s: float = EVERY_S,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Run all jobs now and then, until told to stop. `after` is called after each round."""
    wait = min(FIRST_S, every_s)
    while not stop.wait(wait):
        once(home, stop, limits, about)
        after()
        wait = every_s


def once(
    home: Home, stop: threading.Event, limits: Limits | None = None, about: Itself = OFF
) -> int | None:
    """Run all jobs once; the exit code, or None when they were stopped."""
    level = logging.getLevelName(logging.getLogger().level)
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", "engram.learning.jobs", str(home.root), str(level)],
        stdin=subprocess.PIPE,
    )
    assert process.stdin is not None  # noqa: S101 - said to the type checker
    with contextlib.suppress(OSError), process.stdin as pipe:
        pickle.dump((limits, about), pipe)
    left = MOST_S
    try:
        while process.poll() is None:
            if stop.wait(_LOOK_S):
                return None
            left -= _LOOK_S
            if left <= 0:
                _LOG.warning("jobs ran for %.0f s and are stopped; they go on next time", MOST_S)
                return None
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_LEAVE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    if process.returncode:
        _LOG.warning("jobs ended with %d; they begin again next time", process.returncode)
    return process.returncode


def main(arguments: list[str]) -> int:
    """Run all jobs of a home once: `HOME [LEVEL]`; the settings are on standard input."""
    from engram.exporters.itself.settings import Settings
    from engram.learning.jobs import configured
    from engram.learning.jobs.budget import Budget
    from engram.learning.jobs.itself import NAME
    from engram.learning.jobs.itself.applied import apply
    from engram.learning.jobs.itself.ledger import due
    from engram.learning.jobs.runner import Runner

    level = arguments[1] if len(arguments) > 1 else "INFO"
    logging.basicConfig(
        level=level if level.isalpha() else "INFO",
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    os.nice(NICENESS)
    said = sys.stdin.buffer.read()
    settings: tuple[Limits | None, Itself] = (None, OFF)
    if said:
        settings = pickle.loads(said)  # noqa: S301 - of our parent
    limits, about = settings
    home = Home(Path(arguments[0]))
    runner = Runner(home, configured(limits, about), budget=Budget())
    last = runner.last(NAME)
    apply(home, about, time.time_ns(), decided=last is None or last.insights > 0)
    names = due(runner, Settings(home), time.time_ns())
    if names:  # none of them is not all of them
        runner.step(names)
    return 0


__all__ = ["MOST_S", "NICENESS", "loop", "main", "once"]
