"""Tokens, scopes, who may ask from where, and the audit log."""

from __future__ import annotations

import base64
import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from tests.collector.recording import RecordingIntake
from tests.collector.resting import Serving
from tests.telemetry import T0, attributes

from engram.collector.access import AuditLog, Scope, Tokens, Vault, audit, own
from engram.collector.access.audit import entries, verify
from engram.collector.access.exposure import check_api, check_exposure
from engram.collector.access.own import OwnersPass
from engram.collector.access.tokens import lifetime
from engram.collector.config import parse
from engram.collector.receivers import (
    OtlpGrpcConfig,
    OtlpGrpcReceiver,
    OtlpHttpConfig,
    OtlpHttpReceiver,
)
from engram.collector.registry import Browser
from engram.exporters.errors import BadRequest, ConfigError, NotFound, StoreError
from engram.exporters.home import Home
from engram.exporters.redact import Redactor

EVIL = "https://evil.example"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home without anything."""
    return Home(tmp_path / "home")


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A home with memories of two services."""
    made = Serving(tmp_path_factory.mktemp("access") / "home")
    made.remember(
        *(
            {"type": "system_event", "key": f"e{n}", "title": f"Event {n}", "at": T0 + n,
             "service": service}
            for n, service in enumerate(("shop", "shop", "web"))
        )
    )  # fmt: skip
    yield made
    made.close()


@pytest.fixture
def vault(serving: Serving) -> Iterator[Vault]:
    """Its tokens, none of which outlives the test."""
    made = Vault(serving.home)
    yield made
    for one in made.listed():
        made.revoke(one["id"])


def make(vault: Vault, *scopes: Scope, **more: Any) -> str:
    """A token."""
    return vault.create(frozenset(scopes), **more)[0]


# -- tokens ----------------------------------------------------------------------------------------


def test_a_token_is_kept_as_a_hash(home: Home) -> None:
    """It is told once; the files are the owner's and hold nothing that opens anything."""
    secret, made = Vault(home).create(frozenset({Scope.READ, Scope.WRITE}), name="bot")
    assert secret.startswith("engram_")
    assert len(base64.urlsafe_b64decode(secret.removeprefix("engram_") + "=")) == 32
    folder = home.root / "access"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert secret.removeprefix("engram_") not in path.read_text()
    tokens = Tokens(home)
    found = tokens.find(secret)
    assert found is not None
    assert (found.id, found.name) == (made.id, "bot")
    for wrong in (secret[:-1], secret + "x", secret.removeprefix("engram_"), "", "engram_"):
        assert tokens.find(wrong) is None
    assert secret not in Redactor().text(f"curl -H 'authorization: {secret}'; echo {secret}")


def test_a_list_tells_what_is_known(home: Home) -> None:
    """Name, scopes, when it was made and used and ends; never the hash."""
    now = [1_000_000.0]
    vault = Vault(home, clock=lambda: now[0])
    secret, _ = vault.create(frozenset({Scope.ADMIN}), name="me", expires_s=lifetime("1h"))
    tokens = Tokens(home, clock=lambda: now[0])
    assert vault.listed()[0]["last_used"] is None
    now[0] += 5
    assert tokens.find(secret)
    [told] = vault.listed()
    assert told["last_used"] == now[0]
    assert told["expires"] - told["created"] == 3600
    assert (told["name"], told["scopes"], told["expired"]) == ("me", ["admin"], False)
    assert "hash" not in told
    now[0] += 3600
    assert tokens.find(secret) is None
    assert not tokens.any(Scope)
    assert vault.listed()[0]["expired"]
    vault.create(frozenset({Scope.READ}), name="me")  # the name of what is over is free
    with pytest.raises(BadRequest, match="already"):
        vault.create(frozenset({Scope.READ}), name="me")


