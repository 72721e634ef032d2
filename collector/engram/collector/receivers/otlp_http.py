"""OTLP over HTTP/1.1: a bare ASGI application on uvicorn, in a thread of its own.

No framework on this path: per request of 512 spans it costs as much as the server itself
(research/perf.md 2).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import IO, Any, Final

import uvicorn
from google.rpc.code_pb2 import Code
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from engram.collector.access.rate import Rate
from engram.collector.access.scopes import OTLP
from engram.collector.access.tokens import Tokens
from engram.collector.registry import Browser, Cors
from engram.exporters.errors import Overloaded, TooLarge
from engram.exporters.inflate import InflatingWalker, TopLevelWalker, Walker, inflate
from engram.exporters.otlp.json import to_protobuf
from engram.exporters.otlp.json_walker import JsonWalker
from engram.exporters.signals import Admission, Encoding, Intake, Signal

from .answers import as_json, response
from .browser import asks, knows, marked, served
from .cors import CorsPolicy, Headers
from .endpoint import endpoint_problems, listen, reachable
from .listening import ListeningReceiver
from .senders import sender_problem
from .status import NO_PROFILES, Refusal, refusal

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_SIGNALS = {f"/v1/{signal}": signal for signal in Signal}
_PROFILES = "/v1development/profiles"
_PROTOBUF, _JSON = b"application/x-protobuf", b"application/json"
_ENCODINGS = {
    b"": Encoding.IDENTITY,
    b"identity": Encoding.IDENTITY,
    b"gzip": Encoding.GZIP,
    b"x-gzip": Encoding.GZIP,
    b"deflate": Encoding.DEFLATE,
    b"zlib": Encoding.DEFLATE,  # as the Collector calls it
    b"zstd": Encoding.ZSTD,
}
_ACCEPTED = (b"accept-encoding", b"gzip, zstd, deflate")

_INLINE_BELOW = 64 << 10
"""Bodies up to this are checked in the event loop.

A gzipped SDK batch (45 kB, 512 spans) takes 0.3 ms there; the way through a pool costs it 0.1 ms.
"""

_JSON_INLINE_BELOW = 4 << 10
"""The same for JSON, which takes some 50 ms for such a batch."""

_LARGE = 1 << 20
"""Up to this a body waits in memory to be complete and is looked at then.

A larger one waits in a file without a name, and each chunk is looked at when it comes: neither a
body that turns out to be too large, nor one that never ends, is held in memory.
"""

_LINGER_S = 5.0
"""How long a refused sender may go on sending before the connection is cut.

Closing with unread bytes resets the connection, and the sender loses the answer that says why.
"""

_MAX_HEAD = 64 << 10
"""llhttp bounds neither the request line, nor headers, trailers or chunk extensions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpHttpConfig:
    """Settings of the `otlp` receiver's HTTP protocol."""

    endpoint: str = "127.0.0.1:4318"
    """Where to listen; loopback only, unless there are tokens. Port 0 lets the system choose."""

    max_request_body_size: int = 64 << 20
    """Refuse bodies that are larger as sent. The limit on inflated bytes is the intake's."""

    read_timeout: timedelta = timedelta(seconds=30)
    """How long a sender may take for its headers, and again for its body."""

    keep_alive: timedelta = timedelta(seconds=75)
    """Close a connection that has been silent this long after an answer.

    Above the 60 s at which SDKs send metrics, so that they keep theirs.
    """

    max_buffered_size: int = 256 << 20
    """Bytes of all unfinished requests together, mostly in temporary files.

    Beyond, senders are told to come back.
    """

    cors: Cors | None = None
    """Which web pages may send; None is none."""

    browser: Browser | None = None
    """The door for web pages and their script; None is none."""

    tokens: Tokens | None = None
    """Of the home: a sender that may be another machine must show one. None is loopback only."""

    @property
    def guarded(self) -> bool:
        """Whether somebody could show what is asked for."""
        keys = self.browser is not None and bool(self.browser.keys)
        return self.tokens is not None and (keys or self.tokens.any(OTLP))

    def problems(self) -> Iterator[str]:
        """What is wrong with these settings."""
        yield from endpoint_problems(self.endpoint, guarded=self.guarded)
        if self.max_request_body_size < 1:
            yield "max_request_body_size must be at least 1"
        if self.max_buffered_size < self.max_request_body_size:
            yield "max_buffered_size must be at least max_request_body_size"
        if self.read_timeout <= timedelta():
            yield "read_timeout must be above 0"
        if self.keep_alive <= timedelta():
            yield "keep_alive must be above 0"


