"""The settings that Engram may change by itself: which, within which bounds, and what is in force.

`learn` writes them to `learn/settings.json` from what the job `engram` said; whoever owns a setting
reads it there and holds it to the bounds below, whatever the file says. Without the file everything
is as configured.

While a new value is tried, it and the old one take turns by the hour, each once in every two hours
and in an order that nobody chose (a hash): so what else changes, day and night or a deploy, changes
both alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

from engram.exporters import files, own
from engram.exporters.home import Home

HOUR: Final = 3_600 * 10**9

COMPACT: Final = "compact_interval"
PACE: Final = "pace."
"""Followed by the name of a job."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of a setting, in its unit."""

    usual: float
    low: float
    high: float

    def held(self, value: float) -> float:
        """The nearest that is allowed."""
        return min(self.high, max(self.low, value)) if value == value else self.usual


BOUNDS: Final = {
    # Seconds. Less often than every ten minutes a busy home has some 600 small files of each table
    # when somebody asks.
    COMPACT: Bounds(60.0, 30.0, 600.0),
    # A job runs at every n-th round of five minutes: at least hourly, for what it says is news.
    PACE: Bounds(1.0, 1.0, 12.0),
}


def bounds(setting: str) -> Bounds | None:
    """Of a setting by its name; None: it is not to be changed, as the pace of who decides."""
    if setting == PACE + own.SERVICE:
        return None
    return BOUNDS.get(PACE if setting.startswith(PACE) else setting)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A setting that is not as configured."""

    value: float
    old: float
    trial: bool
    """Whether both take turns."""

    def at(self, setting: str, time_ns: int) -> float:
        """What is in force at a time."""
        return self.value if not self.trial or new_in(setting, time_ns // HOUR) else self.old


def new_in(setting: str, hour: int) -> bool:
    """Whether the hour is one of the new value's, while it is tried."""
    seed = blake2b(f"{setting}:{hour // 2}".encode(), digest_size=1).digest()[0]
    return bool((seed ^ hour) & 1)


class Settings:
    """What was chosen for a home, read again when the file changes."""

    def __init__(self, home: Home) -> None:
        self._path = path(home)
        self._seen: tuple[int, int] | None = None
        self._chosen: Mapping[str, Chosen] = {}

    def value(self, setting: str, configured: float, time_ns: int) -> float:
        """What is in force, within its bounds."""
        chosen, limits = self.chosen().get(setting), bounds(setting)
        if chosen is None or limits is None:
            return configured
        return limits.held(chosen.at(setting, time_ns))

    def chosen(self) -> Mapping[str, Chosen]:
        """All that is not as configured; nothing where the file is none of ours."""
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size)
            if seen != self._seen:
                told = json.loads(self._path.read_text())
                self._chosen = {
                    str(name): Chosen(float(one["value"]), float(one["old"]), bool(one["trial"]))
                    for name, one in told.items()
                    if bounds(str(name)) is not None
                }
                self._seen = seen
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._seen, self._chosen = None, {}
        return self._chosen


def path(home: Home) -> Path:
    """Where they are written; may be deleted."""
    return home.root / "learn" / "settings.json"


def write(home: Home, chosen: Mapping[str, Chosen]) -> None:
    """Put these in force.

    Raises:
        OSError: it cannot be written.
    """
    at = path(home)
    body = json.dumps({name: asdict(one) for name, one in sorted(chosen.items())}).encode()
    try:
        if at.read_bytes() == body:
            return
    except OSError:
        pass
    files.make_directory(at.parent, 0o700)
    fresh = at.with_suffix(".new")
    files.write_synced(fresh, body)
    fresh.replace(at)


__all__ = [
    "BOUNDS",
    "COMPACT",
    "HOUR",
    "PACE",
    "Bounds",
    "Chosen",
    "Settings",
    "bounds",
    "new_in",
    "path",
    "write",
]
