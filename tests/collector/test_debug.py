"""The `debug` exporter: what a commit stored, said in the log."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from engram.collector.debug import DebugReporter
from engram.collector.registry import DebugExporter
from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.home import Home
from engram.exporters.signals import Encoding, Signal


def spans(service: str, count: int, first: int = 1) -> bytes:
    """A request of some spans; those of equal ids would be taken for a re-send."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service
    scope = resource.scope_spans.add()
    for at in range(first, first + count):
        made = scope.spans.add(name="work", trace_id=at.to_bytes(16, "big"))
        made.span_id = at.to_bytes(8, "big")
        made.start_time_unix_nano, made.end_time_unix_nano = 1, 2
    return request.SerializeToString()


def test_commits_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Counts of each commit, and by service, of the signals that list the exporter."""
    home = Home(tmp_path / "home")
    engine = Engine(home, EngineSettings(commit_interval_s=0.1))
    settings = DebugExporter(verbosity="normal")
    reporter = DebugReporter(home, settings, frozenset({Signal.TRACES}))
    caplog.set_level(logging.INFO, "engram.debug")
    reporter.shutdown()
    engine.start()
    try:
        first = engine.admit(Signal.TRACES, spans("old", 1), Encoding.IDENTITY).result(10)
        engine.wait_committed(first.position, 20)
        reporter = DebugReporter(home, settings, frozenset({Signal.TRACES}))
        reporter.start()
        deadline = time.monotonic() + 20
        sent = 10
        while "spans=3" not in caplog.text and time.monotonic() < deadline:
            # The reporter begins with what is committed after its first look.
            time.sleep(1.5)
            sent += 3
            body = spans("shop", 3, sent)
            engine.admit(Signal.TRACES, body, Encoding.IDENTITY).result(10)
        reporter.shutdown()
        reporter.shutdown()
    finally:
        engine.shutdown(5)
    assert "spans=3 memories=" in caplog.text
    assert "spans by service_name: shop" in caplog.text
    assert "old" not in caplog.text
    assert "logs=" not in caplog.text
