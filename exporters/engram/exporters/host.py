"""The engine of SDK exporters: what an app starts that exports to a home nobody writes to.

A process of its own, at low priority, because decoding, rules and commits cost several times what
an export costs, and would take the app's interpreter lock and memory (docs/adr/005). It serves the
exporters of all processes of this home, and leaves when the last has gone, or when a collector
wants the home. `python -m engram.exporters.host --home HOME --app PID`.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack
from types import FrameType
from typing import Final

from engram.exporters.errors import EngramError, HomeBusy
from engram.exporters.home import Home

_log = logging.getLogger("engram.engine")

ROLE: Final = "engine of SDK exporters"
LINGER_S: Final = 2.0
"""It stays this long after the last exporter hung up: another worker or script may follow."""
_LOOK_S: Final = 0.2
_DRAIN_S: Final = 5.0
"""To commit the rest when a collector wants the home. What does not fit stays in the log."""
_STUCK_S: Final = 60.0
"""An engine that nobody uses leaves by then even when it cannot commit."""
_NICE: Final = 10


def serve(home: Home, stop: threading.Event, *, app: int) -> None:
    """Run an engine and its control socket until told to stop, or until nobody exports any more.

    `app` is the process that wanted it: it counts as an exporter for as long as it lives.

    Raises:
        HomeBusy: another process writes to this home, which is as good.
        StoreError: the home or the lake cannot be used.
    """
    from engram.exporters.control import ControlServer
    from engram.exporters.engine import Engine

    engine = Engine(home, role=ROLE)
    control = ControlServer(engine, give_up=stop.set)
    with ExitStack() as running:  # in reverse: nobody connects to an engine that drains
        running.callback(engine.shutdown, _DRAIN_S)
        engine.start()
        control.start()
        running.callback(control.shutdown)
        while not stop.wait(_LOOK_S):
            if engine.failure is not None:
                raise EngramError(f"the engine stopped: {engine.failure}")
            idle = control.idle_s
            if idle <= LINGER_S or _lives(app):
                continue
            if engine.committed >= engine.end or idle > _STUCK_S:
                break


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it lives, as another user
    return True


def main() -> int:
    """Leave the app's session, and serve."""
    parser = argparse.ArgumentParser(prog="engram.exporters.host")
    parser.add_argument("--home", required=True)
    parser.add_argument("--app", required=True, type=int)
    arguments = parser.parse_args()
    home = Home.find(arguments.home)
    if os.fork():
        os._exit(0)  # whoever started this waits for it, and is not bothered when the engine ends
    os.setsid()
    os.umask(0o022)
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)sZ %(levelname)-7s %(name)s: %(message)s"
    )
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    try:
        serve(home, stop, app=arguments.app)
    except HomeBusy as busy:
        _log.info("%s", busy)
    except EngramError as error:
        _log.critical("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
