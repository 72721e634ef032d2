"""When jobs run, and what became of each run.

A job looks at a window of event time: from its watermark to now. The watermark moves when what was
found is durable, so a crash between finds it again, which changes nothing. One job's failure is its
own: it is written down, its watermark stays, and the others run. After days off the first run has
those days in its window; a window that costs more than the budget is halved until it does not.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from engram.exporters import files
from engram.exporters.ask import ask
from engram.exporters.errors import EngramError, NotFound, StoreError
from engram.exporters.home import Home
from engram.exporters.signals import Signal
from engram.learning.jobs.budget import Budget, OverBudget, within
from engram.learning.jobs.insight import Insight, request
from engram.learning.jobs.window import Window

if TYPE_CHECKING:
    import polars as pl

_LOG: Final = logging.getLogger("engram.learn")

EVERY_S: Final = 300.0
"""Between the runs of all jobs."""

FIRST_S: Final = 20.0
"""Before the first one: an app that starts with Engram has something to say first."""

_KEPT: Final = 200
"""Runs that the ledger keeps."""

_EVENTS: Final = 1_000
"""Insights of one request."""

_LEAST: Final = 300 * 10**9
"""A window is not halved below this."""


Read = Callable[[str, Sequence[Any]], "pl.DataFrame"]
"""Rows of a query over the lake."""


class Job(Protocol):
    """A job. It MUST be a pure function of what it reads and the window.

    One with `patient = True` may look at a window later than others (`turns`).
    """

    name: str
    about: str
    """What it finds, in a line."""

    def run(self, read: Read, window: Window) -> Iterable[Insight]:
        """The insights of a window. The same window of the same lake MUST give the same."""
        ...


@dataclass(frozen=True, slots=True)
class Run:
    """A line of the ledger."""

    job: str
    began: float
    """Unix time."""
    seconds: float
    since: int
    until: int
    insights: int
    error: str = ""
    cpu_seconds: float = 0.0
    """Of this process while it ran."""
    peak_bytes: int = 0
    """The most resident memory that was seen while it ran."""
    over_budget: bool = False


class Runner:
    """Runs jobs over a home. Constructing opens nothing. Not for several threads."""

    def __init__(
        self,
        home: Home,
        jobs: Sequence[Job],
        *,
        clock: Callable[[], int] = time.time_ns,
        budget: Budget | None = None,
    ) -> None:
        self._home = home
        self._budget = budget
        self._jobs = {job.name: job for job in jobs}
        self._clock = clock
        self._path = home.root / "learn" / "jobs.json"
        self._marks: dict[str, int] = {}
        self.ledger: list[Run] = []
        self._load()

    def loop(
        self,
        stop: threading.Event,
        *,
        every_s: float = EVERY_S,
        after: Callable[[], None] | None = None,
    ) -> None:
        """Run all jobs now and then, until told to stop. `after` is called after each round."""
        wait = min(FIRST_S, every_s)
        while not stop.wait(wait):
            self.step(stop=stop)
            if after is not None:
                after()
            wait = every_s

    def step(
        self,
        names: Sequence[str] = (),
        *,
        since: int | None = None,
        stop: threading.Event | None = None,
    ) -> list[Run]:
        """Run all jobs, or some, from their watermarks or from `since`; how it went.

        Raises:
            NotFound: there is no such job.
        """
        for name in names:
            if name not in self._jobs:
                raise NotFound(f"no job {name!r}; there is: {', '.join(self._jobs)}")
        runs = []
        reader = Reader(self._home)  # attaching the lake costs half a second: once for all
        try:
            for name in names or self._jobs:
                if stop is not None and stop.is_set():
                    break
                runs.append(self._run(self._jobs[name], since, reader))
        finally:
            reader.close()
        return runs

    def last(self, name: str) -> Run | None:
        """How a job's last run went."""
        return next((run for run in reversed(self.ledger) if run.job == name), None)

    @property
    def jobs(self) -> Sequence[Job]:
        """All jobs, in their order."""
        return [*self._jobs.values()]

    def _run(self, job: Job, since: int | None, reader: Reader) -> Run:
        self._load()  # `engram jobs run` and `learn` share the file
        window = self._window(job.name, since)
        began, ticks, cpu = self._clock() / 1e9, time.monotonic(), time.process_time()
        found: list[Insight] = []
        error, over, peak = "", False, 0
        try:
            with within(self._budget, reader.interrupt) as spent:
                try:
                    found = list({one.id: one for one in job.run(reader.read, window)}.values())
                finally:
                    peak = spent()
            found.sort(key=lambda one: (one.time_unix_nano, one.id))
            for at in range(0, len(found), _EVENTS):
                body = request(found[at : at + _EVENTS])
                ask(self._home, "append", signal=str(Signal.LOGS), body=body, trusted=True)
        except OverBudget as failed:
            error, over = str(failed), True
        except EngramError as failed:
            error = str(failed)
        except Exception as failed:  # noqa: BLE001 - the others run, and this one again
            error = f"{type(failed).__name__}: {failed}"
            _LOG.exception("job %s failed", job.name)
        if error:
            reader.close()  # the next job attaches the lake afresh
        run = Run(
            job.name, began, round(time.monotonic() - ticks, 3), window.since, window.until,
            len(found), error, round(time.process_time() - cpu, 3), peak, over,
        )  # fmt: skip
        if not error and since is None:
            self._marks[job.name] = window.until
        self.ledger = [*self.ledger[1 - _KEPT :], run]
        self._save()
        if over:
            _LOG.warning("job %s: %s; the next run looks at half of it", job.name, error)
        elif found and not error:
            _LOG.info("job %s: %d insights", job.name, len(found))
        return run

    def _window(self, name: str, since: int | None) -> Window:
        if since is not None:
            return Window(since, self._clock())
        mark, now = self._marks.get(name, 0), self._clock()
        last = self.last(name)
        if last is not None and last.over_budget and last.since == mark:
            begin = max(mark, self._oldest(now)) if mark == 0 else mark
            half = begin + (min(last.until, now) - begin) // 2
            return Window(mark, max(half, min(now, begin + _LEAST)))
        return Window(mark, now)

    def _oldest(self, now: int) -> int:
        """When the telemetry begins: half of all time since 1970 would be no smaller window."""
        reader = Reader(self._home)
        try:
            row = reader.read("SELECT min(start_time_unix_nano) FROM lake.spans", ()).row(0)
            return int(row[0] or now)
        except EngramError:
            return now
        finally:
            reader.close()

    # -- the ledger --------------------------------------------------------------------------------

    def _load(self) -> None:
        try:
            kept = json.loads(self._path.read_text())
            self._marks = {str(name): int(mark) for name, mark in kept["marks"].items()}
            self.ledger = [Run(**run) for run in kept["runs"]]
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            _LOG.warning("%s cannot be read, jobs look at everything again: %s", self._path, error)

    def _save(self) -> None:
        kept = {"marks": self._marks, "runs": [asdict(run) for run in self.ledger]}
        try:
            files.make_directory(self._path.parent, 0o700)
            fresh = self._path.with_suffix(".new")
            files.write_synced(fresh, json.dumps(kept).encode())
            fresh.replace(self._path)
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error.strerror}") from error


class Reader:
    """The lake for one run of a job, opened at its first question."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lake: Any = None

    def read(self, sql: str, values: Sequence[Any] = ()) -> pl.DataFrame:
        """Rows of a query.

        Raises:
            StoreError: the lake cannot be read.
        """
        import duckdb

        from engram.exporters.lake.attach import attach_read_only

        try:
            if self._lake is None:
                self._lake = attach_read_only(self._home, threads=2, memory_limit="1GB")
            frame: pl.DataFrame = self._lake.execute(sql, list(values)).pl()
        except duckdb.Error as error:
            raise StoreError(f"cannot read the lake in {self._home.lake}: {error}") from error
        return frame

    def interrupt(self) -> None:
        """End a query that runs, from another thread."""
        if self._lake is not None:
            self._lake.interrupt()

    def close(self) -> None:
        """Let go of the lake."""
        if self._lake is not None:
            self._lake.close()
            self._lake = None


__all__ = ["EVERY_S", "FIRST_S", "Job", "Read", "Reader", "Run", "Runner"]
