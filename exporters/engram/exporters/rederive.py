"""Rebuilding memories from the raw telemetry, after the rules changed.

```
copy the stored memories  →  read all records, apply the rules  →  compare  →  store what differs
```

The first three only read the lake, beside an ingest that goes on; they work in a scratch database
in the home, so a lake larger than memory is no matter. The last is done in slices by the home's
one writer (`apply`). Each change says which stored version it was made for, so a memory that ingest
merged into meanwhile is left alone and compared again. What has been stored stays stored when this
is killed, and running it again makes the rest: the result depends on records and rules alone.

A memory is rebuilt when all its records are still in the lake. When some have expired it cannot be,
and stays as it is (records that it does not know yet are merged into it, as on ingest).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal

import polars as pl

from engram.exporters import files
from engram.exporters.errors import HomeBusy, StoreError
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_read_only, quoted
from engram.exporters.lake.frames import NEEDED, frames
from engram.exporters.memories import MEMORY_SCHEMA
from engram.exporters.merge import merge, merge_frame
from engram.exporters.rules import Rules

if TYPE_CHECKING:
    import duckdb

CHANGES: Final[dict[str, pl.DataType]] = {
    **MEMORY_SCHEMA,
    "recorded_at": pl.Int64(),  # of its newest record, so that it expires with its telemetry
    "collector": pl.String(),  # null, as `sequence`: the commit's own
    "sequence": pl.Int64(),  # kept where only the rules' version differs: readers need no look
    "removed": pl.Boolean(),
    "seen": pl.List(pl.Int64()),  # sequences of the stored rows that this change was made for
    "withdrawn": pl.Boolean(),  # an index row of the stored memory may have to go
    "old_type": pl.String(),
    "old_service_name": pl.String(),
    "old_index_as": pl.String(),
}
"""A change to the stored memories. Of one that is `removed` only the id and the last six count."""

_MADE: Final = {**MEMORY_SCHEMA, "recorded_at": pl.Int64()}
_STORED: Final = {**_MADE, "collector": pl.String(), "sequence": pl.Int64()}
_TYPES: Final = {
    pl.String(): "VARCHAR", pl.Int64(): "BIGINT", pl.Float32(): "FLOAT", pl.Boolean(): "BOOLEAN",
    pl.List(pl.String()): "VARCHAR[]", pl.List(pl.UInt64()): "UBIGINT[]",
    pl.List(pl.Int64()): "BIGINT[]",
}  # fmt: skip

_PAGE: Final = 16_384
"""Records read at once: whole commits, at least one."""
_COMPARED: Final = 30_000
"""Memories compared at once, stored and rebuilt together."""
_SLICE: Final = 4_096
"""Changes in one transaction: some 0.2 s of the writer, between two commits of ingest."""
_ROUNDS: Final = 50

Action = Literal["added", "changed", "removed", "restamped", "same", "kept"]
"""What becomes of a memory.

