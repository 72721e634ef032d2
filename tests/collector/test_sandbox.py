"""SQL for strangers: every hole that was ever found, and that honest questions go through."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import psutil
import pytest

from engram.collector.query import open_reader
from engram.collector.sandbox import Limits, Sandbox, TooExpensive, statement
from engram.exporters.errors import BadRequest, NotFound, Overloaded
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_sql, connect
from engram.exporters.lake.schema import prepare

SECRET = "hunter2-in-a-file"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A lake with three memories, a file with a secret beside it."""
    home = Home(tmp_path_factory.mktemp("sandbox") / "home")
    home.create()
    with connect() as connection:
        connection.execute(attach_sql(home, read_only=False))
        connection.execute("USE lake")
        prepare(connection)
        for at in range(3):
            connection.execute(
                "INSERT INTO memories (id, type, title, time_unix_nano) VALUES (?, ?, ?, ?)",
                [f"m{at}", "system_error", f"title {at}", at],
            )
        connection.execute("USE memory")
        connection.execute("DETACH lake")
    (home.root / "secret.txt").write_text(SECRET)
    (home.lake / "secret.csv").write_text(f"a\n{SECRET}\n")
    return home


@pytest.fixture(scope="module")
def sandbox(home: Home) -> Iterator[Sandbox]:
    """A sandbox that is patient: this machine may be busy."""
    made = Sandbox(home, Limits(wait_s=60, timeout_s=60))
    yield made
    made.close()


# -- what goes through -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT id FROM memories ORDER BY id", [("m0",), ("m1",), ("m2",)]),
        ("SELECT id FROM lake.main.memories WHERE id = 'm1'", [("m1",)]),
        ("SELECT id FROM lake.system_error ORDER BY id LIMIT 1", [("m0",)]),
        ("-- why\nFROM memories SELECT count(*)", [(3,)]),
        ("WITH tables AS (SELECT 1 AS a) SELECT a + 1 FROM tables", [(2,)]),
        ("SELECT unnest([1, 2])", [(1,), (2,)]),
        ("SELECT regexp_extract('shop-17', '[0-9]+'), '{\"a\": 3}' ->> 'a'", [("17", "3")]),
        ("SELECT sum(n) OVER () FROM range(3) AS r(n) LIMIT 1", [(3,)]),
        ("SELECT count(*) FROM memory_context('m1')", [(0,)]),
        ("VALUES (1, 'x')", [(1, "x")]),
        (
            "SELECT * FROM (PIVOT (SELECT type FROM memories) ON type IN ('system_error') "
            "USING count(*))",
            [(3,)],
        ),
        ("SELECT TIMESTAMP '2026-11-22 10:00:00', 1.50, 'nan'::FLOAT, [NULL, DATE '2026-01-02']",
         [("2026-11-22T10:00:00", "1.50", "nan", [None, "2026-01-02"])]),
    ],
)  # fmt: skip
def test_honest_questions(sandbox: Sandbox, sql: str, rows: list[tuple[object, ...]]) -> None:
    """What a person or an agent asks of the lake is answered, in values of JSON."""
    found = sandbox.run(sql)
    assert list(found.rows) == rows
    assert len(found.columns) == len(found.types) == len(rows[0])
    json.dumps(found.rows)
    assert not found.truncated


def test_schema_can_be_seen(sandbox: Sandbox) -> None:
    """SHOW TABLES, DESCRIBE, SUMMARIZE and EXPLAIN tell of the lake, and not where it is."""
    assert ("memories",) in sandbox.run("SHOW TABLES").rows
    assert sandbox.run("DESCRIBE memories").rows[0][:2] == ("id", "VARCHAR")
    assert sandbox.run("SUMMARIZE memories").rows
    plan = str(sandbox.run("EXPLAIN SELECT * FROM memories WHERE id = 'm1'").rows)
    assert "memories" in plan
    assert str(sandbox._home.root) not in plan


# -- what is refused before it runs ----------------------------------------------------------------

