"""Trust comes from the way in, never from what a request says of itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from tests.learning.home import Collecting
from tests.telemetry import T0, attributes

from engram.exporters.ask import ask
from engram.exporters.home import Home
from engram.exporters.merge import merge
from engram.exporters.signals import Encoding, Signal
from engram.exporters.trust import without_claims


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[Collecting]:
    """A home that was never used."""
    made = Collecting(Home(tmp_path / "home"))
    yield made
    made.close()


def said(name: str, trust: str | None, key: str | None = None) -> bytes:
    """One event of a service that says how far it is to be trusted."""
    request = ExportLogsServiceRequest()
    batch = request.resource_logs.add()
    batch.resource.attributes.extend(attributes({"service.name": name}))
    if trust is not None:
        batch.resource.attributes.extend(attributes({"engram.trust": trust}))
    record = batch.scope_logs.add().log_records.add(
        event_name="engram.error_solution", time_unix_nano=T0
    )
    record.attributes.extend(attributes({"engram.id": key or name, "engram.title": name}))
    return request.SerializeToString()


def test_text_that_is_no_utf8_is_taken_with_a_claim_in_it() -> None:
    """As without one: a sender is not refused for it."""
    raw = said("liar", "operator").replace(b"engram.error_solution", b"engram.error_solut\xff\xfen")
    assert b"operator" in raw
    assert b"operator" not in without_claims(Signal.LOGS, raw)


def test_a_claim_over_the_network_does_not_count(collecting: Collecting) -> None:
    """Less may be said of oneself, more may not; the owner of the home may."""
    for name, trust in (
        ("plain", None), ("liar", "engram"), ("boss", "operator"), ("page", "browser"),
        ("nobody", "unknown"), ("odd", "king"),
    ):  # fmt: skip
        collecting.admit(Signal.LOGS, said(name, trust))
    ask(collecting.home, "append", signal="logs", body=said("handed", "engram"))
    ask(collecting.home, "append", signal="logs", body=said("ours", "engram"), trusted=True)
    ask(collecting.home, "append", signal="logs", body=said("token", "agent"), trusted=True)
    collecting.commit()
    rows = dict(
        collecting.rows("SELECT service_name, trust FROM lake.memories WHERE type <> 'ui_error'")
    )
    assert {name: rows[name] for name in rows if name != "page"} == {
        "plain": "app", "liar": "app", "boss": "app", "nobody": "unknown", "odd": "app",
        "handed": "app", "ours": "engram", "token": "agent",
    }  # fmt: skip
    assert rows.get("page") in (None, "browser")


def test_a_compressed_claim_is_taken_out_too(collecting: Collecting) -> None:
    """And what has no claim stays the bytes that were sent."""
    import gzip

    body = gzip.compress(said("liar", "engram"))
    collecting.engine.admit(Signal.LOGS, body, Encoding.GZIP).result(20)
    collecting.commit()
    assert collecting.rows("SELECT trust FROM lake.memories") == [("app",)]
    honest = said("plain", None)
    assert without_claims(Signal.LOGS, honest) is honest


def test_of_several_the_least_trusted_counts() -> None:
    """Whoever adds to our word makes it theirs; in every order."""
    rows = [
        {"id": "a", "type": "t", "trust": trust, "ranks": rank * 18}
        for trust, rank in (("engram", "9"), ("app", "1"), ("agent", "5"))
    ]
    for order in itertools.permutations(rows):
        assert merge(list(order))["trust"] == "app"
        first = merge(list(order[:2]))
        assert merge([first, order[2]])["trust"] == "app"
