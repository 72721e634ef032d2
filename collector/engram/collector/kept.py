"""What `serve` asks by, kept for page, REST and MCP: they open one index between them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from engram.exporters.home import Home

if TYPE_CHECKING:
    from engram.collector.sandbox import Sandbox
    from engram.learning.recall import Recall


class Kept:
    """Recall and the sandbox of a home, each made when it is asked for. For several threads."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._lock = threading.Lock()
        self._recall: Recall | None = None
        self._sandbox: Sandbox | None = None

    @property
    def recall(self) -> Recall:
        """Searches: 100 MB with the first question."""
        from engram.learning.recall import Recall

        with self._lock:
            if self._recall is None:
                self._recall = Recall(self.home)
            return self._recall

    @property
    def sandbox(self) -> Sandbox:
        """Runs SQL in a process of its own, which begins with the first question."""
        from engram.collector.sandbox import Sandbox

        with self._lock:
            if self._sandbox is None:
                self._sandbox = Sandbox(self.home)
            return self._sandbox

    def close(self) -> None:
        """Let go of both. Safe twice."""
        with self._lock:
            for one in (self._recall, self._sandbox):
                if one is not None:
                    one.close()


__all__ = ["Kept"]
