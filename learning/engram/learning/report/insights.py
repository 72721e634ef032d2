"""What the jobs said in a period: any job, any type, by the tags and fields that all have.

An insight names its job (`job`), what became so (a tag `state:...`), how many observations it
rests on (`n`) and memories that show it (`evidence`). A job that is written next year is read as
well: it has a section of its own until somebody gives it a place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from engram.learning.jobs.insight import EVIDENCE
from engram.learning.report.ask import ask, limits
from engram.learning.report.model import Section, Statement
from engram.learning.report.period import Period
from engram.learning.report.words import clean, counted

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

REPORT: Final = "report"
"""The job that keeps reports: what it says was said before."""

_TYPES: Final = (
    "ai_insight", "optimization", "error_solution", "error_resolution", "performance_metric",
    "business_decision", "system_event",
)  # fmt: skip

_MOST: Final = 2_000
"""Insights of a period that are read: the most important ones."""


@dataclass(frozen=True, slots=True)
class Said:
    """One insight."""

    id: str
    type: str
    job: str
    state: str
    title: str
    content: str
    service: str
    importance: float
    time: int
    n: int
    evidence: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    def statement(self, extra: str = "") -> Statement:
        """As a sentence with its evidence; the insight itself is the first."""
        # What is a field (`state: new`) or the title once more is not said again.
        fields = {"job", EVIDENCE, *self.facts}
        more = [
            line
            for line in self.content.split("\n")
            if line and line.partition(":")[0] not in fields and line not in self.title
        ]
        return Statement(
            clean(self.title, 300) + (f" ({extra})" if extra else ""),
            self.n,
            (self.id, *self.evidence[:3]),
            detail=clean("; ".join(more[:6]), 400),
            mark=self.state,
            importance=self.importance,
        )


def said(read: Read, period: Period, job: str = "") -> list[Said]:
    """What was said of a period, most important first; by all jobs, or by one."""
    rows = ask(
        read,
        f"""
        SELECT id, type, title, content, coalesce(service_name, '') AS service, importance,
            time_unix_nano AS time, tags, attributes
        FROM lake.memories
        WHERE type IN ({", ".join(f"'{one}'" for one in _TYPES)})
            AND time_unix_nano >= $since AND time_unix_nano < $until
            AND source = 'mark' AND len(list_filter(tags, lambda one: one LIKE 'job:%')) > 0
            AND NOT list_contains(tags, 'job:{REPORT}')
            AND NOT list_contains(tags, 'about:engram') -- the report is of the user's services
            AND ($job = '' OR list_contains(tags, 'job:' || $job))
        ORDER BY importance DESC, time_unix_nano, id
        LIMIT {_MOST}
        """,
        **limits(period),
        job=job,
    )
    found = []
    for row in rows.iter_rows(named=True):
        facts = _object(row["attributes"])
        job = facts.pop("job", None)
        if not isinstance(job, str):
            continue
        evidence = facts.pop(EVIDENCE, None)
        tags: Sequence[str] = row["tags"] or ()
        state = next((tag[6:] for tag in tags if tag.startswith("state:")), "")
        n = facts.get("n")
        found.append(
            Said(
                row["id"], row["type"], job, state, row["title"] or "", row["content"] or "",
                row["service"], round(float(row["importance"] or 0), 3), int(row["time"]),
                int(n) if isinstance(n, int | float) else 1,
                tuple(str(one) for one in evidence) if isinstance(evidence, list) else (),
                facts,
            )
        )  # fmt: skip
    return found


def _object(text: str | None) -> dict[str, Any]:
    try:
        made = json.loads(text or "{}")
    except ValueError:
        return {}
    return made if isinstance(made, dict) else {}


PLACES: Final[dict[str, str]] = {
    "errors": "errors", "performance": "operations", "causes": "causes",
    "predictions": "predictions", "optimizations": "optimizations", "solutions": "solutions",
    "decisions": "decisions", "journeys": "work", "agents": "llm",
}  # fmt: skip
"""The section in which the sentences of a job stand."""

_BY_TYPE: Final = {
    "optimization": "optimizations", "error_solution": "solutions", "error_resolution": "solutions",
}  # fmt: skip


def place(one: Said) -> str:
    """Its section: that of its job, else that of its type, else one of the job's own."""
    return PLACES.get(one.job) or _BY_TYPE.get(one.type) or f"job:{one.job}"


def statements(of: Iterable[Said], most: int = 20) -> tuple[Statement, ...]:
    """Their sentences, most important first."""
    ranked = sorted(of, key=lambda one: (-one.importance, one.time, one.id))
    return tuple(one.statement() for one in ranked[:most])


def simple(
    key: str, title: str, of: Sequence[Said], quiet: str, before: Sequence[Said], other: str
) -> Section:
    """A section of insights and nothing else; how many there were the period before."""
    then = f"{other} there {'was' if len(before) == 1 else 'were'} {len(before)}"
    if not of:
        return Section(key, title, quiet=f"{quiet[:-1]}; {then}." if before else quiet)
    text = f"{counted(len(of), 'statement')} in all, {then}."
    total = Statement(text, len(of), tuple(one.id for one in of[:3]))
    return Section(key, title, (*statements(of), total))


__all__ = ["PLACES", "REPORT", "Said", "place", "said", "simple", "statements"]
