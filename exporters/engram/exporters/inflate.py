"""Bodies as sent to bytes as meant, without trusting the sender: bounded inflating, framing check.

A kilobyte of gzip can hold a megabyte of zeros, one of zstd a hundred.
So nothing here keeps inflated bytes before it knows that they are within the limit and look like
what they should be: a body gets one bounded attempt to be small, every other one is counted and
walked first, in pieces that are thrown away.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from isal import isal_zlib

from engram.exporters.errors import BadRequest, TooLarge
from engram.exporters.signals import Encoding

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_SMALL = 1 << 20
"""What one request may cost in memory before it is known to be good.

Batches of SDKs (512 spans, ~330 kB) are below, so they are inflated once, not twice.
"""

_PIECE = 64 << 10
_STEP = 16 << 10
"""Compressed bytes handed over at a time: isal copies what it did not use, for every member."""

_MAX_MEMBERS: Final = {Encoding.GZIP: 1 << 14, Encoding.ZSTD: 1 << 14, Encoding.DEFLATE: 1}
"""bgzip writes one per 64 kB (1,024 in 64 MiB); a body of empty members would cost seconds."""

_GZIP, _ZLIB, _RAW = 31, 15, -15
"""zlib's `wbits` for a gzip header and trailer, for zlib's own, and for none."""

_ZSTD_WINDOW = 23
"""8 MiB, which RFC 9659 allows to a zstd body: the window is what inflating one costs in memory."""

_Corrupt: tuple[type[Exception], ...] = (isal_zlib.error, zstd.ZstdError)  # type: ignore[assignment] # typed as an instance


class Walker(Protocol):
    """Looks at inflated bytes that come in chunks, and keeps none of them."""

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes. MUST raise `BadRequest` when no continuation can be good."""

    def finish(self) -> None:
        """Say that no more bytes come. MUST raise `BadRequest` when something is missing."""


def inflate(
    body: bytes,
    encoding: Encoding,
    limit: int,
    walker: Callable[[int], Walker] | None = None,
) -> bytes:
    """The body as its sender meant it, of at most `limit` bytes.

    Several gzip members or zstd frames, one after the other, are one body. An empty body is a valid
    one. `walker` makes what looks at more than 1 MiB before it is kept, given the limit; without
    one it must look like a protobuf request.

    Raises:
        BadRequest: corrupt or truncated, bytes behind it, or (above 1 MiB) refused by the walker.
        TooLarge: over `limit`; found without keeping what was inflated.
    """
    if encoding is Encoding.IDENTITY or not body:
        if len(body) > limit:
            raise TooLarge(limit)
        return body
    whole: bytes | None
    # The trailer of gzip tells the size (of the last member, modulo 4 GiB): a hint only, so this
    # attempt is bounded.
    if encoding is not Encoding.GZIP or int.from_bytes(body[-4:], "little") <= _SMALL:
        whole = _single_member(body, encoding, _SMALL)
        if whole is None:
            whole = _members(body, encoding, _SMALL)
        if whole is not None:
            if len(whole) > limit:
                raise TooLarge(limit)
            return whole
    looking = InflatingWalker(limit, encoding, walker, patient=True)
    for chunk in _steps(body):
        looking.feed(chunk)
    looking.finish()
    whole = _single_member(body, encoding, looking.size)
    if whole is not None:
        return whole
    whole = _members(body, encoding, looking.size)
    if whole is None:
        raise AssertionError("the same bytes inflated to another size")
    return whole


def _steps(body: bytes) -> Iterator[memoryview]:
    view = memoryview(body)
    for at in range(0, len(view), _STEP):
        yield view[at : at + _STEP]


class _Zstd:
    """A zstd frame with the interface of a zlib stream. It keeps what it did not use yet itself."""

    __slots__ = ("_frame",)

    unconsumed_tail = b""

    def __init__(self) -> None:
        options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW}
        self._frame = zstd.ZstdDecompressor(options=options)

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes:
        return self._frame.decompress(data, max_length)

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data


def _stream(encoding: Encoding, start: bytes | memoryview) -> Any:
    """What inflates one member that begins like this."""
    match encoding:
        case Encoding.ZSTD:
            return _Zstd()
        case Encoding.DEFLATE:
            # HTTP's `deflate` is zlib's format, but some send what is inside it. No compressor
            # begins that with the 8 that zlib's header has in its lower half.
            wrapped = start[0] & 15 == 8
            return isal_zlib.decompressobj(wbits=_ZLIB if wrapped else _RAW)
        case _:
            return isal_zlib.decompressobj(wbits=_GZIP)


