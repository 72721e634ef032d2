"""OTLP in files: what the Collector's file exporter writes, and single requests.

| file | how it is told | one record |
|---|---|---|
| JSON lines | the first line is an object by itself | a line |
| JSON | an object over several lines | an object; several may follow each other |
| protobuf | begins with field 1 | the whole file |
| framed | 4 bytes, big endian: the length of what follows | protobuf or JSON, perhaps zstd |

Whole files may be gzip or zstd. No more than one record is in memory.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from isal import isal_zlib

from engram.collector import otlp_survey
from engram.exporters.errors import BadRequest, NotFound
from engram.exporters.signals import Signal

Format = Literal["auto", "json", "jsonl", "proto"]

MOST: Final = 256 << 20
"""Bytes of one record. A larger one is not read: it would have to be in memory as a whole."""

_Corrupt: type[Exception] = isal_zlib.error  # type: ignore[assignment] # typed as an instance

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_BOM: Final = b"\xef\xbb\xbf"
_FIELD_1: Final = b"\x0a"
_SPACE: Final = b" \t\r\n"
_NAMES: Final = re.compile(rb'"resource_?(spans|logs|metrics)"\s*:', re.IGNORECASE)
_SIGNALS: Final = {b"spans": Signal.TRACES, b"logs": Signal.LOGS, b"metrics": Signal.METRICS}


@dataclass(frozen=True, slots=True)
class Record:
    """One OTLP request of a file, or what is wrong with it."""

    where: str
    """Line or offset, for messages."""

    signal: Signal | None = None
    """None for a request without records."""

    body: bytes = b""
    """As it stands in the file, uncompressed."""

    is_json: bool = False

    problem: str = ""
    """Why there is none; the records behind it are sound."""


class OtlpFile:
    """A file opened for reading; `place` is how far it has been read (compressed bytes).

    Raises:
        NotFound: there is none.
        BadRequest: it cannot be read, or its compression is damaged where it begins.
    """

    def __init__(self, path: str, format_: Format = "auto") -> None:
        self.path = path
        self._format = format_
        try:
            if path == "-":
                self._raw: BinaryIO = sys.stdin.buffer
                self.size = 0
            else:
                if Path(path).is_dir():
                    raise BadRequest(f"{path} is a directory; name the files in it")
                self._raw = open(path, "rb")  # noqa: SIM115 - closed by `close`
                self.size = Path(path).stat().st_size
        except FileNotFoundError:
            raise NotFound(f"no such file: {path}") from None
        except OSError as error:
            raise BadRequest(f"cannot read {path}: {error.strerror}") from None
        self.place = 0

    def close(self) -> None:
        """Close it, unless it is stdin."""
        if self.path != "-":
            self._raw.close()

    def records(self) -> Iterator[Record]:
        """The requests in the file, each with its place, bad ones too."""
        try:
            stream = _Peeking(_uncompressed(_Counted(self._raw, self)))
            yield from self._records(stream)
        except RecursionError:
            yield Record("", problem="nested too deeply to be read")
        except (OSError, EOFError, ValueError, _Corrupt) as error:  # the compression, or the disk
            yield Record("", problem=f"cannot be read any further: {error}")

    def _records(self, stream: _Peeking) -> Iterator[Record]:
        begin = stream.peek(1 << 16)
        if not begin.strip(_SPACE):
            return
        looks_json = begin.removeprefix(_BOM).lstrip(_SPACE)[:1] in (b"{", b"[")
        if begin[:1] == _FIELD_1:  # or an empty line before JSON
            looks_json = looks_json and _NAMES.search(begin) is not None
        if self._format in ("json", "jsonl") or (self._format == "auto" and looks_json):
            yield from self._json(stream)
        elif begin[:1] == _FIELD_1:
            yield _whole(stream)
        elif self._format == "proto" or _is_frame(begin):
            yield from _framed(stream)
        else:
            yield Record(
                "at its beginning",
                problem="this is neither OTLP in JSON nor in protobuf, plain, gzip or zstd",
            )

    def _json(self, stream: _Peeking) -> Iterator[Record]:
        lines = _lines(stream)
        if self._format == "jsonl":
            yield from (_line(number, text) for number, text in lines)
            return
        first = next(lines, None)
        if first is None:
            return
        second = None
        if self._format == "auto":
            if first[1] is not None and _is_object(first[1]):
                yield _line(*first)
                yield from (_line(number, text) for number, text in lines)
                return
            second = next(lines, None)
            if second is not None and (second[1] or b"")[:1] == b"{":
                yield from (_line(*one) for one in (first, second))
                yield from (_line(number, text) for number, text in lines)
                return
        yield from _documents([one for one in (first, second) if one], lines)


class _Counted:
    """A raw file that says how far it has been read."""

    def __init__(self, raw: BinaryIO, owner: OtlpFile) -> None:
        self._raw = raw
        self._owner = owner

    def read(self, size: int = -1) -> bytes:
        found = self._raw.read(size)
        self._owner.place += len(found)
        return found


class _Peeking:
    """Exact reads with a look ahead."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._ahead = bytearray()
        self.offset = 0

    def peek(self, size: int) -> bytes:
        while len(self._ahead) < size and (more := self._stream.read(1 << 16)):
            self._ahead += more
        return bytes(self._ahead[:size])

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end."""
        parts = [bytes(self._ahead[:size])]
        del self._ahead[:size]
        missing = size - len(parts[0])
        while missing and (more := self._stream.read(min(missing, 1 << 20))):
            parts.append(more)
            missing -= len(more)
        found = b"".join(parts)
        self.offset += len(found)
        return found

    def line(self, most: int) -> bytes:
        """Up to a line's end, at most so many bytes."""
        at = -1
        looked = 0
        while (at := self._ahead.find(b"\n", looked)) < 0 and len(self._ahead) < most:
            looked = len(self._ahead)
            more = self._stream.read(1 << 16)
            if not more:
                break
            self._ahead += more
        return self.read(min(at + 1 if at >= 0 else len(self._ahead), most))


