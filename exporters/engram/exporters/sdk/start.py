"""How an exporter starts the engine of its home: in a process, in a thread, or not at all."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Final

from engram.exporters.errors import EngramError, StoreError
from engram.exporters.forks import leave_to_parent
from engram.exporters.home import Home

_log = logging.getLogger("engram.exporter")

_VARIABLE: Final = "ENGRAM_EXPORTER_ENGINE"
_KINDS: Final = ("process", "thread", "none")
_STOP_S: Final = 10.0
_LOG_BYTES: Final = 1 << 20
_AUTO: Final = os.path.join("opentelemetry", "instrumentation", "auto_instrumentation")

_LIFE_FD: Final = 3
"""The engine process holds a pipe at this descriptor: its end is the engine's."""


class Started:
    """An engine that this process started, as far as it can be told from outside."""

    def __init__(self, alive: Callable[[], bool], pipe: int = -1) -> None:
        self._alive = alive
        self._pipe = pipe
        leave_to_parent(self)

    def alive(self) -> bool:
        """Whether it still starts, serves, or ends."""
        return self._alive()

    def forget(self) -> None:
        """Look after it no more."""
        pipe, self._pipe = self._pipe, -1
        self._alive = bool
        if pipe >= 0:
            os.close(pipe)

    def after_fork_in_child(self) -> None:
        """It is the parent's."""
        self.forget()


_threads: dict[str, tuple[threading.Thread, threading.Event]] = {}


def wanted() -> str:
    """`process` (the default), `thread` or `none`, from `ENGRAM_EXPORTER_ENGINE`."""
    kind = os.environ.get(_VARIABLE, "").strip().lower() or "process"
    return kind if kind in _KINDS else "process"


def start_engine(home: Home) -> Started:
    """Start it and come back at once, long before it serves.

    Raises:
        StoreError: there is no Python interpreter to start.
        OSError: the system refused.
    """
    return _start_thread(home) if wanted() == "thread" else _start_process(home)


def _start_process(home: Home) -> Started:
    if "python" not in os.path.basename(sys.executable or "").lower():
        raise StoreError(
            f"{sys.executable or 'this program'} is no Python interpreter; run a collector for "
            f"{home.root}, or set {_VARIABLE}=thread"
        )
    log = home.root / "engine.log"
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        flags |= os.O_TRUNC
    command = [sys.executable, "-P", "-m", "engram.exporters.host"]
    command += ["--home", str(home.root), "--app", str(os.getpid())]
    # posix_spawn, not subprocess: no copy of the app, no handlers of the app at the fork, and it
    # works while the interpreter goes down.
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    try:
        pid = os.posix_spawn(
            sys.executable, command, _environment(), setpgroup=0,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, writer, _LIFE_FD),  # before 0 to 2, which it may be
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, str(log), flags, 0o600),
            ],
        )  # fmt: skip
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    with contextlib.suppress(ChildProcessError):  # the app collects its children by itself
        os.waitpid(pid, 0)  # it forks and leaves at once, so that the engine is no child of the app

    def alive() -> bool:
        try:
            return os.read(reader, 1) != b""
        except BlockingIOError:
            return True

    return Started(alive, reader)


def _environment() -> dict[str, str]:
    """The app's, without what would instrument the engine and make it export to itself."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    environment["OTEL_SDK_DISABLED"] = "true"
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    kept = [path for path in paths if path and not path.rstrip(os.sep).endswith(_AUTO)]
    environment["PYTHONPATH"] = os.pathsep.join(kept)
    return environment


def _start_thread(home: Home) -> Started:
    from engram.exporters.host import serve

    stop = threading.Event()

    def run() -> None:
        try:
            serve(home, stop, app=os.getpid())
        except EngramError as error:
            _log.info("engram exporter: no engine in this process: %s", error)

    thread = threading.Thread(target=run, name="engram-engine", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # the interpreter goes down
        raise StoreError(str(error)) from error
    _threads[str(home.root)] = thread, stop
    return Started(thread.is_alive)


def stop_thread(home: Home) -> None:
    """Let an engine in this process commit what it has, and end."""
    thread, stop = _threads.pop(str(home.root), (None, None))
    if thread is not None and stop is not None:
        stop.set()
        thread.join(_STOP_S)


os.register_at_fork(after_in_child=_threads.clear)

__all__ = ["Started", "start_engine", "stop_thread", "wanted"]