def _single_member(body: bytes, encoding: Encoding, most: int) -> bytes | None:
    """The inflated body if it is exactly one good member of at most `most` bytes."""
    stream = _stream(encoding, body)
    try:
        # One byte more: at exactly `most` isal may stop before it has read the trailer.
        whole: bytes = stream.decompress(body, most + 1)
    except _Corrupt:
        return None
    return whole if stream.eof and not stream.unused_data and len(whole) <= most else None


def _members(body: bytes, encoding: Encoding, most: int) -> bytes | None:
    """The inflated body, of any number of members, unless it is over `most` bytes.

    Raises:
        BadRequest: it is not of this encoding, or not all of it.
    """
    inflater = _Inflater(encoding)
    pieces: list[bytes] = []
    for chunk in _steps(body):
        for piece in inflater.feed(chunk):
            pieces.append(piece)
            most -= len(piece)
            if most < 0:
                return None
    inflater.finish()
    return b"".join(pieces)


class _Inflater:
    """Inflates all members of a body that comes in chunks, in pieces of at most 64 KiB."""

    __slots__ = ("_encoding", "_members", "_stream")

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._members = 0
        self._stream: Any = None

    def feed(self, chunk: bytes | memoryview) -> Iterator[bytes]:
        """What the chunk holds; to be read to its end before the next chunk.

        Raises:
            BadRequest: where the bytes stop being of this encoding.
        """
        waiting = chunk
        while True:
            if self._stream is None:
                if not waiting:
                    return
                most = _MAX_MEMBERS[self._encoding]
                if self._members == most:
                    if most == 1:
                        raise BadRequest(f"foreign bytes behind the {self._encoding} body")
                    raise BadRequest(f"the body has more than {most} {self._encoding} members")
                self._members += 1
                self._stream = _stream(self._encoding, waiting)
            try:
                piece = self._stream.decompress(waiting, _PIECE)
            except _Corrupt as error:
                where = "behind" if self._members > 1 else "in"
                raise BadRequest(
                    f"corrupt or foreign bytes {where} the {self._encoding} body: {error}"
                ) from None
            if piece:
                yield piece
            if self._stream.eof:
                waiting, self._stream = self._stream.unused_data, None
            elif not waiting and not piece:
                return
            else:
                waiting = self._stream.unconsumed_tail

    def finish(self) -> None:
        """Say that no more chunks come.

        Raises:
            BadRequest: a member is not complete.
        """
        if self._stream is not None:
            raise BadRequest(f"the {self._encoding} body is truncated, or foreign bytes follow it")


class InflatingWalker:
    """A walker for a compressed body that comes in chunks; counts, and keeps nothing.

    A patient one, for a body that is here already, counts on when the walker says no: what is a
    bomb as well is called too large, whatever it is made of.
    """

    __slots__ = ("_bad", "_inflater", "_limit", "_patient", "_walker", "size")

    def __init__(
        self,
        limit: int,
        encoding: Encoding,
        walker: Callable[[int], Walker] | None = None,
        *,
        patient: bool = False,
    ) -> None:
        self._patient = patient
        self._bad: BadRequest | None = None
        self._limit = limit
        self._inflater = _Inflater(encoding)
        self._walker = (walker or TopLevelWalker)(limit)
        self.size = 0
        """Inflated bytes so far."""

    def feed(self, chunk: bytes | memoryview) -> None:
        """Look into the next bytes.

        Raises:
            BadRequest: this is not of the encoding, or not what should be in it.
            TooLarge: more than the limit is in it.
        """
        for piece in self._inflater.feed(chunk):
            self.size += len(piece)
            if self.size > self._limit:
                raise TooLarge(self._limit)
            if self._bad is None:
                self._look_at(piece)

    def _look_at(self, piece: bytes) -> None:
        try:
            self._walker.feed(piece)
        except BadRequest as error:
            if not self._patient or isinstance(error, TooLarge):
                raise
            self._bad = error

    def finish(self) -> None:
        """Say that no more bytes come.

        Raises:
            BadRequest: the body or what is in it is not complete.
        """
        self._inflater.finish()
        if self._bad is not None:
            raise self._bad
        self._walker.finish()


_VARINT, _FIXED64, _LEN, _FIXED32 = 0, 1, 2, 5
_MAX_HEAD = 15
"""Bytes of the longest tag and the longest varint behind it: all that is ever carried over."""

_CHILD = (1, 2, 2)
"""The field to look into at each depth: a request's resources, their scopes, their records.

The numbers are the same for traces, logs and metrics.
"""

_KNOWN = ((1,), (1, 2, 3, 1000), (1, 2, 3))
"""The fields of the same three messages (1000 is from before 2022)."""

_MAX_UNKNOWN = 64 << 10
"""What fields of a later OTLP may take, on those levels.

Much text passes for protobuf (`xx` is field 15 with value 120), but not as fields of a request.
"""

