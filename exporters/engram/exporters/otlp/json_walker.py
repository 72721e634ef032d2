"""The framing check of a large OTLP/JSON body that arrives in chunks.

The counterpart of `engram.exporters.inflate.TopLevelWalker`: what is no JSON, or no such request,
is refused while it comes, before it is held in memory. It works on whole chunks at C speed, so it
is coarse: it knows which token may follow which, not which bracket closes which. What it lets pass
still needs `to_protobuf`.
"""

from __future__ import annotations

import re
from typing import Final

from engram.exporters.errors import BadRequest, TooLarge
from engram.exporters.otlp.json import too_many_objects
from engram.exporters.otlp.wire import OFFICIAL_REQUEST
from engram.exporters.signals import Signal

_HEAD: Final = 64 << 10
"""Within so many bytes the request's only field must have begun."""

_MAX_OPEN: Final = 400
"""Brackets that may be open at the end of a chunk: two for each of 100 messages, and some."""

_MAX_SCALAR: Final = 400
"""Characters of a number; the longest that a serializer writes is 1e308 in full."""

_CONTROL: Final = bytes(range(32))
_SPACE: Final = b" \t\r\n"
_OF_SCALARS: Final = b"0123456789+-.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_AS_ZERO: Final = bytes.maketrans(_OF_SCALARS, b"0" * len(_OF_SCALARS))
_STRUCTURE: Final = b'{}[],:"0'
_STEP: Final = 32 << 10
"""Bytes looked at together: they may become as many small objects."""

_IMPOSSIBLE: Final = re.compile(
    rb'\{(?=[^"}])|\[(?=[^{\["0\]])|[,:](?=[^{\["0])|[}\]0](?=[^,}\]])|"(?=[^,:}\]])'
)
"""Two tokens that no JSON has next to each other: `"` is a whole string, `0` a number or word."""


class JsonWalker:
    """Checks that bytes arriving in chunks look like a request of one signal in JSON."""

    __slots__ = (
        "_carry", "_head", "_in_text", "_last", "_limit", "_names", "_objects", "_open", "_scalar",
        "_seen",
    )  # fmt: skip

    def __init__(self, signal: Signal, limit: int) -> None:
        self._limit = limit
        field = OFFICIAL_REQUEST[signal].DESCRIPTOR.fields[0]
        self._names = (f'"{field.json_name}"'.encode(), f'"{field.name}"'.encode())
        self._head: bytes | None = b""  # until it has shown what this is
        self._seen = 0
        self._carry = b""  # a backslash that a chunk cut from what it escapes
        self._in_text = False
        self._last = b""  # the last token
        self._scalar = 0  # the length of the number that a chunk may have cut
        self._open = 0
        self._objects = 0

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes.

        Raises:
            BadRequest: no continuation can make this the request that it should be.
            TooLarge: it is over the limit.
        """
        for at in range(0, len(chunk), _STEP):
            self._feed(chunk[at : at + _STEP])

    def _feed(self, chunk: bytes) -> None:
        self._seen += len(chunk)
        if self._seen > self._limit:
            raise TooLarge(self._limit)
        if self._head is not None:
            self._look_at_head(chunk)
        data = self._carry + chunk
        self._carry = b"\\" if (len(data) - len(data.rstrip(b"\\"))) % 2 else b""
        if self._carry:
            data = data[:-1]
        # Without escapes every quote begins or ends a string: structure and text by turns.
        parts = data.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')
        structure, texts = parts[self._in_text :: 2], parts[1 - self._in_text :: 2]
        if len(text := b"".join(texts)) != len(text.translate(None, _CONTROL)):
            raise self._refusal("a control character in a string")
        tokens = b'"'.join(structure)  # a string is counted where it ends
        if self._in_text and structure:
            tokens = b'"' + tokens
        self._in_text ^= len(parts) % 2 == 0
        if tokens := tokens.translate(None, _SPACE):
            self._look_at(tokens)

    def _look_at_head(self, chunk: bytes) -> None:
        head = (self._head or b"") + chunk[:_HEAD]
        start = head.lstrip(_SPACE)[:1]
        if start and start != b"{":
            raise self._refusal("a request begins with {")
        if any(name in head for name in self._names):
            self._head = None
        elif len(head) >= _HEAD:
            raise self._refusal(f"no {self._names[0].decode()} in the first 64 KiB")
        else:
            self._head = head

    def _look_at(self, tokens: bytes) -> None:
        tokens = tokens.translate(_AS_ZERO)
        if foreign := tokens.translate(None, _STRUCTURE):
            raise self._refusal(f"{foreign[:1]!r} outside of a string")
        rest = len(tokens) - len(tokens.rstrip(b"0"))
        self._scalar = self._scalar + rest if rest == len(tokens) else rest
        if self._scalar > _MAX_SCALAR or b"0" * (_MAX_SCALAR + 1) in tokens:
            raise self._refusal(f"a number of more than {_MAX_SCALAR} characters")
        while b"00" in tokens:
            tokens = tokens.replace(b"00", b"0")
        if self._last == b"0" == tokens[:1]:
            tokens = tokens[1:]  # the rest of a number that the chunk cut
        if _IMPOSSIBLE.search(self._last + tokens):
            raise self._refusal("a bracket, comma or value where none can be")
        opened = tokens.count(b"{") + tokens.count(b"[")
        self._objects += opened
        self._open += opened - tokens.count(b"}") - tokens.count(b"]")
        if not 0 <= self._open <= _MAX_OPEN:
            raise self._refusal("brackets that close nothing, or too many in each other")
        if too_many_objects(self._objects, self._seen):
            raise self._refusal("more objects than telemetry of its size can have")
        self._last = tokens[-1:] or self._last

    def finish(self) -> None:
        """Say that no more bytes come.

        Raises:
            BadRequest: a string, a list or an object is not complete.
        """
        if self._in_text or self._open or self._carry:
            raise BadRequest("the JSON body ends in the middle of a value")

    def _refusal(self, what: str) -> BadRequest:
        return BadRequest(
            f"the body is not an OTLP request in JSON: before byte {self._seen}, {what}"
        )
