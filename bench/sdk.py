"""What exporting costs the app: CPU per span of its process, all threads, until spans are durable.

    python bench/sdk.py [--spans N] [--rounds N] [--skip-thread]

One process per exporter and round, interleaved, all with a `BatchSpanProcessor` of 512 spans and a
queue that drops none. Spans are those of `bench/telemetry.py` (12 to 17 attributes, exceptions),
made anew by the SDK. Counted is `time.process_time` from the first span to the end of
`force_flush`, after a warm-up that the exporter's start falls into.

`null` is the bare SDK: an exporter that does nothing. `engram` hands its requests to the engine
process of its home; `engram, log` has no engine and appends each request to the log by itself;
`engram, thread` runs the engine in the app until all can be queried. `otlp` sends to an
`engram collect` on loopback. The engine's own CPU, until all can be queried, is stated apart.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

BASE: Final = {
    "null": {},
    "engram": {},
    "engram, log": {"ENGRAM_EXPORTER_ENGINE": "none"},
    "engram, thread": {"ENGRAM_EXPORTER_ENGINE": "thread"},
    "otlp http": {},
    "otlp http gzip": {},
    "otlp grpc": {},
}
_PIPELINE: Final = "{receivers: [otlp], processors: [redaction], exporters: [memory]}"
_CONFIG: Final = f"""
receivers: {{otlp: {{protocols: {{
  grpc: {{endpoint: "127.0.0.1:0"}}, http: {{endpoint: "127.0.0.1:0"}}}}}}}}
processors: {{redaction: {{}}}}
exporters: {{memory: {{}}}}
service: {{pipelines: {{traces: {_PIPELINE}, logs: {_PIPELINE}, metrics: {_PIPELINE}}}}}
"""


def recorded(count: int) -> list[tuple[str, Any, dict[str, Any], Any]]:
    """Names, kinds, attributes and failures of generated spans."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.trace import SpanKind
    from telemetry import requests

    made = []
    for raw in requests(count):
        request = ExportTraceServiceRequest.FromString(raw)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    values = {
                        pair.key: getattr(pair.value, pair.value.WhichOneof("value"))
                        for pair in span.attributes
                        if pair.value.WhichOneof("value") not in ("array_value", "kvlist_value")
                    }
                    failed = {
                        pair.key: pair.value.string_value
                        for event in span.events
                        for pair in event.attributes
                    }
                    made.append((span.name, SpanKind(span.kind - 1), values, failed))
    return made


def exporter(name: str, endpoints: dict[str, str]) -> Any:
    """The exporter to measure."""
    if name.startswith("engram"):
        from engram.exporters.sdk import EngramSpanExporter

        return EngramSpanExporter()
    if name.startswith("otlp http"):
        from opentelemetry.exporter.otlp.proto.http import Compression
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        squeeze = Compression.Gzip if "gzip" in name else Compression.NoCompression
        return OTLPSpanExporter(f"{endpoints['otlp_http']}/v1/traces", compression=squeeze)
    if name == "otlp grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return Grpc(endpoints["otlp_grpc"], insecure=True)
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Null(SpanExporter):
        def export(self, spans: Any) -> Any:
            return SpanExportResult.SUCCESS

    return Null()


