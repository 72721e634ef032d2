"""`engram sql` on a terminal: a prompt with history and completion that no mistake ends."""

from __future__ import annotations

import os
import shlex
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from engram.collector import output, query
from engram.collector.statements import complete
from engram.exporters.errors import BadRequest, EngramError
from engram.exporters.home import Home

if TYPE_CHECKING:
    import duckdb
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import History

MODES: Final = ("table", "json", "csv", "line")
LIMIT: Final = 200
"""Rows of one answer on a terminal."""

_COUNTED: Final = 100_000
"""So many rows behind the limit are counted; more are only said to be more."""

HELP: Final = """\
A statement ends with a semicolon and may have several lines. Ctrl-C cancels it, Ctrl-D ends.
  .tables           tables and views
  .schema [NAME]    columns of a table or view, or of all
  .types            memory types and how many memories each has
  .mode [MODE]      how answers look: table, json, csv, line
  .limit [N]        rows of one answer; 0 shows all
  .help             this
  .quit             ends (also .exit, Ctrl-D)
Tab completes; Ctrl-R searches what was asked before."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows of an answer that are shown, and what was left out."""

    result: query.Result
    shown: int
    more: int
    more_is_least: bool
    seconds: float


def ask(connection: duckdb.DuckDBPyConnection, text: str, limit: int) -> Answer:
    """Run a statement in a thread of its own, so that Ctrl-C can cancel it.

    Raises:
        KeyboardInterrupt: it was cancelled; the connection is as good as before.
        BadRequest, duckdb.Error: it cannot run.
    """
    found: list[Answer] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            begun = time.monotonic()
            result = query.run(connection, text)
            rows = list(islice(result.rows, limit or None))
            more = sum(1 for _ in islice(result.rows, _COUNTED + 1)) if limit else 0
            result.rows.close()  # type: ignore[attr-defined] # a generator
            seconds = time.monotonic() - begun
            kept = query.Result(result.columns, iter(rows))
            found.append(Answer(kept, len(rows), min(more, _COUNTED), more > _COUNTED, seconds))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failed.append(error)

    thread = threading.Thread(target=run, name="query", daemon=True)
    thread.start()
    interrupted = False
    while thread.is_alive():
        try:
            thread.join(0.2)
        except KeyboardInterrupt:
            interrupted = True
        if interrupted:  # again, should it have begun to run just now
            connection.interrupt()
    if interrupted:
        raise KeyboardInterrupt
    if failed:
        raise failed[0]
    return found[0]