FILE = "/etc/passwd"
REFUSED = {
    # research: statements
    "two statements": ("SELECT 1; SELECT 2", "one statement"),
    "none": (" ; ", "one statement"),
    "drop after select": ("SELECT 1; DROP TABLE memories", "one statement"),
    "temp table": ("CREATE TEMP TABLE t AS SELECT 1", "only SELECT"),
    "macro": ("CREATE MACRO f() AS 1", "only SELECT"),
    "insert": ("INSERT INTO memories (id) VALUES ('x')", "only SELECT"),
    "insert of a cte": ("WITH a AS (SELECT 1) INSERT INTO memories (id) FROM a", "only SELECT"),
    "delete": ("DELETE FROM memories", "only SELECT"),
    "copy to": ("COPY memories TO '/tmp/x.csv'", "only SELECT"),
    "copy from": (f"COPY memories FROM '{FILE}'", "only SELECT"),
    "export": ("EXPORT DATABASE '/tmp/x'", "only SELECT"),
    "attach": ("ATTACH '/tmp/x.db' AS x", "only SELECT"),
    "detach": ("DETACH lake", "only SELECT"),
    "use": ("USE memory", "only SELECT"),
    "install": ("INSTALL httpfs", "only SELECT"),
    "load": ("LOAD httpfs", "only SELECT"),
    "set": ("SET memory_limit = '100GB'", "only SELECT"),
    "reset": ("RESET memory_limit", "only SELECT"),
    "set variable": ("SET VARIABLE a = 1", "only SELECT"),
    "begin": ("BEGIN", "only SELECT"),
    "call": ("CALL ducklake_expire_snapshots('lake')", "only SELECT"),
    "checkpoint": ("CHECKPOINT", "only SELECT"),
    "prepare": ("PREPARE p AS SELECT 1", "only SELECT"),
    "pragma database_list": ("PRAGMA database_list", "only a SELECT"),
    "pragma version": ("PRAGMA version", "only"),
    "explain analyze": ("EXPLAIN ANALYZE SELECT 1", "EXPLAIN ANALYZE runs"),
    "explain (analyze)": ("EXPLAIN (ANALYZE) SELECT 1", "EXPLAIN ANALYZE runs"),
    "explain after a comment": ("/* x */ EXPLAIN ANALYZE SELECT 1", "EXPLAIN ANALYZE runs"),
    "explain of a copy": ("EXPLAIN COPY memories TO '/tmp/x.csv'", "only a SELECT"),
    "explain of a file": (f"EXPLAIN SELECT * FROM read_text('{FILE}')", "not allowed"),
    "a parameter": ("SELECT $1", "no parameters"),
    # research: settings and surroundings
    "duckdb_settings": ("SELECT * FROM duckdb_settings()", "not allowed"),
    "duckdb_settings view": ("SELECT * FROM duckdb_settings", "no table"),
    "duckdb_databases": ("SELECT path FROM duckdb_databases()", "not allowed"),
    "duckdb_secrets": ("SELECT * FROM duckdb_secrets()", "not allowed"),
    "which_secret": ("SELECT * FROM which_secret('a', 'b')", "not allowed"),
    "duckdb_logs": ("SELECT * FROM duckdb_logs", "no table"),
    "pg_settings": ("SELECT * FROM pg_catalog.pg_settings", "no table"),
    "information_schema": ("SELECT * FROM information_schema.schemata", "no table"),
    "sqlite_master": ("SELECT * FROM sqlite_master", "no table"),
    "pragma_database_list": ("SELECT * FROM pragma_database_list", "no table"),
    "pragma_database_size": ("SELECT * FROM pragma_database_size()", "not allowed"),
    "getenv": ("SELECT getenv('PATH')", "not allowed"),
    "getenv as method": ("SELECT ('PATH').getenv()", "not allowed"),
    "current_setting": ("SELECT current_setting('memory_limit')", "not allowed"),
    "current_setting in a window": (
        "SELECT row_number() OVER (ORDER BY current_setting('threads')) FROM memories",
        "not allowed",
    ),
    "current_setting in a lambda": (
        "SELECT list_transform(['threads'], lambda x: current_setting(x))", "not allowed",
    ),
    "current_setting in a limit": (
        "SELECT 1 LIMIT (SELECT CAST(current_setting('threads') AS INT))", "not allowed",
    ),
    "current_query": ("SELECT current_query()", "not allowed"),
    "show databases": ("SHOW DATABASES", "not for here"),
    "show all tables": ("SHOW ALL TABLES", "not for here"),
    "show in a subquery": ("SELECT * FROM (SHOW DATABASES)", "not for here"),
    "describe of settings": ("SELECT * FROM (DESCRIBE duckdb_settings)", "no table"),
    # research: files and network
    "read_text": (f"SELECT * FROM read_text('{FILE}')", "not allowed"),
    "read_csv": (f"SELECT * FROM read_csv('{FILE}')", "not allowed"),
    "read_blob of the catalogue": ("SELECT * FROM read_blob('catalog.sqlite')", "not allowed"),
    "read_parquet of http": ("SELECT * FROM read_parquet('http://1.1.1.1/x')", "not allowed"),
    "glob": ("SELECT * FROM glob('/*')", "not allowed"),
    "sniff_csv": (f"SELECT * FROM sniff_csv('{FILE}')", "not allowed"),
    "parquet_metadata": ("SELECT * FROM parquet_metadata('/tmp/*')", "not allowed"),
    "a file as a table": (f"SELECT * FROM '{FILE}.csv'", "no table"),
    "a file as a table, described": ("DESCRIBE '/tmp/x.parquet'", "no table"),
    "a variable of the worker": ("SELECT * FROM answers", "no table"),
    "sqlite_scan": ("SELECT * FROM sqlite_scan('catalog.sqlite', 'x')", "not allowed"),
    # research: the lake's own machinery
    "catalogue tables": (
        "SELECT * FROM __ducklake_metadata_lake.main.ducklake_data_file", "no table",
    ),
    "catalogue tables, quoted": (
        'SELECT * FROM "__ducklake_metadata_lake".ducklake_data_file', "no table",
    ),
    "snapshots": ("SELECT * FROM lake.snapshots()", "not allowed"),
    "ducklake_list_files": ("SELECT * FROM ducklake_list_files('lake', 'memories')", "not allowed"),
    "ducklake_table_deletions": (
        "SELECT * FROM ducklake_table_deletions('lake', 'main', 'memories', 0, 9)", "not allowed",
    ),
    "expire, as a SELECT": ("SELECT * FROM ducklake_expire_snapshots('lake')", "not allowed"),
    "an older version": ("SELECT * FROM memories AT (VERSION => 1)", "AT is not"),
    "filename": ("SELECT filename FROM memories", "column filename"),
    "filename, qualified": ('SELECT m."FileName" FROM memories AS m', "column FileName"),
    "filename, by a join": (
        "SELECT 1 FROM memories JOIN (SELECT 'x' AS filename) USING (filename)", "column filename",
    ),
    # SQL in strings, state, waiting
    "query()": ("SELECT * FROM query('SELECT * FROM duckdb_settings()')", "not allowed"),
    "query_table()": ("SELECT * FROM query_table('duckdb_settings')", "not allowed"),
    "histogram(), whose tables are strings": (
        "SELECT * FROM histogram('duckdb_settings', 'name')", "not allowed",
    ),
    "json_execute_serialized_sql": (
        "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))", "not allowed",
    ),
    "sleep": ("SELECT sleep_ms(60000)", "not allowed"),
    "pg_sleep": ("SELECT pg_sleep(60)", "not allowed"),
    "write_log": ("SELECT write_log('x')", "not allowed"),
    "setseed": ("SELECT setseed(0.5)", "not allowed"),
    "quack_stop": ("FROM quack_stop('quack:localhost:9797')", "not allowed"),
    "force_checkpoint": ("FROM force_checkpoint('lake')", "not allowed"),
    "a function nobody knows": ("SELECT exfiltrate(1)", "not allowed"),
    # names that mean one thing here and another there
    "a CTE called as a view of DuckDB": (
        "SELECT * FROM (WITH duckdb_settings AS (SELECT 1) FROM duckdb_settings), duckdb_settings",
        "cannot be called",
    ),
    "a CTE called as a file": (
        "SELECT * FROM (WITH \"/etc/x.csv\" AS (SELECT 1) SELECT 1), '/etc/x.csv'",
        "cannot be called",
    ),
    "too long": ("SELECT '" + "x" * 60_000 + "'", "at most"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(names: tuple[duckdb.DuckDBPyConnection, statement.Known], name: str) -> None:
    """Each hole is refused by the look at the statement, before anything runs."""
    sql, why = REFUSED[name]
    connection, known = names
    if name == "too long":
        with pytest.raises(BadRequest, match=why):
            Sandbox(Home(Path("nowhere"))).run(sql)
        return
    with pytest.raises(BadRequest, match=why):
        statement.check(connection, sql, known)


@pytest.fixture(scope="module")
def names(home: Home) -> Iterator[tuple[duckdb.DuckDBPyConnection, statement.Known]]:
    """What the worker asks: a stranger's connection, and the names it may use."""
    with open_reader(home, stranger=True) as connection:
        yield connection, statement.known(connection)


def test_refused_over_the_process(sandbox: Sandbox) -> None:
    """The worker does look at what it is asked, and the parent says why it was refused."""
    with pytest.raises(BadRequest, match="not allowed here"):
        sandbox.run("SELECT * FROM duckdb_settings()")
    with pytest.raises(BadRequest, match="did you mean memories"):
        sandbox.run("SELECT * FROM memorie")
    with pytest.raises(BadRequest, match="nosuch"):
        sandbox.run("SELECT nosuch FROM memories")


HARMLESS = {
    "random", "uuid", "gen_random_uuid", "uuidv4", "uuidv7", "error", "now", "today",
    "current_date", "get_current_time", "get_current_timestamp", "transaction_timestamp",
    "current_database", "current_schema", "current_schemas",
}  # fmt: skip


def test_every_impure_function_was_looked_at(
    names: tuple[duckdb.DuckDBPyConnection, statement.Known],
) -> None:
    """A function that does or tells more than its arguments is denied, or known to be harmless."""
    connection, known = names
    impure = connection.execute(
        "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE function_type IN "
        "('scalar', 'aggregate') AND (has_side_effects OR stability <> 'CONSISTENT')"
    ).fetchall()
    assert {row[0] for row in impure} & known.functions == HARMLESS


def test_no_cte_can_pose_as_a_view_of_duckdb(
    names: tuple[duckdb.DuckDBPyConnection, statement.Known],
) -> None:
    """Every view of DuckDB that a bare name could mean has a prefix that no CTE may have."""
    views = (
        names[0]
        .execute(
            "SELECT view_name FROM duckdb_views() WHERE internal AND schema_name IN "
            "('main', 'pg_catalog')"
        )
        .fetchall()
    )
    assert len(views) > 20
    assert all(one.startswith(statement.DENIED_PREFIXES) for (one,) in views)


# -- what holds when the look at the statement fails -----------------------------------------------


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        (f"SELECT * FROM read_text('{FILE}')", "Permission"),
        ("SELECT * FROM read_text('{lake}/secret.csv')", "Permission"),
        ("SELECT * FROM '{lake}/secret.csv'", "does not exist|Permission"),
        ("SELECT * FROM read_text('{home}/secret.txt')", "Permission"),
        ("COPY (SELECT 1) TO '{lake}/x.csv'", "Permission"),
        ("ATTACH '/tmp/x.db' AS x", "Permission|disabled"),
        ("INSTALL httpfs", "Permission|disabled"),
        ("SET memory_limit = '100GB'", "locked"),
        ("SET enable_external_access = true", "locked|Cannot"),
        ("SELECT * FROM home", "does not exist"),
        ("INSERT INTO memories (id) VALUES ('x')", "read-only"),
    ],
)
def test_duckdb_is_locked_besides(home: Home, sql: str, why: str) -> None:
    """DuckDB itself refuses files, settings and writes: each guard alone is enough."""
    sql = sql.format(lake=home.lake, home=home.root)
    with open_reader(home, stranger=True) as connection, pytest.raises(duckdb.Error, match=why):
        assert SECRET not in str(connection.execute(sql).fetchall())


