"""Histories and changes from the lake, in a few scans however many errors there are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from engram.learning.jobs.errors import PATTERN, TYPE
from engram.learning.jobs.solutions.history import History
from engram.learning.jobs.solutions.trials import Change

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars as pl

    from engram.learning.jobs.runner import Read

DAY: Final = 24 * 3600 * 10**9
HISTORY: Final = 30 * DAY
"""What is looked at of an error's past."""

OPERATIONS: Final = 8
"""Of one error; the rest of a function that is called from everywhere is left out."""

MOST_RUNS: Final = 20_000_000
"""Runs that are looked at in one pass: 240 MB."""

_KEPT: Final = 4
"""Sets of operations whose runs are kept together: errors of a service that know none follow one
another, and others hardly have the same."""

_VERSION: Final = """coalesce(json_extract_string(resource, '$."service.version"'), \'\')"""


def failures(
    read: Read, since: int, until: int, only: Sequence[tuple[str, str]] = ()
) -> pl.DataFrame:
    """The occurrences of errors: service, pattern, title, type, id, time, and the failed span.

    `only` names some of them by service and pattern.
    """
    named = ""
    values: list[object] = [since, until]
    if only:
        named = " AND (service, pattern) IN (SELECT (unnest(?::VARCHAR[]), unnest(?::VARCHAR[])))"
        values += [[one[0] for one in only], [one[1] for one in only]]
    return read(
        f"""
        WITH errors AS (
            SELECT id, coalesce(service_name, '') AS service, {PATTERN} AS pattern, title,
                coalesce({TYPE}, '') AS type,
                time_unix_nano AS time, trace_id, span_id
            FROM lake.memories
            WHERE type IN ('system_error', 'ui_error') AND fingerprint IS NOT NULL
                AND time_unix_nano >= ? AND time_unix_nano < ?{named}
        ), failed AS (
            SELECT trace_id, span_id, service_name, name, kind, start_time_unix_nano AS start
            FROM lake.spans
            WHERE trace_id IN (SELECT trace_id FROM errors)
                AND end_time_unix_nano >= ? AND start_time_unix_nano < ?
        )
        SELECT e.id, e.service, e.pattern, e.title, e.type, e.time, f.name, f.kind, f.start,
            f.service_name AS of
        FROM errors e LEFT JOIN failed f USING (trace_id, span_id)
        ORDER BY e.service, e.pattern, e.time, e.id
        """,
        [*values, since, until],
    )


def histories(
    read: Read,
    since: int,
    until: int,
    only: Sequence[tuple[str, str]] = (),
    *,
    worth: Callable[[str, str, Glance], bool] | None = None,
) -> Iterator[History]:
    """The history of each error that occurred since, with all runs of its operations.

    `worth` may say of a service and a pattern, by a glance, that its history is not needed.
    """
    import numpy as np

    found = failures(read, since, until, only)
    if found.is_empty():
        return
    errors = _errors(found)
    operations = {key: _operations(rows) for key, rows in errors.items()}
    numbers: dict[Operation, int] = {}
    for some in operations.values():
        for one in some:
            numbers.setdefault(one, len(numbers))
    # An error that knows no span is counted against the entry spans of its service.
    blind = sorted({service for (service, _), some in operations.items() if not some})
    runs = _Runs(*_runs(read, numbers, blind, since, until))
    for (service, pattern), rows in errors.items():
        named = operations[service, pattern]
        places = tuple(sorted([numbers[one] for one in named] or [-1 - blind.index(service)]))
        began = np.unique(
            np.asarray(
                [time if start is None else start for _, _, _, time, _, _, start, _ in rows],
                np.int64,
            )
        )
        if worth is not None and not worth(service, pattern, runs.glance(places, began)):
            continue
        starts, on, versions, failed = runs.with_failures(places, began)
        memories = {row[0]: row[3] for row in rows}
        yield History(
            service, pattern, rows[-1][1] or "", rows[-1][2] or "",
            tuple(dict.fromkeys(one[1] for one in named)), starts, failed, on, versions,
            tuple(memories), tuple(memories.values()),
        )  # fmt: skip


_Row = tuple[str, str, str, int, str | None, int | None, int | None, str | None]
"""Memory id, title, type and time; name, kind, start and service of the span that failed."""


