"""`engram sql` as a prompt and as the end of a pipe: no mistake ends it, nothing is endless."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from engram.collector import cli, query
from engram.collector.complete import LakeCompleter
from engram.collector.output import write_csv
from engram.collector.shell import LIMIT, Shell, ask
from engram.collector.statements import complete, split
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_sql, connect
from engram.exporters.lake.schema import prepare

COMMAND = [sys.executable, "-m", "engram.collector.cli"]
ENDLESS = "SELECT count(*) FROM range(100000000000) a, range(100000000000) b"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A lake with one memory."""
    home = Home(tmp_path_factory.mktemp("shell") / "home")
    home.create()
    with connect() as connection:
        connection.execute(attach_sql(home, read_only=False))
        connection.execute("USE lake")
        prepare(connection)
        connection.execute("INSERT INTO memories (id, type, title) VALUES ('a', 'api_call', 't')")
        connection.execute("USE memory")
        connection.execute("DETACH lake")
    return home


@pytest.fixture(scope="module")
def reader(lake: Home) -> Iterator[duckdb.DuckDBPyConnection]:
    """The connection a shell has."""
    with query.reader(lake) as connection:
        yield connection


class Typed:
    """A shell whose answers are read as text."""

    def __init__(self, reader: duckdb.DuckDBPyConnection) -> None:
        self.out = io.StringIO()
        self.shell = Shell(reader, self.out)

    def __call__(self, text: str) -> str:
        """What is answered to a line."""
        self.out.seek(0)
        self.out.truncate()
        assert self.shell.answer(text)
        return self.out.getvalue()


def test_mistakes_do_not_end_it(reader: duckdb.DuckDBPyConnection) -> None:
    """Wrong SQL, writes, unknown commands and arguments are answered, and the next line works."""
    typed = Typed(reader)
    for text, wanted in (
        ("SELEC 1;", "Parser Error"),
        ("SELECT nothing FROM memories;", "nothing"),
        ("DROP TABLE memories;", "read-only"),
        ("SELECT 1; SELECT 2;", "one statement"),
        ("SELECT time FROM system_error WHERE time > now();", "epoch_us(now())"),
        (".tabels", "did you mean .tables"),
        (".nonsense", "try .help"),
        (".mode xml", "modes: table, json, csv, line"),
        (".limit many", "number"),
        (".schema 'it''s", "no table or view"),
        (".schema nowhere", "no table or view"),
    ):
        assert wanted in typed(text), text
    assert typed("SELECT 41 + 1 AS x;").split()[:3] == ["x", "--", "42"]
    assert not typed.shell.answer(".quit")
    assert typed(" ; ") == ""


def test_commands(reader: duckdb.DuckDBPyConnection) -> None:
    """What there is can be looked up, and answers have four looks."""
    typed = Typed(reader)
    assert "memories" in typed(".tables").splitlines()[3]
    assert re.search(r"^  span_id +VARCHAR$", typed(".schema spans"), re.MULTILINE)
    assert "api_call" in typed(".types")
    assert ".schema [NAME]" in typed(".help")
    assert typed(".mode json") == "mode json\n"
    assert typed("SELECT 1 AS a;") == '[{"a": 1}]\n'
    typed(".mode csv")
    assert typed("SELECT 1 AS a, NULL AS b, 'x,y' AS c;") == 'a,b,c\n1,,"x,y"\n'
    typed(".mode line")
    assert typed("SELECT 1 AS a, 'x' AS long;") == "   a = 1\nlong = x\n"


def test_long_answers_are_limited(reader: duckdb.DuckDBPyConnection) -> None:
    """The prompt shows so many rows and says how many more there are, without counting for ever."""
    typed = Typed(reader)
    text = typed("SELECT * FROM range(1000);")
    assert len(text.splitlines()) == LIMIT + 3
    assert "(200 rows, … 800 more rows; .limit N shows more," in text
    assert "at least 100,000 more rows" in typed("SELECT * FROM range(100000000000);")
    typed(".limit 3")
    assert "997 more rows" in typed("SELECT * FROM range(1000);")
    typed(".limit 0")
    assert "(1000 rows, " in typed("SELECT * FROM range(1000);")


def test_ctrl_c_cancels_the_query_only(reader: duckdb.DuckDBPyConnection) -> None:
    """An interrupted query says so, and the connection answers the next one."""
    typed = Typed(reader)
    timer = threading.Timer(3.0, os.kill, (os.getpid(), signal.SIGINT))  # it runs by then
    timer.start()
    assert typed(ENDLESS + ";") == "cancelled\n"
    timer.join()
    assert ask(reader, "SELECT 1", 10).shown == 1


def test_where_statements_end() -> None:
    """Semicolons in strings and comments end nothing; comments alone are no statement."""
    assert complete("SELECT 1;")
    assert complete("SELECT 'ü;'; -- done")
    for open_ in ("SELECT 1", "SELECT ';", "SELECT 1 -- ;", "SELECT 1 /* ;", 'SELECT ";"', ""):
        assert not complete(open_), open_
    text = "-- first\nSELECT 'ä;b';SELECT\n2; /* ; */\n-- last\n"
    assert [one.strip() for one in split(io.StringIO(text))] == [
        "-- first\nSELECT 'ä;b'",
        "SELECT\n2",
    ]
    assert list(split(io.StringIO("SELECT 'open"))) == ["SELECT 'open"]


