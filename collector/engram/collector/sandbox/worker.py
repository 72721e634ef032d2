"""The process that runs strangers' queries: `python -I -m engram.collector.sandbox.worker`.

It has no environment, asks for nothing, and answers one question at a time by frames on its
standard input and output: four bytes of length, then JSON. Its parent ends it when it is late.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
import sys
import time
from contextlib import suppress
from datetime import date, datetime
from datetime import time as time_of_day
from decimal import Decimal
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from engram.collector.sandbox.statement import Known

LENGTH: Final = struct.Struct(">I")
_LAKE_FAILS: Final = re.compile(r"(?:[A-Za-z ]+: )?Failed to \w+ .*DuckLake", re.DOTALL)
"""Not the query's fault: the catalogue cannot be read, such as when its log was made anew."""

_CPU_S: Final = 3600
"""Of a worker's whole life. Its parent kills it earlier; this is for a parent that died."""


def main(told: str) -> int:
    """Confine, attach, answer until the input ends."""
    settings = json.loads(told)
    root, answers = Path(settings["home"]), _answers()
    lake = root / "lake"
    from engram.collector.sandbox.confine import confine

    held = confine(
        read=_readable(lake),
        write=_writable(lake),
        address_space=settings["address_space"],
        cpu_s=_CPU_S,
    )
    try:
        asked = _Lake(root, settings)
    except Exception as error:  # noqa: BLE001 - told to the parent, which says it
        _send(answers, _failed(error, root))
        return 1
    _send(answers, {"ready": held})
    while (question := receive(sys.stdin.buffer)) is not None:
        _send(answers, asked.answer(question))
    return 0


def _answers() -> IO[bytes]:
    """Where answers go. What a library prints goes nowhere."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    return answers


def receive(stream: IO[bytes]) -> dict[str, Any] | None:
    """The next frame; None at the end."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    frame: dict[str, Any] = json.loads(stream.read(LENGTH.unpack(head)[0]))
    return frame


def _send(stream: IO[bytes], frame: dict[str, Any]) -> None:
    body = json.dumps(frame, ensure_ascii=False).encode("utf-8", "replace")
    waiting = memoryview(LENGTH.pack(len(body)) + body)
    while waiting:
        waiting = waiting[stream.write(waiting) :]


def _readable(lake: Path) -> list[Path]:
    """The lake, Python and its packages, and what C libraries look at."""
    python = {Path(one) for one in (sys.prefix, sys.base_prefix, *sys.path) if one}
    system = (
        "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/lib", "/lib64", "/etc/ld.so.cache",
        "/etc/localtime", "/dev/null", "/dev/urandom", "/proc/self", "/proc/meminfo",
        "/sys/devices/system/cpu", "/sys/fs/cgroup",
    )  # fmt: skip
    return [lake, *sorted(python), *(Path(one) for one in system)]


def _writable(lake: Path) -> list[Path]:
    """What a reader of a SQLite catalogue in WAL mode writes: the log's shared memory.

    Made as SQLite makes them where nobody has the catalogue open, because a file that is not there
    cannot be allowed, and its folder, with the data in it, shall not be.
    """
    beside = [lake / f"catalog.sqlite{end}" for end in ("-shm", "-wal")]
    for one in beside:
        with suppress(OSError):
            os.close(os.open(one, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
    return [Path(os.devnull), *beside]


class _Lake:
    """The lake of a home, and what may be asked of it."""

    def __init__(self, root: Path, settings: dict[str, Any]) -> None:
        from engram.collector.query import open_reader
        from engram.collector.sandbox.statement import known
        from engram.exporters.home import Home

        self._root = root
        self._max_cell = int(settings["max_cell"])
        self._max_bytes = int(settings["max_bytes"])
        self._connection = open_reader(
            Home(root),
            threads=settings["threads"],
            memory_limit=settings["memory"],
            stranger=True,
        )
        self._known: Known = known(self._connection)

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Columns, types and rows; or an error with its kind."""
        try:
            return self._run(question["sql"], question["max_rows"])
        except Exception as error:  # noqa: BLE001 - each is told to the parent
            return _failed(error, self._root)

    def _run(self, text: str, max_rows: int) -> dict[str, Any]:
        from engram.collector import query
        from engram.collector.sandbox.statement import check, known
        from engram.exporters.errors import BadRequest

        begun = time.perf_counter()
        try:
            check(self._connection, text, self._known)
        except BadRequest:
            # A type of memory that is new since has a view that is not known yet.
            self._known = known(self._connection)
            check(self._connection, text, self._known)
        result = query.run(self._connection, text)
        rows: list[str] = []
        size, truncated = 0, False
        for row in result.rows:
            encoded, cut = self._encoded(row)
            size += len(encoded)
            if len(rows) >= max_rows or size > self._max_bytes:
                truncated = True
                break
            truncated = truncated or cut
            rows.append(encoded)
        result.rows.close()  # type: ignore[attr-defined] # a generator
        self._connection.execute("SELECT 1").fetchall()  # ends what is left of the query
        return {
            "columns": result.columns,
            "types": result.types,
            # Encoded once, row by row, for its size; a string here, so that it is not again.
            "rows": "[" + ",".join(rows) + "]",
            "truncated": truncated,
            "elapsed_ms": round((time.perf_counter() - begun) * 1000, 1),
        }

    def _encoded(self, row: tuple[Any, ...]) -> tuple[str, bool]:
        cut = False
        values = []
        for value in row:
            value = plain(value)
            if isinstance(value, list | dict):
                text = json.dumps(value, ensure_ascii=False)
                value = text if len(text) > self._max_cell else value
            if isinstance(value, str) and len(value) > self._max_cell:
                cut = True
                value = f"{value[: self._max_cell]}… ({len(value):,} characters)"
            values.append(value)
        return json.dumps(values, ensure_ascii=False), cut


def plain(value: Any) -> Any:
    """A value of DuckDB as one of JSON."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime | date | time_of_day):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    return str(value)


def _failed(error: Exception, root: Path) -> dict[str, Any]:
    """The error, without the paths of this machine."""
    import duckdb

    from engram.collector.query import explained
    from engram.exporters.errors import BadRequest, NotFound

    if isinstance(error, NotFound):
        kind = "not_found"
    elif isinstance(error, MemoryError | duckdb.OutOfMemoryException):
        kind = "memory"
    elif isinstance(error, BadRequest):
        kind = "refused"
    elif isinstance(error, duckdb.IOException) or _LAKE_FAILS.match(str(error)):
        kind = "lake"
    elif isinstance(error, duckdb.Error):
        kind = "sql"
    else:
        kind = "inside"
    text = explained(error) or type(error).__name__
    if kind == "memory":
        text = text.splitlines()[0]  # the rest advises to change settings
    for path in (str(root.resolve()), str(root)):
        text = text.replace(path, "HOME")
    return {"error": {"kind": kind, "text": text[:2000]}}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
