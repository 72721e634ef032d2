"""`engram up`: the supervisor of `collect`, `learn` and `serve`.

One thread, one `select`, standard library only: it must stay small (~20 MB), as it does nothing.
Children tell by a pipe that they are ready; they notice our death by the end of their stdin (and by
PR_SET_PDEATHSIG on Linux), so that nothing is left over even after `kill -9` of the supervisor.

An early refusal is final: a child that exits by itself before it was ever ready (port in use, home
busy, bad configuration) has said why, and trying again would say it again. Later exits are crashes.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import IO, Any, Final

FIRST_BACKOFF_S: Final = 0.2
LAST_BACKOFF_S: Final = 10.0
HEALTHY_S: Final = 30.0
"""A child that ran this long is healthy: its next crash is restarted at once again."""

STOP_S: Final = 5.0
"""All children are gone this long after the supervisor was told to stop."""

_DRAIN_S: Final = 4.0
"""SIGTERM gets this much of it, then SIGKILL (the write-ahead log makes that safe)."""


@dataclass(slots=True)
class _Child:
    name: str
    arguments: list[str]
    essential: bool
    """Whether `up` makes no sense when it cannot start."""

    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    restart_at: float | None = None
    backoff: float = FIRST_BACKOFF_S
    facts: dict[str, Any] | None = None
    """What it said when it was ready, the last time."""

    line: bytes = b""
    word: bytes = b""
    pipes: list[int] = field(default_factory=list)


class Supervisor:
    """Keeps the children alive until told to stop."""

    def __init__(self, arguments: Sequence[str], *, home: str | None, as_json: bool) -> None:
        self._common = list(arguments)
        self._home = home
        self._json = as_json
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._announced = False
        self._code = 0
        self._children: list[_Child] = []

    def run(self) -> int:
        """Run until SIGTERM, SIGINT, or a child that cannot start; the exit code."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # wakes the select
        self._selector.register(reader, selectors.EVENT_READ, None)
        try:
            # collect knows the home and the configuration, so the others wait for its word.
            self._start(self._add("collect", [], essential=True))
            while not self._stopping:
                self._turn(self._next_wake(), reader)
        finally:
            self._stop_all(reader)
        return self._code

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    # -- children ----------------------------------------------------------------------------------

    def _add(self, name: str, more: list[str], *, essential: bool) -> _Child:
        child = _Child(name, [*self._common, name, *more], essential)
        self._children.append(child)
        return child

    def _start(self, child: _Child) -> None:
        ready_reader, ready_writer = os.pipe()
        command = [sys.executable, "-P", "-m", "engram.collector.cli"]
        command += [*child.arguments, "--ready-fd", str(ready_writer)]
        child.process = subprocess.Popen(  # noqa: S603 - our own command line
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(ready_writer,),
        )
        os.close(ready_writer)
        child.started, child.restart_at = time.monotonic(), None
        child.line = child.word = b""
        output = child.process.stdout
        if output is None:
            raise AssertionError("a pipe was asked for")
        child.pipes = [output.fileno(), ready_reader]
        for pipe, kind in zip(child.pipes, ("log", "ready"), strict=True):
            os.set_blocking(pipe, False)
            self._selector.register(pipe, selectors.EVENT_READ, (child, kind))

    def _next_wake(self) -> float:
        waits = [child.restart_at for child in self._children if child.restart_at is not None]
        return max(0.0, min(waits) - time.monotonic()) if waits else 3600.0

    def _turn(self, timeout: float, wake: int) -> None:
        """Wait for something to happen, and see to it."""
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 4096)
            else:
                child, kind = key.data
                self._read(child, kind, key.fd)
        now = time.monotonic()
        for child in list(self._children):
            if child.process is not None and child.process.poll() is not None:
                self._ended(child, now)
            elif child.restart_at is not None and now >= child.restart_at and not self._stopping:
                self._start(child)

    def _read(self, child: _Child, kind: str, pipe: int) -> None:
        try:
            data = os.read(pipe, 65536)
        except BlockingIOError:
            return
        if kind == "ready":
            child.word += data
            if not data:
                self._unregister(child, pipe)
                with contextlib.suppress(ValueError):  # it died in the middle of the word
                    self._ready(child, json.loads(child.word))
            return
        if not data:
            self._unregister(child, pipe)
        *lines, child.line = (child.line + data).split(b"\n")
        if (not data and child.line) or len(child.line) > 65536:
            lines, child.line = [*lines, child.line], b""
        for line in lines:
            _say(child.name, line)

    def _unregister(self, child: _Child, pipe: int) -> None:
        self._selector.unregister(pipe)
        child.pipes.remove(pipe)
        output = child.process.stdout if child.process else None
        if output is not None and _is(output, pipe):
            output.close()
        else:
            os.close(pipe)

    def _ended(self, child: _Child, now: float) -> None:
        process = child.process
        if process is None:
            return
        for pipe in list(child.pipes):  # the last words
            for _ in range(64):
                if pipe not in child.pipes:
                    break
                self._read(child, "log" if _is(process.stdout, pipe) else "ready", pipe)
        for pipe in list(child.pipes):  # a grandchild may still hold the other end
            self._unregister(child, pipe)
        if process.stdin is not None:
            process.stdin.close()
        child.process = None
        if self._stopping:
            return
        code = process.returncode
        if child.facts is None and child.essential and code >= 0:
            self._code, self._stopping = code or 1, True
            return
        if now - child.started >= HEALTHY_S:
            child.backoff = FIRST_BACKOFF_S
        how = f"was killed by {_signal_name(-code)}" if code < 0 else f"exited with {code}"
        _say("up", f"{child.name} {how}; starting it again in {child.backoff:g} s".encode())
        child.restart_at = now + child.backoff
        child.backoff = min(child.backoff * 2, LAST_BACKOFF_S)

    def _ready(self, child: _Child, facts: dict[str, Any]) -> None:
        again, child.facts = child.facts is not None, facts
        if again:
            _say("up", f"{child.name} is back (process {facts['pid']})".encode())
            return
        if child.name == "collect":
            self._home = str(facts["home"])
            self._common = ["--home", self._home]
            for option, given in (("--config", facts["config"]), ("--set", facts["set"])):
                for text in given:
                    self._common += [option, str(text)]
            child.arguments = [*self._common, "collect"]
            self._start(self._add("learn", [], essential=False))
            if facts.get("api"):
                self._start(self._add("serve", [], essential=True))
        waited = [one for one in self._children if one.essential]
        if not self._announced and all(one.facts is not None for one in waited):
            self._announced = True
            self._announce()

    def _announce(self) -> None:
        endpoints: dict[str, str] = {}
        for child in self._children:
            endpoints |= (child.facts or {}).get("endpoints", {})
        if self._json:
            pids = {one.name: one.process.pid for one in self._children if one.process}
            facts = {"ready": True, "home": self._home, "endpoints": endpoints}
            text = json.dumps({**facts, "pid": os.getpid(), "children": pids})
        else:
            text = banner(str(self._home), endpoints)
        with contextlib.suppress(OSError):
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def _stop_all(self, wake: int) -> None:
        """Near end first: nothing is accepted any more while what was accepted is finished."""
        begun = time.monotonic()
        self._stopping = True
        for child in self._children:
            if child.process is not None:
                child.process.terminate()
        killed = False
        while any(child.process is not None for child in self._children):
            left = begun + _DRAIN_S - time.monotonic()
            if left <= 0 and not killed:
                killed = True
                for child in self._children:
                    if child.process is not None:
                        _say("up", f"{child.name} does not stop; killing it".encode())
                        child.process.kill()
            if time.monotonic() - begun > STOP_S:
                break
            self._turn(max(0.05, min(left, 0.5)), wake)


