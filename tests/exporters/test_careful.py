"""Replay after a request that kills the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.durability import load
from tests.durability.verify import stored

from engram.exporters.careful import CarefulReplay
from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.home import Home
from engram.exporters.signals import Encoding, Signal

_ONCE = """
import os, sys
from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.home import Home
from engram.exporters.otlp import decode

finish = decode.Decoder.finish

def deadly(self, keep):
    if any(b"poison" in span for span in self._spans.messages):
        os._exit(9)
    return finish(self, keep)

decode.Decoder.finish = deadly
engine = Engine(Home.find(sys.argv[1]), EngineSettings(commit_interval_s=0.05))
engine.start()
engine.wait_committed(engine.end, 30)
engine.shutdown(30)
"""


def start(home: Home) -> int:
    """A process that replays until it is done (0) or killed by its decoder (9)."""
    command = [sys.executable, "-c", _ONCE, str(home.root)]
    return subprocess.run(command, capture_output=True, timeout=60).returncode


def test_a_deadly_request_is_quarantined(tmp_path: Path) -> None:
    """Twice it kills in the open, twice under watch; then it is put aside, the rest stored."""
    home = Home(tmp_path / "home")
    home.create()
    engine = Engine(home, EngineSettings(commit_interval_s=60))
    engine._wal.open()
    for name in ("before", "poison", "after"):
        engine._wal.append(Signal.TRACES, Encoding.IDENTITY, load.spans(name)).result(10)
    engine._wal.close()
    codes = [start(home) for _ in range(4)]
    assert codes == [9, 9, 9, 0]
    assert set(stored(home).records) == {("spans", "before"), ("spans", "after")}
    kept = [path for path in home.quarantine.iterdir() if path.suffix != ".json"]
    assert [path.read_bytes() for path in kept] == [load.spans("poison")]
    assert start(home) == 0


def crash(folder: Path, position: int, at: int | None) -> CarefulReplay:
    """A start at a position that dies while it decodes the request at `at`, or elsewhere."""
    replay = CarefulReplay(folder)
    replay.begin(position)
    if at is not None:
        replay.before(at)
    return replay


def test_a_chance_kill_condemns_nobody(tmp_path: Path) -> None:
    """Processes killed from outside, each time at another request, quarantine nothing."""
    for at in (10, 20, 30, 20, None, 30, None, None):
        replay = crash(tmp_path, 10, at)
        assert not any(replay.poisoned(position) for position in (10, 20, 30))


def test_decoded_requests_are_innocent(tmp_path: Path) -> None:
    """A death after the request was decoded is not laid at its door."""
    for _ in range(6):
        replay = crash(tmp_path, 10, 20)
        assert not replay.poisoned(20)
        replay.after()


def test_a_commit_clears_the_suspicion(tmp_path: Path) -> None:
    """Progress ends the watch, and is the position a later start may count on."""
    for _ in range(3):
        replay = crash(tmp_path, 10, 20)
    replay.committed(30)
    again = crash(tmp_path, 30, 40)
    assert again.last_committed() == 30
    assert not crash(tmp_path, 30, 40).poisoned(40)


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"position": null}'])
def test_a_damaged_note_is_no_note(tmp_path: Path, content: str) -> None:
    """The file is a help: when it is damaged, replay starts without it."""
    (tmp_path / "replay.json").write_text(content)
    replay = CarefulReplay(tmp_path)
    assert replay.last_committed() == 0
    replay.begin(5)
    assert not replay.poisoned(5)


def test_a_full_disk_does_not_stop_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A note that cannot be written is a warning."""
    replay = CarefulReplay(tmp_path / "nowhere")
    replay.begin(0)
    replay.committed(10)
    assert "cannot note" in caplog.text
    assert not os.path.exists(tmp_path / "nowhere")