def test_what_makes_no_token(home: Home) -> None:
    """Names that mislead, unknown scopes and durations, a service for an admin."""
    vault = Vault(home)
    for bad in ("local", "a b", "x" * 65):
        with pytest.raises(BadRequest):
            vault.create(frozenset({Scope.READ}), name=bad)
    for scope in (Scope.ADMIN, Scope.INGEST):
        with pytest.raises(BadRequest, match="--service"):
            vault.create(frozenset({scope}), service="shop")
    for text in ("0d", "3", "d", "1y", "-1h"):
        with pytest.raises(BadRequest):
            lifetime(text)
    with pytest.raises(NotFound):
        vault.revoke("nobody")


def test_a_broken_file_lets_nobody_in(home: Home) -> None:
    """Not even as on loopback without tokens."""
    secret = make(Vault(home), Scope.READ)
    (home.root / "access" / "tokens.json").write_text("{")
    for _ in range(2):
        with pytest.raises(StoreError):
            Tokens(home).find(secret)
        with pytest.raises(StoreError):
            Tokens(home).any(Scope)


# -- who may ask -----------------------------------------------------------------------------------


def test_no_token_is_asked_for_until_there_is_one(serving: Serving, vault: Vault) -> None:
    """Then by every route but those that tell nothing; a wrong one is never taken for none."""
    paths = ("/", "/api/memories", "/api/status", "/api/v1/memories", "/api/v1/status")
    with serving.client() as client:
        assert [client.get(path).status_code for path in paths] == [200] * 5
        wrong = client.get("/api/v1/memories", headers={"authorization": "Bearer engram_x"})
        assert wrong.status_code == 401
        make(vault, Scope.INGEST)  # nobody could come here with it
        assert client.get("/api/v1/memories").status_code == 200
        secret = make(vault, Scope.READ)
        for path in paths:
            answer = client.get(path)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"].startswith("Bearer")
        assert client.get("/livez").status_code == client.get("/health").status_code == 200
    with serving.client(secret) as client:
        assert [client.get(path).status_code for path in paths] == [200] * 5
        basic = base64.b64encode(f"me:{secret}".encode()).decode()
        head = {"authorization": f"Basic {basic}"}
        assert client.get("/", headers=head).status_code == 200
        answer = client.post("/api/v1/memories", json={"title": "x"}, headers=head)
        assert answer.status_code == 401  # a browser would send it with a strange form


def test_revoking_works_with_the_next_request(serving: Serving, vault: Vault) -> None:
    """In a process that runs, and on a connection that is open."""
    make(vault, Scope.READ, name="stays")
    secret = make(vault, Scope.READ, name="goes")
    with serving.client(secret) as client:
        assert client.get("/api/v1/memories").status_code == 200
        vault.revoke("goes")
        answer = client.get("/api/v1/memories")
    assert answer.status_code == 401
    assert "invalid_token" in answer.headers["www-authenticate"]
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_scope_that_is_missing_is_named(serving: Serving, vault: Vault) -> None:
    """Reading is not writing, sending is neither."""
    reader, writer, sender = (
        make(vault, one) for one in (Scope.READ, Scope.WRITE, Scope.INGEST)
    )  # fmt: skip
    body = {"title": "x"}
    for secret, method, path, missing in (
        (reader, "POST", "/api/v1/memories", "write"),
        (writer, "GET", "/api/v1/memories", "read"),
        (writer, "GET", "/", "read"),
        (sender, "GET", "/api/memories", "read"),
        (sender, "POST", "/api/v1/sql", "read"),
    ):
        with serving.client(secret) as client:
            answer = client.request(method, path, json=body if method == "POST" else None)
            assert answer.status_code == 403, (path, answer.text)
            assert missing in answer.text
            assert f'scope="{missing}"' in answer.headers["www-authenticate"]