def app(name: str, count: int, endpoints: dict[str, str]) -> None:
    """The process that is measured; prints its figures."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    spans = recorded(count)
    tool = exporter(name, endpoints)
    results = []
    export = tool.export

    def counted(batch: Any) -> Any:
        result = export(batch)
        results.append((len(batch), result.name))
        return result

    tool.export = counted
    provider = TracerProvider(resource=Resource.create({"service.name": "bench"}))
    provider.add_span_processor(BatchSpanProcessor(tool, max_queue_size=count + 4096))
    tracer = provider.get_tracer("bench", "1.0")

    def run(some: list[Any]) -> None:
        for title, kind, attributes, failed in some:
            span = tracer.start_span(title, kind=kind, attributes=attributes)
            if failed:
                span.add_event("exception", failed)
            span.end()

    run(spans[:2048])
    provider.force_flush()
    queryable = getattr(tool, "force_flush", lambda *_: True)
    if name.startswith("engram"):
        queryable(30000)  # the engine is up
    results.clear()
    begun, engine = time.process_time(), engine_cpu()
    run(spans)
    provider.force_flush()
    if name == "engram, thread":
        queryable(120000)
    spent = time.process_time() - begun
    queryable(120000)
    done = engine_cpu()
    sent = sum(size for size, result in results if result == "SUCCESS")
    if sent != len(spans):
        raise SystemExit(f"{name}: {sent} of {len(spans)} spans were exported")
    beside = (done - engine) / count * 1e6 if engine and done else None
    print(json.dumps({"us": spent / count * 1e6, "engine_us": beside, "rss": resident()}))
    sys.stdout.flush()
    provider.shutdown()


def engine_cpu() -> float | None:
    """CPU seconds of the engine process of the home, if there is one."""
    import psutil

    try:
        pid = int(Path(os.environ["ENGRAM_HOME"], "collect.lock").read_text().split("\n")[0])
        if pid == os.getpid():
            return None
        times = psutil.Process(pid).cpu_times()
    except (OSError, ValueError, psutil.Error):
        return None
    return float(times.user + times.system)


def resident() -> float:
    """MB of this process."""
    import psutil

    return float(psutil.Process().memory_info().rss / 1e6)


def start_cost() -> None:
    """Import time and memory of the exporters, over the SDK's."""
    code = (
        "import time, resource; import opentelemetry.sdk.trace.export;"
        "import opentelemetry.sdk._logs.export, opentelemetry.sdk.metrics.export;"
        "a = time.process_time();"
        "m = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;{};"
        "print(round((time.process_time() - a) * 1e3, 1),"
        "round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - m) / 1024, 1))"
    )
    for module in (
        "engram.exporters.sdk",
        "opentelemetry.exporter.otlp.proto.http.trace_exporter",
        "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
    ):
        runs = [
            subprocess.run(
                [sys.executable, "-c", code.format(f"import {module}")],
                capture_output=True, text=True, check=True,
            ).stdout.split()
            for _ in range(3)
        ]  # fmt: skip
        best = min(runs, key=lambda run: float(run[0]))
        print(f"import {module}: {best[0]} ms CPU, {best[1]} MB more than the SDK")


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--spans", type=int, default=20480)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--skip-thread", action="store_true")
    parser.add_argument("--app")
    parser.add_argument("--endpoints", default="{}")
    arguments = parser.parse_args()
    if arguments.app:
        app(arguments.app, arguments.spans, json.loads(arguments.endpoints))
        return
    names = [name for name in BASE if not (arguments.skip_thread and "thread" in name)]
    folder = Path(tempfile.mkdtemp(prefix="sdk-"))
    config = folder / "otel-config.yaml"
    config.write_text(_CONFIG)
    reader, writer = os.pipe()
    collector = subprocess.Popen(
        [sys.executable, "-m", "engram.collector.cli", "--home", str(folder / "collector"),
         "--config", str(config), "collect", "--ready-fd", str(writer)],
        pass_fds=[writer], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writer)
    with os.fdopen(reader) as pipe:
        endpoints = json.loads(pipe.read())["endpoints"]
    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    try:
        start_cost()
        for number in range(arguments.rounds):
            for name in names:
                home = folder / f"home-{number}-{name.replace(', ', '-').replace(' ', '-')}"
                done = subprocess.run(
                    [sys.executable, __file__, "--app", name, "--spans", str(arguments.spans),
                     "--endpoints", json.dumps(endpoints)],
                    env={**os.environ, "ENGRAM_HOME": str(home), **BASE[name]},
                    capture_output=True, text=True,
                )  # fmt: skip
                if done.returncode:
                    raise SystemExit(done.stderr)
                figures[name].append(json.loads(done.stdout.splitlines()[-1]))
    finally:
        collector.terminate()
        collector.wait()
        shutil.rmtree(folder, ignore_errors=True)
    base = statistics.median(one["us"] for one in figures["null"])
    print(f"load average {os.getloadavg()[0]:.1f}")
    print("| exporter | CPU us/span | over null | engine beside it | resident MB |")
    print("|---|---:|---:|---:|---:|")
    for name in names:
        cost = [one["us"] for one in figures[name]]
        # The difference within a round: what else the machine does changes from round to round.
        over = [a["us"] - b["us"] for a, b in zip(figures[name], figures["null"], strict=True)]
        beside = [one["engine_us"] for one in figures[name] if one["engine_us"]]
        middle = statistics.median(cost)
        print(
            f"| {name} | {middle:.1f} | {statistics.median(over):.1f} "
            f"({min(over):.1f} to {max(over):.1f}) | "
            f"{statistics.median(beside) if beside else 0:.1f} | "
            f"{statistics.median(one['rss'] for one in figures[name]):.0f} |"
        )
    print(f"bare SDK: {base:.1f} us a span")


if __name__ == "__main__":
    main()
