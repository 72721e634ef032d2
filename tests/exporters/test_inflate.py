"""Bounded inflating and the framing check."""

from __future__ import annotations

import contextlib
import gzip
import random
import sys
import tracemalloc
import zlib
from functools import lru_cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from engram.exporters.errors import BadRequest, TooLarge
from engram.exporters.inflate import InflatingWalker, TopLevelWalker, inflate
from engram.exporters.signals import Encoding

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 1 << 20


@lru_cache
def bomb(size: int, first: bytes = b"", filler: bytes = b"\0") -> bytes:
    """`size` bytes of filler as gzip, made without holding them."""
    packer = zlib.compressobj(9, wbits=31)
    block = filler * (MIB // len(filler))
    packed = [packer.compress(first)]
    packed += [packer.compress(block) for _ in range(size // MIB)]
    return b"".join([*packed, packer.flush()])


def varint(value: int) -> bytes:
    """A protobuf varint."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def message(field: int, content: bytes) -> bytes:
    """A protobuf field of bytes."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def large_request(records: int, width: int) -> bytes:
    """A valid logs request, `records` of about `width` bytes."""
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add(schema_url="a")
    resource.resource.attributes.add(key="k").value.string_value = "v"
    scope = resource.scope_logs.add(schema_url="b")
    for n in range(records):
        record = scope.log_records.add(time_unix_nano=n + 1, severity_number=9)
        record.body.string_value = random.Random(n).randbytes(width // 2).hex()
    return request.SerializeToString()


def packed(content: bytes, encoding: Encoding) -> bytes:
    """The content as a sender encodes it."""
    match encoding:
        case Encoding.GZIP:
            return gzip.compress(content)
        case Encoding.ZSTD:
            return zstd.compress(content)
        case Encoding.DEFLATE:
            return zlib.compress(content)
        case _:
            return content


COMPRESSED = [Encoding.GZIP, Encoding.ZSTD, Encoding.DEFLATE]


def walk(data: bytes, chunk: int, limit: int | None = None) -> None:
    """Feed a walker in chunks of this size, to the end."""
    walker = TopLevelWalker(len(data) if limit is None else limit)
    for at in range(0, len(data), chunk):
        walker.feed(data[at : at + chunk])
    walker.finish()


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=6), st.integers(1, 9))
def test_any_members_round_trip(parts: list[bytes], level: int) -> None:
    """Any content in any number of gzip members comes back as it was."""
    body = b"".join(gzip.compress(part, level) for part in parts)
    assert inflate(body, Encoding.GZIP, 1 << 20) == b"".join(parts)


@given(st.binary(max_size=300), st.sampled_from(COMPRESSED), st.data())
def test_every_encoding_round_trips_and_notices_damage(
    content: bytes, encoding: Encoding, data: st.DataObject
) -> None:
    """Content comes back; cut anywhere, or with bytes behind it, it is refused."""
    body = packed(content, encoding)
    assert inflate(body, encoding, 1 << 20) == content
    cut = data.draw(st.integers(1, len(body) - 1))
    for bad in (body[:cut], body + b"\xff\xfe"):
        with pytest.raises(BadRequest):
            inflate(bad, encoding, 1 << 20)


@given(st.binary(max_size=300), st.integers(0, 9))
def test_deflate_without_its_header_is_understood(content: bytes, level: int) -> None:
    """Raw deflate, which some send for `deflate`, gives the same content as zlib's format."""
    packer = zlib.compressobj(level, wbits=-15)
    raw = packer.compress(content) + packer.flush()
    assert inflate(raw, Encoding.DEFLATE, 1 << 20) == content


def test_zstd_frames_follow_each_other() -> None:
    """Several zstd frames are one body; many empty ones, or a huge window, are refused."""
    content = large_request(1500, 1000)
    half = len(content) // 2
    two = zstd.compress(content[:half]) + zstd.compress(content[half:])
    assert inflate(two, Encoding.ZSTD, 64 * MIB) == content
    with pytest.raises(BadRequest, match="members"):
        inflate(zstd.compress(b"") * 20_000, Encoding.ZSTD, 64 * MIB)
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 24})
    wide = packer.compress(content) + packer.flush()  # of a size not known before: 16 MiB
    with pytest.raises(BadRequest, match="zstd"):
        inflate(wide, Encoding.ZSTD, 64 * MIB)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=3), st.data())
def test_truncation_is_always_bad(parts: list[bytes], data: st.DataObject) -> None:
    """A gzip body cut anywhere but between members is refused."""
    members = [gzip.compress(part) for part in parts]
    body = b"".join(members)
    whole = {sum(map(len, members[:n])) for n in range(len(members) + 1)}
    cut = data.draw(st.integers(1, len(body) - 1).filter(lambda at: at not in whole))
    with pytest.raises(BadRequest):
        inflate(body[:cut], Encoding.GZIP, 1 << 20)