def _is(stream: IO[bytes] | None, pipe: int) -> bool:
    return stream is not None and not stream.closed and stream.fileno() == pipe


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _say(name: str, line: bytes) -> None:
    with contextlib.suppress(OSError):  # nobody reads our log any more: go on without
        sys.stderr.buffer.write(f"{name:7} | ".encode() + line + b"\n")
        sys.stderr.buffer.flush()


def banner(home: str, endpoints: dict[str, str]) -> str:
    """What to do next, ready to be copied."""
    otlp = endpoints.get("otlp_http") or endpoints.get("otlp_grpc") or ""
    protocol = "http/protobuf" if "otlp_http" in endpoints else "grpc"
    names = {
        "otlp_http": "OTLP/HTTP",
        "otlp_grpc": "OTLP/gRPC",
        "api": "page",
        "health_check": "health",
    }
    where = [f"  {names.get(key, key):10} {url}" for key, url in endpoints.items()]
    return "\n".join(
        [
            "",
            f"Engram is up. Home: {home}",
            *where,
            "",
            "Send it the telemetry of any program:",
            f"  export OTEL_EXPORTER_OTLP_ENDPOINT={otlp}",
            f"  export OTEL_EXPORTER_OTLP_PROTOCOL={protocol}",
            "  export OTEL_TRACES_EXPORTER=otlp",
            "  export OTEL_LOGS_EXPORTER=otlp",
            "  export OTEL_METRICS_EXPORTER=otlp",
            "  export OTEL_SERVICE_NAME=my-app",
            "  opentelemetry-instrument python app.py    # pip install opentelemetry-distro",
            "",
            "Ask it, while it runs:",
            '  engram search "what failed?"',
            '  engram sql "SELECT type, count(*) FROM memories GROUP BY type"',
            "",
            "Ctrl-C stops it.",
        ]
    )
