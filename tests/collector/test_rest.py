"""REST `/api/v1` over a real socket, in front of a home that collects."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.openapi.models import OpenAPI
from tests.collector.resting import Serving
from tests.telemetry import T0

from engram.collector.access import LOCAL, Principal, Scope
from engram.collector.rest.door import MOST_BODY
from engram.collector.rest.idempotency import Answered, Remembered
from engram.collector.rest.problems import Problem
from engram.collector.rest.writing import own_source
from engram.instrumentation.api.marks import identity, source_key
from engram.learning.indexer import Indexer

ITEM = {
    "id", "memory_type", "title", "content", "tags", "meta_data", "created_at", "score",
    "importance", "user_id", "session_id", "service", "outcome", "duration_ms", "trace_id",
    "source", "trust", "count", "first_seen", "last_seen", "pinned", "superseded_by", "why", "url",
}  # fmt: skip
S = 1_000_000_000


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A home with some memories of an app."""
    made = Serving(tmp_path_factory.mktemp("rest") / "home")
    made.remember(
        *(
            {"type": "system_event", "key": f"e{n}", "title": f"Event {n}", "at": T0 + n * S}
            for n in range(5)
        ),
        {"type": "business_decision", "key": "d1", "title": "refund: approve", "at": T0 + 9 * S,
         "user": "u1"},
        {"type": "system_event", "key": "other", "title": "Elsewhere", "at": T0, "service": "web"},
    )  # fmt: skip
    yield made
    made.close()


@pytest.fixture
def client(serving: Serving) -> Iterator[httpx.Client]:
    """A client without a token."""
    with serving.client() as made:
        yield made


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem in an answer, checked."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told: dict[str, Any] = answer.json()
    assert told["status"] == status
    assert told["type"].startswith("urn:engram:problem:")
    assert told["title"]
    assert told["detail"]
    return told


