"""Official SDKs of several languages send the same facts; the lake holds what they sent.

Python's over gRPC, protobuf and JSON; Node's (npm) likewise; C++'s, which is inside of pyarrow.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.common.http import Compression
from opentelemetry.exporter.otlp.json.http import _log_exporter as json_logs
from opentelemetry.exporter.otlp.json.http import metric_exporter as json_metrics
from opentelemetry.exporter.otlp.json.http import trace_exporter as json_traces
from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc_logs
from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc_metrics
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_traces
from opentelemetry.exporter.otlp.proto.http import _log_exporter as proto_logs
from opentelemetry.exporter.otlp.proto.http import metric_exporter as proto_metrics
from opentelemetry.exporter.otlp.proto.http import trace_exporter as proto_traces
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from tests.interop.collecting import Collecting, collecting
from tests.interop.packages import installed

NODE = Path(__file__).parent / "node"
T0 = 1_795_333_477_123_456_789
PROTOCOLS = ("grpc", "http/protobuf", "http/json")
EXPORTERS = {
    "grpc": (grpc_traces, grpc_logs, grpc_metrics),
    "http/protobuf": (proto_traces, proto_logs, proto_metrics),
    "http/json": (json_traces, json_logs, json_metrics),
}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collecting]:
    """One collector for all clients."""
    with collecting(tmp_path_factory.mktemp("interop") / "home") as running:
        yield running


@pytest.fixture(scope="module")
def node(pytestconfig: pytest.Config) -> Path:
    """A directory with the official packages for Node, installed once and kept by pytest."""
    return installed(pytestconfig, NODE)


def send_by_python(protocol: str, port: int, compression: str, service: str) -> dict[str, str]:
    """The same facts as `node/send.js`, by Python's SDK; the ids of the span."""
    traces, logs, metrics = EXPORTERS[protocol]

    def exporter(kind: Any, path: str) -> Any:
        if protocol == "grpc":
            named = {"none": grpc.Compression.NoCompression, "gzip": grpc.Compression.Gzip}
            at = f"http://127.0.0.1:{port}"
            return kind(endpoint=at, insecure=True, compression=named[compression])
        at = f"http://127.0.0.1:{port}/v1/{path}"
        return kind(endpoint=at, compression=Compression(compression))

    resource = Resource({"service.name": service})
    tracing = TracerProvider(resource=resource, shutdown_on_exit=False)
    tracing.add_span_processor(SimpleSpanProcessor(exporter(traces.OTLPSpanExporter, "traces")))
    logging = LoggerProvider(resource=resource, shutdown_on_exit=False)
    logging.add_log_record_processor(
        SimpleLogRecordProcessor(exporter(logs.OTLPLogExporter, "logs"))
    )
    reader = PeriodicExportingMetricReader(exporter(metrics.OTLPMetricExporter, "metrics"))
    meters = MeterProvider([reader], resource=resource, shutdown_on_exit=False)

    span = tracing.get_tracer("shop", "1.2").start_span(
        "checkout",
        kind=SpanKind.SERVER,
        start_time=T0,
        attributes={
            "text": "a “b” 😀", "whole": 42, "large": 9007199254740991, "real": 1.5, "yes": True,
            "list": ["a", "b"],
        },
    )  # fmt: skip
    span.add_event("paid", {"amount": 12.5}, T0 + 100_000_000)
    span.set_status(Status(StatusCode.ERROR, "too late"))
    span.end(1_795_333_478_000_000_001)
    logging.get_logger("shop", "1.2").emit(
        event_name="order.paid",
        severity_number=SeverityNumber.WARN,
        severity_text="WARN",
        timestamp=T0,
        body={"order": 7, "items": ["tea", {"n": 2}]},
        attributes={"nested": {"deep": [1, "two"]}},
        context=trace.set_span_in_context(span),
    )
    meter = meters.get_meter("shop", "1.2")
    meter.create_counter("orders", unit="1").add(3, {"kind": "tea"})
    meter.create_histogram("wait", explicit_bucket_boundaries_advisory=[1, 10]).record(2.5)
    for provider in (tracing, logging, meters):
        provider.shutdown()
    context = span.get_span_context()
    return {"traceId": f"{context.trace_id:032x}", "spanId": f"{context.span_id:016x}"}


