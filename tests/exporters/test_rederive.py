"""Memories rebuilt from the lake: what ingest would have made of the same telemetry."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.durability.verify import catalogue_problems
from tests.exporters.test_engine import commit, query, running, send
from tests.telemetry import batches, request, shop_traces

from engram.exporters.engine import Engine
from engram.exporters.errors import BadRequest, HomeBusy
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_read_only, attach_sql, connect
from engram.exporters.memories import INGEST_COLUMNS
from engram.exporters.rederive import Outcome, Selection, rederive
from engram.exporters.rules import Rules
from engram.exporters.signals import Signal

_REPOSITORY = Path(__file__).parents[2]

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


def telemetry(count: int = 9, size: int = 8) -> list[tuple[Signal, bytes]]:
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


@pytest.fixture(scope="module")
def built_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that was filled under the built-in rules."""
    root = tmp_path_factory.mktemp("built-in") / "home"
    fill(root, *telemetry())
    return root


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same telemetry under the other rules."""
    root = tmp_path_factory.mktemp("other") / "home"
    fill(root, *telemetry(), rules=OTHER)
    return root


@pytest.fixture
def root(tmp_path: Path, built_in: Path) -> Path:
    """A copy of the first."""
    return Path(shutil.copytree(built_in, tmp_path / "home"))


@pytest.mark.parametrize("back", [False, True])
def test_rebuilt_is_ingested(tmp_path: Path, built_in: Path, other: Path, back: bool) -> None:
    """After new rules and `rederive`, memories are those of an ingest with the new rules."""
    before, truth, rules = (other, built_in, []) if back else (built_in, other, OTHER)
    shutil.copytree(before, tmp_path / "home")
    outcome = rebuild(tmp_path / "home", rules)
    assert memories(tmp_path / "home") == memories(truth)
    assert outcome.count("added") + outcome.count("removed") + outcome.count("changed") > 0
    assert outcome.count("kept") == 0
    again = rebuild(tmp_path / "home", rules)
    assert set().union(*again.counts.values()) == {"same"}
    assert not Home(tmp_path / "home").rederive.exists()


def test_unchanged_rules_change_nothing(root: Path) -> None:
    """The same rules write nothing; a rule more, that matches nothing, writes only versions."""
    before = whole(root)
    rebuild(root, [])
    assert whole(root) == before
    commits = query(root, "SELECT count(*) FROM commits")
    rules = [{**OTHER[1], "when": {"value": "body_text", "is": "never said"}}]
    outcome = rebuild(root, rules)
    after = whole(root)
    version = len(before[0]) - 4
    assert {row[version] for row in after} == {Rules.load(rules).version}
    assert [row[:version] + row[version + 1 :] for row in after] == [
        row[:version] + row[version + 1 :] for row in before
    ]
    assert outcome.count("restamped") == len(before)
    assert query(root, "SELECT count(*) FROM commits") > commits
    assert query(root, "SELECT * FROM withdrawn") == []


def test_dry_run_counts_and_stores_nothing(root: Path) -> None:
    """Without a writer it says what would be done; doing it does that."""
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
    first, second = telemetry(6, 4)[:8], telemetry(6, 4)[8:]
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
        for table in ("spans", "logs", "metrics")
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


def test_retention_follows_the_telemetry(root: Path) -> None:
    """A rebuilt memory expires with its records, not so long after the rebuilding."""
    rebuild(root, OTHER)
    newest = (
        "SELECT count(*) FROM memories m WHERE recorded_at IS DISTINCT FROM (SELECT max(r) FROM "
        "(SELECT content_hash, recorded_at AS r FROM spans UNION ALL "
        "SELECT content_hash, recorded_at FROM logs UNION ALL "
        "SELECT content_hash, recorded_at FROM metrics) "
        "WHERE list_contains(m.sources, content_hash))"
    )
    assert query(root, newest) == [(0,)]


_KILLED = """
import os, signal, sys
from pathlib import Path
from engram.exporters import rederive
from engram.exporters.lake.writer import LakeWriter
from tests.exporters.test_rederive import OTHER, rebuild

rederive._SLICE = 7
left, where = int(sys.argv[2]), sys.argv[3]

def die(self, *args):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return known(self, *args)

known = getattr(LakeWriter, where)
replace = LakeWriter.replace