def test_trust_is_the_tokens(serving: Serving, vault: Vault) -> None:
    """An admin writes as an operator, everybody else as an agent, whatever the body says."""
    for scopes, trust in (([Scope.ADMIN], "operator"), ([Scope.WRITE, Scope.READ], "agent")):
        with serving.client(make(vault, *scopes)) as client:
            answer = client.post(
                "/api/v1/memories",
                json={"title": "T", "wait": True, "meta_data": {"engram.trust": "engram"}},
            )
            assert answer.status_code == 201, answer.text
            assert client.get(answer.json()["url"]).json()["trust"] == trust
            id_ = answer.json()["id"]
            assert serving.rows(f"SELECT trust FROM lake.memories WHERE id = '{id_}'") == [(trust,)]


def test_a_token_of_a_service_sees_no_other(serving: Serving, vault: Vault) -> None:
    """Lists are narrowed, other memories are not there, SQL and counts are refused."""
    with serving.client() as client:
        everything = client.get("/api/v1/memories?type=system_event").json()["items"]
    [web] = [one for one in everything if one["service"] == "web"]
    secret = make(vault, Scope.READ, Scope.WRITE, service="shop")
    with serving.client(secret) as client:
        found = client.get("/api/v1/memories?type=system_event").json()["items"]
        assert {one["service"] for one in found} == {"shop"}
        assert len(found) == 2
        assert client.get("/api/v1/memories?service=web").status_code == 403
        for method, path in (
            ("GET", ""), ("GET", "/history"), ("PATCH", ""), ("POST", "/hide"),
        ):  # fmt: skip
            body = {"title": "x"} if method == "PATCH" else {}
            url = f"/api/v1/memories/{web['id']}{path}"
            answer = client.request(method, url, json=None if method == "GET" else body)
            assert answer.status_code == 404, (method, path)
        assert client.post("/api/v1/sql", json={"sql": "SELECT 1"}).status_code == 403
        assert client.get("/api/v1/status").status_code == 403
        made = client.post("/api/v1/memories", json={"title": "x", "service": "web"})
        assert made.status_code == 403
        made = client.post("/api/v1/memories", json={"title": "x", "wait": True})
        assert made.json()["service"] == "shop"
        for path in ("/", "/api/memories", "/api/status"):
            assert client.get(path).status_code == 403, path


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"origin": "http://{host}", "sec-fetch-site": "same-origin"}, 201),
        ({"sec-fetch-site": "none"}, 201),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:1"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"origin": "http://evil.example", "content-type": "text/plain"}, 403),
    ],
)
def test_strange_pages_cannot_write(serving: Serving, headers: dict[str, str], status: int) -> None:
    """A page of another origin, a rebound name, and what a form can send are all refused."""
    host = f"127.0.0.1:{serving.port}"
    given = {name: value.replace("{host}", host) for name, value in headers.items()}
    head = {"content-type": "application/json", **given}
    with serving.client() as client:
        answer = client.post("/api/v1/memories", content=b'{"title": "x"}', headers=head)
    assert answer.status_code == status, answer.text
    assert "access-control-allow-origin" not in answer.headers


def test_a_link_may_open_the_page(serving: Serving) -> None:
    """A person who follows a link gets the page; a script of that site gets nothing."""
    head = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    with serving.client() as client:
        assert client.get("/", headers=head).status_code == 200
        assert client.get("/", headers={**head, "sec-fetch-mode": "no-cors"}).status_code == 403
        answer = client.get("/api/memories", headers={"origin": "http://evil.example"})
        assert answer.status_code == 403


def test_the_owner_needs_no_token(serving: Serving, vault: Vault) -> None:
    """The command line of who can read the home's folder asks as without tokens, and is noted."""
    make(vault, Scope.READ)
    with serving.guard.own.left():
        path = serving.home.root / "access/owner.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        secret = str(own.found(serving.home))
        with serving.client(secret) as client:
            assert client.get("/api/v1/memories").status_code == 200
            assert client.get("/api/v1/memories", headers={"origin": EVIL}).status_code == 403
        assert list(entries(serving.home))[-1]["who"] == "local"
        with serving.client(f"{secret}x") as client:
            assert client.get("/api/v1/memories").status_code == 401
        for address, seen in (("127.0.0.1", True), ("::ffff:127.0.0.1", True), ("10.0.0.2", False)):
            assert serving.guard.own.shown(secret, {"client": (address, 1)}) is seen
    assert own.found(serving.home) is None
    with serving.client(secret) as client:
        assert client.get("/api/v1/memories").status_code == 401


