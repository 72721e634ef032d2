"""`engram import`: OTLP files into the lake, by the same road as what comes over a socket.

The running collector of the home takes the requests over its control socket, so they are checked,
redacted and stored like any other; where none runs, the engine is opened in this process. Records
that are stored already are recognised, so an import that broke off is simply run again.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

from engram.collector import control, otlp_survey
from engram.collector.otlp_files import MOST, Format, OtlpFile, Record
from engram.exporters.errors import BadRequest, EngramError, Overloaded
from engram.exporters.home import Home
from engram.exporters.otlp.json import to_protobuf
from engram.exporters.signals import Encoding, Signal

if TYPE_CHECKING:
    from engram.collector.config import Config

_IN_FLIGHT: Final = 4
"""Requests on their way at once: they share an fdatasync."""

_IN_FLIGHT_BYTES: Final = 64 << 20
_PATIENCE_S: Final = 60.0
"""How long a collector that is full, or restarting, is waited for."""

_FLUSH_S: Final = 600.0
_SAID: Final = 10
"""Problems of a file that are said one by one."""

_PROGRESS_S: Final = 0.25

_RECENT: Final = 400_000
"""Above so many records, what was stored before is also looked for in the lake (`sweep`)."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The answer to one request."""

    rejected: int
    message: str


class Road(Protocol):
    """Who takes requests."""

    def send(self, signal: Signal, body: bytes) -> Taken:
        """Hand over a request; returns when it is durable.

        Raises:
            BadRequest: it can never be taken.
            Overloaded: not now.
        """
        ...

    def finish(self, records: int) -> int:
        """Wait until all can be queried; how many records had been stored before."""
        ...


class Running:
    """The collector of the home, over its control socket."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._before = int(control.ask(home, "status")["duplicates"])

    def send(self, signal: Signal, body: bytes) -> Taken:
        """See `Road`."""
        answer = control.admit(self._home, signal, body)
        return Taken(int(answer["rejected"]), str(answer["message"]))

    def finish(self, records: int) -> int:
        """See `Road`. What others re-send meanwhile is counted too."""
        control.ask(self._home, "flush", timeout_s=_FLUSH_S)
        found = int(control.ask(self._home, "status")["duplicates"]) - self._before
        if records > _RECENT:
            found += int(control.ask(self._home, "sweep", timeout_s=_FLUSH_S)["removed"])
        return max(0, found)


class Alone:
    """The engine in this process, for a home that nobody writes to."""

    def __init__(self, home: Home, config: Config) -> None:
        from engram.collector.roles.collect import engine_settings
        from engram.exporters.engine import Engine

        self._engine = Engine(home, engine_settings(config))

    @contextmanager
    def running(self) -> Iterator[Alone]:
        """Hold the home's lock meanwhile.

        Raises:
            HomeBusy: another process writes to this home.
        """
        self._engine.start()
        try:
            yield self
        finally:
            with contextlib.suppress(TimeoutError, EngramError):  # what is durable can be queried
                self._engine.wait_committed(self._engine.end, _PATIENCE_S)
            self._engine.shutdown(30)

    def send(self, signal: Signal, body: bytes) -> Taken:
        """See `Road`."""
        admission = self._engine.admit(signal, body, Encoding.IDENTITY).result(_PATIENCE_S)
        return Taken(admission.rejected, admission.message)

    def finish(self, records: int) -> int:
        """See `Road`."""
        self._engine.wait_committed(self._engine.end, _FLUSH_S)
        found = self._engine.counters.duplicates
        if records > _RECENT:
            found += self._engine.sweep(_FLUSH_S)
        return found


@dataclass(slots=True)
class Counts:
    """What an import did."""

    files: int = 0
    requests: int = 0
    accepted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(Signal, 0))
    """Records by signal that are durable, those that were stored before too."""

    rejected: int = 0
    """Records that can never be stored (spans without a valid id)."""

    bad: int = 0
    """Requests, lines or frames that could not be read."""

    stored_before: int = 0
    """Records that were in the lake already, so that they are not in it twice."""

    @property
    def records(self) -> int:
        """All that are durable."""
        return sum(self.accepted.values())

    def facts(self) -> dict[str, Any]:
        """For people and programs."""
        return {
            "files": self.files,
            "requests": self.requests,
            **{str(signal): count for signal, count in self.accepted.items()},
            "stored_before": self.stored_before,
            "rejected": self.rejected,
            "bad": self.bad,
        }


class Stopped(EngramError):
    """`--strict` met something bad."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to read."""

    format: Format = "auto"
    signal: Signal | None = None
    strict: bool = False


