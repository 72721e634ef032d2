"""What was done in incidents, and whether it helped: trials, their tally, and how far to trust it.

Everything that changes a service while one of its errors goes on is a trial of it as a fix: a
remedy that ran, a version that was deployed, a decision, a flag, an automation. It worked when no
run that began after it failed, and as many runs were good as the incident needs to be over. Each
incident counts once for each change. Two changes after the last failure cannot be told apart: the
incident then counts for neither.

Trouble also passes by itself: of an error at one in a hundred runs every occurrence looks like an
incident that is soon over. How often is known from the failures that nothing was done about. A fix
is supported only when it is better than that, and proven when it is better than the most that it
may be; where something was always done at once, nobody knows, and nothing is proven.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from engram.learning.exposure import wilson_low
from engram.learning.jobs.solutions.history import History
from engram.learning.jobs.solutions.incidents import Incident, incidents

if TYPE_CHECKING:
    from engram.learning.jobs.solutions.read import Glance

DAY: Final = 24 * 3600 * 10**9
HALF_LIFE: Final = 90 * DAY
"""In which a trial loses half of its weight for the tier."""

SUPPORTED: Final = 0.5
PROVEN: Final = 0.7
PROVEN_INCIDENTS: Final = 10
PROVEN_VERSIONS: Final = 2
AUTOMATIC: Final = 0.85
"""Lower 95 % bounds (Wilson) of the share of incidents in which it worked."""

Verdict = Literal["worked", "failed", "open", "confounded"]
Tier = Literal["untried", "refuted", "candidate", "supported", "proven", "auto-eligible"]
TIERS: Final[tuple[Tier, ...]] = (
    "untried", "refuted", "candidate", "supported", "proven", "auto-eligible",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """Something that was done to a service."""

    kind: str
    """`remedy`, `deploy`, `decision`, `flag`, `automation`, `solution`."""
    name: str
    time_unix_nano: int
    id: str = ""
    """Its memory."""
    version: str = ""
    """Of a deploy."""
    gave_up: bool = False
    """It says itself that it did not work."""
    trace_id: str = ""
    error_type: str = ""
    """What it was done against, where it says so."""

    @property
    def what(self) -> tuple[str, str]:
        """What makes it the same change in another incident."""
        return self.kind, self.name


@dataclass(frozen=True, slots=True)
class Trial:
    """One change in one incident."""

    change: Change
    verdict: Verdict
    decided: int
    """When it was known, in the time of the runs; of an open one 0."""
    needed: int = 0
    """Good runs that are still missing; of an open one."""
    version: str = ""
    """Of the service, at the end of the incident."""
    failures: int = 1
    """Runs that failed in the incident before it."""


@dataclass(frozen=True, slots=True)
class Tally:
    """All trials of one change against one error."""

    what: tuple[str, str]
    trials: tuple[Trial, ...]
    now: int

    def of(self, verdict: Verdict) -> int:
        """How many ended so."""
        return sum(trial.verdict == verdict for trial in self.trials)

    @property
    def worked(self) -> int:
        """Incidents in which it worked."""
        return self.of("worked")

    @property
    def tried(self) -> int:
        """Incidents that were decided."""
        return self.worked + self.of("failed")

    @property
    def decided(self) -> int:
        """When the newest of them was."""
        return max((trial.decided for trial in self.trials), default=0)

    @property
    def low(self) -> float:
        """Lower 95 % bound of its success rate (Wilson), older trials weighing less."""
        good = total = 0.0
        for trial in self.trials:
            if trial.verdict in ("worked", "failed"):
                weight = 0.5 ** (max(0, self.now - trial.decided) / HALF_LIFE)
                total += weight
                good += weight * (trial.verdict == "worked")
        return wilson_low(good, total)

    @property
    def versions(self) -> int:
        """Versions of the service on which it worked."""
        return len({trial.version for trial in self.trials if trial.verdict == "worked"})

    def tier(self, by_itself: float, at_most: float) -> Tier:
        """How far to trust it, where trouble passes by itself at this rate, or at most at that."""
        if not self.tried:
            return "untried"
        if not self.worked:
            return "refuted" if self.tried >= 3 else "untried"
        low = self.low
        if low < SUPPORTED or low <= by_itself:
            return "candidate"
        if (
            low < PROVEN
            or self.worked < PROVEN_INCIDENTS
            or self.versions < PROVEN_VERSIONS
            or low <= at_most
        ):
            return "supported"
        return "auto-eligible" if low >= AUTOMATIC else "proven"


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of one error: its incidents, what was tried in them, and what passed alone."""

    incidents: tuple[Incident, ...]
    tallies: tuple[Tally, ...]
    """Most successful first."""
    alone: int
    """Incidents without any change that one failure ended: the next runs were good."""
    untreated: int
    """Incidents whose first failure nothing was done about."""

    @property
    def by_itself(self) -> float:
        """How often the runs after a failure are good when nothing is done (Jeffreys' mean)."""
        return (self.alone + 0.5) / (self.untreated + 1)

    @property
    def by_itself_at_most(self) -> float:
        """Upper 95 % bound of it (Wilson); 1 where nothing is known."""
        return 1.0 - wilson_low(self.untreated - self.alone, self.untreated)

    def tier(self, tally: Tally) -> Tier:
        """How far to trust a change."""
        return tally.tier(self.by_itself, self.by_itself_at_most)


