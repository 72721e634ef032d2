"""What was told, what waits and what is held back: `learn/alerts.json`, written before it is done.

A message is written down as begun before it goes out. One that was begun when the process died may
have arrived, so it is not sent again: never twice is the promise, not always once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from engram.exporters import files
from engram.exporters.errors import StoreError
from engram.learning.alerts.choose import Found, alert, link, summary, wanted
from engram.learning.alerts.hooks import Answer, Hook
from engram.learning.alerts.settings import Alerts

_LOG: Final = logging.getLogger("engram.alerts")

SECOND: Final = 10**9
HOUR: Final = 3600 * SECOND
DAY: Final = 24 * HOUR

FIRST_WAIT: Final = 30 * SECOND
LAST_WAIT: Final = HOUR
"""A hook that fails is tried again after 30 s, then twice as long each time, up to an hour."""

_MOST_HELD: Final = 1_000


@dataclass(slots=True)
class State:
    """All that is remembered, as it is in the file. Times in ns."""

    looked: int = 0
    """When the lake was last looked at."""
    begins: int = 0
    """Nothing that was recorded before is told; -1: before the next look."""
    told: dict[str, int] = field(default_factory=dict)
    """Insights that were chosen, by id: sent, held or quiet."""
    subjects: dict[str, int] = field(default_factory=dict)
    """When something was last said of each subject."""
    times: list[int] = field(default_factory=list)
    """When alerts were let out, in the last hour."""
    held: list[dict[str, Any]] = field(default_factory=list)
    """Those beyond the limit: they come as one."""
    summed: int = 0
    """When they last did."""
    waiting: list[dict[str, Any]] = field(default_factory=list)
    """Messages: `{message, hooks, begun, since}`."""
    failing: dict[str, dict[str, int]] = field(default_factory=dict)
    """Hooks that failed last time: `{times, next}`."""


class Outbox:
    """The state of alerts. Constructing reads the file."""

    def __init__(self, path: Path, settings: Alerts, hooks: Sequence[Hook]) -> None:
        self._path = path
        self._settings = settings
        self._hooks = {hook.name: hook for hook in hooks}
        self.state = _load(path)
        for one in self.state.waiting:
            if one["begun"]:
                _LOG.warning("an alert may not have arrived: %s", one["message"].get("title"))
                one["hooks"] = [name for name in one["hooks"] if name != one["begun"]]
                one["begun"] = ""

    def take(self, some: Sequence[Found], now: int) -> int:
        """Choose among insights what will be sent; how many messages were added.

        What happened more than a day ago is history, not news.
        """
        state, settings = self.state, self._settings
        before = len(state.waiting)
        quiet = round(settings.quiet.total_seconds() * SECOND)
        # More than a day, which is how old an insight may be: none is taken for a new one.
        state.told = {id_: at for id_, at in state.told.items() if at > now - 3 * DAY}
        state.subjects = {one: at for one, at in state.subjects.items() if at > now - quiet}
        state.times = [at for at in state.times if at > now - HOUR]
        if state.begins < 0:
            state.begins = now
        for one in some:
            if one.id in state.told or one.time < now - DAY or not wanted(one, settings):
                continue
            state.told[one.id] = now
            if one.subject in state.subjects:
                continue
            if quiet:
                state.subjects[one.subject] = now
            if len(state.times) < settings.per_hour:
                state.times.append(now)
                self._add(alert(one, settings), now)
            else:
                told = {"id": one.id, "title": one.title, "url": link(one.id, settings)}
                state.held = [*state.held, told][-_MOST_HELD:]
        if state.held and now - state.summed >= HOUR:
            self._add(summary(state.held, now), now)
            state.held, state.summed = [], now
        state.looked = now
        self.save()
        return len(state.waiting) - before

    def send(self, now: int) -> None:
        """Send what waits, to each hook in order; one that fails is left alone for a while."""
        state = self.state
        for one in list(state.waiting):
            for name in list(one["hooks"]):
                hook = self._hooks.get(name)
                if hook is None or now - int(one["since"]) > DAY:
                    _LOG.warning("an alert is given up: %s", one["message"].get("title"))
                    one["hooks"].remove(name)
                elif state.failing.get(name, {}).get("next", 0) <= now:
                    one["begun"] = name
                    self.save()
                    self._sent(one, hook, hook.send(one["message"]), now)
            if not one["hooks"]:
                state.waiting.remove(one)
        self.save()

    def next_try(self) -> int | None:
        """When something that waits may be tried again; None: nothing waits."""
        names = {name for one in self.state.waiting for name in one["hooks"]}
        return min((self.state.failing.get(one, {}).get("next", 0) for one in names), default=None)

    def save(self) -> None:
        """Write the state, so that a crash leaves the old one or this one.

        Raises:
            StoreError: it cannot be written; then nothing may be sent.
        """
        state = {name: getattr(self.state, name) for name in State.__slots__}
        try:
            files.make_directory(self._path.parent, 0o700)
            fresh = self._path.with_suffix(".new")
            files.write_synced(fresh, json.dumps(state).encode())
            fresh.replace(self._path)
            files.sync_directory(self._path.parent)
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error.strerror}") from error

    def _add(self, message: dict[str, Any], now: int) -> None:
        hooks = sorted(self._hooks)
        one = {"message": message, "hooks": hooks, "begun": "", "since": now}
        self.state.waiting.append(one)

    def _sent(self, one: dict[str, Any], hook: Hook, answer: Answer, now: int) -> None:
        one["begun"] = ""
        if answer.ok or not answer.again:
            self.state.failing.pop(hook.name, None)
            one["hooks"].remove(hook.name)
            if not answer.ok:
                _LOG.warning("%s refuses an alert: %s", hook.about, answer.text)
        else:
            times = self.state.failing.get(hook.name, {}).get("times", 0) + 1
            wait = min(LAST_WAIT, FIRST_WAIT << min(times - 1, 10))
            self.state.failing[hook.name] = {"times": times, "next": now + wait}
            _LOG.warning("%s failed, again in %d s: %s", hook.about, wait // SECOND, answer.text)
        self.save()


def _load(path: Path) -> State:
    try:
        kept = json.loads(path.read_text())
        state = State(**kept)
        if not all(isinstance(one["message"], dict) and "hooks" in one for one in state.waiting):
            raise TypeError("a message that is none")
        return state
    except FileNotFoundError:
        return State()
    except (ValueError, KeyError, TypeError, OSError) as error:
        _LOG.warning("%s cannot be read, alerts begin anew: %s", path, error)
        # What is there now was told, as far as anybody knows: nothing twice.
        return State(begins=-1)


__all__ = ["DAY", "FIRST_WAIT", "HOUR", "LAST_WAIT", "Outbox", "State"]
