"""What a server waits for when it ends."""

from __future__ import annotations

from typing import Any

import pytest

from engram.instrumentation.capture import servers


def test_all_signals_share_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three signals that nobody takes hold up a stop for two seconds together, not each."""
    waited: list[float] = []

    class Stuck:
        """A thread that never ends."""

        def __init__(self, **settings: Any) -> None:
            pass

        def start(self) -> None:
            pass

        def join(self, timeout: float) -> None:
            """All of the time that is given passes."""
            waited.append(timeout)

    monkeypatch.setattr(f"{servers.__name__}.threading.Thread", Stuck)
    monkeypatch.setattr(f"{servers.__name__}.time.monotonic", lambda: 100.0 + sum(waited))
    servers.flush(2.0)
    assert len(waited) == 3
    assert sum(waited) == 2.0
