"""Search from the command line: by `serve` when it is there, else in process."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.learning.lake import Lake, memory

from engram.collector import find as find_module
from engram.collector.find import SERVE_FILE, find, importance, moment
from engram.collector.output import write_answer
from engram.exporters.errors import BadRequest, EngramError, NotFound
from engram.exporters.home import Home
from engram.learning.indexer import Indexer

HERE: dict[str, Any] = {"hits": [{"id": "here"}], "explanation": {}, "note": ""}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with a catalogue, and a search in process that is only a mark."""
    home = Home(tmp_path / "home")
    home.create()
    home.catalog.touch()
    monkeypatch.setattr(find_module, "search_here", lambda *arguments: HERE)
    return home


@contextmanager
def serving(home: Home, status: int, answer: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Something that answers where `serve.json` points; what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(parse_qs(urlsplit(self.path).query))
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        where = {"host": "127.0.0.1", "port": server.server_port}
        (home.root / SERVE_FILE).write_text(json.dumps(where))
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


def test_serve_is_asked(home: Home) -> None:
    """A running serve answers, with every filter passed on."""
    filters = {
        "types": ["a", "b"], "service": "s", "user_id": "u", "session_id": None, "since_ns": 5,
        "until_ns": 9, "min_importance": 0.5,
    }  # fmt: skip
    with serving(home, 200, {"home": str(home.root), "hits": [{"id": "there"}]}) as asked:
        answer = find(home, "what & why?", limit=3, filters=filters)
    assert answer == {"hits": [{"id": "there"}]}
    assert asked == [
        {"q": ["what & why?"], "limit": ["3"], "type": ["a", "b"], "service": ["s"], "user": ["u"],
         "since": ["5"], "until": ["9"], "min_importance": ["0.5"]}
    ]  # fmt: skip


@pytest.mark.parametrize("content", ["", "{}", '{"host": "127.0.0.1", "port": 1}', "[1]", None])
def test_stale_file_is_no_harm(home: Home, content: str | None) -> None:
    """A file left by a crash, or none, means searching in process."""
    if content is not None:
        (home.root / SERVE_FILE).write_text(content)
    assert find(home, "x") == HERE


def test_port_of_somebody_else(home: Home) -> None:
    """What answers at an old port is believed only when it serves this home."""
    with serving(home, 200, {"home": "/elsewhere", "hits": [{"id": "wrong"}]}):
        assert find(home, "x") == HERE


def test_error_of_serve_is_the_error(home: Home) -> None:
    """When serve says why it cannot search, so do we."""
    answer = {"home": str(home.root), "error": {"message": "no index yet"}}
    with serving(home, 503, answer), pytest.raises(EngramError, match="no index yet"):
        find(home, "x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1790000000000000000", 1_790_000_000_000_000_000),
        ("2026-11-22", 1_795_305_600_000_000_000),
        ("2026-11-22T10:00:00Z", 1_795_341_600_000_000_000),
        ("2026-11-22T10:00:00+01:00", 1_795_338_000_000_000_000),
    ],
)
def test_times_are_read(text: str, expected: int) -> None:
    """As nanoseconds or ISO 8601; without an offset it is UTC."""
    assert moment(text) == expected


def test_ages_are_counted_from_now() -> None:
    """`2h` is before `1h`, and both are past."""
    assert moment("2h") < moment("1h") < time.time_ns()
    assert abs(time.time_ns() - moment("3d") - 3 * 86_400 * 10**9) < 60 * 10**9


@pytest.mark.parametrize("text", ["yesterday", "", "2h ago", "99999999999w", "1" * 30])
def test_no_time_is_said_so(text: str) -> None:
    """With what can be written."""
    with pytest.raises(BadRequest):
        moment(text)


@pytest.mark.parametrize("text", ["high", "1.1", "-0.1", "nan"])
def test_no_importance_is_said_so(text: str) -> None:
    """It is from 0 to 1."""
    with pytest.raises(BadRequest, match="0 to 1"):
        importance(text)


def test_no_lake(tmp_path: Path) -> None:
    """Without a lake there is nothing to search, said at once."""
    with pytest.raises(NotFound, match="no lake"):
        find(Home(tmp_path), "x")


def test_what_is_found_is_told_once_and_not_when_it_is_hidden(tmp_path: Path) -> None:
    """People are told what programs are: near-equal memories as one, hidden ones not at all."""
    home = Home(tmp_path / "home")
    lake = Lake(home)
    same = [memory(f"a{n}", "What does a teapot cost?", type="user_interaction") for n in range(3)]
    secret = memory("b", "A secret teapot", type="ai_insight")
    lake.commit(*same, secret)
    hide = {"target": secret["id"], "action": "hide"}
    lake.commit(memory("c", "hide b", type="memory_revision", source="mark",
                       attributes=json.dumps(hide)))  # fmt: skip
    indexer = Indexer(home)
    while indexer.step():
        pass
    indexer.close()
    [hit] = find(home, "teapot")["hits"]
    assert (hit["title"], hit["count"]) == ("What does a teapot cost?", 3)
    assert set(hit["why"]) >= {"text", "vector", "matched", "factor"}
    for explain in (False, True):
        written = io.StringIO()
        write_answer(find(home, "teapot"), written, explain=explain)
        assert "3 times" in written.getvalue()
        assert ("of age, importance and outcomes" in written.getvalue()) is explain
    lake.close()
