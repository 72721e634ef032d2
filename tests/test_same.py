"""The same telemetry gives the same lake, however it arrives."""

from __future__ import annotations

import random
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.telemetry import batches, request, shop_traces

from engram.collector.receivers import (
    OtlpGrpcConfig,
    OtlpGrpcReceiver,
    OtlpHttpConfig,
    OtlpHttpReceiver,
)
from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.home import Home
from engram.exporters.lake import attach_read_only
from engram.exporters.memories import INGEST_COLUMNS
from engram.exporters.signals import Signal

_SERVICES = {
    Signal.TRACES: "trace.v1.TraceService",
    Signal.LOGS: "logs.v1.LogsService",
    Signal.METRICS: "metrics.v1.MetricsService",
}


class Road:
    """An engine with both receivers on free ports."""

    def __init__(self, home: Path) -> None:
        self.engine = Engine(Home(home), EngineSettings(commit_interval_s=0.1))
        self.http = OtlpHttpReceiver(OtlpHttpConfig(endpoint="127.0.0.1:0"), self.engine)
        self.grpc = OtlpGrpcReceiver(OtlpGrpcConfig(endpoint="127.0.0.1:0"), self.engine)

    def send_http(self, signal: Signal, body: bytes) -> None:
        """One request by HTTP."""
        sent = urllib.request.Request(
            f"http://127.0.0.1:{self.http.port}/v1/{signal}",
            body,
            {"Content-Type": "application/x-protobuf"},
        )
        with urllib.request.urlopen(sent, timeout=20) as answer:
            assert answer.status == 200

    def send_grpc(self, signal: Signal, body: bytes) -> None:
        """One request by gRPC."""
        with grpc.insecure_channel(f"127.0.0.1:{self.grpc.port}") as channel:
            call = channel.unary_unary(
                f"/opentelemetry.proto.collector.{_SERVICES[signal]}/Export",
                request_serializer=lambda b: b,
                response_deserializer=lambda b: b,
            )
            call(body, timeout=20)

    def tables(self) -> dict[str, list[Any]]:
        """What the lake holds, without the ingest columns, in an order of its own."""
        self.engine.wait_committed(self.engine.end, 30)
        connection = attach_read_only(self.engine.home)
        try:
            return {
                table: sorted(
                    connection.execute(
                        f"SELECT * EXCLUDE ({', '.join(INGEST_COLUMNS)}) FROM {table}"
                    ).fetchall(),
                    key=repr,
                )
                for table in ("spans", "logs", "metrics", "memories")
            }
        finally:
            connection.close()


@contextmanager
def road(home: Path) -> Iterator[Road]:
    """A running road."""
    one = Road(home)
    one.engine.start()
    one.http.start()
    one.grpc.start()
    try:
        yield one
    finally:
        one.http.shutdown()
        one.grpc.shutdown()
        one.engine.shutdown()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """The lake of telemetry that came once, in one request a signal, over HTTP."""
    with road(tmp_path_factory.mktemp("whole")) as one:
        for signal, records in zip(Signal, shop_traces(24), strict=True):
            one.send_http(signal, request(signal, records))
        return one.tables()


def test_a_failure_is_one_memory(whole: dict[str, list[Any]]) -> None:
    """24 requests, 8 of which failed and said so in four ways, are 8 errors and 24 of the rest."""
    counts: dict[str, int] = {}
    for row in whole["memories"]:
        counts[row[1]] = counts.get(row[1], 0) + 1
    assert counts == {
        "request_intent": 24,
        "request_outcome": 24,
        "api_call": 24,
        "ai_response": 24,
        "user_interaction": 24,
        "system_error": 8,
        "performance_metric": 1,  # one counter in one window
    }


def test_secrets_are_not_queryable(whole: dict[str, list[Any]]) -> None:
    """Neither the bearer token nor the token in the URL is anywhere in the lake."""
    text = repr(whole)
    assert "s3cr3t" not in text
    assert "abcdef0123456789" not in text
    assert "[redacted]" in text


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_other_batches_order_and_protocol(
    tmp_path: Path, whole: dict[str, list[Any]], seed: int
) -> None:
    """Shuffled, split, sent twice and over both protocols: equal but for the ingest columns."""
    shuffle = random.Random(seed)
    requests: list[tuple[Signal, bytes]] = []
    for signal, records in zip(Signal, shop_traces(24), strict=True):
        mixed = list(records)
        shuffle.shuffle(mixed)
        for again in (mixed, mixed[: len(mixed) // 2]):
            requests += (
                (signal, request(signal, batch)) for batch in batches(again, shuffle.choice((1, 5)))
            )
    shuffle.shuffle(requests)
    with road(tmp_path / "other") as one:
        for signal, body in requests:
            shuffle.choice((one.send_http, one.send_grpc))(signal, body)
        found = one.tables()
    for table, rows in whole.items():
        assert found[table] == rows, table
