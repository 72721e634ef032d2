"""`engram known`: what the screen shows, and the exit code."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from tests.learning.home import Collecting
from tests.learning.test_known import solution
from tests.learning.test_solutions import request
from tests.telemetry import STACK, T0

from engram.collector import cli
from engram.exporters.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """One error, twice, and what somebody wrote against it."""
    collecting = Collecting(Home(tmp_path / "home"))
    collecting.send(
        request(1, True, T0), request(2, True, T0 + 10**9),
        solution("1", T0, "Raise \x1b[31mthe limit", error_type="TimeoutError"),
    )  # fmt: skip
    collecting.close()
    return tmp_path / "home"


def test_seen_and_not_seen(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How often and what helped; escapes of a terminal do not reach it; not seen is exit code 3."""
    monkeypatch.setattr("sys.stdin", io.StringIO(STACK))
    assert cli.main(["--home", str(home), "known", "-"]) == 0
    said = capsys.readouterr().out
    assert "happened 2 times in shop" in said
    assert "state:" not in said
    assert "written down: Raise" in said
    assert "\x1b" not in said
    assert cli.main(["--home", str(home), "known", "KeyError: nobody"]) == 3
    assert capsys.readouterr().out.startswith("not seen")
    assert cli.main(["--home", str(home), "--json", "known", "--type", "TimeoutError"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["match"] == "exact"
    assert told["patterns"][0]["count"] == 2
    assert cli.main(["--home", str(home), "known"]) == 2
