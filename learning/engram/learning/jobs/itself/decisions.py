"""Decisions about settings as insights, and back: what was decided is read from the lake alone."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

from engram.exporters.itself.settings import COMPACT, HOUR, PACE, Chosen, bounds
from engram.learning.jobs.insight import Insight
from engram.learning.jobs.itself.said import NAME, insight
from engram.learning.jobs.itself.trials import LOOKS, Decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engram.learning.jobs.runner import Read

_ACTIONS: Final = ("tried", "kept", "taken back")
SINCE: Final = 400 * 24 * HOUR
"""How far back decisions are read; one that is older does not hold any more."""


def told(one: Decision) -> Insight:
    """A decision as an insight: what, why, from, to, and what is expected or was measured."""
    name, old, new = _words(one.setting, one.old, one.new)
    if one.action == "tried":
        title = f"Engram tries {name} {new} instead of {old}"
        content = (
            f"Because {one.reason} (n = {one.n}). Expected: it costs less. The old and the new "
            f"value take turns by the hour; after {LOOKS[0]} to {LOOKS[-1]} pairs of hours it is "
            "kept or taken back."
        )
    else:
        verb = "keeps" if one.action == "kept" else "takes back"
        title = f"Engram {verb} {name} {new} instead of {old}"
        content = f"Because {one.reason}."
        if one.ratio is not None and one.interval is not None:
            content += (
                f" Measured: {one.ratio:.2f} times the cost of {old} "
                f"({one.interval.low:.2f} to {one.interval.high:.2f}, 99 %, n = {one.n} pairs "
                "of hours)."
            )
    measured = one.ratio is not None and one.interval is not None
    return insight(
        ("setting", one.setting, one.action, str(one.hour)), title, content, one.hour * HOUR,
        importance=0.5, evidence=[one.id] if one.id else [], what="setting", setting=one.setting,
        action=one.action, old=one.old, new=one.new, n=one.n, reason=one.reason,
        ratio=round(one.ratio or 0.0, 4) if measured else None,
        low=round(one.interval.low, 4) if measured and one.interval else None,
        high=round(one.interval.high, 4) if measured and one.interval else None,
    )  # fmt: skip


def read_back(read: Read, before: int) -> list[Decision]:
    """What was decided before a time, in order. Only Engram's own word counts."""
    rows = read(
        """
        SELECT id, time_unix_nano AS time, attributes FROM lake.memories
        WHERE type = 'ai_insight' AND source = 'mark' AND trust = 'engram'
            AND list_contains(tags, $1) AND time_unix_nano >= $2 AND time_unix_nano < $3
            AND json_extract_string(attributes, '$.what') = 'setting'
        ORDER BY time_unix_nano, id
        """,
        [f"job:{NAME}", max(0, before - SINCE), before],
    )
    found = []
    for id_, time, text in rows.iter_rows():
        one = _decision(id_, time, text)
        if one is not None:
            found.append(one)
    return found


def chosen(decisions: Sequence[Decision]) -> dict[str, Chosen]:
    """What is to be in force after some decisions, where it is not as configured."""
    last = {one.setting: one for one in sorted(decisions, key=lambda one: one.hour)}
    found = {}
    for setting, one in last.items():
        limits = bounds(setting)
        value = one.old if one.action == "taken back" else one.new
        if limits is not None and (one.action == "tried" or value != limits.usual):
            found[setting] = Chosen(value, one.old, one.action == "tried")
    return found


def _decision(id_: str, time: int, text: str | None) -> Decision | None:
    try:
        said: Any = json.loads(text or "{}")
        old, new = float(said["old"]), float(said["new"])
        action, setting = said["action"], str(said["setting"])
    except (ValueError, KeyError, TypeError):
        return None
    if action not in _ACTIONS or bounds(setting) is None or not math.isfinite(old + new):
        return None
    return Decision(
        setting, action, old, new, time // HOUR, id_, n=int(said.get("n", 0)),
        reason=str(said.get("reason", "")), ratio=said.get("ratio"),
    )  # fmt: skip


def _words(setting: str, old: float, new: float) -> tuple[str, str, str]:
    if setting == COMPACT:
        return "maintenance every", f"{old:g} s", f"{new:g} s"
    return (
        f"job {setting.removeprefix(PACE)} every", f"{5 * old:g} min", f"{5 * new:g} min",
    )  # fmt: skip


__all__ = ["chosen", "read_back", "told"]
