"""Predictions: what is foreseen, said once, scored once, and muted when it cries wolf."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.learning.home import Collecting
from tests.telemetry import T0, attributes, request, span_id, trace_id

from engram.collector import predictions as listing
from engram.collector import query
from engram.collector.component import Kind as Part
from engram.collector.config import DEFAULT_FILE, parse
from engram.exporters.errors import ConfigError
from engram.exporters.home import Home
from engram.exporters.signals import Signal
from engram.learning.exposure import Exposure
from engram.learning.jobs import Insight, Runner, Window, configured
from engram.learning.jobs.insight import request as insights
from engram.learning.jobs.predictions import Predictions, deploys, judge, words
from engram.learning.jobs.predictions.gauges import gauges
from engram.learning.jobs.predictions.record import Made, Scored, standing
from engram.learning.jobs.predictions.series import HOUR, Foreseen, Kind, Watched, foresee
from engram.learning.jobs.runner import Reader
from engram.learning.limits import Gauge, Latency, Limits, Objective

END = T0 // HOUR // 24 * 24 + 12
"""The hour that is now: noon."""
NOW = END * HOUR
SECOND = 10**9


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[Collecting]:
    """A home that was never used."""
    made = Collecting(Home(tmp_path / "home"))
    yield made
    made.close()


# -- series alone ----------------------------------------------------------------------------------


def watched(values: Any, limit: float, end: int = END, kind: Kind = "saturation") -> Watched:
    """A series."""
    return Watched(kind, "shop", "m", "", "", limit, "known", end, np.asarray(values, float))


def leak(hours: int = 192, rises: int = 48, to: float = 0.9, seed: int = 1) -> Any:
    """Level, noise, and a rise to `to` within the last hours."""
    noise = np.random.default_rng(seed).normal(0, 0.004, hours)
    return 0.5 + noise + np.maximum(np.arange(hours) - hours + rises, 0) / rises * (to - 0.5)


def test_a_leak_is_foreseen_and_its_time_is_about_right() -> None:
    """0.4 in two days: from 0.9 to 0.95 takes six hours."""
    found = foresee(watched(leak(), 0.95))
    assert found is not None
    assert found.probability >= 0.5
    assert 3 <= found.after <= 12
    assert found.earliest <= found.after
    assert found.low <= found.high
    assert found.deadline == 24
    assert foresee(watched(leak(to=0.5), 0.95)) is None


def test_what_is_over_its_limit_is_no_news() -> None:
    """Neither now, nor within the last day, nor of a series that has stopped."""
    assert foresee(watched(leak(), 0.89)) is None
    values = leak()
    values[-20] = 0.96
    assert foresee(watched(values, 0.95)) is None
    values = leak()
    values[-4:] = np.nan
    assert foresee(watched(values, 0.95)) is None


def test_a_budget_is_what_is_added_less_what_is_given_back() -> None:
    """A steady use of a week's budget never uses it up; twice as much does."""
    rng = np.random.default_rng(4)
    adds = rng.poisson(20, 192) / 20 / 168
    used = np.cumsum(adds)
    used[168:] -= used[:-168].copy()
    steady = Watched(
        "error_budget", "shop", "", "", "", 1.2, "configured", END, used, adds=adds, keeps=168
    )
    assert foresee(steady) is None
    adds = adds.copy()
    adds[-12:] *= 3
    used = np.cumsum(adds)
    used[168:] -= used[:-168].copy()
    found = foresee(
        Watched(
            "error_budget", "shop", "", "", "", 1.2, "configured", END, used, adds=adds, keeps=168
        )
    )
    assert found is not None
    assert found.after > 1


def test_a_day_of_tokens_ends_at_midnight() -> None:
    """What is added is of the day; the deadline is its end."""
    adds = np.full(96 + 12, 100.0)
    values = np.concatenate([np.tile(np.cumsum(np.full(24, 100.0)), 4), np.cumsum(adds[:12])])
    day = Watched("tokens", "", "t", "", "", 2000.0, "configured", END, values, adds=adds)
    found = foresee(Watched("tokens", "", "t", "", "", 2000.0, "c", END, values[24 * 4 :], adds))
    assert foresee(day) is None  # it was crossed yesterday, too: no news
    assert found is not None
    assert found.after == 8
    assert found.deadline == 12


