"""A home that collects, and `serve` in front of it on a real socket."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from tests.telemetry import attributes

from engram.collector.access import Guard
from engram.collector.api import Api
from engram.exporters.control import ControlServer
from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.home import Home
from engram.exporters.signals import Encoding, Signal


class Serving:
    """What `collect` and `serve` are, in threads of the test."""

    def __init__(self, root: Path, *, collects: bool = True, **guard: Any) -> None:
        self.home = Home(root)
        self.engine: Engine | None = None
        if collects:
            settings = EngineSettings(commit_interval_s=0.05, compact_interval_s=1e9)
            self.engine = Engine(self.home, settings)
            self.engine.start()
            self.control = ControlServer(self.engine)
            self.control.start()
        self.guard = Guard(self.home, **guard)
        self.application = Api(self.home, self.guard)
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(64)
        self.port = int(self._socket.getsockname()[1])
        self._server = uvicorn.Server(
            uvicorn.Config(
                self.application, lifespan="off", log_config=None, access_log=False,
                server_header=False, timeout_graceful_shutdown=2,
            )
        )  # fmt: skip
        serve = self._server.serve([self._socket])
        self._thread = threading.Thread(target=lambda: asyncio.run(serve), daemon=True)
        self._thread.start()

    def client(self, token: str | None = None, **headers: str) -> httpx.Client:
        """A client with these headers."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            named["authorization"] = f"Bearer {token}"
        url = f"http://127.0.0.1:{self.port}"
        return httpx.Client(base_url=url, headers=named, timeout=60, trust_env=False)

    def remember(self, *memories: dict[str, Any], trust: str | None = None) -> None:
        """Store events of an app by the front door."""
        assert self.engine is not None
        request = ExportLogsServiceRequest()
        for memory in memories:
            batch = request.resource_logs.add()
            service = {"service.name": memory.get("service", "shop")}
            batch.resource.attributes.extend(attributes(service))
            if trust is not None:
                batch.resource.attributes.extend(attributes({"engram.trust": trust}))
            record = batch.scope_logs.add().log_records.add(
                event_name=f"engram.{memory['type']}", time_unix_nano=memory["at"]
            )
            said = {"engram.id": memory["key"], "engram.title": memory["title"]}
            said |= {"user.id": memory["user"]} if "user" in memory else {}
            record.attributes.extend(attributes(said))
        body = request.SerializeToString()
        admitted = self.engine.admit(Signal.LOGS, body, Encoding.IDENTITY).result(20)
        self.engine.wait_committed(admitted.position, 30)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """A query on the lake."""
        from engram.exporters.lake.attach import attach_read_only

        with attach_read_only(self.home) as lake:
            return lake.execute(sql).fetchall()

    def close(self) -> None:
        """Stop everything."""
        self._server.should_exit = True
        self._thread.join(20)
        self.application.close()
        self._socket.close()
        if self.engine is not None:
            self.control.shutdown()
            self.engine.shutdown(20)
