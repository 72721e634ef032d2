"""What the machine, or the container, has."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

_LIMITS: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux says what a container may have: cgroups of version 2 and 1."""


def memory_bytes() -> int:
    """The memory that this process may have, in bytes; 0: unknown."""
    known = []
    with contextlib.suppress(AttributeError, OSError, ValueError):
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max" is no limit
            known.append(int(Path(path).read_text(encoding="ascii")))
    return min((size for size in known if size > 0), default=0)


__all__ = ["memory_bytes"]
