"""The write-ahead log: OTLP bodies as sent, on disk before they are acknowledged.

Segments are files named by the log position of their first byte. A record is a fixed header (magic,
length, signal, encoding, arrival time, CRC-32) and the body. One thread writes whatever is
waiting with one
`writev` and one `fdatasync` (group commit), then completes the futures of all of it.

What was acknowledged is a prefix of the log that reached the disk. So at opening, the first
broken record in the last segment is where a crash tore the log: nothing behind it was
acknowledged. A broken record with sound ones behind it can only be damage to the medium; it is
skipped, counted, and reported.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from engram.exporters import files
from engram.exporters.errors import Overloaded, StoreError
from engram.exporters.forks import leave_to_parent
from engram.exporters.signals import Encoding, Signal

_HEADER: Final = struct.Struct("<4sIBBQI")  # magic, body length, signal, encoding, arrival ns, crc
_MAGIC: Final = b"ENG1"
_SIGNALS: Final = list(Signal)
_ENCODINGS: Final = list(Encoding)
_IOV_MAX: Final = 512
_NO_ROOM: Final = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
"""Errors that pass when somebody makes room. After any other the disk cannot be trusted."""
HEADER_BYTES: Final = _HEADER.size


@dataclass(frozen=True, slots=True)
class Entry:
    """One request in the log."""

    position: int
    """Where its record starts."""

    end: int
    """Where the next record starts: what an acknowledgement carries."""

    signal: Signal
    encoding: Encoding
    received_ns: int
    body: bytes


@dataclass(frozen=True, slots=True)
class _Waiting:
    head: bytes
    body: bytes
    future: Future[int]


def _crc(body: bytes, length: int, signal: int, encoding: int, received_ns: int) -> int:
    return zlib.crc32(body, zlib.crc32(struct.pack("<IBBQ", length, signal, encoding, received_ns)))


def _name(position: int) -> str:
    return f"{position:020d}.wal"


class Wal:
    """The log of one home. `append` and `read` from any thread.

    A `Hold` keeps segments for a reader that is behind the lake, such as an exporter whose remote
    is down. Holds never make the log longer than its limit: the oldest requests are taken from the
    slowest reader instead, and counted.

    | thread | may |
    |---|---|
    | any | `append`, `read`, `end`, `backlog` |
    | the log's own | write and sync segments |
    | the committer's | `release` |
    """

    def __init__(
        self, folder: Path, *, segment_bytes: int = 8 << 20, max_bytes: int = 4 << 30
    ) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._max_bytes = max_bytes
        self._waiting: deque[_Waiting] = deque()
        self._io = threading.Lock()
        self._wake = threading.Condition()
        self._readable = threading.Condition()
        self._closing = False
        self._broken: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._descriptor = -1
        self._segment_start = 0
        self._size = 0
        self._queued_bytes = 0
        self._released = 0
        self._holds: list[Hold] = []
        self.end = 0
        """Position behind the last durable record."""
        self.damaged: list[str] = []
        """What was skipped at opening because the medium damaged it."""
        leave_to_parent(self)

    # ------------------------------------------------------------------ life

    def open(self, committed: int = 0, *, group_commit: bool = True) -> None:
        """Find the end of what is sound, cut off what a crash tore, and start the writer.

        `committed` is a position the lake already holds: the log never hands out a lower one, even
        when its segments are gone. Without `group_commit` there is no writer, only `append_now`,
        and a small last segment is continued: many short lives must not leave many files.
        """
        start = None
        segments = self._segments()
        end = committed
        if segments:
            self._released = max(segments[0], committed)  # before it, segments are only held
            last = segments[-1]
            path = self._folder / _name(last)
            raw = path.read_bytes()
            sound = _sound_end(raw)
            if sound < len(raw):
                with path.open("r+b") as file:
                    file.truncate(sound)
                files.sync_file(path)
            end = max(end, last + sound)
            if not group_commit and end == last + sound and sound < self._segment_bytes:
                start = last
        else:
            self._released = committed
        self.end = end
        self._new_segment(end if start is None else start)
        if group_commit:
            self._thread = threading.Thread(target=self._run, name="wal", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Write what is waiting, then stop. Safe twice, and safe without `open`."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._thread:
            self._thread.join()
            self._thread = None
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        with self._readable:
            self._readable.notify_all()

    def after_fork_in_child(self) -> None:
        """The log is the parent's: a child has no thread that writes it, and must not."""
        descriptor, self._descriptor = self._descriptor, -1
        self._wake, self._readable = threading.Condition(), threading.Condition()
        self._io = threading.Lock()
        self._closing, self._thread = True, None
        if descriptor >= 0:
            os.close(descriptor)

    # ------------------------------------------------------------------ write

    @property
    def backlog(self) -> int:
        """Bytes that are logged, or wait to be, and not yet released."""
        return self.end - self._released + self._queued_bytes

    def append(self, signal: Signal, encoding: Encoding, body: bytes) -> Future[int]:
        """Queue a record; the future completes with the position behind it once it is durable.

        Raises:
            Overloaded: the log is at its size limit, or is closing.
            StoreError: the disk refused an earlier write.
        """
        size = HEADER_BYTES + len(body)
        future: Future[int] = Future()
        waiting = _Waiting(self._head(signal, encoding, body), body, future)
        with self._wake:
            if self._broken is not None:
                raise StoreError(f"the write-ahead log cannot be written: {self._broken}")
            if self._closing:
                raise Overloaded("shutting down", 1.0)
            self._waiting.append(waiting)
            self._queued_bytes += size
            self._wake.notify()
        return future

    def append_now(self, signal: Signal, encoding: Encoding, body: bytes) -> int:
        """Write a record in the calling thread; the position behind it, once it is durable.

        Raises:
            Overloaded: the log is at its size limit, or the disk is full.
            OSError: the disk refused for another reason.
        """
        waiting = _Waiting(self._head(signal, encoding, body), body, Future())
        try:
            return self._write([waiting])[0]
        except OSError as error:
            if not self._cut_back(error):
                raise
            raise _refused(error) from error

    def _head(self, signal: Signal, encoding: Encoding, body: bytes) -> bytes:
        if self.backlog + HEADER_BYTES + len(body) > self._max_bytes:
            raise Overloaded("the write-ahead log is full; the lake is behind", 2.0)
        ids = _SIGNALS.index(signal), _ENCODINGS.index(encoding)
        now = time.time_ns()
        return _HEADER.pack(_MAGIC, len(body), *ids, now, _crc(body, len(body), *ids, now))

    def _cut_back(self, error: OSError) -> bool:
        """Cut off what a full disk left of a group; whether the log goes on when there is room."""
        if error.errno not in _NO_ROOM:
            return False
        try:
            with self._io:
                os.ftruncate(self._descriptor, self._size)
        except OSError:
            return False
        return True

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closing:
                    self._wake.wait()
                group = [
                    self._waiting.popleft() for _ in range(min(len(self._waiting), _IOV_MAX // 2))
                ]
            if not group:
                return
            try:
                ends = self._write(group)
            except OSError as error:
                over = not self._cut_back(error)
                with self._wake:
                    if over:
                        self._broken = error
                        group += self._waiting
                        self._waiting.clear()
                        self._queued_bytes = 0
                    else:
                        self._queued_bytes -= sum(HEADER_BYTES + len(w.body) for w in group)
                for waiting in group:
                    waiting.future.set_exception(_refused(error))
                if over:
                    return
                continue
            with self._wake:
                self._queued_bytes -= sum(HEADER_BYTES + len(w.body) for w in group)
            for waiting, end in zip(group, ends, strict=True):
                waiting.future.set_result(end)

    def _write(self, group: list[_Waiting]) -> list[int]:
        with self._io:
            return self._write_group(group)

    def roll(self) -> None:
        """Start a new segment, so that everything before it can be released."""
        with self._io:
            if self._size and self._descriptor >= 0:
                self._new_segment(self.end)

    def _write_group(self, group: list[_Waiting]) -> list[int]:
        if self._size >= self._segment_bytes:
            self._new_segment(self.end)
        parts: list[bytes | memoryview] = []
        ends, end = [], self.end
        for waiting in group:
            parts += (waiting.head, waiting.body)
            end += len(waiting.head) + len(waiting.body)
            ends.append(end)
        _write_all(self._descriptor, parts)
        os.fdatasync(self._descriptor)
        self._size += end - self.end
        with self._readable:
            self.end = end
            self._readable.notify_all()
        return ends

    def _new_segment(self, start: int) -> None:
        path = self._folder / _name(start)
        before = self._descriptor
        fresh = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(fresh).st_size
            if not size:  # whoever wrote into it has synced its name before
                files.sync_directory(self._folder)
        except BaseException:
            os.close(fresh)
            raise
        # Only now: a closed descriptor that is still ours would write into whatever file gets its
        # number.
        self._descriptor = fresh
        self._segment_start, self._size = start, size
        if before >= 0:
            os.close(before)

    # ------------------------------------------------------------------ read

    def _segments(self) -> list[int]:
        return sorted(int(p.stem) for p in self._folder.glob("*.wal"))

    def wait(self, position: int, timeout_s: float) -> bool:
        """Wait until the log reaches behind `position`; whether it does."""
        with self._readable:
            return self._readable.wait_for(
                lambda: self.end > position or self._closing, timeout_s
            ) and (self.end > position)

    def read(self, position: int, limit: int | None = None) -> Iterator[Entry]:
        """Entries from `position` to what is durable now (or to `limit`), in order."""
        end = min(self.end, limit) if limit is not None else self.end
        segments = self._segments()
        for i, start in enumerate(segments):
            stop = segments[i + 1] if i + 1 < len(segments) else end
            if stop <= position or start >= end:
                continue
            with (self._folder / _name(start)).open("rb") as file:
                yield from self._read_segment(file, start, max(position, start), min(stop, end))

    def _read_segment(self, file: object, start: int, at: int, stop: int) -> Iterator[Entry]:
        assert hasattr(file, "seek") and hasattr(file, "read")  # noqa: S101, PT018
        file.seek(at - start)
        while at < stop:
            head = file.read(HEADER_BYTES)
            record = _parse_head(head)
            if record is not None and at + HEADER_BYTES + record[0] <= stop:
                length, signal, encoding, received, crc = record
                body = file.read(length)
                if len(body) == length and crc == _crc(body, length, signal, encoding, received):
                    end = at + HEADER_BYTES + length
                    yield Entry(at, end, _SIGNALS[signal], _ENCODINGS[encoding], received, body)
                    at = end
                    continue
            file.seek(at - start)
            rest = file.read(stop - at)
            skip = _next_sound(rest) or stop - at  # nothing at all: the file is too short
            text = (
                f"{skip} bytes at log position {at} in {_name(start)} are damaged and were skipped"
            )
            if text not in self.damaged:  # another reader may have said so
                self.damaged.append(text)
            at += skip
            file.seek(at - start)

    def release(self, position: int) -> None:
        """Remove the segments that end at or before `position`; the lake holds them durably.

        Segments that a `Hold` needs stay, as long as the log is within its limit.
        """
        segments = self._segments()
        self._take_from_slow(segments)
        kept = min([position, *(hold.position for hold in self._holds)])
        gone = [start for start, following in pairwise(segments) if following <= kept]
        for start in gone:
            (self._folder / _name(start)).unlink()
        self._released = max(self._released, position)

    # ------------------------------------------------------------------ slow readers

    def hold(self, hold: Hold) -> None:
        """Keep what a reader has not read yet, from now on. Before `open`, or nothing is sure."""
        self._holds.append(hold)

    def oldest(self) -> int:
        """The position of the oldest request that may still be read."""
        return min(self._segments(), default=self.end)

    def _take_from_slow(self, segments: list[int]) -> None:
        """Move holds forward that alone make the log longer than its limit."""
        needed = self.end - self._max_bytes
        first = next((start for start in segments if start >= needed), self.end)
        for hold in self._holds:
            if hold.position < needed:
                lost = self.read(hold.position, first)
                hold.skip(first, sum(entry.signal in hold.signals for entry in lost))


class Hold:
    """How far one reader of the log has come. Moved by the reader, and by the log when it must."""

    def __init__(self, position: int, signals: frozenset[Signal]) -> None:
        self._lock = threading.Lock()
        self.signals = signals
        """What it reads; other requests are not missed when they are skipped."""
        self.position = position
        """Everything from here on is kept for it."""
        self.lost = 0
        """Requests that were taken from it because it was too slow."""

    def advance(self, position: int) -> None:
        """The reader is done with everything before a position."""
        with self._lock:
            self.position = max(self.position, position)

    def skip(self, position: int, lost: int) -> None:
        """The log gives up what is before a position."""
        with self._lock:
            self.position = max(self.position, position)
            self.lost += lost


def _refused(error: OSError) -> Overloaded:
    return Overloaded(f"the write-ahead log cannot be written: {error.strerror}", 5.0)


def _parse_head(head: bytes) -> tuple[int, int, int, int, int] | None:
    if len(head) < HEADER_BYTES:
        return None
    magic, length, signal, encoding, received, crc = _HEADER.unpack(head)
    if magic != _MAGIC or signal >= len(_SIGNALS) or encoding >= len(_ENCODINGS):
        return None
    return length, signal, encoding, received, crc


def _record_end(raw: bytes, at: int) -> int | None:
    """The end of the sound record at `at`, or None."""
    record = _parse_head(raw[at : at + HEADER_BYTES])
    if record is None:
        return None
    length, signal, encoding, received, crc = record
    end = at + HEADER_BYTES + length
    if end > len(raw):
        return None
    if crc != _crc(raw[at + HEADER_BYTES : end], length, signal, encoding, received):
        return None
    return end


def _next_sound(raw: bytes) -> int:
    """Offset of the first sound record behind the start of `raw`, or its length."""
    at = raw.find(_MAGIC, 1)
    while at >= 0:
        if _record_end(raw, at) is not None:
            return at
        at = raw.find(_MAGIC, at + 1)
    return len(raw)


def _sound_end(raw: bytes) -> int:
    """Where the sound records of a segment end; damage with sound records behind it is inside."""
    at = 0
    while at < len(raw):
        end = _record_end(raw, at)
        if end is None:
            skip = _next_sound(raw[at:])
            if at + skip >= len(raw):
                return at
            end = at + skip
        at = end
    return at


def _write_all(descriptor: int, parts: list[bytes | memoryview]) -> None:
    while parts:
        written = os.writev(descriptor, parts[:_IOV_MAX])
        while parts and written >= len(parts[0]):
            written -= len(parts.pop(0))
        if written:
            parts[0] = memoryview(parts[0])[written:]