`restamped`: only `rules_version` differs; `kept`: telemetry of it has left the lake.
"""
Apply = Callable[[pl.DataFrame], list[str]]
"""Stores changes; returns the ids of those whose memory is no longer as it was seen."""
Progress = Callable[[str, int, int], None]
"""(what is done, how many of, how many)."""
_Commits = tuple[str | None, int, int]
"""(collector, sequence, records)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which memories are rebuilt; by default all."""

    since_ns: int | None = None
    """Only those with a record that was received (`recorded_at`) at this time or later."""

    types: tuple[str, ...] = ()
    """Only of these types."""


@dataclass(slots=True)
class Outcome:
    """What was done, or would be."""

    rules_version: str
    records: int = 0
    """Records read."""
    counts: dict[str, Counter[Action]] = field(default_factory=dict)
    """By memory type."""
    unsettled: int = 0
    """Memories that changed faster than they could be compared; run it again for these."""

    def count(self, action: Action) -> int:
        """How many, of all types."""
        return sum(counter[action] for counter in self.counts.values())


def rederive(
    home: Home,
    rules: Rules,
    apply: Apply | None,
    selection: Selection | None = None,
    progress: Progress = lambda *_: None,
) -> Outcome:
    """Rebuild the memories of a home. Without `apply` nothing is stored, only counted.

    Ingest that goes on meanwhile MUST use the same rules.

    Raises:
        NotFound: this home has no lake.
        HomeBusy: somebody else rebuilds it.
    """
    with _scratch(home) as db:
        return _Rederivation(db, rules, selection or Selection(), progress).run(apply)


@contextlib.contextmanager
def _scratch(home: Home) -> Iterator[duckdb.DuckDBPyConnection]:
    """The lake, read-only, and an empty scratch database beside it."""
    connection = attach_read_only(home, threads=2)
    folder = home.rederive
    descriptor = None
    try:
        files.make_directory(folder, 0o700)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HomeBusy(f"{home.root} is being rebuilt by another engram rederive") from None
        for old in folder.iterdir():  # of one that was killed
            if old.name != "lock":
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        try:
            connection.execute(f"ATTACH '{quoted(folder / 'scratch.duckdb')}' AS scratch")
            connection.execute(f"SET temp_directory = '{quoted(folder / 'spill')}'")
            yield connection
        finally:
            connection.close()
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        connection.close()
        if descriptor is not None:
            os.close(descriptor)


class _Rederivation:
    """One run. The tables of the scratch database are named where they are made."""

    def __init__(
        self,
        db: duckdb.DuckDBPyConnection,
        rules: Rules,
        selection: Selection,
        progress: Progress,
    ) -> None:
        self._db = db
        self._rules = rules
        self._since = selection.since_ns
        self._types = selection.types
        self._progress = progress
        self._read: dict[str | None, int] = {}
        """The last sequence read, by collector."""
        self._outcome = Outcome(rules.version)

    def run(self, apply: Apply | None) -> Outcome:
        """All of it."""
        self._table("stored", _STORED)
        self._table("made", _MADE)
        self._table("changes", CHANGES)
        self._db.execute("CREATE TABLE scratch.scanned (content_hash UBIGINT)")
        self._db.execute("CREATE TABLE scratch.targets (id VARCHAR)")
        # The memories first: so each of their records is among those that are read then.
        self._copy_stored("")
        self._read_new()
        self._read_older()
        self._compare(again=False)
        if apply is None:
            return self._outcome
        stale = self._apply(apply)
        for _ in range(_ROUNDS):
            if not stale:
                break
            self._look_again(stale)
            stale = self._apply(apply)
        self._outcome.unsettled = len(stale)
        return self._outcome

    def _table(self, name: str, columns: dict[str, pl.DataType]) -> None:
        inner = ", ".join(f"{column} {_TYPES[type_]}" for column, type_ in columns.items())
        self._db.execute(f"CREATE OR REPLACE TABLE scratch.{name} ({inner})")

    def _insert(self, name: str, frame: pl.DataFrame) -> None:
        self._db.register("fresh", frame.to_arrow())
        self._db.execute(f"INSERT INTO scratch.{name} SELECT * FROM fresh")
        self._db.unregister("fresh")

    def _one(self, sql: str) -> int:
        row = self._db.execute(sql).fetchone()
        return int(row[0] or 0) if row else 0

    # ------------------------------------------------------------------ reading

    def _copy_stored(self, where: str) -> None:
        columns = ", ".join(_STORED)
        of_type = f" AND type IN ({_marks(self._types)})" if self._types else ""
        self._db.execute(
            f"INSERT INTO scratch.stored SELECT {columns} FROM memories "
            f"WHERE id IS NOT NULL{of_type}{where}",
            list(self._types),
        )

    def _read_new(self) -> None:
        """Read the records of commits that were not read yet."""
        since = f" WHERE recorded_at >= {int(self._since)}" if self._since is not None else ""
        both = " UNION ALL ".join(
            f"SELECT collector, sequence FROM {table}{since}" for table in NEEDED
        )
        commits = self._db.execute(
            f"SELECT collector, sequence, count(*) FROM ({both}) GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        commits = [row for row in commits if row[1] > self._read.get(row[0], -1)]
        total, done = self._outcome.records + sum(row[2] for row in commits), 0
        for collector, first, last, count in _pages(commits):
            where = "collector IS NOT DISTINCT FROM ? AND sequence BETWEEN ? AND ?"
            if self._since is not None:
                where += f" AND recorded_at >= {int(self._since)}"
            self._derive(where, [collector, first, last])
            self._read[collector] = last
            done += count
            self._outcome.records += count
            self._progress("read", self._outcome.records, total)

    def _read_older(self) -> None:
        """With `since`: read what else the memories of these records are made of."""
        if self._since is None:
            return
        self._db.execute(
            "INSERT INTO scratch.targets SELECT DISTINCT id FROM scratch.made "
            f"UNION SELECT id FROM ({_STATE}) WHERE there > 0"
        )
        self._db.execute(
            "CREATE TABLE scratch.older AS SELECT DISTINCT h FROM "
            "(SELECT unnest(sources) AS h FROM scratch.stored "
            "WHERE id IN (SELECT id FROM scratch.targets)) "
            "ANTI JOIN scratch.scanned ON h = content_hash"
        )
        # They are of other memories too, which are not rebuilt.
        where = f"recorded_at < {int(self._since)} AND content_hash IN (FROM scratch.older)"
        self._derive(where, [], only_targets=True)

    def _derive(self, where: str, values: list[Any], *, only_targets: bool = False) -> None:
        """Apply the rules to some records, and keep what they make."""
        rows = {
            table: self._db.execute(
                f"SELECT {', '.join(columns)}, recorded_at FROM {table} WHERE {where}", values
            ).to_arrow_table()
            for table, columns in NEEDED.items()
        }
        times = pl.concat(
            [_frame(table.select(["content_hash", "recorded_at"])) for table in rows.values()]
        ).unique("content_hash")
        self._insert("scanned", times.select("content_hash"))
        of_kind = frames(rows, self._rules.wanted, self._rules.resource_wanted)
        made = pl.concat([self._rules.apply(frame, kind) for kind, frame in of_kind.items()])
        if self._types:
            made = made.filter(pl.col("type").is_in(self._types))
        if not made.height:
            return
        made = made.with_row_index("row")
        newest = (
            made.select("row", content_hash="sources")
            .explode("content_hash")
            .join(times, on="content_hash")
            .group_by("row")
            .agg(pl.col("recorded_at").max())
        )
        made = made.join(newest, on="row", how="left", maintain_order="left")
        self._insert_made(merge_frame(made.select(list(_MADE))), only_targets=only_targets)

    def _insert_made(self, made: pl.DataFrame, *, only_targets: bool) -> None:
        self._db.register("fresh", made.to_arrow())
        only = " WHERE id IN (SELECT id FROM scratch.targets)" if only_targets else ""
        self._db.execute(f"INSERT INTO scratch.made SELECT * FROM fresh{only}")
        self._db.unregister("fresh")

    # ------------------------------------------------------------------ comparing

    def _compare(self, *, again: bool) -> None:
        """Fill `changes`: of all memories, or `again` of the targets."""
        self._table("changes", CHANGES)
        self._db.execute(f"CREATE OR REPLACE TABLE scratch.state AS {_STATE}")
        of_targets = " AND id IN (SELECT id FROM scratch.targets)"
        only = of_targets if again or self._since is not None else ""
        total = self._one("SELECT (SELECT count(*) FROM scratch.made) + count(*) "
                          "FROM scratch.stored")  # fmt: skip
        ranges = _ranges(1 + total // _COMPARED)
        for at, (low, high) in enumerate(ranges):
            inside = f"id >= '{low}'" + (f" AND id < '{high}'" if high else "") + only
            stored = self._frame(
                f"SELECT m.*, coalesce(there, 0) AS there, coalesce(total, 0) AS total "
                f"FROM scratch.stored m LEFT JOIN scratch.state USING (id) WHERE {inside}"
            )
            made = self._frame(f"SELECT * FROM scratch.made WHERE {inside}")
            changes, counts = compare(stored, merge_frame(made))
            self._insert("changes", changes)
            if not again:
                for type_, counter in counts.items():
                    self._outcome.counts.setdefault(type_, Counter()).update(counter)
            self._progress("compared", at + 1, len(ranges))

    def _frame(self, sql: str) -> pl.DataFrame:
        return _frame(self._db.execute(sql).to_arrow_table())

    # ------------------------------------------------------------------ storing

    def _apply(self, apply: Apply) -> list[str]:
        total = self._one("SELECT count(*) FROM scratch.changes")
        # In the order of the stored rows, so that a slice's deletes are in few files.
        rows = self._db.cursor().execute(
            "SELECT * FROM scratch.changes ORDER BY seen[1] NULLS LAST, id"
        )
        stale: list[str] = []
        done = 0
        for batch in rows.to_arrow_reader(_SLICE):
            changes = _frame(batch).cast(CHANGES)  # type: ignore[arg-type]
            for part in changes.iter_slices(_SLICE):
                stale += apply(part)
                done += part.height
                self._progress("stored", done, total)
        return stale

    def _look_again(self, stale: Sequence[str]) -> None:
        """Compare memories that ingest changed meanwhile once more, with their new records.

        One that is gone meanwhile (it expired) stays gone.
        """
        self._db.execute("DELETE FROM scratch.targets")
        self._insert("targets", pl.DataFrame({"id": list(stale)}))
        before = "SELECT id FROM scratch.stored WHERE id IN (SELECT id FROM scratch.targets)"
        self._db.execute(f"CREATE OR REPLACE TABLE scratch.before AS {before}")
        self._db.execute("DELETE FROM scratch.stored WHERE id IN (SELECT id FROM scratch.targets)")
        self._copy_stored(" AND id IN (SELECT id FROM scratch.targets)")
        self._db.execute(
            "DELETE FROM scratch.targets WHERE id IN (SELECT id FROM scratch.before) "
            "AND id NOT IN (SELECT id FROM scratch.stored)"
        )
        self._read_new()
        self._compare(again=True)


_STATE: Final = (
    "SELECT id, count(DISTINCT content_hash) AS there, count(DISTINCT h) AS total "
    "FROM (SELECT id, unnest(sources) AS h FROM scratch.stored) "
    "LEFT JOIN scratch.scanned ON h = content_hash GROUP BY id"
)
"""How many of a stored memory's records were read."""