class Shell:
    """Answers lines. Constructing does no I/O."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        out: TextIO,
        *,
        mode: str = "table",
        limit: int = LIMIT,
    ) -> None:
        self._connection = connection
        self._out = out
        self._mode = mode
        self._limit = limit
        self._commands: dict[str, Callable[[list[str]], None]] = {
            ".help": self._help, ".tables": self._tables, ".schema": self._schema,
            ".types": self._types, ".mode": self._set_mode, ".limit": self._set_limit,
        }  # fmt: skip

    def answer(self, text: str) -> bool:
        """Do what a line or statement asks, mistakes included; False when it asks to end."""
        text = text.strip()
        try:
            if text.startswith("."):
                return self._command(text)
            if text.strip("; \n\t"):
                self._statement(text)
        except KeyboardInterrupt:
            self._out.write("cancelled\n")
        except Exception as error:
            if not isinstance(error, EngramError | OSError) and not _is_duckdb(error):
                raise
            self._out.write(f"{query.explained(error)}\n")
        return True

    def _statement(self, text: str) -> None:
        answer = ask(self._connection, text, self._limit)
        output.write_result(answer.result, self._out, self._mode)
        if self._mode != "table" and not answer.more:
            return
        notes = [f"{answer.shown} row{'' if answer.shown == 1 else 's'}"]
        if answer.more:
            least = "at least " if answer.more_is_least else ""
            notes.append(f"… {least}{answer.more:,} more rows; .limit N shows more")
        notes.append(f"{answer.seconds:.2f} s")
        self._out.write(f"({', '.join(notes)})\n")

    def _command(self, text: str) -> bool:
        try:
            name, *arguments = shlex.split(text.rstrip(";"))
        except ValueError:
            name, *arguments = text.rstrip(";").split()
        if name in (".quit", ".exit", ".q"):
            return False
        command = self._commands.get(name)
        if command is None:
            import difflib

            near = difflib.get_close_matches(name, [*self._commands, ".quit"], n=1)
            raise BadRequest(
                f"there is no {name}" + (f"; did you mean {near[0]}?" if near else "; try .help")
            )
        command(arguments)
        return True

    def _help(self, arguments: list[str]) -> None:
        self._out.write(HELP + "\n")

    def _tables(self, arguments: list[str]) -> None:
        rows = self._connection.execute(
            "SELECT table_type = 'VIEW', table_name FROM information_schema.tables "
            "WHERE table_catalog = 'lake' ORDER BY ALL"
        ).fetchall()
        for is_view, title in ((False, "tables"), (True, "views")):
            names = [name for view, name in rows if view == is_view]
            self._out.write(f"{title}\n{output.columns(names, self._out)}")

    def _schema(self, arguments: list[str]) -> None:
        rows = self._connection.execute(
            "SELECT table_name, column_name, data_type FROM duckdb_columns() "
            "WHERE database_name = 'lake' AND (? IS NULL OR table_name = ?) "
            "ORDER BY table_name, column_index",
            [arguments[0] if arguments else None] * 2,
        ).fetchall()
        if not rows:
            raise BadRequest(f"there is no table or view {arguments[0]!r}; .tables lists them")
        before = None
        for table, column, type_ in rows:
            if table != before:
                self._out.write(f"{table}\n")
                before = table
            self._out.write(f"  {column:36} {type_}\n")

    def _types(self, arguments: list[str]) -> None:
        self._statement(
            "SELECT type, count(*) AS memories, max(make_timestamp_ns(time_unix_nano)) AS last "
            "FROM memories GROUP BY type ORDER BY memories DESC, type"
        )

    def _set_mode(self, arguments: list[str]) -> None:
        if arguments:
            if arguments[0] not in MODES:
                raise BadRequest(f"there is no mode {arguments[0]!r}; modes: {', '.join(MODES)}")
            self._mode = arguments[0]
        self._out.write(f"mode {self._mode}\n")

    def _set_limit(self, arguments: list[str]) -> None:
        if arguments:
            if not arguments[0].isascii() or not arguments[0].isdigit():
                raise BadRequest(".limit takes a number of rows; 0 shows all")
            self._limit = int(arguments[0])
        self._out.write(f"limit {self._limit or 'none'}\n")


def _is_duckdb(error: Exception) -> bool:
    import duckdb

    return isinstance(error, duckdb.Error)


# -- the prompt ------------------------------------------------------------------------------------


def run(home: Home, *, mode: str, limit: int) -> None:
    """Prompt until the user has enough.

    Raises:
        NotFound: this home has no lake.
    """
    with query.reader(home) as connection:
        shell = Shell(connection, sys.stdout, mode=mode, limit=limit)
        session = prompt_session(connection)
        sys.stdout.write(f"{home.root}, read-only. Statements end with ; and .help helps.\n")
        while True:
            try:
                if not shell.answer(session.prompt()):
                    return
            except KeyboardInterrupt:  # leaves the line, not the shell
                continue
            except EOFError:
                return


def prompt_session(connection: duckdb.DuckDBPyConnection) -> PromptSession[str]:
    """A prompt that knows SQL, this lake, and what was asked before."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.lexers import PygmentsLexer
    from pygments.lexers.sql import SqlLexer

    from engram.collector.complete import LakeCompleter

    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        """Enter runs what is complete, and else begins a new line."""
        buffer = event.current_buffer
        text = buffer.text.strip()
        if not text or text.startswith(".") or complete(text):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    plain = bool(os.environ.get("NO_COLOR"))
    return PromptSession(
        "engram> ",
        history=_history(),
        completer=LakeCompleter(connection),
        complete_while_typing=False,
        auto_suggest=AutoSuggestFromHistory(),
        lexer=None if plain else PygmentsLexer(SqlLexer),
        multiline=True,
        prompt_continuation="   ...> ",
        key_bindings=keys,
    )


def history_file() -> Path:
    """Where the history is: private, and of the person, as a home may be shared."""
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local/state") / "engram" / "sql_history"


def _history() -> History:
    """What was asked before, readable by its owner only; in memory where no file can be."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    try:
        path = history_file()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
    except (OSError, RuntimeError):
        return InMemoryHistory()
    return FileHistory(path)