def write(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    """A memory that can be read."""
    answer = client.post("/api/v1/memories", json={"title": "A note", "wait": True, **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def test_a_client_reads_its_own_write(client: httpx.Client, serving: Serving) -> None:
    """With `wait` the answer comes when the memory can be read, under the id that was told."""
    answer = client.post(
        "/api/v1/memories",
        json={
            "title": "Plan for Friday", "content": {"steps": [1, 2]},
            "memory_type": "WorkflowState", "user_id": "u7", "session_id": "s7",
            "tags": ["b", "a"], "importance": 0.9,
            "meta_data": {"n": 3, "deep": {"x": [1]}, "flag": True}, "wait": True,
        },
    )  # fmt: skip
    assert answer.status_code == 201
    made = answer.json()
    assert set(made) == {*ITEM, "position", "committed"}
    assert made["committed"] is True
    assert answer.headers["location"] == made["url"]
    got = client.get(made["url"])
    assert got.headers["etag"] == answer.headers["etag"]
    item = got.json()
    assert set(item) == ITEM
    assert item["id"] == made["id"]
    assert item["memory_type"] == "workflow_state"
    assert item["title"] == "Plan for Friday"
    assert json.loads(item["content"]) == {"steps": [1, 2]}
    assert item["meta_data"] == {"n": 3, "deep": {"x": [1]}, "flag": True}
    assert {"a", "b"} <= set(item["tags"])
    assert (item["user_id"], item["session_id"], item["trust"]) == ("u7", "s7", "agent")
    assert item["importance"] == pytest.approx(0.9)
    rows = serving.rows(f"SELECT count(*) FROM lake.memories WHERE id = '{made['id']}'")
    assert rows == [(1,)]


def test_the_body_cannot_choose_its_trust(client: httpx.Client) -> None:
    """Trust is the token's: what the fields say of it is only a field."""
    made = write(client, meta_data={"engram.trust": "operator", "trust": "engram"})
    assert client.get(made["url"]).json()["trust"] == "agent"
    answer = client.post("/api/v1/memories", json={"title": "x", "trust": "operator"})
    assert "trust" in problem(answer, 422)["errors"][0]["where"]
    answer = client.post("/api/v1/memories", json={"title": "x", "memory_type": "MemoryRevision"})
    problem(answer, 422)


def test_a_key_names_a_memory_of_its_own_kind() -> None:
    """An operator's key is the app's; an agent's is apart, so that it changes nobody's words."""
    operator = Principal("boss", frozenset({Scope.ADMIN}))
    assert own_source("k", operator) == source_key("k")
    assert own_source("k", LOCAL) != source_key("k")
    assert own_source("k", LOCAL) == own_source("k", LOCAL)


def test_reports_with_one_key_are_one_memory(client: httpx.Client) -> None:
    """Two writes with the same key have the same id, which is the one in the lake."""
    one, two = (write(client, key="nightly", title="Nightly run") for _ in range(2))
    assert one["id"] == two["id"] == identity("ai_insight", own_source("nightly", LOCAL))


def test_pages_follow_each_other(client: httpx.Client) -> None:
    """Newest first, by opaque cursors that hold for their question only."""
    asked = {"type": "system_event", "service": "shop", "limit": "2"}
    titles, cursor = [], None
    for _ in range(3):
        more: dict[str, str] = {"cursor": cursor} if cursor else {}
        page = client.get("/api/v1/memories", params={**asked, **more})
        titles += [one["title"] for one in page.json()["items"]]
        first, cursor = cursor or page.json()["next"], page.json()["next"]
    assert titles == [f"Event {n}" for n in (4, 3, 2, 1, 0)]
    assert cursor is None
    problem(client.get("/api/v1/memories", params={"cursor": first}), 400)
    problem(client.get("/api/v1/memories", params={**asked, "cursor": "bm9uZQ"}), 400)
    problem(client.get("/api/v1/memories", params={**asked, "cursor": "\u00e9"}), 400)


def test_fields_are_chosen(client: httpx.Client) -> None:
    """`fields` has those and no others; an unknown one is a mistake."""
    page = client.get("/api/v1/memories", params={"fields": "id,title", "limit": "1"}).json()
    assert [set(one) for one in page["items"]] == [{"id", "title"}]
    problem(client.get("/api/v1/memories", params={"fields": "id,secret"}), 400)


@pytest.mark.parametrize(
    ("method", "path", "status", "more"),
    [
        ("GET", "/api/v1/nothing", 404, {}),
        ("GET", "/api/v1", 404, {}),
        ("GET", "/api/v1/memories/", 404, {}),
        ("GET", "/api/v1/memories/0123456789abcdef01234567", 404, {}),
        ("DELETE", "/api/v1/memories", 405, {}),
        ("POST", "/api/v1/status", 405, {}),
        ("GET", "/api/v1/memories?limt=3", 400, {}),
        ("GET", "/api/v1/status?x=1", 400, {}),
        ("GET", "/api/v1/memories?limit=0", 422, {}),
        ("GET", "/api/v1/memories?limit=many", 422, {}),
        ("GET", "/api/v1/search", 422, {}),
        ("POST", "/api/v1/memories", 422, {"json": {"title": ""}}),
        ("POST", "/api/v1/memories", 422, {"json": {"title": "x", "titel": "y"}}),
        ("POST", "/api/v1/memories", 422, {"json": []}),
        ("POST", "/api/v1/search", 400, {"json": {"query": "x", "since": "yesterdayish"}}),
        ("POST", "/api/v1/outcomes", 404, {"json": {"target_id": "none", "outcome": 1}}),
        ("POST", "/api/v1/known-errors", 422, {"json": {}}),
        ("POST", "/api/v1/memories", 400,
         {"content": b"{", "headers": {"content-type": "application/json"}}),
        ("POST", "/api/v1/memories", 415, {"content": b"{}"}),
        ("POST", "/api/v1/memories", 415,
         {"content": b'{"title": "x"}', "headers": {"content-type": "text/plain"}}),
        ("POST", "/api/v1/memories", 413,
         {"content": b" " * (MOST_BODY + 1), "headers": {"content-type": "application/json"}}),
    ],
)  # fmt: skip
def test_every_mistake_is_a_problem(
    client: httpx.Client, method: str, path: str, status: int, more: dict[str, Any]
) -> None:
    """Whatever is wrong is told as RFC 9457 has it."""
    answer = client.request(method, path, **more)
    told = problem(answer, status)
    assert told["instance"] == path.partition("?")[0]
    if status == 405:
        assert "OPTIONS" in answer.headers["allow"]
        assert method not in answer.headers["allow"]
    if status == 422:
        assert told.get("errors") or "known-errors" in path


def test_a_body_without_length_is_limited_too(client: httpx.Client) -> None:
    """Chunks are counted as they come."""

    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 100_000

    head = {"content-type": "application/json"}
    problem(client.post("/api/v1/memories", content=chunks(), headers=head), 413)


def test_head_and_options(client: httpx.Client) -> None:
    """HEAD is GET without its body; OPTIONS says what a path takes and allows no other origin."""
    answer = client.head("/api/v1/memories")
    assert answer.status_code == 200
    assert answer.content == b""
    assert int(answer.headers["content-length"]) > 100
    answer = client.options("/api/v1/memories")
    assert answer.status_code == 204
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert "access-control-allow-origin" not in answer.headers
    problem(client.options("/api/v1/nothing"), 404)


def test_etags(client: httpx.Client) -> None:
    """What is known is not sent again; an edit of what has changed meanwhile is refused."""
    made = write(client, title="First words")
    url = made["url"]
    tag = client.get(url).headers["etag"]
    again = client.get(url, headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")
    answer = client.patch(url, json={"title": "Second words"}, headers={"if-match": tag})
    assert answer.status_code == 200, answer.text
    assert answer.json()["memory"]["title"] == "Second words"
    assert client.get(url).headers["etag"] == answer.headers["etag"] != tag
    late = client.patch(url, json={"title": "Third words"}, headers={"if-match": tag})
    assert problem(late, 412)["type"].endswith("changed")
    assert client.get(url, headers={"if-none-match": tag}).status_code == 200


def test_of_edits_at_once_one_wins(client: httpx.Client, serving: Serving) -> None:
    """With `If-Match` no edit is lost: of eight that start from the same one, one is made."""
    url = write(client, title="Start")["url"]
    tag = client.get(url).headers["etag"]

    def edit(n: int) -> int:
        with serving.client() as own:
            head = {"if-match": tag}
            return own.patch(url, json={"title": f"Edit {n}"}, headers=head).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(edit, range(8))) == [200, *[412] * 7]


def test_changes_are_events_and_history_has_them(client: httpx.Client, serving: Serving) -> None:
    """Edited, pinned, hidden, shown, superseded: nothing is overwritten, and who did it is told."""
    old, new = write(client, title="Old way", tags=["t"]), write(client, title="New way")
    url = old["url"]
    edit = {"content": "better", "tags": ["x"], "meta_data": {"a": [1]}, "reason": "typo"}
    edited = client.patch(url, json=edit).json()["memory"]
    assert (edited["title"], edited["content"], edited["tags"]) == ("Old way", "better", ["x"])
    assert edited["meta_data"] == {"a": [1]}
    for action, expected in (("pin", True), ("unpin", False)):
        answer = client.post(f"{url}/{action}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["memory"]["pinned"] is expected
    assert client.post(f"{url}/hide", json={"reason": "wrong"}).status_code == 200
    listed = [one["id"] for one in client.get("/api/v1/memories?limit=200").json()["items"]]
    assert old["id"] not in listed
    assert new["id"] in listed
    client.post(f"{url}/show")
    problem(client.post(f"{url}/supersede"), 422)
    problem(client.post(f"{url}/supersede", json={"by": "none"}), 404)
    done = client.post(f"{url}/supersede", json={"by": new["id"]}).json()
    assert done["memory"]["superseded_by"] == new["id"]
    problem(client.post(f"{url}/forget"), 422)
    history = client.get(f"{url}/history").json()["items"]
    assert [one["why"].get("action") for one in history] == [
        None, "edit", "pin", "unpin", "hide", "show", "supersede",
    ]  # fmt: skip
    assert history[1]["why"]["reason"] == "typo"
    assert history[1]["why"]["actor"] == "local"
    assert history[0]["content"] != "better"
    stored = serving.rows(f"SELECT content FROM lake.memories WHERE id = '{old['id']}'")
    assert stored == [(history[0]["content"],)]


def test_an_outcome_becomes_part_of_its_decision(client: httpx.Client) -> None:
    """The decision keeps its title and its author, and has the outcome."""
    [decision] = client.get("/api/v1/memories?type=business_decision").json()["items"]
    answer = client.post(
        "/api/v1/outcomes",
        json={"target_id": decision["id"], "outcome": "kept", "success": True, "value": 2.5,
              "notes": "stayed", "wait": True},
    )  # fmt: skip
    assert answer.status_code == 201
    assert answer.json()["committed"] is True
    now = client.get(decision["url"]).json()
    assert (now["title"], now["outcome"], now["trust"]) == (decision["title"], "ok", "app")
    assert now["meta_data"]["outcome"] == "kept"
    assert now["meta_data"]["outcome_value"] == 2.5


def test_each_try_of_a_solution_is_a_memory_of_its_own(client: httpx.Client) -> None:
    """As by MCP; the solution stays as it is."""
    fix = write(
        client, title="Flush the cache of prices", memory_type="error_solution",
        meta_data={"error_type": "StalePriceError"},
    )  # fmt: skip
    tries = []
    for success in (True, False, True):
        body = {"target_id": fix["id"], "outcome": "tried", "success": success, "wait": True}
        answer = client.post("/api/v1/outcomes", json=body)
        assert answer.status_code == 201
        tries.append(client.get(answer.headers["location"]).json())
    assert len({one["id"] for one in tries} - {fix["id"]}) == 3
    assert [(one["memory_type"], one["outcome"]) for one in tries] == [
        ("error_resolution", "ok"), ("error_resolution", "error"), ("error_resolution", "ok"),
    ]  # fmt: skip
    assert {one["meta_data"]["solution"] for one in tries} == {fix["id"]}
    assert client.get(fix["url"]).json()["outcome"] is None


def test_sent_again_written_once(client: httpx.Client, serving: Serving) -> None:
    """The same key and body: the same answer, also at once; another body: refused."""
    body = {"title": "Once", "memory_type": "webhook_event"}
    head = {"idempotency-key": "order-17"}

    def send(_: int) -> httpx.Response:
        with serving.client() as own:
            return own.post("/api/v1/memories", json=body, headers=head)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    assert {one.status_code for one in answers} == {201}
    assert len({one.text for one in answers}) == 1
    other = client.post("/api/v1/memories", json={**body, "title": "Twice"}, headers=head)
    assert problem(other, 422)["type"].endswith("idempotency-key")
    problem(client.post("/api/v1/memories", json=body, headers={"idempotency-key": ""}), 400)
    position = client.post("/api/v1/memories", json={"title": "x", "wait": True}).json()["position"]
    assert position > answers[0].json()["position"]
    sql = "SELECT count(*) FROM lake.logs WHERE event_name = 'engram.webhook_event'"
    assert serving.rows(sql) == [(1,)]


def test_after_a_restart_it_is_still_one_memory(tmp_path: Path) -> None:
    """What nobody remembers to have answered has the same id: it is no second memory."""
    ids = []
    for _ in range(2):
        serving = Serving(tmp_path / "home")
        with serving.client(idempotency_key="k1") as client:
            answer = client.post("/api/v1/memories", json={"title": "Once", "wait": True})
            ids.append(answer.json()["id"])
            rows = serving.rows("SELECT id FROM lake.memories")
        serving.close()
    assert ids[0] == ids[1]
    assert rows == [(ids[0],)]


def test_answers_are_forgotten_and_failures_not_kept() -> None:
    """A day later a key is new; what failed may be tried again."""

    async def scenario() -> None:
        now, calls = [0.0], []
        kept = Remembered(clock=lambda: now[0])

        async def call() -> Answered:
            calls.append(1)
            if len(calls) == 1:
                raise Problem(503, "not now")
            return Answered(201, b"", {})

        with pytest.raises(Problem):
            await kept.once(LOCAL, "r", "k", b"a", call)
        await kept.once(LOCAL, "r", "k", b"a", call)
        await kept.once(LOCAL, "r", "k", b"a", call)
        assert len(calls) == 2
        with pytest.raises(Problem):
            await kept.once(LOCAL, "r", "k", b"b", call)
        now[0] = 90_000.0
        await kept.once(LOCAL, "r", "k", b"b", call)
        assert len(calls) == 3

    asyncio.run(scenario())


def test_search_filters_first(client: httpx.Client, serving: Serving) -> None:
    """By URL and by body alike: type, person and service hold for every hit, and why is told."""
    wanted = write(client, title="Gateway timeout during checkout", user_id="u9")
    write(client, title="Gateway timeout in the night", user_id="u8")
    indexer = Indexer(serving.home)
    try:
        while indexer.step():
            pass
    finally:
        indexer.close()
    found = client.get("/api/v1/search", params={"q": "gateway timeout", "user_id": "u9"}).json()
    assert [one["id"] for one in found["items"]] == [wanted["id"]]
    assert set(found) == {"items", "note", "explanation"}
    asked = {"query": "gateway timeout", "scope": {"user_id": "u9"}, "explain": True, "limit": 3}
    answer = client.post("/api/v1/search", json=asked).json()
    assert [one["id"] for one in answer["items"]] == [wanted["id"]]
    assert answer["items"][0]["why"]
    assert answer["explanation"]
    nothing = client.post("/api/v1/search", json={"query": "gateway", "scope": {"service": "no"}})
    assert nothing.json()["items"] == []


def test_recall_by_rest(client: httpx.Client) -> None:
    """Context windows, known errors, decisions, endpoints, reports: asked and answered."""
    window = client.post("/api/v1/context", json={"user_id": "u1", "window_size": 5}).json()
    assert {"text", "sections", "token_count"} <= set(window)
    text = client.post("/api/v1/context", json={"user_id": "u1", "format": "markdown"})
    assert text.headers["content-type"].startswith("text/markdown")
    messages = client.post("/api/v1/context", json={"user_id": "u1", "format": "messages"}).json()
    assert messages["messages"][0]["role"] == "user"
    known = client.post("/api/v1/known-errors", json={"text": "ValueError: never seen"}).json()
    assert known["match"] in ("none", "not_seen", None) or not known["patterns"]
    endpoint = client.get("/api/v1/endpoints", params={"operation": "GET /orders"}).json()
    assert endpoint["n"] == 0
    asked = {"sql": "SELECT count(*) AS n FROM memories WHERE type = 'business_decision'"}
    told = client.post("/api/v1/sql", json=asked).json()
    assert (told["columns"], told["rows"], told["truncated"]) == (["n"], [[1]], False)
    problem(client.post("/api/v1/sql", json={"sql": "SELECT * FROM read_text('/etc/passwd')"}), 400)
    problem(client.post("/api/v1/sql", json={"sql": "DELETE FROM memories"}), 400)
    assert client.get("/api/v1/reports/2026-11-01").json()["period"]["first"] == "2026-11-01"
    problem(client.get("/api/v1/reports/yesterday"), 422)
    context = client.get(client.get("/api/v1/memories").json()["items"][0]["url"] + "/context")
    assert context.status_code == 200


def test_the_document_is_openapi_3_1(client: httpx.Client) -> None:
    """It says version 3.1, every reference leads somewhere, every route has its problems."""
    document = client.get("/api/v1/openapi.json").json()
    assert document["openapi"].startswith("3.1.")
    OpenAPI.model_validate(document)
    for reference in references(document):
        place = document
        assert reference.startswith("#/")
        for step in reference[2:].split("/"):
            place = place[step]
    operations = [
        (path, told) for path, methods in document["paths"].items() for told in methods.values()
    ]
    assert len({told["operationId"] for _, told in operations}) == len(operations)
    for path, told in operations:
        parameters = {one["name"] for one in told.get("parameters", ()) if one["in"] == "path"}
        assert parameters == {part[1:-1] for part in path.split("/") if part.startswith("{")}
        for status, answer in told["responses"].items():
            assert answer["description"]
            if int(status) >= 400:
                assert list(answer["content"]) == ["application/problem+json"], (path, status)
        assert path == "/readyz" or told["security"], path
    assert "bearer" in json.dumps(document["components"]["securitySchemes"])


def references(value: Any) -> Iterator[str]:
    """Every `$ref` in a document."""
    if isinstance(value, dict):
        for key, one in value.items():
            if key == "$ref":
                yield one
            else:
                yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def test_the_old_page_and_reads_are_there(client: httpx.Client) -> None:
    """What the command line and a person use works as before, beside the new."""
    assert "Engram" in client.get("/").text
    assert client.get("/api/memories").json()["memories"]
    assert client.get("/api/status").json()["tables"]["memories"]
    assert client.get("/health").status_code == 200
    assert client.get("/livez").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    assert client.get("/api/v1/status").json()["collector"]["running"] is True


def test_nothing_is_ready_before_there_is_a_lake(tmp_path: Path) -> None:
    """Alive, not ready, and without a collector nothing can be written: come back later."""
    serving = Serving(tmp_path / "home", collects=False)
    try:
        with serving.client() as client:
            assert client.get("/livez").status_code == 200
            assert int(client.get("/readyz").headers["retry-after"]) > 0
            problem(client.get("/readyz"), 503)
            answer = client.post("/api/v1/memories", json={"title": "x"})
            assert problem(answer, 503)["type"].endswith("collector")
            assert int(answer.headers["retry-after"]) > 0
            assert client.get("/api/v1/status").json()["collector"]["running"] is False
    finally:
        serving.close()


def test_a_bug_inside_tells_nothing(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 with the kind of the error and not its text."""
    from engram.learning.recall import Recall

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(Recall, "recent", fail)
    with serving.client() as client:
        answer = client.get("/api/v1/memories")
    assert "secret" not in answer.text
    assert "RuntimeError" in problem(answer, 500)["detail"]


def test_too_many_at_once_are_told_to_come_back(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When threads are taken and others wait, the next one gets 503 at once."""
    from engram.collector.rest import backend
    from engram.learning.recall import Page, Recall

    go = threading.Event()

    def wait(*_: Any, **__: Any) -> Page:
        go.wait(30)
        return Page(())

    monkeypatch.setattr(Recall, "recent", wait)
    monkeypatch.setattr(backend, "_WAITING", 4)

    def ask(_: int) -> int:
        with serving.client() as client:
            return client.get("/api/v1/memories").status_code

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(ask, n) for n in range(4)]
        deadline = time.monotonic() + 30
        shared = serving.application._door._app.state.backend
        while shared._under_way < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        with serving.client() as client:
            answer = client.get("/api/v1/status")
        problem(answer, 503)
        assert int(answer.headers["retry-after"]) >= 1
        go.set()
        assert [one.result() for one in waiting] == [200] * 4


def test_an_answer_that_takes_too_long_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 after the time limit; the thread goes on and counts until it is done."""
    from engram.collector.rest import door
    from engram.learning.recall import Page, Recall

    go = threading.Event()

    def wait(*_: Any, **__: Any) -> Page:
        go.wait(30)
        return Page(())

    monkeypatch.setattr(Recall, "recent", wait)
    monkeypatch.setattr(door, "_TIMEOUT_S", 0.3)
    serving = Serving(tmp_path / "home", collects=False)
    serving.application._door._timeout_s = 0.3
    try:
        with serving.client() as client:
            client.get("/api/v1/openapi.json")  # loads the application
            answer = client.get("/api/v1/memories")
        assert problem(answer, 503)["type"].endswith("timeout")
    finally:
        go.set()
        serving.close()


def test_own_requests_are_no_telemetry(serving: Serving, client: httpx.Client) -> None:
    """FastAPI tells nobody of our requests, also where a tracer is installed."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    client.get("/api/v1/status")
    app = serving.application._door._app
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app._telemetry["tracer_provider"] = provider
    client.get("/api/v1/status")
    assert exporter.get_finished_spans() == ()
