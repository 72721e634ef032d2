"""The one writer of a lake: commits, and maintenance in slices between them.

Every commit writes its Parquet files itself and syncs them, and their directories, *before* the
catalogue transaction that names them: DuckLake does not sync Parquet, so the other order could
leave, after a power cut, a catalogue that names files without bytes. Compaction and deletes,
whose files DuckLake writes, are held open in a transaction until those files are synced too.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from engram.exporters import files
from engram.exporters.errors import StoreError
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_sql, connect, parquet_options, quoted, set_options
from engram.exporters.lake.schema import prepare
from engram.exporters.memories import MEMORY_SCHEMA
from engram.exporters.merge import merge
from engram.exporters.recent import RecentHashes
from engram.exporters.records import TABLES
from engram.exporters.rules.patch import fill, is_patch

_POLARS_TO_ARROW: Final[dict[pl.DataType, pa.DataType]] = {
    pl.String(): pa.string(),
    pl.Int64(): pa.int64(),
    pl.Float32(): pa.float32(),
    pl.List(pl.String()): pa.list_(pa.string()),
    pl.List(pl.UInt64()): pa.list_(pa.uint64()),
}
MEMORIES: Final = pa.schema(
    {name: _POLARS_TO_ARROW[type_] for name, type_ in MEMORY_SCHEMA.items()}
    | {"collector": pa.string(), "sequence": pa.int64(), "recorded_at": pa.int64()}
)
COMMITS: Final = pa.schema(
    {
        "collector": pa.string(), "sequence": pa.int64(), "position": pa.int64(),
        "recorded_at": pa.int64(), "spans": pa.int64(), "logs": pa.int64(),
        "metrics": pa.int64(), "memories": pa.int64(), "merged": pa.int64(),
        "duplicates": pa.int64(),
    }
)  # fmt: skip
WITHDRAWN: Final = pa.schema(
    {
        "id": pa.string(), "type": pa.string(), "service_name": pa.string(),
        "index_as": pa.string(), "collector": pa.string(), "sequence": pa.int64(),
        "recorded_at": pa.int64(),
    }
)  # fmt: skip
SCHEMAS: Final = {**TABLES, "memories": MEMORIES, "commits": COMMITS, "withdrawn": WITHDRAWN}

_STATISTICS: Final = frozenset(
    {
        "sequence", "recorded_at", "start_time_unix_nano", "end_time_unix_nano", "time_unix_nano",
        "observed_time_unix_nano", "kind", "status_code", "severity_number",
        "http_response_status_code", "position", "service_name", "type", "collector",
    }
)  # fmt: skip
"""Columns whose minimum and maximum help to skip files; those of text fill the catalogue."""

_RECENT_FRAMES_BYTES: Final = 24 << 20
_RECENT_IDS: Final = 1 << 20


@dataclass(slots=True)
class Batch:
    """What one commit stores."""

    position: int
    """Log position behind the last request of the batch."""

    spans: pa.Table
    logs: pa.Table
    metrics: pa.Table
    memories: pl.DataFrame
    duplicates: int = 0


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit did."""

    sequence: int
    position: int
    memories: int
    merged: int


