"""The command line: light, honest in its exit codes, and never a traceback for a user's mistake."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from engram.collector import cli
from engram.collector.config import DEFAULT_FILE
from engram.collector.output import plain, printable, write_table
from engram.collector.query import Result
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_sql, connect
from engram.exporters.lake.schema import prepare

ESCAPE = "\x1b[31mred\x07"
NOON = 1_795_348_800_000_000_000


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No home, configuration or file of the developer's leaks in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENGRAM_HOME", raising=False)
    monkeypatch.delenv("ENGRAM_CONFIG", raising=False)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A lake with two memories, written by hand: the command line needs no engine."""
    home = Home(tmp_path_factory.mktemp("cli") / "home")
    home.create()
    with connect() as connection:
        connection.execute(attach_sql(home, read_only=False))
        connection.execute("USE lake")
        prepare(connection)
        rows = [("a1", "system_error", "boom " + ESCAPE), ("a2", "api_call", "GET /x")]
        for at, (id_, type_, title) in enumerate(rows):
            connection.execute(
                "INSERT INTO memories (id, type, title, content, time_unix_nano, service_name) "
                "VALUES (?, ?, ?, ?, ?, 'shop')",
                [id_, type_, title, f"<b>{title}</b>", NOON + at],
            )
        connection.execute("USE memory")
        connection.execute("DETACH lake")
    return home


Outcome = tuple[int, str, str]


@pytest.fixture
def engram(capsys: pytest.CaptureFixture[str]) -> object:
    """Runs a command in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = cli.main(arguments)
        done = capsys.readouterr()
        return code, done.out, done.err

    return run


def call(engram: object, *arguments: str) -> Outcome:
    """The fixture's function, typed."""
    assert callable(engram)
    code, out, err = engram(*arguments)
    assert "Traceback" not in err
    return code, out, err


def process(*arguments: str, input: str) -> subprocess.CompletedProcess[str]:
    """The same as a process, with something on stdin."""
    return subprocess.run(
        [sys.executable, "-m", "engram.collector.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        input=input,
    )


def test_help_imports_nothing_heavy() -> None:
    """`engram --help` imports no package but ours, and of the standard library only light parts."""
    code = "import sys; from engram.collector.cli import main; main(['--help'])"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "usage: engram" in done.stdout
    assert "engram.collector.cli" in imported
    ours = {name for name in imported if name.startswith("engram.")}
    assert ours <= {
        "engram.collector",
        "engram.collector.cli",
        "engram.exporters",
        "engram.exporters.errors",
    }
    heavy = {
        "asyncio", "ctypes", "dataclasses", "duckdb", "email", "grpc", "http", "http.client",
        "importlib.metadata", "inspect", "json", "lancedb", "logging", "numpy", "opentelemetry",
        "pathlib", "polars", "pyarrow", "socket", "subprocess", "torch", "typing_extensions",
        "urllib.request", "uvicorn", "yaml",
    }  # fmt: skip
    before = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", ""], capture_output=True, text=True, check=True
    )
    site = {line.rpartition("|")[2].strip() for line in before.stderr.splitlines()}
    assert not (imported & heavy) - site


