"""Predictions: what was foreseen, what is still open, and how good they were.

By fields that a job's insights have: a `probability` and a `deadline_ns` make one a prediction, and
`prediction` (its id) with a `verdict` or `state` the outcome of one. What is `muted` was foreseen
in silence: it is scored, and no sentence of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from engram.learning.intervals import wilson
from engram.learning.report.insights import Said, said, simple
from engram.learning.report.model import Section, Statement
from engram.learning.report.period import Period
from engram.learning.report.words import clean, counted, percent

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

KEY: Final = "predictions"
_DAYS: Final = 28
"""Whose outcomes make the score, and whose predictions may be open."""
_MOST: Final = 5


def section(read: Read, period: Period, of: Sequence[Said], then: Sequence[Said]) -> Section:
    """What the job said in the period, what is open at its end, and the score of four weeks."""
    quiet = "Nothing was predicted and nothing fell due."
    told = simple(KEY, "Predictions", of, quiet, then, period.other)
    long = Period.of(period.first - timedelta(days=_DAYS), _DAYS + period.days, period.until)
    known = said(read, long, job=KEY)
    results = {str(one.facts["prediction"]): one for one in known if "prediction" in one.facts}
    shown = {one.id for one in of}
    more = [*_open(known, results, shown, period.until), *_score(known, results)]
    return Section(KEY, told.title, (*told.statements, *more), quiet="" if more else told.quiet)


def _open(
    known: Sequence[Said], results: dict[str, Said], shown: set[str], until: int
) -> list[Statement]:
    found = [
        one
        for one in known
        if one.id not in results
        and one.id not in shown
        and not one.facts.get("muted")
        and _number(one.facts.get("probability")) is not None
        and (_number(one.facts.get("deadline_ns")) or 0) >= until
    ]
    found.sort(key=lambda one: (-float(one.facts["probability"]), one.id))
    made = []
    for one in found[:_MOST]:
        by = datetime.fromtimestamp(one.facts["deadline_ns"] // 10**9, UTC)
        text = f"{clean(one.title, 250)} (until {by:%Y-%m-%d %H:%M} UTC, probability "
        text += f"{percent(float(one.facts['probability']))})"
        made.append(Statement(text, one.n, (one.id, *one.evidence[:2]), mark="open"))
    return made


def _score(known: Sequence[Said], results: dict[str, Said]) -> list[Statement]:
    scored = []
    for one in known:
        result = results.get(one.id)
        sure = _number(one.facts.get("probability"))
        if result is None or sure is None:
            continue
        scored.append((sure, (result.facts.get("verdict") or result.state) == "hit", result.id))
    if not scored:
        return []
    n, hits = len(scored), sum(hit for _, hit, _ in scored)
    brier = sum((sure - hit) ** 2 for sure, hit, _ in scored) / n
    low, high = wilson(hits, n)
    text = f"Of {counted(n, 'prediction')} of four weeks that are decided {hits} came true: "
    text += f"{percent(hits / n)} (95 % interval {percent(low)} to {percent(high)}); "
    text += f"Brier score {brier:.3f}."
    return [Statement(text, n, tuple(id_ for _, _, id_ in scored[:3]))]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


__all__ = ["KEY", "section"]
