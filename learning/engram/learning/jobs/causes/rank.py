"""Which component an incident began with, by `rootcause`, and whether that is clear.

`rank_causes` is given each component's own time and own failures, so that who only waits for
another stays as it was, and the operation's whole time or failures as the target. Two conditions
make the first one a cause: it stands out (`rank_causes` is not unclear), and it has half or more of
what became worse; where all became slower together (load, a machine) nobody is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from engram.learning.intervals import Interval, difference, pooled
from engram.learning.jobs.causes.graph import TARGET, Observed, Part
from engram.learning.jobs.causes.incidents import Incident
from engram.learning.rootcause import rank_causes

EXPLAINS: Final = 0.5
"""The share of what became worse that a cause has: less is one reason among others."""

FEWEST: Final = 20
"""Runs of each side without which no share is known."""

NAMED: Final = 3

MOST: Final = 300
"""Components that are ranked, those with most to explain: the method compares all pairs."""


@dataclass(frozen=True, slots=True)
class Cause:
    """A component, and what of the incident is in it."""

    what: str
    service: str
    edge: bool
    score: float
    share: float
    """Of all that became worse, in all components."""
    before: float
    """Milliseconds of its own for a run of the operation, or its own failures of 100 runs."""
    during: float
    interval: Interval
    """Of the difference, 95 %."""
    calls: tuple[int, int]
    """That were looked at, before and during."""
    traces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Causes, the likeliest first."""

    causes: tuple[Cause, ...]
    why: str
    """Why it is unclear; empty when it is clear."""
    runs: tuple[int, int]
    """Runs of the operation that were looked at, before and during."""
    load: tuple[float, float]
    components: int

    @property
    def unclear(self) -> bool:
        """Whether nobody is named."""
        return bool(self.why)


def ranked(seen: Observed, incident: Incident) -> Ranking:
    """The causes of an incident."""
    runs = (_runs(seen, range(seen.start)), _runs(seen, range(seen.start, seen.slices)))

    def answer(why: str, causes: tuple[Cause, ...] = ()) -> Ranking:
        return Ranking(causes, why, runs, seen.load, len(seen.parts))

    if min(runs) < FEWEST:
        return answer("too few runs have traces")
    worse = {name: _worse(part, seen, incident, runs) for name, part in seen.parts.items()}
    total = sum(max(0.0, one) for one in worse.values())
    if total <= 0:
        return answer("no component below it became worse")
    kept = sorted(seen.parts, key=lambda name: (-worse[name], name))[:MOST]
    found = rank_causes(
        [*((a, b) for a, b in seen.calls if a in kept and b in kept),
         *((TARGET, one) for one in seen.entries if one in kept)],
        [float(at) for at in range(seen.slices)],
        {name: _series(seen.parts[name], seen, incident) for name in kept}
        | {TARGET: _whole(seen, incident)},
        (float(seen.start), float(seen.slices)),
        TARGET,
    )  # fmt: skip
    causes = tuple(
        _cause(seen.parts[name], score, worse[name] / total, seen, incident, runs)
        for name, score in found.ranked
        if name != TARGET and score > 0 and worse[name] > 0
    )[:NAMED]
    if found.unclear or not causes:
        return answer("no component stands out from what it does on other hours", causes)
    if causes[0].share < EXPLAINS:
        return answer("no component has half of what became worse", causes)
    if not causes[0].interval.excludes_zero:
        return answer("the difference may be chance", causes)
    return answer("", causes)


def _runs(seen: Observed, slices: range) -> int:
    return sum(seen.runs[at].calls for at in slices if at in seen.runs)


def _own(part: Part, slices: range, kind: str) -> float:
    """Milliseconds, or failures."""
    some = [part.slices[at] for at in slices if at in part.slices]
    if kind == "errors":
        return float(sum(one.failed for one in some))
    return sum(one.own_ns for one in some) / 1e6


def _worse(part: Part, seen: Observed, incident: Incident, runs: tuple[int, int]) -> float:
    """What a run has more of it during the incident."""
    before = _own(part, range(seen.start), incident.kind) / runs[0]
    return _own(part, range(seen.start, seen.slices), incident.kind) / runs[1] - before


def _series(part: Part, seen: Observed, incident: Incident) -> dict[str, list[float | None]]:
    """Of a run: a component that is called more often for each is as bad as a slower one."""
    own: list[float | None] = []
    failed: list[float | None] = []
    calls: list[float | None] = []
    for at in range(seen.slices):
        runs, one = seen.runs.get(at), part.slices.get(at)
        n = runs.calls if runs else 0
        own.append((one.own_ns / 1e6 if one else 0.0) / n if n else None)
        failed.append((one.failed if one else 0) / n if n else None)
        calls.append(1.0)  # the series are a run's, so amounts are comparable as they are
    return {"own_ms": own, "own_errors": failed, "calls": calls}


def _whole(seen: Observed, incident: Incident) -> dict[str, list[float | None]]:
    whole: list[float | None] = []
    for at in range(seen.slices):
        run = seen.runs.get(at)
        if run is None or not run.calls:
            whole.append(None)
        else:
            whole.append(
                (run.failed if incident.kind == "errors" else run.own_ns / 1e6) / run.calls
            )
    return {"errors" if incident.kind == "errors" else "whole_ms": whole}


def _cause(
    part: Part, score: float, share: float, seen: Observed, incident: Incident,
    runs: tuple[int, int],
) -> Cause:  # fmt: skip
    sides = (range(seen.start), range(seen.start, seen.slices))
    before, during = (
        _own(part, side, incident.kind) / n for side, n in zip(sides, runs, strict=True)
    )
    if incident.kind == "errors":
        # A run may fail in a component more than once, by retries: as often as there are runs.
        k0, k1 = (min(_own(part, side, "errors"), n) for side, n in zip(sides, runs, strict=True))
        low, high = difference(k1, runs[1], k0, runs[0])
        interval, scale = Interval(low * 100, high * 100), 100.0
    else:
        # The slices are what varies: runs of the same minute are not independent.
        series = _series(part, seen, incident)["own_ms"]
        old, new = ([one for at in side if (one := series[at]) is not None] for side in sides)
        interval, scale = pooled(new, old)[1], 1.0
    n0, n1 = (sum(part.slices[at].calls for at in side if at in part.slices) for side in sides)
    return Cause(
        part.what, part.service, part.edge, round(score, 4), round(share, 4), before * scale,
        during * scale, interval, (n0, n1),
        tuple(dict.fromkeys(part.traces[at] for at in sides[1] if at in part.traces)),
    )  # fmt: skip


__all__ = ["Cause", "Ranking", "ranked"]