def test_a_pass_that_a_crash_left_is_good_for_nothing(home: Home) -> None:
    """The next process has another, and what a third one left is not taken away."""
    first, second = OwnersPass(home), OwnersPass(home)
    scope = {"client": ("127.0.0.1", 1)}
    with first.left():
        old = str(own.found(home))
        with second.left():
            new = str(own.found(home))
            assert not second.shown(old, scope)
            assert second.shown(new, scope)
            path = home.root / "access/owner.json"
            path.write_text(json.dumps({"pid": 1, "secret": new}))
        assert own.found(home) == new
    assert not first.shown(old, scope)
    assert not first.shown("", scope)
    (home.root / "access/owner.json").write_text("[]")
    assert own.found(home) is None


def test_who_asks_too_often_waits(tmp_path: Path) -> None:
    """429 with the time to come back, for this client only."""
    serving = Serving(tmp_path / "home", collects=False, rate_per_minute=3)
    try:
        with serving.client() as client:
            answers = [client.get("/api/v1/nothing") for _ in range(4)]
        assert [one.status_code for one in answers] == [404, 404, 404, 429]
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert answers[-1].headers["content-type"] == "application/problem+json"
        secret = make(Vault(serving.home), Scope.READ)
        with serving.client(secret) as client:
            assert client.get("/api/v1/nothing").status_code == 404
    finally:
        serving.close()


def test_where_others_can_reach_it_a_token_is_needed(tmp_path: Path) -> None:
    """Also on the address of this machine, and for the page; the name must be known."""
    home = Home(tmp_path / "home")
    secret = make(Vault(home), Scope.READ)
    serving = Serving(home.root, collects=False, exposed=True, hosts=["engram.example"])
    try:
        with serving.client() as client:
            assert client.get("/api/v1/status").status_code == 401
            assert client.get("/").status_code == 401
            assert client.get("/livez").status_code == 200
        with serving.client(secret) as client:
            for host, status in (("engram.example", 200), ("10.1.2.3:4319", 200), ("evil", 403)):
                assert client.get("/api/v1/status", headers={"host": host}).status_code == status
        Vault(home).revoke(Vault(home).listed()[0]["id"])
        with serving.client() as client:  # the last one gone: shut, not open
            assert client.get("/api/v1/status").status_code == 401
    finally:
        serving.close()


