"""`engram serve`: the page and the REST API; on loopback, elsewhere with tokens.

Owns no data. LanceDB is imported by the first search, FastAPI by the first request to `/api/v1`,
and not before: idle, this role is small.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import socket
import threading
from collections.abc import Iterator

import uvicorn

from engram.collector import api
from engram.collector.access import Guard
from engram.collector.access.exposure import check_api, exposed
from engram.collector.find import SERVE_FILE
from engram.collector.registry import Api, split_endpoint
from engram.collector.roles.process import Supervised, set_up_log, stop_event
from engram.exporters.errors import ConfigError
from engram.exporters.home import Home
from engram.exporters.itself.told import Teller

_LOG = logging.getLogger("engram.serve")


def run(
    home: Home,
    settings: Api,
    supervised: Supervised,
    log_level: str = "info",
    *,
    teller: Teller | None = None,
) -> int:
    """Serve until told to stop; the exit code.

    Raises:
        ConfigError: the port is taken, or others can reach it and there is no token.
    """
    set_up_log(log_level)
    stop = stop_event(supervised)
    check_api(home, settings.endpoint)
    guard = Guard(
        home,
        exposed=exposed(settings.endpoint),
        hosts=[split_endpoint(settings.endpoint)[0], *settings.allowed_hosts],
        rate_per_minute=settings.rate_per_minute,
    )
    application = api.Api(home, guard)
    with _listen(settings.endpoint) as listener:
        host, port = listener.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        server = _server(
            uvicorn.Config(
                application,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=2,
                # Connections that wait for a request count too; requests have their own limit,
                # which says when to come back (`rest.door`).
                limit_concurrency=1024,
            )
        )
        with _told(home, guard, host, port):
            _LOG.info("serving %s", url)
            supervised.ready({"endpoints": {"api": url + "/"}})
            watcher = threading.Thread(target=_stop_server, args=(stop, server), daemon=True)
            watcher.start()
            if teller is not None:
                teller.start()
            asyncio.run(_served(server, listener, application))
    if teller is not None:
        teller.shutdown()
    application.close()
    return 0


async def _served(server: uvicorn.Server, listener: socket.socket, application: api.Api) -> None:
    try:
        await server.serve(sockets=[listener])
    finally:
        await application.stop()


def _server(config: uvicorn.Config) -> uvicorn.Server:
    """A server that leaves the signals to the role: uvicorn's own raises them again at its end."""

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return Server(config)


def _stop_server(stop: threading.Event, server: uvicorn.Server) -> None:
    stop.wait()
    server.should_exit = True


@contextlib.contextmanager
def _listen(endpoint: str) -> Iterator[socket.socket]:
    host, port = split_endpoint(endpoint)
    address = "127.0.0.1" if host == "localhost" else host
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # The protocol is named, else asyncio does not switch Nagle's algorithm off for what it accepts,
    # and every answer of two writes waits 40 ms for the client's delayed acknowledgement.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
            listener.listen(128)
        except OSError as error:
            why = "is already in use" if error.errno == errno.EADDRINUSE else f"fails: {error}"
            raise ConfigError(
                [
                    f"extensions.api.endpoint {endpoint}: port {port} {why}; stop the other "
                    "program or set another endpoint"
                ]
            ) from error
        yield listener


@contextlib.contextmanager
def _told(home: Home, guard: Guard, host: str, port: int) -> Iterator[None]:
    """A file in the home that says where we are; done without where we may not write."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(guard.own.left())
        except OSError as error:
            _LOG.info("the command line will need a token where tokens are asked for: %s", error)
        stack.enter_context(_place(home, host, port))
        yield


@contextlib.contextmanager
def _place(home: Home, host: str, port: int) -> Iterator[None]:
    path = home.root / SERVE_FILE
    fresh = path.with_name(f".{SERVE_FILE}.{os.getpid()}")
    try:
        fresh.write_text(json.dumps({"host": host, "port": port, "pid": os.getpid()}))
        fresh.replace(path)
    except OSError as error:
        _LOG.info("search from the command line will not find this process: %s", error)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            if json.loads(path.read_text()).get("pid") == os.getpid():
                path.unlink()
