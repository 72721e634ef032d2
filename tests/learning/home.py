"""A real engine behind its control socket, for what `learn` sends back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.telemetry import request

from engram.exporters.control import ControlServer
from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_read_only
from engram.exporters.signals import Encoding, Signal


class Collecting:
    """A home that is collected into."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.reader: Any = None
        self.engine = Engine(home, EngineSettings(commit_interval_s=0.02))
        self.engine.start()
        self.control = ControlServer(self.engine)
        self.control.start()

    def send(self, *records: Any) -> None:
        """Spans and logs as a commit of their own."""
        for signal, of in (
            (Signal.TRACES, [one for one in records if hasattr(one, "parent_span_id")]),
            (Signal.LOGS, [one for one in records if not hasattr(one, "parent_span_id")]),
        ):
            if of:
                self.admit(signal, request(signal, of))
        self.commit()

    def admit(self, signal: Signal, body: bytes) -> None:
        """One request."""
        self.engine.admit(signal, body, Encoding.IDENTITY).result(20)

    def commit(self) -> None:
        """Wait until all can be queried."""
        self.engine.wait_committed(self.engine.end, 20)

    def rows(self, sql: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """What a reader sees."""
        if self.reader is None:
            self.reader = attach_read_only(self.home, threads=1)
        rows: list[tuple[Any, ...]] = self.reader.execute(sql, list(values)).fetchall()
        return rows

    def close(self) -> None:
        """Stop."""
        if self.reader is not None:
            self.reader.close()
        self.control.shutdown()
        self.engine.shutdown(10)
