"""Histories and changes from the lake, in a few scans however many errors there are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

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
    import numpy as np
    import polars as pl

    found = failures(read, since, until, only)
    if found.is_empty():
        return []
    operations = (
        found.filter(pl.col("name").is_not_null())
        .group_by("service", "pattern", "of", "name", "kind")
        .len()
        .sort("len", "of", "name", "kind", descending=[True, False, False, False], nulls_last=True)
        .group_by("service", "pattern", maintain_order=True)
        .head(OPERATIONS)
    )
    wanted = operations.select("of", "name", "kind").unique(maintain_order=True)
    wanted = wanted.with_row_index("operation")
    blind = sorted({row[0] for row in found.filter(pl.col("name").is_null())
                    .select("service").unique().iter_rows()})  # fmt: skip
    runs = _runs(read, wanted, blind, since, until)
    numbers = {
        (row["of"], row["name"], row["kind"]): row["operation"]
        for row in wanted.iter_rows(named=True)
    }
    by_operation = {
        int(key[0]): some for key, some in runs.group_by("operation", maintain_order=True)
    }
    made = []
    for key, some in found.group_by("service", "pattern", maintain_order=True):
        service, pattern = str(key[0]), str(key[1])
        mine = operations.filter((pl.col("service") == service) & (pl.col("pattern") == pattern))
        named = [(row["of"], row["name"], row["kind"]) for row in mine.iter_rows(named=True)]
        places = [numbers[one] for one in named] or [-1 - blind.index(service)]
        parts = [by_operation[one] for one in places if one in by_operation]
        own = some.select(
            pl.coalesce("start", "time").alias("start"), pl.lit(value=True).alias("failed")
        ).unique()
        clean = (
            pl.concat([part.select("start", "version") for part in parts])
            if parts
            else pl.DataFrame(schema={"start": pl.Int64, "version": pl.String})
        )
        # A run that failed is one of the runs; where it is none, it is one more.
        all_runs = clean.join(own, on="start", how="full", coalesce=True).sort("start")
        all_runs = all_runs.with_columns(
            pl.col("failed").fill_null(value=False), pl.col("version").forward_fill().fill_null("")
        )
        versions = tuple(all_runs["version"].unique(maintain_order=True).to_list())
        number = {version: at for at, version in enumerate(versions)}
        last = some.tail(1)
        made.append(
            History(
                service, pattern, str(last["title"][0] or ""), str(last["type"][0] or ""),
                tuple(dict.fromkeys(one[1] for one in named)),
                all_runs["start"].to_numpy(), all_runs["failed"].to_numpy(),
                all_runs["version"].replace_strict(number, return_dtype=pl.Int32).to_numpy()
                if number else np.zeros(0, np.int32),
                versions, tuple(some["id"].unique(maintain_order=True).to_list()),
                tuple(some.unique("id", maintain_order=True)["time"].to_list()),
            )
        )  # fmt: skip
    return made


def _runs(
    read: Read, wanted: pl.DataFrame, blind: Sequence[str], since: int, until: int
) -> pl.DataFrame:
    """Start and version of all runs, by the number of their operation.

    The entry spans of the services in `blind` have -1, -2 ...
    """
    return read(
        f"""
        WITH wanted AS (
            SELECT unnest(?::VARCHAR[]) AS service, unnest(?::VARCHAR[]) AS name,
                unnest(?::INTEGER[]) AS kind, unnest(?::BIGINT[]) AS operation
        ), blind AS (SELECT unnest(?::VARCHAR[]) AS service, unnest(?::BIGINT[]) AS operation
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
            wanted["of"].to_list(), wanted["name"].to_list(), wanted["kind"].to_list(),
            wanted["operation"].to_list(), list(blind), [-1 - at for at in range(len(blind))],
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