def run(
    home: Home, config: Config, files: Iterable[str], options: Options, notes: TextIO
) -> Counts:
    """Import files in their order; problems and progress go to `notes`.

    Raises:
        NotFound: one of the files is not there; nothing was imported then.
        HomeBusy: another process writes to the home and does not answer.
        Stopped: with `strict`, the first problem.
        EngramError: the collector went away.
    """
    with ExitStack() as stack:
        opened = []
        for path in files:
            file = OtlpFile(path, options.format)
            stack.callback(file.close)
            opened.append(file)
        road: Road
        try:
            road = Running(home)
        except control.NotRunning:
            road = stack.enter_context(Alone(home, config).running())
        work = _Import(road, options, notes)
        try:
            for file in opened:
                work.file(file)
            work.settle()
        finally:
            work.progress.clear()
            work.pool.shutdown()
        work.counts.stored_before = road.finish(work.counts.records)
        return work.counts


class _Import:
    """One run: requests on their way, counts, and what was said."""

    def __init__(self, road: Road, options: Options, notes: TextIO) -> None:
        self._road = road
        self._options = options
        self._notes = notes
        self._waiting: deque[tuple[Future[Taken], str, str, Signal, int, int]] = deque()
        self._bytes = 0
        self._said: dict[str, int] = {}
        self.counts = Counts()
        self.pool = ThreadPoolExecutor(_IN_FLIGHT, "import")
        self.progress = _Progress(notes)

    def file(self, file: OtlpFile) -> None:
        self.counts.files += 1
        for record in file.records():
            if record.problem:
                self._bad(file.path, record.where, record.problem)
            else:
                self._record(file, record)
            self.progress.show(file, self.counts)
        self.settle()
        unsaid = self._said.get(file.path, 0) - _SAID
        if unsaid > 0:
            self._say(f"{file.path}: and {unsaid:,} more problems like these")

    def settle(self) -> None:
        """Wait for all that is on its way."""
        while self._waiting:
            self._answer()

    def _record(self, file: OtlpFile, record: Record) -> None:
        signal = self._options.signal or record.signal
        if signal is None:  # a request without records
            return
        try:
            body = to_protobuf(signal, record.body, MOST) if record.is_json else record.body
            _, count = otlp_survey.survey(body, signal)
        except (BadRequest, ValueError) as error:
            self._bad(file.path, record.where, str(error))
            return
        while self._waiting and (
            len(self._waiting) >= _IN_FLIGHT or self._bytes + len(body) > _IN_FLIGHT_BYTES
        ):
            self._answer()
        self._bytes += len(body)
        future = self.pool.submit(_patiently, self._road, signal, body)
        self._waiting.append((future, file.path, record.where, signal, count, len(body)))

    def _answer(self) -> None:
        future, path, where, signal, count, size = self._waiting.popleft()
        self._bytes -= size
        try:
            taken = future.result()
        except BadRequest as error:
            self._bad(path, where, str(error))
            return
        self.counts.requests += 1
        self.counts.accepted[signal] += count - taken.rejected
        self.counts.rejected += taken.rejected
        if taken.rejected:
            self._problem(path, where, taken.message)

    def _bad(self, path: str, where: str, problem: str) -> None:
        self.counts.bad += 1
        self._problem(path, where, problem)

    def _problem(self, path: str, where: str, problem: str) -> None:
        text = f"{path}: {where}: {problem}" if where else f"{path}: {problem}"
        if self._options.strict:
            raise Stopped(f"{text} (what stood before it is stored)")
        self._said[path] = self._said.get(path, 0) + 1
        if self._said[path] <= _SAID:
            self._say(text)

    def _say(self, text: str) -> None:
        from engram.collector.output import printable

        self.progress.clear()
        self._notes.write(f"engram: {printable(text)}\n")


def _patiently(road: Road, signal: Signal, body: bytes) -> Taken:
    """Send, and again while the collector is full or restarts."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return road.send(signal, body)
        except (Overloaded, control.NotRunning) as error:
            pause = error.retry_after_s if isinstance(error, Overloaded) else 1.0
            if time.monotonic() + pause > deadline:
                raise EngramError(
                    f"the collector takes nothing for {_PATIENCE_S:.0f} s: {error}; "
                    "run the same import again later, what is stored stays stored once"
                ) from error
            time.sleep(pause)


class _Progress:
    """One line on a terminal that overwrites itself; elsewhere nothing."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._on = out.isatty()
        self._next = 0.0
        self._shown = False

    def show(self, file: OtlpFile, counts: Counts) -> None:
        """Where we are, a few times a second."""
        now = time.monotonic()
        if not self._on or now < self._next:
            return
        self._next = now + _PROGRESS_S
        part = f" {100 * file.place // file.size} %" if file.size else ""
        self._out.write(f"\r\x1b[K{file.path}{part}  {counts.records:,} records")
        self._out.flush()
        self._shown = True

    def clear(self) -> None:
        """Make room for something else."""
        if self._shown:
            self._out.write("\r\x1b[K")
            self._out.flush()
            self._shown = False


def exit_code(counts: Counts) -> int:
    """0 when all of it is stored, 1 when something could not be."""
    return 1 if counts.bad or counts.rejected else 0