def _errors(found: pl.DataFrame) -> dict[tuple[str, str], list[_Row]]:
    """The occurrences of each error."""
    columns = ("id", "title", "type", "time", "name", "kind", "start", "of")
    rows = list(zip(*(found[name].to_list() for name in columns), strict=True))
    keys = list(zip(found["service"].to_list(), found["pattern"].to_list(), strict=True))
    errors: dict[tuple[str, str], list[_Row]] = {}
    for key, row in zip(keys, rows, strict=True):
        errors.setdefault(key, []).append(row)
    return errors


@dataclass(frozen=True, slots=True)
class Glance:
    """What is known of an error's runs before they are put together."""

    failures: npt.NDArray[np.int64]
    """Starts of the runs that failed, each once, in order."""
    on: tuple[str | None, ...]
    """Versions of these, as far as they are runs of its operations."""
    between: int
    """Runs from the first failure to before the last; failures may be no runs themselves."""
    after: int
    """Runs after the last failure."""
    newest: str
    """The version that was the last to begin."""


Operation = tuple[str | None, str, int]
"""Service, name and kind of a span."""


def _operations(rows: Iterable[_Row]) -> list[Operation]:
    """The operations in which an error occurs, the most frequent first."""
    times = Counter(
        (of, name, kind or 0) for _, _, _, _, name, kind, _, of in rows if name is not None
    )
    ranked = sorted(times.items(), key=lambda one: (-one[1], str(one[0])))
    return [one for one, _ in ranked[:OPERATIONS]]


class _Runs:
    """Runs by operation; those of the same operations are put together once."""

    def __init__(self, runs: pl.DataFrame, versions: list[str]) -> None:
        import numpy as np

        self._versions = versions
        operation = runs["operation"].to_numpy()
        start = runs["start"].to_numpy()
        order = np.lexsort((start, operation))
        self._start, self._version = start[order], runs["version"].to_numpy()[order]
        names, first = np.unique(operation[order], return_index=True)
        ends = [*first[1:].tolist(), len(order)]
        self._at = dict(zip(names.tolist(), zip(first.tolist(), ends, strict=True), strict=True))
        self._began: dict[int, dict[int, int]] = {}
        self._known: dict[tuple[int, ...], tuple[Any, Any, tuple[str, ...]]] = {}

    def glance(self, places: tuple[int, ...], failures: npt.NDArray[np.int64]) -> Glance:
        """Of the runs of some operations, what it costs little to know."""
        import numpy as np

        between = after = 0
        on = np.full(len(failures), -1, np.int64)
        began: dict[int, int] = {}
        for one in places:
            if one not in self._at:
                continue
            part = slice(*self._at[one])
            starts, versions = self._start[part], self._version[part]
            at = np.searchsorted(starts, failures)
            is_run = starts[np.minimum(at, len(starts) - 1)] == failures
            on[is_run] = versions[at[is_run]]
            between += int(at[-1] - at[0])
            after += len(starts) - int(np.searchsorted(starts, failures[-1], "right"))
            if one not in self._began:
                codes, first = np.unique(versions, return_index=True)
                self._began[one] = dict(zip(codes.tolist(), starts[first].tolist(), strict=True))
            for version, first_run in self._began[one].items():
                began[version] = min(first_run, began.get(version, first_run))
        newest = max(began.items(), key=lambda pair: (pair[1], pair[0]), default=(-1, 0))[0]
        names = [*self._versions, ""]
        told = tuple(names[one] if one >= 0 else None for one in on.tolist())
        return Glance(failures, told, between, after, names[newest])

    def with_failures(
        self, places: tuple[int, ...], own: npt.NDArray[np.int64]
    ) -> tuple[Any, Any, tuple[str, ...], Any]:
        """Starts, versions by number, names of versions, and which failed, of some operations.

        `own` are the starts of the failures, each once and sorted. One that is none of the runs is
        one more, of the version of the run before it.
        """
        import numpy as np

        starts, on, versions = self._of(places)
        at = np.searchsorted(starts, own)
        is_run = at < len(starts)
        is_run[is_run] = starts[at[is_run]] == own[is_run]
        failed = np.zeros(len(starts), bool)
        failed[at[is_run]] = True
        if not is_run.all():
            more, place = own[~is_run], at[~is_run]
            before = on[np.maximum(place - 1, 0)] if len(on) else np.zeros(len(place), np.int32)
            starts = np.insert(starts, place, more)
            failed = np.insert(failed, place, values=True)
            on = np.insert(on, place, before)
        return starts, on, versions or ("",), failed

    def _of(self, places: tuple[int, ...]) -> tuple[Any, Any, tuple[str, ...]]:
        import numpy as np

        if places not in self._known:
            while len(self._known) >= _KEPT:
                del self._known[next(iter(self._known))]
            parts = [slice(*self._at[one]) for one in places if one in self._at]
            empty = np.zeros(0, np.int64)
            starts = np.concatenate([empty, *(self._start[one] for one in parts)])
            codes = np.concatenate([empty.astype(np.int32), *(self._version[one] for one in parts)])
            order = np.argsort(starts, kind="stable")
            starts, codes = starts[order], codes[order]
            found, first = np.unique(codes, return_index=True)
            seen = found[np.argsort(first)]
            number = np.zeros(len(self._versions) or 1, np.int32)
            number[seen] = np.arange(len(seen), dtype=np.int32)
            names = tuple(self._versions[int(one)] for one in seen)
            self._known[places] = (starts, number[codes], names)
        return self._known[places]