def check_arrived(target: Collecting, service: str, ids: dict[str, str]) -> None:
    """The rows of the service are what its client sent."""
    span = target.row("spans", service)
    assert (span["trace_id"], span["span_id"]) == (ids["traceId"], ids["spanId"])
    assert (span["name"], span["kind"], span["parent_span_id"]) == ("checkout", 2, None)
    assert (span["start_time_unix_nano"], span["end_time_unix_nano"]) == (
        T0,
        1_795_333_478_000_000_001,
    )
    assert (span["status_code"], span["status_message"]) == (2, "too late")
    assert span["attributes"] == {
        "text": "a “b” 😀", "whole": 42, "large": 9007199254740991, "real": 1.5, "yes": True,
        "list": ["a", "b"],
    }  # fmt: skip
    (event,) = span["events"]
    assert (event["name"], event["attributes"]) == ("paid", {"amount": 12.5})
    assert int(event["time_unix_nano"]) == T0 + 100_000_000
    assert (span["scope_name"], span["scope_version"]) == ("shop", "1.2")
    assert span["resource"]["service.name"] == service

    log = target.row("logs", service)
    assert (log["trace_id"], log["span_id"]) == (ids["traceId"], ids["spanId"])
    assert (log["event_name"], log["severity_number"], log["severity_text"]) == (
        "order.paid",
        13,
        "WARN",
    )
    assert log["time_unix_nano"] == T0
    assert log["body"] == {"order": 7, "items": ["tea", {"n": 2}]}
    assert log["attributes"] == {"nested": {"deep": [1, "two"]}}

    points = {row["name"]: row for row in target.rows("metrics", service)}
    assert points.keys() == {"orders", "wait"}
    orders, wait = points["orders"], points["wait"]
    assert (orders["type"], orders["unit"], orders["is_monotonic"]) == ("sum", "1", True)
    assert 3 in (orders["value_int"], orders["value_double"])
    assert json.loads(orders["attributes"]) == {"kind": "tea"}
    assert (wait["count"], wait["sum"], wait["min"], wait["max"]) == (1, 2.5, 2.5, 2.5)
    assert (wait["bucket_counts"], wait["explicit_bounds"]) == ([0, 1, 0], [1.0, 10.0])


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_python(target: Collecting, protocol: str, compression: str) -> None:
    """Python's SDK by its three exporters: every field arrives."""
    service = f"python-{protocol}-{compression}"
    ids = send_by_python(protocol, target.port(protocol), compression, service)
    check_arrived(target, service, ids)


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_node(target: Collecting, node: Path, protocol: str, compression: str) -> None:
    """Node's SDK by its three exporters: every field arrives."""
    done = subprocess.run(
        ["node", "send.js", protocol, str(target.port(protocol)), compression],
        cwd=node, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    check_arrived(target, f"node-{protocol}-{compression}", json.loads(done.stdout))


def test_cpp(target: Collecting) -> None:
    """The C++ SDK, which pyarrow's wheel has inside, sends a span for each Arrow function."""
    code = "import pyarrow, pyarrow.compute as c; c.sum(pyarrow.array([1, 2]))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "ARROW_TRACING_BACKEND": "otlp_http",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{target.http_port}",
            "OTEL_SERVICE_NAME": "arrow",
        },
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = target.rows("spans", "arrow")
    if not rows:
        pytest.skip("this pyarrow is built without OpenTelemetry")
    summing = next(row for row in rows if row["name"] == "sum")
    assert json.loads(summing["resource"])["telemetry.sdk.language"] == "cpp"
    assert json.loads(summing["attributes"])["function.name"] == "sum"
    assert len(summing["trace_id"]) == 32
    assert T0 / 2 < summing["start_time_unix_nano"] <= summing["end_time_unix_nano"]
