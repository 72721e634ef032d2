"""The `health_check` extension: 200 while telemetry can be taken, else 503."""

from __future__ import annotations

import errno
import json
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from engram.collector.registry import HealthCheck, split_endpoint
from engram.exporters.errors import ConfigError

_READ_S: Final = 5.0


class HealthServer:
    """Answers GET on one path. `healthy` is asked each time."""

    def __init__(self, settings: HealthCheck, healthy: Callable[[], bool]) -> None:
        self._settings = settings
        self._healthy = healthy
        self._server: ThreadingHTTPServer | None = None
        self._since = time.time()
        self._ready = False

    def start(self) -> None:
        """Listen; the answer is 503 until `ready`.

        Raises:
            ConfigError: the port is taken.
        """
        host, port = split_endpoint(self._settings.endpoint)
        health = self

        class Handler(BaseHTTPRequestHandler):
            timeout = _READ_S
            server_version, sys_version = "engram", ""

            def do_GET(self) -> None:
                code, body = health.answer(self.path)
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        family = socket.AF_INET6 if ":" in host else socket.AF_INET

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            address_family = family

        try:
            self._server = Server((host, port), Handler)
        except OSError as error:
            why = "is already in use" if error.errno == errno.EADDRINUSE else f"fails: {error}"
            raise ConfigError(
                [
                    f"extensions.health_check.endpoint {self._settings.endpoint}: port {port} "
                    f"{why}; stop the other program or set another endpoint"
                ]
            ) from error
        server = self._server
        threading.Thread(
            target=server.serve_forever, args=(0.2,), name="health", daemon=True
        ).start()

    def ready(self) -> None:
        """Everything runs: from now on the answer is what `healthy` says."""
        self._since, self._ready = time.time(), True

    def stopping(self) -> None:
        """Say 503 from now on, so that nobody sends more."""
        self._ready = False

    @property
    def endpoint(self) -> str:
        """Where to listen, as configured."""
        return self._settings.endpoint

    @property
    def port(self) -> int:
        """The port that is bound."""
        return int(self._server.server_address[1]) if self._server is not None else 0

    def answer(self, path: str) -> tuple[int, bytes]:
        """Status and body for a path."""
        if path.partition("?")[0] != self._settings.path:
            return 404, b'{"status":"not here"}'
        if not self._ready or not self._healthy():
            return 503, b'{"status":"Server not available"}'
        since = datetime.fromtimestamp(self._since, UTC).isoformat()
        uptime = f"{time.time() - self._since:.1f}s"
        body = {"status": "Server available", "upSince": since, "uptime": uptime}
        return 200, json.dumps(body).encode()

    def shutdown(self) -> None:
        """Stop listening. Safe twice, and safe without `start`."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
