"""A program under capture, run beside a fake model server and a real engine: its memories."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples import fake_llm
from tests.interop.collecting import Collecting, collecting

HERE = Path(__file__).parent
_OURS = ("OTEL_", "ENGRAM_", "ANTHROPIC_", "OPENAI_", "GOOGLE_", "GEMINI_", "LANGSMITH_")


@dataclass(frozen=True)
class Ran:
    """What a program did and what is remembered of it."""

    said: dict[str, Any]
    memories: dict[str, list[dict[str, Any]]]
    spans: dict[str, list[dict[str, Any]]]
    home: Path

    def types(self, case: str) -> list[str]:
        """The types of a case's memories, sorted."""
        return sorted(memory["type"] for memory in self.memories[case])

    def of(self, case: str, type_: str) -> list[dict[str, Any]]:
        """The memories of a type, in their order in time."""
        return [memory for memory in self.memories[case] if memory["type"] == type_]

    def one(self, case: str, type_: str) -> dict[str, Any]:
        """The only memory of a type."""
        (only,) = self.of(case, type_)
        return only


def run(
    app: str, folder: Path, *, zero_code: bool = False, code: int = 0, **environment: str
) -> Ran:
    """Run a program of this folder until it ends; what it prints last is JSON with its traces.

    With `zero_code` under `engram run`, otherwise the program sets its providers up.
    """
    home = folder / "home"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
    with fake_llm.serving() as url, collecting(home) as collector:
        endpoint = f"http://127.0.0.1:{collector.http_port}"
        before = ["-m", "engram.collector.cli", "run", "--", sys.executable] if zero_code else []
        service = {"langgraph_app.py": "graphs", "genai_app.py": "models"}[app]
        settings = {
            "PYTHONPATH": str(HERE.parents[1]),
            "ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_SERVICE_NAME": service,
            "LLM": url,
        }
        done = subprocess.run(
            [sys.executable, *before, str(HERE / app)],
            env={**clean, **settings, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, done.stderr[-4000:]
        assert "Traceback" not in done.stderr, done.stderr[-4000:]
        said = json.loads(done.stdout.splitlines()[-1])
        names = {trace: case for case, trace in said["traces"].items()}
        return Ran(
            said,
            _by_case(collector, "memories", said["service"], names),
            _by_case(collector, "spans", said["service"], names),
            home,
        )


def _by_case(
    collector: Collecting, table: str, service: str, names: dict[str, str]
) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in collector.rows(table, service):
        row["attributes"] = json.loads(row["attributes"] or "{}")
        found[names.get(row["trace_id"], "?")].append(row)
    when = "start_time_unix_nano" if table == "spans" else "time_unix_nano"
    for rows in found.values():
        rows.sort(key=lambda row: (row.get(when) or 0, row.get("type") or ""))
    return found