@dataclass(frozen=True, slots=True)
class _Running:
    """What a started receiver consists of."""

    server: _Server
    thread: threading.Thread
    pool: ThreadPoolExecutor


class OtlpHttpReceiver(ListeningReceiver[_Running]):
    """Listens for OTLP/HTTP, in a background thread.

    A protobuf body goes to the intake as it was sent, a JSON body as the protobuf of it.
    """

    def __init__(self, config: OtlpHttpConfig, intake: Intake) -> None:
        super().__init__(config)
        self._config = config
        self._intake = intake

    def _open(self) -> tuple[_Running, int]:
        sockets = listen(self._config.endpoint, guarded=self._config.guarded)
        pool = ThreadPoolExecutor(2, thread_name_prefix="otlp-http-check")
        server = _Server(_Application(self._config, self._intake, pool), self._config)
        thread = threading.Thread(target=server.run, args=(sockets,), name="otlp-http", daemon=True)
        thread.start()
        server.ready.wait()
        return _Running(server, thread, pool), sockets[0].getsockname()[1]

    def _close(self, running: _Running, drain_timeout: float) -> None:
        running.server.config.timeout_graceful_shutdown = max(1, math.ceil(drain_timeout))
        running.server.should_exit = True
        running.thread.join()
        running.pool.shutdown(wait=False)


