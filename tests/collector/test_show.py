"""`engram show` and its route: one memory with what belongs to it, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.collector.test_api import ask
from tests.telemetry import STACK, T0

from engram.collector import cli
from engram.collector.api import Api
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_sql, connect
from engram.exporters.lake.schema import prepare

EVIL = "boom \x1b]0;owned\x07 <b>"
ERROR, ANSWER = "abc123" + "0" * 18, "abd" + "0" * 21


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A failed request whose memory inherited its user, and an answer of a model."""
    home = Home(tmp_path_factory.mktemp("show") / "home")
    home.create()
    ranks = "111-0" + "1" * 13
    failed = {"type": "TimeoutError", "message": EVIL, "stacktrace": STACK}
    memories = [
        (ERROR, "system_error", EVIL, T0 + 5 * 10**8, "t1", json.dumps(failed), "u1", ranks),
        ("ab" * 12, "request_outcome", "POST /orders → 500", T0, "t1", "{}", None, "1" * 18),
        (ANSWER, "ai_response", "m-1: yes", T0 + 9, "t2", '{"model": "m-1"}', "", ranks),
    ]
    with connect() as connection:
        connection.execute(attach_sql(home, read_only=False))
        connection.execute("USE lake")
        prepare(connection)
        for row in memories:
            connection.execute(
                "INSERT INTO memories (id, type, title, time_unix_nano, trace_id, attributes, "
                "user_id, ranks, content, sources, source, trust) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'one\ntwo', [1, 2], 'span', 'app')",
                list(row),
            )
        connection.execute("USE memory")
        connection.execute("DETACH lake")
    return home


@pytest.fixture
def application(home: Home) -> Iterator[Api]:
    """The application on that lake."""
    made = Api(home)
    yield made
    made.close()


def show(home: Home, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    code = cli.main(["--home", str(home.root), "show", *more])
    done = capsys.readouterr()
    return code, done.out, done.err


def test_an_error_for_people(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """Title, facts, causes with frames, links; nothing that a terminal would obey."""
    code, out, _ = show(home, capsys, "abc123")
    assert code == 0
    assert "\x1b" not in out
    assert "user         u1  (from the trace: only one in its trace)" in out
    assert out.startswith("boom \\x1b]0;owned\\x07 <b>\n")
    assert "raised  TimeoutError: gateway did not answer within 3000 ms\n  * charge  /app" in out
    assert "reported     2 times, by span, trust app" in out
    assert f"request_outcome POST /orders → 500 failed with this  {'ab' * 12}" in out
    assert "-0.500 s  request_outcome: POST /orders → 500" in out


def test_another_memory_for_people(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no failure is shown with its content, and with its place in the conversation."""
    code, out, _ = show(home, capsys, ANSWER)
    assert code == 0
    assert "user         not clear  (from the trace: only one in its trace)" in out
    assert "content\n  one\n  two\n" in out
    assert "conversation\n  >  1  assistant  one\\ntwo" in out


def test_json_is_the_route(
    home: Home, capsys: pytest.CaptureFixture[str], application: Api
) -> None:
    """`--json` and `/api/memories/ID` say the same."""
    code, out, _ = show(home, capsys, ERROR, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["memory"]["id"] == ERROR
    assert told["error"]["causes"][0]["frames"][0]["function"] == "charge"
    status, headers, body = ask(application, f"/api/memories/{ERROR}?limit=20")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == {"home": str(home.root), **told}


@pytest.mark.parametrize(
    ("given", "code", "status", "says"),
    [
        ("ab", 2, 400, "is no id of a memory"),
        ("0" * 24, 3, 404, "no memory 0000"),
        ("nonsense", 2, 400, "is no id of a memory"),
    ],
)
def test_wrong_ids(
    home: Home, capsys: pytest.CaptureFixture[str], application: Api,
    given: str, code: int, status: int, says: str,
) -> None:  # fmt: skip
    """What is no id, and one that is not there, are said in words; the connection lives on."""
    got, _, err = show(home, capsys, given)
    assert got == code
    assert says in err
    for _ in range(2):
        answered, _, body = ask(application, f"/api/memories/{given}")
        assert answered == status
        assert says in json.loads(body)["error"]["message"]
    assert ask(application, f"/api/memories/{ERROR}")[0] == 200


def test_other_paths_stay_unknown(application: Api, tmp_path: Path) -> None:
    """Only one id fits behind the slash."""
    assert ask(application, "/api/memories/")[0] == 404
    assert ask(application, f"/api/memories/{ERROR}/x")[0] == 404
    assert ask(application, f"/api/memories/{ERROR}", host="evil.example")[0] == 403
    nowhere = Api(Home(tmp_path / "none"))
    assert ask(nowhere, f"/api/memories/{ERROR}")[0] == 404