def armed(self, changes):
    if where == "replace":
        return die(self, changes)
    setattr(LakeWriter, where, die)
    try:
        return replace(self, changes)
    finally:
        setattr(LakeWriter, where, known)

LakeWriter.replace = armed
known = replace if where == "replace" else known
rebuild(Path(sys.argv[1]), OTHER)
"""


@pytest.mark.parametrize(
    ("slices", "where"),
    [(0, "replace"), (3, "replace"), (2, "_sync_everything_new"), (5, "_write")],
)
def test_kill_9_in_the_middle(root: Path, other: Path, slices: int, where: str) -> None:
    """Killed before, between and inside slices: all is whole, and again makes the rest."""
    old, new = memories(root), memories(other)
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(root), str(slices), where],
        cwd=_REPOSITORY, timeout=120,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    between = memories(root)
    assert all(row in (old.get(id_), new.get(id_)) for id_, row in between.items())
    assert (between == old) == (slices == 0)
    assert between != new
    assert Home(root).rederive.exists()
    rebuild(root, OTHER)
    assert memories(root) == new
    assert catalogue_problems(Home(root)) == []
    assert not Home(root).rederive.exists()


def test_ingest_goes_on(tmp_path: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that arrive between the slices, of the same memories, are in the result."""
    monkeypatch.setattr("engram.exporters.rederive._SLICE", 7)
    root = tmp_path / "home"
    requests = telemetry()
    first, later = requests[::2], requests[1::2]
    fill(root, *first)
    made = Rules.load(OTHER)
    stale = 0
    with running(root, rules=OTHER) as engine:
        engine.wait_ready(20)

        def apply(changes: pl.DataFrame) -> list[str]:
            nonlocal stale
            for _ in range(2):
                if later:
                    send(engine, later.pop())
            commit(engine)
            left = engine.replace(changes, made.version)
            stale += len(left)
            return left

        outcome = rederive(engine.home, made, apply)
        for one in later:
            send(engine, one)
        commit(engine)
    assert memories(root) == memories(other)
    assert stale > 0
    assert outcome.unsettled == 0


def test_what_left_meanwhile_stays_away(tmp_path: Path) -> None:
    """Memories that expire while they are compared are not brought back."""
    root = tmp_path / "home"
    fill(root, *telemetry(3, 100))
    made = Rules.load(OTHER)
    with running(root, rules=OTHER) as engine:
        commit(engine)
        expired = False

        def apply(changes: pl.DataFrame) -> list[str]:
            nonlocal expired
            if not expired:
                engine.expire(time.time_ns())
                expired = True
            return engine.replace(changes.filter(pl.col("seen").list.len() > 0), made.version)

        rederive(engine.home, made, apply)
    assert memories(root) == {}


def test_one_at_a_time(tmp_path: Path) -> None:
    """A second rebuilding of a home is refused while the first one runs; other rules are, too."""
    root = tmp_path / "home"
    fill(root, *telemetry(1, 100))
    rules = Rules.load(OTHER)
    with running(root, rules=OTHER) as engine:
        engine.wait_ready(20)

        def apply(changes: pl.DataFrame) -> list[str]:
            with pytest.raises(HomeBusy, match="being rebuilt"):
                rederive(engine.home, rules, None)
            with pytest.raises(BadRequest, match="restart it"):
                engine.replace(changes, "0123456789ab")
            return engine.replace(changes, rules.version)

        assert rederive(engine.home, rules, apply).unsettled == 0


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_change_of_rules(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """From any rules to any rules, in any commits: rebuilt is ingested, all columns of a row."""
    folder = tmp_path_factory.mktemp("any")
    some = st.lists(st.sampled_from(range(len(OTHER))), unique=True).map(
        lambda picked: [OTHER[at] for at in sorted(picked)]
    )
    before, after = data.draw(some), data.draw(some)
    requests = telemetry(4, data.draw(st.sampled_from([2, 7, 100])))
    data.draw(st.randoms(use_true_random=False)).shuffle(requests)
    cut = data.draw(st.integers(0, len(requests)))
    for root, first in ((folder / "home", before), (folder / "truth", after)):
        with running(root, rules=first) as engine:
            for at, one in enumerate(requests):
                send(engine, one)
                if at == cut:
                    commit(engine)
            commit(engine)
    rebuild(folder / "home", after)
    assert memories(folder / "home") == memories(folder / "truth")
