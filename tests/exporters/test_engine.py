"""The engine: what is acknowledged is stored once, whatever happens in between."""

from __future__ import annotations

import contextlib
import errno
import gzip
import logging
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.durability import load
from tests.durability.verify import catalogue_problems, stored

from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.errors import BadRequest, HomeBusy, Overloaded, StoreError, TooLarge
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_read_only
from engram.exporters.lake.writer import Committed, LakeWriter
from engram.exporters.otlp.decode import Decoder
from engram.exporters.signals import Encoding, Signal

_QUICK: dict[str, Any] = {
    "commit_interval_s": 0.05, "compact_interval_s": 1e9, "limit_memory_bytes": 1 << 40,
}  # fmt: skip
Request = tuple[Signal, bytes]


@contextlib.contextmanager
def running(root: Path, **settings: Any) -> Iterator[Engine]:
    """An engine of a home of its own."""
    engine = Engine(Home(root), EngineSettings(**{**_QUICK, **settings}))
    engine.start()
    try:
        yield engine
    finally:
        engine.shutdown(20)


def send(engine: Engine, *requests: Request) -> int:
    """Admit, wait for the acknowledgements, and say behind which position all of it is."""
    waiting = [engine.admit(signal, body, Encoding.IDENTITY) for signal, body in requests]
    return max(future.result(10).position for future in waiting)


def commit(engine: Engine) -> None:
    """Wait until all is queryable."""
    engine.wait_committed(engine.end, 20)


def query(root: Path, sql: str) -> list[tuple[Any, ...]]:
    """As any reader asks."""
    with contextlib.closing(attach_read_only(Home(root))) as db:
        return db.execute(sql).fetchall()


def story(seed: int) -> list[Request]:
    """Requests of all signals; LLM calls by event and by span."""
    requests: list[Request] = []
    for i in range(12):
        requests += [
            (Signal.TRACES, load.spans(f"a{i}", f"b{i}")),
            (Signal.LOGS, load.logs(f"l{i}")),
            (Signal.METRICS, load.metrics(f"m{i}")),
            (Signal.LOGS, load.llm_event(f"c{i}")),
            (Signal.TRACES, load.llm_span(f"c{i}")),
        ]
    random.Random(seed).shuffle(requests)
    return requests


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_resent_in_any_order_is_stored_once(tmp_path: Path, seed: int) -> None:
    """Sent twice, in other orders and other commits, records and memories are those of one pass."""
    with running(tmp_path / "once") as engine:
        send(engine, *story(0))
        commit(engine)
    chance = random.Random(seed)
    with running(tmp_path / "twice") as engine:
        for request in (*story(seed), *story(seed + 10)):
            send(engine, request)
            if chance.random() < 0.1:
                commit(engine)
        commit(engine)
        assert engine.counters.duplicates == 72
    with running(tmp_path / "twice") as engine:  # and by the sets rebuilt from the lake
        send(engine, *story(seed + 20))
        commit(engine)
        assert engine.counters.duplicates == 72
    once, twice = stored(Home(tmp_path / "once")), stored(Home(tmp_path / "twice"))
    assert twice.records == once.records
    assert set(once.records.values()) == {1}
    assert twice.memories == once.memories
    assert any(len(memory["sources"]) == 2 for memory in once.memories.values())
    assert twice.doubled == []


def test_requests_that_cannot_be_stored_are_refused(tmp_path: Path) -> None:
    """No OTLP, too large, too large inflated: refused before anything is written."""
    with running(tmp_path / "home", max_request_bytes=2000) as engine:
        with pytest.raises(BadRequest):
            engine.admit(Signal.TRACES, b"\xff\xff", Encoding.IDENTITY)
        with pytest.raises(TooLarge):
            engine.admit(Signal.TRACES, bytes(2001), Encoding.IDENTITY)
        with pytest.raises(TooLarge):
            engine.admit(Signal.TRACES, gzip.compress(bytes(1 << 20)), Encoding.GZIP)
        assert engine.end == 0
        assert engine.admit(Signal.TRACES, b"", Encoding.IDENTITY).result(1).position == 0