def _runs(
    read: Read, numbers: Mapping[Operation, int], blind: Sequence[str], since: int, until: int
) -> tuple[pl.DataFrame, list[str]]:
    """Operation, start and version of all runs, by numbers, and the names of the versions.

    The entry spans of the services in `blind` have -1, -2 ...
    """
    (spans,) = read(
        "SELECT count(*) FROM lake.spans WHERE start_time_unix_nano >= ? "
        "AND start_time_unix_nano < ?", [since, until],
    ).row(0)  # fmt: skip
    # The newest, where there may be too many; sorting costs more than reading.
    newest = f"ORDER BY start DESC LIMIT {MOST_RUNS}" if spans > MOST_RUNS else ""
    resources = read(
        f"""
        SELECT hash(resource) AS resource, {_VERSION} AS version
        FROM (SELECT DISTINCT resource FROM lake.spans
            WHERE start_time_unix_nano >= ? AND start_time_unix_nano < ?)
        """,
        [since, until],
    )
    versions = resources["version"].unique().sort().to_list() or [""]
    at = {version: number for number, version in enumerate(versions)}
    found = read(
        f"""
        WITH wanted AS (
            SELECT unnest(from_json(?, '["VARCHAR"]')) AS service,
                unnest(from_json(?, '["VARCHAR"]')) AS name,
                unnest(from_json(?, '["INTEGER"]')) AS kind,
                unnest(from_json(?, '["INTEGER"]')) AS operation
        ), blind AS (
            SELECT unnest(from_json(?, '["VARCHAR"]')) AS service,
                unnest(from_json(?, '["INTEGER"]')) AS operation
        ), versions AS (
            SELECT unnest(from_json(?, '["UBIGINT"]')) AS resource,
                unnest(from_json(?, '["INTEGER"]')) AS version
        ), runs AS (
            SELECT operation, resource, start_time_unix_nano AS start FROM lake.spans s
            JOIN wanted w ON w.service IS NOT DISTINCT FROM s.service_name AND w.name = s.name
                AND w.kind = s.kind
            WHERE start_time_unix_nano >= ? AND start_time_unix_nano < ?
            UNION ALL
            SELECT operation, resource, start_time_unix_nano AS start FROM lake.spans s
            JOIN blind b ON b.service = coalesce(s.service_name, '')
            WHERE s.kind IN (2, 5) AND start_time_unix_nano >= ? AND start_time_unix_nano < ?
        )
        SELECT operation, start, coalesce(version, ?)::INTEGER AS version
        FROM runs LEFT JOIN versions ON versions.resource = hash(runs.resource)
        {newest}
        """,
        [
            # As JSON: of a list DuckDB looks at each value by itself, and for pandas each time.
            *(json.dumps([one[part] for one in numbers]) for part in range(3)),
            json.dumps([*numbers.values()]),
            json.dumps(blind), json.dumps([-1 - at for at in range(len(blind))]),
            json.dumps(resources["resource"].to_list()),
            json.dumps([at[one] for one in resources["version"].to_list()]),
            since, until, since, until, at.get("", 0),
        ],
    )  # fmt: skip
    return found, versions


