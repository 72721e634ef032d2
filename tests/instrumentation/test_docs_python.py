"""docs/python.md: every block on the page runs, and makes the memories that the page says."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from tests.instrumentation.test_api import Seen, seen

from engram.instrumentation.api import optimizations, remedies

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
BLOCKS = re.findall(r"^```python\n(.+?)^```", PAGE, re.DOTALL | re.MULTILINE)
TYPES = {"lunch_order", "business_decision", "calculation_result", "workflow_state",
         "integration_sync", "webhook_event", "error_solution", "user_preference",
         "request_intent", "error_resolution"}  # fmt: skip

__all__ = ["seen"]


def test_page(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks, one after the other, in one module."""
    monkeypatch.setattr(remedies, "_registered", {})
    monkeypatch.setattr(optimizations, "_registered", {})
    monkeypatch.setenv("ENGRAM_REMEDIES", "on")
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(block, names)
        if "main" in names:
            asyncio.run(names.pop("main")())
    assert len(BLOCKS) >= 6
    memories = seen.memories()
    assert {m["type"] for m in memories} == TYPES
    (decision,) = [m for m in memories if m["type"] == "business_decision"]
    assert decision["fields"]["outcome"] == "repaid"
