"""What every role's process shares: how it is told to stop, and how it says that it is ready."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

_LEAVE_S: Final = 8.0
"""A supervised role whose supervisor died leaves within this time even when its shutdown hangs."""

_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Supervised:
    """How a role is tied to its supervisor. Stand-alone roles have no ready descriptor."""

    ready_fd: int | None = None

    def ready(self, facts: Mapping[str, Any]) -> None:
        """Tell the supervisor, once, that the work has begun and where."""
        if self.ready_fd is None:
            return
        with os.fdopen(self.ready_fd, "w") as pipe:
            json.dump({"pid": os.getpid(), **facts}, pipe)


def stop_event(supervised: Supervised) -> threading.Event:
    """An event that is set by SIGTERM, SIGINT, or the death of the supervisor.

    Must be called in the main thread. A supervised role ignores SIGINT: Ctrl-C reaches the whole
    group of processes, and the supervisor decides the order in which they stop.
    """
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal if supervised.ready_fd is None else signal.SIG_IGN)
    if supervised.ready_fd is not None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        threading.Thread(target=_watch_stdin, args=(stop,), name="supervisor", daemon=True).start()
    return stop


def _watch_stdin(stop: threading.Event) -> None:
    """The supervisor holds the other end of our stdin: its end is the supervisor's."""
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    stop.set()
    time.sleep(_LEAVE_S)
    os._exit(1)


def set_up_log(level: str) -> None:
    """Log lines on stderr, with times in UTC."""
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        level="WARNING" if level == "warn" else level.upper(),
        format="%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
        stream=sys.stderr,
        force=True,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # that it starts and stops, we say