def test_gzip_is_the_same_as_plain(tmp_path: Path) -> None:
    """A request is the same record compressed or not."""
    with running(tmp_path / "home") as engine:
        body = load.spans("x")
        engine.admit(Signal.TRACES, gzip.compress(body), Encoding.GZIP).result(10)
        send(engine, (Signal.TRACES, body))
        commit(engine)
    assert query(tmp_path / "home", "SELECT count(*) FROM spans") == [(1,)]


def test_a_request_that_breaks_the_decoder_is_kept_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is quarantined as sent and said aloud; its neighbours are stored, also the next time."""
    add = Decoder.add

    def fragile(self: Decoder, signal: Signal, body: bytes) -> int:
        if b"bad" in body:
            raise RuntimeError("cannot")
        return add(self, signal, body)

    monkeypatch.setattr(Decoder, "add", fragile)
    home = Home(tmp_path / "home")
    with running(home.root) as engine:
        send(engine, *((Signal.TRACES, load.spans(name)) for name in ("a", "bad", "b")))
        commit(engine)
        assert engine.counters.quarantined == 1
        kept = [path for path in home.quarantine.iterdir() if path.suffix != ".json"]
        assert [path.read_bytes() for path in kept] == [load.spans("bad")]
        assert "RuntimeError: cannot" in caplog.text
    assert set(stored(home).records) == {("spans", "a"), ("spans", "b")}


def test_a_request_that_makes_no_columns_is_kept_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch around it is stored request by request; the engine neither stops nor loops."""
    add, finish, clear = Decoder.add, Decoder.finish, Decoder.clear
    inside: set[str] = set()

    def noting(self: Decoder, signal: Signal, body: bytes) -> int:
        inside.update({"bad"} if b"bad" in body else ())
        return add(self, signal, body)

    def fragile(self: Decoder, keep: Any = None) -> Any:
        if inside:
            raise RuntimeError("no column for that")
        return finish(self, keep)

    def clearing(self: Decoder) -> None:
        inside.clear()
        clear(self)

    for name, function in (("add", noting), ("finish", fragile), ("clear", clearing)):
        monkeypatch.setattr(Decoder, name, function)
    home = Home(tmp_path / "home")
    with running(home.root) as engine:
        send(engine, *((Signal.TRACES, load.spans(name)) for name in ("a", "bad", "b")))
        commit(engine)
        assert engine.counters.quarantined == 1
        assert engine.failure is None
    assert set(stored(home).records) == {("spans", "a"), ("spans", "b")}


def test_a_quarantined_request_of_a_batch_that_is_taken_apart_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that no decoder takes is met again with its batch, and still counts as one."""
    add, finish = Decoder.add, Decoder.finish
    failures = [RuntimeError("the batch makes no columns")]

    def fragile_add(self: Decoder, signal: Signal, body: bytes) -> int:
        if b"bad" in body:
            raise RuntimeError("cannot")
        return add(self, signal, body)

    def fragile_finish(self: Decoder, keep: Any = None) -> Any:
        if failures and len(self) == 2:
            raise failures.pop()
        return finish(self, keep)

    monkeypatch.setattr(Decoder, "add", fragile_add)
    monkeypatch.setattr(Decoder, "finish", fragile_finish)
    home = Home(tmp_path / "home")
    with running(home.root, commit_interval_s=0.5) as engine:
        send(engine, *((Signal.TRACES, load.spans(name)) for name in ("a", "bad", "b")))
        commit(engine)
        assert not failures, "the batch was not taken apart"
        assert engine.counters.quarantined == 1
        assert engine.status()["quarantined"] == 1
    assert caplog.text.count("is kept in") == 1
    assert set(stored(home).records) == {("spans", "a"), ("spans", "b")}


def test_a_batch_that_fails_late_is_not_taken_for_a_resend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails once behind the decoder comes again as new, and is stored."""
    memories, failed = Engine._memories, [False]

    def once(self: Engine, records: Any, rules: Any) -> Any:
        if not failed[0] and len(records):
            failed[0] = True
            raise RuntimeError("cannot fold")
        return memories(self, records, rules)

    monkeypatch.setattr(Engine, "_memories", once)
    home = Home(tmp_path / "home")
    with running(home.root) as engine:
        send(engine, (Signal.TRACES, load.spans("a")))
        commit(engine)
        assert engine.counters.duplicates == 0
    assert set(stored(home).records) == {("spans", "a")}