class LakeWriter:
    """Owns the read-write attach. Every method runs in one thread, the committer's."""

    def __init__(self, home: Home, collector: str, *, query_grace_s: float = 600.0) -> None:
        self._home = home
        self._collector = collector
        self._grace_s = query_grace_s
        self._connection: Any = None
        self._keeper: Any = None
        self._kept = 0
        self._known_files: set[Path] = set()
        self._frames: list[pl.DataFrame] = []
        self._where: dict[str, tuple[int, int]] = {}
        self._first_frame = 0
        self._frames_bytes = 0
        self._recent_ids = RecentHashes(_RECENT_IDS)
        self._in_doubt = False
        self.sequence = 0
        self.position = 0

    # ------------------------------------------------------------------ life

    def open(self) -> None:
        """Attach, create or migrate the schema, and find where the last commit ended.

        Raises:
            StoreError: the lake cannot be opened, or is of a newer Engram.
        """
        connection = connect(threads=1, memory_limit="400MB")
        try:
            if not self._home.catalog.exists():  # SQLite gives its other files the mode of this one
                self._home.catalog.touch()
                files.publish(self._home.catalog)
            connection.execute(attach_sql(self._home, read_only=False))
        except Exception as error:
            raise StoreError(f"cannot open the lake {self._home.catalog}: {error}") from error
        connection.execute("USE lake")
        set_options(connection)
        self._connection = connection
        for table in (*SCHEMAS, "schema_versions"):  # before DuckLake, which syncs no directory
            files.make_directory(self._folder(table))
        self._known_files = set(self._parquet())
        prepare(connection, before_commit=self._sync_everything_new)
        set_options(connection, *SCHEMAS)
        connection.execute("CALL ducklake_delete_orphaned_files('lake', cleanup_all => true)")
        self._known_files = set(self._parquet())
        self._find_end()
        self._sync_everything_new()
        self._load_recent_ids()
        self._keep_shared()

    def close(self) -> None:
        """Leave the catalogue as one file, readable without write permission. Safe twice."""
        if self._connection is None:
            return
        self._let_go()
        self._connection.execute("USE memory")
        self._connection.execute("DETACH lake")
        self._connection.close()
        self._connection = None
        # A catalogue in WAL mode cannot be opened by a user without write permission once its
        # -wal and -shm files are gone, so a stopped lake is left in the rollback mode.
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(
                sqlite3.connect(self._home.catalog, timeout=1.0, isolation_level=None)
            ) as catalog,
        ):
            catalog.execute("PRAGMA journal_mode = DELETE")

    def _find_end(self) -> None:
        """Where the last commit ended."""
        row = self._connection.execute(
            "SELECT max(sequence), max(position) FROM commits WHERE collector = ?",
            [self._collector],
        ).fetchone()
        self.sequence, self.position = (row[0] or 0, row[1] or 0) if row else (0, 0)

    def recent_hashes(self, table: str, limit: int) -> Any:
        """Content hashes of about the last `limit` rows of a table, oldest first (uint64)."""
        first = self._connection.execute(
            f"SELECT min(sequence) FROM (SELECT sequence, sum({table}) OVER "
            "(ORDER BY sequence DESC) AS total FROM commits) WHERE total <= ?",
            [limit],
        ).fetchone()
        from_sequence = first[0] if first and first[0] is not None else self.sequence
        result = self._connection.execute(
            f"SELECT content_hash FROM {table} WHERE sequence >= ? ORDER BY sequence",
            [from_sequence],
        ).to_arrow_table()
        return result["content_hash"].to_numpy()

    def _load_recent_ids(self) -> None:
        ids = self._connection.execute(
            "SELECT id FROM memories WHERE sequence > ? ORDER BY sequence", [self.sequence - 2000]
        ).to_arrow_table()["id"]
        frame = pl.DataFrame({"id": pl.Series(ids.to_pylist()[-_RECENT_IDS:], dtype=pl.String)})
        hashes = _id_hashes(frame["id"])
        self._recent_ids.add(hashes[self._recent_ids.new(hashes)])

    # ------------------------------------------------------------------ commit

    def commit(self, batch: Batch) -> Committed:
        """Store a batch in one transaction, with the log position. All of it, or nothing.

        After an exception the same batch can be given again: whether it was stored is asked first.
        """
        self._settle()
        if batch.position <= self.position:
            return Committed(self.sequence, self.position, 0, 0)
        sequence = self.sequence + 1
        now = time.time_ns()
        fresh, replaced = self._merge_known(batch.memories)
        ingest = {"collector": self._collector, "sequence": sequence, "recorded_at": now}
        tables = {"spans": batch.spans, "logs": batch.logs, "metrics": batch.metrics}
        counts = {name: table.num_rows for name, table in tables.items()}
        tables["memories"] = fresh.to_arrow()
        tables["commits"] = pa.Table.from_pylist(
            [
                {
                    **ingest, **counts, "position": batch.position, "memories": fresh.height,
                    "merged": len(replaced), "duplicates": batch.duplicates,
                }
            ],
            schema=COMMITS,
        )  # fmt: skip
        written: dict[str, Path] = {}
        try:
            for name, table in tables.items():
                if table.num_rows:
                    written[name] = self._write(name, table, ingest, sequence)
            for name in written:
                files.sync_directory(self._folder(name))
        except BaseException:
            for path in written.values():  # on a full disk the next try needs the room
                path.unlink(missing_ok=True)
            raise
        self._known_files.update(written.values())  # synced: not again in the transaction
        with self._among(replaced) as these, self._transaction():
            if replaced:
                self._connection.execute(
                    f"DELETE FROM memories WHERE sequence >= ? AND id IN {these}",
                    [min(replaced.values())],
                )
            for name, path in written.items():
                self._connection.execute(
                    f"CALL ducklake_add_data_files('lake', '{name}', '{quoted(path)}')"
                )
        self.sequence, self.position = sequence, batch.position
        self._remember(fresh.with_columns(sequence=pl.lit(sequence, pl.Int64)))
        self._keep_shared()
        return Committed(sequence, batch.position, fresh.height, len(replaced))

    def _settle(self) -> None:
        """After a transaction that failed: ask the lake what became of it."""
        if self._in_doubt:
            self._find_end()
            self._forget_frames()
            self._load_recent_ids()
            self._in_doubt = False

    def _write(self, name: str, table: pa.Table, ingest: dict[str, Any], sequence: int) -> Path:
        schema = SCHEMAS[name]
        for column, value in ingest.items():
            if column not in table.column_names:
                array = pa.repeat(pa.scalar(value, schema.field(column).type), table.num_rows)
                table = table.append_column(column, array)
        table = table.select(schema.names).cast(schema)
        path = self._folder(name) / f"{sequence:012d}-{uuid.uuid4().hex[:8]}.parquet"
        pq.write_table(
            table,
            path,
            compression="zstd",
            compression_level=1,
            write_statistics=[c for c in schema.names if c in _STATISTICS],
            store_schema=False,
            use_dictionary=[c for c in schema.names if c not in _UNIQUE],
        )
        files.publish(path)
        return path

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """A catalogue transaction whose new files are on disk before it is."""
        self._connection.execute("BEGIN")
        try:
            yield
            self._sync_everything_new()
            self._connection.execute("COMMIT")
        except BaseException:
            self._in_doubt = True
            with contextlib.suppress(duckdb.Error):  # a failed COMMIT has ended it already
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _among(self, ids: Iterable[str]) -> Iterator[str]:
        """A set of ids in SQL.

        As a bound list each would cost 130 µs: DuckDB looks for pandas at every element.
        """
        self._connection.register("these_ids", pa.table({"id": pa.array(ids, pa.string())}))
        try:
            yield "(SELECT id FROM these_ids)"
        finally:
            self._connection.unregister("these_ids")

    def _folder(self, table: str) -> Path:
        return self._home.data / "main" / table

    def _parquet(self) -> Iterator[Path]:
        return (self._home.data / "main").glob("*/*.parquet")

    def _sync_everything_new(self) -> None:
        """Sync files that DuckLake wrote (deletes, compaction) and the directories they are in."""
        now = set(self._parquet())
        fresh = now - self._known_files
        for path in fresh:
            files.publish(path)
        for folder in {path.parent for path in fresh}:
            files.sync_directory(folder)
        self._known_files = now

    def sync_catalog(self) -> None:
        """Make the catalogue's last transaction durable; then the log behind it may go.

        SQLite syncs its write-ahead file at every commit (traced), but not the directory it is in.
        """
        files.sync_directory(self._home.lake)

    def _keep_shared(self) -> None:
        """Hold one catalogue connection open between transactions, so that other users can read.

        DuckDB opens SQLite anew for each transaction. When the last connection closes, SQLite
        removes its -wal and -shm files, and without those a user who may only read cannot open
        the catalogue at all. The held connection also keeps the -wal file growing (11 MB in 300
        commits, measured), so it is let go for some milliseconds every `_KEEPER_COMMITS` commits.
        """
        if self._keeper is not None and self._kept < _KEEPER_COMMITS:
            self._kept += 1
            return
        self._let_go()
        self._keeper = self._connection.cursor()
        self._keeper.execute("BEGIN")
        self._keeper.execute(f"SELECT count(*) FROM {_META}.ducklake_metadata").fetchall()
        self._kept = 0

    def _let_go(self) -> None:
        if self._keeper is not None:
            self._keeper.execute("COMMIT")
            self._keeper.close()
            self._keeper = None

    # ------------------------------------------------------------------ memories

    def _merge_known(self, memories: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
        """Fold a batch's memories into the versions that are stored already.

        Returns the rows to insert, and {id: sequence} of the stored rows they replace.
        """
        if not memories.height:
            return memories, {}
        patch = is_patch(memories)
        if patch.any():
            return self._fill_known(memories.filter(patch), memories.filter(~patch))
        known = ~self._recent_ids.new(_id_hashes(memories["id"]))
        if not known.any():
            return memories, {}
        candidates = memories.filter(pl.Series(known))
        stored = self._find(candidates["id"].to_list())
        rows, replaced, unchanged = [], {}, set()
        for row in candidates.iter_rows(named=True):
            before = stored.get(row["id"])
            if before is None:
                continue
            sequence = before.pop("sequence")
            after = merge([before, row])
            if after == before:
                unchanged.add(row["id"])
            else:
                replaced[row["id"]] = sequence
                rows.append(after)
        gone = unchanged | set(replaced)
        kept = memories.filter(~pl.col("id").is_in(list(gone))) if gone else memories
        if rows:
            kept = pl.concat([kept, pl.DataFrame(rows, schema=MEMORY_SCHEMA, orient="row")])
        return kept, replaced

    def _fill_known(
        self, patches: pl.DataFrame, others: pl.DataFrame
    ) -> tuple[pl.DataFrame, dict[str, int]]:
        """`_merge_known` for a batch with patches; one whose memory is gone is nothing."""
        kept, replaced = self._merge_known(others)
        filled = fill(self._find_frame(patches["id"].to_list()), patches)
        replaced |= dict(zip(filled["id"].to_list(), filled["sequence"].to_list(), strict=True))
        return pl.concat([kept, filled.drop("sequence")]), replaced

    def _find_frame(self, ids: list[str]) -> pl.DataFrame:
        """The stored rows of these ids, with their `sequence`."""
        places: dict[int, list[int]] = {}
        missing = []
        for id_ in ids:
            at = self._where.get(id_)
            if at is not None and at[0] >= self._first_frame:
                places.setdefault(at[0] - self._first_frame, []).append(at[1])
            else:
                missing.append(id_)
        found = [self._frames[number][rows] for number, rows in places.items()]
        schema = {**MEMORY_SCHEMA, "sequence": pl.Int64()}
        rest = list(self._stored(missing)) if missing else []
        return pl.concat([*found, pl.DataFrame(rest, schema=schema, orient="row")])

    def _find(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        found, missing = {}, []
        for id_ in ids:
            at = self._where.get(id_)
            if at is not None and at[0] >= self._first_frame:
                found[id_] = self._frames[at[0] - self._first_frame].row(at[1], named=True)
            else:
                missing.append(id_)
        for row in self._stored(missing) if missing else ():
            found[row["id"]] = row
        return found

    def _stored(self, ids: list[str]) -> list[dict[str, Any]]:
        """Rows of these ids as they are in the lake."""
        columns = ", ".join([*MEMORY_SCHEMA, "sequence"])
        with self._among(ids) as these:
            table = self._connection.execute(
                f"SELECT {columns} FROM memories WHERE id IN {these}"
            ).to_arrow_table()
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows

    def _remember(self, frame: pl.DataFrame) -> None:
        if not frame.height:
            return
        number = self._first_frame + len(self._frames)
        self._frames.append(frame)
        self._frames_bytes += int(frame.estimated_size())
        for i, id_ in enumerate(frame["id"].to_list()):
            self._where[id_] = (number, i)
        hashes = _id_hashes(frame["id"])
        self._recent_ids.add(hashes[self._recent_ids.new(hashes)])
        while self._frames_bytes > _RECENT_FRAMES_BYTES and len(self._frames) > 1:
            old = self._frames.pop(0)
            self._frames_bytes -= int(old.estimated_size())
            for id_ in old["id"].to_list():
                if self._where.get(id_, (0, 0))[0] == self._first_frame:
                    del self._where[id_]
            self._first_frame += 1

    def _forget_frames(self) -> None:
        """Read memories from the lake again: what is remembered of them may be something else."""
        self._first_frame += len(self._frames)
        self._frames.clear()
        self._where.clear()
        self._frames_bytes = 0

    # ------------------------------------------------------------------ maintenance

    def maintenance(self, *, idle: bool = True, grace_s: float | None = None) -> Iterator[str]:
        """One round of maintenance; each `next` does one slice and names it.

        The caller commits between slices, or ingest starves (measured). Large files are merged only
        when `idle`: such a slice takes seconds, a small one some 300 ms.
        """
        for table in SCHEMAS:
            for tier in _TIERS[: 2 if idle else 1]:
                while run := self._mergeable(table, tier):
                    self._merge_files(table, run)
                    yield f"compact {table}"
            for file in self._live_files(table):
                if file.deleted > _REWRITE * file.rows:
                    self._merge_files(table, [file])
                    yield f"rewrite {table}"
        grace = self._grace_s if grace_s is None else grace_s
        self._expire_snapshots(grace)
        yield "expire snapshots"
        self._cleanup(grace)
        yield "clean up"

    def _live_files(self, table: str) -> list[_File]:
        """The live files of a table, in the order of what they hold."""
        rows = self._connection.execute(_LIVE_FILES, [table]).fetchall()
        return [_File(*row) for row in rows]

    def _mergeable(self, table: str, tier: _Tier) -> list[_File]:
        """The first run of neighbours that is worth merging."""
        run: list[_File] = []
        for file in [*self._live_files(table), _END]:
            full = sum(f.bytes for f in run) >= tier.target
            fits = file.bytes < tier.below
            if run and (full or not fits):
                if full or len(run) >= tier.files:
                    return run
                run = []
            if fits:
                run.append(file)
        return []

    def _merge_files(self, table: str, run: list[_File]) -> None:
        """Write the rows of neighbouring files anew, as one file, in place of them.

        The old files leave the new snapshot and stay in the older ones, so readers keep what they
        see. DuckLake's own merge takes them out of all snapshots: a statement that began before it
        saw no row of the merged files (measured in three of four runs of a test that reads at that
        time).
        """
        folder = self._folder(table)
        names = ", ".join(f"'{quoted(folder / file.path)}'" for file in run)
        path = folder / f"{run[0].first:012d}-{run[-1].last:012d}-{uuid.uuid4().hex[:8]}.parquet"
        row = self._connection.execute(
            f"COPY (SELECT {', '.join(SCHEMAS[table].names)} FROM {table} "
            f"WHERE filename IN ({names})) "
            f"TO '{quoted(path)}' ({parquet_options(table)})"
        ).fetchone()
        copied = row[0] if row else 0
        if copied != sum(file.rows - file.deleted for file in run):
            path.unlink(missing_ok=True)
            raise StoreError(
                f"{copied} rows of {table} found in {names}, not what they should hold"
            )
        with self._transaction():
            self._connection.execute(f"DELETE FROM {table} WHERE filename IN ({names})")
            if copied:
                self._connection.execute(
                    f"CALL ducklake_add_data_files('lake', '{table}', '{quoted(path)}')"
                )
        if not copied:
            path.unlink(missing_ok=True)

    def _expire_snapshots(self, grace_s: float) -> None:
        # `older_than` of DuckLake 1.5 compares the times as texts of two formats: all of today is
        # older than anything today (measured; readers then lose snapshots and files). So we say
        # which.
        rows = self._connection.execute(
            f"SELECT snapshot_id FROM {_META}.ducklake_snapshot "
            "WHERE epoch(CAST(snapshot_time AS TIMESTAMPTZ)) < ? "
            f"AND snapshot_id < (SELECT max(snapshot_id) FROM {_META}.ducklake_snapshot)",
            [time.time() - grace_s],
        ).fetchall()
        if rows:
            self._connection.execute(
                "CALL ducklake_expire_snapshots('lake', versions => ?)", [[row[0] for row in rows]]
            )

    def _cleanup(self, grace_s: float) -> None:
        self.sync_catalog()
        paths = [
            row[0]
            for row in self._connection.execute(  # not by DuckLake, for the same reason
                f"SELECT path FROM {_META}.ducklake_files_scheduled_for_deletion "
                "WHERE epoch(CAST(schedule_start AS TIMESTAMPTZ)) < ?",
                [time.time() - grace_s],
            ).fetchall()
        ]
        for path in paths:
            (self._home.data / path).unlink(missing_ok=True)
        if paths:
            self._connection.execute(
                f"DELETE FROM {_META}.ducklake_files_scheduled_for_deletion "
                "WHERE path IN (SELECT unnest(?))",
                [paths],
            )
        self._known_files = set(self._parquet())
        self._let_go()
        self._keep_shared()

    def expire(self, before_ns: int) -> None:
        """Delete what was recorded before a time (ns); the bytes go with the next clean-up."""
        self._forget_frames()  # or a late record would bring a forgotten memory back
        with self._transaction():
            for table in SCHEMAS:
                self._connection.execute(
                    f"DELETE FROM {table} WHERE recorded_at < ?"
                    + (" AND sequence < ?" if table == "commits" else ""),
                    [before_ns, self.sequence] if table == "commits" else [before_ns],
                )

    def sweep(self) -> int:
        """Fold what got in twice past the recent sets; returns the rows removed."""
        removed = 0
        for table, key in (("spans", "trace_id, span_id, content_hash"), ("logs", "content_hash"),
                           ("metrics", "content_hash")):  # fmt: skip
            with self._transaction():
                row = self._connection.execute(
                    f"DELETE FROM {table} WHERE rowid IN (SELECT unnest("
                    "(list(rowid ORDER BY sequence, rowid))[2:]) "
                    f"FROM {table} GROUP BY {key} HAVING count(*) > 1)"
                ).fetchone()
                removed += row[0] if row else 0
        return removed + self._sweep_memories()

    def _sweep_memories(self) -> int:
        columns = ", ".join(MEMORY_SCHEMA)
        rows = (
            self._connection.execute(
                f"SELECT {columns} FROM memories WHERE id IN "
                "(SELECT id FROM memories GROUP BY id HAVING count(*) > 1)"
            )
            .to_arrow_table()
            .to_pylist()
        )
        if not rows:
            return 0
        versions: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            versions.setdefault(row["id"], []).append(row)
        folded = pl.DataFrame([merge(v) for v in versions.values()], schema=MEMORY_SCHEMA)
        sequence, now = self.sequence + 1, time.time_ns()
        ingest = {"collector": self._collector, "sequence": sequence, "recorded_at": now}
        path = self._write("memories", folded.to_arrow(), ingest, sequence)
        commit = {**ingest, "position": self.position, "spans": 0, "logs": 0, "metrics": 0,
                  "memories": 0, "merged": len(rows), "duplicates": 0}  # fmt: skip
        log = self._write("commits", pa.Table.from_pylist([commit], COMMITS), ingest, sequence)
        with self._among(versions) as these, self._transaction():
            self._connection.execute(f"DELETE FROM memories WHERE id IN {these}")
            for name, file in (("memories", path), ("commits", log)):
                self._connection.execute(
                    f"CALL ducklake_add_data_files('lake', '{name}', '{quoted(file)}')"
                )
        self.sequence = sequence
        self._remember(folded.with_columns(sequence=pl.lit(sequence, pl.Int64)))
        return len(rows) - folded.height

    # ------------------------------------------------------------------ rebuilt memories

    def replace(self, changes: pl.DataFrame) -> list[str]:
        """Put rebuilt memories in the place of stored ones, in one transaction.

        `changes` has the columns of `engram.exporters.rederive.CHANGES`. A change whose memory is
        not stored any more as it was `seen` is left out; returns the ids of those.
        """
        self._settle()
        with self._among(changes["id"].to_list()) as these:
            stored = dict(
                self._connection.execute(
                    "SELECT id, list(sequence ORDER BY sequence) FROM memories "
                    f"WHERE id IN {these} GROUP BY id"
                ).fetchall()
            )
        fits = [
            stored.get(id_, []) == seen for id_, seen in changes.select("id", "seen").iter_rows()
        ]
        stale: list[str] = changes["id"].filter(~pl.Series(fits, dtype=pl.Boolean)).to_list()
        changes = changes.filter(pl.Series(fits, dtype=pl.Boolean))
        if not changes.height:
            return stale
        sequence, now = self.sequence + 1, time.time_ns()
        ingest = {"collector": self._collector, "sequence": sequence, "recorded_at": now}
        rows = changes.filter(~pl.col("removed")).select(
            *MEMORY_SCHEMA,
            pl.col("collector").fill_null(self._collector),
            pl.col("sequence").fill_null(sequence),
            pl.col("recorded_at").fill_null(now),
        )
        gone = changes.filter("withdrawn").select(
            "id", type="old_type", service_name="old_service_name", index_as="old_index_as"
        )
        replaced = changes.filter(pl.col("seen").list.len() > 0)
        commit = {**ingest, "position": self.position, "spans": 0, "logs": 0, "metrics": 0,
                  "memories": rows.height, "merged": replaced.height, "duplicates": 0}  # fmt: skip
        tables = {
            "memories": rows.to_arrow(),
            "withdrawn": gone.to_arrow(),
            "commits": pa.Table.from_pylist([commit], COMMITS),
        }
        written = {
            name: self._write(name, table, ingest, sequence)
            for name, table in tables.items()
            if table.num_rows
        }
        with self._among(replaced["id"].to_list()) as these, self._transaction():
            if replaced.height:
                seen = replaced["seen"].explode()
                self._connection.execute(
                    f"DELETE FROM memories WHERE sequence BETWEEN ? AND ? AND id IN {these}",
                    [seen.min(), seen.max()],
                )
            for name, path in written.items():
                self._connection.execute(
                    f"CALL ducklake_add_data_files('lake', '{name}', '{quoted(path)}')"
                )
        self.sequence = sequence
        for id_ in changes["id"].to_list():
            self._where.pop(id_, None)
        self._remember(rows.select(*MEMORY_SCHEMA, "sequence"))
        self._keep_shared()
        return stale


_KEEPER_COMMITS: Final = 64
_META: Final = "__ducklake_metadata_lake"
_UNIQUE: Final = frozenset(
    {"span_id", "content_hash", "id", "start_time_unix_nano", "end_time_unix_nano", "attributes",
     "time_unix_nano", "observed_time_unix_nano", "content", "sources", "title", "duration_ns"}
)  # fmt: skip


_REWRITE: Final = 0.05
"""A file is written anew when more of it than this is deleted."""

_LIVE_FILES: Final = f"""
    SELECT f.path, CAST(s.min_value AS BIGINT), CAST(s.max_value AS BIGINT), f.file_size_bytes,
           f.record_count, coalesce(d.delete_count, 0)
    FROM {_META}.ducklake_data_file f
    JOIN {_META}.ducklake_table t ON t.table_id = f.table_id AND t.end_snapshot IS NULL
    JOIN {_META}.ducklake_column cs ON cs.table_id = f.table_id
        AND cs.end_snapshot IS NULL AND cs.column_name = 'sequence'
    JOIN {_META}.ducklake_file_column_stats s
        ON s.data_file_id = f.data_file_id AND s.column_id = cs.column_id
    LEFT JOIN {_META}.ducklake_delete_file d
        ON d.data_file_id = f.data_file_id AND d.end_snapshot IS NULL
    WHERE t.table_name = ? AND f.end_snapshot IS NULL
    ORDER BY 2, 3
"""


@dataclass(frozen=True, slots=True)
class _File:
    """A live file: which commits it holds, and how much."""

    path: str
    """Within the folder of its table, or absolute."""
    first: int
    last: int
    bytes: int
    rows: int
    deleted: int


_END: Final = _File("", 0, 0, 1 << 62, 0, 0)


@dataclass(frozen=True, slots=True)
class _Tier:
    """Which files are worth merging, and into what."""

    below: int
    """Files smaller than this many bytes."""

    target: int
    """Size of the merged file in bytes (DuckDB merges 5 µs a row: 4 MB are about 0.25 s)."""

    files: int
    """Fewer than this are left alone."""


_TIERS: Final = (_Tier(1 << 20, 4 << 20, 10), _Tier(16 << 20, 48 << 20, 4))


def _id_hashes(ids: pl.Series) -> Any:
    """The first 64 bits of each id."""
    return ids.str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64).to_numpy()
