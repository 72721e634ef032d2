"""Replay that survives a request which kills the process while it is decoded.

A file beside the log counts starts that found the lake at the same position. From the third on, the
position of each request is noted before it is decoded; the one noted when the process died is the
culprit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

_STARTS: Final = 3


class CarefulReplay:
    """Remembers, across crashes, where decoding stood."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "replay.json"
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
        fresh.write_text(json.dumps(self._state))
        fresh.replace(self._path)

    def last_committed(self) -> int:
        """A lower bound of the lake's position, known without opening the lake."""
        return int(self._load().get("position") or 0)

    def begin(self, position: int) -> None:
        """Replay starts at `position`, the lake's."""
        before = self._load()
        same = before.get("position") == position
        starts = int(before.get("starts") or 0) + 1 if same else 1
        self._careful = starts >= _STARTS
        if self._careful and before.get("current") is not None:
            self._poisoned = before["current"]
        self._state = {"position": position, "starts": starts, "current": None}
        self._save()

    def poisoned(self, position: int) -> bool:
        """Whether the request at this position killed the process before."""
        return position == self._poisoned

    def before(self, position: int) -> None:
        """The request at this position is decoded next."""
        if self._careful:
            self._state["current"] = position
            self._save()

    def committed(self, position: int) -> None:
        """The lake holds everything before this position: all is well again."""
        self._careful = False
        self._poisoned = None
        self._state = {"position": position, "starts": 0, "current": None}
        self._save()
