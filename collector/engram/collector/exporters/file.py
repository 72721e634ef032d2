"""The `file` exporter: one line of OTLP/JSON for each request, as the Collector writes it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from engram.exporters import files
from engram.exporters.otlp.wire import OFFICIAL_REQUEST
from engram.exporters.signals import Signal

from .otlp_json import dumps
from .sender import Later
from .settings import FileSender

_MIB: Final = 1 << 20


class LineSender:
    """Appends to one file; a line is on the disk before it counts as sent."""

    def __init__(self, settings: FileSender) -> None:
        self._settings = settings
        self._path = Path(settings.path)
        self._file = -1

    def send(self, signal: Signal, body: bytes) -> str:
        """See `Sender`."""
        line = dumps(OFFICIAL_REQUEST[signal].FromString(body)).encode() + b"\n"
        try:
            self._rotate(len(line))
            if self._file < 0:
                self._open()
            self._write(line)
        except OSError as error:
            self.close()
            raise Later(f"{self._path}: {error.strerror}") from error
        return ""

    def _open(self) -> None:
        if self._settings.create_directory:
            files.make_directory(self._path.parent)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.ftruncate(self._file, self._sound_end())  # a crash tore the last line: it comes again

    def _sound_end(self) -> int:
        """Where the last whole line ends."""
        at = os.fstat(self._file).st_size
        while at:
            start = max(0, at - _MIB)
            newline = os.pread(self._file, at - start, start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            at = start
        return 0

    def _write(self, line: bytes) -> None:
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(self._file, rest) :]
        os.fdatasync(self._file) if hasattr(os, "fdatasync") else os.fsync(self._file)

    def _rotate(self, size: int) -> None:
        rotation = self._settings.rotation
        if rotation is None or not self._path.exists():
            return
        before = self._path.stat().st_size
        if not before or before + size <= rotation.max_megabytes * _MIB:
            return
        self.close()
        old = self._backups()
        number = int(old[-1].stem.rpartition("-")[2]) + 1 if old else 1
        stem, suffix = self._path.stem, self._path.suffix
        self._path.rename(self._path.with_name(f"{stem}-{number:06d}{suffix}"))
        if rotation.max_backups:
            for path in self._backups()[: -rotation.max_backups]:
                path.unlink()

    def _backups(self) -> list[Path]:
        stem, suffix = self._path.stem, self._path.suffix
        pattern = "-" + "[0-9]" * 6 + suffix
        return sorted(
            path for path in self._path.parent.glob("*" + pattern) if path.stem[:-7] == stem
        )

    def close(self) -> None:
        """See `Sender`."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
