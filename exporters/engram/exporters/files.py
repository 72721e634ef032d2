"""Durable file operations, in one place so that a test can cut the power at each of them."""

from __future__ import annotations

import os
from pathlib import Path


def sync_file(path: Path) -> None:
    """Force a file's bytes to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file, and force its bytes and its name to the disk."""
    path.write_bytes(content)
    sync_file(path)
    sync_directory(path.parent)


def make_directory(path: Path, mode: int = 0o755) -> None:
    """Make a directory, parents too, whose names survive a power cut. One that is there is kept.

    The mode is what is asked for, whatever the umask: that one belongs to the whole process.
    """
    if not path.parent.is_dir():
        make_directory(path.parent)
    try:
        path.mkdir(mode=mode)
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        path.chmod(mode)
    sync_directory(path.parent)


def publish(path: Path) -> None:
    """Let whoever may enter the folder read a file, whatever the umask, and sync it."""
    path.chmod(0o644)
    sync_file(path)


def sync_directory(path: Path) -> None:
    """Force a directory's entries (created, renamed, removed names) to the disk."""
    sync_file(path)
