"""How many memories metrics become, by the length of the window, and what making them costs.

    python bench/metric_rows.py [--series 100] [--minutes 60]

One process sends every series at the SDK's default interval (60 s) or every 10 s, each time in a
request of its own. A memory is written again by each later batch that adds a point to its window.
"""

from __future__ import annotations

import argparse
import time

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from engram.exporters import metrics
from engram.exporters.otlp.decode import Decoder
from engram.exporters.otlp.values import NoRedaction
from engram.exporters.rules import Rules
from engram.exporters.signals import Signal

START = 1_790_000_100_000_000_000 // 900_000_000_000 * 900_000_000_000


def request(at: int, series: int) -> bytes:
    message = ExportMetricsServiceRequest()
    resource = message.resource_metrics.add()
    resource.resource.attributes.append(
        KeyValue(key="service.name", value=AnyValue(string_value="shop"))
    )
    metric = resource.scope_metrics.add().metrics.add(name="shop.orders")
    metric.sum.is_monotonic, metric.sum.aggregation_temporality = True, 2
    for number in range(series):
        metric.sum.data_points.add(
            start_time_unix_nano=START,
            time_unix_nano=START + at * 1_000_000_000,
            as_int=at,
            attributes=[KeyValue(key="route", value=AnyValue(string_value=f"/r/{number}"))],
        )
    return message.SerializeToString()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--series", type=int, default=100)
    parser.add_argument("--minutes", type=int, default=60)
    options = parser.parse_args()
    rules = Rules.load()
    print("interval  window  points  memories  row writes  us CPU a point")
    for interval in (60, 10):
        for minutes in (1, 5, 15):
            metrics.WINDOW_NS = minutes * 60_000_000_000  # type: ignore[misc]
            ids, writes, points, cpu = set(), 0, 0, 0.0
            for at in range(0, options.minutes * 60, interval):
                decoder = Decoder(NoRedaction(), rules.wanted, rules.resource_wanted)
                decoder.add(Signal.METRICS, request(at, options.series))
                table = decoder.finish().metrics
                started = time.process_time()
                made = rules.apply(metrics.metric_frame(table), "metric")
                cpu += time.process_time() - started
                ids.update(made["id"].to_list())
                writes += made.height
                points += table.num_rows
            print(
                f"{interval:6} s {minutes:4} min {points:7,} {len(ids):9,} {writes:11,} "
                f"{cpu / points * 1e6:11.1f}"
            )


if __name__ == "__main__":
    main()
