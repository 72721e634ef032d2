"""The engine: an OTLP request becomes durable, typed, queryable memory.

```
admit (any thread)      check, write-ahead log, fdatasync, acknowledge
pipeline (one thread)   read the log in order, inflate, decode, drop re-sends, apply rules
committer (one thread)  one transaction: rows, memories, log position; maintenance in between
```

Receivers call `admit`; nothing else of the program writes to a home. The lake is opened in the
committer's thread after the log accepts requests, so the first acknowledgement does not wait for
DuckDB.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from engram.exporters import files, own
from engram.exporters.careful import CarefulReplay
from engram.exporters.errors import BadRequest, Overloaded, StoreError, TooLarge
from engram.exporters.follow import Follower
from engram.exporters.home import Home
from engram.exporters.inflate import inflate
from engram.exporters.itself.notes import Notes
from engram.exporters.itself.settings import COMPACT, Settings
from engram.exporters.lock import SHORT_S, HomeLock
from engram.exporters.otlp.check import check
from engram.exporters.signals import Admission, Encoding, Process, Signal
from engram.exporters.trust import without_claims
from engram.exporters.wal import Entry, Wal

if TYPE_CHECKING:
    import polars as pl

    from engram.exporters.lake.writer import Batch, LakeWriter
    from engram.exporters.otlp.decode import Decoder
    from engram.exporters.recent import RecentHashes
    from engram.exporters.rules import Rules
    from engram.exporters.rules.load import Kind

_log = logging.getLogger("engram.engine")

_BATCH_BYTES: Final = 48 << 20
_INFLATED_BYTES: Final = 24 << 20
_SLICE_PAUSE_S: Final = 0.02
_DECODE_TRIES: Final = 2
_COLLECTOR_ID: Final = re.compile(r"[0-9a-f]{8}\s*\Z")
_IDLE_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What an operator can turn."""

    commit_rows: int = 16384
    """Commit when this many records are decoded."""

    commit_interval_s: float = 1.0
    """Commit when the oldest decoded record has waited this long."""

    max_request_bytes: int = 64 << 20
    """Largest request, inflated."""

    max_wal_bytes: int = 4 << 30
    """Refuse (retryable) when the lake is this far behind."""

    limit_memory_bytes: int = 0
    """Refuse (retryable) while the process holds more resident memory than this; 0 is no limit."""

    retention_s: float = 0.0
    """Forget records older than this; 0 keeps them for ever."""

    compact_interval_s: float = 30.0
    """A round of maintenance this often."""

    chosen: bool = False
    """Whether Engram may change that by itself (`itself/settings.py`)."""

    query_grace_s: float = 600.0
    """Files that no snapshot needs are kept this long for queries that still read them."""

    redaction: Mapping[str, Any] | None = field(default_factory=dict)
    """Settings of the redaction processor; None keeps telemetry as it was sent."""

    rules: Sequence[Mapping[str, Any]] = ()
    """The operator's rules, before the shipped ones."""

    process: Process | None = None
    """What stands between the log and the decoder; None when nothing does, and nothing is paid."""


@dataclass(slots=True)
class Counters:
    """What happened since the start; read by status."""

    requests: int = 0
    rejected: int = 0
    refused: int = 0
    duplicates: int = 0
    records: int = 0
    memories: int = 0
    commits: int = 0
    quarantined: int = 0
    rule_failures: int = 0
    commit_failures: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """Records that an operator's processors dropped, by processor."""
    started_ns: int = field(default_factory=time.time_ns)


