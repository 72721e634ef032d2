"""Metrics as memories: one per series and window, with numbers that do not depend on the order."""

from __future__ import annotations

import contextlib
import json
import math
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, Sum
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from tests.exporters.remembering import RULES, T0, made_of, pairs, request

from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.home import Home
from engram.exporters.lake import schema
from engram.exporters.lake.attach import attach_read_only
from engram.exporters.merge import merge_frame
from engram.exporters.metrics import WINDOW_NS
from engram.exporters.otlp.decode import Decoder
from engram.exporters.otlp.values import NoRedaction
from engram.exporters.rules import Rules
from engram.exporters.signals import Encoding, Signal

START = T0 // WINDOW_NS * WINDOW_NS
MINUTE = 60_000_000_000
DELTA, CUMULATIVE = 1, 2


def counter(
    points: Iterable[tuple[int, int, float]],
    *,
    temporality: int = CUMULATIVE,
    monotonic: bool = True,
    attrs: dict[str, Any] | None = None,
) -> list[Metric]:
    """A sum, each point (start, time, value) in minutes a metric of its own."""
    made = []
    for start, at, number in points:
        metric = Metric(name="orders", unit="{order}")
        metric.sum.aggregation_temporality = temporality  # type: ignore[assignment]
        metric.sum.is_monotonic = monotonic
        _add(metric.sum, start, at, number, {"k": "v"} if attrs is None else attrs)
        made.append(metric)
    return made


def _add(data: Sum, start: int, at: int, number: float, attrs: dict[str, Any]) -> None:
    data.data_points.add(
        start_time_unix_nano=START + start * MINUTE,
        time_unix_nano=START + at * MINUTE,
        as_double=number,
        attributes=pairs(attrs),
    )


def histogram(
    points: Iterable[tuple[int, list[int]]], *, temporality: int = CUMULATIVE
) -> list[Metric]:
    """A histogram with bounds 1, 2, 4, each point (time in minutes, buckets) of its own."""
    made = []
    for at, buckets in points:
        metric = Metric(name="wait", unit="s")
        metric.histogram.aggregation_temporality = temporality  # type: ignore[assignment]
        metric.histogram.data_points.add(
            start_time_unix_nano=START,
            time_unix_nano=START + at * MINUTE,
            count=sum(buckets),
            sum=float(sum(buckets)),
            bucket_counts=buckets,
            explicit_bounds=[1, 2, 4],
        )
        made.append(metric)
    return made


def windows(batches: Iterable[list[Metric]]) -> list[dict[str, Any]]:
    """What `metric_windows` says of metrics that come in these batches."""
    return numbers([[request([metric]) for metric in batch] for batch in batches if batch])


def numbers(batches: list[list[tuple[Signal, bytes]]]) -> list[dict[str, Any]]:
    """What `metric_windows` says of requests that come in these batches."""
    db = duckdb.connect()
    for kind in ("tables", "views"):
        for sql in schema.statements(kind):
            db.execute(sql)
    memories = None
    for batch in batches:
        decoder = Decoder(NoRedaction(), RULES.wanted, RULES.resource_wanted)
        for signal, body in batch:
            decoder.add(signal, body)
        db.register("points", decoder.finish().metrics)
        db.execute("INSERT INTO metrics BY NAME SELECT * FROM points")
        made = made_of(batch)
        memories = made if memories is None else merge_frame(memories.vstack(made))
    assert memories is not None
    db.register("made", memories.to_arrow())
    db.execute("INSERT INTO memories BY NAME SELECT * FROM made")
    found = db.execute("SELECT * FROM metric_windows ORDER BY name, labels, window_start")
    names = [column[0] for column in found.description or ()]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def deltas(batches: Iterable[list[Metric]]) -> list[float | None]:
    """The delta of each window in turn."""
    return [row["delta"] for row in windows(batches)]


def test_one_memory_per_series_and_window() -> None:
    """Ten minutes of a point a minute are two memories; other attributes are another series."""
    points = counter((0, at, at) for at in range(10))
    other = counter([(0, 1, 1)], attrs={"k": "w"})
    found = made_of([request([metric]) for metric in (*points, *other)])
    assert found["type"].unique().to_list() == ["performance_metric"]
    assert sorted(found["sources"].list.len().to_list()) == [1, 5, 5]
    assert found["index_as"].unique().to_list() == ["template"]
    assert set(found["title"]) == {"orders k=v", "orders k=w"}
    assert found.n_unique("id") == 3


