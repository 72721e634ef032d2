"""Histories and changes from the lake, in a few scans however many errors there are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from engram.learning.jobs.errors import PATTERN
from engram.learning.jobs.solutions.history import History
from engram.learning.jobs.solutions.trials import Change

if TYPE_CHECKING:
    import polars as pl

    from engram.learning.jobs.runner import Read

DAY: Final = 24 * 3600 * 10**9
HISTORY: Final = 30 * DAY
"""What is looked at of an error's past."""

OPERATIONS: Final = 8
"""Of one error; the rest of a function that is called from everywhere is left out."""

MOST_RUNS: Final = 20_000_000
"""Runs that are looked at in one pass: 240 MB."""

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
                coalesce(json_extract_string(attributes, '$.type'), '') AS type,
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
    read: Read, since: int, until: int, only: Sequence[tuple[str, str]] = ()
) -> list[History]:
    """The history of each error that occurred since, with all runs of its operations."""
    import polars as pl

    found = failures(read, since, until, only)
    if found.is_empty():
        return []
    errors: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in found.iter_rows(named=True):
        errors.setdefault((row["service"], row["pattern"]), []).append(row)
    operations = {key: _operations(rows) for key, rows in errors.items()}
    numbers: dict[Operation, int] = {}
    for some in operations.values():
        for one in some:
            numbers.setdefault(one, len(numbers))
    # An error that knows no span is counted against the entry spans of its service.
    blind = sorted({service for (service, _), some in operations.items() if not some})
    wanted = pl.DataFrame(
        [(*one, number) for one, number in numbers.items()],
        schema={"of": pl.String, "name": pl.String, "kind": pl.Int32, "operation": pl.Int64},
        orient="row",
    )
    runs = _Runs(_runs(read, wanted, blind, since, until))
    made = []
    for (service, pattern), rows in errors.items():
        named = operations[service, pattern]
        places = [numbers[one] for one in named] or [-1 - blind.index(service)]
        starts, on, versions, failed = runs.with_failures(
            tuple(sorted(places)), [row["time"] if row["start"] is None else row["start"]
                                    for row in rows],
        )  # fmt: skip
        memories = {row["id"]: row["time"] for row in rows}
        made.append(
            History(
                service, pattern, rows[-1]["title"] or "", rows[-1]["type"] or "",
                tuple(dict.fromkeys(one[1] for one in named)), starts, failed, on, versions,
                tuple(memories), tuple(memories.values()),
            )
        )  # fmt: skip
    return made


Operation = tuple[str | None, str, int]
"""Service, name and kind of a span."""


def _operations(rows: Iterable[Mapping[str, Any]]) -> list[Operation]:
    """The operations in which an error occurs, the most frequent first."""
    times = Counter(
        (row["of"], row["name"], row["kind"]) for row in rows if row["name"] is not None
    )
    ranked = sorted(times.items(), key=lambda one: (-one[1], str(one[0])))
    return [one for one, _ in ranked[:OPERATIONS]]


class _Runs:
    """Runs by operation; those of the same operations are put together once."""

    def __init__(self, runs: pl.DataFrame) -> None:
        import numpy as np
        import polars as pl

        self._versions: list[str] = runs["version"].unique().sort().to_list()
        codes = {version: at for at, version in enumerate(self._versions)}
        operation = runs["operation"].to_numpy()
        start = runs["start"].to_numpy()
        version = (
            runs["version"].replace_strict(codes, return_dtype=pl.Int32).to_numpy()
            if codes
            else np.zeros(0, np.int32)
        )
        order = np.lexsort((start, operation))
        self._start, self._version = start[order], version[order]
        names, first = np.unique(operation[order], return_index=True)
        ends = [*first[1:].tolist(), len(order)]
        self._at = dict(zip(names.tolist(), zip(first.tolist(), ends, strict=True), strict=True))
        self._known: dict[tuple[int, ...], tuple[Any, Any, tuple[str, ...]]] = {}

    def with_failures(
        self, places: tuple[int, ...], failures: Sequence[int]
    ) -> tuple[Any, Any, tuple[str, ...], Any]:
        """Starts, versions by number, names of versions, and which failed, of some operations.

        A failure that is none of the runs is one more, of the version of the run before it.
        """
        import numpy as np

        starts, on, versions = self._of(places)
        own = np.unique(np.asarray(failures, dtype=np.int64))
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
    read: Read, wanted: pl.DataFrame, blind: Sequence[str], since: int, until: int
) -> pl.DataFrame:
    """Start and version of all runs, by the number of their operation.

    The entry spans of the services in `blind` have -1, -2 ...
    """
    return read(
        f"""
        WITH wanted AS (
            SELECT unnest(from_json(?, '["VARCHAR"]')) AS service,
                unnest(from_json(?, '["VARCHAR"]')) AS name,
                unnest(from_json(?, '["INTEGER"]')) AS kind,
                unnest(from_json(?, '["BIGINT"]')) AS operation
        ), blind AS (
            SELECT unnest(from_json(?, '["VARCHAR"]')) AS service,
                unnest(from_json(?, '["BIGINT"]')) AS operation
        ), versions AS (
            SELECT resource, {_VERSION} AS version
            FROM (SELECT DISTINCT resource FROM lake.spans
                WHERE start_time_unix_nano >= ? AND start_time_unix_nano < ?)
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
        SELECT operation, start, coalesce(version, '') AS version
        FROM runs LEFT JOIN versions USING (resource)
        ORDER BY start DESC LIMIT {MOST_RUNS}
        """,
        [
            # As JSON: of a list DuckDB looks at each value by itself, and for pandas each time.
            *(json.dumps(wanted[name].to_list()) for name in ("of", "name", "kind", "operation")),
            json.dumps(blind), json.dumps([-1 - at for at in range(len(blind))]),
            since, until, since, until, since, until,
        ],
    )  # fmt: skip


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


__all__ = ["DAY", "HISTORY", "PATTERN", "changes", "failures", "histories"]
