"""`Idempotency-Key`: a request that is sent again writes once.

Two nets. The answers of the last day are kept in this process: the same key with the same body gets
the same answer, with another body it is refused. And what is written has an id made of token, key
and body: sent again after a restart it is another report of the same memory, not another memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from engram.collector.access import Principal
from engram.collector.rest.problems import Problem

_KEEP_S: Final = 86_400.0
_MOST: Final = 4096
_LONGEST: Final = 255


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, to be given again."""

    status: int
    body: bytes
    headers: dict[str, str]


class Remembered:
    """The answers to requests with a key. For one event loop."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._of: OrderedDict[tuple[str, str, str], tuple[float, str, asyncio.Future[Answered]]]
        self._of = OrderedDict()

    async def once(
        self,
        who: Principal,
        route: str,
        key: str | None,
        body: bytes,
        call: Callable[[], Awaitable[Answered]],
    ) -> Answered:
        """The answer of `call`, which is asked once for a key; without a key, always.

        Raises:
            Problem: 422, the key was used for another body; 400, it is none.
        """
        if key is None:
            return await call()
        if not (1 <= len(key) <= _LONGEST and key.isprintable()):
            raise Problem(400, f"Idempotency-Key has 1 to {_LONGEST} printable characters")
        at, told = (who.key, route, key), hashlib.sha256(body).hexdigest()
        self._forget()
        found = self._of.get(at)
        if found is not None:
            if found[1] != told:
                raise Problem(
                    422, "this Idempotency-Key was used for another body", "idempotency-key"
                )
            return await asyncio.shield(found[2])
        future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._of[at] = (self._clock(), told, future)
        try:
            answer = await call()
        except BaseException as error:
            del self._of[at]  # nothing was answered, so it may be tried again
            if isinstance(error, Exception):
                future.set_exception(error)
                future.exception()  # nobody needs to have waited for it
            else:
                future.cancel()
            raise
        future.set_result(answer)
        return answer

    def _forget(self) -> None:
        before = self._clock() - _KEEP_S
        while self._of:
            at, _, future = next(iter(self._of.values()))
            if not future.done() or (at > before and len(self._of) < _MOST):
                return
            self._of.popitem(last=False)


def source_of(who: Principal, key: str, body: bytes) -> str:
    """The source key of what a request with this key writes."""
    told = f"{who.key}\0{key}\0".encode() + hashlib.sha256(body).digest()
    return hashlib.blake2b(told, digest_size=16).hexdigest()
