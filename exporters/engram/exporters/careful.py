"""Replay that survives a request which kills the process while it is decoded.

A file beside the log counts starts that found the lake at the same position. From the second on,
the position of each request is noted while it is decoded. The request at which the process died
twice in a row is the culprit: once may be a `kill -9` that came by chance.
"""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Final

_log = logging.getLogger("engram.engine")
_STARTS: Final = 2


class CarefulReplay:
    """Remembers, across crashes, where decoding stood. Used by the pipeline and the committer."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "replay.json"
        self._lock = threading.Lock()
        self._state: dict[str, int | None] = {}
        self._careful = False
        self._poisoned: int | None = None

    def _load(self) -> dict[str, int | None]:
        try:
            state = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def _save(self) -> None:
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(self._state))
            fresh.replace(self._path)
        except OSError as error:  # a full disk: it is only a help, and must not stop the engine
            _log.warning("cannot note where decoding stands: %s", error)

    def last_committed(self) -> int:
        """A lower bound of the lake's position, known without opening the lake."""
        return int(self._load().get("position") or 0)

    def begin(self, position: int) -> None:
        """Replay starts at `position`, the lake's."""
        before = self._load()
        if before.get("position") != position:
            before = {}
        starts, died_at = int(before.get("starts") or 0) + 1, before.get("current")
        suspect = before.get("suspect")
        with self._lock:
            self._careful = starts >= _STARTS
            if died_at is not None:
                if died_at == suspect:
                    self._poisoned = died_at
                suspect = died_at
            self._state = {
                "position": position, "starts": starts, "current": None, "suspect": suspect,
            }  # fmt: skip
            self._save()

    def poisoned(self, position: int) -> bool:
        """Whether the request at this position killed the process before."""
        return position == self._poisoned

    @property
    def active(self) -> bool:
        """Whether every request is noted: the process died several times without a commit."""
        return self._careful

    def before(self, position: int) -> None:
        """The request at this position is decoded next."""
        self._note(position)

    def after(self) -> None:
        """Its memories are made, or it is in quarantine: a death from now on is not its doing."""
        self._note(None)

    def _note(self, position: int | None) -> None:
        if self._careful:
            with self._lock:
                if self._careful:
                    self._state["current"] = position
                    self._save()

    def committed(self, position: int) -> None:
        """The lake holds everything before this position: all is well again."""
        with self._lock:
            self._careful = False
            self._poisoned = None
            self._state = {"position": position, "starts": 0, "current": None, "suspect": None}
            self._save()
