"""Where things are in a home directory.

The home is 0700, and so are `wal` and `quarantine`, which hold telemetry before redaction.
`lake` and `index` are 0755 inside it, so that an operator who opens the home (`chmod o+x HOME`)
shares what is queryable and nothing else.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engram.exporters import files
from engram.exporters.errors import StoreError

DEFAULT_HOME = "./.engram"

_SOCKET_PATH_BYTES: Final = 100
"""A Unix socket's path fits in 108 bytes on Linux and 104 on macOS."""


@dataclass(frozen=True, slots=True)
class Home:
    """The paths of one home. Constructing touches nothing; `create` makes the directories."""

    root: Path

    @classmethod
    def find(cls, given: str | os.PathLike[str] | None = None) -> Home:
        """The home named by the argument, else by `ENGRAM_HOME`, else `./.engram`; absolute."""
        return cls(Path(given or os.environ.get("ENGRAM_HOME") or DEFAULT_HOME).resolve())

    @property
    def wal(self) -> Path:
        """Segments of the write-ahead log (raw OTLP, before redaction: private)."""
        return self.root / "wal"

    @property
    def quarantine(self) -> Path:
        """Bodies that could not be decoded, kept for a person to look at (private)."""
        return self.root / "quarantine"

    @property
    def lake(self) -> Path:
        """The DuckLake: SQLite catalogue and Parquet files."""
        return self.root / "lake"

    @property
    def catalog(self) -> Path:
        """The SQLite catalogue of the lake."""
        return self.lake / "catalog.sqlite"

    @property
    def data(self) -> Path:
        """The Parquet files of the lake."""
        return self.lake / "data"

    @property
    def index(self) -> Path:
        """The LanceDB search index; can be deleted and is rebuilt from the lake."""
        return self.root / "index"

    @property
    def rederive(self) -> Path:
        """Scratch files of `engram rederive`, there only while it runs (private)."""
        return self.root / "rederive"

    @property
    def lock(self) -> Path:
        """Locked (flock) by the one process that writes to this home."""
        return self.root / "collect.lock"

    @property
    def control(self) -> Path:
        """Unix socket of whoever holds the lock: status, flush, compact, append."""
        return self.root / "collect.sock"

    @contextlib.contextmanager
    def control_address(self) -> Iterator[str]:
        """A name for `control` that fits into a socket address, for as long as the block runs."""
        path = str(self.control)
        if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES or not os.path.isdir("/proc/self/fd"):
            yield path
            return
        folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{folder}/{self.control.name}"
        finally:
            os.close(folder)

    def create(self) -> None:
        """Make the directories with their modes. Keeps the mode of a home that exists already.

        Raises:
            StoreError: the place cannot be written, or is no directory.
        """
        try:
            if not self.root.exists():
                files.make_directory(self.root, 0o700)
                (self.root / ".gitignore").write_text("*\n")
            for private in (self.wal, self.quarantine):
                files.make_directory(private, 0o700)
            for public in (self.lake, self.data, self.index):
                files.make_directory(public)
        except OSError as error:
            raise StoreError(
                f"cannot use {self.root} as home: {error.strerror}; "
                "choose another with --home or ENGRAM_HOME"
            ) from error