def test_the_order_of_attributes_does_not_matter() -> None:
    """A series is the same however its sender orders its attributes."""
    one = counter([(0, 1, 1)], attrs={"a": 1, "b": 2})
    two = counter([(0, 2, 2)], attrs={"b": 2, "a": 1})
    assert made_of([request([m]) for m in (*one, *two)]).height == 1


def test_last_point() -> None:
    """A memory by itself holds the latest point, whichever came last."""
    points = counter([(0, 2, 20.5), (0, 3, 30.5), (0, 1, 10.5)])
    (memory,) = made_of([request([metric]) for metric in points]).to_dicts()
    last = [START + 3 * MINUTE, START, 30.5]
    assert json.loads(memory["attributes"])["last"] == last
    assert memory["time_unix_nano"] == START + MINUTE
    assert memory["end_time_unix_nano"] == START + 3 * MINUTE


def test_delta_of_a_cumulative_counter() -> None:
    """A window counts what was added since the last point before it."""
    assert deltas([counter([(0, 1, 5), (0, 4, 8), (0, 6, 10), (0, 9, 17)])]) == [8, 9]


def test_reset() -> None:
    """A new start time, or a fallen value, begins anew and loses nothing."""
    assert deltas([counter([(0, 1, 5), (2, 3, 2), (2, 4, 4)])]) == [9]
    assert deltas([counter([(0, 1, 5), (0, 3, 2)])]) == [7]
    assert deltas([counter([(0, 1, 5), (2, 4, 9)])]) == [14]  # already higher than before


def test_a_counter_that_ran_before_we_looked() -> None:
    """What a counter had counted long before its first point is not counted in its window."""
    first = (-600, 1, 1_000_000)
    assert deltas([counter([first])]) == [None]
    assert deltas([counter([first, (-600, 2, 1_000_003)])]) == [3]


def test_delta_counter_and_rate() -> None:
    """Deltas add up, and the rate is over the time that they cover."""
    (row,) = windows([counter([(0, 1, 60), (1, 2, 120)], temporality=DELTA)])
    assert (row["delta"], row["per_second"]) == (180, 1.5)


def test_gauge_like() -> None:
    """A sum that also falls has no delta, but extremes and a last value."""
    (row,) = windows([counter([(0, 1, 5), (0, 2, 9), (0, 3, 4)], monotonic=False)])
    assert (row["delta"], row["lowest"], row["highest"], row["last_value"]) == (None, 4, 9, 4)


def test_explicit_histogram() -> None:
    """Quantiles of a window are those of what was counted in it, on a line within the bucket."""
    first, second = windows([histogram([(4, [10, 0, 0, 0]), (6, [10, 50, 40, 10])])])
    assert (first["delta"], first["p50"]) == (10, 0.5)
    assert (second["delta"], second["average"]) == (100, 1)
    assert second["p50"] == 2  # the 50th of 100: the end of bucket (1, 2]
    assert second["p95"] == 4  # in the last bucket, which has no upper bound


def test_exponential_histogram_of_two_scales() -> None:
    """Points of different scales are compared at the coarser one, negatives and zeros included."""
    metrics = []
    for at, scale, offset, counts, zeros in ((1, 1, 0, [1, 1, 1, 1], 2), (2, 0, 0, [2, 6], 2)):
        metric = Metric(name="heat")
        data = metric.exponential_histogram
        data.aggregation_temporality = CUMULATIVE  # type: ignore[assignment]
        point = data.data_points.add(
            start_time_unix_nano=START + 4 * MINUTE * (at - 1) // at,
            time_unix_nano=START + 4 * MINUTE * at,
            count=sum(counts) + zeros + 1,
            scale=scale,
            zero_count=zeros,
        )
        point.start_time_unix_nano = START
        point.positive.offset = offset
        point.positive.bucket_counts.extend(counts)
        point.negative.offset = 0
        point.negative.bucket_counts.append(1)
        metrics.append(metric)
    first, second = windows([metrics])
    assert (first["delta"], second["delta"]) == (7, 4)
    assert first["p50"] == pytest.approx(math.sqrt(2) ** 0.5)
    assert second["p50"] == pytest.approx(2**1.5)  # four in (2, 4], the middle on a geometric line


