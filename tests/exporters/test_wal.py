"""The write-ahead log: nothing acknowledged is lost, nothing damaged hides what is sound."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engram.exporters.errors import Overloaded, StoreError
from engram.exporters.signals import Encoding, Signal
from engram.exporters.wal import HEADER_BYTES, Wal

_BODIES = [b"first", b"", b"ENG1 is not a record", bytes(range(256))]


@contextmanager
def log(folder: Path, committed: int = 0, **settings: Any) -> Iterator[Wal]:
    """An open log."""
    wal = Wal(folder, **settings)
    wal.open(committed)
    try:
        yield wal
    finally:
        wal.close()


def put(wal: Wal, *bodies: bytes) -> list[int]:
    """Append and wait."""
    waiting = [wal.append(Signal.LOGS, Encoding.IDENTITY, body) for body in bodies]
    return [future.result(10) for future in waiting]


def bodies(wal: Wal, position: int = 0) -> list[bytes]:
    """What is in the log from a position."""
    return [entry.body for entry in wal.read(position)]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(Signal)), st.sampled_from(list(Encoding)), st.binary(max_size=300)
        )
    )
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_was_appended_is_read(
    tmp_path_factory: pytest.TempPathFactory, requests: list[tuple[Signal, Encoding, bytes]]
) -> None:
    """Signal, encoding and body come out as they went in, from any position, also reopened."""
    folder = tmp_path_factory.mktemp("wal")
    with log(folder, segment_bytes=500) as wal:
        ends = [f.result(10) for f in [wal.append(*request) for request in requests]]
        live = list(wal.read(0))
    with log(folder) as wal:
        again = list(wal.read(0))
        assert wal.end == (ends[-1] if ends else 0)
        for i, end in enumerate(ends):
            assert len(list(wal.read(end))) == len(ends) - i - 1
    assert live == again
    assert [(e.signal, e.encoding, e.body) for e in again] == requests
    assert [e.end for e in again] == ends


def test_append_goes_on_after_reopening(tmp_path: Path) -> None:
    """A second life appends behind the first; positions never repeat."""
    with log(tmp_path) as wal:
        first = put(wal, b"a")
    with log(tmp_path) as wal:
        second = put(wal, b"b")
        assert bodies(wal) == [b"a", b"b"]
        assert second > first


def test_every_torn_tail_is_cut_off(tmp_path: Path) -> None:
    """A last record torn at any byte vanishes without a word; those before it stay."""
    whole = tmp_path / "whole"
    whole.mkdir()
    with log(whole) as wal:
        ends = put(wal, *_BODIES)
    (segment,) = whole.glob("*.wal")
    raw = segment.read_bytes()
    for size in range(ends[-2], len(raw)):
        folder = tmp_path / f"torn{size}"
        folder.mkdir()
        (folder / segment.name).write_bytes(raw[:size])
        with log(folder) as wal:
            assert wal.end == ends[-2], size
            assert bodies(wal) == _BODIES[:-1]
            put(wal, b"after")
            assert bodies(wal) == [*_BODIES[:-1], b"after"]
            assert wal.damaged == []


def test_a_flipped_bit_costs_one_record(tmp_path: Path) -> None:
    """Any flipped bit of a record in the middle skips that record alone, and is reported."""
    whole = tmp_path / "whole"
    whole.mkdir()
    with log(whole) as wal:
        ends = put(wal, *_BODIES[:2], b"the damaged one", *_BODIES[2:])
    (segment,) = whole.glob("*.wal")
    raw = segment.read_bytes()
    for at in range(ends[1], ends[2]):
        folder = tmp_path / f"bit{at}"
        folder.mkdir()
        flipped = bytearray(raw)
        flipped[at] ^= 1 << at % 8
        (folder / segment.name).write_bytes(flipped)
        with log(folder) as wal:
            assert bodies(wal) == _BODIES, at
            assert len(wal.damaged) == 1
            assert segment.name in wal.damaged[0]
            assert str(ends[1]) in wal.damaged[0]


def test_a_segment_that_lost_its_end_is_reported(tmp_path: Path) -> None:
    """Bytes missing before the next segment are damage; the next segment is read."""
    with log(tmp_path) as wal:
        put(wal, b"one", b"two")
        wal.roll()
        put(wal, b"three")
    first = min(tmp_path.glob("*.wal"))
    first.write_bytes(first.read_bytes()[:-5])
    with log(tmp_path) as wal:
        assert bodies(wal) == [b"one", b"three"]
        assert wal.damaged


def test_segments_roll_and_are_released(tmp_path: Path) -> None:
    """Whole segments before a position go; nothing behind it does."""
    with log(tmp_path, segment_bytes=100) as wal:
        ends = [put(wal, b"x" * 80)[0] for _ in range(6)]
        assert len(list(tmp_path.glob("*.wal"))) > 2
        wal.release(ends[3] - 1)
        assert bodies(wal, ends[3]) == [b"x" * 80] * 2
        assert bodies(wal, ends[2]) == [b"x" * 80] * 3
        wal.release(ends[5])
        wal.roll()
        wal.release(ends[5])
        assert [path.stat().st_size for path in tmp_path.glob("*.wal")] == [0]
        put(wal, b"y")
        assert bodies(wal, ends[5]) == [b"y"]
    with log(tmp_path) as wal:
        assert wal.end == ends[5] + HEADER_BYTES + 1


def test_positions_never_go_back(tmp_path: Path) -> None:
    """A log that lost its segments starts behind what the lake holds."""
    with log(tmp_path, committed=5000) as wal:
        assert put(wal, b"z") == [5000 + HEADER_BYTES + 1]
        assert bodies(wal, 5000) == [b"z"]


def test_a_full_log_is_overloaded_until_released(tmp_path: Path) -> None:
    """At its limit the log refuses, and takes requests again once space is released."""
    with log(tmp_path, max_bytes=500) as wal:
        (end,) = put(wal, b"x" * 400)
        with pytest.raises(Overloaded, match="full"):
            wal.append(Signal.LOGS, Encoding.IDENTITY, b"x" * 100)
        wal.release(end)
        put(wal, b"x" * 100)


def test_closed_is_overloaded(tmp_path: Path) -> None:
    """After `close` a request is refused, retryably; closing again is harmless."""
    with log(tmp_path) as wal:
        put(wal, b"a")
        wal.close()
        with pytest.raises(Overloaded, match="shutting down"):
            wal.append(Signal.LOGS, Encoding.IDENTITY, b"b")
    Wal(tmp_path).close()


def test_close_writes_what_waits(tmp_path: Path) -> None:
    """Requests that wait at `close` are still written and acknowledged."""
    wal = Wal(tmp_path)
    wal.open()
    waiting = [wal.append(Signal.LOGS, Encoding.IDENTITY, b"%d" % i) for i in range(2000)]
    wal.close()
    assert all(future.done() and future.exception() is None for future in waiting)
    with log(tmp_path) as again:
        assert len(bodies(again)) == 2000


def test_a_disk_error_refuses_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails answers every waiting request; later ones are told at once."""
    with log(tmp_path) as wal:
        put(wal, b"good")
        gate = threading.Event()

        def full(descriptor: int, parts: object) -> int:
            gate.wait(10)
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "writev", full)
        waiting = [wal.append(Signal.LOGS, Encoding.IDENTITY, b"bad") for _ in range(3)]
        gate.set()
        for future in waiting:
            with pytest.raises(Overloaded, match="Input/output"):
                future.result(10)
        with pytest.raises(StoreError, match="Input/output"):
            wal.append(Signal.LOGS, Encoding.IDENTITY, b"later")
        assert wal.backlog == wal.end
    monkeypatch.undo()
    with log(tmp_path) as wal:
        assert bodies(wal) == [b"good"]


