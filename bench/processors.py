"""What processors and exporters cost per span, in the process that also collects.

    python bench/processors.py

Prints microseconds of CPU for one span, on requests of 200 spans as the shop sends them.
"""

from __future__ import annotations

import gzip
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.telemetry import batches, request, shop_traces

from engram.collector.config import parse
from engram.collector.exporters.otlp_json import dumps
from engram.collector.processors.chain import Chain, for_memory
from engram.exporters.otlp.wire import OFFICIAL_REQUEST
from engram.exporters.signals import Signal

PROCESSORS = {
    "filter (one condition)": """filter: {traces: {span: [
      'attributes["url.path"] == "/healthz"']}}""",
    "filter (three, IsMatch)": """filter: {traces: {span: ['IsMatch(name, "^OPTIONS ")',
      'attributes["url.path"] == "/healthz"', 'resource.attributes["service.name"] == "x"']}}""",
    "transform (set where)": """transform: {trace_statements: [
      'set(span.attributes["a"], "b") where span.kind == SPAN_KIND_SERVER']}""",
    "transform (truncate_all)": """transform: {trace_statements: [
      'truncate_all(span.attributes, 4096)']}""",
    "attributes (insert, delete)": """attributes: {actions: [
      {key: env, value: prod, action: insert}, {key: none, action: delete}]}""",
    "resource (upsert)": "resource: {attributes: [{key: env, value: prod, action: upsert}]}",
    "probabilistic_sampler (100 %)": "probabilistic_sampler: {sampling_percentage: 100}",
}


def chain(text: str, order: str) -> Chain:
    """The processors of one pipeline."""
    own = f"{{receivers: [otlp], processors: [{order}], exporters: [memory]}}"
    plain = own.replace(order, "")
    config = parse(
        f"receivers: {{otlp: }}\nprocessors:\n  {text}\nexporters: {{memory: }}\n"
        f"service: {{pipelines: {{traces: {own}, logs: {plain}, metrics: {plain}}}}}\n",
        Path("bench.yaml"),
        {},
    )
    found = for_memory(config)
    assert found is not None
    return found


def timed(call, bodies: list[bytes], spans: int) -> float:
    """The best of five rounds, in microseconds a span."""
    rounds = []
    for _ in range(5):
        begun = time.process_time()
        for body in bodies:
            call(body)
        rounds.append(time.process_time() - begun)
    return min(rounds) * 1e6 / spans


def main() -> None:
    """Measure and print."""
    spans, _, _ = shop_traces(4000)
    bodies = [request(Signal.TRACES, batch) for batch in batches(spans, 200)]
    kind = OFFICIAL_REQUEST[Signal.TRACES]
    print(f"{len(spans)} spans, {sum(map(len, bodies)) / len(spans):.0f} bytes each")
    none = Chain([])
    base = timed(lambda body: none(Signal.TRACES, body), bodies, len(spans))
    print(f"{'reading and writing a request':34} {base:6.2f}")
    for name, text in PROCESSORS.items():
        made = chain(text, text.partition(":")[0])
        cost = timed(lambda body, made=made: made(Signal.TRACES, body), bodies, len(spans))
        print(f"{'+ ' + name:34} {cost - base:6.2f}")
    cost = timed(lambda body: dumps(kind.FromString(body)), bodies, len(spans))
    print(f"{'a line of OTLP/JSON':34} {cost:6.2f}")
    for level in (1, 6):
        cost = timed(lambda body, level=level: gzip.compress(body, level), bodies, len(spans))
        size = sum(len(gzip.compress(body, level)) for body in bodies) / len(spans)
        print(f"{f'gzip at level {level}, {size:.0f} bytes':34} {cost:6.2f}")


if __name__ == "__main__":
    main()
