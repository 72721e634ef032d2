"""Where the CPU of ingest goes: every stage of the road by itself, in one thread.

    taskset -c 1 python bench/stages.py [--spans 50000]

The naive decoder (a dict per span, `json.dumps`, `Table.from_pylist`) runs in the same process on
the same requests, so that the ratio to it survives a busy machine.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from engram.exporters.home import Home
from engram.exporters.inflate import inflate
from engram.exporters.lake.writer import Batch, LakeWriter
from engram.exporters.merge import merge_frame
from engram.exporters.otlp.check import check
from engram.exporters.otlp.decode import Decoder
from engram.exporters.otlp.values import NoRedaction
from engram.exporters.redact import RedactionConfig, Redactor
from engram.exporters.rules import Rules
from engram.exporters.signals import Encoding, Signal

sys.path.insert(0, str(Path(__file__).parent))
from telemetry import requests  # type: ignore[import-not-found, unused-ignore]

_GROUP = 32
"""Requests a batch: 16,384 spans, as the engine commits."""


def naive(bodies: list[bytes]) -> int:
    """What a first version of a collector does."""
    rows = []
    for body in bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            shared = json.dumps(_values(resource.resource.attributes))
            for scope in resource.scope_spans:
                for span in scope.spans:
                    rows.append(
                        {
                            "trace_id": span.trace_id.hex(),
                            "span_id": span.span_id.hex(),
                            "parent_span_id": span.parent_span_id.hex(),
                            "name": span.name,
                            "kind": span.kind,
                            "start": span.start_time_unix_nano,
                            "end": span.end_time_unix_nano,
                            "status": span.status.code,
                            "message": span.status.message,
                            "attributes": json.dumps(_values(span.attributes)),
                            "events": json.dumps(
                                [[e.name, _values(e.attributes)] for e in span.events]
                            ),
                            "resource": shared,
                            "scope": scope.scope.name,
                        }
                    )
    return len(pa.Table.from_pylist(rows))


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


class Stages:
    """CPU seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def run(self, name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        started = time.process_time()
        result = call(*arguments)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - started
        return result


def measure(spans: int, home: Home) -> tuple[Stages, int, int]:
    home.create()
    lake = LakeWriter(home, "bench")
    lake.open()
    rules = Rules.load()
    plain = Decoder(NoRedaction(), rules.wanted, rules.resource_wanted)
    decoder = Decoder(Redactor(RedactionConfig()), rules.wanted, rules.resource_wanted)
    bodies = list(requests(spans))
    zipped = [gzip.compress(body, 6) for body in bodies]
    stages, rows, made = Stages(), 0, 0
    for number, at in enumerate(range(0, len(bodies), _GROUP)):
        if number == 1:  # the first batch compiles the rules and fills what is remembered
            stages, rows, made = Stages(), 0, 0
        now, sent = bodies[at : at + _GROUP], zipped[at : at + _GROUP]
        run = stages.run
        run("(naive decoder)", naive, now)
        run("(decode without redaction)", _decode, plain, now)
        run("inflate", _inflate, sent)
        run("check", _check, now)
        found = run("decode and redact", _decode, decoder, now)
        memories = run("rules", _apply, rules, found)
        memories = run("merge", merge_frame, memories)
        batch = Batch(number + 1, found.spans, found.logs, found.metrics, memories)
        run("commit", lake.commit, batch)
        rows, made = rows + len(found.spans), made + memories.height
    lake.close()
    return stages, rows, made


def _decode(decoder: Decoder, bodies: list[bytes]) -> Any:
    for body in bodies:
        decoder.add(Signal.TRACES, body)
    return decoder.finish()


def _inflate(bodies: list[bytes]) -> None:
    for body in bodies:
        inflate(body, Encoding.GZIP, 1 << 26)


def _check(bodies: list[bytes]) -> None:
    for body in bodies:
        check(Signal.TRACES, body)


def _apply(rules: Rules, found: Any) -> pl.DataFrame:
    spans = rules.apply(found.span_frame, "span")
    return pl.concat([spans, rules.apply(found.event_frame, "span_event")])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spans", type=int, default=50_000)
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="stages-"))
    try:
        stages, rows, made = measure(options.spans, Home(root))
    finally:
        shutil.rmtree(root)
    each = {name: seconds / rows * 1e6 for name, seconds in stages.seconds.items()}
    print("| stage | CPU µs/span | of naive decoding |\n|---|---:|---:|")
    reference = each["(naive decoder)"]
    for name, micros in each.items():
        print(f"| {name} | {micros:.2f} | {micros / reference:.2f} |")
    total = sum(micros for name, micros in each.items() if not name.startswith("("))
    print(f"| all without ( ) | {total:.2f} | {total / reference:.2f} |")
    print(f"\n{rows:,} spans, {made / rows:.2f} memories a span")


if __name__ == "__main__":
    main()
