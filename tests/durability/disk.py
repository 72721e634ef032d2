"""A disk with a volatile cache: what is on it after a power cut, from a `powercut.c` trace.

A file is its durable bytes (as of its last sync) and what was written since.
A directory is its durable names (as of its own last sync) and the names since.
POSIX promises no more, file systems mostly do; the cuts differ in which unsynced things happened to
reach the disk:

| cut       | names (create, rename, remove)         | bytes                                      |
|-----------|----------------------------------------|--------------------------------------------|
| `nothing` | as of the directory's sync             | as of the file's sync                      |
| `removed` | as `nothing`, but removals are at once | as of the file's sync                      |
| `names`   | all at once (a journal of metadata)    | as of the file's sync                      |
| `zeros`   | all at once                            | as of the sync, extended with zeros        |
| `torn`    | all at once                            | some of the unsynced writes, page by page  |
| `all`     | all                                    | all: what `kill -9` leaves                 |
"""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

CUTS: Final = ("nothing", "removed", "names", "zeros", "torn", "all")
SOURCE: Final = Path(__file__).with_name("powercut.c")
_HEAD: Final = struct.Struct("<4sII4xQQQ")
_PAGE: Final = 4096


def build(folder: Path) -> Path:
    """Compile the shim.

    Raises:
        AssertionError: there is no C compiler.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler, (
        "the power-cut tests need a C compiler, which is not here: "
        "install gcc (Debian: apt-get install gcc libc6-dev)"
    )
    library = folder / "powercut.so"
    command = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-o", str(library), str(SOURCE)]
    done = subprocess.run([*command, "-ldl", "-lpthread"], capture_output=True, text=True)
    assert done.returncode == 0, f"the power-cut shim does not compile:\n{done.stderr}"
    return library


@dataclass(frozen=True, slots=True)
class Event:
    """One thing the process did."""

    op: str
    path: PurePosixPath
    to: PurePosixPath
    inode: int
    offset: int
    data: bytes


def read_trace(path: Path) -> Iterator[Event]:
    """The events of a trace, in order."""
    raw = path.read_bytes()
    at = 0
    while at < len(raw):
        op, first, second, inode, offset, length = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        what = PurePosixPath(raw[at : at + first].decode())
        to = PurePosixPath(raw[at + first : at + first + second].decode())
        at += first + second
        yield Event(op.decode(), what, to, inode, offset, raw[at : at + length])
        at += length


@dataclass(slots=True, eq=False)
class File:
    """A file's bytes: those on the disk, and what waits in the cache."""

    durable: bytes = b""
    live: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    """(offset, data) of unsynced writes; (size, None) of truncations."""

    def write(self, offset: int, data: bytes) -> None:
        """Into the cache."""
        _apply(self.live, offset, data)
        self.pending.append((offset, data))

    def resize(self, size: int) -> None:
        """Into the cache."""
        _apply(self.live, size, None)
        self.pending.append((size, None))

    def sync(self) -> None:
        """To the disk."""
        if self.pending:
            self.durable = bytes(self.live)
            self.pending.clear()

    def after(self, cut: str, chance: random.Random) -> bytes:
        """The bytes after a cut."""
        if cut == "all":
            return bytes(self.live)
        if cut == "zeros":
            return self.durable.ljust(len(self.live), b"\0")
        if cut == "torn":
            found = bytearray(self.durable)
            for offset, data in self.pending:
                if data is None:
                    if chance.random() < 0.5:
                        _apply(found, offset, None)
                    continue
                at = offset
                while at < offset + len(data):
                    stop = min(offset + len(data), (at // _PAGE + 1) * _PAGE)
                    if chance.random() < 0.5:
                        _apply(found, at, data[at - offset : stop - offset])
                    at = stop
            return bytes(found)
        return self.durable


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset : offset + len(data)] = data


Names = dict[PurePosixPath, File | None]
"""What is where; None is a directory."""


class Disk:
    """Plays a trace, one event at a time."""

    def __init__(self, root: Path) -> None:
        self.root = PurePosixPath(root)
        self.live: Names = {self.root: None}
        self.durable: Names = {self.root: None}
        self.removed: Names = {self.root: None}
        self.notes: list[str] = []
        self._inodes: dict[int, File] = {}

    def play(self, event: Event) -> None:
        """Let one event happen."""
        match event.op:
            case "note":
                self.notes.append(str(event.path))
            case "crea":
                self._inodes[event.inode] = self.live[event.path] = File()
            case "mkdi":
                self.live[event.path] = None
            case "writ":
                self._inodes[event.inode].write(event.offset, event.data)
            case "trun":
                self._inodes[event.inode].resize(event.offset)
            case "exte":
                file = self._inodes[event.inode]
                file.resize(max(event.offset, len(file.live)))
            case "unli":
                del self.live[event.path]
                self.removed.pop(event.path, None)
            case "rena":
                self.live[event.to] = self.live.pop(event.path)
            case "sync" if event.offset:
                self._sync_directory(event.path)
            case "sync":
                self._inodes[event.inode].sync()
            case _:
                raise ValueError(event.op)

    def _sync_directory(self, path: PurePosixPath) -> None:
        for names in (self.durable, self.removed):
            for gone in [p for p in names if p.parent == path and p not in self.live]:
                del names[gone]
            for name, what in self.live.items():
                if name.parent == path:
                    names[name] = what

    def after(self, cut: str, chance: random.Random) -> dict[PurePosixPath, bytes | None]:
        """What a reader finds when the power is back: paths below the root; None is a directory."""
        names = {"nothing": self.durable, "removed": self.removed}.get(cut, self.live)
        found: dict[PurePosixPath, bytes | None] = {}
        for path in sorted(names, key=lambda p: len(p.parts)):
            what = names[path]
            if path == self.root or path.parent == self.root or path.parent in found:
                found[path] = None if what is None else what.after(cut, chance)
        return {path.relative_to(self.root): what for path, what in found.items()}


def restore(found: dict[PurePosixPath, bytes | None], to: Path) -> None:
    """Write what a cut left as real files."""
    for path, content in found.items():
        if content is None:
            (to / path).mkdir(parents=True, exist_ok=True)
        else:
            (to / path).write_bytes(content)