def changes(read: Read, since: int, until: int) -> dict[str, list[Change]]:
    """What was done to each service; under "" what names none."""
    found: dict[str, list[Change]] = {}
    for service, change in [*_deploys(read, since, until), *_marked(read, since, until)]:
        found.setdefault(service, []).append(change)
    return found


def _deploys(read: Read, since: int, until: int) -> Iterable[tuple[str, Change]]:
    """The first span of each version of a service, but for the one that it had before."""
    rows = read(
        f"""
        WITH by_resource AS (
            SELECT coalesce(service_name, '') AS service, resource,
                min(start_time_unix_nano) AS first
            FROM lake.spans WHERE start_time_unix_nano >= ? AND start_time_unix_nano < ?
            GROUP BY ALL
        )
        , versions AS (
            SELECT service, {_VERSION} AS version, min(first) AS first FROM by_resource
            GROUP BY ALL HAVING version <> ''
        )
        SELECT * FROM versions
        QUALIFY row_number() OVER (PARTITION BY service ORDER BY first, version) > 1
        ORDER BY first, service
        """,
        [since, until],
    )
    for row in rows.iter_rows(named=True):
        version = str(row["version"])
        yield row["service"], Change("deploy", version, int(row["first"]), version=version)


_MARKED: Final = {
    "error_resolution": "remedy", "business_decision": "decision", "optimization": "optimization",
}  # fmt: skip


def _marked(read: Read, since: int, until: int) -> Iterable[tuple[str, Change]]:
    """What the app says that it did: remedies, decisions, flags, changes of configuration."""
    rows = read(
        """
        SELECT id, type, time_unix_nano AS time, coalesce(service_name, '') AS service, title,
            subject, attributes, coalesce(trace_id, '') AS trace_id
        FROM lake.memories
        WHERE (type IN ('error_resolution', 'business_decision', 'optimization')
            OR (type = 'system_event' AND regexp_matches(title, '(?i)deploy|rollback|rolled back|'
                || 'config(uration)? (changed|reloaded|updated)|feature flag|scaled|restarted')))
            AND time_unix_nano >= ? AND time_unix_nano < ?
            AND coalesce(trust, '') NOT IN ('browser', 'unknown')
        ORDER BY time_unix_nano, id
        """,
        [since, until],
    )
    before: dict[tuple[str, str, str], object] = {}
    for row in rows.iter_rows(named=True):
        try:
            said = json.loads(row["attributes"] or "{}")
        except ValueError:
            said = {}
        if not isinstance(said, dict):
            said = {}
        kind, name, gave_up = _MARKED.get(row["type"], "event"), str(row["title"] or ""), False
        if kind == "remedy":
            result = str(said.get("result", ""))
            if result in ("refused", "dry_run"):
                continue  # nothing was done
            name = str(said.get("remedy") or said.get("fix") or name)
            gave_up = result in ("failed", "rolled_back")
        elif kind == "decision":
            kind, of, to = (
                ("flag", str(said["flag"]), said.get("value"))
                if "flag" in said
                else (kind, str(said.get("decision") or row["subject"] or name), said.get("chosen"))
            )
            # A decision of every request changes nothing; one that differs from the last does.
            place = (row["service"], kind, of)
            known, same = place in before, before.get(place) == to
            before[place] = to
            if same or not known:
                continue
            name = f"{of}: {to}"
        elif kind == "optimization":
            if str(said.get("job", "")):
                continue  # a proposal of ours, not something that was done
            name = str(said.get("optimization") or name)
        yield row["service"], Change(
            kind, name[:200], int(row["time"]), str(row["id"]), gave_up=gave_up,
            trace_id=row["trace_id"], error_type=str(said.get("error_type") or ""),
        )  # fmt: skip


__all__ = ["DAY", "HISTORY", "PATTERN", "Glance", "changes", "failures", "histories"]
