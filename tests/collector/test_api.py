"""The page and REST reads: what is asked, what is answered, and that text stays text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from engram.collector.api import Api, Question, page
from engram.exporters.errors import BadRequest, StoreError
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_sql, connect
from engram.exporters.lake.schema import prepare
from engram.learning.recall import Found, Item, Recall, Scope

EVIL = "<script>alert(1)</script>\"'&"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A lake with hostile text in it."""
    home = Home(tmp_path_factory.mktemp("api") / "home")
    home.create()
    with connect() as connection:
        connection.execute(attach_sql(home, read_only=False))
        connection.execute("USE lake")
        prepare(connection)
        for at, type_ in enumerate(("system_error", "api_call", "api_call")):
            connection.execute(
                "INSERT INTO memories (id, type, title, content, time_unix_nano, service_name) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                [f"m{at}", type_, f"{at}{EVIL}", EVIL, at, f"svc{at}"],
            )
        connection.execute("USE memory")
        connection.execute("DETACH lake")
    return home


def ask(
    application: Api, target: str, *, method: str = "GET", host: str | None = "127.0.0.1:4319"
) -> tuple[int, dict[str, str], str]:
    """One request through the ASGI interface."""
    path, _, query = target.partition("?")
    sent: list[MutableMapping[str, Any]] = []
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [] if host is None else [(b"host", host.encode())],
    }

    async def receive() -> dict[str, Any]:
        raise AssertionError("nothing is read from the body")

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(application(scope, receive, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, sent[1]["body"].decode()


@pytest.fixture
def application(home: Home) -> Any:
    """The application on that lake."""
    made = Api(home)
    yield made
    made.close()


def test_page_escapes_everything(application: Api) -> None:
    """Text from the lake and from the query string is never markup."""
    status, headers, text = ask(application, "/")
    assert status == 200
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "script-src" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    evil = Question(EVIL, (EVIL,), EVIL, 5)
    made = page({"tables": {EVIL: 1}, "memory_types": {EVIL: 2}}, [{"type": EVIL}], evil, EVIL)
    assert "<script" not in made
    assert EVIL not in made


def test_memories_by_type_newest_first(application: Api) -> None:
    """The newest memories, by type and service, at most `limit`."""
    found = json.loads(ask(application, "/api/memories")[2])["memories"]
    assert [one["id"] for one in found] == ["m2", "m1", "m0"]
    found = json.loads(ask(application, "/api/memories?type=api_call&limit=1")[2])["memories"]
    assert [one["id"] for one in found] == ["m2"]
    found = json.loads(ask(application, "/api/memories?service=svc1")[2])["memories"]
    assert [one["id"] for one in found] == ["m1"]
    sql = "/api/memories?type=x%27)%20OR%201=1--"
    assert json.loads(ask(application, sql)[2])["memories"] == []


def test_status_counts(application: Api, home: Home) -> None:
    """Counts of tables and types, and whose they are."""
    facts = json.loads(ask(application, "/api/status")[2])
    assert facts["home"] == str(home.root)
    assert facts["tables"]["memories"] == 3
    assert facts["memory_types"] == {"api_call": 2, "system_error": 1}


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:4319", "127.0.0.1.evil.example", "localhost:x", "", "[::2]:1",
     "0.0.0.0:4319", "localhost@evil", None],
)  # fmt: skip
def test_other_hosts_are_refused(application: Api, host: str | None) -> None:
    """A Host that is not this machine, as after DNS rebinding, gets nothing."""
    assert ask(application, "/api/memories", host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:4319", "[::1]", "[::1]:7"])
def test_this_machine_is_served(application: Api, host: str) -> None:
    """Each name of this machine is fine, with and without a port."""
    assert ask(application, "/health", host=host)[0] == 200


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/nowhere", 404),
        ("/api/memories?limit=0", 400),
        ("/api/memories?limit=x", 400),
        ("/api/memories?limit=99999999999999", 400),
        ("/api/memories?limit=%C2%B2", 400),
        ("/api/search", 400),
        ("/api/search?q=", 400),
    ],
)
def test_errors_are_json(application: Api, target: str, status: int) -> None:
    """What cannot be answered says why, as JSON."""
    got, headers, body = ask(application, target)
    assert got == status
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["error"]["message"]


def test_only_reads(application: Api) -> None:
    """Other methods are refused, and HEAD has no body."""
    status, headers, _ = ask(application, "/", method="POST")
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    status, headers, body = ask(application, "/api/status", method="HEAD")
    assert (status, body) == (200, "")
    assert int(headers["content-length"]) > 0


def test_no_lake_yet(tmp_path: Path) -> None:
    """Before the first commit the page is there and empty."""
    application = Api(Home(tmp_path))
    assert "the lake is empty" in ask(application, "/")[2]
    assert json.loads(ask(application, "/api/memories")[2])["memories"] == []


def test_search_is_passed_on(application: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The question goes to search with its filters, and the hits come back."""
    asked: list[Any] = []
    one = Item(id="m0", memory_type="system_error", title=EVIL, content=EVIL, count=3)

    def search(recall: Recall, query: str, **filters: Any) -> Found:
        asked.append((query, filters))
        return Found((one,), "searched by words only", {"words": ["fail"]})

    monkeypatch.setattr(Recall, "search", search)
    status, _, body = ask(
        application,
        "/api/search?q=what+failed&type=a&type=b&service=s&limit=3&user=u&session=s1&since=1970-01-01"
        "&until=90&min_importance=0.7",
    )
    assert status == 200
    told = json.loads(body)
    assert told["hits"][0]["id"] == "m0"
    assert told["explanation"]["words"] == ["fail"]
    assert told["note"] == "searched by words only"
    filters = {
        "limit": 3, "types": ("a", "b"), "scope": Scope("u", "s1", "s"), "explain": True,
        "since_ns": 0, "until_ns": 90, "min_importance": 0.7,
    }  # fmt: skip
    assert asked == [("what failed", filters)]
    text = ask(application, "/?q=x")[2]
    assert "searched by words only" in text
    assert "3 times" in text
    assert "<script" not in ask(application, "/?q=x")[2]


@pytest.mark.parametrize(
    ("error", "status"),
    [(StoreError("no index yet"), 503), (BadRequest("no"), 400), (RuntimeError("secret"), 500)],
)
def test_failures_inside(
    application: Api, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    """A failing search is mapped once, hides the text of a bug, and spares the page."""

    def search(recall: Recall, query: str, **filters: Any) -> Found:
        raise error

    monkeypatch.setattr(Recall, "search", search)
    got, _, body = ask(application, "/api/search?q=x")
    assert got == status
    assert "secret" not in body
    got, _, text = ask(application, "/?q=x")
    assert got == 200
    assert 'class="note"' in text or "class=note" in text
