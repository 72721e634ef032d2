"""How fast `engram import` stores files, and how much memory it takes.

    python bench/import_.py [--spans 60000]

Measured 2026-11 on 2 cores that others used too: 60,000 spans as framed protobuf in 8.0 s (5.9 s
of CPU, 547 MB at most; 464 MB for 20,000, so it is the engine's), 20,000 as JSON lines in 14.9 s
(9.2 s of CPU, 394 MB). JSON costs some 300 us a span in Google's converter.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

sys.path.insert(0, str(Path(__file__).parent))
from telemetry import Telemetry

_IDS = {"traceId", "spanId", "parentSpanId"}


def hexed(value: Any) -> Any:
    """Ids as OTLP/JSON has them."""
    if isinstance(value, list):
        return [hexed(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {k: base64.b64decode(v).hex() if k in _IDS else hexed(v) for k, v in value.items()}


def bodies(spans: int) -> Iterator[bytes]:
    source = Telemetry()
    for _ in range(spans // 512):
        request = source.traces()
        yield request if isinstance(request, bytes) else request.SerializeToString()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--spans", type=int, default=60_000)
    spans = parser.parse_args().spans
    with tempfile.TemporaryDirectory() as folder:
        framed, lines = Path(folder, "framed.pb"), Path(folder, "lines.jsonl")
        with framed.open("wb") as one, lines.open("w") as other:
            for body in bodies(spans):
                one.write(len(body).to_bytes(4, "big") + body)
                message = ExportTraceServiceRequest.FromString(body)
                made = json_format.MessageToDict(message, use_integers_for_enums=True)
                other.write(json.dumps(hexed(made)) + "\n")
        for path in (framed, lines):
            command = [sys.executable, "-m", "engram.collector.cli", "--json"]
            command += ["--home", f"{folder}/{path.stem}", "import", str(path)]
            begun = time.monotonic()
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            facts = json.loads(process.stdout.read())
            _, _, used = os.wait4(process.pid, 0)
            seconds = time.monotonic() - begun
            assert facts["traces"] == spans // 512 * 512
            print(
                f"{path.name}: {path.stat().st_size / 1e6:.0f} MB, {facts['traces']} spans in "
                f"{seconds:.1f} s, {facts['traces'] / seconds:,.0f}/s, "
                f"CPU {used.ru_utime + used.ru_stime:.1f} s, peak {used.ru_maxrss / 1024:.0f} MB"
            )


if __name__ == "__main__":
    main()
