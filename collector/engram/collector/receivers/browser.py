"""The door for web pages: who may send, how much, and the mark that says it was a page.

What a page says, anybody can say who opens its console: it is stored with trust `browser`.
"""

from __future__ import annotations

import hmac
from functools import cache, partial
from gzip import compress
from hashlib import sha256

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from engram.collector.access.scopes import Scope
from engram.collector.access.tokens import Tokens
from engram.collector.registry import Browser
from engram.exporters.errors import BadRequest
from engram.exporters.inflate import TopLevelWalker, inflate
from engram.exporters.otlp.json import to_protobuf
from engram.exporters.otlp.json_walker import JsonWalker
from engram.exporters.otlp.wire import OFFICIAL_REQUEST
from engram.exporters.signals import Encoding, Signal
from engram.exporters.trust import ATTRIBUTE as TRUST
from engram.instrumentation.browser import script


@cache
def served() -> tuple[bytes, bytes, bytes]:
    """The script, the same gzipped, and its ETag."""
    plain = script()
    return plain, compress(plain, 9, mtime=0), f'"{sha256(plain).hexdigest()[:16]}"'.encode()


def asks(settings: Browser, tokens: Tokens | None) -> bool:
    """Whether a page must send a key: there are some, or tokens with the scope `browser`."""
    return bool(settings.keys) or (tokens is not None and tokens.any([Scope.BROWSER]))


def knows(settings: Browser, key: bytes, tokens: Tokens | None = None) -> bool:
    """Whether this is one of the browser keys, or a token with the scope `browser`."""
    if any(hmac.compare_digest(key, known.encode()) for known in settings.keys):
        return True
    found = None if tokens is None else tokens.find(key.decode("latin-1"))
    return found is not None and Scope.BROWSER in found.scopes


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
