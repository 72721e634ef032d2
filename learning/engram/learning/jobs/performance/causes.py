"""Why an operation became slower or fails: what below it changed, ranked, or that it is unclear.

Slower: the self time (without its children) of each operation below is compared, in the mean of
runs before and after; the cause is where most of the increase is. Failing: of each failing run the
deepest span that failed. What explains less than half is no cause: then it is unclear, and says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

RUNS: Final = 200
"""Of each side that are looked into."""
EXPLAINS: Final = 0.5
_MOST: Final = 3

Place = tuple[str, str]
"""Trace and span."""


@dataclass(frozen=True, slots=True)
class Cause:
    """An operation below, and how much of the change is in it."""

    what: str
    share: float
    """Of the increase, or of the failing runs."""
    size: float
    """Milliseconds a run more, or failing runs."""


@dataclass(frozen=True, slots=True)
class Explained:
    """Causes, the likeliest first; unclear when none explains half."""

    causes: tuple[Cause, ...]
    runs: int
    unclear: bool

    def lines(self, unit: str) -> list[str]:
        """In words."""
        if not self.runs:
            return []
        said = ", ".join(f"{c.what} ({c.share:.0%}, {c.size:,.0f} {unit})" for c in self.causes)
        if self.unclear:
            return [f"cause: unclear{f'; most is in {said}' if said else ''} (n = {self.runs})"]
        return [f"cause: {said} (n = {self.runs})"]


def runs(
    read: Read, service: str, name: str, since: int, until: int, *, failed: bool = False
) -> list[dict[str, Any]]:
    """Some runs of an operation, evenly spread by their ids."""
    rows = read(
        f"""
        SELECT trace_id, span_id, start_time_unix_nano AS start, end_time_unix_nano AS ends
        FROM lake.spans
        WHERE service_name IS NOT DISTINCT FROM nullif(?, '') AND name = ? AND kind IN (2, 5)
            AND start_time_unix_nano >= ? AND start_time_unix_nano < ?
            {"AND status_code = 2" if failed else ""}
        ORDER BY hash(trace_id), span_id LIMIT {RUNS}
        """,
        [service, name, since, until],
    )
    return list(rows.iter_rows(named=True))


def below(read: Read, of: Sequence[Mapping[str, Any]]) -> dict[Place, dict[str, Any]]:
    """All spans of the traces of some runs."""
    if not of:
        return {}
    rows = read(
        """
        SELECT trace_id, span_id, parent_span_id AS parent, coalesce(service_name, '') AS service,
            name, start_time_unix_nano AS start, end_time_unix_nano AS ends, status_code AS status
        FROM lake.spans WHERE list_contains(?, trace_id) AND start_time_unix_nano >= ?
            AND start_time_unix_nano <= ?
        """,
        [sorted({one["trace_id"] for one in of}), min(one["start"] for one in of) - 10**9,
         max(one["ends"] for one in of)],
    )  # fmt: skip
    return {(row["trace_id"], row["span_id"]): row for row in rows.iter_rows(named=True)}


def tree(spans: Mapping[Place, Mapping[str, Any]]) -> dict[Place, list[Mapping[str, Any]]]:
    """Children by parent."""
    found: dict[Place, list[Mapping[str, Any]]] = {}
    for row in spans.values():
        if row["parent"]:
            found.setdefault((row["trace_id"], row["parent"]), []).append(row)
    return found


def alone(span: Mapping[str, Any], children: Iterable[Mapping[str, Any]]) -> int:
    """Nanoseconds of a span in which none of its children ran."""
    covered, reached = 0, span["start"]
    for start, ends in sorted((one["start"], one["ends"]) for one in children):
        start, ends = max(start, reached), min(ends, span["ends"])
        if ends > start:
            covered += ends - start
            reached = ends
    return max(0, int(span["ends"]) - int(span["start"]) - covered)


def self_times(of: Sequence[Mapping[str, Any]], spans: Mapping[Place, Any]) -> Counter[str]:
    """Nanoseconds that some runs spent in each operation below them, and in themselves."""
    children = tree(spans)
    taken: Counter[str] = Counter()
    for run in of:
        root = (run["trace_id"], run["span_id"])
        queue, seen = [root], set[Place]()
        while queue:
            place = queue.pop()
            one = spans.get(place)
            if one is None or place in seen:
                continue
            seen.add(place)
            own = "its own code" if place == root else f"{one['name']} ({one['service']})"
            taken[own] += alone(one, children.get(place, ()))
            queue += [(row["trace_id"], row["span_id"]) for row in children.get(place, ())]
    return taken


def slower(
    read: Read, service: str, name: str, before: tuple[int, int], after: tuple[int, int]
) -> Explained:
    """Where the time went that an operation takes more."""
    old, new = runs(read, service, name, *before), runs(read, service, name, *after)
    if not old or not new:
        return Explained((), 0, unclear=True)
    was, now = self_times(old, below(read, old)), self_times(new, below(read, new))
    more = {what: now[what] / len(new) - was[what] / len(old) for what in now.keys() | was.keys()}
    total = sum(more.values())
    if total <= 0:
        return Explained((), len(old) + len(new), unclear=True)
    ranked = sorted(more.items(), key=lambda one: (-one[1], one[0]))[:_MOST]
    causes = tuple(Cause(what, ns / total, ns / 1e6) for what, ns in ranked if ns > 0.1 * total)
    clear = bool(causes) and causes[0].share >= EXPLAINS
    return Explained(causes, len(old) + len(new), unclear=not clear)


def failing(read: Read, service: str, name: str, since: int, until: int) -> Explained:
    """In which operation the failures of an operation begin."""
    found = runs(read, service, name, since, until, failed=True)
    spans = below(read, found)
    children = tree(spans)
    origins: Counter[str] = Counter()
    for run in found:
        place, depth = (run["trace_id"], run["span_id"]), 0
        what = "its own code"
        while depth < 200:
            failed = sorted(
                (row for row in children.get(place, ()) if row["status"] == 2),
                key=lambda row: (row["start"], row["span_id"]),
            )
            if not failed:
                break
            # The last one that failed: those before it were tried again.
            place, depth = (failed[-1]["trace_id"], failed[-1]["span_id"]), depth + 1
            what = f"{failed[-1]['name']} ({failed[-1]['service']})"
        origins[what] += 1
    causes = tuple(
        Cause(what, n / len(found), n) for what, n in origins.most_common(_MOST)
        if n >= 0.1 * len(found)
    )  # fmt: skip
    return Explained(causes, len(found), unclear=not causes or causes[0].share < EXPLAINS)


__all__ = ["Cause", "Explained", "alone", "below", "failing", "self_times", "slower"]