class _Server(uvicorn.Server):
    """Uvicorn, which knows to stay out of signals when it is not in the main thread."""

    def __init__(self, application: _Application, config: OtlpHttpConfig) -> None:
        self.ready = threading.Event()

        def protocol(**arguments: Any) -> _Protocol:
            return _Protocol(config.read_timeout.total_seconds(), **arguments)

        super().__init__(
            uvicorn.Config(
                application,
                loop="uvloop",
                http=protocol,  # type: ignore[arg-type] # only ever called
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=config.keep_alive.total_seconds(),  # type: ignore[arg-type]
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn, and say when it is done."""
        try:
            await super().startup(sockets)
        finally:
            self.ready.set()


_silent = logging.getLogger(f"{__name__}.protocol")
_silent.setLevel(
    logging.CRITICAL
)  # uvicorn warns for each malformed request: a log of the sender's


_UPGRADE: Final = re.compile(rb"(?<=\r\n)upgrade(?=[ \t]*:)", re.IGNORECASE)


class _Protocol(HttpToolsProtocol):
    """Uvicorn's protocol with what it leaves open: slow, silent and endless senders."""

    def __init__(self, read_timeout: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.logger = _silent
        self._read_timeout = read_timeout
        self._head_timer: asyncio.TimerHandle | None = None
        self._overhead = 0  # bytes since the last that were body, or ended a request
        self._in_head = self._in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(self._read_timeout, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._overhead += len(data)
        if not self._in_body:
            # Java's client asks for HTTP/2 with every first request. A server may ignore that (RFC
            # 9110, 7.8); the parser would take what follows for the other protocol.
            head, end, rest = data.partition(b"\r\n\r\n")
            data = _UPGRADE.sub(b"ignored", head) + end + rest
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._overhead > _MAX_HEAD:
            self.send_400_response("Headers over 64 KiB.")
        elif self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            # A beginning of the next request, which has stopped the keep-alive timer.
            self._head_timer = self.loop.call_later(self._read_timeout, self.transport.close)

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head, self._in_body = False, True
        self._disarm()
        super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else it is a trailer, which nobody reads
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._overhead = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._overhead = 0
        self._in_body = False
        super().on_message_complete()

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class _Refused(Exception):
    """A request that HTTP itself refuses, with headers the answer needs."""

    def __init__(self, refused: Refusal, *headers: tuple[bytes, bytes]) -> None:
        self.refused = refused
        self.headers = headers


class _Gone(Exception):
    """The sender hung up before the end of its body."""


class _Application:
    """The ASGI application."""

    def __init__(self, config: OtlpHttpConfig, intake: Intake, pool: ThreadPoolExecutor) -> None:
        self._limit = config.max_request_body_size
        self._read_timeout = config.read_timeout.total_seconds()
        self._most_buffered = config.max_buffered_size
        self._buffered = 0
        self._intake = intake
        self._pool = pool
        cors = config.cors or Cors()
        self._browser = config.browser
        if config.browser is not None:
            self._rate = Rate(config.browser.rate_per_minute)
            cors = Cors(
                allowed_origins=(*cors.allowed_origins, *config.browser.allowed_origins),
                allowed_headers=(*cors.allowed_headers, "engram-key"),
                max_age=cors.max_age or 7200,
            )
        self._cors = CorsPolicy(cors) if cors.allowed_origins else None
        self._tokens = config.tokens
        self._exposed = config.tokens is not None and reachable(config.endpoint)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        request = _Request(scope, receive, send)
        if self._cors is not None:
            request.always = self._cors.answer(request.origin)
        try:
            if self._cors is not None and request.asks_for is not None:
                await request.answer(204, b"", *self._preflight(self._cors, request))
                return
            if scope["path"] == "/health":
                _only(request, "GET")
                await request.answer(
                    200, b'{"status":"ok"}', (b"content-type", b"application/json")
                )
                return
            if scope["path"] == "/engram.js" and self._browser is not None:
                _only(request, "GET")
                await self._script(request)
                return
            signal, encoding = self._read_head(request)
            if self._browser is not None and (request.origin or request.key is not None):
                self._check_page(self._browser, request, signal, scope)
                admission = await self._admit_page(self._browser, request, signal, encoding)
            else:
                if self._tokens is not None and self._exposed:
                    self._check_sender(self._tokens, request)
                admission = await self._admit(request, signal, encoding)
            await request.answer(
                200,
                response(signal, admission, json=request.is_json),
                (b"content-type", request.answer_type),
                (b"engram-position", str(admission.position).encode()),
            )
        except _Gone:
            return
        except _Refused as error:
            await request.refuse(error.refused, *error.headers)
        except asyncio.CancelledError:
            # The drain timeout of `shutdown`. Not acknowledged, so the sender has to repeat it.
            await request.refuse(Refusal(503, Code.UNAVAILABLE, "Engram is shutting down", 1.0))
        except Exception as error:  # noqa: BLE001 - whatever it is, the sender gets a status
            refused = refusal(error)
            # A writer that has failed may raise the same object for every request, and its
            # traceback would hold all their bodies.
            error.__traceback__ = None
            await request.refuse(refused)

    @staticmethod
    async def _script(request: _Request) -> None:
        plain, zipped, etag = served()
        head = [
            (b"etag", etag),
            (b"cache-control", b"public, max-age=300"),
            (b"vary", b"Accept-Encoding"),
            (b"cross-origin-resource-policy", b"cross-origin"),
        ]
        if etag in request.if_none_match:
            await request.answer(304, b"", *head)
            return
        head.append((b"content-type", b"text/javascript; charset=utf-8"))
        if b"gzip" in request.accept_encoding:
            await request.answer(200, zipped, (b"content-encoding", b"gzip"), *head)
        else:
            await request.answer(200, plain, *head)

    @staticmethod
    def _check_sender(tokens: Tokens, request: _Request) -> None:
        """Whether a program of perhaps another machine may send."""
        code, why = sender_problem(tokens, request.authorization.decode("latin-1"))
        if code == Code.PERMISSION_DENIED:
            raise _Refused(Refusal(403, code, why))
        if code:
            raise _Refused(Refusal(401, code, why), (b"www-authenticate", b'Bearer realm="engram"'))

    def _check_page(
        self, browser: Browser, request: _Request, signal: Signal, scope: Message
    ) -> None:
        """Whether a page, or the holder of a browser key, may send this."""
        client = scope.get("client")
        if (wait := self._rate.wait(client[0] if client else "")) > 0:
            why = "too many requests from this address; see browser.rate_per_minute"
            raise _Refused(Refusal(429, Code.RESOURCE_EXHAUSTED, why, max(1.0, wait)))
        if request.origin and not (self._cors and self._cors.allows(request.origin)):
            origin = request.origin[:100].decode("latin-1")
            why = f"origin {origin} is not allowed; add it to browser.allowed_origins"
            raise _Refused(Refusal(403, Code.PERMISSION_DENIED, f"{why} of the otlp receiver"))
        must = self._exposed or request.key is not None or asks(browser, self._tokens)
        if must and not knows(browser, request.key or b"", self._tokens):
            why = (
                "the header engram-key holds none of browser.keys of the otlp receiver, and no "
                "token with the scope browser"
            )
            raise _Refused(Refusal(401, Code.UNAUTHENTICATED, why))
        if signal not in (Signal.LOGS, Signal.TRACES):
            why = "web pages and browser keys may send logs and traces only"
            raise _Refused(Refusal(403, Code.PERMISSION_DENIED, why))
        if request.content_length > browser.max_request_bytes:
            raise TooLarge(browser.max_request_bytes)

    async def _admit_page(
        self, browser: Browser, request: _Request, signal: Signal, encoding: Encoding
    ) -> Admission:
        """Have what a page sent stored, marked as such."""
        most = browser.max_request_bytes
        body = await self._read_body(request, signal, encoding, most)
        mark = partial(marked, signal, body, encoding, most, json=request.is_json)
        sent = await asyncio.get_running_loop().run_in_executor(self._pool, mark)
        return await asyncio.wrap_future(self._intake.admit(signal, sent, Encoding.IDENTITY))

    @staticmethod
    def _preflight(cors: CorsPolicy, request: _Request) -> Headers:
        """The headers that allow what a browser asks to send, or why it may not."""
        if not cors.allows(request.origin):
            origin = request.origin[:100].decode("latin-1")
            why = f"origin {origin} is not allowed; add it to cors.allowed_origins"
            raise _Refused(Refusal(403, Code.PERMISSION_DENIED, f"{why} of the otlp receiver"))
        found = cors.preflight(request.asks_for or b"", request.asks_headers)
        if isinstance(found, str):
            raise _Refused(Refusal(403, Code.PERMISSION_DENIED, found))
        return found

    def _read_head(self, request: _Request) -> tuple[Signal, Encoding]:
        """What the request is, or why it is refused before its body is looked at."""
        signal = _SIGNALS.get(request.path)
        if request.path == _PROFILES:
            raise _Refused(NO_PROFILES)
        if signal is None:
            raise _Refused(
                Refusal(
                    404, Code.NOT_FOUND, "not found; OTLP goes to /v1/traces, /v1/logs, /v1/metrics"
                )
            )
        _only(request, "POST")
        if request.content_type not in (_PROTOBUF, _JSON):
            raise _unsupported(
                "content-type", request.content_type, "application/x-protobuf or application/json"
            )
        encoding = _ENCODINGS.get(request.content_encoding)
        if encoding is None:
            raise _unsupported(
                "content-encoding",
                request.content_encoding,
                "gzip, zstd, deflate or none",
                _ACCEPTED,
            )
        if request.content_length > self._limit:
            raise TooLarge(self._limit)
        return signal, encoding

    async def _admit(self, request: _Request, signal: Signal, encoding: Encoding) -> Admission:
        """Read the body and have it stored."""
        body = await self._read_body(request, signal, encoding)
        admit = self._admit_json if request.is_json else self._intake.admit
        if len(body) > (_JSON_INLINE_BELOW if request.is_json else _INLINE_BELOW):
            stored: Future[Admission] = await asyncio.get_running_loop().run_in_executor(
                self._pool, admit, signal, body, encoding
            )
        else:
            stored = admit(signal, body, encoding)
        del body
        return await asyncio.wrap_future(stored)

    def _admit_json(self, signal: Signal, body: bytes, encoding: Encoding) -> Future[Admission]:
        """Have the protobuf of a JSON body stored. The limit holds for both."""
        text = inflate(body, encoding, self._limit, partial(JsonWalker, signal))
        return self._intake.admit(signal, to_protobuf(signal, text, self._limit), Encoding.IDENTITY)

    async def _read_body(
        self, request: _Request, signal: Signal, encoding: Encoding, most: int | None = None
    ) -> bytes:
        """The complete body, as sent. Refuses at the first chunk that makes it hopeless."""
        walker: Walker | InflatingWalker | None = None
        inside = partial(JsonWalker, signal) if request.is_json else TopLevelWalker
        large = request.content_length > _LARGE or not request.content_length
        if encoding is not Encoding.IDENTITY:
            walker = InflatingWalker(self._limit, encoding, inside) if large else None
        elif not request.is_json:
            walker = TopLevelWalker(self._limit, request.content_length or None)
        elif large:
            walker = JsonWalker(signal, self._limit)
        held = 0
        body = _Body()
        try:
            async with asyncio.timeout(self._read_timeout):
                async for chunk in request.body():
                    if request.seen > (most or self._limit):
                        raise TooLarge(most or self._limit)
                    if walker is not None:
                        walker.feed(chunk)
                    held += len(chunk)
                    self._buffered += len(chunk)
                    if self._buffered > self._most_buffered:
                        raise Overloaded("too many large requests at once")
                    body.append(chunk)
            if walker is not None:
                walker.finish()
            return body.take()
        except TimeoutError:
            raise _Refused(
                Refusal(
                    408,
                    Code.DEADLINE_EXCEEDED,
                    f"the body did not arrive within {self._read_timeout:g} s",
                )
            ) from None
        finally:
            body.close()
            self._buffered -= held


class _Body:
    """Chunks on their way to being one body: in memory, or in a file once they are many."""

    __slots__ = ("_chunks", "_file", "_size")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._file: IO[bytes] | None = None
        self._size = 0

    def append(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._file is None:
            self._chunks.append(chunk)
            if self._size <= _LARGE:
                return
        with _no_room():
            if self._file is not None:
                self._file.write(chunk)
                return
            # Nameless, ours alone, and gone with the process: it is telemetry before redaction.
            self._file = tempfile.TemporaryFile(prefix="engram-")  # noqa: SIM115
            self._file.writelines(self._chunks)
            self._chunks.clear()

    def take(self) -> bytes:
        if self._file is not None:
            with _no_room():
                self._file.seek(0)
                return self._file.read()
        if len(self._chunks) == 1:
            return self._chunks[0]
        return b"".join(self._chunks)

    def close(self) -> None:
        self._chunks.clear()
        if self._file is not None:
            with contextlib.suppress(OSError):  # flushes what nobody wants any more
                self._file.close()
            self._file = None


@contextlib.contextmanager
def _no_room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Overloaded(
            f"no room for a large body in {tempfile.gettempdir()}: {error.strerror}", 5.0
        ) from None


class _Request:
    """One request: its head, its body, and its one answer."""

    __slots__ = (
        "_ended",
        "_receive",
        "_send",
        "accept_encoding",
        "always",
        "asks_for",
        "asks_headers",
        "authorization",
        "content_encoding",
        "content_length",
        "content_type",
        "if_none_match",
        "key",
        "method",
        "origin",
        "path",
        "seen",
    )

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.content_type = self.content_encoding = self.origin = self.asks_headers = b""
        self.accept_encoding = self.if_none_match = self.authorization = b""
        self.key: bytes | None = None
        """The browser key, if one was sent."""
        self.asks_for: bytes | None = None
        """The method that a browser asks for, if this is a preflight."""
        self.always: Headers = []
        """Headers of every answer."""
        self.content_length = 0
        self.seen = 0
        chunked = False
        for name, value in scope["headers"]:
            match name.lower():
                case b"content-type":
                    self.content_type = value.partition(b";")[0].strip().lower()
                case b"content-encoding":
                    self.content_encoding = value.strip().lower()
                case b"content-length":
                    self.content_length = int(value)  # llhttp has refused what is no number
                case b"transfer-encoding":
                    chunked = True
                case b"accept-encoding":
                    self.accept_encoding = value
                case b"if-none-match":
                    self.if_none_match = value
                case b"engram-key":
                    self.key = value
                case b"authorization":
                    self.authorization = value
                case b"origin":
                    self.origin = value
                case b"access-control-request-method" if self.method == "OPTIONS":
                    self.asks_for = value
                case b"access-control-request-headers":
                    self.asks_headers = value
        self._ended = not chunked and not self.content_length
        self._receive = receive
        self._send = send

    @property
    def is_json(self) -> bool:
        """Whether the sender speaks JSON, and wants to be answered in it."""
        return self.content_type == _JSON

    @property
    def answer_type(self) -> bytes:
        """The content type of an OTLP answer: that of the request."""
        return _JSON if self.is_json else _PROTOBUF

    async def body(self) -> AsyncIterator[bytes]:
        """The body in chunks as they arrive."""
        while not self._ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            self._ended = not message.get("more_body", False)
            chunk: bytes = message.get("body", b"")
            if chunk:
                self.seen += len(chunk)
                yield chunk

    async def answer(self, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        """Send the whole answer; the sender sees it even if it has not finished its body.

        Then what is left of the body is read and thrown away for a while before the connection
        closes, or the sender would get a reset instead of the answer, or the rest of the body
        would pass for the next request.
        """
        head = [*headers, *self.always]
        if status not in (204, 304):
            head.append((b"content-length", str(len(body)).encode()))
        if not self._ended:
            head.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": status, "headers": head})
        if not self._ended:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
            body = b""
            try:
                async with asyncio.timeout(_LINGER_S):
                    async for _ in self.body():
                        pass
            except (TimeoutError, _Gone):
                pass
        await self._send({"type": "http.response.body", "body": body})

    async def refuse(self, refused: Refusal, *headers: tuple[bytes, bytes]) -> None:
        """Answer with a `google.rpc.Status`, which OTLP asks for in every 4xx and 5xx."""
        head = [(b"content-type", self.answer_type), *headers]
        if (delay := refused.retry_after()) is not None:
            head.append((b"retry-after", delay))
        status = refused.status()
        body = as_json(status) if self.is_json else status.SerializeToString()
        await self.answer(refused.http, body, *head)


def _only(request: _Request, method: str) -> None:
    if request.method != method:
        raise _Refused(
            Refusal(405, Code.UNIMPLEMENTED, f"{request.path} takes {method} only"),
            (b"allow", method.encode()),
        )


def _unsupported(
    header: str, value: bytes, supported: str, *headers: tuple[bytes, bytes]
) -> _Refused:
    shown = value[:100].decode("ascii", "replace") or "(none)"
    return _Refused(
        Refusal(415, Code.INVALID_ARGUMENT, f"{header} {shown} is not supported: {supported}"),
        *headers,
    )