def compare(
    stored: pl.DataFrame, made: pl.DataFrame
) -> tuple[pl.DataFrame, dict[str, Counter[Action]]]:
    """What has to change in `stored` so that it becomes `made`: rows of `CHANGES`, and counts.

    `stored` has, besides the columns of the lake, `there` and `total`: how many of a memory's
    records could be read, and how many it has. It may hold several rows of an id, `made` only one.
    """
    # What has no record says nothing by itself.
    made = made.filter(pl.col("sources").list.len() > 0)
    new = {row["id"]: row for row in made.iter_rows(named=True)}
    old: dict[str, list[dict[str, Any]]] = {}
    for row in stored.iter_rows(named=True):
        old.setdefault(row["id"], []).append(row)
    changes: list[dict[str, Any]] = []
    counts: dict[str, Counter[Action]] = {}
    for id_ in sorted(old.keys() | new.keys()):
        rows = old.get(id_, [])
        action, change = _decide(rows, new.get(id_))
        type_ = (rows[0] if rows else new[id_])["type"]
        counts.setdefault(type_, Counter())[action] += 1
        if change is not None:
            changes.append(_change(rows, change, action))
    return pl.DataFrame(changes, schema=CHANGES, orient="row"), counts


def _decide(
    rows: list[dict[str, Any]], new: dict[str, Any] | None
) -> tuple[Action, dict[str, Any] | None]:
    """What becomes of a memory, and the row to store (for a removal: the stored one)."""
    if not rows:
        return "added", new
    whole = 0 < rows[0]["there"] == rows[0]["total"]
    if new is None:
        return ("removed", rows[0]) if whole else ("kept", None)
    if not whole:
        known = {source for row in rows for source in row["sources"] or ()}
        if known.issuperset(new["sources"]):
            return "kept", None
        old = [{name: row[name] for name in _MADE} for row in rows]
        new = merge([*old, new])
    differing = [name for name in MEMORY_SCHEMA if len(rows) > 1 or rows[0][name] != new[name]]
    if not differing:
        return "same", None
    return ("restamped" if differing == ["rules_version"] else "changed"), new


