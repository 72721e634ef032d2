"""The door for web pages: who may send, how much, and the mark that says it was a page.

What a page says, anybody can say who opens its console: it is stored with trust `browser`.
"""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import cache, partial
from gzip import compress
from hashlib import sha256

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from engram.collector.registry import Browser
from engram.exporters.errors import BadRequest
from engram.exporters.inflate import TopLevelWalker, inflate
from engram.exporters.otlp.json import to_protobuf
from engram.exporters.otlp.json_walker import JsonWalker
from engram.exporters.otlp.wire import OFFICIAL_REQUEST
from engram.exporters.signals import Encoding, Signal
from engram.exporters.trust import ATTRIBUTE as TRUST
from engram.instrumentation.browser import script

_MOST_ADDRESSES = 4096
"""How many senders are counted at once. The one that was silent longest is forgotten first."""


@cache
def served() -> tuple[bytes, bytes, bytes]:
    """The script, the same gzipped, and its ETag."""
    plain = script()
    return plain, compress(plain, 9, mtime=0), f'"{sha256(plain).hexdigest()[:16]}"'.encode()


class Rate:
    """Requests per address and minute: a bucket that refills steadily."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = float(per_minute)
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Count one request: 0 if it may pass, else the seconds until one may."""
        now = self._clock()
        left, at = self._left.pop(address, (self._most, now))
        left = min(self._most, left + (now - at) * self._most / 60)
        passes = left >= 1
        self._left[address] = (left - passes, now)
        if len(self._left) > _MOST_ADDRESSES:
            self._left.popitem(last=False)
        return 0.0 if passes else (1 - left) * 60 / self._most


def knows(settings: Browser, key: bytes) -> bool:
    """Whether this is one of the browser keys."""
    return any(hmac.compare_digest(key, known.encode()) for known in settings.keys)


def marked(signal: Signal, body: bytes, encoding: Encoding, limit: int, *, json: bool) -> bytes:
    """The request as protobuf, each resource marked as a browser's.

    Raises:
        BadRequest: this is no such request.
        TooLarge: it is over the limit once inflated.
    """
    if json:
        text = inflate(body, encoding, limit, partial(JsonWalker, signal))
        body = to_protobuf(signal, text, limit)
    else:
        body = inflate(body, encoding, limit, TopLevelWalker)
    try:
        request = OFFICIAL_REQUEST[signal].FromString(body)
    except DecodeError as error:
        raise BadRequest(f"the body is not an OTLP {signal} request: {error}") from None
    mark = KeyValue(key=TRUST, value=AnyValue(string_value="browser"))
    for batch in request.resource_logs if signal is Signal.LOGS else request.resource_spans:
        others = [one for one in batch.resource.attributes if one.key != TRUST]
        del batch.resource.attributes[:]
        batch.resource.attributes.extend([*others, mark])
    sent: bytes = request.SerializeToString()
    return sent
