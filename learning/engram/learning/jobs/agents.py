"""Models, tools and steps of graphs that fail, or cost more or take longer than they did.

* **failing**: a model, a tool or a LangGraph node whose calls fail more than one in ten
  (see `failing`).
* **changed**: of a model (and agent), the median latency, the tokens of a call or the share of
  failures, of the last three days against the seven before. By days, since calls of one day are
  not independent: latency and tokens by Student's t of the logarithms of the days, at least a
  quarter more or less; failures by Fisher's exact test of counts divided by the dispersion between
  days, at least two points and twice as many. Of all that were compared that day, those that
  Benjamini and Hochberg believe. Said once in four weeks.

Prices are nobody's guess: cost is told only where the telemetry says it (see the report).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean
from typing import TYPE_CHECKING, Final

from engram.learning.exposure import Exposure
from engram.learning.intervals import difference, discoveries, fisher, pooled
from engram.learning.jobs.daily import DAY, Before, ends
from engram.learning.jobs.failing import failing
from engram.learning.jobs.insight import Insight
from engram.learning.jobs.window import Window

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

_RUNS: Final = (
    "SELECT coalesce(service_name, '') AS service, subject AS name, "
    "time_unix_nano AS begun, time_unix_nano AS moment, "
    "outcome = 'error' AS failed, id, trace_id, recorded_at, "
    "CASE WHEN outcome = 'error' THEN (attributes->>'$.error_type') END AS why "
    "FROM lake.memories WHERE type = {type} AND outcome IS NOT NULL AND subject IS NOT NULL "
    "AND time_unix_nano >= $1 AND time_unix_nano < $2"
)
_KINDS: Final = (
    ("model", "Model {name} keeps failing", _RUNS.format(type="'ai_response'")),
    ("node", "Graph node {name} keeps failing", _RUNS.format(type="'langgraph_outcome'")),
    (
        "tool",
        "Tool {name} keeps failing",
        _RUNS.format(type="'api_call' AND list_contains(tags, 'tool:' || subject)"),
    ),
)

RECENT: Final = 3
USUAL: Final = 7
"""Days that are compared."""
CALLS: Final = 20
"""Calls of a day, for its median to say something."""
LEAST: Final = 0.25
"""A change of less is nothing to act on."""
LEAST_POINTS: Final = 0.02
"""The same, of a share of failures."""
SHARE: Final = 0.01
"""Of false statements among those of a day; a week of them is looked at."""


@dataclass(frozen=True, slots=True)
class Day:
    """One day of a model, used by an agent (or none)."""

    day: int
    n: int
    failed: int
    latency: float | None
    """Median of calls that worked, ms."""
    tokens: float | None
    """Of a call, on average; where the provider tells them."""
    ids: tuple[str, ...]


class Agents:
    """The job."""

    name = "agents"
    about = "models, tools and graph nodes that fail, or slowed down, or cost more"
    patient = True

    def run(self, read: Read, window: Window) -> Iterable[Insight]:
        """See the module."""
        for kind, title, runs in _KINDS:
            yield from failing(read, window, runs, job=self.name, kind=kind, title=title)
        if due := list(ends(window)):
            before = Before(read, self.name, window)
            known = days(read, due[0], due[-1])
            for end in due:
                yield from before.fresh(changes(known, end))


Key = tuple[str, str, str]
"""Service, model, agent."""


def days(read: Read, first: int, last: int) -> dict[Key, list[Day]]:
    """The days that are compared at any moment between two, by model and agent."""
    rows = read(
        "SELECT coalesce(service_name, '') AS service, subject AS model, "
        "coalesce(attributes->>'$.agent', '') AS agent, time_unix_nano // $3 AS day, "
        "count(*) AS n, count(*) FILTER (outcome = 'error') AS failed, "
        "median(duration_ns) FILTER (outcome = 'ok') / 1e6 AS latency, "
        "avg(TRY_CAST(attributes->>'$.input_tokens' AS DOUBLE) "
        "+ coalesce(TRY_CAST(attributes->>'$.output_tokens' AS DOUBLE), 0)) AS tokens, "
        "arg_max(id, (coalesce(duration_ns, 0), id), 2) AS ids "
        "FROM lake.memories WHERE type = 'ai_response' AND subject IS NOT NULL "
        "AND time_unix_nano >= $1 AND time_unix_nano < $2 GROUP BY ALL ORDER BY ALL",
        [first - (RECENT + USUAL) * DAY, last, DAY],
    )
    found: dict[Key, list[Day]] = {}
    for row in rows.iter_rows(named=True):
        found.setdefault((row["service"], row["model"], row["agent"]), []).append(
            Day(
                row["day"], row["n"], row["failed"], row["latency"], row["tokens"],
                tuple(row["ids"] or ()),
            )
        )  # fmt: skip
    return found


@dataclass(frozen=True, slots=True)
class Tested:
    """One comparison."""

    key: Key
    measure: str
    recent: Sequence[Day]
    p: float
    now: float
    then: float
    low: float
    high: float
    """Interval of the ratio; of failures, of the difference."""

    @property
    def enough(self) -> bool:
        """Whether it is worth a sentence."""
        more, less = max(self.now, self.then), min(self.now, self.then)
        if self.measure == "failures":
            return more - less >= LEAST_POINTS and more >= 2 * less
        return more >= (1 + LEAST) * less


def changes(of: dict[Key, list[Day]], end: int) -> Iterator[Insight]:
    """What changed in the last days."""
    tested: list[Tested] = []
    last = end // DAY - RECENT
    for key, some in sorted(of.items()):
        full = [one for one in some if one.n >= CALLS]
        recent = [one for one in full if last <= one.day < last + RECENT]
        usual = [one for one in full if last - USUAL <= one.day < last]
        if len(recent) < RECENT or len(usual) < USUAL - 2:
            continue
        tested.append(_failures(key, recent, usual))
        for measure in ("latency", "tokens"):
            now, then = (_logs(days_, measure) for days_ in (recent, usual))
            if len(now) == len(recent) and len(then) == len(usual):
                p, (low, high) = pooled(now, then)
                tested.append(
                    Tested(
                        key, measure, recent, p, math.exp(fmean(now)), math.exp(fmean(then)),
                        math.exp(low), math.exp(high),
                    )
                )  # fmt: skip
    believed = discoveries([one.p for one in tested], SHARE)
    for one, so in zip(tested, believed, strict=True):
        if so and one.enough:
            yield _changed(one, end)


def _failures(key: Key, recent: Sequence[Day], usual: Sequence[Day]) -> Tested:
    now, then = (
        Exposure(tuple(one.n for one in days_), tuple(one.failed for one in days_))
        for days_ in (recent, usual)
    )
    effect = max(now.design_effect, then.design_effect)
    k1, n1, k0, n0 = (round(one / effect) for one in (now.k, now.n, then.k, then.n))
    low, high = difference(k1, n1, k0, n0)
    return Tested(
        key, "failures", recent, fisher(k1, n1, k0, n0), now.k / now.n, then.k / then.n, low, high
    )


def _logs(of: Sequence[Day], measure: str) -> list[float]:
    values = [one.latency if measure == "latency" else one.tokens for one in of]
    return [math.log(value) for value in values if value is not None and value > 0]


_WORDS: Final = {
    "latency": ("answers slower", "answers faster", "median latency, ms, by days"),
    "tokens": ("takes more tokens", "takes fewer tokens", "tokens of a call, by days"),
    "failures": ("fails more often", "fails less often", "share of calls that failed"),
}


def _changed(of: Tested, end: int) -> Insight:
    service, model, agent = of.key
    up = of.now > of.then
    who = f"{model}{f' of {agent}' if agent else ''}{f' in {service}' if service else ''}"
    more, less, measured = _WORDS[of.measure]
    n = sum(one.n for one in of.recent)
    since = datetime.fromtimestamp(end // 10**9 - RECENT * 86_400, UTC).date().isoformat()
    state = "worse" if up else "better"
    if of.measure == "failures":
        change = f"{of.now:.1%} of calls, the week before {of.then:.1%}"
        between = f"difference between {100 * of.low:.1f} and {100 * of.high:.1f} points"
    else:
        change = f"{of.now / of.then:.2f} times the week before"
        between = f"ratio between {of.low:.2f} and {of.high:.2f}"
    return Insight(
        job=Agents.name,
        key=("changed", *of.key, of.measure, str(end)),
        title=f"{who} {more if up else less}: {change}",
        content=(
            f"{measured}: {of.now:.4g}, before {of.then:.4g}; {between} (95 % interval)\n"
            f"since: {since}, {n} calls, against the {USUAL} days before"
        ),
        time_unix_nano=end - 1,  # of the day that it is about
        service=service or None,
        importance=0.7 if up else 0.4,
        tags=(f"state:{state}",),
        evidence=tuple(id_ for one in of.recent for id_ in one.ids),
        facts={
            "state": state, "what": "|".join((*of.key, of.measure, state)), "n": n,
            "measure": of.measure, "model": model, "agent": agent or None,
            "now": of.now, "before": of.then, "low": of.low, "high": of.high,
        },
    )  # fmt: skip


JOB: Final = Agents()

__all__ = ["JOB", "Agents", "Day", "changes", "days"]
