"""Decisions put in force: from the lake to `learn/settings.json`, before each round of jobs."""

from __future__ import annotations

import logging
from typing import Final

from engram.exporters.errors import EngramError
from engram.exporters.home import Home
from engram.exporters.itself import settings as files
from engram.exporters.itself.settings import Chosen
from engram.learning.itself import Itself
from engram.learning.jobs.itself.decisions import chosen, read_back
from engram.learning.jobs.runner import Reader

_LOG: Final = logging.getLogger("engram.learn")


def apply(home: Home, about: Itself, now_ns: int, *, decided: bool = True) -> dict[str, Chosen]:
    """Put in force what was decided, of what may be changed; the rest is as configured.

    Nothing `decided` since the last time: what the file says is looked at, not the lake, whose
    attaching costs half a second of CPU.
    """
    there = files.path(home).exists()
    found: dict[str, Chosen] = {}
    try:
        if not about.changes:
            files.path(home).unlink(missing_ok=True)
            return found
        now = _decided(home, now_ns) if decided or not there else files.Settings(home).chosen()
        found = {name: one for name, one in now.items() if about.may_change(name)}
        files.write(home, found)
    except EngramError as error:
        _LOG.debug("decisions cannot be read, settings stay as they are: %s", error)
    except OSError as error:
        _LOG.warning("settings cannot be written: %s", error)
    return found


def _decided(home: Home, now_ns: int) -> dict[str, Chosen]:
    reader = Reader(home)
    try:
        return chosen(read_back(reader.read, now_ns))
    finally:
        reader.close()


__all__ = ["apply"]
