"""`engram tail`: nothing missed, nothing twice, and a clean end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.telemetry import request, shop_traces

from engram.collector import cli
from engram.collector.output import wants_colour
from engram.collector.tail import Follower, Lines, Selection
from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_read_only
from engram.exporters.signals import Encoding, Signal

SPANS, LOGS, _ = shop_traces(40)
COMMAND = [sys.executable, "-m", "engram.collector.cli"]
TIMEOUT_S = 30


def admit(engine: Engine, first: int, count: int = 1) -> None:
    """Requests `first` to `first + count` of the shop, committed."""
    for n in range(first, first + count):
        spans = SPANS[3 * n : 3 * n + 3]
        logs = [log for log in LOGS if log.trace_id == spans[0].trace_id]
        for sent, records in ((Signal.TRACES, spans), (Signal.LOGS, logs)):
            engine.admit(sent, request(sent, records), Encoding.IDENTITY).result(10)
    engine.wait_committed(engine.end, 20)


@contextlib.contextmanager
def running(home: Home) -> Iterator[Engine]:
    """An engine that commits quickly and compacts only when told."""
    engine = Engine(home, EngineSettings(commit_interval_s=0.02, compact_interval_s=1e9))
    engine.start()
    try:
        yield engine
    finally:
        engine.shutdown(20)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A lake at rest with six requests of the shop, two of which failed."""
    home = Home(tmp_path_factory.mktemp("tail") / "home")
    with running(home) as engine:
        admit(engine, 0, 6)
    return home


def stored(home: Home, sql: str) -> list[Any]:
    """The first column of a query."""
    with contextlib.closing(attach_read_only(home)) as db:
        return [row[0] for row in db.execute(sql).fetchall()]