def completions(reader: duckdb.DuckDBPyConnection, text: str) -> list[str]:
    """What Tab offers at the end of a text."""
    completer = LakeCompleter(reader)
    return [one.text for one in completer.get_completions(Document(text), CompleteEvent())]


def test_completion(reader: duckdb.DuckDBPyConnection) -> None:
    """Tables after FROM, columns of the tables in use, types in quotes, then the language."""
    assert "memories" in completions(reader, "SELECT * FROM mem")
    assert "trace_id" in completions(reader, "SELECT x.trace_")
    assert completions(reader, "SELECT * FROM spans s WHERE s.http_re") == [
        "http_request_method",
        "http_response_status_code",
    ]
    assert completions(reader, "SELECT * FROM spans WHERE http_ro")[0] == "http_route"
    assert completions(reader, "SELECT * FROM memories WHERE type = 'ap") == ["api_call"]
    assert "SELECT" in completions(reader, "SEL")
    offered = completions(reader, "SELECT * FROM memories WHERE ty")
    assert offered[0] == "type"
    assert len(offered) == len(set(offered))
    assert "quantile_cont(" in completions(reader, "SELECT quantile_c")
    assert completions(reader, ".sch") == [".schema"]
    assert completions(reader, ".schema span") == ["spans", "spans_readable"]
    assert completions(reader, ".mode j") == ["json"]
    assert completions(reader, "SELECT 1 ") == []


def test_a_pipe_of_statements(lake: Home) -> None:
    """Statements from stdin are answered in turn; the first that fails is the exit code."""
    home = str(lake.root)
    text = "SELECT 1 AS a;\nSELECT 2 AS b; SELECT wrong; SELECT 3 AS c;"
    done = subprocess.run(
        [*COMMAND, "--home", home, "--json", "sql"], input=text, capture_output=True, text=True
    )
    assert done.stdout == '[{"a": 1}]\n[{"b": 2}]\n'
    assert done.returncode == 2
    assert "wrong" in done.stderr


def test_csv_and_limit(lake: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """--csv is for spreadsheets; --limit says on stderr what it left out."""
    arguments = ["--home", str(lake.root), "sql", "--csv", "--limit", "2"]
    assert cli.main([*arguments, "SELECT range AS n, [1, 2] AS l FROM range(5)"]) == 0
    done = capsys.readouterr()
    assert done.out == 'n,l\n0,"[1, 2]"\n1,"[1, 2]"\n'
    assert done.err == "… 3 more rows (--limit)\n"
    out = io.StringIO()
    write_csv(query.Result(["a"], iter([('say "x"\n',)])), out)
    assert out.getvalue() == 'a\n"say ""x""\n"\n'


def test_ctrl_c_ends_a_single_query(lake: Home) -> None:
    """`engram sql QUERY` that is interrupted is 130 and silent."""
    process = subprocess.Popen(
        [*COMMAND, "--home", str(lake.root), "sql"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"SELECT 1;\n{ENDLESS};\n")
    process.stdin.close()
    assert [process.stdout.readline() for _ in range(3)] == ["1\n", "-\n", "1\n"]
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert process.stderr is not None
    with process.stdout, process.stderr:
        assert process.stderr.read() == ""


class Terminal:
    """A process on a pseudo-terminal."""

    def __init__(self, command: list[str], environ: dict[str, str]) -> None:
        self._main, other = pty.openpty()
        self.process = subprocess.Popen(
            command, stdin=other, stdout=other, stderr=other, env=environ, start_new_session=True
        )
        os.close(other)
        self.seen = ""

    def until(self, wanted: str) -> str:
        """What was shown until the text is."""
        deadline = time.monotonic() + 30
        while wanted not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self._main], [], [], 1)[0]:
                try:
                    self.seen += os.read(self._main, 65536).decode(errors="replace")
                except OSError:
                    break
                if "\x1b[6n" in self.seen:  # where is the cursor?
                    os.write(self._main, b"\x1b[1;1R")
                    self.seen = self.seen.replace("\x1b[6n", "")
        before, found, self.seen = self.seen.partition(wanted)
        assert found, before
        return before

    def type(self, text: str) -> None:
        """Type."""
        os.write(self._main, text.encode())

    def close(self) -> None:
        """End it, however it is."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._main)


def test_on_a_terminal(lake: Home, tmp_path: Path) -> None:
    """A real prompt: an answer, Ctrl-C in a long query, another answer; the history is private."""
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "TERM": "xterm", "NO_COLOR": "1"}
    terminal = Terminal([*COMMAND, "--home", str(lake.root), "sql"], environ)
    try:
        terminal.until("engram>")
        terminal.type("SELECT 40 + 2 AS answer;\r")
        terminal.until("1 row")
        terminal.until("engram>")
        terminal.type(ENDLESS + ";\r")
        terminal.until("\x1b[?2004l")  # the prompt is left
        time.sleep(0.3)
        terminal.process.send_signal(signal.SIGINT)  # what a terminal of its own would make of ^C
        terminal.until("cancelled")
        terminal.until("engram>")
        terminal.type("SELECT nothing\x03SELECT\r7 * 6 AS again;\r")
        terminal.until("1 row")
        terminal.until("engram>")
        terminal.type("\x04")
        assert terminal.process.wait(30) == 0
    finally:
        terminal.close()
    history = tmp_path / "engram" / "sql_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "SELECT 40 + 2 AS answer;" in history.read_text()