def _change(rows: list[dict[str, Any]], new: dict[str, Any], action: Action) -> dict[str, Any]:
    old = rows[0] if rows else dict.fromkeys(_STORED)
    change = {name: new[name] for name in _MADE}
    if action == "restamped":
        change |= {name: old[name] for name in ("recorded_at", "collector", "sequence")}
    return change | {
        "removed": action == "removed",
        "seen": sorted(row["sequence"] for row in rows),
        "withdrawn": any(_leaves(row, new, action) for row in rows),
        "old_type": old["type"],
        "old_service_name": old["service_name"],
        "old_index_as": old["index_as"],
    }


def _leaves(old: dict[str, Any], new: dict[str, Any], action: Action) -> bool:
    """Whether an index row of the old memory would not be replaced by one of the new."""
    if action == "removed" or (old["index_as"] == "template") != (new["index_as"] == "template"):
        return True
    if old["index_as"] == "template":
        return any(old[name] != new[name] for name in ("title", "service_name", "time_unix_nano"))
    return bool(new["index_as"] == "none" != old["index_as"])


def _pages(
    commits: list[tuple[str | None, int, int]],
) -> Iterator[tuple[str | None, int, int, int]]:
    """(collector, first sequence, last sequence, records) of whole commits, about `_PAGE` each."""
    page: list[Any] = []
    for collector, sequence, count in commits:
        if page and (page[0] != collector or page[3] + count > _PAGE):
            yield tuple(page)
            page = []
        if page:
            page[2], page[3] = sequence, page[3] + count
        else:
            page = [collector, sequence, sequence, count]
    if page:
        yield tuple(page)


def _ranges(count: int) -> list[tuple[str, str]]:
    """Ids, which are evenly spread hex digits, in so many ranges; the last one is open."""
    count = min(count, 4096)
    bounds = ["", *(f"{at * 4096 // count:03x}" for at in range(1, count)), ""]
    return list(pairwise(bounds))


def _frame(table: Any) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    if not isinstance(frame, pl.DataFrame):
        raise StoreError("the scratch database answered with no table")
    return frame


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


__all__ = ["CHANGES", "Outcome", "Selection", "compare", "rederive"]