def test_a_failing_commit_is_tried_until_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Three failures before, inside and after the transaction: nothing lost, nothing doubled."""
    commit_, keep = LakeWriter.commit, LakeWriter._keep_shared
    sync = LakeWriter._sync_everything_new
    failures: list[str] = []

    def fail(where: str) -> None:
        if running_ and where not in failures:
            failures.append(where)
            raise OSError(28, f"No space left on device ({where})")

    def before(self: LakeWriter, batch: Any) -> Committed:
        fail("before")
        return commit_(self, batch)

    def inside(self: LakeWriter) -> None:
        sync(self)
        fail("inside")

    def after(self: LakeWriter) -> None:
        keep(self)
        fail("after")

    running_ = False
    monkeypatch.setattr(LakeWriter, "commit", before)
    monkeypatch.setattr(LakeWriter, "_sync_everything_new", inside)
    monkeypatch.setattr(LakeWriter, "_keep_shared", after)
    home = Home(tmp_path / "home")
    with running(home.root) as engine:
        send(engine, (Signal.LOGS, load.llm_event("c")))
        commit(engine)
        running_ = True
        send(engine, (Signal.TRACES, load.spans("a", "b")), (Signal.TRACES, load.llm_span("c")))
        commit(engine)
        send(engine, (Signal.TRACES, load.spans("c")))
        commit(engine)
        assert failures == ["before", "inside", "after"]
        assert engine.counters.commit_failures == 3
    assert "tried again" in caplog.text
    found = stored(home)
    assert found.records == {
        ("spans", "a"): 1, ("spans", "b"): 1, ("spans", "c"): 2, ("logs", "event-c"): 1,
    }  # fmt: skip
    assert found.doubled == []


def test_a_commit_that_failed_after_it_took_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When COMMIT raises and yet was durable, the next try finds it and does not store it again."""
    home = Home(tmp_path / "home")
    failed: list[str] = []

    class Doubtful:
        def __init__(self, real: Any) -> None:
            self._real = real

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def execute(self, sql: str, *more: Any) -> Any:
            result = self._real.execute(sql, *more)
            if sql == "COMMIT" and not failed:
                failed.append(sql)
                raise duckdb.IOException("the catalogue's disk hung")
            return result

    with running(home.root) as engine:
        commit(engine)
        assert engine._ready.wait(10)
        engine._in_committer(
            lambda lake: setattr(lake, "_connection", Doubtful(lake._connection)),
            time.monotonic() + 10,
        )
        send(engine, (Signal.LOGS, load.llm_event("c")), (Signal.TRACES, load.spans("a")))
        commit(engine)
        assert failed == ["COMMIT"]
        send(engine, (Signal.TRACES, load.llm_span("c")))
        commit(engine)
    found = stored(home)
    assert set(found.records.values()) == {1}
    assert len(found.records) == 3
    assert found.doubled == []
    assert any(len(memory["sources"]) == 2 for memory in found.memories.values())


