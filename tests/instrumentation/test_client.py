"""The client before a real `serve`: what it writes it reads; what goes wrong has a name."""

from __future__ import annotations

import asyncio
import datetime
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.collector.resting import Serving

from engram.instrumentation.client import (
    AsyncClient,
    Client,
    Memories,
    Memory,
    RecallRefused,
    RecallUnavailable,
)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Collect and serve."""
    one = Serving(tmp_path_factory.mktemp("client") / "home")
    yield one
    one.close()


@pytest.fixture(scope="module")
def client(serving: Serving) -> Iterator[Client]:
    """A client of it."""
    with Client(f"http://127.0.0.1:{serving.port}", timeout_s=30) as one:
        yield one


def test_what_is_written_is_read(client: Client) -> None:
    """By id, among the newest, after a change, and its history."""
    made = client.create_memory(
        title="Northwind wants mornings", content={"day": "Friday"}, memory_type="user_preference",
        user_id="u1", tags=["b", "a"], meta_data={"n": 3}, importance=0.9,
    )  # fmt: skip
    read = client.get_memory(made.id)
    assert (read.title, read.memory_type, read.user_id) == (
        "Northwind wants mornings", "user_preference", "u1",
    )  # fmt: skip
    assert {"a", "b"} <= set(read.tags)
    assert read.meta_data["n"] == 3
    assert "Friday" in read.content
    assert abs(read.created_at - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(hours=1)
    assert [one.id for one in client.get_recent_memories("user_preference", user_id="u1")] == [
        made.id
    ]
    changed = client.update_memory(made.id, title="Northwind wants evenings", reason="they said so")
    assert changed.title == "Northwind wants evenings"
    assert [one.title for one in client.history(made.id)] == [
        "Northwind wants mornings", "Northwind wants evenings",
    ]  # fmt: skip
    assert client.pin(made.id).pinned
    client.hide(made.id)
    assert client.get_all("user_preference", user_id="u1") == []
    assert client.show(made.id).id == made.id
    assert client.add("a note", memory_type="note").title == "a note"


def test_the_same_key_is_one_memory(client: Client) -> None:
    """Also when it is sent again."""
    one = client.create_memory(title="t", memory_type="note", key="k")
    two = client.create_memory(title="t", memory_type="note", key="k")
    assert one.id == two.id


def test_an_outcome_of_a_decision(client: Client) -> None:
    """It becomes fields of the decision."""
    made = client.create_memory(
        title="Ship: express", memory_type="business_decision", meta_data={"chosen": "express"}
    )
    client.record_outcome(made.id, "good", success=True, wait=True)
    assert client.get(made.id).meta_data["outcome"] == "good"


def test_what_is_refused_says_why(client: Client) -> None:
    """Not found, or not to be meant."""
    with pytest.raises(RecallRefused, match="no memory") as refused:
        client.get_memory("0" * 24)
    assert refused.value.status == 404
    with pytest.raises(RecallRefused):
        client.search_memories("")
    with pytest.raises(ValueError, match="no address"):
        Client("ftp://x")


def test_nobody_answers(serving: Serving) -> None:
    """Said at once, and after three times not even asked."""
    client = Client("http://127.0.0.1:9", timeout_s=5)
    for _ in range(3):
        with pytest.raises(RecallUnavailable, match="does not answer"):
            client.get_recent_memories()
    with pytest.raises(RecallUnavailable, match="circuit open"):
        client.get_recent_memories()


class Slow(http.server.BaseHTTPRequestHandler):
    """Answers nobody in time, and closes kept connections."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Hang, or answer once and close."""
        if "hang" in self.path:
            time.sleep(3)
        body = b'{"items": [], "next": null}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True  # without saying so

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_time_outs_and_connections_that_went_away() -> None:
    """Not in time is unavailable; a kept connection that was closed is made again."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        client = Client(f"http://127.0.0.1:{server.server_address[1]}", timeout_s=5)
        for _ in range(4):
            assert client.get_recent_memories() == []
            time.sleep(0.05)
        with pytest.raises(RecallUnavailable, match="not in time"):
            client.http.ask("GET", "/hang", timeout_s=0.2)
        client.close()
    finally:
        server.shutdown()
        server.server_close()


def test_async_never_blocks_the_loop(serving: Serving) -> None:
    """Many at once; and what has no such name says so."""

    async def main() -> None:
        async with AsyncClient(f"http://127.0.0.1:{serving.port}", timeout_s=30) as client:
            made = await asyncio.gather(
                *(client.create_memory(title=f"t{n}", memory_type="note") for n in range(5))
            )
            read = await asyncio.gather(*(client.get_memory(one.id) for one in made))
            assert [one.title for one in read] == [f"t{n}" for n in range(5)]
            with pytest.raises(AttributeError):
                client.nothing  # noqa: B018

    asyncio.run(main())


def test_results_are_for_notebooks_too() -> None:
    """HTML is escaped, frames have a row for each, and fields of a newer server are left out."""
    said = {"id": "i", "title": "<b>x</b>", "content": "c", "memory_type": "note",
            "created_at": "2026-11-23T00:00:00+00:00", "score": 0.5, "newer": 1}  # fmt: skip
    one = Memory.read(said)
    found = Memories([one], note="<i>")
    assert "<b>x</b>" not in found._repr_html_()
    assert "&lt;b&gt;x" in found._repr_html_()
    assert found.to_polars().shape[0] == 1
    assert found.to_dicts()[0]["title"] == "<b>x</b>"


def test_the_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the environment."""
    monkeypatch.setenv("ENGRAM_API", "http://127.0.0.1:7/x/")
    assert Client().http.url == "http://127.0.0.1:7/x"
