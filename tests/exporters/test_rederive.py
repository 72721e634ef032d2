"""Memories rebuilt from the lake: what ingest would have made of the same telemetry."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from tests.exporters.test_engine import commit, query, running, send
from tests.telemetry import batches, request, shop_traces

from engram.exporters.engine import Engine
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_read_only, attach_sql, connect
from engram.exporters.memories import INGEST_COLUMNS
from engram.exporters.rederive import Outcome, Selection, rederive
from engram.exporters.rules import Rules
from engram.exporters.signals import Signal

OTHER: list[dict[str, Any]] = [
    {"name": "api_call", "enabled": False},
    {
        "name": "order_log", "type": "order_accepted", "signal": "log",
        "when": {"value": "body_text", "matches": "^order \\d+ accepted$"},
        "title": ["Accepted: {body_text}"], "key": [["span_id", "content_hash"]],
        "scope": ["trace_id"],
    },
    {
        "name": "request_outcome", "type": "request_outcome", "signal": "span",
        "when": {"value": "kind", "is": 2}, "title": ["{operation} gave {result}"],
        "scope": ["trace_id"], "key": ["span_id"], "index_as": "template",
    },
]  # fmt: skip
"""Rules that remove a type, add one, and say another otherwise."""


def telemetry(count: int = 9, size: int = 4) -> list[tuple[Signal, bytes]]:
    """The shop's requests, a few records each."""
    spans, logs, metrics = shop_traces(count)
    return [
        (signal, request(signal, batch))
        for signal, records in (
            (Signal.LOGS, logs), (Signal.TRACES, spans), (Signal.METRICS, metrics),
        )
        for batch in batches(records, size)
    ]  # fmt: skip


def fill(root: Path, *requests: tuple[Signal, bytes], **settings: Any) -> None:
    """Ingest, each request in a commit of its own."""
    with running(root, **settings) as engine:
        for one in requests:
            send(engine, one)
            commit(engine)


def rebuild(root: Path, rules: list[dict[str, Any]], **selection: Any) -> Outcome:
    """Rebuild a home that nobody else writes to."""
    with running(root, rules=rules) as engine:
        commit(engine)
        return of_running(engine, rules, **selection)


def of_running(engine: Engine, rules: list[dict[str, Any]], **selection: Any) -> Outcome:
    """Rebuild the home of an engine."""
    made = Rules.load(rules)
    return rederive(
        engine.home,
        made,
        lambda changes: engine.replace(changes, made.version),
        Selection(**selection),
    )


def memories(root: Path) -> dict[str, dict[str, Any]]:
    """Each memory without its ingest columns; an id has one row."""
    with contextlib.closing(attach_read_only(Home(root))) as db:
        rows = db.execute("SELECT * FROM memories").to_arrow_table().to_pylist()
    found = {row["id"]: {k: v for k, v in row.items() if k not in INGEST_COLUMNS} for row in rows}
    assert len(found) == len(rows)
    return found


def whole(root: Path) -> list[tuple[Any, ...]]:
    """The memories table with all its columns."""
    return query(root, "SELECT * FROM memories ORDER BY id")


@pytest.mark.parametrize("rules", [OTHER, [], [OTHER[0]], [OTHER[1]]])
def test_rebuilt_is_ingested(tmp_path: Path, rules: list[dict[str, Any]]) -> None:
    """After new rules and `rederive`, memories are those of an ingest with the new rules."""
    fill(tmp_path / "truth", *telemetry(), rules=rules)
    fill(tmp_path / "home", *telemetry(), rules=OTHER if not rules else [])
    outcome = rebuild(tmp_path / "home", rules)
    assert memories(tmp_path / "home") == memories(tmp_path / "truth")
    assert outcome.count("added") + outcome.count("removed") + outcome.count("changed") > 0
    assert outcome.count("kept") == 0
    again = rebuild(tmp_path / "home", rules)
    assert set().union(*again.counts.values()) == {"same"}
    assert not Home(tmp_path / "home").rederive.exists()


def test_unchanged_rules_change_nothing(tmp_path: Path) -> None:
    """The same rules write nothing; a rule more, that matches nothing, writes only versions."""
    fill(tmp_path / "home", *telemetry())
    before = whole(tmp_path / "home")
    rebuild(tmp_path / "home", [])
    assert whole(tmp_path / "home") == before
    commits = query(tmp_path / "home", "SELECT count(*) FROM commits")
    rules = [{**OTHER[1], "when": {"value": "body_text", "is": "never said"}}]
    outcome = rebuild(tmp_path / "home", rules)
    after = whole(tmp_path / "home")
    version = len(before[0]) - 4
    assert {row[version] for row in after} == {Rules.load(rules).version}
    assert [row[:version] + row[version + 1 :] for row in after] == [
        row[:version] + row[version + 1 :] for row in before
    ]
    assert outcome.count("restamped") == len(before)
    assert query(tmp_path / "home", "SELECT count(*) FROM commits") > commits
    assert query(tmp_path / "home", "SELECT * FROM withdrawn") == []


