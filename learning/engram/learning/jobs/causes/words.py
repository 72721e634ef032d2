"""An incident's causes in words."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from engram.learning.jobs.causes.around import Around
from engram.learning.jobs.causes.incidents import Incident
from engram.learning.jobs.causes.rank import Cause, Ranking
from engram.learning.jobs.insight import Insight

CLEAR: Final = 0.65
"""Importance, below that of alerts: the incident itself was told already."""

UNCLEAR: Final = 0.3

MORE: Final = 1.5
"""Times as many runs as before, from which the load is told."""


def said(job: str, incident: Incident, found: Ranking, near: Around) -> Insight:
    """One statement for an incident."""
    lines = [f"of: {incident.title}"]
    if found.unclear:
        title = f"Cause unclear: {incident.title}"
        lines.append(f"unclear: {found.why}")
        lines += [f"looked at: {_line(one, incident)}" for one in found.causes]
    else:
        first = found.causes[0]
        title = f"Cause: {first.what} ({first.share:.0%}) of: {incident.title}"
        lines.append(f"cause: {_line(first, incident)}")
        lines += [f"also worse: {_line(one, incident)}" for one in found.causes[1:]]
    lines += _beside(incident, found, near)
    first_service = found.causes[0].service if found.causes else ""
    return Insight(
        job=job,
        key=("causes", incident.id),
        title=title[:300],
        content="\n".join(lines),
        time_unix_nano=incident.told,
        service=incident.service,
        importance=UNCLEAR if found.unclear else CLEAR,
        subject=incident.subject,
        tags=("cause:unclear" if found.unclear else "cause:clear",),
        evidence=(
            incident.id, *(one.id for one in near.signs),
            *(one.id for one in near.changes if one.id),
        ),
        facts={
            "incident": incident.id, "kind": incident.kind, "n": sum(found.runs),
            "since": incident.since, "unclear": found.unclear, "why": found.why or None,
            "operation": incident.operation or None,
            "causes": [one.what for one in found.causes],
            "scores": [f"{one.score:.3f}" for one in found.causes],
            "shares": [f"{one.share:.3f}" for one in found.causes],
            "cause_service": None if found.unclear else first_service,
            "changes": [f"{one.what} ({one.service})" for one in near.changes],
            "traces": list(found.causes[0].traces) if found.causes else [],
        },
    )  # fmt: skip


def _line(one: Cause, incident: Incident) -> str:
    unit = "own failures of 100 runs" if incident.kind == "errors" else "ms of its own a run"
    what = f"the way {one.what}" if one.edge else one.what
    return (
        f"{what}: {one.before:,.1f} -> {one.during:,.1f} {unit} "
        f"({one.interval.low:+,.1f} to {one.interval.high:+,.1f}, 95 %), "
        f"{one.share:.0%} of what became worse, score {one.score:.2f} "
        f"(n = {one.calls[1]:,} calls, {one.calls[0]:,} before)"
    )


def _beside(incident: Incident, found: Ranking, near: Around) -> Iterator[str]:
    before, during = found.load
    if before > 0 and during / before >= MORE:
        yield f"load: {during / before:.1f} times as many runs an hour as in the day before"
    for one in near.changes:
        minutes = (incident.since - one.time) // (60 * 10**9)
        apart = f"{minutes} min before" if minutes > 0 else "within the hour in which it began"
        whose = f" in {one.service}" if one.service else ""
        yield f"before it, which proves nothing: {one.what}{whose}, {_when(one.time)} ({apart})"
    if not near.changes:
        yield "no deploy, flag or configuration change was seen near it"
    for sign in near.signs:
        yield f"seen with it: {sign.title} ({_when(sign.time)})"
    yield (
        f"looked at {found.runs[1]:,} runs since {_when(incident.since)} and {found.runs[0]:,} of "
        f"the day before, {found.components} components"
    )


def _when(at: int) -> str:
    return datetime.fromtimestamp(at / 1e9, UTC).strftime("%Y-%m-%d %H:%M UTC")


__all__ = ["said"]