class Tail:
    """`engram tail --json` as a process whose lines are waited for."""

    def __init__(self, home: Home, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "--home", str(home.root), "--json", "tail", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def take(self, count: int) -> list[dict[str, Any]]:
        """The next lines, parsed."""
        return [json.loads(self._lines.get(timeout=TIMEOUT_S)) for _ in range(count)]

    def rest(self) -> list[str]:
        """What was printed and not taken."""
        return [self._lines.get() for _ in range(self._lines.qsize())]

    def interrupt(self) -> tuple[int, str]:
        """Ctrl-C; the exit code and stderr."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        with self.process.stdout, self.process.stderr:
            return code, self.process.stderr.read()


def test_follows_through_compaction_and_restart(tmp_path: Path) -> None:
    """Each memory once, in the order of commits, over merged files and a collector's restart."""
    home = Home(tmp_path / "home")
    with running(home) as engine:
        admit(engine, 0, 2)
        before = stored(home, "SELECT id FROM memories ORDER BY id")
        tail = Tail(home, "-n", "1000")
        try:
            found = tail.take(len(before))
            assert sorted(row["id"] for row in found) == before
            for n in range(2, 14):
                admit(engine, n)
            engine.compact(grace_s=0)
            admit(engine, 14)
        except BaseException:
            tail.process.kill()
            raise
    with running(home) as engine:
        admit(engine, 15, 2)
        engine.compact(grace_s=0)
        admit(engine, 17)
        all_ids = stored(home, "SELECT id FROM memories ORDER BY id")
        found += tail.take(len(all_ids) - len(found))
        code, err = tail.interrupt()
    assert sorted(row["id"] for row in found) == all_ids
    assert tail.rest() == []
    later = [row["sequence"] for row in found[len(before) :]]
    assert later == sorted(later)
    assert (code, err) == (130, "")


def test_a_completed_memory_is_not_shown_again(tmp_path: Path) -> None:
    """The log that completes an answer of an earlier commit brings no second line."""
    home = Home(tmp_path / "home")
    with running(home) as engine:
        spans, logs = SPANS[:3], LOGS[:2]
        body = request(Signal.TRACES, spans)
        engine.admit(Signal.TRACES, body, Encoding.IDENTITY).result(10)
        engine.wait_committed(engine.end, 20)
        follower = Follower(home, Selection(last=0))
        assert follower.begin() == []
        engine.admit(Signal.LOGS, request(Signal.LOGS, logs), Encoding.IDENTITY).result(10)
        engine.wait_committed(engine.end, 20)
        assert [row["type"] for row in follower.new()] == ["user_interaction"]
        assert list(follower.new()) == []
        follower.close()
    merged = stored(home, "SELECT sequence FROM memories WHERE type = 'ai_response'")
    assert merged == [2]


def lines(capsys: pytest.CaptureFixture[str], home: Home, *arguments: str) -> list[str]:
    """`engram tail --no-follow`, in this process."""
    assert cli.main(["--home", str(home.root), "tail", "--no-follow", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_selections(lake: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """Newest last; by type, service and failure; spans and logs too."""
    assert len(lines(capsys, lake)) == 10
    errors = lines(capsys, lake, "--type", "system_error")
    assert errors == [
        "2026-09-21T14:13:22.030Z  system_error       shop  "
        "gateway did not answer within 3000 ms  error",
        "2026-09-21T14:13:25.030Z  system_error       shop  "
        "gateway did not answer within 3000 ms  error",
    ]
    assert len(lines(capsys, lake, "--errors", "-n", "100")) == 6
    assert lines(capsys, lake, "--service", "other") == []
    (span,) = lines(capsys, lake, "--spans", "-n", "1", "--errors")
    assert span.endswith("POST: TimeoutError: gateway did not answer  504 error 30 ms")
    (log,) = lines(capsys, lake, "--logs", "-n", "1")
    assert log.endswith("INFO   shop  order 5 accepted")
    assert lines(capsys, lake, "-n", "0") == []


def test_type_names_are_checked(lake: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt type names the right one; an app's own type may still come."""
    home = str(lake.root)
    for given, wanted in (("sytem_error", "system_error"), ("api-call", "api_call")):
        assert cli.main(["--home", home, "tail", "--no-follow", "--type", given]) == 2
        assert f"did you mean {wanted}" in capsys.readouterr().err
    assert cli.main(["--home", home, "tail", "--no-follow", "--type", "Übel!"]) == 2
    assert "lower_snake_case" in capsys.readouterr().err
    assert lines(capsys, lake, "--type", "parrot_sighting") == []
    assert cli.main(["--home", home, "tail", "--spans", "--type", "api_call"]) == 2
    assert "spans have none" in capsys.readouterr().err


def test_no_lake_is_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a lake or a collector there is nothing to follow."""
    assert cli.main(["--home", str(tmp_path), "tail"]) == 3
    assert "engram up" in capsys.readouterr().err


def test_ends_with_its_reader(lake: Home) -> None:
    """When the reader of the pipe leaves, tail leaves, though nothing new comes."""
    process = subprocess.Popen(
        [*COMMAND, "--home", str(lake.root), "tail", "-n", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("2026-")
    process.stdout.close()
    assert process.wait(TIMEOUT_S) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


def test_colours_only_on_a_terminal(lake: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets colours unless NO_COLOR says no; a pipe never does."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "90")
    follower = Follower(lake, Selection(types=("system_error",), last=1))
    (row,) = follower.begin()
    follower.close()
    row["title"] = "red \x1b[31m " + "very " * 40
    main, other = pty.openpty()
    with open(other, "w") as terminal, os.fdopen(main):
        line = Lines("memories", terminal).line(row)
        assert "\x1b[1;31msystem_error" in line
        assert "red \\x1b[31m" in line
        assert "…" in line
        monkeypatch.setenv("NO_COLOR", "1")
        line = Lines("memories", terminal).line(row)
        assert "\x1b" not in line
        assert len(line) <= 90
    assert not wants_colour(io.StringIO())