_FULL = """
import os, resource, sys
from pathlib import Path
from engram.exporters.errors import Overloaded
from engram.exporters.signals import Encoding, Signal
from engram.exporters.wal import Wal

def room(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

threaded = sys.argv[2] == "thread"
wal = Wal(Path(sys.argv[1]))
wal.open(group_commit=threaded)
def put(body):
    if threaded:
        return wal.append(Signal.LOGS, Encoding.IDENTITY, body).result(10)
    return wal.append_now(Signal.LOGS, Encoding.IDENTITY, body)
put(b"before")
room(1000)
for _ in range(2):
    try:
        put(b"x" * 5000)
    except Overloaded as error:
        print(error)
put(b"small")
room(resource.RLIM_INFINITY)
print(put(b"y" * 5000) == wal.end, wal.backlog == wal.end)
wal.close()
"""


@pytest.mark.parametrize("writer", ["thread", "caller"])
def test_a_full_disk_passes(tmp_path: Path, writer: str) -> None:
    """A write that the kernel cut short for want of room leaves no trace, and the log goes on."""
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path), writer], capture_output=True, text=True
    )
    assert done.stderr == ""
    *refused, last = done.stdout.splitlines()
    assert refused == ["the write-ahead log cannot be written: File too large"] * 2
    assert last == "True True"
    with log(tmp_path) as wal:
        assert bodies(wal) == [b"before", b"small", b"y" * 5000]
        assert wal.damaged == []


def test_turns_continue_a_segment(tmp_path: Path) -> None:
    """Many short lives of a log leave few files, and an engine reads what all of them wrote."""
    for i in range(20):
        wal = Wal(tmp_path, segment_bytes=500)
        wal.open(group_commit=False)
        wal.append_now(Signal.LOGS, Encoding.IDENTITY, b"%03d" % i * 20)
        wal.close()
    assert len(list(tmp_path.glob("*.wal"))) < 6
    with log(tmp_path) as wal:
        assert bodies(wal) == [b"%03d" % i * 20 for i in range(20)]


def test_a_failed_roll_keeps_the_old_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When no new segment can be made, the old one stays open: no write goes astray."""
    with log(tmp_path) as wal:
        put(wal, b"before")

        def refused(*_: object) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("engram.exporters.wal.os.open", refused)
            with pytest.raises(OSError, match="No space"):
                wal.roll()
        other = (tmp_path / "other").open("w+b")  # would get the number of a closed descriptor
        put(wal, b"after")
        assert other.read() == b""
        other.close()
        assert bodies(wal) == [b"before", b"after"]


def test_eight_threads(tmp_path: Path) -> None:
    """Every append of eight threads is there once, in the order of its own thread."""
    with log(tmp_path, segment_bytes=2000) as wal:
        futures: dict[bytes, Future[int]] = {}

        def send(thread: int) -> None:
            for i in range(200):
                body = b"%d-%04d" % (thread, i)
                futures[body] = wal.append(Signal.TRACES, Encoding.GZIP, body)
                if i % 50 == 0:
                    futures[body].result(10)

        threads = [threading.Thread(target=send, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        by_end = {future.result(10): body for body, future in futures.items()}
        found = list(wal.read(0))
    assert {entry.end: entry.body for entry in found} == by_end
    assert len(found) == 1600
    for number in range(8):
        own = [entry.body for entry in found if entry.body.startswith(b"%d-" % number)]
        assert own == sorted(own)
