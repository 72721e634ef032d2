"""The lock of a home: one process writes at a time, and a forked child does not keep it.

| who | holds it |
|---|---|
| `Engine` (in `collect`, or in the engine process of SDK exporters) | as long as it runs |
| an SDK exporter that found nobody to hand its requests to | while it appends one to the log |
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Final

from engram.exporters.errors import HomeBusy, StoreError
from engram.exporters.forks import leave_to_parent

_POLL_S: Final = 0.005
SHORT_S: Final = 1.0
"""Longer than an exporter needs for one append: after that, the holder is an engine."""


class HomeLock:
    """An flock on a file of the home, which names its holder for people. Not reentrant."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        leave_to_parent(self)

    @property
    def held(self) -> bool:
        """Whether this process has the lock."""
        return self._descriptor is not None

    def acquire(self, role: str, wait_s: float = SHORT_S) -> None:
        """Take the lock, and wait for it at most this long.

        Raises:
            HomeBusy: another process has it; the text names it.
            StoreError: the file cannot be opened.
        """
        deadline = time.monotonic() + wait_s
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"cannot lock {self._path.parent}: {error.strerror}") from error
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise HomeBusy(self._busy(descriptor)) from None
                    time.sleep(_POLL_S)
            with contextlib.suppress(OSError):  # it is for people: a full disk must not matter
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n{role}\n".encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back. Safe twice."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # also for a copy that a C fork left somewhere
            os.close(descriptor)

    def _busy(self, descriptor: int) -> str:
        lines = os.pread(descriptor, 256, 0).decode(errors="replace").split("\n")
        pid, role = [*lines, "", ""][:2]
        who = f"pid {pid.strip() or 'unknown'}" + (f", {role.strip()}" if role.strip() else "")
        return (
            f"{self._path.parent} is written by another process ({who}); "
            "stop it, or use another home with --home"
        )

    def after_fork_in_child(self) -> None:
        """Close the copy, without unlocking what is the parent's."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


__all__ = ["SHORT_S", "HomeLock"]