def test_dry_run_counts_and_stores_nothing(tmp_path: Path) -> None:
    """Without a writer it says what would be done; doing it does that."""
    root = tmp_path / "home"
    fill(root, *telemetry())
    before = whole(root)
    planned = rederive(Home(root), Rules.load(OTHER), None)
    assert whole(root) == before
    assert planned.counts["api_call"]["removed"] == 9
    assert planned.counts["order_accepted"]["added"] == 9
    assert planned.counts["request_outcome"]["changed"] == 9
    assert rebuild(root, OTHER).counts == planned.counts


def test_memories_without_telemetry_are_kept(tmp_path: Path) -> None:
    """Memories whose records have expired stay, those of which some have stay as they are."""
    root = tmp_path / "home"
    spans, logs, _ = shop_traces(4)
    fill(root, *[(Signal.TRACES, request(Signal.TRACES, batch)) for batch in batches(spans, 3)])
    with running(root) as engine:  # an event tells more of what the spans told
        send(engine, (Signal.LOGS, request(Signal.LOGS, logs)))
        commit(engine)
    whole_before = {row[0]: row for row in whole(root)}
    with contextlib.closing(_writable(root)) as db:  # as retention, but only of the records
        db.execute("DELETE FROM spans WHERE trace_id < (SELECT max(trace_id) FROM spans)")
    outcome = rebuild(root, OTHER)
    after = {row[0]: row for row in whole(root)}
    types = {row[0]: row[1] for row in whole_before.values()}
    gone = [id_ for id_ in whole_before if id_ not in after]
    assert [types[id_] for id_ in gone] == ["api_call"]
    kept = outcome.count("kept")
    assert kept == sum(1 for id_, row in after.items() if row == whole_before.get(id_))
    assert outcome.counts["api_call"]["kept"] == 3
    assert outcome.counts["ai_response"]["kept"] == 3  # the event is there, the span is not
    assert outcome.counts["order_accepted"]["added"] == 4


def _writable(root: Path) -> Any:
    db = connect()
    db.execute(attach_sql(Home(root), read_only=False))
    db.execute("USE lake")
    return db


def test_since_and_type(tmp_path: Path) -> None:
    """Only memories of late records, or of a type, are rebuilt; each of all its records."""
    root = tmp_path / "home"
    first, second = telemetry(6)[:8], telemetry(6)[8:]
    fill(root, *first)
    ((since,),) = query(root, "SELECT max(recorded_at) + 1 FROM commits")
    fill(root, *second)
    version = Rules.load(OTHER).version
    rebuild(root, OTHER, types=("request_outcome",))
    renewed = query(root, f"SELECT DISTINCT type FROM memories WHERE rules_version = '{version}'")
    assert renewed == [("request_outcome",)]
    outcome = rebuild(root, OTHER, since_ns=since)
    truth = tmp_path / "truth"
    fill(truth, *first, *second, rules=OTHER)
    expected = memories(truth)
    late = {
        hash_
        for table in ("spans", "logs")
        for (hash_,) in query(
            root, f"SELECT content_hash FROM {table} WHERE recorded_at >= {since}"
        )
    }
    found = memories(root)
    touched = {id_ for id_, row in expected.items() if late & set(row["sources"])}
    assert {id_: found[id_] for id_ in touched} == {id_: expected[id_] for id_ in touched}
    assert any(not late >= set(found[id_]["sources"]) for id_ in touched)
    old = {id_ for id_, row in found.items() if row["rules_version"] != version}
    assert old
    assert not any(late & set(found[id_]["sources"]) for id_ in old)
    assert outcome.count("kept") == 0


def test_retention_follows_the_telemetry(tmp_path: Path) -> None:
    """A rebuilt memory expires with its records, not so long after the rebuilding."""
    root = tmp_path / "home"
    fill(root, *telemetry(3))
    rebuild(root, OTHER)
    newest = (
        "SELECT count(*) FROM memories m WHERE recorded_at IS DISTINCT FROM (SELECT max(r) FROM "
        "(SELECT content_hash, recorded_at AS r FROM spans UNION ALL "
        "SELECT content_hash, recorded_at FROM logs) WHERE list_contains(m.sources, content_hash))"
    )
    assert query(root, newest) == [(0,)]
