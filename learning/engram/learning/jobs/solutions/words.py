"""How solutions and resolutions are said."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from engram.learning.jobs.insight import Insight
from engram.learning.jobs.solutions.history import History
from engram.learning.jobs.solutions.resolved import Resolution
from engram.learning.jobs.solutions.trials import (
    AUTOMATIC,
    PROVEN,
    PROVEN_INCIDENTS,
    PROVEN_VERSIONS,
    SUPPORTED,
    Tally,
    Tier,
    Tried,
)

JOB: Final = "solutions"
_EVIDENCE: Final = 10

_DID: Final = {
    "remedy": "Remedy {name}", "deploy": "Version {name}", "decision": "Decision {name}",
    "flag": "Flag {name}", "optimization": "Optimization {name}",
}  # fmt: skip
_WEIGHT: Final[dict[Tier, float]] = {
    "untried": 0.4, "refuted": 0.6, "candidate": 0.7, "supported": 0.8, "proven": 0.95,
    "auto-eligible": 1.0,
}  # fmt: skip


def fix_name(what: tuple[str, str]) -> str:
    """What was done, in words."""
    return _DID.get(what[0], "{name}").format(name=what[1])


def solution(history: History, tried: Tried, tally: Tally) -> Insight:
    """That a fix worked so many times of so many."""
    tier = tried.tier(tally)
    name = fix_name(tally.what)
    times = "time" if tally.tried == 1 else "times"
    title = f"{name} worked {tally.worked} of {tally.tried} {times} against {history.title}"
    lines = [
        f"error: {history.title}",
        f"fix: {name}",
        f"worked: {tally.worked} of {tally.tried} incidents "
        f"(at least {tally.low:.0%} of the time, 95 %)",
        f"tier: {tier}",
        f"by itself: after {tried.alone} of {tried.untreated} failures that nothing was done about "
        "the next runs were good",
    ]
    if missing := lacks(tally, tier):
        lines.append(f"for the next tier: {missing}")
    if tally.of("open"):
        needed = min(trial.needed for trial in tally.trials if trial.verdict == "open")
        lines.append(f"open: {tally.of('open')}; the next needs {needed} more clean runs")
    if tally.of("confounded"):
        lines.append(
            f"not counted: {tally.of('confounded')} incidents in which something else was done too"
        )
    last = max((t for t in tally.trials if t.decided), key=lambda t: t.decided, default=None)
    if last is not None:
        lines.append(f"last: {last.verdict}, {_when(last.decided)}")
    evidence = [t.change.id for t in reversed(tally.trials) if t.change.id][:_EVIDENCE]
    evidence += history.ids[-_EVIDENCE:]
    return Insight(
        job=JOB,
        type="error_solution",
        key=("solution", history.service, history.pattern, *tally.what,
             str(tally.worked), str(tally.tried)),
        title=title[:300],
        content="\n".join(lines),
        time_unix_nano=tally.decided,
        service=history.service or None,
        importance=_WEIGHT[tier],
        subject=f"{history.service}: {history.pattern}: {name}"[:500],
        tags=(f"tier:{tier}", f"kind:{tally.what[0]}"),
        evidence=tuple(evidence),
        facts={
            "kind": tally.what[0], "fix": tally.what[1], "error_type": history.type,
            "pattern": history.pattern, "worked": tally.worked, "tried": tally.tried,
            "n": tally.tried, "low": round(tally.low, 4), "tier": tier,
            "versions": tally.versions, "by_itself": round(tried.by_itself, 4),
            "untreated": tried.untreated,
        },
    )  # fmt: skip


def lacks(tally: Tally, tier: Tier) -> str:
    """What a fix lacks for the next tier."""
    if tier in ("untried", "refuted"):
        return "an incident in which it works"
    if tier == "candidate":
        return (
            f"a lower bound of {SUPPORTED:.0%} (5 of 5 incidents have it) that is better than what "
            "passes by itself"
        )
    if tier == "supported":
        parts = []
        if tally.worked < PROVEN_INCIDENTS:
            parts.append(f"{PROVEN_INCIDENTS - tally.worked} more incidents")
        if tally.versions < PROVEN_VERSIONS:
            parts.append("another version of the service")
        if tally.low < PROVEN:
            parts.append(f"a lower bound of {PROVEN:.0%}")
        return ", ".join(parts) or "to be better than the most that may pass by itself"
    if tier == "proven":
        return f"a lower bound of {AUTOMATIC:.0%} (22 of 22 incidents have it)"
    return ""


def resolved(history: History, found: Resolution) -> Insight:
    """That an error does not occur any more."""
    judged = found.judgement
    since = f"version {found.since}" if found.since else _when(found.cut)
    n = found.runs_before + judged.runs
    return Insight(
        job=JOB,
        key=("resolved", history.service, history.pattern, found.since or str(found.cut)),
        title=f"Resolved{_in(history)} since {since}: {history.title}"[:300],
        content="\n".join(
            [
                history.title,
                f"state: resolved since {since}",
                f"before: {found.failures_before} of {found.runs_before} runs failed",
                "since then: none of the runs, enough for less than a tenth of the former rate "
                "(e-value, may be looked at every day)",
                f"where: {', '.join(history.operations[:3]) or 'any entry of the service'}",
            ]
        ),
        time_unix_nano=found.moment,
        service=history.service or None,
        importance=0.75,
        subject=f"{history.service}: {history.pattern}"[:500],
        tags=("state:resolved",),
        evidence=history.ids[-3:],
        facts={
            "state": "resolved", "pattern": history.pattern, "error_type": history.type,
            "since_version": found.since or None, "cut": found.cut, "n": n,
            "failures_before": found.failures_before, "runs_before": found.runs_before,
            "rate_low": round(judged.rate_low, 6), "where": found.since or str(found.cut),
        },
    )  # fmt: skip


def regressed(history: History, since: str, resolved_at: int, place: int, before: str) -> Insight:
    """That an error which was resolved occurs again."""
    at = history.start(place)
    version = history.version(place)
    on = f" in version {version}" if version else ""
    return Insight(
        job=JOB,
        key=("regressed", history.service, history.pattern, since or str(resolved_at)),
        title=f"Regressed{_in(history)}{on}: {history.title}"[:300],
        content="\n".join(
            [
                history.title,
                f"state: regressed{on}",
                f"it was resolved {'since version ' + since if since else _when(resolved_at)}",
                f"failed again: {_when(at)}",
            ]
        ),
        time_unix_nano=at,
        service=history.service or None,
        importance=0.9,
        subject=f"{history.service}: {history.pattern}"[:500],
        tags=("state:regressed",),
        evidence=(before, *_of_run(history, at)),
        facts={
            "state": "regressed",
            "pattern": history.pattern,
            "error_type": history.type,
            "version": version or None,
            "since_version": since or None,
            "n": 1,
        },
    )


def _of_run(history: History, at: int) -> tuple[str, ...]:
    later = [id_ for id_, time in zip(history.ids, history.times, strict=True) if time >= at]
    return tuple(later[:1])


def _in(history: History) -> str:
    return f" in {history.service}" if history.service else ""


def _when(at: int) -> str:
    return datetime.fromtimestamp(at / 1e9, UTC).strftime("%Y-%m-%d %H:%M UTC")


def facts_of(tally: Tally, tried: Tried) -> dict[str, Any]:
    """A tally as plain values, for whoever recalls it."""
    tier = tried.tier(tally)
    waiting = [trial.needed for trial in tally.trials if trial.verdict == "open"]
    return {
        "kind": tally.what[0], "fix": tally.what[1], "name": fix_name(tally.what),
        "worked": tally.worked, "tried": tally.tried, "low": round(tally.low, 4), "tier": tier,
        "open": len(waiting), "needs_clean_runs": min(waiting, default=None),
        "confounded": tally.of("confounded"), "last": tally.decided or None,
        "lacks": lacks(tally, tier),
    }  # fmt: skip


__all__ = ["JOB", "facts_of", "fix_name", "lacks", "regressed", "resolved", "solution"]