class Engine:
    """The only writer of a home. `start`, `admit` from any thread, `shutdown`."""

    def __init__(
        self, home: Home, settings: EngineSettings | None = None, *, role: str = "engram collect"
    ) -> None:
        self.home = home
        self.role = role
        self.settings = settings or EngineSettings()
        self.counters = Counters()
        self.notes = Notes()
        """What was done, for whoever tells it (`itself/told.py`)."""
        self._chosen = Settings(home)
        self._wal = Wal(home.wal, max_bytes=self.settings.max_wal_bytes)
        self._batches: queue.Queue[Batch | None] = queue.Queue(maxsize=1)
        self._requests: queue.SimpleQueue[tuple[Callable[[LakeWriter], Any], Future[Any]]] = (
            queue.SimpleQueue()
        )
        self._stop = threading.Event()
        self._flush_now = threading.Event()
        self._ready = threading.Event()
        self._committed = 0
        self._last_commit = 0.0
        self._progress = threading.Condition()
        self._lock = HomeLock(home.lock)
        self._threads: list[threading.Thread] = []
        self._failure: BaseException | None = None
        self._resident = 0
        self._careful = CarefulReplay(home.wal)
        self._dropped: dict[str, int] = {}
        self._followers: list[Follower] = []
        self.reports: dict[str, Callable[[], Any]] = {}
        """What else `status` says, by name: of parts that stand behind the log too."""
        self._hashes: dict[str, RecentHashes] = {}
        self._inflated = _Inflated()
        self._rules_version = ""
        self._quarantined: set[int] = set()

    # ------------------------------------------------------------------ life

    def start(self, lock_wait_s: float = SHORT_S) -> None:
        """Lock the home, open the log, and start the pipeline. Quick: the lake opens behind it.

        Raises:
            HomeBusy: another process writes to this home.
            StoreError: the home or its log cannot be used.
        """
        self.home.create()
        self._lock.acquire(self.role, lock_wait_s)
        self._wal.open(self._careful.last_committed())
        for follower in self._followers:
            follower.open()
        for name, run in (("committer", self._commit_loop), ("pipeline", self._pipeline_loop)):
            thread = threading.Thread(target=self._guard, args=(run,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def shutdown(self, timeout_s: float = 4.0) -> None:
        """Refuse new requests, commit what fits in the time, stop. What does not fit is in the log.

        Safe twice, and safe without `start`.
        """
        deadline = time.monotonic() + timeout_s
        if not self._threads:
            self._lock.release()
            return
        self._wal.close()
        if self._failure is None and self._ready.is_set() and not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                self.wait_committed(self._wal.end, max(0.0, deadline - time.monotonic() - 0.5))
        self._stop.set()
        for thread in reversed(self._threads):
            thread.join(max(0.1, deadline - time.monotonic()))
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if not self._threads:  # else the lock stays: a late commit must not meet another writer
            self._lock.release()

    def follow(self, name: str, signals: frozenset[Signal]) -> Follower:
        """A reader of the log with a position of its own. Before `start`.

        What it has not read yet is kept for it, within the log's limit.
        """
        follower = Follower(self._wal, self.home.wal / f"{name}.position", signals)
        self._followers.append(follower)
        return follower

    def _guard(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - a dead thread must be seen by every caller
            _log.critical("the engine stopped: %s", error, exc_info=True)
            self._failure = error
            self._stop.set()
            with self._progress:
                self._progress.notify_all()

    @property
    def failure(self) -> BaseException | None:
        """What stopped the engine, if anything did; its process should end and be restarted."""
        return self._failure

    # ------------------------------------------------------------------ in

    def admit(
        self,
        signal: Signal,
        body: bytes,
        encoding: Encoding,
        *,
        trusted: bool = False,
        itself: bool = False,
    ) -> Future[Admission]:
        """Check a request and put it on disk; see `engram.exporters.signals.Intake`.

        Only of a `trusted` one what it says of its trust counts (`trust.py`). What Engram tells of
        `itself` is not counted, nor is its way noted.
        """
        began = time.perf_counter()
        if self._failure is not None:
            raise Overloaded(f"the engine stopped: {self._failure}", 5.0)
        limit = self.settings.max_request_bytes
        if encoding is Encoding.IDENTITY:
            if len(body) > limit:
                raise TooLarge(limit)
            raw = body
        else:
            raw = inflate(body, encoding, limit)
        answer: Future[Admission] = Future()
        if not raw:
            answer.set_result(Admission(self._wal.end))
            return answer
        rejected, message = check(signal, raw)
        if not trusted and (allowed := without_claims(signal, raw)) is not raw:
            body = raw = allowed
            encoding = Encoding.IDENTITY
        if 0 < self.settings.limit_memory_bytes < self._resident:
            self.counters.refused += 1
            raise Overloaded("the collector is at its memory limit", 1.0)
        try:
            written = self._wal.append(signal, encoding, body)
        except Overloaded:
            self.counters.refused += 1
            raise
        except StoreError as error:  # a new process may be able to: the sender keeps it until then
            self._failure = self._failure or error
            raise Overloaded(str(error), 5.0) from error
        if not itself:
            self.counters.requests += 1
            self.counters.rejected += rejected

        def done(future: Future[int]) -> None:
            error = future.exception()
            if error is None and raw is not body:
                self._inflated.keep(future.result(), raw)
            if error is None and not itself:
                self.notes.note("ack", (time.perf_counter() - began) * 1e3)
            with contextlib.suppress(InvalidStateError):  # the sender hung up
                if error is not None:
                    answer.set_exception(error)
                else:
                    answer.set_result(Admission(future.result(), rejected, message))

        written.add_done_callback(done)
        return answer

    # ------------------------------------------------------------------ what callers may ask

    @property
    def committed(self) -> int:
        """Everything before this log position can be queried."""
        return self._committed

    @property
    def end(self) -> int:
        """Everything before this log position is durable."""
        return self._wal.end

    def wait_committed(self, position: int, timeout_s: float) -> None:
        """Wait until everything before `position` can be queried; commits at once to get there.

        Raises:
            TimeoutError: it took longer.
            StoreError: the engine stopped.
        """
        deadline = time.monotonic() + timeout_s
        with self._progress:
            while self._committed < position:
                if self._failure is not None:
                    raise StoreError(f"the engine stopped: {self._failure}")
                self._flush_now.set()
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(
                        f"committed through {self._committed}, not yet through {position}"
                    )
                self._progress.wait(min(left, 0.25))

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until the lake is open and the rules are loaded.

        Raises:
            TimeoutError: it took longer.
            StoreError: the engine stopped.
        """
        deadline = time.monotonic() + timeout_s
        while not (self._ready.wait(0.05) and self._rules_version):
            if self._failure is not None:
                raise StoreError(f"the engine stopped: {self._failure}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the lake did not open in {timeout_s:.0f} s")
            time.sleep(0.01)

    def compact(self, timeout_s: float = 600.0, *, grace_s: float | None = None) -> None:
        """Run a whole round of maintenance; commits go on between its slices.

        `grace_s` is how long files that were merged away are kept for queries that still read them.
        """
        deadline = time.monotonic() + timeout_s
        round_: Iterator[str] = self._in_committer(
            lambda lake: lake.maintenance(grace_s=grace_s), deadline
        )
        while self._in_committer(lambda _: next(round_, None), deadline):
            pass
        self._in_committer(lambda _: self._empty_log(), deadline)

    def _empty_log(self) -> None:
        """Give back the space of a log whose every request is committed."""
        if self._committed == self._wal.end:
            self._wal.roll()
            self._wal.release(self._committed)

    def sweep(self, timeout_s: float = 600.0) -> int:
        """Remove records and fold memories that got in twice; returns rows removed."""
        removed: int = self._in_committer(lambda lake: lake.sweep(), time.monotonic() + timeout_s)
        return removed

    def expire(self, before_ns: int, timeout_s: float = 600.0) -> None:
        """Delete what was recorded before a time."""
        self._in_committer(lambda lake: lake.expire(before_ns), time.monotonic() + timeout_s)

    def replace(
        self, changes: pl.DataFrame, rules_version: str, timeout_s: float = 120.0
    ) -> list[str]:
        """Put rebuilt memories in the place of stored ones; see `LakeWriter.replace`.

        Raises:
            BadRequest: they were made by other rules than those that run.
        """
        self.wait_ready(timeout_s)
        if rules_version != self._rules_version:
            raise BadRequest(
                f"these memories were made by the rules {rules_version}, and the collector runs "
                f"{self._rules_version}; restart it, so that both read the same configuration"
            )
        stale: list[str] = self._in_committer(
            lambda lake: lake.replace(changes), time.monotonic() + timeout_s
        )
        return stale

    def _in_committer(self, call: Callable[[LakeWriter], Any], deadline: float) -> Any:
        future: Future[Any] = Future()
        self._requests.put((call, future))
        while True:
            left = deadline - time.monotonic()
            try:
                return future.result(max(0.0, min(left, 0.5)))
            except TimeoutError:
                if future.done():
                    raise
                if self._stop.is_set():
                    raise StoreError("the engine stopped") from None
                if left <= 0:
                    raise

    @property
    def compact_interval_s(self) -> float:
        """How often maintenance runs: as configured, or as Engram chose by itself."""
        configured = self.settings.compact_interval_s
        if not self.settings.chosen:
            return configured
        return self._chosen.value(COMPACT, configured, time.time_ns())

    def status(self) -> dict[str, Any]:
        """Numbers for people and for `engram status`."""
        counters = self.counters
        return {
            "home": str(self.home.root),
            "pid": os.getpid(),
            "role": self.role,
            "ready": self._ready.is_set(),
            "durable": self._wal.end,
            "committed": self._committed,
            "backlog_bytes": max(0, self._wal.end - self._committed),
            "resident_bytes": self._resident,
            "uptime_s": round((time.time_ns() - counters.started_ns) / 1e9, 1),
            "rules_version": self._rules_version or None,
            "failure": str(self._failure) if self._failure else None,
            "damaged": list(self._wal.damaged),
            **{name: report() for name, report in list(self.reports.items())},
            **{
                name: getattr(counters, name) for name in Counters.__slots__ if name != "started_ns"
            },
        }

    # ------------------------------------------------------------------ pipeline

    def _pipeline_loop(self) -> None:
        from engram.exporters.otlp.decode import Decoder
        from engram.exporters.redact import RedactionConfig, Redactor
        from engram.exporters.rules import Rules

        settings = self.settings
        rules = Rules.load([dict(rule) for rule in settings.rules])
        self._rules_version = rules.version
        if settings.redaction is None:
            from engram.exporters.otlp.values import NoRedaction

            decoder = Decoder(NoRedaction(), rules.wanted, rules.resource_wanted)
        else:
            redactor = Redactor(RedactionConfig(**settings.redaction))
            decoder = Decoder(redactor, rules.wanted, rules.resource_wanted)
        while not self._ready.wait(0.1):
            if self._stop.is_set():
                return
        position = self._committed
        self._careful.begin(position)
        while not self._stop.is_set():
            position = self._next_batch(position, decoder, rules)
        with contextlib.suppress(queue.Full):  # it only wakes the committer early
            self._batches.put_nowait(None)

    def _next_batch(self, position: int, decoder: Decoder, rules: Rules) -> int:
        """Decode from `position` until a batch is due, hand it on, and return where it ended."""
        self._resident = _resident_bytes()
        if not self._wal.wait(position, 0.25):
            self._flush_now.clear()
            return position
        deadline = time.monotonic() + self.settings.commit_interval_s
        start, inflated = position, 0
        while True:
            durable = self._wal.end
            for entry in self._wal.read(position, durable):
                inflated += self._decode(entry, decoder)
                position = entry.end
                if self._full(decoder, inflated):
                    break
                if time.monotonic() >= deadline or self._stop.is_set():
                    break
            else:
                position = max(position, durable)  # also past damage behind the last sound request
            left = deadline - time.monotonic()
            full = self._full(decoder, inflated)
            if full or left <= 0 or self._stop.is_set():
                break
            if self._flush_now.is_set() and position >= self._wal.end:
                self._flush_now.clear()  # or every commit under load would be a small one
                break
            self._wal.wait(position, min(left, 0.05))
        try:
            self._hand_over(position, decoder, rules)
        except Exception as error:  # noqa: BLE001 - one request of many is to blame
            _log.warning("a batch made no columns, its requests are tried one by one: %s", error)
            decoder.clear()
            self._dropped.clear()
            self._one_by_one(start, position, decoder, rules)
        return position

    def _full(self, decoder: Decoder, inflated: int) -> bool:
        """Whether a batch is due. After crashes each request is one, to find the one to blame."""
        if self._careful.active:
            return inflated > 0
        return len(decoder) >= self.settings.commit_rows or inflated >= _BATCH_BYTES

    def _one_by_one(self, start: int, end: int, decoder: Decoder, rules: Rules) -> None:
        """Hand over each request of a batch by itself, and quarantine the one that cannot be."""
        for entry in self._wal.read(start, end):
            if self._stop.is_set():
                return
            self._decode(entry, decoder)
            try:
                self._hand_over(entry.end, decoder, rules)
            except Exception as error:  # noqa: BLE001 - that was the one
                decoder.clear()
                self._dropped.clear()
                self._quarantine(entry, f"{type(error).__name__}: {error}")
        self._hand_over(end, decoder, rules)

    def _decode(self, entry: Entry, decoder: Decoder) -> int:
        """Decode one request into the batch, or quarantine it; returns its inflated bytes."""
        if self._careful.poisoned(entry.position):
            self._quarantine(entry, "the process died several times while decoding it")
            return 0
        self._careful.before(entry.position)
        for last in range(_DECODE_TRIES):
            try:
                raw = self._inflated.take(entry.end) or inflate(
                    entry.body, entry.encoding, self.settings.max_request_bytes
                )
                if self.settings.process is None:
                    decoder.add(entry.signal, raw)
                else:
                    self._process(self.settings.process, entry, raw, decoder)
            except Exception as error:  # noqa: BLE001 - whatever it is, the road goes on
                if last + 1 == _DECODE_TRIES:
                    self._quarantine(entry, f"{type(error).__name__}: {error}")
            else:
                return len(raw)
        self._careful.after()
        return 0

    def _process(self, process: Process, entry: Entry, raw: bytes, decoder: Decoder) -> None:
        done = process(entry.signal, raw)
        if done.body:
            decoder.add(entry.signal, done.body)
        for name, count in done.dropped.items():  # counted when the batch is handed over
            self._dropped[name] = self._dropped.get(name, 0) + count

    def quarantine(self, entry: Entry, why: str) -> None:
        """Keep a request aside that somebody behind the log could not use."""
        self._quarantine(entry, why)

    def _quarantine(self, entry: Entry, why: str) -> None:
        name = f"{entry.position:020d}.{entry.signal}.{entry.encoding}"
        path = self.home.quarantine / name
        files.write_synced(path, entry.body)  # the log behind it is released with the commit
        path.with_suffix(path.suffix + ".json").write_text(
            json.dumps({"why": why, "received_ns": entry.received_ns, "position": entry.position})
        )
        if entry.position in self._quarantined:
            return  # with the batch that it was in, which was then taken apart
        self._quarantined.add(entry.position)
        self.counters.quarantined += 1
        _log.error("a %s request could not be used and is kept in %s: %s", entry.signal, path, why)

    def _hand_over(self, position: int, decoder: Decoder, rules: Rules) -> None:
        from engram.exporters.lake.writer import Batch

        total = len(decoder)
        hashes = dict(zip(("spans", "logs", "metrics"), decoder.hashes(), strict=True))
        new = {table: self._hashes[table].new(found) for table, found in hashes.items()}
        keep = [None if mask.all() else mask for mask in new.values()]
        records = decoder.finish((keep[0], keep[1], keep[2]))
        memories = self._memories(records, rules)
        self._careful.after()
        batch = Batch(
            position,
            records.spans,
            records.logs,
            records.metrics,
            memories,
            total - len(records) - records.rejected,
        )
        # Only now: after a failure above, the same records come again and must still be new.
        for table, mask in new.items():
            self._hashes[table].add(hashes[table][mask])
        for name, count in self._dropped.items():
            self.counters.dropped[name] = self.counters.dropped.get(name, 0) + count
        self._dropped.clear()
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._batches.put(batch, timeout=0.25)
                return

    def _memories(self, records: Any, rules: Rules) -> Any:
        import polars as pl

        from engram.exporters.memories import MEMORY_SCHEMA
        from engram.exporters.merge import merge_frame
        from engram.exporters.metrics import metric_frame

        made = []
        kinds: tuple[tuple[Kind, pl.DataFrame], ...] = (
            ("span", records.span_frame),
            ("span_event", records.event_frame),
            ("log", records.log_frame),
            ("metric", metric_frame(records.metrics, rules.wanted, rules.resource_wanted)),
        )
        for kind, frame in kinds:
            if not frame.height:
                continue
            try:
                made.append(rules.apply(frame, kind))
            except Exception:  # noqa: BLE001 - the records matter more than their memories
                self.counters.rule_failures += 1
                _log.exception(
                    "the rules failed on %d %s records; they are stored without memories",
                    frame.height,
                    kind,
                )
        if not made:
            return pl.DataFrame(schema=MEMORY_SCHEMA)
        return merge_frame(pl.concat(made))

    # ------------------------------------------------------------------ committer

    def _commit_loop(self) -> None:
        from engram.exporters.lake.writer import LakeWriter
        from engram.exporters.recent import RecentHashes

        lake = LakeWriter(
            self.home, self._collector_id(), query_grace_s=self.settings.query_grace_s
        )
        lake.open()
        try:
            for table, capacity in (("spans", 1 << 22), ("logs", 1 << 21), ("metrics", 1 << 20)):
                recent = RecentHashes(capacity)
                hashes = lake.recent_hashes(table, capacity // 2)
                recent.add(hashes[recent.new(hashes)])
                self._hashes[table] = recent
            self._committed = lake.position
            self._wal.release(min(lake.position, self._wal.end))
            self._ready.set()
            self._maintain_and_commit(lake)
        finally:
            lake.close()

    def _maintain_and_commit(self, lake: LakeWriter) -> None:
        next_round = time.monotonic() + self.compact_interval_s
        slices: Iterator[str] | None = None
        while True:
            batch: Batch | None = None
            stopping = self._stop.is_set()
            try:
                wait = _SLICE_PAUSE_S if slices or not self._requests.empty() else 0.1
                batch = self._batches.get(timeout=wait)
                if batch is None:
                    return
            except queue.Empty:
                if stopping:
                    return
            if batch is not None and not self._commit(lake, batch):
                return
            if stopping:
                continue
            self._serve_request(lake)
            if slices is None and time.monotonic() >= next_round:
                slices = self._round(lake)
            if slices is not None and not self._run_slice(slices):
                slices, next_round = None, time.monotonic() + self.compact_interval_s

    def _commit(self, lake: LakeWriter, batch: Batch) -> bool:
        """Commit, with patience: a batch is never given up while the process lives.

        False when it was told to stop first. Nothing behind this batch may be committed then, or
        the log position would pass over it.
        """
        delay = 0.1
        while True:
            began = time.perf_counter()
            try:
                done = lake.commit(batch)
                break
            except Exception as error:  # noqa: BLE001 - disk full, catalogue locked: it may pass
                self.counters.commit_failures += 1
                _log.error("a commit failed and is tried again in %.1f s: %s", delay, error)
                if self._stop.wait(delay):
                    return False
                delay = min(delay * 2, 10.0)
        lake.sync_catalog()
        self._careful.committed(done.position)
        self._wal.release(done.position)
        self._last_commit = time.monotonic()
        rows = len(batch.spans) + len(batch.logs) + len(batch.metrics) - _of_itself(batch.logs)
        if rows or batch.duplicates or batch.memories.height:  # else it would tell of its telling
            self.counters.commits += 1
            self.notes.note("commit", (time.perf_counter() - began) * 1e3, rows=rows)
        self.counters.records += rows
        self.counters.memories += done.memories - done.merged
        self.counters.duplicates += batch.duplicates
        with self._progress:
            self._committed = done.position
            self._progress.notify_all()
        return True

    def _serve_request(self, lake: LakeWriter) -> None:
        try:
            call, future = self._requests.get_nowait()
        except queue.Empty:
            return
        try:
            future.set_result(call(lake))
        except Exception as error:  # noqa: BLE001 - it belongs to whoever asked
            future.set_exception(error)

    def _round(self, lake: LakeWriter) -> Iterator[str]:
        if self.settings.retention_s:
            lake.expire(time.time_ns() - int(self.settings.retention_s * 1e9))
            yield "expire"
        yield from lake.maintenance(idle=time.monotonic() - self._last_commit > _IDLE_S)
        self._empty_log()

    def _run_slice(self, round_: Iterator[str]) -> bool:
        started = time.monotonic()
        try:
            name = next(round_, None)
        except Exception as error:  # noqa: BLE001 - maintenance can wait for the next round
            _log.warning("maintenance failed and is tried again later: %s", error)
            return False
        took = time.monotonic() - started
        if name is not None:
            merged = int(name.startswith(("compact", "rewrite")))
            self.notes.note("maintenance", took * 1e3, merges=merged)
        if took > 1.0:
            _log.info("maintenance: %s took %.1f s", name, took)
        return name is not None

    def _collector_id(self) -> str:
        path = self.home.wal / "collector.id"
        if path.exists() and _COLLECTOR_ID.match(known := path.read_text(errors="replace")):
            return known.strip()  # anything else is what a power cut left of the first start
        name = secrets.token_hex(4)
        files.write_synced(path, f"{name}\n".encode())
        return name


class _Inflated:
    """Bodies that `admit` inflated, kept until the pipeline reads them from the log.

    Inflating twice costs 1 µs a span. What does not fit is inflated again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bodies: dict[int, bytes] = {}
        self._bytes = 0

    def keep(self, end: int, raw: bytes) -> None:
        """Keep the body of the request that ends at this log position, if there is room."""
        with self._lock:
            if self._bytes + len(raw) <= _INFLATED_BYTES:
                self._bodies[end] = raw
                self._bytes += len(raw)

    def take(self, end: int) -> bytes | None:
        """The body of a request; those before it, which were kept too late, are dropped."""
        found = None
        with self._lock:
            while self._bodies and (first := next(iter(self._bodies))) <= end:
                raw = self._bodies.pop(first)
                self._bytes -= len(raw)
                found = raw if first == end else None
        return found


def _of_itself(logs: Any) -> int:
    """How many of these records Engram told of itself: hardly any batch has one."""
    import pyarrow.compute as pc

    if not len(logs):
        return 0
    return int(pc.sum(pc.equal(logs["scope_name"], own.ITSELF)).as_py() or 0)


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0  # macOS: no cheap reading; the log's size limit still bounds the backlog
