"""A short, busy life of an engine, to be run under `powercut.so`: `python workload.py HOME`.

Notes in the trace: `ack TABLE NAME ...` after a future completed, `step ...` for what comes next.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
from pathlib import Path

from tests.durability import load

from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.home import Home
from engram.exporters.signals import Encoding, Signal
from engram.exporters.wal import Wal

_SEGMENT_BYTES = 3000
QUIET = EngineSettings(
    commit_interval_s=0.05, compact_interval_s=1e9, limit_memory_bytes=1 << 40, redaction=None
)


def _note(text: str) -> None:
    if "powercut" in os.environ.get("LD_PRELOAD", ""):
        ctypes.CDLL(None).powercut_note(text.encode())


class Life:
    """Sends, and notes what was acknowledged."""

    def __init__(self, home: Home) -> None:
        self._engine = Engine(home, QUIET)
        self._engine._wal = Wal(home.wal, segment_bytes=_SEGMENT_BYTES)
        self._engine.start()

    def send(self, signal: Signal, body: bytes, *names: str) -> None:
        """One request, and its acknowledgement."""
        self._engine.admit(signal, body, Encoding.IDENTITY).result(30)
        _note(f"ack {load.TABLE_OF[signal]} {' '.join(names)}")

    def commit(self) -> None:
        """Wait until all is queryable."""
        _note("step commit")
        self._engine.wait_committed(self._engine.end, 30)

    def compact(self) -> None:
        """A round of maintenance that keeps nothing for readers."""
        _note("step compact")
        self._engine.compact(grace_s=0)

    def end(self) -> None:
        """Stop in order."""
        _note("step shutdown")
        self._engine.shutdown(30)


def main(root: Path) -> None:
    """Two starts, a dozen commits each, merges of memories, compactions, segment rolls."""
    home = Home(root)
    number = itertools.count()
    for session in range(2):
        _note(f"step start {session}")
        life = Life(home)
        for round_ in range(12 if session == 0 else 6):
            for _ in range(2):
                names = [f"r{next(number)}" for _ in range(3)]
                life.send(Signal.TRACES, load.spans(*names), *names)
            name = f"l{next(number)}"
            life.send(Signal.LOGS, load.logs(name), name)
            name = f"m{next(number)}"
            life.send(Signal.METRICS, load.metrics(name), name)
            call = f"c{session}-{round_}"
            life.send(Signal.LOGS, load.llm_event(call), f"event-{call}")
            if round_:
                earlier = f"c{session}-{round_ - 1}"
                life.send(Signal.TRACES, load.llm_span(earlier), earlier)
            life.commit()
            if round_ in (5, 11):
                life.compact()
        name = f"last{session}"
        life.send(Signal.TRACES, load.spans(name), name)
        life.end()
    _note("step end")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
