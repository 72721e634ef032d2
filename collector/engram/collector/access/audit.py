"""Who looked at what, and when: an append-only log in which each line holds the hash of the last.

One JSON line for each answer that left the home by REST or MCP, and for each change by them. Lines
are written at once and never fsynced: a killed process loses none, a power cut may lose the last
seconds. Several processes append; each looks at the end of the file under a lock.

The chain shows a line that was changed, removed or put in between, and says which. It cannot show
that the newest lines were cut off, nor that somebody with the rights of the owner wrote the whole
anew: whoever needs that notes the last hash (`engram audit-log --verify`) somewhere else.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from engram.collector.access.tokens import FOLDER
from engram.exporters.home import Home

_LOG = logging.getLogger("engram.access")

FIRST: Final = "0" * 64
"""What the first line says of the one before it."""

MOST_IDS: Final = 50
"""Ids of memories in one line; `count` has them all."""

_ROTATE_BYTES: Final = 16 << 20
_KEEP: Final = 32
"""Older files than these many are removed: half a gigabyte of lines stays."""

_LAST_BYTES: Final = 64 << 10
"""No line is longer."""


class AuditLog:
    """The audit log of a home. Constructing touches nothing. Safe for threads and processes."""

    def __init__(
        self, home: Home, *, clock: Callable[[], float] = time.time, rotate: int = _ROTATE_BYTES
    ) -> None:
        self._folder = home.root / FOLDER
        self.path = self._folder / "audit.jsonl"
        self._clock = clock
        self._rotate = rotate
        self._lock = threading.Lock()
        self._file: int | None = None
        self._end: tuple[int, str, int] = (-1, FIRST, 0)
        """Size of the file after our last line, its hash, its number."""
        self._complained = False

    def note(
        self,
        who: str,
        what: str,
        *,
        via: str,
        scope: Mapping[str, Any] | None = None,
        ids: Iterable[str] = (),
        count: int | None = None,
        status: int = 200,
    ) -> None:
        """Append a line. A log that cannot be written is said in the process's log, once.

        `who` is a token's name or `local`, `what` the route or tool, `via` `rest` or `mcp`,
        `scope` whose memories were asked for, `ids` those that were given out.
        """
        given = list(ids)
        entry = {
            "at": datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds"),
            "who": who[:200], "via": via, "what": what[:200],
            "scope": {str(k): str(v)[:200] for k, v in (scope or {}).items() if v is not None},
            "count": len(given) if count is None else count,
            "ids": [one[:64] for one in given[:MOST_IDS]], "status": status,
        }  # fmt: skip
        try:
            with self._lock:
                self._append(entry)
        except OSError as error:
            if not self._complained:
                self._complained = True
                _LOG.warning("the audit log %s cannot be written: %s", self.path, error)

    def close(self) -> None:
        """Let go of the file. Safe twice; the next line opens it again."""
        with self._lock:
            self._close()

    def _append(self, entry: dict[str, Any]) -> None:
        while True:
            file = self._open()
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                if not self._current(file):  # another process has rotated it meanwhile
                    continue
                size = os.fstat(file).st_size
                if size != self._end[0]:
                    self._end = (size, *_last(file, size))
                if size >= self._rotate:
                    self._turn(file)
                    continue
                _, before, number = self._end
                line = sealed({"n": number + 1, **entry}, before)
                raw = (json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "replace")
                os.write(file, raw)
                self._end = (size + len(raw), line["hash"], number + 1)
                return
            finally:
                if self._file is None:
                    os.close(file)
                else:
                    fcntl.flock(file, fcntl.LOCK_UN)

    def _open(self) -> int:
        if self._file is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._file = os.open(self.path, flags, 0o600)
            self._end = (-1, FIRST, 0)
        return self._file

    def _current(self, file: int) -> bool:
        with contextlib.suppress(OSError):
            if os.stat(self.path).st_ino == os.fstat(file).st_ino:
                return True
        self._file = None  # closed by the caller
        return False

    def _turn(self, file: int) -> None:
        """Begin a new file, whose first line goes on with the chain."""
        _, before, number = self._end
        os.fsync(file)
        fresh = self._folder / ".audit.fresh"
        fresh.unlink(missing_ok=True)
        line = sealed({"n": number + 1, "what": "continued"}, before)
        made = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(made, "w") as out:
            out.write(json.dumps(line) + "\n")
        # The name is never free: whoever opens it gets the old file, and sees that, or the new.
        os.link(self.path, self._folder / f"audit-{number:012}.jsonl")
        fresh.rename(self.path)
        for old in old_files(self._folder)[:-_KEEP]:
            old.unlink(missing_ok=True)
        self._file = None

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


_logs: dict[Path, AuditLog] = {}
_logs_lock = threading.Lock()


def audit(
    home: Home,
    who: str,
    what: str,
    *,
    via: str = "mcp",
    scope: Mapping[str, Any] | None = None,
    ids: Iterable[str] = (),
    count: int | None = None,
) -> None:
    """Note in the audit log of a home; never raises. For whoever has no `AuditLog` at hand."""
    with _logs_lock:
        log = _logs.setdefault(home.root, AuditLog(home))
    log.note(who, what, via=via, scope=scope, ids=ids, count=count)


def sealed(entry: Mapping[str, Any], before: str) -> dict[str, Any]:
    """An entry with the hash of the line before it, and its own."""
    body = {**entry, "before": before}
    told = json.dumps(body, ensure_ascii=False, sort_keys=True).encode("utf-8", "replace")
    return {**body, "hash": hashlib.sha256(told).hexdigest()}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look at the whole chain found."""

    lines: int
    problems: tuple[str, ...]
    """Where it is broken, in words; none when it is whole."""

    last: str
    """The hash of the newest line."""