_MANY, _BYTES_A_FIELD = 1 << 16, 16
"""How many fields a body may have on the levels we walk: so many, and one more for every 16 bytes.

64 MiB of empty resources (64 kB as gzip) would take a parser 2 GB, and us a quarter of a minute.
"""

_WIDE_RECORD = 64 << 10
"""Records above this have their own fields walked; a look into each would cost 20 steps a span."""


class TopLevelWalker:
    """Checks that bytes arriving in chunks are framed like a protobuf request, keeping none.

    Says no at the first impossible tag or length, which for zeros, text, JSON or random bytes is
    nearly always in the first chunk. What it lets pass still needs a real parse.

    Within the first 1 MiB only the top level is walked (a microsecond a chunk: SDKs send one or a
    few resources), unless one message is larger than that. Beyond, the walk goes down to the
    records, so that a large body of nonsense behind one good tag is not buffered to its end.
    """

    __slots__ = ("_carry", "_ends", "_fields", "_limit", "_next", "_seen", "_size", "_unknown")

    def __init__(self, limit: int, size: int | None = None) -> None:
        self._limit = limit
        self._size = size  # of the whole body, if its sender said so
        self._seen = 0  # bytes fed
        self._next = 0  # absolute place of the next tag
        self._carry = b""  # the beginning of a tag that a chunk cut
        self._ends: list[int] = []  # where the messages that we are inside of end
        self._fields = 0
        self._unknown = 0  # bytes of fields that no request has

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes.

        Raises:
            BadRequest: no continuation can make this a protobuf request of the size it should be.
            TooLarge: it may well be one, but one over the limit.
        """
        carry, ends, fields = self._carry, self._ends, self._fields
        last = self._limit if self._size is None else self._size
        base = self._seen - len(carry)
        self._seen += len(chunk)
        if self._next >= self._seen:
            return
        view = carry + chunk if carry else chunk
        size = len(view)
        self._carry = b""
        at = self._next - base
        while at < size:
            while ends and base + at == ends[-1]:
                ends.pop()
            start = at
            fields += 1
            # The tag.
            tag = shift = 0
            while at < size:
                byte = view[at]
                at += 1
                tag |= (byte & 127) << shift
                if byte < 128:
                    break
                shift += 7
                if shift > 28:
                    raise self._refusal(base + start, "a tag of more than 5 bytes")
            else:
                self._carry = view[start:]
                at = start
                break
            kind = tag & 7
            if tag < 8 or tag >> 32 or kind not in (_VARINT, _FIXED64, _LEN, _FIXED32):
                raise self._refusal(base + start, f"{tag:#x} is no protobuf tag")
            # Its value, or the length of it.
            depth = len(ends)
            known = depth > 2 or (kind == _LEN and tag >> 3 in _KNOWN[depth])
            if kind == _FIXED64:
                at += 8
            elif kind == _FIXED32:
                at += 4
            else:
                value = shift = 0
                while at < size:
                    byte = view[at]
                    at += 1
                    value |= (byte & 127) << shift
                    if byte < 128:
                        break
                    shift += 7
                    if shift > 63:
                        raise self._refusal(base + start, "a varint of more than 10 bytes")
                else:
                    self._carry = view[start:]
                    at = start
                    break
                if kind == _LEN:
                    inside = base + at
                    at += value
                    end = base + at
                    if (
                        depth < 3
                        and tag >> 3 == _CHILD[depth]
                        and (inside > _SMALL or value > _SMALL)
                        and (depth < 2 or value > _WIDE_RECORD)
                        and value
                    ):
                        if end > (ends[-1] if ends else last):
                            raise self._overrun(base + start, known)
                        ends.append(end)
                        at = inside - base
                        continue
            if base + at > (ends[-1] if ends else last):
                raise self._overrun(base + start, known)
            if not known:
                self._unknown += at - start
                if self._unknown > _MAX_UNKNOWN:
                    raise self._refusal(base + start, "too many fields that OTLP does not have")
        self._next = base + at
        self._fields = fields
        if fields > _MANY + self._seen // _BYTES_A_FIELD:
            raise self._refusal(base + at, "more fields than telemetry of its size can have")

    def finish(self) -> None:
        """Say that no more bytes come.

        Raises:
            BadRequest: the last message is not complete.
        """
        while self._ends and self._next == self._ends[-1]:
            self._ends.pop()
        if self._carry or self._ends or self._next != self._seen:
            raise BadRequest("the body ends in the middle of a protobuf field")

    def _overrun(self, place: int, known: bool) -> BadRequest:
        if known and not self._ends and self._size is None:
            return TooLarge(self._limit)
        return self._refusal(place, "a field runs past the end of its message")

    def _refusal(self, place: int, what: str) -> BadRequest:
        return BadRequest(f"the body is not a protobuf request: at byte {place}, {what}")
