"""The lake: its schema, its migrations, and readers beside the one writer."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from tests.durability import load

from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.errors import NotFound, StoreError
from engram.exporters.home import Home
from engram.exporters.lake import schema
from engram.exporters.lake.attach import attach_read_only, attach_sql, connect
from engram.exporters.lake.writer import SCHEMAS, LakeWriter
from engram.exporters.memories import MEMORY_TYPES
from engram.exporters.signals import Encoding, Signal

_SQL = Path(schema.__file__).parent / "sql"
_REPOSITORY = Path(__file__).parents[2]
_NOBODY = 65534
_AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
_ARROW_OF = {
    "VARCHAR": pa.string(), "BIGINT": pa.int64(), "INTEGER": pa.int32(), "UINTEGER": pa.uint32(),
    "UBIGINT": pa.uint64(), "DOUBLE": pa.float64(), "FLOAT": pa.float32(), "BOOLEAN": pa.bool_(),
    "VARCHAR[]": pa.list_(pa.string()), "UBIGINT[]": pa.list_(pa.uint64()),
    "DOUBLE[]": pa.list_(pa.float64()),
}  # fmt: skip

_WRITER = """
import sys, time
from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.home import Home
from engram.exporters.signals import Encoding, Signal
from tests.durability import load

engine = Engine(Home.find(sys.argv[1]), EngineSettings(commit_interval_s=0.02))
engine.start()
for i in range(int(sys.argv[2])):
    for name in (f"w{i}", f"v{i}"):
        engine.admit(Signal.TRACES, load.spans(name), Encoding.IDENTITY).result(20)
    engine.wait_committed(engine.end, 20)
    if i % 12 == 11:
        engine.compact()
    print(i + 1, flush=True)
sys.stdin.read()
engine.shutdown(20)
"""
_READER = """
import json, os, sys
os.chdir("/")
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_read_only, connect
if len(sys.argv) > 2:
    connect().close()  # the libraries, while we may still read them all
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
db = attach_read_only(Home.find(sys.argv[1]))
print(json.dumps(db.execute("SELECT count(*), count(DISTINCT name) FROM spans").fetchone()))
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with an empty lake."""
    made = Home(tmp_path / "home")
    made.create()
    writer = LakeWriter(made, "c0ffee00")
    writer.open()
    writer.close()
    return made


@contextlib.contextmanager
def writing(home: Home, commits: int) -> Iterator[subprocess.Popen[str]]:
    """Another process that commits this often, compacts, and then stays until its stdin ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(home.root), str(commits)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_REPOSITORY,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            if process.poll() is None and process.stdin is not None:
                process.stdin.close()
                process.wait(30)


def committed(process: subprocess.Popen[str], count: int) -> None:
    """Wait until the writer has made this many commits."""
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= count:
            return
    raise AssertionError("the writer ended")