def test_data_folder_is_no_place_to_write(home: Home, tmp_path: Path) -> None:
    """The one folder that DuckDB may open is kept from writing by the process's own limits."""
    code = (
        "import sys, pathlib\n"
        "from engram.collector.sandbox import worker, confine\n"
        "lake = pathlib.Path(sys.argv[1]) / 'lake'\n"
        "print(confine.confine(read=worker._readable(lake), write=worker._writable(lake),"
        " address_space=3 << 30, cpu_s=60))\n"
        "import os, socket, subprocess\n"
        "def tell(name, of):\n"
        "    try: print(name, 'WORKED', of())\n"
        "    except OSError as error: print(name, 'failed')\n"
        "tell('socket', lambda: socket.socket())\n"
        "tell('unix', lambda: socket.socket(socket.AF_UNIX))\n"
        "tell('exec', lambda: subprocess.run(['/bin/true']))\n"
        "tell('fork', lambda: os.fork())\n"
        "tell('kill', lambda: os.kill(os.getppid(), 0))\n"
        "tell('passwd', lambda: open('/etc/passwd').read(1))\n"
        "tell('secret', lambda: open(sys.argv[1] + '/secret.txt').read(1))\n"
        "tell('write', lambda: open(sys.argv[1] + '/lake/data/x', 'w'))\n"
        "tell('environ', lambda: open(f'/proc/{os.getppid()}/environ').read(1))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(home.root)],
        env={}, cwd="/", capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    told = dict(line.split(" ", 1) for line in done.stdout.splitlines()[1:])
    held = done.stdout.splitlines()[0]
    assert "rlimits" in held
    if platform.machine() in ("x86_64", "aarch64") and sys.platform == "linux":
        assert "seccomp" in held
        assert {told[one] for one in ("socket", "unix", "exec", "fork", "kill")} == {"failed"}
    if landlock_version() > 0:
        assert "landlock" in held
        assert {told[one] for one in ("passwd", "secret", "write", "environ")} == {"failed"}
    if subprocess.run(["unshare", "-Urni", "true"], capture_output=True).returncode == 0:
        assert "network" in held


def landlock_version() -> int:
    """What this kernel says; below 1 it has none."""
    libc = ctypes.CDLL(None)
    return int(libc.syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


def test_worker_is_confined(sandbox: Sandbox) -> None:
    """A worker has no environment, a session of its own, no core dumps, and tells what holds."""
    held = sandbox.confinement
    assert held[0] == "rlimits"
    process = psutil.Process(sandbox._idle[0].process.pid)
    assert process.environ() == {}
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert process.rlimit(psutil.RLIMIT_AS) == (sandbox.limits.address_space,) * 2
    assert process.rlimit(psutil.RLIMIT_FSIZE)[1] <= 1 << 20
    assert process.rlimit(psutil.RLIMIT_NOFILE)[1] <= 512
    assert process.rlimit(psutil.RLIMIT_CPU)[1] <= 3600


# -- what a query may cost -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "WITH RECURSIVE t AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM t) SELECT count(*) FROM t",
        "SELECT count(*) FROM range(3000000) a(n), range(3000000) b(m) WHERE n * m % 7 = 3",
        "SELECT count(*) FROM range(100000000) AS r(n) WHERE "
        "regexp_matches(repeat('a', 20000) || n, '(a*)*(a*)*(x+x+)+y')",
    ],
    ids=["recursion without end", "cross join", "regex bomb"],
)
def test_endless_is_stopped(sandbox: Sandbox, sql: str) -> None:
    """A query without end is killed with its process, and the next one is answered."""
    with pytest.raises(TooExpensive, match="longer than 1 s"):
        sandbox.run(sql, timeout_s=1)
    assert sandbox.run("SELECT 1").rows == ((1,),)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT list(n) FROM range(1000000000) AS r(n)",
        "SELECT length(string_agg(repeat('x', 10000000), '')) FROM range(100000)",
        "SELECT n, count(*) FROM range(100000000) AS r(n) GROUP BY n",
    ],
    ids=["list", "strings", "groups"],
)
def test_memory_bomb_is_stopped(sandbox: Sandbox, sql: str) -> None:
    """A query that wants all memory gets an error, and the process behind it is not asked again."""
    with pytest.raises(TooExpensive, match=r"memory|longer"):
        sandbox.run(sql, timeout_s=40)
    assert sandbox.run("SELECT 1").rows == ((1,),)