def test_a_stop_during_failing_commits_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches behind one that could not be committed are not committed past it."""
    commit_ = LakeWriter.commit
    tries: list[int] = []

    def first_fails(self: LakeWriter, batch: Any) -> Committed:
        tries.append(batch.position)
        if batch.position == tries[0]:
            raise OSError(28, "No space left on device")
        return commit_(self, batch)

    home = Home(tmp_path / "home")
    with monkeypatch.context() as patch:
        patch.setattr(LakeWriter, "commit", first_fails)
        engine = Engine(home, EngineSettings(**_QUICK))
        engine.start()
        send(engine, (Signal.TRACES, load.spans("first")))
        deadline = time.monotonic() + 10
        while not tries and time.monotonic() < deadline:
            time.sleep(0.01)
        send(engine, (Signal.TRACES, load.spans("second")))
        time.sleep(0.5)  # the pipeline has the second batch waiting by now
        engine.shutdown(1.0)
    assert set(tries) == {tries[0]}
    with running(home.root) as engine:
        commit(engine)
    assert stored(home).records == {("spans", "first"): 1, ("spans", "second"): 1}


def test_a_writer_reads_its_own_write(tmp_path: Path) -> None:
    """Behind `wait_committed` of an acknowledged position the record is in SQL, and it is quick."""
    with running(tmp_path / "home", commit_interval_s=30.0) as engine:
        commit(engine)
        for i in range(3):
            position = send(engine, (Signal.TRACES, load.spans(f"s{i}")))
            started = time.monotonic()
            engine.wait_committed(position, 20)
            assert time.monotonic() - started < 5
            assert query(tmp_path / "home", "SELECT count(*) FROM spans") == [(i + 1,)]


def test_waiting_ends(tmp_path: Path) -> None:
    """A position that never comes is a timeout; an engine that stopped says so."""
    with running(tmp_path / "home") as engine:
        with pytest.raises(TimeoutError, match="not yet through"):
            engine.wait_committed(engine.end + 1, 0.3)
        engine._guard(lambda: (_ for _ in ()).throw(RuntimeError("broke")))
        with pytest.raises(StoreError, match="broke"):
            engine.wait_committed(engine.end + 1, 5)
        with pytest.raises(Overloaded, match="broke"):
            engine.admit(Signal.TRACES, load.spans("x"), Encoding.IDENTITY)
        with pytest.raises(StoreError, match="stopped"):
            engine.compact(5)


def test_one_flush_does_not_make_all_commits_small(tmp_path: Path) -> None:
    """Under steady load a waiter gets its commit, and the rhythm is the interval's again."""
    with running(tmp_path / "home", commit_interval_s=0.5) as engine:
        commit(engine)
        stop = threading.Event()

        def steady() -> None:
            for i in range(100_000):
                if stop.wait(0.02):
                    return
                send(engine, (Signal.TRACES, load.spans(f"s{i}")))

        thread = threading.Thread(target=steady)
        thread.start()
        time.sleep(0.3)
        commit(engine)
        before = engine.counters.commits
        time.sleep(2.5)
        made = engine.counters.commits - before
        stop.set()
        thread.join()
    assert 2 <= made <= 7


def test_one_writer_of_a_home(tmp_path: Path) -> None:
    """A second engine is told who has the home; after a stop it may have it."""
    with running(tmp_path / "home"):
        second = Engine(Home(tmp_path / "home"))
        with pytest.raises(HomeBusy, match=f"pid {os.getpid()}"):
            second.start()
        second.shutdown()
    with running(tmp_path / "home"):
        pass


def test_shutdown_is_safe(tmp_path: Path) -> None:
    """Twice, without start, and with what was admitted just before committed."""
    Engine(Home(tmp_path / "none")).shutdown()
    home = Home(tmp_path / "home")
    with running(home.root, commit_interval_s=60.0) as engine:
        commit(engine)
        assert engine._ready.wait(10)
        send(engine, (Signal.TRACES, load.spans("x")))
        engine.shutdown(10)
        engine.shutdown(10)
        with pytest.raises(Overloaded, match="shutting down"):
            engine.admit(Signal.TRACES, load.spans("y"), Encoding.IDENTITY)
        assert stored(home).records == {("spans", "x"): 1}