@pytest.mark.parametrize("temporality", list(AggregationTemporality)[1:])
def test_exponential_histogram_of_the_sdk(temporality: AggregationTemporality) -> None:
    """Quantiles of what the real SDK aggregated are within a bucket of the true ones."""
    reader = InMemoryMetricReader(preferred_temporality={Histogram: temporality})
    view = View(instrument_name="*", aggregation=ExponentialBucketHistogramAggregation())
    provider = MeterProvider(metric_readers=[reader], views=[view], shutdown_on_exit=False)
    instrument = provider.get_meter("m").create_histogram("took", "s")
    rng, values, bodies = random.Random(7), [], []
    for _ in range(4):
        for _ in range(500):
            values.append(rng.lognormvariate(0, 1))
            instrument.record(values[-1])
        data = reader.get_metrics_data()
        assert data is not None
        bodies.append((Signal.METRICS, encode_metrics(data).SerializeToString()))
    provider.shutdown()
    found = numbers([[body] for body in bodies])
    assert sum(row["delta"] for row in found) == 2000
    values.sort()
    if len(found) == 1:  # else the clock passed a border of windows just now
        for name, at in (("p50", 1000), ("p95", 1900), ("p99", 1980)):
            assert found[0][name] == pytest.approx(values[at], rel=0.1)
        assert found[0]["average"] == pytest.approx(sum(values) / 2000)


@given(st.data())
@settings(max_examples=10, deadline=None)
def test_any_order_and_split(data: st.DataObject) -> None:
    """Points in any order and any batches give the same numbers."""
    points = [
        *counter([(0, 1, 5), (0, 4, 8), (5, 6, 3), (5, 9, 7)]),
        *histogram([(1, [1, 0, 0, 0]), (4, [3, 1, 0, 0]), (7, [3, 4, 2, 0])]),
    ]
    sent = data.draw(st.permutations(points))
    cut = data.draw(st.integers(0, len(sent)))
    assert windows([sent[:cut], sent[cut:]]) == windows([points])


def test_rules_see_labels_and_resource() -> None:
    """A user's rule may ask for a metric's attributes and its resource."""
    rule: dict[str, Any] = {
        "name": "stock",
        "type": "stock_level",
        "signal": "metric",
        "when": [
            {"value": "name", "is": "orders"},
            {"value": "attr:k", "is": "v"},
            {"value": "res:region", "is": "north"},
        ],
        "title": "Orders of {attr:k}",
    }
    rules = Rules.load([rule, {"name": "metric", "enabled": False}])
    body = request(counter([(0, 1, 5)]), {"region": "north"})
    assert made_of([body], rules)["title"].to_list() == ["Orders of v"]
    assert made_of([request(counter([(0, 1, 5)]))], rules).height == 0


def test_road(tmp_path: Path) -> None:
    """Through the engine into the lake: a memory that grows with its points, and its numbers."""
    home = Home(tmp_path / "home")
    engine = Engine(home, EngineSettings(commit_interval_s=0.02))
    engine.start()
    for metric in counter([(0, 1, 5), (0, 3, 8)]):
        _, body = request([metric])
        engine.admit(Signal.METRICS, body, Encoding.IDENTITY).result(30)
        engine.wait_committed(engine.end, 30)
    engine.shutdown(30)
    with contextlib.closing(attach_read_only(home)) as db:
        found = db.execute("SELECT title, source_count FROM performance_metric").fetchall()
        assert found == [("orders k=v", 2)]
        assert db.execute("SELECT delta, points FROM metric_windows").fetchall() == [(8, 2)]


def test_points_without_a_value_are_no_memory() -> None:
    """A point that says that there is nothing to say makes none."""
    (metric,) = counter([(0, 1, 5)])
    metric.sum.data_points[0].flags = 1
    assert made_of([request([metric])]).height == 0
