"""In front of the application: who may come in, how many at once, how long, and what is noted.

The application is loaded by the first request: FastAPI and its models cost 0.3 s and 20 MB that a
`serve` whose REST nobody asks does not have.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from engram.collector.access import AuditLog, Guard, Principal
from engram.collector.kept import Kept
from engram.collector.rest.problems import MEDIA_TYPE, Problem, problem_of, unavailable

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PREFIX: Final = "/api/v1"
OPEN: Final = ("/livez", "/readyz")
"""Answered without a token: whether the process works is no secret."""

MOST_BODY: Final = 1 << 20
_AT_ONCE: Final = 64
"""Requests in flight; with more, the newest is told to come back."""

_TIMEOUT_S: Final = 30.0

_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


class Door:
    """The ASGI application of `/api/v1`, `/livez` and `/readyz`."""

    def __init__(
        self, kept: Kept, guard: Guard, audit: AuditLog, *, timeout_s: float = _TIMEOUT_S
    ) -> None:
        self._kept = kept
        self._guard = guard
        self._audit = audit
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._app: Any = None
        self._running = 0

    @staticmethod
    def serves(path: str) -> bool:
        """Whether a path is ours."""
        return path == PREFIX or path.startswith(f"{PREFIX}/") or path in OPEN

    def close(self) -> None:
        """Let go of lake and index. Safe twice."""
        with self._lock:
            app, self._app = self._app, None
        if app is not None:
            app.state.backend.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        answer = _Answer(scope, send)
        scope = dict(scope)  # the server looks into its own when it sends
        try:
            principal = self._admit(scope)
            if self._running >= _AT_ONCE:
                raise unavailable("too many requests at once", 1.0)
            self._running += 1
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._serve(scope, receive, answer)
            finally:
                self._running -= 1
            self._note(scope, principal, answer)
        except TimeoutError:
            if not answer.begun:
                late = unavailable(f"no answer within {self._timeout_s:g} s", 1.0, "timeout")
                await self._tell(answer, late)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered and logged
            if not answer.begun:
                await self._tell(answer, problem_of(error))

    def _admit(self, scope: Scope) -> Principal | None:
        if scope["path"] in OPEN:
            self._guard.visitor(scope)
            return None
        principal = self._guard.admit(scope)
        scope["engram.principal"] = principal
        return principal

    async def _serve(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        if scope["path"] == "/livez":
            await answer.whole(200, b'{"status":"ok"}', "application/json")
            return
        for name, value in scope["headers"]:
            if name == b"content-length" and int(value) > MOST_BODY:
                raise too_large()
        app = self._app or await asyncio.to_thread(self._load)
        if scope["method"] == "HEAD":
            scope["method"] = "GET"
        await app(scope, receive, answer.send)

    def _load(self) -> Any:
        with self._lock:
            if self._app is None:
                from engram.collector.rest.app import create_app

                self._app = create_app(self._kept)
            return self._app

    def _note(self, scope: Scope, principal: Principal | None, answer: _Answer) -> None:
        said = scope.get("engram.audit")
        if said is not None and principal is not None and answer.status < 400:
            self._audit.note(principal.name, via="rest", status=answer.status, **said)

    async def _tell(self, answer: _Answer, problem: Problem) -> None:
        with contextlib.suppress(OSError):  # the reader went away
            await answer.whole(
                problem.status,
                problem.body(answer.path),
                MEDIA_TYPE,
                [(k.encode(), v.encode("latin-1")) for k, v in problem.headers.items()],
            )


def too_large() -> Problem:
    """A body over the limit."""
    return Problem(413, f"a request body has at most {MOST_BODY} bytes")


class _Answer:
    """What goes back, with the headers of every answer, and without a body to HEAD."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.path: str = scope["path"]
        self.begun = False
        self.status = 0
        self._bare = scope["method"] == "HEAD"
        self._send = send

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.begun = True
            self.status = message["status"]
            given = {name for name, _ in message["headers"]}
            more = [one for one in _HEADERS if one[0] not in given]
            if b"cache-control" not in given:
                more.append((b"cache-control", b"no-store"))
            message = {**message, "headers": [*message["headers"], *more]}
        elif self._bare and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)

    async def whole(
        self, status: int, body: bytes, kind: str, headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        """Send a whole answer."""
        head = [
            (b"content-type", kind.encode()),
            (b"content-length", str(len(body)).encode()),
            *(headers or ()),
        ]
        await self.send({"type": "http.response.start", "status": status, "headers": head})
        await self.send({"type": "http.response.body", "body": body})