@given(st.binary(max_size=300), st.binary(min_size=1, max_size=30))
def test_trailing_garbage_is_bad(content: bytes, garbage: bytes) -> None:
    """Bytes behind a gzip body that are no gzip are refused, zeros too."""
    for tail in (garbage, bytes(len(garbage))):
        if not tail.startswith(b"\x1f"):
            with pytest.raises(BadRequest):
                inflate(gzip.compress(content) + tail, Encoding.GZIP, 1 << 20)


@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_flipped_bit_never_passes_for_other_content(content: bytes, data: st.DataObject) -> None:
    """The checksum is checked: a damaged body is refused or (in the header) means the same."""
    body = bytearray(gzip.compress(content))
    bit = data.draw(st.integers(0, len(body) * 8 - 1))
    body[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(BadRequest):
        assert inflate(bytes(body), Encoding.GZIP, 1 << 20) == content


def test_large_bodies_round_trip() -> None:
    """Above 1 MiB, in one member or several, the content is the same."""
    content = large_request(3000, 1000)
    assert len(content) > 2 * MIB
    half = len(content) // 2
    two = gzip.compress(content[:half]) + gzip.compress(content[half:])
    for encoding in Encoding:
        assert inflate(packed(content, encoding), encoding, 64 * MIB) == content
    assert inflate(two, Encoding.GZIP, 64 * MIB) == content


@pytest.mark.parametrize("size", [1, 1000, 65536, MIB - 1, MIB, MIB + 1, 3 * MIB])
def test_the_limit_is_exact(size: int) -> None:
    """A body of exactly the limit passes, one byte more is too large, in every encoding."""
    content = message(1, message(3, b"x" * (size - 12))) if size > 100 else b"x"
    limit = len(content)
    for encoding in Encoding:
        body = packed(content, encoding)
        assert inflate(body, encoding, limit) == content
        with pytest.raises(TooLarge) as caught:
            inflate(body, encoding, limit - 1)
        assert caught.value.limit == limit - 1


def test_empty_bodies_are_valid() -> None:
    """No bytes, and a gzip of no bytes, are the empty request."""
    for encoding in Encoding:
        assert inflate(b"", encoding, 10) == b""
        assert inflate(packed(b"", encoding), encoding, 10) == b""


@pytest.mark.parametrize(
    ("size", "first", "filler"),
    [
        pytest.param(1024 * MIB, b"", b"\0", id="1 GB of zeros"),
        pytest.param(60 * MIB, b"", b"\0", id="60 MB of zeros, under the limit"),
        pytest.param(200 * MIB, b"\x0a" + varint(200 * MIB), b"\0", id="200 MB behind a tag"),
        pytest.param(60 * MIB, b"\x0a" + varint(60 * MIB), b"\0", id="60 MB behind a tag"),
        pytest.param(60 * MIB, b"", b"x", id="text that passes for unknown fields"),
        pytest.param(60 * MIB, b"", b"\x0a\0", id="empty resources"),
    ],
)
@pytest.mark.parametrize("lie", [False, True])
def test_bombs_cost_no_memory(size: int, first: bytes, filler: bytes, lie: bool) -> None:
    """A body that inflates to very much is refused with less than 3 MiB allocated at any time."""
    body = bomb(size, first, filler)
    if lie:  # about its size, in the trailer
        body = body[:-4] + b"\x01\0\0\0"
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest):
            inflate(body, Encoding.GZIP, 64 * MIB)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * MIB


