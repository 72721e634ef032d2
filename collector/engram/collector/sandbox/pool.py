"""Starts, times and ends the workers. Safe for several threads."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from engram.collector.sandbox.limits import Limits, Result, TooExpensive
from engram.collector.sandbox.worker import LENGTH
from engram.exporters.errors import BadRequest, NotFound, Overloaded, StoreError
from engram.exporters.home import Home
from engram.exporters.itself.notes import NOTES

_START_S: Final = 60.0
"""A worker imports DuckDB and attaches the lake: 0.5 s, and more on a busy machine."""


class Sandbox:
    """Runs strangers' queries over one home. Constructing starts nothing."""

    def __init__(self, home: Home, limits: Limits | None = None) -> None:
        self._home = home
        self.limits = limits or Limits()
        self._turn = threading.BoundedSemaphore(self.limits.workers)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._closed = False
        self._timer: threading.Timer | None = None

    def run(self, sql: str, max_rows: int | None = None, timeout_s: float | None = None) -> Result:
        """Run one SELECT.

        Raises:
            BadRequest: it is not allowed, or wrong; the text says what to do.
            TooExpensive: it needed more time or memory than there is for one query.
            NotFound: this home has no lake.
            Overloaded: other queries are running; later it goes.
            StoreError: no worker can be started, or the lake cannot be read.
        """
        limits = self.limits
        if len(sql) > limits.max_sql:
            raise BadRequest(f"a statement has at most {limits.max_sql} characters")
        rows = limits.max_rows if max_rows is None else min(max_rows, limits.max_rows)
        if rows < 1:
            raise BadRequest(f"max_rows must be at least 1, not {max_rows}")
        seconds = limits.timeout_s if timeout_s is None else timeout_s
        if not 0 < seconds <= limits.most_timeout_s:
            raise BadRequest(f"timeout_s must be more than 0 and at most {limits.most_timeout_s}")
        if not self._turn.acquire(timeout=limits.wait_s):
            raise Overloaded(
                f"{limits.workers} queries are running already; ask again in a moment", 2.0
            )
        began = time.perf_counter()
        try:
            question = {"sql": sql, "max_rows": rows}
            answer, used_before = self._ask(question, seconds)
            if answer.get("error", {}).get("kind") == "lake" and used_before:
                # Files of the catalogue may have been made anew since this worker was confined.
                answer, _ = self._ask(question, seconds)
        finally:
            self._turn.release()
            NOTES.statement(sql, (time.perf_counter() - began) * 1e3)
        return _result(answer)

    @property
    def confinement(self) -> tuple[str, ...]:
        """Which layers hold for a worker on this machine; starts one if none is there."""
        worker, _ = self._take()
        self._put(worker)
        return worker.held

    def close(self) -> None:
        """End the workers. Safe twice."""
        with self._lock:
            self._closed = True
            workers, self._idle = self._idle, []
            if self._timer is not None:
                self._timer.cancel()
        for worker in workers:
            worker.end()

    def _ask(self, question: dict[str, Any], seconds: float) -> tuple[dict[str, Any], bool]:
        worker, used_before = self._take()
        try:
            answer = worker.ask(question, seconds, self.limits)
        except BaseException:
            worker.end()
            raise
        if "error" in answer:  # only one that has nothing behind it is asked again
            worker.end()
        else:
            self._put(worker)
        return answer, used_before

    def _take(self) -> tuple[_Worker, bool]:
        if not self._home.catalog.exists():
            raise NotFound(
                f"no lake in {self._home.root}; start one with: engram up --home {self._home.root}"
            )
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.process.poll() is None:
                    return worker, True
                worker.end()
        return _Worker.start(self._home, self.limits), False

    def _put(self, worker: _Worker) -> None:
        with self._lock:
            if not self._closed:
                worker.since = time.monotonic()
                self._idle.append(worker)
                self._look_later()
                return
        worker.end()

    def _look_later(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(self.limits.idle_s, self._end_idle)
            self._timer.daemon = True
            self._timer.start()

    def _end_idle(self) -> None:
        before = time.monotonic() - self.limits.idle_s * 0.9
        with self._lock:
            self._timer = None
            ended = [one for one in self._idle if one.since <= before]
            self._idle = [one for one in self._idle if one.since > before]
            if self._idle and not self._closed:
                self._look_later()
        for worker in ended:
            worker.end()


@dataclass(slots=True)
class _Worker:
    """One process, asked by one thread at a time."""

    process: subprocess.Popen[bytes]
    asks: int
    answers: int
    """Descriptors of its input and output."""
    held: tuple[str, ...] = ()
    since: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, home: Home, limits: Limits) -> _Worker:
        """Start one and wait until it can be asked."""
        settings = {
            "home": str(Path(home.root).resolve()), "memory": limits.memory,
            "threads": limits.threads, "address_space": limits.address_space,
            "max_cell": limits.max_cell, "max_bytes": limits.max_bytes,
        }  # fmt: skip
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell
            [sys.executable, "-I", "-m", "engram.collector.sandbox.worker", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,
            bufsize=0,
        )
        asks, answers = (one.fileno() if one else -1 for one in (process.stdin, process.stdout))
        worker = cls(process, asks, answers)
        try:
            first = worker._read(time.monotonic() + _START_S, 1 << 16)
        except BaseException as error:
            worker.end()
            if isinstance(error, TimeoutError | EOFError):
                raise StoreError(
                    "the process for queries does not start; `engram sql` says why"
                ) from error
            raise
        if "error" in first:
            worker.end()
            _result(first)
        worker.held = tuple(first.get("ready", ()))
        return worker

    def ask(self, question: dict[str, Any], seconds: float, limits: Limits) -> dict[str, Any]:
        """The answer to one question; late or dead is `TooExpensive`."""
        body = json.dumps(question).encode()
        try:
            waiting = memoryview(LENGTH.pack(len(body)) + body)
            while waiting:
                waiting = waiting[os.write(self.asks, waiting) :]
            # Escaped twice, a byte of the rows may be four.
            return self._read(time.monotonic() + seconds, 4 * limits.max_bytes + (1 << 16))
        except TimeoutError as error:
            raise TooExpensive(
                f"the query took longer than {seconds:g} s and was stopped; ask for less time, "
                "filter by time_unix_nano or type, or aggregate"
            ) from error
        except (EOFError, BrokenPipeError, ValueError) as error:
            raise TooExpensive(
                f"the query ended its process: it needed more memory than {limits.memory} or "
                "was nested too deeply; ask for fewer rows or columns"
            ) from error

    def _read(self, deadline: float, most: int) -> dict[str, Any]:
        """The next frame, in time and not larger than can be meant."""
        length = LENGTH.unpack(self._bytes(LENGTH.size, deadline))[0]
        if length > most:
            raise ValueError("a worker answers more than it may")
        frame = json.loads(self._bytes(length, deadline))
        if not isinstance(frame, dict):
            raise ValueError("a worker answers what is no answer")
        return frame

    def _bytes(self, count: int, deadline: float) -> bytes:
        found = bytearray()
        poll = select.poll()  # select() fails where a process has more than 1,024 files
        poll.register(self.answers, select.POLLIN)
        while len(found) < count:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise TimeoutError
            part = os.read(self.answers, min(count - len(found), 1 << 20))
            if not part:
                raise EOFError
            found += part
        return bytes(found)

    def end(self) -> None:
        """Kill it and all it may have started. Safe twice."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


def _result(answer: dict[str, Any]) -> Result:
    """The result, or the error that a worker told."""
    failed = answer.get("error")
    if failed is None:
        return Result(
            tuple(answer["columns"]),
            tuple(answer["types"]),
            tuple(tuple(row) for row in json.loads(answer["rows"])),
            bool(answer["truncated"]),
            float(answer["elapsed_ms"]),
        )
    text = str(failed["text"])
    match failed["kind"]:
        case "not_found":
            raise NotFound(text)
        case "memory":
            raise TooExpensive(
                f"the query needs more memory than there is for one: {text}; "
                "filter, aggregate, or ask for fewer columns"
            )
        case "lake" | "inside":
            raise StoreError(f"the query failed inside: {text}")
        case _:
            raise BadRequest(text)