@pytest.mark.parametrize("role", ["collect", "learn", "serve"])
def test_no_role_loads_fastapi_at_its_start(role: str) -> None:
    """The first request to `/api/v1` does, and only in serve."""
    code = (
        f"import sys, engram.collector.roles.{role}; "
        "print([name for name in ('fastapi', 'pydantic', 'lancedb') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


# -- ports that others can reach -------------------------------------------------------------------

OPEN = """
receivers: {otlp: {protocols: {grpc: {endpoint: "0.0.0.0:0"}, http: {endpoint: "0.0.0.0:0"}}}}
exporters: {memory: }
extensions: {api: {endpoint: "0.0.0.0:0"}}
service:
  extensions: [api]
  pipelines:
    traces: {receivers: [otlp], exporters: [memory]}
    logs: {receivers: [otlp], exporters: [memory]}
    metrics: {receivers: [otlp], exporters: [memory]}
"""


def test_without_tokens_no_port_is_opened(home: Home, tmp_path: Path) -> None:
    """Each such port is named, with what to type; a token for it opens it and no other."""
    config = parse(OPEN, Path("x.yaml"), {})
    with pytest.raises(ConfigError) as refused:
        check_exposure(home, config)
    assert [one.partition(":")[0] for one in refused.value.problems] == [
        "receivers.otlp.protocols.grpc.endpoint", "receivers.otlp.protocols.http.endpoint",
        "extensions.api.endpoint",
    ]  # fmt: skip
    assert "engram token create --scope read" in refused.value.problems[-1]
    with pytest.raises(ConfigError):
        check_api(home, "0.0.0.0:4319")
    check_api(home, "127.0.0.1:4319")
    make(Vault(home), Scope.READ)
    with pytest.raises(ConfigError) as refused:
        check_exposure(home, config)
    assert len(refused.value.problems) == 2
    make(Vault(home), Scope.INGEST)
    check_exposure(home, config)

    file = tmp_path / "open.yaml"
    file.write_text(OPEN)
    for role in ("collect", "serve"):  # the real commands, on a home of their own
        done = engram("--home", str(tmp_path / "other"), "--config", str(file), role)
        assert done.returncode == 2, done.stderr
        assert "reachable from other machines" in done.stderr


def engram(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a process."""
    return subprocess.run(
        [sys.executable, "-m", "engram.collector.cli", *arguments],
        capture_output=True, text=True, timeout=90,
    )  # fmt: skip


def logs() -> bytes:
    """A request with one record."""
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add(event_name="x")
    record.attributes.extend(attributes({"a": 1}))
    return request.SerializeToString()


def test_otlp_over_http_asks_for_a_token(home: Home) -> None:
    """Where others can reach it: 401 without, 403 with the wrong scope, and pages need a key."""
    vault, intake = Vault(home), RecordingIntake()
    closed = OtlpHttpConfig(endpoint="0.0.0.0:0", tokens=Tokens(home), browser=Browser())
    with pytest.raises(ConfigError):
        OtlpHttpReceiver(closed, intake).start()
    sender, reader, page = (
        make(vault, one) for one in (Scope.INGEST, Scope.READ, Scope.BROWSER)
    )  # fmt: skip
    receiver = OtlpHttpReceiver(closed, intake)
    receiver.start()
    url = f"http://127.0.0.1:{receiver.port}"
    kind = {"content-type": "application/x-protobuf"}

    def send(path: str = "/v1/logs", **headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = httpx.post(f"{url}{path}", content=logs(), headers={**kind, **named})
        if answer.status_code == 401 and "engram-key" not in named and "origin" not in named:
            assert answer.headers["www-authenticate"].startswith("Bearer")
        return answer.status_code

    try:
        assert send() == 401
        assert send(authorization=f"Bearer {sender}") == 200
        assert send(authorization=f"Bearer {reader}") == 403
        assert send(authorization="Bearer engram_wrong") == 401
        assert send(authorization=f"Basic {sender}") == 401
        assert send(origin="http://localhost:1") == 401
        assert send(origin="http://localhost:1", engram_key=page) == 200
        assert send(engram_key=page) == 200
        assert send(engram_key=sender) == 401
        assert send("/v1/metrics", engram_key=page) == 403
        assert len(intake.requests) == 3
        vault.revoke(Tokens(home).find(page).name)  # type: ignore[union-attr]
        assert send(engram_key=page) == 401
        assert httpx.get(f"{url}/health").status_code == 200
    finally:
        receiver.shutdown(1)


def test_on_loopback_telemetry_needs_none(home: Home) -> None:
    """Tokens for elsewhere change nothing for the programs of this machine, pages aside."""
    page = make(Vault(home), Scope.BROWSER, name="pages")
    make(Vault(home), Scope.INGEST)
    config = OtlpHttpConfig(endpoint="127.0.0.1:0", tokens=Tokens(home), browser=Browser())
    receiver = OtlpHttpReceiver(config, RecordingIntake())
    receiver.start()
    url = f"http://127.0.0.1:{receiver.port}/v1/logs"
    kind = {"content-type": "application/x-protobuf"}
    try:
        assert httpx.post(url, content=logs(), headers=kind).status_code == 200
        strange = {**kind, "authorization": "Bearer of-another-vendor"}
        assert httpx.post(url, content=logs(), headers=strange).status_code == 200
        origin = {**kind, "origin": "http://localhost:3000"}
        assert httpx.post(url, content=logs(), headers=origin).status_code == 401
        with_key = {**origin, "engram-key": page}
        assert httpx.post(url, content=logs(), headers=with_key).status_code == 200
    finally:
        receiver.shutdown(1)


def test_otlp_over_grpc_asks_for_a_token(home: Home) -> None:
    """As over HTTP, with the statuses of gRPC."""
    intake = RecordingIntake()
    config = OtlpGrpcConfig(endpoint="0.0.0.0:0", tokens=Tokens(home))
    with pytest.raises(ConfigError):
        OtlpGrpcReceiver(config, intake).start()
    sender, reader = (make(Vault(home), one) for one in (Scope.ADMIN, Scope.READ))
    receiver = OtlpGrpcReceiver(config, intake)
    receiver.start()
    method = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
    try:
        with grpc.insecure_channel(f"127.0.0.1:{receiver.port}") as channel:
            export = channel.unary_unary(method)
            export(logs(), metadata=[("authorization", f"Bearer {sender}")], timeout=20)
            for metadata, code in (
                ([], grpc.StatusCode.UNAUTHENTICATED),
                ([("authorization", "Bearer engram_x")], grpc.StatusCode.UNAUTHENTICATED),
                ([("authorization", f"Bearer {reader}")], grpc.StatusCode.PERMISSION_DENIED),
                ([("engram-key", "pk")], grpc.StatusCode.PERMISSION_DENIED),
            ):
                with pytest.raises(grpc.RpcError) as refused:
                    export(logs(), metadata=metadata, timeout=20)
                assert refused.value.code() is code
        assert len(intake.requests) == 1
    finally:
        receiver.shutdown(1)


def test_a_browser_key_is_no_sender_over_grpc() -> None:
    """Also on loopback, where senders need no token: a key's records have trust `browser`."""
    intake = RecordingIntake()
    receiver = OtlpGrpcReceiver(OtlpGrpcConfig(endpoint="127.0.0.1:0"), intake)
    receiver.start()
    method = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
    try:
        with grpc.insecure_channel(f"127.0.0.1:{receiver.port}") as channel:
            export = channel.unary_unary(method)
            with pytest.raises(grpc.RpcError) as refused:
                export(logs(), metadata=[("engram-key", "pk")], timeout=20)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
            export(logs(), timeout=20)
        assert len(intake.requests) == 1
    finally:
        receiver.shutdown(1)


# -- the audit log ---------------------------------------------------------------------------------


def test_reads_and_writes_are_noted(serving: Serving, vault: Vault) -> None:
    """Who, what, whose memories and which; by REST and by the page."""
    before = sum(1 for _ in entries(serving.home))
    secret = make(vault, Scope.READ, Scope.WRITE, name="bot")
    with serving.client(secret) as client:
        found = client.get("/api/v1/memories?user_id=u1&limit=2").json()["items"]
        made = client.post("/api/v1/memories", json={"title": "x", "wait": True}).json()
        client.post(f"/api/v1/memories/{made['id']}/pin")
        client.get("/api/v1/memories/none")
        shown = client.get("/api/memories?limit=2").json()["memories"]
    told = list(entries(serving.home))[before:]
    assert [one["what"] for one in told] == [
        "memories", "remember", "pin memory", "GET /api/memories",
    ]  # fmt: skip
    assert {one["who"] for one in told} == {"bot"}
    assert told[0]["scope"] == {"user_id": "u1"}
    assert told[0]["ids"] == [one["id"] for one in found]
    assert told[1]["ids"] == [made["id"]]
    assert told[3]["count"] == len(shown) == 2
    assert verify(serving.home).problems == ()
    path = serving.home.root / "access" / "audit.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


NOTES = """
import sys
from pathlib import Path
from engram.collector.access.audit import AuditLog
from engram.exporters.home import Home
log = AuditLog(Home(Path(sys.argv[1])), rotate=20_000)
for n in range(150):
    log.note(sys.argv[2], f"search {n}", via="mcp", ids=[f"m{n}"])
"""


def test_several_processes_make_one_chain(home: Home) -> None:
    """Across rotation too: no line is lost, each follows the one before."""
    processes = [
        subprocess.Popen([sys.executable, "-c", NOTES, str(home.root), f"p{n}"]) for n in range(3)
    ]
    assert [one.wait(60) for one in processes] == [0, 0, 0]
    verdict = verify(home)
    assert verdict.problems == ()
    told = [one for one in entries(home) if one["what"] != "continued"]
    assert [one["n"] for one in entries(home)] == list(range(1, verdict.lines + 1))
    assert len(told) == 450
    assert len(list((home.root / "access").glob("audit-*.jsonl"))) > 1


@pytest.mark.parametrize("harm", ["change", "remove", "put in", "reorder", "junk"])
def test_a_broken_chain_is_seen(home: Home, harm: str) -> None:
    """Whatever is done to a line that has others behind it."""
    for n in range(6):
        audit(home, "bot", f"search {n}", scope={"user_id": "u1"})
    path = home.root / "access" / "audit.jsonl"
    lines = path.read_text().splitlines()
    assert verify(home).problems == ()
    match harm:
        case "change":
            lines[2] = lines[2].replace("u1", "u2")
        case "remove":
            del lines[2]
        case "put in":
            lines.insert(2, lines[4])
        case "reorder":
            lines[2], lines[3] = lines[3], lines[2]
        case "junk":
            lines[2] = "{"
    path.write_text("\n".join(lines) + "\n")
    assert verify(home).problems


def test_a_log_goes_on_after_a_torn_line(home: Home) -> None:
    """A power cut in the middle of a line: it is told as bad, and the next lines are good."""
    log = AuditLog(home)
    log.note("a", "one", via="rest")
    log.close()
    with log.path.open("a") as out:
        out.write('{"n": 2, "who')
    log.note("a", "two", via="rest")
    log.note("a", "three", via="rest")
    assert [one.get("what", "bad") for one in entries(home)] == ["one", "bad", "two", "three"]
    assert len(verify(home).problems) == 1


def test_a_log_that_cannot_be_written_stops_nobody(home: Home) -> None:
    """It is said in the process's log, once."""
    home.root.mkdir(parents=True)
    (home.root / "access").write_text("a file")
    AuditLog(home).note("a", "one", via="rest")
    audit(home, "a", "one")


# -- the command line ------------------------------------------------------------------------------


def test_the_commands(tmp_path: Path) -> None:
    """Making one says the token on stdout and nothing else; list, revoke and audit-log."""
    at = ("--home", str(tmp_path / "home"))
    asked = ("--scope", "read,write", "--name", "bot", "--expires", "30d")
    made = engram(*at, "token", "create", *asked)
    secret = made.stdout.strip()
    home = Home(tmp_path / "home")
    assert Tokens(home).find(secret)
    [told] = json.loads(engram(*at, "--json", "token", "list").stdout)
    assert (told["name"], told["scopes"]) == ("bot", ["read", "write"])
    table = engram(*at, "token", "list").stdout
    assert "bot" in table
    assert secret not in table
    assert engram(*at, "token", "create", "--scope", "reed").returncode == 2
    assert engram(*at, "token", "create").returncode == 2
    assert engram(*at, "token", "revoke", "bot").returncode == 0
    assert engram(*at, "token", "revoke", "bot").returncode == 3
    audit(home, "bot", "search", scope={"user_id": "u1"}, ids=["m1"])
    assert "user_id=u1" in engram(*at, "audit-log", "--who", "bot").stdout
    assert engram(*at, "audit-log", "--memory", "m2").stdout == ""
    assert engram(*at, "audit-log", "--verify").returncode == 0
    path = home.root / "access" / "audit.jsonl"
    path.write_text(path.read_text().replace("u1", "u2"))
    assert engram(*at, "audit-log", "--verify").returncode == 1