def made(deadline: int = END + 24, limit: float = 0.95, muted: bool = False) -> Made:
    """A prediction of noon."""
    key = ("saturation", "shop", "m", "")
    return Made("p1", NOW, "saturation", key, "Full", "shop", limit, deadline * HOUR, 0.8, muted)


def test_a_prediction_is_judged_when_it_can_be() -> None:
    """At once when it comes true; else after its deadline, if anything was seen."""
    rises = np.full(10, 0.6)
    rises[7] = 0.96
    before = np.full(50, 0.99)  # before it was made, which proves nothing
    hit = judge(made(), watched([*before, *rises], 0.95, END + 10), END + 10)
    assert hit is not None
    assert hit[:2] == ("hit", (END + 8) * HOUR)
    quiet = np.full(24, 0.6)
    assert judge(made(), watched(quiet[:10], 0.95, END + 10), END + 10) is None
    assert judge(made(), watched(quiet, 0.95, END + 24), END + 24) is None  # some is late
    miss = judge(made(), watched([*quiet, 0.99], 0.95, END + 25), END + 25)
    assert miss is not None
    assert miss[:2] == ("miss", (END + 24) * HOUR)
    stopped = np.full(25, np.nan)
    stopped[:11] = 0.6
    for series in (watched(stopped, 0.95, END + 25), None):
        expired = judge(made(), series, END + 25)
        assert expired is not None
        assert expired[0] == "expired"


def scored(*verdicts: str, probability: float = 0.8) -> list[Scored]:
    """Outcomes in their order."""
    return [
        Scored(f"p{at}", "latency", at, one, probability, at, False)
        for at, one in enumerate(verdicts)
    ]


def test_a_kind_that_cries_wolf_is_muted_until_it_is_better() -> None:
    """Over the last 20 that could be judged; ten say enough."""
    assert not standing("latency", scored(*["miss"] * 9)).muted
    bad = standing("latency", scored(*["miss"] * 10, "expired"))
    assert bad.muted
    assert bad.expired == 1
    assert bad.brier == pytest.approx(0.64)
    assert bad.calibrated(0.9) == pytest.approx(0.45)
    better = standing("latency", scored(*["miss"] * 30, *["hit"] * 10))
    assert not better.muted
    assert better.rate == pytest.approx(0.25)
    assert standing("latency", []).brier is None
    assert standing("latency", []).calibrated(0.7) == pytest.approx(0.7)


# -- versions --------------------------------------------------------------------------------------