def read(home: Home, user: int | None = None) -> list[int]:
    """(spans, distinct names) as a process of its own reads them, of another user if given."""
    more = [] if user is None else [str(user)]
    done = subprocess.run(
        [sys.executable, "-c", _READER, str(home.root), *more],
        capture_output=True, text=True, timeout=60, cwd=_REPOSITORY,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


# ---------------------------------------------------------------------- schema


def test_tables_are_the_arrow_schemas(home: Home) -> None:
    """Every table has exactly the columns that the writer writes, in order and type."""
    with contextlib.closing(attach_read_only(home)) as db:
        for table, expected in SCHEMAS.items():
            columns = db.execute(f"DESCRIBE {table}").fetchall()
            found = {name: _ARROW_OF[type_] for name, type_, *_ in columns}
            assert list(found.items()) == [(f.name, f.type) for f in expected], table


@pytest.mark.parametrize("kind", ["tables", "views", "macros"])
def test_order_files_are_complete(kind: str) -> None:
    """Every SQL file is in its `_order`, once, and every name there has a file."""
    order = (_SQL / kind / "_order").read_text().split()
    assert sorted(order) == sorted(path.stem for path in (_SQL / kind).glob("*.sql"))


def test_views_can_be_selected(home: Home) -> None:
    """Every view works, and there is one for each memory type."""
    with contextlib.closing(attach_read_only(home)) as db:
        rows = db.execute(
            "SELECT table_name FROM information_schema.tables "
            "WHERE table_catalog = 'lake' AND table_type = 'VIEW'"
        ).fetchall()
        views = {name for (name,) in rows}
        assert set(MEMORY_TYPES) < views
        for view in views:
            assert db.execute(f'SELECT * FROM "{view}"').fetchall() == []


def open_lake(home: Home) -> duckdb.DuckDBPyConnection:
    """A read-write connection, as the writer has it."""
    db = connect()
    db.execute(attach_sql(home, read_only=False))
    db.execute("USE lake")
    return db


def test_migrations_go_forward(home: Home, tmp_path: Path) -> None:
    """An older lake gets each migration above its version once, in order, with its rows kept."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    now = schema.SCHEMA_VERSION
    (folder / f"{now:04d}_old.sql").write_text("SELECT error('this one was applied before')")
    (folder / f"{now + 1:04d}_add.sql").write_text("ALTER TABLE memories ADD COLUMN mood VARCHAR")
    (folder / f"{now + 2:04d}_fill.sql").write_text("UPDATE memories SET mood = 'good'")
    with contextlib.closing(open_lake(home)) as db:
        db.execute("INSERT INTO memories (id) VALUES ('m')")
        for _ in range(2):
            schema.prepare(db, target=now + 2, source=folder)
            assert db.execute("SELECT id, mood FROM memories").fetchall() == [("m", "good")]
        versions = db.execute("SELECT version FROM schema_versions ORDER BY 1").fetchall()
        assert versions == [(now,), (now + 2,)]


def test_a_failing_migration_changes_nothing(home: Home, tmp_path: Path) -> None:
    """Half a migration is none: the lake is what it was, and can be tried again."""
    now = schema.SCHEMA_VERSION
    (tmp_path / f"{now + 1:04d}_a.sql").write_text("ALTER TABLE memories ADD COLUMN mood VARCHAR")
    (tmp_path / f"{now + 2:04d}_b.sql").write_text("SELECT error('no')")
    with contextlib.closing(open_lake(home)) as db:
        with pytest.raises(duckdb.Error, match="no"):
            schema.prepare(db, target=now + 2, source=tmp_path)
        assert "mood" not in [row[0] for row in db.execute("DESCRIBE memories").fetchall()]
        assert db.execute("SELECT max(version) FROM schema_versions").fetchall() == [(now,)]


def test_a_newer_lake_is_refused(home: Home) -> None:
    """An older Engram says that the lake is newer, and what to do; and leaves it alone."""
    now = schema.SCHEMA_VERSION
    with contextlib.closing(open_lake(home)) as db:
        schema.prepare(db, target=now + 1)
    said = f"schema version {now + 1}, this Engram knows {now}: use the newer"
    with pytest.raises(StoreError, match=said):
        LakeWriter(home, "c0ffee00").open()


def test_no_lake_says_so(tmp_path: Path) -> None:
    """Reading a home without a lake names the command that makes one, and makes nothing."""
    with pytest.raises(NotFound, match="engram up --home"):
        attach_read_only(Home(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


# ---------------------------------------------------------------------- readers


def test_read_while_it_is_written(home: Home) -> None:
    """Another process reads during ingest and maintenance: whole commits, and ever more."""
    with writing(home, 40) as process, contextlib.closing(attach_read_only(home)) as db:
        committed(process, 1)
        seen, last = set(), 0
        while last < 80:
            row = db.execute("SELECT count(*), count(DISTINCT name) FROM spans").fetchone()
            total = db.execute("SELECT sum(spans) FROM commits").fetchone()
            assert row is not None
            assert total is not None
            assert row[0] == row[1]
            assert last <= row[0] <= total[0]
            last = row[0]
            seen.add(last)
        assert len(seen) > 3


def test_read_only_is_read_only(home: Home) -> None:
    """No statement through the read-only attach changes the lake."""
    with contextlib.closing(attach_read_only(home)) as db:
        for sql in (
            "DELETE FROM spans", "INSERT INTO schema_versions VALUES (9, 9)", "DROP TABLE spans",
            "CREATE TABLE t (i INT)", "UPDATE spans SET name = 'x'",
            "CALL ducklake_expire_snapshots('lake', older_than => now())",
        ):  # fmt: skip
            with pytest.raises(duckdb.Error, match=r"(?i)read.only"):
                db.execute(sql)


@_AS_ROOT
@pytest.mark.parametrize("ending", ["live", "stopped", "killed"])
def test_another_user_can_read(home: Home, tmp_path: Path, ending: str) -> None:
    """Given `chmod o+x`, another user reads: live, stopped in order, and after kill -9."""
    folder = home.root
    while folder != Path("/tmp") and folder != folder.parent:
        folder.chmod(folder.stat().st_mode | 0o001)
        folder = folder.parent
    with writing(home, 3) as process:
        committed(process, 3)
        if ending == "stopped":
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(30) == 0
        elif ending == "killed":
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert read(home, _NOBODY) == [6, 6]
    with writing(home, 1) as process:  # and reading left nothing that the writer cannot use
        committed(process, 1)
        assert read(home) == [6, 6]


@_AS_ROOT
def test_a_home_is_private(home: Home) -> None:
    """Without permission another user reads nothing: not the lake, not the log."""
    done = subprocess.run(
        [sys.executable, "-c", _READER, str(home.root), str(_NOBODY)],
        capture_output=True, text=True, timeout=60, cwd=_REPOSITORY,
    )  # fmt: skip
    assert done.returncode != 0
    assert home.root.stat().st_mode & 0o777 == 0o700
    assert home.wal.stat().st_mode & 0o777 == 0o700
    assert home.lake.stat().st_mode & 0o777 == 0o755


def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    """A strict umask of the shell does not close the lake to those who were given the home."""
    before = os.umask(0o077)
    try:
        engine = Engine(Home(tmp_path / "home"))
        engine.start()
        engine.wait_committed(0, 20)
        engine.admit(Signal.TRACES, load.spans("x"), Encoding.IDENTITY).result(10)
        engine.wait_committed(engine.end, 20)
        engine.shutdown(20)
        assert os.umask(0o077) == 0o077  # it is the app's: nobody else may change it
    finally:
        os.umask(before)
    for path in (tmp_path / "home" / "lake").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


def test_a_long_transaction_blocks_nobody(home: Home) -> None:
    """A reader in a transaction holds up neither commits nor maintenance; then it sees all."""
    settings = EngineSettings(commit_interval_s=0.02, compact_interval_s=1e9)
    engine = Engine(home, settings)
    engine.start()
    try:
        put(engine, "first")
        with contextlib.closing(attach_read_only(home)) as db:
            db.execute("BEGIN")
            assert db.execute("SELECT count(*) FROM spans").fetchall() == [(1,)]
            slowest = 0.0
            for i in range(15):
                started = time.monotonic()
                put(engine, f"s{i}")
                slowest = max(slowest, time.monotonic() - started)
            engine.compact()
            assert slowest < 5
            db.execute("COMMIT")
            assert db.execute("SELECT count(*) FROM spans").fetchall() == [(16,)]
    finally:
        engine.shutdown(20)


def test_a_transaction_keeps_its_view_over_a_merge(home: Home) -> None:
    """A reader in a transaction sees the same rows before and after a compaction."""
    engine = Engine(home, EngineSettings(commit_interval_s=0.02, compact_interval_s=1e9))
    engine.start()
    try:
        put(engine, "first")
        with contextlib.closing(attach_read_only(home)) as db:
            db.execute("BEGIN")
            assert db.execute("SELECT count(*) FROM spans").fetchall() == [(1,)]
            for i in range(12):
                put(engine, f"s{i}")
            engine.compact()
            assert db.execute("SELECT count(*) FROM spans").fetchall() == [(1,)]
    finally:
        engine.shutdown(20)


def test_what_was_merged_away_is_kept_for_readers(home: Home) -> None:
    """Within the grace time snapshots can be read and their files stay, also over a restart."""
    for session in range(2):
        engine = Engine(home, EngineSettings(commit_interval_s=0.02, compact_interval_s=1e9))
        engine.start()
        for i in range(12 if session == 0 else 1):
            put(engine, f"{session}-{i}")
        before = set((home.data / "main" / "spans").glob("*.parquet"))
        engine.compact()
        assert before <= set((home.data / "main" / "spans").glob("*.parquet"))
        engine.shutdown(20)
    with contextlib.closing(attach_read_only(home)) as db:
        rows = db.execute("SELECT max(snapshot_id) FROM lake.snapshots()").fetchall()
        counts = {
            db.execute(f"SELECT count(*) FROM spans AT (VERSION => {n})").fetchall()[0][0]
            for n in range(2, rows[0][0] + 1)
        }
    assert counts == set(range(1, 14))


def test_clean_up_removes_what_is_older_than_the_grace(home: Home) -> None:
    """Files merged away go when their time is over, and only then; the rows stay."""
    engine = Engine(home, EngineSettings(commit_interval_s=0.02, compact_interval_s=1e9))
    engine.start()
    try:
        for i in range(12):
            put(engine, f"s{i}")
        engine.compact(grace_s=30)
        assert len(list((home.data / "main" / "spans").glob("*.parquet"))) == 13
        engine.compact(grace_s=0)
        assert len(list((home.data / "main" / "spans").glob("*.parquet"))) == 1
    finally:
        engine.shutdown(20)
    assert read(home) == [12, 12]


def put(engine: Engine, name: str) -> None:
    """One span, committed."""
    engine.admit(Signal.TRACES, load.spans(name), Encoding.IDENTITY).result(10)
    engine.wait_committed(engine.end, 20)


def test_a_path_with_quotes_and_spaces(tmp_path: Path) -> None:
    """The home may have any name."""
    home = Home(tmp_path / 'it\'s a "home" ü')
    engine = Engine(home)
    engine.start()
    put(engine, "x")
    engine.shutdown(20)
    with contextlib.closing(attach_read_only(home)) as db:
        found: list[tuple[Any, ...]] = db.execute("SELECT name FROM spans").fetchall()
    assert found == [("x",)]


def test_nothing_unsigned_is_loaded_besides_our_own_wheels() -> None:
    """What spares the check of our files is taken back when they are loaded, for good."""
    with connect() as connection:
        told = "SELECT current_setting('allow_unsigned_extensions')"
        assert connection.execute(told).fetchone() == (False,)
        with pytest.raises(duckdb.Error, match="allow_unsigned_extensions"):
            connection.execute("SET allow_unsigned_extensions = true")