def test_sql_needs_no_heavy_package(lake: Home) -> None:
    """`engram sql` costs DuckDB and not pyarrow, polars or lancedb."""
    code = (
        "import sys; from engram.collector.cli import main;"
        f"code = main(['--home', {str(lake.root)!r}, 'sql', 'SELECT 1']);"
        "sys.exit(code or 10 * bool({'pyarrow', 'polars', 'lancedb', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_command_has_help(engram: object) -> None:
    """Each command explains itself, and the top lists all of them and the exit codes."""
    code, top, _ = call(engram, "--help")
    assert code == 0
    assert "exit codes" in top
    for command in cli._COMMANDS:
        assert re.search(rf"^    {command}\b", top, re.MULTILINE), command
        code, text, _ = call(engram, command, "--help")
        assert code == 0
        assert "--home" in text


@pytest.mark.parametrize(
    "arguments", [(), ("nonsense",), ("sql", "--limit", "-1"), ("search", "x", "--limit", "0")]
)
def test_wrong_usage_is_2(engram: object, arguments: tuple[str, ...]) -> None:
    """A command line that cannot be meant is 2, with the usage."""
    code, _, err = call(engram, *arguments)
    assert code == 2
    assert "usage: engram" in err


def test_what_was_meant(engram: object, lake: Home) -> None:
    """A misspelt command, choice, type or table is answered with the right one."""
    home = str(lake.root)
    for arguments, wanted in (
        (("stauts",), "did you mean status?"),
        (("config", "valdate"), "did you mean validate?"),
        (("--home", home, "search", "x", "--type", "sytem_error"), "did you mean system_error"),
        (("--home", home, "sql", "FROM systm_error"), 'Did you mean "system_error"?'),
        (("--home", home, "sql", "FROM system_error WHERE time > now()"), "epoch_us(now())"),
    ):
        code, _, err = call(engram, *arguments)
        assert code == 2
        assert wanted in err


@pytest.mark.parametrize("command", [("sql", "SELECT 1"), ("status",), ("search", "x"), ("tail",)])
def test_no_lake_is_3(engram: object, command: tuple[str, ...]) -> None:
    """Without a lake each question says so and how to start one."""
    code, out, err = call(engram, *command)
    assert (code, out) == (3, "")
    assert "no lake in" in err
    assert "engram up" in err


def test_no_collector_is_4(engram: object) -> None:
    """Commands for the running collector say that none runs."""
    code, _, err = call(engram, "flush")
    assert code == 4
    assert "no collector runs" in err


def test_json_errors(engram: object) -> None:
    """With --json, before or after the command, an error is one JSON object on stderr."""
    for arguments in (("--json", "sql", "SELECT 1"), ("sql", "SELECT 1", "--json")):
        code, _, err = call(engram, *arguments)
        error = json.loads(err)["error"]
        assert (code, error["exit_code"], error["type"]) == (3, 3, "NotFound")


def test_home_by_flag_environment_and_file(
    engram: object, lake: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The home is --home, else ENGRAM_HOME, else what the configuration says."""
    assert call(engram, "--home", str(lake.root), "sql", "SELECT 1")[0] == 0
    assert call(engram, "sql", "SELECT 1", "--home", str(lake.root))[0] == 0
    text = cli_config(f"path: {lake.root}")
    (tmp_path / "otel-config.yaml").write_text(text)
    assert call(engram, "sql", "SELECT 1")[0] == 0
    monkeypatch.setenv("ENGRAM_HOME", str(tmp_path / "none"))
    assert call(engram, "sql", "SELECT 1")[0] == 3


def cli_config(memory: str) -> str:
    """The default configuration with another memory exporter."""
    from engram.collector.config import DEFAULT_FILE

    return DEFAULT_FILE.read_text().replace("path: null", memory)


def test_sql_table(engram: object, lake: Home) -> None:
    """A table for people: aligned, one line a row, nothing a terminal would obey."""
    query = "SELECT id, title, importance, time_unix_nano FROM memories ORDER BY id"
    code, out, _ = call(engram, "--home", str(lake.root), "sql", query)
    assert code == 0
    assert out.splitlines() == [
        "id  title                 importance       time_unix_nano",
        "--  --------------------  ----------  -------------------",
        "a1  boom \\x1b[31mred\\x07  NULL        1795348800000000000",
        "a2  GET /x                NULL        1795348800000000001",
    ]


def test_sql_json_types(engram: object, lake: Home) -> None:
    """JSON has ISO times, hex bytes, exact integers, null for NaN, nesting, and no lost columns."""
    query = (
        "SELECT 1 AS a, 2 AS a, 'x\\x00y'::BLOB AS b, 'nan'::DOUBLE AS n, 'inf'::FLOAT AS i, "
        "170141183460469231731687303715884105727::HUGEINT AS h, 1.5 AS d, "
        "DATE '2026-01-02' AS day, "
        "TIMESTAMP '2026-01-02 03:04:05.6' AS t, TIMESTAMPTZ '2026-01-02 03:04:05+00' AS z, "
        "[1, NULL] AS l, {'k': MAP {'m': 1}} AS s, NULL AS nil, true AS yes, INTERVAL 1 DAY AS iv"
    )
    for zoned in (True, False):
        text = query if zoned else re.sub(r"TIMESTAMPTZ \S+ \S+ AS z, ", "", query)
        code, out, err = call(engram, "--json", "--home", str(lake.root), "sql", text)
        assert code == 0, err
        (row,) = json.loads(out)
        assert row["a"] == 1
        assert row["a_2"] == 2
        assert row["n"] is None
        assert row["i"] is None
        assert row["h"] == 2**127 - 1
        assert row["d"] == 1.5
        assert row["day"] == "2026-01-02"
        assert row["t"] == "2026-01-02T03:04:05.600000"
        assert row["l"] == [1, None]
        assert row["nil"] is None
        assert row["yes"] is True
        assert row["b"] == "780079"
        if zoned:
            assert row["z"] == "2026-01-02T03:04:05+00:00"
        else:
            assert row["s"] == {"k": {"m": 1}}


def test_sql_from_stdin(lake: Home) -> None:
    """`-` reads the query from stdin."""
    done = process("--home", str(lake.root), "--json", "sql", "-", input="SELECT 42 AS x")
    assert (done.returncode, json.loads(done.stdout)) == (0, [{"x": 42}])


@pytest.mark.parametrize(
    "query",
    ["SELEC 1", "SELECT nothing FROM memories", "SELECT * FROM nowhere", "", "SELECT 1; SELECT 2",
     "SELECT 'x'::INTEGER", "SELECT '\x1b"],
)  # fmt: skip
def test_bad_sql_is_2(engram: object, lake: Home, query: str) -> None:
    """A wrong query is the user's: exit 2 and DuckDB's words, no traceback."""
    code, _, err = call(engram, "--home", str(lake.root), "sql", query)
    assert code == 2
    assert err.startswith("engram: ")


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM memories",
        "CREATE TABLE x AS SELECT 1",
        "COPY memories TO '{}/x.csv'",
        "ATTACH '{}/x.db'",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM read_csv('https://example.com/x.csv')",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SET threads = 64",
        "DROP VIEW system_error",
        "DETACH lake",
        "CALL ducklake_expire_snapshots('lake')",
        "SELECT * FROM ducklake_expire_snapshots('lake', older_than => now())",
        "EXPLAIN ANALYZE DELETE FROM memories",
    ],
)
def test_sql_can_only_read_the_lake(engram: object, lake: Home, tmp_path: Path, query: str) -> None:
    """No statement changes the lake, reads another file, or reaches the network."""
    home = str(lake.root)
    code, _, err = call(engram, "--home", home, "sql", query.replace("{}", str(tmp_path)))
    assert code in (1, 2), err
    assert list(tmp_path.iterdir()) == []
    code, out, _ = call(
        engram, "--home", home, "--json", "sql", "SELECT count(*) AS n FROM memories"
    )
    assert json.loads(out) == [{"n": 2}]


def test_sql_sees_commits_of_another_process(lake: Home, engram: object) -> None:
    """The catalogue can be browsed: tables, and one view for each memory type."""
    _, out, _ = call(engram, "--home", str(lake.root), "--json", "sql", "SHOW TABLES")
    names = {row["name"] for row in json.loads(out)}
    assert {"spans", "logs", "metrics", "memories", "system_error", "ai_response"} <= names


def test_broken_pipe_is_silent(lake: Home) -> None:
    """`engram sql ... | head -1` ends without a word on stderr."""
    query = "SELECT * FROM range(1000000)"
    command = f"{sys.executable} -m engram.collector.cli --home {lake.root} sql '{query}' | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "range\n"
    assert done.stderr == ""


def test_status_of_a_lake_at_rest(engram: object, lake: Home) -> None:
    """Without a collector, status reads the lake itself."""
    code, out, _ = call(engram, "--home", str(lake.root), "--json", "status")
    assert code == 0
    facts = json.loads(out)
    assert facts["running"] is False
    assert facts["tables"]["memories"] == 2
    assert facts["memory_types"] == {"api_call": 1, "system_error": 1}
    code, out, _ = call(engram, "--home", str(lake.root), "status")
    assert re.search(r"^  memories\s+2$", out, re.MULTILINE)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Home]:
    """A home whose control socket answers."""
    home = Home(tmp_path / "h")
    home.create()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(home.control))
    server.listen()

    def answer() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection, connection.makefile("rw") as stream:
                asked = json.loads(stream.readline())
                bad = asked["command"] == "compact"
                stream.write(json.dumps({"error": "no"} if bad else {"committed": 7}) + "\n")

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    yield home
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(5)


def test_control_socket(engram: object, control: Home) -> None:
    """status, flush and compact speak to the running collector, whose error is an error."""
    home = str(control.root)
    code, out, _ = call(engram, "--home", home, "--json", "status")
    assert (code, json.loads(out)["collector"]) == (0, {"committed": 7})
    code, out, _ = call(engram, "--home", home, "flush")
    assert (code, out) == (0, "committed  7\n")
    code, _, err = call(engram, "--home", home, "compact")
    assert (code, err) == (1, "engram: compact: no\n")


def test_config_validate(engram: object, tmp_path: Path) -> None:
    """A good file lists what runs; a bad one every problem, and 2; none 3."""
    code, out, _ = call(engram, "config", "validate")
    assert code == 0
    assert "receiver   otlp" in out
    bad = tmp_path / "bad.yaml"
    bad.write_text("receivers: {otpl: }\nservic: {}\n")
    code, _, err = call(engram, "--config", str(bad), "--json", "config", "validate")
    assert code == 2
    assert len(json.loads(err)["error"]["problems"]) >= 2
    assert call(engram, "--config", "nowhere", "config", "validate")[0] == 3


def test_config_validate_shows_what_is_in_effect(engram: object, tmp_path: Path) -> None:
    """Files and settings are merged, secrets are masked, and the text is a configuration again."""
    more = tmp_path / "more.yaml"
    more.write_text(
        "exporters: {otlphttp: {endpoint: 'http://far:4318', headers: {authorization: hunter2}}}\n"
        "service: {pipelines: {traces/far: {receivers: [otlp], exporters: [otlphttp]}}}\n"
    )
    given = [f"--config={DEFAULT_FILE}", f"--config={more}", "--set=processors.batch.timeout=2s"]
    code, out, _ = call(engram, *given, "config", "validate")
    assert code == 0
    assert "exporter   otlphttp" in out
    assert "hunter2" not in out
    shown = yaml.safe_load(out)
    assert shown["processors"]["batch"]["timeout"] == "2s"
    code, out, _ = call(engram, *given, "--json", "config", "validate")
    assert json.loads(out)["config"] == shown
    assert json.loads(out)["files"] == [str(DEFAULT_FILE), str(more)]


def test_roles_check_the_configuration_first(engram: object, tmp_path: Path) -> None:
    """`collect` with a bad file stops before it touches the home."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: 1\n")
    code, _, err = call(engram, "--config", str(bad), "--home", str(tmp_path / "h"), "collect")
    assert code == 2
    assert "unknown key" in err
    assert not (tmp_path / "h").exists()


def test_missing_extra_says_what_to_type(lake: Home) -> None:
    """Without the server extra, a command says which line installs it."""
    code = (
        "import sys; sys.modules['duckdb'] = None; from engram.collector.cli import main;"
        f"sys.exit(main(['--home', {str(lake.root)!r}, 'sql', 'SELECT 1']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'pip install "engram[server]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_version(engram: object) -> None:
    """The versions that a report of a bug needs."""
    code, out, _ = call(engram, "version", "--json")
    assert code == 0
    assert json.loads(out)["duckdb"] == "1.5.5"


def test_table_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the widest columns are shortened; wide characters count as two."""
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "40")
    out = Terminal()
    rows = [("a", "x" * 300, 1), ("b", "界" * 50, 22)]
    write_table(Result(["k", "text", "n"], iter(rows)), out)
    lines = out.getvalue().splitlines()
    assert all(len(line) <= 40 for line in lines)
    assert lines[2].startswith("a  xxxx")
    assert "…" in lines[2]
    assert "…" in lines[3]
    assert lines[-1] == "(2 rows)"


def test_plain_values() -> None:
    """Values JSON does not know become text it does."""
    assert plain(float("nan")) is None
    assert plain(b"\x00\xff") == "00ff"
    assert plain({"a": [1, (2,)]}) == {"a": [1, [2]]}
    assert printable("a\nb\x1b") == "a\\nb\\x1b"
    assert os.linesep == "\n"