def test_rows_bytes_and_values_are_capped(home: Home) -> None:
    """A result without end is cut after its rows, its bytes, or within a value, and says so."""
    sandbox = Sandbox(home, Limits(max_rows=50, max_bytes=10_000, max_cell=1000, timeout_s=60))
    try:
        found = sandbox.run("SELECT * FROM range(1000000000000)", max_rows=3)
        assert found.rows == ((0,), (1,), (2,))
        assert found.truncated
        assert len(sandbox.run("FROM range(1000000000000)", max_rows=10**9).rows) == 50
        wide = sandbox.run("SELECT repeat('x', 900) FROM range(40)")
        assert wide.truncated
        assert len(wide.rows) == 11
        cell = sandbox.run("SELECT repeat('x', 5000), range(5000)")
        assert cell.truncated
        assert cell.rows[0][0].endswith("… (5,000 characters)")
        assert len(cell.rows[0][1]) < 1100
        exact = sandbox.run("SELECT * FROM range(3)", max_rows=3)
        assert not exact.truncated
    finally:
        sandbox.close()


def test_a_clean_worker_is_asked_again_and_no_other(sandbox: Sandbox) -> None:
    """After an answer the process stays; after any error there is a fresh one."""
    sandbox.run("SELECT 1")
    before = {one.process.pid for one in sandbox._idle}
    sandbox.run("SELECT 2")
    assert {one.process.pid for one in sandbox._idle} == before
    with pytest.raises(BadRequest):
        sandbox.run("SELECT 1 / 'x'")
    assert not {one.process.pid for one in sandbox._idle} & before