def test_a_shutdown_that_ran_out_of_time_keeps_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a commit still runs nobody else may write, however often shutdown is called."""
    commit_, gate, inside = LakeWriter.commit, threading.Event(), threading.Event()

    def slow(self: LakeWriter, batch: Any) -> Committed:
        inside.set()
        gate.wait(20)
        return commit_(self, batch)

    monkeypatch.setattr(LakeWriter, "commit", slow)
    with running(tmp_path / "home") as engine:
        send(engine, (Signal.TRACES, load.spans("x")))
        assert inside.wait(20)
        for _ in range(2):
            engine.shutdown(0.2)
            with pytest.raises(HomeBusy):
                Engine(Home(tmp_path / "home")).start()
        gate.set()
    assert stored(Home(tmp_path / "home")).records == {("spans", "x"): 1}


def test_memory_limit(tmp_path: Path) -> None:
    """Above the limit requests are refused, retryably, and counted."""
    with running(tmp_path / "home", limit_memory_bytes=1) as engine:
        deadline = time.monotonic() + 10
        while not engine._resident and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(Overloaded, match="memory limit"):
            engine.admit(Signal.TRACES, load.spans("x"), Encoding.IDENTITY)
        assert engine.counters.refused == 1


def test_a_sender_that_hung_up_disturbs_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A cancelled answer is not an error, and the request is stored."""
    with running(tmp_path / "home") as engine:
        with engine._wal._io:  # the log cannot write meanwhile
            answer = engine.admit(Signal.TRACES, load.spans("x"), Encoding.IDENTITY)
            assert answer.cancel()
        send(engine, (Signal.TRACES, load.spans("y")))
        commit(engine)
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
    assert stored(Home(tmp_path / "home")).records == {("spans", "x"): 1, ("spans", "y"): 1}


def test_a_full_disk_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While there is no room senders are told to come again; then all goes on by itself."""
    with running(tmp_path / "home") as engine:
        with monkeypatch.context() as patch:

            def full(*_: object) -> int:
                raise OSError(errno.ENOSPC, "No space left on device")

            patch.setattr("engram.exporters.wal.os.writev", full)
            for _ in range(2):
                with pytest.raises(Overloaded, match="No space"):
                    send(engine, (Signal.TRACES, load.spans("x")))
        send(engine, (Signal.TRACES, load.spans("x")))
        assert engine.failure is None
        commit(engine)
    assert stored(Home(tmp_path / "home")).records == {("spans", "x"): 1}


def test_a_broken_log_ends_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk fails, senders are told to come again, and the process knows it must end."""
    with running(tmp_path / "home") as engine:
        with monkeypatch.context() as patch:

            def full(*_: object) -> int:
                raise OSError(5, "Input/output error")

            patch.setattr("engram.exporters.wal.os.writev", full)
            with pytest.raises(Overloaded, match="Input/output"):
                send(engine, (Signal.TRACES, load.spans("x")))
        with pytest.raises(Overloaded, match="Input/output"):
            send(engine, (Signal.TRACES, load.spans("x")))
        assert isinstance(engine.failure, StoreError)
    with running(tmp_path / "home") as engine:
        send(engine, (Signal.TRACES, load.spans("x")))


def test_damage_at_the_end_of_a_segment_is_passed(tmp_path: Path) -> None:
    """A damaged last record of an older segment does not hold up what comes behind it."""
    home = Home(tmp_path / "home")
    home.create()
    engine = Engine(home)
    engine._wal.open()
    ends = [
        engine._wal.append(Signal.TRACES, Encoding.IDENTITY, load.spans(name)).result(10)
        for name in ("good", "bad")
    ]
    engine._wal.roll()
    engine._wal.close()
    segment = min(home.wal.glob("*.wal"))
    raw = bytearray(segment.read_bytes())
    raw[-1] ^= 1
    segment.write_bytes(raw)
    with running(home.root) as engine:
        assert engine.end == ends[-1]
        commit(engine)
        assert len(engine.status()["damaged"]) == 1
    assert stored(home).records == {("spans", "good"): 1}


