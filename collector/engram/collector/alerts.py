"""`engram alerts test`: whether each hook can be reached."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from engram.collector.component import Kind
from engram.collector.config import Config
from engram.exporters.errors import NotFound
from engram.learning.alerts.choose import trial
from engram.learning.alerts.hooks import hooks
from engram.learning.alerts.settings import Alerts


def settings_of(config: Config) -> Alerts:
    """Who is told what: nobody, when the service does not list `alerts`."""
    return config.settings(Kind.EXTENSION, "alerts", Alerts) or Alerts()


def try_out(config: Config) -> list[dict[str, Any]]:
    """Send a test message to every hook; what came back.

    Raises:
        NotFound: there is no hook.
    """
    found = hooks(settings_of(config))
    if not found:
        raise NotFound(
            f"no alerts.webhooks and no alerts.commands in {config.file}, or service.extensions "
            "does not list alerts; see docs/alerts.md"
        )
    told = []
    for hook in found:
        answer = hook.send(trial(time.time_ns()))
        told.append({"hook": hook.about, "ok": answer.ok, "answer": answer.text})
    return told


def lines(told: Sequence[dict[str, Any]]) -> Iterator[str]:
    """For people to read."""
    for one in told:
        yield f"{'ok' if one['ok'] else 'failed':7} {one['hook']}: {one['answer'] or 'no words'}"


__all__ = ["lines", "settings_of", "try_out"]
