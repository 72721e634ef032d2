"""Slow requests: where their time went, and what they have that the fast ones have not.

Slow is what takes more than a second and three times as long as its route usually does. Values of
attributes are compared by their share among slow and fast runs: log-odds with Haldane's half, their
z by Woolf's variance, and of all that were compared those that stay below a false discovery rate of
5 % (Benjamini and Hochberg 1995).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from engram.learning.jobs.performance.causes import below, self_times

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

LEAST_MS: Final = 1_000.0
TIMES: Final = 3.0
MOST: Final = 300
"""Slow and fast runs that are looked into."""
RATE: Final = 0.05
SUPPORT: Final = 0.2
"""Share of the slow runs that a value must have."""
_VALUES: Final = 80
"""Characters of a value; a longer one is one of its own."""
_NOT: Final = (
    "duration", "time", "client.port", "network.peer.port", "thread.", "code.", "user_agent",
    "http.response", "error", "exception",
)  # fmt: skip
"""Beginnings of names that say how it went, not what it was."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that slow runs have more often."""

    name: str
    value: str
    slow: float
    fast: float
    """Shares of the runs that have it."""
    z: float


@dataclass(frozen=True, slots=True)
class Share:
    """What a part of the time of slow runs went to."""

    what: str
    share: float


def differences(
    slow: Sequence[Mapping[str, Any]], fast: Sequence[Mapping[str, Any]], most: int = 5
) -> list[Difference]:
    """What slow runs have more often than fast ones, the strongest first."""
    if len(slow) < 3 or len(fast) < 3:
        return []
    counts = [Counter(pair for one in of for pair in _pairs(one)) for of in (slow, fast)]
    tested = []
    for pair, a in counts[0].items():
        if a < max(3, SUPPORT * len(slow)):
            continue
        b = counts[1][pair]
        if a / len(slow) <= b / len(fast):
            continue
        table = (a + 0.5, len(slow) - a + 0.5, b + 0.5, len(fast) - b + 0.5)
        z = math.log(table[0] * table[3] / (table[1] * table[2])) / math.sqrt(
            sum(1 / cell for cell in table)
        )
        found = Difference(*pair, a / len(slow), b / len(fast), z)
        tested.append((math.erfc(z / math.sqrt(2)), found))
    tested.sort(key=lambda one: (one[0], one[1].name, one[1].value))
    last = 0
    for rank, (p, _) in enumerate(tested, 1):
        if p <= RATE * rank / len(tested):
            last = rank
    return [one for _, one in tested[:last]][:most]


def _pairs(attributes: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in attributes.items():
        if isinstance(value, str | int | bool) and not name.startswith(_NOT):
            text = str(value)
            if len(text) <= _VALUES:
                yield name, text


def examples(
    read: Read, service: str, name: str, since: int, until: int, ms: float, *, slow: bool
) -> list[dict[str, Any]]:
    """Runs of an operation that took longer than some milliseconds, or not: newest first."""
    rows = read(
        f"""
        SELECT trace_id, span_id, start_time_unix_nano AS start,
            (end_time_unix_nano - start_time_unix_nano) / 1e6 AS ms, attributes,
            json_extract_string(resource, '$."service.version"') AS version
        FROM lake.spans
        WHERE service_name IS NOT DISTINCT FROM nullif(?, '') AND name = ? AND kind IN (2, 5)
            AND start_time_unix_nano >= ? AND start_time_unix_nano < ?
            AND (end_time_unix_nano - start_time_unix_nano) / 1e6 {">" if slow else "<="} ?
        ORDER BY start DESC, span_id LIMIT {MOST}
        """,
        [service, name, since, until, ms],
    )
    found = []
    for row in rows.iter_rows(named=True):
        try:
            said = json.loads(row["attributes"] or "{}")
        except ValueError:
            said = {}
        said = said if isinstance(said, dict) else {}
        if row["version"]:
            said["service.version"] = row["version"]
        found.append({**row, "attributes": said})
    return found


def spent(read: Read, runs: Sequence[Mapping[str, Any]], most: int = 3) -> list[Share]:
    """What the time of runs went to: the self time of every operation below them."""
    if not runs:
        return []
    taken = self_times(runs, below(read, [{**run, "ends": _ends(run)} for run in runs]))
    total = sum(run["ms"] * 1e6 for run in runs)
    return [
        Share(what, time / total) for what, time in taken.most_common(most) if time > 0.05 * total
    ]


def _ends(run: Mapping[str, Any]) -> int:
    return int(run["start"] + run["ms"] * 1e6) + 1


__all__ = ["LEAST_MS", "TIMES", "Difference", "Share", "differences", "examples", "spent"]