def version(name: str, runs: int, failed: int, first: int = 0) -> deploys.Version:
    """A version with all its requests in an hour."""
    return deploys.Version("shop", name, first, {first // HOUR: (runs, failed)})


def test_a_bad_version_is_seen_early_and_a_good_one_never() -> None:
    """Looked at after every ten requests, 100 deploys without a change: no alarm."""
    before = Exposure((5000,) * 8, (50, 48, 55, 47, 51, 60, 44, 45))
    rng = np.random.default_rng(2)
    early = []
    for rate in (0.01, 0.015, 0.1):
        alarms = 0
        for _ in range(100 if rate < 0.1 else 20):
            fails = np.cumsum(rng.random(4000) < rate)
            seen = [
                n for n in range(10, 4000, 10)
                if deploys.judge(before, version("2", n, int(fails[n - 1])), "1") is not None
            ]  # fmt: skip
            alarms += bool(seen)
            early += seen[:1] if rate == 0.1 else []
        assert alarms == (20 if rate == 0.1 else 0)
    assert np.median(early) <= 300


def test_bursts_of_the_old_version_count_as_few_runs() -> None:
    """A service whose failures come in bursts needs more of them."""
    new = version("2", 300, 24)
    even = Exposure((1000,) * 10, (10,) * 10)
    burst = Exposure((1000,) * 10, (0,) * 9 + (100,))
    assert deploys.judge(even, new, "1") is not None
    assert deploys.judge(burst, new, "1") is None


# -- over a real lake ------------------------------------------------------------------------------


def gauge(name: str, values: Any, labels: dict[str, Any] | None = None, end: int = END) -> Metric:
    """A point in the middle of each hour."""
    metric = Metric(name=name, unit="1")
    for at, value in enumerate(values):
        when = (end - len(values) + at) * HOUR + HOUR // 2
        metric.gauge.data_points.add(
            as_double=float(value), time_unix_nano=when, attributes=attributes(labels or {})
        )
    return metric


def usage(name: str, values: Any, **labels: str) -> Metric:
    """The same as a sum that also falls."""
    metric = Metric(name=name)
    metric.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    metric.sum.data_points.extend(gauge(name, values, labels).gauge.data_points)
    return metric


def spans(
    hour: int, p95_ms: float, *, count: int = 24, failed: int = 0, route: str = "/orders"
) -> Iterator[Span]:
    """Requests of an hour, all as slow as that."""
    for n in range(count):
        when = hour * HOUR + n * HOUR // count
        number = hour * 1000 + n + (sum(route.encode()) << 40)
        one = Span(
            trace_id=trace_id(number), span_id=span_id(number % 2**31), name=f"GET {route}",
            kind=Span.SPAN_KIND_SERVER, start_time_unix_nano=when,
            end_time_unix_nano=when + int(p95_ms * 1e6),
            attributes=attributes({"http.request.method": "GET", "http.route": route}),
        )  # fmt: skip
        if n < failed:
            one.status.code = Status.STATUS_CODE_ERROR
            one.attributes.extend(attributes({"http.response.status_code": 500}))
        yield one


def own(collecting: Collecting) -> list[dict[str, Any]]:
    """What the job said, in the order of time."""
    rows = collecting.rows(
        "SELECT id, title, importance, tags, attributes, service_name FROM lake.memories "
        "WHERE type = 'ai_insight' AND list_contains(tags, 'job:predictions') "
        "ORDER BY time_unix_nano, title"
    )
    return [
        {"id": one[0], "title": one[1], "importance": one[2], "tags": one[3], "service": one[5]}
        | json.loads(one[4])
        for one in rows
    ]


def step(collecting: Collecting, now: int, limits: Limits | None = None) -> None:
    """A run at some time."""
    runner = Runner(collecting.home, [Predictions(limits)], clock=lambda: now)
    (run,) = runner.step()
    assert not run.error
    collecting.commit()


def test_a_disk_that_fills_is_said_once_and_scored_once(collecting: Collecting) -> None:
    """Predicted with evidence, not again while it is open, hit when it is full, and counted."""
    disk = {"system.device": "/dev/sda1"}
    metric = gauge("system.filesystem.utilization", leak(), disk)
    calm = gauge("system.filesystem.utilization", leak(to=0.5), {"system.device": "/dev/sdb"})
    collecting.admit(Signal.METRICS, request(Signal.METRICS, [metric, calm]))
    collecting.commit()
    step(collecting, NOW)
    (one,) = own(collecting)
    assert one["service"] == "shop"
    assert one["state"] == "predicted"
    assert "/dev/sda1" in one["title"]
    assert one["limit"] == pytest.approx(0.95)
    assert 0.5 <= one["probability"] <= 0.99
    assert one["deadline_ns"] == NOW + 24 * HOUR
    assert one["earliest_ns"] <= one["crosses_ns"]
    evidence = collecting.rows(
        "SELECT DISTINCT subject FROM lake.performance_metric WHERE list_contains(?, id)",
        [one["evidence"]],
    )
    assert evidence == [("system.filesystem.utilization",)]

    more = np.linspace(0.91, 1.0, 12)
    rest = gauge("system.filesystem.utilization", more, disk, END + 12)
    collecting.admit(Signal.METRICS, request(Signal.METRICS, [rest]))
    collecting.commit()
    step(collecting, NOW + 5 * 60 * SECOND)  # no hour has ended
    step(collecting, NOW + 2 * HOUR)
    assert len(own(collecting)) == 1
    for hour in (11, 13):
        step(collecting, NOW + hour * HOUR)
    _, hit, score = own(collecting)
    assert hit["verdict"] == "hit"
    assert hit["prediction"] == one["id"]
    assert hit["evidence"] == [one["id"]]
    assert hit["lead_hours"] > 0
    assert score["says"] == "score"  # the hours are those up to midnight and beyond
    assert score["hit_rate"] == 1
    assert score["brier"] == pytest.approx((1 - one["probability"]) ** 2)
    with query.reader(collecting.home) as lake:
        told = listing.told(lake)
    assert told["open"] == []
    assert [two["verdict"] for two in told["scored"]] == ["hit"]
    assert told["scored"][0]["title"] == one["title"]
    assert [*listing.lines(told)][-1].startswith("saturation: 100 % of 1 came true, Brier 0.")
    before = collecting.rows("SELECT id, content FROM lake.memories ORDER BY id")
    runner = Runner(collecting.home, [Predictions()], clock=lambda: NOW + 13 * HOUR)
    runner.step(since=0)
    collecting.commit()
    assert collecting.rows("SELECT id, content FROM lake.memories ORDER BY id") == before


def test_the_same_window_says_the_same(collecting: Collecting) -> None:
    """Also when what it said is in the lake already."""
    metric = gauge("disk.utilization", leak())
    collecting.admit(Signal.METRICS, request(Signal.METRICS, [metric]))
    collecting.commit()
    said: list[list[Insight]] = []

    class Kept(Predictions):
        def run(self, read: Any, window: Window) -> list[Insight]:
            said.append([*super().run(read, window)])
            return said[-1]

    runner = Runner(collecting.home, [Kept()], clock=lambda: NOW)
    for _ in range(2):
        runner.step(since=0)
        collecting.commit()
    assert said[0]
    assert insights(said[0]) == insights(said[1])


def test_a_slower_and_slower_operation(collecting: Collecting) -> None:
    """Against its own history; the one beside it, which is slow as ever, is nobody's news."""
    rises = 150 + 300 * np.maximum(np.arange(192) - 150, 0) / 42
    sent: list[Span] = []
    for at, ms in enumerate(rises):
        hour = END - 192 + at
        sent += spans(hour, ms + at % 3)
        sent += spans(hour, 900 + 20 * np.sin(at / 24 * 6.283), route="/report")
    collecting.send(*sent)
    step(collecting, NOW)
    (one,) = own(collecting)
    assert one["kind"] == "latency"
    assert one["name"] == "GET /orders"
    assert one["limit_is"] == "its own history"
    assert len(one["evidence"]) == 5
    limits = Limits(latency=(Latency(operation="GET /orders", p95=timedelta(seconds=60)),))
    read = Reader(collecting.home).read
    found = [*Predictions(limits).run(read, Window(0, NOW + 1))]
    assert [one for one in found if one.time_unix_nano > NOW] == []


def test_an_error_budget_that_burns(collecting: Collecting) -> None:
    """One in a hundred failing for six days, then one in six."""
    sent: list[Span] = []
    for at in range(150):
        failed = (at % 4 == 0) if at < 141 else 4
        sent += spans(END - 150 + at, 20, failed=int(failed))
    collecting.send(*sent)
    limits = Limits(slos=(Objective(service="shop", slo=0.98),))
    step(collecting, NOW, limits)
    (one,) = own(collecting)
    assert one["kind"] == "error_budget"
    assert "98 %" in one["name"]
    assert one["value"] < 1 <= one["high"]
    failing = collecting.rows(
        "SELECT DISTINCT outcome FROM lake.request_outcome WHERE list_contains(?, id)",
        [one["evidence"]],
    )
    assert failing == [("error",)]


def test_metrics_whose_limit_is_known_by_their_name(collecting: Collecting) -> None:
    """Used of a limit, one of several states, a queue, one with a limit in the settings."""
    rises, flat = leak(), leak(to=0.5)
    collecting.admit(Signal.METRICS, request(Signal.METRICS, [
        usage("jvm.memory.used", 1e9 * rises, pool="old"),
        usage("jvm.memory.limit", np.full(192, 1e9), pool="old"),
        usage("system.filesystem.usage", 5e9 * flat, state="used"),
        usage("system.filesystem.usage", 5e9 * (1 - flat), state="free"),
        usage("db.client.connection.count", 20 * rises, state="used"),
        usage("db.client.connection.count", 20 * (1 - rises), state="idle"),
        usage("db.client.connection.max", np.full(192, 20)),
        gauge("system.cpu.utilization", 1 - 0 * rises, {"state": "idle"}),
        gauge("messaging.consumer.lag", 100 * rises, {"topic": "orders"}),
        gauge("tea.cups", 10 * rises),
        gauge("room.temperature", 20 * rises),
    ]))  # fmt: skip
    collecting.commit()
    read = Reader(collecting.home).read
    found = {
        one.name: one
        for one in gauges(read, Limits(gauges=(Gauge(metric="tea.cups", limit=9.5),)), END)
    }
    assert set(found) == {
        "jvm.memory.used", "system.filesystem.usage", "db.client.connection.count",
        "messaging.consumer.lag", "tea.cups",
    }  # fmt: skip
    assert found["messaging.consumer.lag"].kind == "queue"
    assert found["system.filesystem.usage"].values == pytest.approx(flat)
    coming = {name for name, one in found.items() if foresee(one) is not None}
    assert coming == set(found) - {"system.filesystem.usage"}


def test_a_day_of_tokens_over_the_lake(collecting: Collecting) -> None:
    """Nothing without a budget; with one, the day that will be over it."""
    calls = []
    for hour in range(END - 84, END):
        used = 1000 if hour >= END - 12 else 200
        calls.append(
            Span(
                trace_id=trace_id(hour), span_id=span_id(hour % 2**30), name="chat m-1",
                kind=Span.SPAN_KIND_CLIENT,
                start_time_unix_nano=hour * HOUR, end_time_unix_nano=hour * HOUR + SECOND,
                attributes=attributes({
                    "gen_ai.operation.name": "chat", "gen_ai.request.model": "m-1",
                    "gen_ai.provider.name": "p", "gen_ai.usage.input_tokens": used,
                    "gen_ai.usage.output_tokens": 10,
                }),
            )
        )  # fmt: skip
    collecting.send(*calls)
    step(collecting, NOW)
    assert own(collecting) == []
    step(collecting, NOW + HOUR // 2, Limits(tokens_per_day=18_000))
    assert own(collecting) == []  # no hour has ended since
    Runner(collecting.home, [Predictions(Limits(tokens_per_day=18_000))], clock=lambda: NOW).step(
        since=0
    )
    collecting.commit()
    (one,) = own(collecting)
    assert one["kind"] == "tokens"
    assert one["value"] == pytest.approx(12 * 1010)
    assert one["deadline_ns"] == (END + 12) * HOUR


def test_a_bad_deploy_is_said_at_the_next_five_minutes(collecting: Collecting) -> None:
    """A tick without a whole hour is enough; once; and scored a day later."""

    def deployed(name: str, records: list[Span]) -> None:
        body = request(Signal.TRACES, records).replace(b"\x031.0", b"\x03" + name.encode())
        collecting.admit(Signal.TRACES, body)
        collecting.commit()

    old = [spans(END - 24 + at, 20, count=60, failed=int(at % 8 == 0)) for at in range(24)]
    deployed("1.0", [*chain.from_iterable(old)])
    step(collecting, NOW)
    assert own(collecting) == []
    deployed("2.0", list(spans(END, 20, count=720, failed=12))[:60])
    step(collecting, NOW + 300 * SECOND)
    step(collecting, NOW + 600 * SECOND)
    (one,) = own(collecting)
    assert one["kind"] == "regression"
    assert one["name"] == "2.0"
    assert one["old_version"] == "1.0"
    assert one["as_of"] == NOW + 300 * SECOND
    assert one["low"] <= one["value"] == pytest.approx(0.2)
    rest = [spans(END + at, 20, count=30, failed=6) for at in range(1, 26)]
    deployed("2.0", [*chain.from_iterable(rest)])
    step(collecting, NOW + 26 * HOUR)
    hit = [one for one in own(collecting) if one["says"] == "outcome"]
    assert [one["verdict"] for one in hit] == ["hit"]


def test_muted_is_recorded_and_not_loud(collecting: Collecting) -> None:
    """Ten that did not come true, in the lake; the next is silent, and is scored on."""
    said = []
    for at in range(10):
        hour = END - 100 + at
        series = Watched(
            "saturation", "shop", f"m{at}", "", "", 0.95, "known", hour, np.full(3, 0.9)
        )
        found = Foreseen(0.8, 5, 4, None, 0.9, 1.0, 24)
        said.append(words.predicted(series, found, standing("saturation", []), ()))
    collecting.admit(Signal.LOGS, insights(said))
    collecting.commit()
    step(collecting, (END - 60) * HOUR)  # nothing was seen of them: they expire
    assert {one["verdict"] for one in own(collecting) if one["says"] == "outcome"} == {"expired"}
    ids = [one["id"] for one in own(collecting) if one["says"] == "prediction"]
    assert len(ids) == 10
    misses = [
        words.outcome(
            Made(f"old{at}", 5, "saturation", ("s",), "t", "shop", 1.0, 6, 0.8, False),
            "miss", (END - 70) * HOUR, (END - 70) * HOUR, "why",
        )
        for at in range(10)
    ]  # fmt: skip
    collecting.admit(Signal.LOGS, insights(misses))
    collecting.admit(Signal.METRICS, request(Signal.METRICS, [gauge("disk.utilization", leak())]))
    collecting.commit()
    step(collecting, NOW)
    (one,) = [one for one in own(collecting) if one["state"] == "silent"]
    assert one["muted"] is True
    assert one["importance"] < 0.5
    assert "muted" in one["tags"]
    assert "state:predicted" not in one["tags"]
    assert one["probability"] < one["method_probability"]


def test_limits_are_settings() -> None:
    """The job that runs has those of the file; what is wrong is said with its path."""
    base = DEFAULT_FILE.read_text()
    begin, end = base.index("  predictions:"), base.index("  self_optimization:")

    def read(text: str) -> Any:
        path = Path("x.yaml")
        return parse(base[:begin] + f"  predictions: {text}\n" + base[end:], path, {})

    config = read("{slos: [{service: shop, slo: 0.999}], latency: [{operation: a, p95: 2s}]}")
    (job,) = [
        one
        for one in configured(config.settings(Part.EXTENSION, "predictions", Limits))
        if isinstance(one, Predictions)
    ]
    limits = job._limits
    assert (limits.slo_of("shop"), limits.slo_of("tea")) == (0.999, 0.99)
    assert (limits.p95_of("any", "a"), limits.p95_of("any", "b")) == (2.0, None)
    for text, wrong in (
        ("{slo: 99}", r"predictions\.slo: must be between 0 and 1"),
        ("{slos: [{slo: 0.9}]}", r"slos\[0\]\.service"),
        ("{latency: [{operation: a}]}", r"latency\[0\]\.p95"),
        ("{latency: [{operation: a, p99: 2s}]}", "unknown key"),
        ("{gauges: [{metric: a}]}", r"gauges\[0\].*limit"),
        ("{tokens: 5}", "unknown key.*tokens_per_day"),
    ):
        with pytest.raises(ConfigError, match=wrong):
            read(text)
