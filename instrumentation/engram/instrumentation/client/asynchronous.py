"""The same client for code that awaits: its questions run in threads of its own."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from engram.instrumentation.client.synchronous import Client

R = TypeVar("R")

_THREADS: Final = 8


class AsyncClient:
    """Every method of `Client`, to be awaited. The event loop never waits for the network."""

    def __init__(
        self, url: str | None = None, token: str | None = None, *, timeout_s: float = 2.0
    ) -> None:
        self.sync = Client(url, token, timeout_s=timeout_s)
        self._threads: ThreadPoolExecutor | None = None

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self.sync, name)
        if name.startswith("_") or not callable(method):
            raise AttributeError(f"{type(self).__name__} has no {name!r}")

        @functools.wraps(method)
        async def asked(*arguments: Any, **named: Any) -> Any:
            return await self.run(method, *arguments, **named)

        return asked

    async def run(self, method: Callable[..., R], *arguments: Any, **named: Any) -> R:
        """The result of a function that waits."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="engram-client")
        call = functools.partial(
            contextvars.copy_context().run, functools.partial(method, *arguments, **named)
        )
        import asyncio  # who awaits has it already

        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def close(self) -> None:
        """Let go of connections and threads."""
        self.sync.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


__all__ = ["AsyncClient"]