def entries(home: Home) -> Iterator[dict[str, Any]]:
    """All lines that are still there, oldest first; what cannot be read is `{"bad": text}`."""
    folder = home.root / FOLDER
    for path in [*old_files(folder), folder / "audit.jsonl"]:
        with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8") as lines:
            for number, text in enumerate(lines, 1):
                try:
                    line = json.loads(text)
                except ValueError:
                    line = None
                yield line if isinstance(line, dict) else {"bad": f"{path.name}:{number}"}


def verify(home: Home) -> Verdict:
    """Whether the chain is whole. Files that rotation removed are not missed."""
    lines, problems, before, number = 0, list[str](), None, None
    for entry in entries(home):
        lines += 1
        if "bad" in entry:
            problems.append(f"{entry['bad']} is no line of the log")
            before = number = None
            continue
        claimed = entry.get("hash")
        body = {key: value for key, value in entry.items() if key not in ("hash", "before")}
        where = f"line {entry.get('n')} of {entry.get('at', '?')}"
        if sealed(body, str(entry.get("before")))["hash"] != claimed:
            problems.append(f"{where} was changed")
        if before is not None and entry.get("before") != before:
            problems.append(f"between line {number} and {where} something is missing or was put in")
        if number is None and lines == 1 and entry.get("n") == 1 and entry.get("before") != FIRST:
            problems.append(f"{where} does not begin the log")
        before, number = str(claimed), entry.get("n")
    return Verdict(lines, tuple(problems), before or FIRST)


def old_files(folder: Path) -> list[Path]:
    """The files that were rotated away, oldest first."""
    return sorted(folder.glob("audit-*.jsonl"))


def _last(file: int, size: int) -> tuple[str, int]:
    """Hash and number of the last line that can be read."""
    if size == 0:
        return FIRST, 0
    tail = os.pread(file, _LAST_BYTES, max(0, size - _LAST_BYTES))
    if not tail.endswith(b"\n"):
        os.write(file, b"\n")  # a power cut in the middle of a line: it stays, as a bad one
    for text in reversed(tail.splitlines()):
        try:
            line = json.loads(text)
            return str(line["hash"]), int(line["n"])
        except (ValueError, KeyError, TypeError):
            continue
    return FIRST, 0