@pytest.mark.parametrize("encoding", [Encoding.ZSTD, Encoding.DEFLATE])
@pytest.mark.parametrize("size", [40 * MIB, 256 * MIB])
def test_bombs_of_other_encodings_cost_no_memory(encoding: Encoding, size: int) -> None:
    """As with gzip, and what is over the limit is told the limit, whatever it is made of."""
    packer = zstd.ZstdCompressor() if encoding is Encoding.ZSTD else zlib.compressobj(1)
    good = message(1, message(2, message(2, b"x" * 10_000) * 90)) * 2
    for filler in (bytes(2 * MIB), good):
        parts = [packer.compress(filler) for _ in range(size // len(filler))]
        body = b"".join([*parts, packer.flush()])
        packer = zstd.ZstdCompressor() if encoding is Encoding.ZSTD else zlib.compressobj(1)
        tracemalloc.start()
        try:
            with pytest.raises(TooLarge):
                inflate(body, encoding, 32 * MIB)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2 * MIB + 2 * len(body)


def test_a_bomb_in_gzip_in_gzip_is_inflated_once() -> None:
    """Nesting hides nothing: what comes out is the inner gzip, which is no protobuf."""
    inner = bomb(1024 * MIB, b"", b"\0")
    assert inflate(gzip.compress(inner), Encoding.GZIP, 64 * MIB) == inner
    with pytest.raises(BadRequest):
        walk(inner, 65536)


def test_a_large_body_over_the_limit_is_too_large() -> None:
    """A good body of unknown size is told that it is too large, not that it is bad."""
    content = large_request(3000, 1000)
    with pytest.raises(TooLarge):
        walk(content, 65536, limit=2 * MIB)
    with pytest.raises(BadRequest, match="past the end"):
        TopLevelWalker(64 * MIB, size=MIB).feed(content[:100])


def test_too_large_says_so_while_streaming() -> None:
    """A bomb of valid records is TooLarge as soon as the limit is passed, not at its end."""
    record = message(1, message(3, b"x" * 1000))
    body = bomb(0, first=record * 5000)
    walker = InflatingWalker(MIB, Encoding.GZIP)
    fed = 0
    with pytest.raises(TooLarge):  # noqa: PT012
        for fed in range(0, len(body), 1000):
            walker.feed(body[fed : fed + 1000])
    assert fed < len(body) / 2


def test_many_empty_members_are_refused() -> None:
    """A body of empty gzip members does not cost seconds of set-up."""
    with pytest.raises(BadRequest, match="members"):
        inflate(gzip.compress(b"") * 100_000, Encoding.GZIP, 64 * MIB)


values = st.recursive(
    st.builds(message, st.integers(1, 40), st.binary(max_size=40)),
    lambda inner: st.builds(
        lambda f, p: message(f, b"".join(p)), st.integers(1, 3), st.lists(inner)
    ),
    max_leaves=20,
)


@given(st.lists(values).map(b"".join), st.integers(1, 50))
def test_any_framing_in_any_chunks_passes(data: bytes, chunk: int) -> None:
    """Whatever is framed as protobuf passes the walker, however it is cut."""
    walk(data, chunk)


@given(
    st.lists(
        st.tuples(
            st.binary(max_size=20),
            st.text(max_size=20),
            st.integers(0, 2**64 - 1),
            st.integers(0, 2**32 - 1),
        ),
        max_size=8,
    ),
    st.integers(1, 70),
)
def test_any_request_in_any_chunks_passes(
    rows: list[tuple[bytes, str, int, int]], chunk: int
) -> None:
    """A real request passes the walker, however it is cut."""
    request = ExportTraceServiceRequest()
    for trace_id, name, at, flags in rows:
        scope = request.resource_spans.add(schema_url=name).scope_spans.add()
        span = scope.spans.add(trace_id=trace_id, name=name, start_time_unix_nano=at, flags=flags)
        span.attributes.add(key=name).value.double_value = at
    walk(request.SerializeToString(), chunk)


@pytest.mark.parametrize("shape", [(4000, 1000), (20, 200_000), (1, 3_000_000)])
@pytest.mark.parametrize("chunk", [997, 65536])
def test_large_requests_pass(shape: tuple[int, int], chunk: int) -> None:
    """Above 1 MiB the walk goes down to the records, narrow and wide, and lets them pass."""
    content = large_request(*shape)
    walk(content + content, chunk)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\0", id="zero"),
        pytest.param(b'{"resourceSpans": []}', id="json"),
        pytest.param(b"\x1f\x8b\x08\0", id="gzip"),
        pytest.param(b"\x0b\x0c", id="group"),
        pytest.param(b"\x0e", id="wire type 6"),
        pytest.param(b"\x02\x00", id="field 0"),
        pytest.param(b"\x0a\x05abc", id="too short"),
        pytest.param(b"\x0a", id="half a head"),
        pytest.param(b"\xff" * 5, id="endless tag"),
        pytest.param(b"\x08" + b"\xff" * 10, id="endless varint"),
        pytest.param(b"\x09abc", id="short fixed64"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 100])
def test_impossible_framing_is_bad(data: bytes, chunk: int) -> None:
    """What no protobuf can begin or end with is refused, however it is cut."""
    with pytest.raises(BadRequest):
        walk(data, chunk)


def test_a_length_past_the_limit_is_bad_at_once() -> None:
    """A message that claims to be longer than the body may be is refused at its head."""
    walker = TopLevelWalker(1000)
    with pytest.raises(TooLarge):
        walker.feed(b"\x0a" + varint(998))


def test_nonsense_behind_a_good_tag_is_bad_soon() -> None:
    """A large message of zeros is refused at its first inner tag, deep down too."""
    inside = 8 * MIB
    for nested in ((1,), (1, 2), (1, 2, 2)):
        head, size = b"", inside
        for field in reversed(nested):
            head = varint(field << 3 | 2) + varint(size) + head
            size = inside + len(head)
        with pytest.raises(BadRequest):
            TopLevelWalker(64 * MIB).feed(head + b"\0")


@given(st.binary(min_size=1, max_size=200), st.integers(1, 20))
def test_chunking_does_not_change_the_verdict(data: bytes, chunk: int) -> None:
    """The same bytes are refused or not, wherever they were cut."""

    def verdict(size: int) -> bool:
        try:
            walk(data, size)
        except BadRequest:
            return False
        return True

    assert verdict(chunk) == verdict(len(data))
