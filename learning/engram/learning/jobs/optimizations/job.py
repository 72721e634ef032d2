"""The job: what is wasted is said once, again when its size changed, when it is gone or back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from engram.learning.jobs.insight import Insight
from engram.learning.jobs.optimizations.find import LEAST, Found, Name, look
from engram.learning.jobs.optimizations.reading import DAY, MINUTE, Period, period
from engram.learning.jobs.optimizations.said import (
    ended,
    known,
    registered,
    saving,
    stated,
)  # fmt: skip
from engram.learning.jobs.optimizations.verify import Gone, Known, gone, measured

if TYPE_CHECKING:
    import polars as pl

    from engram.learning.jobs.runner import Read
    from engram.learning.jobs.window import Window

CHANGED: Final = 2.0
"""How many times larger or smaller a saving is to be said again, its interval apart besides."""
CHANGED_RUNS: Final = 20
"""Affected runs since then that this takes."""

_TELLING: Final = ("request_outcome", "api_call", "ai_response", "performance_metric",
                   "workflow_state", "integration_sync")  # fmt: skip
"""Memories that are evidence, the first ones first."""


class Optimizations:
    """The job."""

    name = "optimizations"
    about = "N+1, repeats, retries, calls in a row, slow queries, caches, models; and their end"
    patient = True

    def run(self, read: Read, window: Window) -> Iterable[Insight]:
        """See the package."""
        span = period(read, window)
        found, runs = look(read, span)
        before = known(read, window.until)
        says = [*self._there(found, before, window.until), *_ends(found, runs, before, span)]
        if not says:
            return
        apps = registered(read, window.until)
        told = _memories(read, [one for one, *_ in says if isinstance(one, Found)])
        for one, state, key, old, end in says:
            name = one.name if isinstance(one, Found) else one
            app = apps.get(name.entry) or apps.get(name.operation)
            own = () if app is None else (str(app["id"]),)
            if end is not None and old is not None:
                compared = measured(read, name, end)
                yield ended(name, old, end, compared, (old.id, *own), app)
            elif isinstance(one, Found):
                evidence = (*own, *(() if old is None else (old.id,)),
                            *told.get(name, ()))  # fmt: skip
                yield stated(one, state, key, old, evidence, app)

    def _there(
        self, found: dict[Name, Found], before: dict[Name, Known], until: int
    ) -> Iterator[_Said]:
        for name, one in sorted(found.items(), key=lambda pair: pair[0].key):
            old = before.get(name)
            if old is None:
                if one.stands and gone(one, one.runs, None, until) is None:
                    yield one, "found", name.key, None, None
                continue
            fresh = since(one, old.last if old.state != "gone" else old.time)
            if old.state == "gone":
                if fresh.stands:
                    yield fresh, "back", (*name.key, "back", str(old.time)), old, None
            elif fresh.affected.height >= CHANGED_RUNS and fresh.stands and _differs(fresh, old):
                level = str(math.floor(math.log2(max(saving(fresh).value, 2**-20))))
                key = (*name.key, "changed", level, str(old.time))
                yield fresh, "changed", key, old, None


_Said = tuple["Found | Name", str, tuple[str, ...], "Known | None", "Gone | None"]


def _ends(
    found: dict[Name, Found], runs: pl.DataFrame, before: dict[Name, Known], span: Period
) -> Iterator[_Said]:
    import polars as pl

    for name, old in sorted(before.items(), key=lambda pair: pair[0].key):
        if old.state == "gone":
            continue
        own = runs.filter((pl.col("service") == name.service) & (pl.col("entry") == name.entry))
        end = gone(found.get(name), own, old, span.until)
        if end is not None:
            yield name, "gone", (), old, end


def since(found: Found, time: int) -> Found:
    """The part of it after a moment."""
    import polars as pl

    later = pl.col("began") > time
    return Found(found.name, found.affected.filter(later), found.runs.filter(later))


def _differs(found: Found, old: Known) -> bool:
    now = saving(found)
    if now.overlaps(old.saving):
        return False
    large, small = max(now.value, old.saving.value), min(now.value, old.saving.value)
    return large >= CHANGED * small


def _memories(read: Read, found: list[Found]) -> dict[Name, tuple[str, ...]]:
    """Of each pattern, memories of its newest traces."""
    if not found:
        return {}
    traces = {one.name: one.affected["trace_id"].to_list()[-LEAST:] for one in found}
    began = [int(time) for one in found for time in one.affected["began"].to_list()[-LEAST:]]
    wanted: list[Any] = sorted({trace for some in traces.values() for trace in some})
    rows = read(
        "SELECT id, trace_id, type FROM lake.memories "
        "WHERE trace_id IN (SELECT unnest(?::VARCHAR[])) "
        "AND time_unix_nano >= ? AND time_unix_nano < ? "
        f"AND type IN {_TELLING} ORDER BY list_position(?, type), time_unix_nano, id",
        [wanted, min(began) - MINUTE, max(began) + DAY, list(_TELLING)],
    )
    of: dict[str, list[str]] = {}
    for id_, trace, _ in rows.iter_rows():
        of.setdefault(trace, []).append(id_)
    return {
        name: tuple(id_ for trace in some for id_ in of.get(trace, ())[:3])
        for name, some in traces.items()
    }


JOB: Final = Optimizations()

__all__ = ["JOB", "Optimizations", "since"]