def _uncompressed(raw: _Counted) -> Any:
    peeking = _Peeking(raw)
    begin = peeking.peek(4)
    if begin.startswith(_GZIP):
        from isal import igzip

        gunzip: Any = igzip.IGzipFile
        return gunzip(fileobj=_Readable(peeking), mode="rb")
    if begin == _ZSTD:
        import pyarrow as pa

        return pa.CompressedInputStream(pa.PythonFile(_Readable(peeking), mode="r"), "zstd")
    return peeking


class _Readable(io.RawIOBase):
    """The rest of a stream as the file that decompressors want."""

    def __init__(self, stream: _Peeking) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._stream.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)


# -- JSON ------------------------------------------------------------------------------------------


def _lines(stream: _Peeking) -> Iterator[tuple[int, bytes | None]]:
    """(number, line) of what is not empty; None for a line that is too long to be read."""
    number = 0
    while line := stream.line(MOST + 1):
        number += 1
        if len(line) > MOST and not line.endswith(b"\n"):
            while (rest := stream.line(1 << 20)) and not rest.endswith(b"\n"):
                pass
            yield number, None
            continue
        if number == 1:
            line = line.removeprefix(_BOM)
        if line.strip(_SPACE):
            yield number, line


def _line(number: int, text: bytes | None) -> Record:
    where = f"line {number}"
    return Record(where, problem=_TOO_LONG) if text is None else _json_record(where, text)


def _json_record(where: str, text: bytes) -> Record:
    name = _NAMES.search(text)
    if name is None:
        try:
            found = json.loads(text)
        except ValueError as error:
            return Record(where, problem=f"this is no JSON: {error}")
        if found == {}:
            return Record(where, is_json=True)
        return Record(
            where,
            problem="no resourceSpans, resourceLogs or resourceMetrics in it, so this is no OTLP",
        )
    return Record(where, _SIGNALS[name[1].lower()], text, is_json=True)


def _is_object(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _documents(
    read: list[tuple[int, bytes | None]], lines: Iterator[tuple[int, bytes | None]]
) -> Iterator[Record]:
    """JSON values that stand behind one another, over any number of lines."""
    decoder = json.JSONDecoder()
    parts: list[bytes] = []
    size, start = 0, read[0][0] if read else 1

    def all_lines() -> Iterator[tuple[int, bytes | None]]:
        yield from read
        yield from lines

    depth_closed = re.compile(rb"^[}\]]")
    for number, text in all_lines():
        if text is None or size + len(text) > MOST:
            yield Record(f"line {start}", problem=_TOO_LONG)
            return
        parts.append(text)
        size += len(text)
        if not depth_closed.match(text):
            continue
        # A closing bracket without indent: most likely one document ends here.
        whole = b"".join(parts)
        if _is_object(whole):
            yield _json_record(f"line {start}", whole)
            parts, size, start = [], 0, number + 1
    if not parts:
        return
    rest = b"".join(parts).decode("utf-8", "replace")
    at = 0
    while at < len(rest):
        if rest[at] in " \t\r\n":
            at += 1
            continue
        where = f"line {start + rest.count(chr(10), 0, at)}"
        try:
            found, end = decoder.raw_decode(rest, at)
        except ValueError as error:
            yield Record(where, problem=f"this is no JSON: {error}")
            return
        if isinstance(found, list):
            yield Record(where, problem="a list; OTLP is one object a request")
        else:
            yield _json_record(where, rest[at:end].encode())
        at = end


# -- protobuf --------------------------------------------------------------------------------------


def _whole(stream: _Peeking) -> Record:
    body = stream.read(MOST + 1)
    if len(body) > MOST:
        return Record("byte 0", problem=_TOO_LONG)
    return _proto_record("byte 0", body)


def _is_frame(begin: bytes) -> bool:
    """Whether a length and then something that may be a request stands here."""
    if len(begin) < 5:
        return False
    return begin[4:5] in (_FIELD_1, b"{") or begin[4:8] == _ZSTD


def _framed(stream: _Peeking) -> Iterator[Record]:
    while head := stream.read(4):
        where = f"byte {stream.offset - len(head)}"
        size = int.from_bytes(head, "big")
        if len(head) < 4 or size > MOST:
            yield Record(where, problem="no length of a record; what follows cannot be found")
            return
        body = stream.read(size)
        if len(body) < size:
            yield Record(where, problem=f"the file ends {size - len(body)} bytes too early")
            return
        if body.startswith(_ZSTD):
            inflated = _inflated(body)
            if inflated is None:
                yield Record(where, problem="damaged zstd, or more in it than can be read")
                continue
            body = inflated
        if body[:1] == b"{":
            yield _json_record(where, body)
        else:
            yield _proto_record(where, body)


def _inflated(body: bytes) -> bytes | None:
    import pyarrow as pa

    with contextlib.suppress(OSError):
        stream = pa.CompressedInputStream(pa.BufferReader(body), "zstd")
        found: bytes = stream.read(MOST + 1)
        if len(found) <= MOST:
            return found
    return None


def _proto_record(where: str, body: bytes) -> Record:
    if not body:
        return Record(where)
    try:
        signal, records = otlp_survey.survey(body)
    except ValueError as error:
        return Record(where, problem=f"this is no OTLP request in protobuf: {error}")
    if signal is None and records:
        return Record(where, problem="traces, logs or metrics? say it with --signal")
    return Record(where, signal, body)


_TOO_LONG: Final = f"one request of more than {MOST >> 20} MiB; have it written in smaller batches"
