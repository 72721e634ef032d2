"""`engram rederive`: memories rebuilt by the rules that the configuration says now.

Reading and comparing is done here. What differs is stored by the running collector, slice by slice
through its control socket; without one, this process opens the home itself, under the same lock.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from engram.collector.config import Config, duration
from engram.collector.control import NotRunning, ask
from engram.collector.rules import rules_of
from engram.exporters.errors import BadRequest, ConfigError, NotFound, StoreError
from engram.exporters.home import Home
from engram.exporters.rederive import Action, Apply, Outcome, Progress, Selection, rederive
from engram.exporters.rules import Rules
from engram.exporters.slices import write_slice

if TYPE_CHECKING:
    import polars as pl

_OPEN_S: Final = 60.0
_ACTIONS: Final[tuple[Action, ...]] = ("added", "changed", "removed", "restamped", "kept", "same")


def run(
    home: Home, config: Config, selection: Selection, *, dry_run: bool, progress: Progress
) -> Outcome:
    """Rebuild the memories of a home, or only count what would change.

    Raises:
        ConfigError: the configuration's rules are wrong, or not those that the collector runs.
        NotFound: the home has no lake.
        HomeBusy: another process writes to the home without a control socket, or rebuilds it.
    """
    rules = Rules.load([dict(rule) for rule in rules_of(config)])
    if dry_run:
        return rederive(home, rules, None, selection, progress)
    with _writer(home, config, rules.version) as apply:
        return rederive(home, rules, apply, selection, progress)


@contextmanager
def _writer(home: Home, config: Config, version: str) -> Iterator[Apply]:
    """Whoever may write to this home: the collector that runs, or else this process."""
    try:
        status = ask(home, "status")
        deadline = time.monotonic() + _OPEN_S
        while not (status["ready"] and status["rules_version"]):  # it starts
            if time.monotonic() > deadline:
                raise StoreError(
                    f"the collector of {home.root} does not open the lake; see its log"
                )
            time.sleep(0.1)
            status = ask(home, "status")
    except NotRunning:
        with _own(home, config, version) as apply:
            yield apply
        return
    if status["rules_version"] != version:
        raise ConfigError(
            [
                f"the collector of {home.root} runs the rules {status['rules_version']}, and "
                f"{config.file} says {version}; restart the collector with this configuration, "
                "then rederive"
            ]
        )
    slices = 0

    def send(changes: pl.DataFrame) -> list[str]:
        nonlocal slices
        slices += 1
        name = write_slice(home, slices, changes)
        answer = ask(home, "rederive", timeout_s=180.0, slice=name, rules_version=version)
        return list(answer["stale"])

    yield send


@contextmanager
def _own(home: Home, config: Config, version: str) -> Iterator[Apply]:
    from engram.collector.roles.collect import engine_settings
    from engram.exporters.engine import Engine

    if not home.catalog.exists():
        raise NotFound(f"no lake in {home.root}; start one with: engram up --home {home.root}")
    engine = Engine(home, engine_settings(config))
    engine.start()
    try:
        engine.wait_ready(_OPEN_S)  # what the log holds comes first, as at any start
        yield lambda changes: engine.replace(changes, version)
    finally:
        engine.shutdown(10.0)


def since(text: str) -> int:
    """A point in time (ns) from `7d`, `2h`, `2026-11-20` or an ISO time; local without a zone.

    Raises:
        BadRequest: it is none of these.
    """
    try:
        if re.match(r"\d+(\.\d+)?[a-zµ]", text):
            at = datetime.now(UTC) - duration(text)
        else:
            at = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRequest(
            f"--since {text!r} is no time; write 7d, 2h, 2026-11-20 or 2026-11-20T08:30"
        ) from None
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def facts(outcome: Outcome, *, dry_run: bool) -> dict[str, Any]:
    """What was done, for programs."""
    return {
        "dry_run": dry_run,
        "rules_version": outcome.rules_version,
        "records": outcome.records,
        "memories": {action: outcome.count(action) for action in _ACTIONS},
        "types": {
            type_: {action: counter[action] for action in _ACTIONS if counter[action]}
            for type_, counter in sorted(outcome.counts.items())
        },
        "unsettled": outcome.unsettled,
    }


def lines(told: dict[str, Any]) -> Iterator[str]:
    """The same for people."""
    would = "would be " if told["dry_run"] else ""
    yield f"{told['records']} records read, rules {told['rules_version']}"
    words = {
        "added": f"{would}added",
        "changed": f"{would}changed",
        "removed": f"{would}removed",
        "restamped": f"{would}unchanged but for rules_version",
        "kept": "kept: their telemetry is gone",
        "same": "already so",
    }
    for action, text in words.items():
        if number := told["memories"][action]:
            of = ", ".join(
                f"{type_} {counts[action]}"
                for type_, counts in told["types"].items()
                if action in counts
            )
            yield f"{number:>8} {text} ({of})"
    if told["unsettled"]:
        yield f"{told['unsettled']:>8} changed all the while and were left; run it again"
