"""Engram about itself: what roles tell, that it is kept apart, and what the job makes of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from tests.learning.home import Collecting
from tests.telemetry import T0

from engram.collector import query
from engram.collector.itself import collect_teller
from engram.exporters import own
from engram.exporters.home import Home
from engram.exporters.itself.notes import Notes, Taken
from engram.exporters.itself.shape import shape
from engram.exporters.itself.told import about_itself, request
from engram.exporters.signals import Encoding, Signal


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[Collecting]:
    """A home that was never used."""
    made = Collecting(Home(tmp_path / "home"))
    yield made
    made.close()


def log(text: str, at: int = T0) -> LogRecord:
    """A user's log record."""
    made = LogRecord(time_unix_nano=at, severity_number=9)  # type: ignore[arg-type]
    made.body.string_value = text
    return made


# -- what is told ----------------------------------------------------------------------------------


def test_the_shape_of_a_statement_has_no_value_of_it() -> None:
    """Strings of every kind, numbers, quoted names and comments; also what is not closed."""
    secrets = (
        "SELECT * FROM memories WHERE user_id = 'secret' AND n > 4711",
        "SELECT E'sec\\'secret' , $$secret$$, $a$ secret $$ $a$ -- secret",
        'SELECT 1 AS "secret" /* secret */ FROM t WHERE x = $secret',
        "SELECT 'secret",
        "SELECT 'it''s secret' /* secret",
        "SELECT x'secret', N'secret', .4711e5 FROM t WHERE a ILIKE '%secret%'",
        "SELECT * FROM t WHERE n = 'ünï' OR ünïsecret = 3".replace("ünïsecret", "'secret'"),
    )
    for one in secrets:
        assert "secret" not in shape(one), one
        assert "4711" not in shape(one), one
        assert shape(one).startswith("SELECT")
    assert shape("select a from t where b in (1, 2,  3)") == shape("select a from t where b in (7)")


def test_only_a_slow_statement_is_noted_by_its_shape() -> None:
    """And only while somebody collects notes."""
    notes = Notes()
    notes.statement("SELECT 1", 5_000)
    assert not notes.take().values
    notes.on = True
    notes.statement("SELECT 1", 3)
    notes.statement("SELECT 'me' FROM t", 2_000)
    taken = notes.take()
    assert taken.values["sql.n"] == 2
    assert taken.slow == {"SELECT ? FROM t": [2_000]}
    assert not notes.take().values


def test_collect_tells_what_it_did_and_not_that_it_told(collecting: Collecting) -> None:
    """One record for all commits since; its own commit is none of them, so there is no loop."""
    teller = collect_teller(collecting.engine)
    collecting.engine.notes.on = True
    assert not teller.tell()  # idle
    collecting.send(log("one"))
    collecting.send(log("two"))
    before = collecting.engine.end
    assert teller.tell()
    deadline = time.monotonic() + 20
    while collecting.engine.end == before and time.monotonic() < deadline:
        time.sleep(0.02)
    collecting.commit()
    assert not teller.tell()
    rows = collecting.rows(
        "SELECT event_name, attributes, service_name FROM lake.logs WHERE scope_name = ?",
        [own.ITSELF],
    )
    assert len(rows) == 1
    told = json.loads(rows[0][1])
    assert told["commit.n"] == 2
    assert told["commit.rows"] == 2
    assert told["ack.n"] == 2
    assert told["role"] == "collect"
    assert told["compact_interval"] == 30


def test_it_is_kept_apart(collecting: Collecting) -> None:
    """No memory is made of it, no count has it, and a request of it is known as such."""
    collecting.send(log("one"))
    before = collecting.engine.status()
    with query.reader(collecting.home) as connection:
        counts = query.counts(connection)
    body = request("serve", T0, Taken(60.0, {"search.n": 3}, {"SELECT ?": [1200.0]}))
    collecting.engine.admit(Signal.LOGS, body, Encoding.IDENTITY, trusted=True, itself=True).result(
        20
    )
    collecting.commit()
    assert collecting.rows("SELECT count(*) FROM lake.logs") == [(3,)]
    after = collecting.engine.status()
    for name in ("requests", "records", "memories", "commits", "duplicates"):
        assert after[name] == before[name], name
    with query.reader(collecting.home) as connection:
        assert query.counts(connection) == counts
    assert about_itself(Signal.LOGS, body)