def perhaps_decided(runs: Glance, changes: Iterable[Change], since: int) -> bool:
    """Whether a trial of one of these changes may be decided at `since` or later; False is certain.

    The first failure after a change decides it, or before that the good runs do. A deploy is
    decided by runs of its own version; whether those of others count depends on all runs.
    """
    import numpy as np

    earlier = int(np.searchsorted(runs.failures, since))
    if not earlier:
        return True
    last: dict[str | None, int] = {}
    for time, version in zip(runs.failures[:earlier].tolist(), runs.on[:earlier], strict=True):
        last[version] = time
    newest = int(runs.failures[earlier - 1])
    return any(
        one.time_unix_nano >= (last.get(one.version, 0) if one.kind == "deploy" else newest)
        for one in changes
    )


def tried(history: History, changes: Sequence[Change], now: int) -> Tried:
    """The trials of all changes in all incidents of one error."""
    found = incidents(history.failed)
    by_what: dict[tuple[str, str], list[Trial]] = {}
    alone = untreated = 0
    ordered = sorted(changes, key=lambda one: (one.time_unix_nano, one.what))
    for number, incident in enumerate(found):
        begins = history.start(incident.first)
        if incident.over:
            ends = history.start(incident.end)
        else:
            later = found[number + 1 : number + 2]
            ends = history.start(later[0].first) if later else now
        inside = [one for one in ordered if begins <= one.time_unix_nano <= ends]
        second = history.start(incident.failing[1]) if len(incident.failing) > 1 else ends
        if not any(one.time_unix_nano <= second for one in inside):
            untreated += 1
            alone += incident.over and len(incident.failing) == 1
        for trial in _trials(history, incident, inside):
            by_what.setdefault(trial.change.what, []).append(trial)
    tallies = [Tally(what, tuple(trials), now) for what, trials in by_what.items()]
    tallies.sort(key=lambda one: (-one.low, -one.worked, one.what))
    return Tried(tuple(found), tuple(tallies), alone, untreated)


def _trials(history: History, incident: Incident, inside: Iterable[Change]) -> list[Trial]:
    first: dict[tuple[str, str], Change] = {}
    gave_up: dict[tuple[str, str], bool] = {}
    for change in inside:
        if not change.error_type or history.is_of(change.error_type):
            first.setdefault(change.what, change)
            gave_up[change.what] = change.gave_up
    made = [_trial(history, incident, one, gave_up=gave_up[one.what]) for one in first.values()]
    rivals = [trial for trial in made if trial.verdict in ("worked", "open")]
    if len(rivals) < 2:
        return made
    return [
        replace(trial, verdict="confounded", needed=0) if trial in rivals else trial
        for trial in made
    ]


def _trial(history: History, incident: Incident, change: Change, *, gave_up: bool) -> Trial:
    at = change.time_unix_nano
    version = history.version(incident.last)
    before = sum(history.start(place) <= at for place in incident.failing)
    for place in incident.failing:
        if history.start(place) > at and history.exposed(place, change):
            return Trial(change, "failed", history.start(place), 0, version, before)
    if gave_up:
        return Trial(change, "failed", at, 0, version, before)
    # All good runs until the next failure: the incident may be over before the change has enough.
    good = history.good(incident.last + 1, incident.last + 1 + incident.clean, change)
    if len(good) < incident.needed:
        return Trial(change, "open", 0, incident.needed - len(good), version, before)
    decided = history.start(int(good[incident.needed - 1]))
    return Trial(change, "worked", decided, 0, version, before)


__all__ = ["TIERS", "Change", "Tally", "Tier", "Trial", "Tried", "perhaps_decided", "tried"]
