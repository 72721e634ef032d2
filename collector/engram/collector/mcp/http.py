"""`/mcp` on the port of `serve`: streamable HTTP, stateless, imported at its first request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from engram.collector.access import AuditLog, Principal
    from engram.collector.kept import Kept

PATH: Final = "/mcp"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class McpApp:
    """The ASGI application behind `/mcp`. Constructing imports nothing.

    Who asks is known: whoever mounts this has looked at Host, Origin and token (`access.Guard`).
    """

    def __init__(
        self,
        kept: Kept,
        log: AuditLog,
        *,
        read_only: bool = False,
    ) -> None:
        self._kept = kept
        self._log = log
        self._read_only = read_only
        self._lock = asyncio.Lock()
        self._manager: Any = None
        self._stop: asyncio.Event | None = None
        self._runner: asyncio.Task[None] | None = None
        self._tools: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send, caller: Principal) -> None:
        """Answer one request."""
        from engram.collector.mcp.caller import CALLER

        async with self._lock:
            if self._manager is None:
                await self._start()
        token = CALLER.set(caller)
        try:
            await self._manager.handle_request(scope, receive, send)
        finally:
            CALLER.reset(token)

    async def _start(self) -> None:
        # Importing the SDK takes half a second; other requests are answered meanwhile.
        manager = await asyncio.to_thread(self._built)
        self._stop = asyncio.Event()
        ready = asyncio.Event()

        async def run(stop: asyncio.Event) -> None:
            # Its task group must be entered and left by one task, and requests come and go.
            async with manager.run():
                ready.set()
                await stop.wait()

        self._runner = asyncio.create_task(run(self._stop), name="mcp")
        await ready.wait()
        self._manager = manager

    def _built(self) -> Any:
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        from engram.collector.mcp.server import build
        from engram.collector.mcp.tools import Tools

        kept = self._kept
        self._tools = Tools(kept.home, recall=kept.recall, sandbox=kept.sandbox)
        # A line for every refusal and every request is for nobody here.
        logging.getLogger("mcp").setLevel(logging.WARNING)
        server = build(self._tools, read_only=self._read_only, noted=noted(self._log))
        return StreamableHTTPSessionManager(
            app=server._lowlevel_server,
            json_response=True,
            stateless=True,
            max_request_body_size=1 << 20,
        )

    async def stop(self) -> None:
        """End what runs. Safe twice."""
        if self._stop is not None:
            self._stop.set()
        if self._runner is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._runner
            self._runner = None

    def close(self) -> None:
        """Let go of the lake. Safe twice; not from the event loop."""
        if self._tools is not None:
            self._tools.close()


def noted(log: AuditLog) -> Callable[[str, dict[str, Any], str], None]:
    """What writes the audit log: who asked what, and which memories went out."""
    from engram.collector.mcp.caller import CALLER

    def note(name: str, arguments: dict[str, Any], text: str) -> None:
        asked = {key: of for key, of in arguments.items() if key in _NOTED and of}
        log.note(
            CALLER.get().name, name, via="mcp", scope=asked, ids=dict.fromkeys(_ID.findall(text))
        )

    return note


_ID: Final = re.compile(r"\bid=([0-9a-f]{24})\b")
_NOTED: Final = ("scope", "id", "target_id", "sql")
"""Arguments that say whose memories were asked for."""
