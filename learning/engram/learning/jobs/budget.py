"""What a run of a job may cost: time and memory. Beyond it the run ends, and says so.

A query is interrupted where it is; code between queries by a signal, in the main thread of a
process of its own, which is where `learn` runs jobs (`process.py`).
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from engram.exporters.errors import EngramError

_LOOK_S: Final = 0.2
_PAGE: Final = 4096
_STATM: Final = Path("/proc/self/statm")


class OverBudget(EngramError):
    """A run cost more than it may."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Of one run of one job."""

    seconds: float = 120.0
    resident_bytes: int = 3 << 30


def resident() -> int:
    """Resident memory of this process in bytes; 0 where the system does not tell."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


@contextlib.contextmanager
def within(budget: Budget | None, interrupt: Callable[[], None]) -> Iterator[Callable[[], int]]:
    """Run what is inside within a budget; yields what tells the most memory that was seen.

    `interrupt` ends a query that is running; it is called from another thread.

    Raises:
        OverBudget: it cost more.
    """
    peak = [resident()]
    over: list[str] = []
    done = threading.Event()
    main = threading.current_thread() is threading.main_thread()

    def stop(number: int, frame: FrameType | None) -> None:
        if over and not done.is_set():
            raise OverBudget(over[0])

    def watch() -> None:
        left = budget.seconds if budget is not None else 0.0
        while not done.wait(_LOOK_S):
            now = resident()
            peak[0] = max(peak[0], now)
            left -= _LOOK_S
            if budget is None:
                continue
            if left <= 0:
                over.append(f"it took longer than its budget of {budget.seconds:g} s")
            elif now > budget.resident_bytes:
                over.append(f"it took more than {budget.resident_bytes >> 20:,} MB")
            if over:
                while not done.wait(_LOOK_S):
                    interrupt()
                    if main:
                        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                return

    before: Any = signal.signal(signal.SIGUSR1, stop) if main and budget is not None else None
    watcher = threading.Thread(target=watch, name="budget", daemon=True)
    watcher.start()
    try:
        yield lambda: max(peak[0], resident())
    except OverBudget:
        raise
    except Exception as error:
        if over:
            raise OverBudget(over[0]) from error
        raise
    finally:
        done.set()
        watcher.join()
        if before is not None:
            signal.signal(signal.SIGUSR1, before)


__all__ = ["Budget", "OverBudget", "resident", "within"]