def test_expired_is_gone_from_the_bytes(tmp_path: Path) -> None:
    """Expiry removes rows at once and, after clean-up, every byte; late records revive nothing."""
    home = Home(tmp_path / "home")
    with running(home.root, redaction=None) as engine:
        send(
            engine,
            (Signal.TRACES, load.spans("forgettable")),
            (Signal.LOGS, load.llm_event("zyxwv")),
        )
        commit(engine)
        limit = time.time_ns()
        send(engine, (Signal.TRACES, load.spans("kept")))
        commit(engine)
        engine.expire(limit)
        assert stored(home).records == {("spans", "kept"): 1}
        engine.compact(grace_s=0)
        send(engine, (Signal.TRACES, load.llm_span("zyxwv")))
        commit(engine)
        engine.compact(grace_s=0)
    found = stored(home)
    assert found.memories
    assert "zyxwv is a name" not in str(found.memories)
    for path in home.root.rglob("*"):
        if path.is_file() and path.suffix == ".parquet":
            rows = duckdb.execute("SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
            assert "forgettable" not in str(rows), path
            assert "what is zyxwv" not in str(rows), path
            assert "zyxwv is a name" not in str(rows), path
        elif path.is_file():
            assert b"forgettable" not in path.read_bytes(), path
    assert catalogue_problems(home) == []


def test_retention_runs_by_itself(tmp_path: Path) -> None:
    """With a retention, records older than it leave without being asked."""
    with running(tmp_path / "home", retention_s=1.0, compact_interval_s=0.2) as engine:
        send(engine, (Signal.TRACES, load.spans("old")))
        commit(engine)
        deadline = time.monotonic() + 20
        while query(tmp_path / "home", "SELECT count(*) FROM spans") != [(0,)]:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_sweep_removes_what_slipped_through(tmp_path: Path) -> None:
    """Records and memories that got in twice past the recent sets are folded into one."""
    home = Home(tmp_path / "home")
    with running(home.root) as engine:
        send(engine, *story(1))
        commit(engine)
    once = stored(home)
    with running(home.root) as engine:
        assert engine._ready.wait(20)
        for recent in engine._hashes.values():
            recent._table[:] = 0

        def forget(lake: LakeWriter) -> None:
            lake._recent_ids._table[:] = 0

        engine._in_committer(forget, time.monotonic() + 10)
        send(engine, *story(2))
        commit(engine)
        assert set(stored(home).records.values()) == {2}
        assert engine.sweep() > 72
        assert engine.sweep() == 0
        send(engine, (Signal.LOGS, load.llm_event("c1")))
        commit(engine)
    assert stored(home).records == once.records
    assert stored(home).memories == once.memories
    assert stored(home).doubled == []


def test_maintenance_runs_between_busy_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch always waiting does not starve what was asked of the committer."""
    commit_ = LakeWriter.commit

    def slow(self: LakeWriter, batch: Any) -> Committed:
        time.sleep(0.5)  # meanwhile the pipeline has the next one ready
        return commit_(self, batch)

    monkeypatch.setattr(LakeWriter, "commit", slow)
    with running(tmp_path / "home", commit_rows=1) as engine:
        commit(engine)
        send(engine, *((Signal.TRACES, load.spans(f"s{i}")) for i in range(40)))
        while engine.counters.commits < 2:  # from here on a batch is always waiting
            time.sleep(0.05)
        asked = time.monotonic()
        engine._in_committer(lambda lake: lake.sequence, asked + 10)
        assert time.monotonic() - asked < 5
        assert engine.committed < engine.end
        engine.shutdown(1.0)
    with running(tmp_path / "home") as engine:
        commit(engine)
    assert query(tmp_path / "home", "SELECT count(*) FROM spans") == [(40,)]
