"""Failures of which nobody said that they are over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from engram.learning.recall.folding import equal
from engram.learning.recall.items import Item
from engram.learning.recall.judging import together

if TYPE_CHECKING:
    from engram.learning.recall.engine import Recall

PROBLEMS: Final = ("system_error", "ui_error")

OPEN_NS: Final = 7 * 86_400 * 10**9
"""An error that did not come back for so long is no open problem."""


_RESOLVED: Final = 500
"""The newest resolutions that are looked at."""


def open_problems(
    recall: Recall, failures: Sequence[Item], now_ns: int, as_of_ns: int | None
) -> list[Item]:
    """Of some failures, newest first, those that were not resolved since; repetitions counted."""
    recent = [one for one in failures if (one.time_unix_nano or 0) >= now_ns - OPEN_NS]
    if not recent:
        return []
    solved = _resolved(recall, recent, as_of_ns)
    problems: list[Item] = []
    for one in recent:
        if any(
            at >= (one.time_unix_nano or 0) and error_type in _names(one)
            for error_type, at in solved
        ):
            continue
        for place, other in enumerate(problems):
            if equal(other, one):
                problems[place] = together(other, one)
                break
        else:
            problems.append(one)
    return problems


def _resolved(
    recall: Recall, failures: Sequence[Item], as_of_ns: int | None
) -> list[tuple[str, int]]:
    """Types of errors for which a fix worked, and when. By subject: the type of the error."""
    since = min(one.time_unix_nano or 0 for one in failures)
    found = recall.lake.newest(
        _RESOLVED, only={"type": ["error_resolution"], "outcome": ["ok"], "source": ["mark"]},
        without={"trust": ["browser", "unknown", ""]}, since_ns=since,
        until_ns=(1 << 62) if as_of_ns is None else as_of_ns,
    )  # fmt: skip
    return [
        (str(name), one.time_unix_nano or 0)
        for one in found
        if one.trust and (name := one.meta_data.get("error_type") or one.subject)
    ]


def _names(one: Item) -> set[str]:
    """What a failure's type is called: `sqlalchemy.exc.TimeoutError`, `TimeoutError`."""
    full = str(one.meta_data.get("type") or "")
    return {full, full.rpartition(".")[2]} - {""}


__all__ = ["OPEN_NS", "PROBLEMS", "open_problems"]
