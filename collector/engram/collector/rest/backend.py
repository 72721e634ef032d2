"""What the routes share: recall, writing, SQL, and the threads in which all of it blocks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from engram.collector.rest.idempotency import Remembered
from engram.collector.rest.problems import unavailable
from engram.collector.rest.writing import Writer

if TYPE_CHECKING:
    from engram.collector.kept import Kept

_T = TypeVar("_T")

_THREADS: Final = 8
_WAITING: Final = 48
"""Pieces of work that may be in threads or wait for one."""


class Backend:
    """Made once for an application. Constructing opens nothing."""

    def __init__(self, kept: Kept) -> None:
        from engram.collector.api import Lake

        self.home = kept.home
        self.recall = kept.recall
        self.lake = Lake(kept.home)
        self.writer = Writer(kept.home)
        self.answered = Remembered()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="rest")
        self._under_way = 0
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self.sandbox = kept.sandbox

    async def work(self, call: Callable[[], _T]) -> _T:
        """Run what blocks in a thread.

        A caller that goes away leaves its thread at work: it counts until it is done.

        Raises:
            Problem: 503, when too much is waiting already.
        """
        if self._under_way >= _WAITING:
            raise unavailable("too many questions at once", 1.0)
        self._under_way += 1
        loop = asyncio.get_running_loop()
        future = self._pool.submit(call)

        def done(_: object) -> None:
            self._under_way -= 1

        future.add_done_callback(lambda one: _soon(loop, done, one))
        return await asyncio.wrap_future(future)

    def one_at_a_time(self, memory_id: str) -> _Turn:
        """Changes of one memory follow each other: what `If-Match` compared holds until written."""
        return _Turn(self._locks, memory_id)

    def close(self) -> None:
        """Let go of what is its own. Safe twice."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.lake.close()


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[object], None], one: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody counts any more
        loop.call_soon_threadsafe(call, one)


class _Turn:
    """An asyncio lock of a name, forgotten when nobody wants it."""

    def __init__(self, locks: dict[str, tuple[asyncio.Lock, int]], name: str) -> None:
        self._locks = locks
        self._name = name

    async def __aenter__(self) -> None:
        lock, count = self._locks.get(self._name, (asyncio.Lock(), 0))
        self._locks[self._name] = (lock, count + 1)
        await lock.acquire()

    async def __aexit__(self, *_: object) -> None:
        lock, count = self._locks[self._name]
        lock.release()
        if count == 1:
            del self._locks[self._name]
        else:
            self._locks[self._name] = (lock, count - 1)