def test_one_at_a_time_where_there_is_one_worker(home: Home) -> None:
    """More queries than workers wait, and are told to come again when it takes long."""
    sandbox = Sandbox(home, Limits(workers=1, wait_s=0.05))
    begun = threading.Event()
    original = sandbox._ask

    def slow(question: dict[str, object], seconds: float) -> object:
        begun.set()
        return original(question, seconds)

    sandbox._ask = slow  # type: ignore[method-assign, assignment]

    def bomb() -> None:
        with pytest.raises(TooExpensive):
            sandbox.run("SELECT count(*) FROM range(3000000), range(3000000)", timeout_s=2)

    thread = threading.Thread(target=bomb)
    thread.start()
    try:
        assert begun.wait(60)
        with pytest.raises(Overloaded, match="running already"):
            sandbox.run("SELECT 1")
    finally:
        thread.join()
        sandbox.close()


def test_idle_and_closed_workers_are_gone(home: Home) -> None:
    """An idle worker ends by itself, and all end with the sandbox."""
    sandbox = Sandbox(home, Limits(idle_s=0.2))
    sandbox.run("SELECT 1", timeout_s=60)
    deadline = time.monotonic() + 30
    while sandbox._idle and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not sandbox._idle
    sandbox.run("SELECT 1", timeout_s=60)  # and it can be asked again
    left = [one.process for one in sandbox._idle]
    sandbox.close()
    sandbox.close()
    assert all(one.poll() is not None for one in left)


def test_no_path_in_errors(sandbox: Sandbox, home: Home) -> None:
    """Errors do not tell where the lake is."""
    with pytest.raises(BadRequest) as failed:
        sandbox.run(f"SELECT * FROM '{home.lake}/data/x.parquet'")
    assert str(home.lake) not in str(failed.value).replace(f"{home.lake}/data/x.parquet", "")
    with pytest.raises(BadRequest) as failed:
        sandbox.run("SELECT CAST(title AS INTEGER) FROM memories")
    assert str(home.root) not in str(failed.value)


def test_new_rows_and_no_lake(tmp_path: Path, home: Home, sandbox: Sandbox) -> None:
    """A warm worker sees what is committed after it began; a home without a lake says so."""
    sandbox.run("SELECT count(*) FROM logs")
    with connect() as connection:
        connection.execute(attach_sql(home, read_only=False))
        connection.execute("INSERT INTO lake.logs (body) VALUES ('\"new\"')")
    assert sandbox.run("SELECT body FROM logs").rows == (('"new"',),)
    with pytest.raises(NotFound, match="engram up"):
        Sandbox(Home(tmp_path / "none")).run("SELECT 1")
