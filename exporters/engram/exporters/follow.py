"""Reading the log behind the acknowledgement, at one's own pace, across restarts.

The position is one line of fixed length beside the log, written in place: cheap enough for every
step, and after a power cut it is either whole or seen to be broken. A broken or old one only means
that some requests are read again.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engram.exporters import files
from engram.exporters.signals import Signal
from engram.exporters.wal import Entry, Hold, Wal

_log = logging.getLogger("engram.follow")
_LINE: Final = re.compile(rb"(\d{20}) \1\n")


@dataclass(frozen=True, slots=True)
class Window:
    """Some requests of the log, in order."""

    entries: Sequence[Entry]
    """Those of the signals that are followed; there may be none."""

    end: int
    """What to `advance` to when all of them are done with."""


class Follower:
    """One reader of the log, at least once. `read`, use, `advance`; from one thread."""

    def __init__(self, wal: Wal, path: Path, signals: frozenset[Signal]) -> None:
        self._wal = wal
        self._path = path
        self._file = -1
        self._said = 0
        self._hold = Hold(0, signals)
        wal.hold(self._hold)

    def open(self) -> None:
        """Take up the position where it was left; the first time, what arrives from now on."""
        found = self._path.read_bytes() if self._path.exists() else None
        if found is None:
            position = self._wal.end
            files.write_synced(self._path, _line(position))
        elif match := _LINE.fullmatch(found):
            position = min(int(match[1]), self._wal.end)
            if position < self._wal.oldest():  # it was not configured for a while
                _log.warning("%s: what came meanwhile is not in the log any more", self._path.stem)
        else:
            position = self._wal.oldest()
            _log.warning(
                "%s is damaged; requests since log position %d go out again", self._path, position
            )
        self._file = os.open(self._path, os.O_WRONLY)
        self._hold.advance(position)

    @property
    def position(self) -> int:
        """Everything before it is done with, or lost."""
        return self._hold.position

    @property
    def behind_bytes(self) -> int:
        """How much of the log is still to be read."""
        return max(0, self._wal.end - self.position)

    @property
    def lost(self) -> int:
        """Requests that the log gave up before they were read, since the start."""
        return self._hold.lost

    def wait(self, timeout_s: float) -> bool:
        """Wait until there is something to read; whether there is."""
        return self._wal.wait(self.position, timeout_s)

    def read(self, max_entries: int, max_bytes: int) -> Window:
        """The next requests, up to a number and a size; one that is larger comes alone."""
        start, size, entries = self.position, 0, list[Entry]()
        end = durable = self._wal.end
        try:
            for entry in self._wal.read(start, durable):
                if entry.signal in self._hold.signals:
                    size += len(entry.body)
                    if entries and (size > max_bytes or len(entries) >= max_entries):
                        end = entry.position
                        break
                    entries.append(entry)
        except FileNotFoundError:  # the log gave the segment up this moment
            end = entries[-1].end if entries else start
        return Window(entries, end)

    def advance(self, position: int) -> None:
        """Be done with everything before a position, also after a restart."""
        self._hold.advance(position)
        if self._file >= 0:
            os.pwrite(self._file, _line(self._hold.position), 0)

    def close(self) -> None:
        """Stop. Safe twice."""
        if self._file >= 0:
            os.fsync(self._file)
            os.close(self._file)
            self._file = -1


def _line(position: int) -> bytes:
    return b"%020d %020d\n" % (position, position)
