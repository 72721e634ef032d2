"""Both receivers in front of a real engine, and its lake to look at: what the clients send to."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engram.collector.receivers import (
    OtlpGrpcConfig,
    OtlpGrpcReceiver,
    OtlpHttpConfig,
    OtlpHttpReceiver,
)
from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_read_only


@dataclass(frozen=True, slots=True)
class Collecting:
    """A running engine and where its receivers listen."""

    engine: Engine
    grpc_port: int
    http_port: int

    def port(self, protocol: str) -> int:
        """Where a client of this protocol sends to."""
        return self.grpc_port if protocol == "grpc" else self.http_port

    def rows(self, table: str, service: str) -> list[dict[str, Any]]:
        """All rows of a service, once all that was acknowledged is committed."""
        self.engine.wait_committed(self.engine.end, 20)
        with contextlib.closing(attach_read_only(self.engine.home)) as db:
            found = db.execute(f"SELECT * FROM {table} WHERE service_name = ?", [service])
            names = [column[0] for column in found.description]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def row(self, table: str, service: str) -> dict[str, Any]:
        """The one row that the service has there, with its JSON columns as values."""
        (only,) = self.rows(table, service)
        for name in ("attributes", "events", "resource", "body"):
            if isinstance(only.get(name), str):
                only[name] = json.loads(only[name])
        return only


@contextlib.contextmanager
def collecting(root: Path) -> Iterator[Collecting]:
    """An engine of a home of its own behind both receivers."""
    engine = Engine(Home(root), EngineSettings(commit_interval_s=0.05, compact_interval_s=1e9))
    engine.start()
    http = OtlpHttpReceiver(OtlpHttpConfig(endpoint="127.0.0.1:0"), engine)
    grpc = OtlpGrpcReceiver(OtlpGrpcConfig(endpoint="127.0.0.1:0"), engine)
    try:
        http.start()
        grpc.start()
        yield Collecting(engine, grpc.port, http.port)
    finally:
        grpc.shutdown(1)
        http.shutdown(1)
        engine.shutdown(20)
