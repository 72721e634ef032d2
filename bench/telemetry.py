"""Deterministic OTLP that looks like an online shop with an assistant.

One trace is 8 spans: 1 server request, 1 internal, 3 database, 1 cache, 1 HTTP client call and
1 LLM chat, with 12 to 17 attributes each. Nothing is replayed from a template: every id, query
parameter, peer, prompt and answer is drawn anew, so neither a memo nor a compressor is flattered.

Memory density, by the shipped rules: of 8 spans 3 make memories (the request its intent and its
outcome, the client call, the chat its question and its answer), and 2 % of all spans carry an
exception event with a stack, which makes one more. So 1,000 spans hold 125 requests, 125 calls,
125 chats and 20 failures: about 640 memories, and about 125 x 1,500 characters of what was said.

One trace in ten speaks the old conventions (`http.method`, `net.peer.name`, `db.system`).
A request of 512 spans comes from 1 to 4 instances of 12 services and has 5 scopes each.
Words follow Zipf's law over 4,000, so that texts compress about as English does.

    python bench/telemetry.py --spans 100000 --out spans.otlp

writes requests one after the other, each behind its length (4 bytes, little endian).
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

Value = str | bool | int | float

BATCH: Final = 512
EPOCH_NS: Final = 1_767_225_600_000_000_000
"""Start of the first request; request k starts k seconds later, so a store can be asked for it."""

_SERVICES: Final = (
    "basket", "billing", "browse", "concierge", "delivery", "gateway",
    "identity", "ledger", "notices", "pricing", "ratings", "stock",
)  # fmt: skip
_PLACES: Final = ("orders", "baskets", "items", "people", "refunds", "parcels", "reviews", "quotes")
_MODELS: Final = (
    ("openai", "gpt-5-mini"),
    ("anthropic", "claude-sonnet-5"),
    ("gcp.vertex_ai", "gemini-3-flash"),
    ("mistral_ai", "mistral-large-3"),
)
_FAILURES: Final = (
    ("TimeoutError", "no answer from {peer} within {n} ms"),
    (
        "psycopg.errors.SerializationFailure",
        "could not serialize access: {n} on {peer}",
    ),
    ("KeyError", "'item-{n}'"),
    ("ValueError", "a quantity of {n} is more than the stock of {peer}"),
    ("httpx.ConnectError", "[Errno 111] Connection refused: {peer}:{n}"),
    ("pydantic_core.ValidationError", "2 validation errors for Basket item-{n}"),
)
_AGENTS: Final = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:14{n}.0) Gecko/20100101 Firefox/14{n}.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 19_{n} like Mac OS X) AppleWebKit/605.1.15",
    "shop-android/7.{n}.1 okhttp/5.1.0",
)


def pair(key: str, value: Value) -> KeyValue:
    """One attribute."""
    if isinstance(value, bool):
        return KeyValue(key=key, value=AnyValue(bool_value=value))
    if isinstance(value, int):
        return KeyValue(key=key, value=AnyValue(int_value=value))
    if isinstance(value, float):
        return KeyValue(key=key, value=AnyValue(double_value=value))
    return KeyValue(key=key, value=AnyValue(string_value=value))


def _words(count: int) -> list[str]:
    """Pronounceable words, the same ones every time."""
    rng = random.Random(20260101)
    syllables = [c + v for c in "bdfghjklmnprstvw" for v in ("a", "e", "i", "o", "u", "ea", "ou")]
    endings = ["", "", "n", "r", "s", "t", "ng", "nd", "ck", "st"]
    found = dict.fromkeys(("the", "and", "of", "to", "in", "it", "for", "is", "on", "that"))
    while len(found) < count:
        found["".join(rng.choices(syllables, k=rng.choice((1, 2, 2, 3)))) + rng.choice(endings)] = (
            None
        )
    return list(found)


_WORDS: Final = _words(4000)
_ZIPF: Final = list(itertools.accumulate(1 / (rank + 2.7) for rank in range(len(_WORDS))))


class Telemetry:
    """A stream of requests; equal seeds give equal bytes."""

    def __init__(self, seed: int = 1) -> None:
        self._rng = random.Random(seed)
        self._requests = 0

    # ------------------------------------------------------------------ values

    def text(self, characters: int) -> str:
        """Prose of about so many characters, with a number in it now and then."""
        rng = self._rng
        words = rng.choices(_WORDS, cum_weights=_ZIPF, k=characters // 5)
        for at in range(9, len(words), 40):
            words[at] = str(rng.randrange(10_000_000))
        return " ".join(words)[:characters]

    def _hex(self, bits: int) -> str:
        return f"{self._rng.getrandbits(bits):0{bits // 4}x}"

    def _address(self, net: int) -> str:
        return f"10.{net}.{self._rng.randrange(256)}.{self._rng.randrange(1, 255)}"

    def _resource(self) -> Resource:
        rng = self._rng
        service = rng.choice(_SERVICES)
        instance = rng.randrange(8)
        return Resource(
            attributes=[
                pair("service.name", service),
                pair("service.namespace", "shop"),
                pair("service.version", f"4.{len(service)}.2"),
                pair("service.instance.id", f"{service}-{instance}-7c9d"),
                pair("deployment.environment.name", "production"),
                pair("host.name", f"node-{(instance * 7 + len(service)) % 24:02d}"),
                pair("process.pid", 100 + instance),
                pair("telemetry.sdk.language", "python"),
                pair("telemetry.sdk.name", "opentelemetry"),
                pair("telemetry.sdk.version", "1.45.2"),
            ]
        )

    # ------------------------------------------------------------------ spans

    def _server(self, old: bool) -> tuple[str, int, dict[str, Value]]:
        rng = self._rng
        place = rng.choice(_PLACES)
        method = rng.choice(("GET", "GET", "GET", "POST"))
        status = rng.choices((200, 201, 404, 409, 500), (88, 6, 3, 2, 1))[0]
        path = f"/api/{place}/{rng.randrange(10_000_000)}"
        agent = rng.choice(_AGENTS).format(n=rng.randrange(9))
        own: dict[str, Value] = {
            "http.route": f"/api/{place}/{{id}}",
            "user.id": f"u-{rng.randrange(400_000)}",
            "session.id": self._hex(64),
            "client.address": self._address(1),
            "http.request.header.x_request_id": self._hex(128),
            "http.response.body.size": rng.randrange(200, 90_000),
            "app.tenant": f"tenant-{rng.randrange(300)}",
        }
        if old:
            own |= {
                "http.method": method, "http.status_code": status, "http.target": path,
                "http.scheme": "https", "http.flavor": "1.1", "http.user_agent": agent,
                "net.host.name": "shop.example", "net.host.port": 8443,
            }  # fmt: skip
        else:
            own |= {
                "http.request.method": method, "http.response.status_code": status,
                "url.path": path, "url.scheme": "https", "url.query": f"page={rng.randrange(90)}",
                "network.protocol.version": "1.1", "user_agent.original": agent,
                "server.address": "shop.example", "server.port": 8443,
            }  # fmt: skip
        return f"{method} /api/{place}/{{id}}", 2, own

    def _internal(self, old: bool) -> tuple[str, int, dict[str, Value]]:
        rng = self._rng
        place = rng.choice(_PLACES)
        line = rng.randrange(4) * 31 + 12
        return f"price {place}", 1, {
            "code.function.name": f"shop.{place}.price", "code.file.path": f"/srv/shop/{place}.py",
            "code.line.number": line, "thread.id": rng.randrange(10_000, 99_999),
            "thread.name": f"worker-{rng.randrange(32)}", "app.items": rng.randrange(60),
            "app.discount": round(rng.random(), 4), "app.cart": self._hex(64),
            "app.currency": rng.choice(("EUR", "USD", "SEK", "JPY")),
            "app.member": rng.random() < 0.3, "app.total": round(rng.expovariate(1 / 80), 2),
            "app.flag.new_pricing": rng.random() < 0.5,
        }  # fmt: skip

    def _database(self, old: bool) -> tuple[str, int, dict[str, Value]]:
        rng = self._rng
        place = rng.choice(_PLACES)
        query = (
            f"SELECT id, state, total, changed FROM {place} WHERE tenant = "  # as an ORM writes it
            f"'tenant-{rng.randrange(300)}' AND id = {rng.randrange(10_000_000)} LIMIT 50"
        )
        own: dict[str, Value] = {
            "network.peer.address": self._address(2), "network.peer.port": 5432,
            "db.client.connection.pool.name": "main",
            "db.response.returned_rows": rng.randrange(50),
            "thread.id": rng.randrange(10_000, 99_999), "app.shard": rng.randrange(16),
            "server.port": 5432,
        }  # fmt: skip
        if old:
            own |= {
                "db.system": "postgresql", "db.name": "shop", "db.sql.table": place,
                "db.operation": "SELECT", "db.statement": query, "net.peer.name": "pg-main",
            }  # fmt: skip
        else:
            own |= {
                "db.system.name": "postgresql", "db.namespace": "shop", "db.collection.name": place,
                "db.operation.name": "SELECT", "db.query.text": query, "server.address": "pg-main",
            }  # fmt: skip
        return f"SELECT {place}", 3, own

    def _cache(self, old: bool) -> tuple[str, int, dict[str, Value]]:
        rng = self._rng
        return "GET", 3, {
            "db.system" if old else "db.system.name": "redis", "db.operation.name": "GET",
            "db.query.text": f"GET cart:{self._hex(64)}", "db.namespace": str(rng.randrange(4)),
            "server.address": f"redis-{rng.randrange(6)}", "server.port": 6379,
            "network.transport": "tcp", "network.peer.address": self._address(3),
            "network.peer.port": 6379, "app.cache.hit": rng.random() < 0.8,
            "app.cache.age_ms": rng.randrange(600_000), "thread.id": rng.randrange(10_000, 99_999),
        }  # fmt: skip

    def _call(self, old: bool) -> tuple[str, int, dict[str, Value]]:
        rng = self._rng
        peer = f"{rng.choice(_SERVICES)}.shop.internal"
        url = f"https://{peer}/v2/check/{rng.randrange(10_000_000)}"
        status = rng.choices((200, 204, 429, 503), (90, 8, 1, 1))[0]
        own: dict[str, Value] = {
            "http.request.resend_count": int(rng.random() < 0.02), "server.port": 443,
            "http.request.body.size": rng.randrange(40, 4000), "url.template": "/v2/check/{id}",
            "http.response.body.size": rng.randrange(40, 4000),
            "network.peer.address": self._address(4), "thread.id": rng.randrange(10_000, 99_999),
        }  # fmt: skip
        if old:
            own |= {
                "http.method": "POST", "http.url": url, "http.status_code": status,
                "net.peer.name": peer, "http.flavor": "2",
            }  # fmt: skip
        else:
            own |= {
                "http.request.method": "POST", "url.full": url, "http.response.status_code": status,
                "server.address": peer, "network.protocol.version": "2",
            }  # fmt: skip
        return "POST", 3, own

    def _chat(self, old: bool) -> tuple[str, int, dict[str, Value]]:
        rng = self._rng
        provider, model = rng.choice(_MODELS)
        asked = [{"role": "user", "parts": [{"type": "text", "content": self.text(1000)}]}]
        said = [
            {
                "role": "assistant",
                "parts": [{"type": "text", "content": self.text(500)}],
                "finish_reason": "stop",
            }
        ]
        return f"chat {model}", 3, {
            "gen_ai.operation.name": "chat",
            "gen_ai.system" if old else "gen_ai.provider.name": provider,
            "gen_ai.request.model": model, "gen_ai.response.model": f"{model}-2026-06-01",
            "gen_ai.response.id": f"chatcmpl-{self._hex(96)}",
            "gen_ai.request.temperature": 0.2, "gen_ai.request.max_tokens": 1024,
            "gen_ai.usage.input_tokens": rng.randrange(200, 6000),
            "gen_ai.usage.output_tokens": rng.randrange(20, 900),
            "gen_ai.conversation.id": f"conv-{self._hex(48)}",
            "server.address": f"{provider}.example", "server.port": 443,
            "gen_ai.input.messages": json.dumps(asked), "gen_ai.output.messages": json.dumps(said),
        }  # fmt: skip

    def _stack(self, scope: str) -> tuple[str, str, str]:
        rng = self._rng
        kind, message = rng.choice(_FAILURES)
        message = message.format(n=rng.randrange(100_000), peer=self._address(5))
        depth = rng.randrange(6, 14)
        frames = [
            f'  File "/srv/shop/{_PLACES[(i * 3 + len(kind)) % 8]}.py", line {i * 41 + len(kind)}, '
            f"in {_WORDS[i * 7 + len(kind)]}\n"
            f"    {_WORDS[i * 5 + 11]} = await {_WORDS[i * 3 + 40]}(request)\n"
            for i in range(depth)
        ]
        stack = f"Traceback (most recent call last):\n{''.join(frames)}{kind}: {message}\n"
        return kind, message, stack

    def _trace(self, scopes: dict[str, Any], start: int) -> None:
        rng = self._rng
        old = rng.random() < 0.1
        trace_id, root = rng.randbytes(16), rng.randbytes(8)
        parent = b""
        for scope, make in (
            ("fastapi", self._server), ("app", self._internal), ("sqlalchemy", self._database),
            ("sqlalchemy", self._database), ("sqlalchemy", self._database), ("redis", self._cache),
            ("httpx", self._call), ("openai", self._chat),
        ):  # fmt: skip
            name, kind, attributes = make(old)
            span = scopes[scope].spans.add(
                trace_id=trace_id,
                span_id=rng.randbytes(8) if parent else root,
                parent_span_id=parent,
                name=name,
                kind=kind,
                flags=0x101,
                start_time_unix_nano=start,
                attributes=[pair(key, value) for key, value in attributes.items()],
            )
            length = int(rng.lognormvariate(2.0, 1.1) * 1e6) * (40 if scope == "openai" else 1)
            span.end_time_unix_nano = start + length
            start += rng.randrange(100_000, 900_000)
            parent = root
            if rng.random() < 0.02:
                error, message, stack = self._stack(scope)
                span.status.code, span.status.message = 2, f"{error}: {message}"
                span.events.add(
                    name="exception",
                    time_unix_nano=span.end_time_unix_nano,
                    attributes=[
                        pair("exception.type", error),
                        pair("exception.message", message),
                        pair("exception.stacktrace", stack),
                    ],
                )

    def traces(self, spans: int = BATCH) -> ExportTraceServiceRequest:
        """One request of about so many spans (whole traces)."""
        rng = self._rng
        request = ExportTraceServiceRequest()
        start = EPOCH_NS + self._requests * 1_000_000_000
        self._requests += 1
        sources = []
        for _ in range(rng.randrange(1, 5)):
            resource = request.resource_spans.add(resource=self._resource())
            scopes = {}
            for name in ("fastapi", "sqlalchemy", "redis", "httpx", "openai", "app"):
                scope = resource.scope_spans.add(
                    schema_url="https://opentelemetry.io/schemas/1.40.0"
                )
                scope.scope.name = (
                    "shop.pricing" if name == "app" else f"opentelemetry.instrumentation.{name}"
                )
                scope.scope.version = "0.66b0"
                scopes[name] = scope
            sources.append(scopes)
        for _ in range(max(1, spans // 8)):
            self._trace(rng.choice(sources), start + rng.randrange(900_000_000))
        return request

    # ------------------------------------------------------------------ logs and metrics

    def logs(self, records: int = BATCH) -> ExportLogsServiceRequest:
        """One request of log records: 2 % errors with a stack, the rest a line each."""
        rng = self._rng
        request = ExportLogsServiceRequest()
        start = EPOCH_NS + self._requests * 1_000_000_000
        self._requests += 1
        scopes = []
        for _ in range(rng.randrange(1, 5)):
            resource = request.resource_logs.add(resource=self._resource())
            scope = resource.scope_logs.add()
            scope.scope.name = f"shop.{rng.choice(_PLACES)}"
            scopes.append(scope)
        for _ in range(records):
            time_ns = start + rng.randrange(900_000_000)
            record: Any = rng.choice(scopes).log_records.add(
                time_unix_nano=time_ns,
                observed_time_unix_nano=time_ns + rng.randrange(1_000_000),
                severity_number=9,
                severity_text="INFO",
                trace_id=rng.randbytes(16),
                span_id=rng.randbytes(8),
                flags=1,
                attributes=[
                    pair("code.function.name", f"shop.{rng.choice(_PLACES)}.store"),
                    pair("code.line.number", rng.randrange(400)),
                    pair("thread.id", rng.randrange(10_000, 99_999)),
                    pair("app.tenant", f"tenant-{rng.randrange(300)}"),
                    pair("user.id", f"u-{rng.randrange(400_000)}"),
                ],
            )
            if rng.random() < 0.02:
                error, message, stack = self._stack("log")
                record.severity_number, record.severity_text = 17, "ERROR"
                record.body.string_value = f"could not store: {message}"
                record.attributes.extend(
                    [
                        pair("exception.type", error),
                        pair("exception.message", message),
                        pair("exception.stacktrace", stack),
                    ]
                )
            else:
                record.body.string_value = (
                    f"stored order {rng.randrange(10_000_000)} in {rng.randrange(900)} ms: "
                    f"{self.text(60)}"
                )
        return request

    def metrics(self, points: int = BATCH) -> ExportMetricsServiceRequest:
        """One request of data points: a counter, a gauge and a histogram in turn."""
        rng = self._rng
        request = ExportMetricsServiceRequest()
        start = EPOCH_NS + self._requests * 1_000_000_000
        self._requests += 1
        scope = request.resource_metrics.add(resource=self._resource()).scope_metrics.add()
        scope.scope.name = "shop.meter"
        counter: Any = scope.metrics.add(
            name="shop.orders", unit="{order}", description="Orders taken"
        )
        counter.sum.aggregation_temporality, counter.sum.is_monotonic = 2, True
        gauge = scope.metrics.add(name="process.memory.usage", unit="By")
        histogram: Any = scope.metrics.add(name="http.server.request.duration", unit="s")
        histogram.histogram.aggregation_temporality = 2
        bounds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]
        for number in range(points):
            times = {"start_time_unix_nano": start, "time_unix_nano": start + 900_000_000}
            labels = [
                pair("http.route", f"/api/{rng.choice(_PLACES)}/{{id}}"),
                pair("http.response.status_code", rng.choice((200, 404, 500))),
                pair("series", number),
            ]
            if number % 3 == 0:
                counter.sum.data_points.add(as_int=rng.randrange(10**9), attributes=labels, **times)
            elif number % 3 == 1:
                gauge.gauge.data_points.add(
                    as_double=rng.random() * 1e9, attributes=labels, **times
                )
            else:
                buckets = [rng.randrange(100) for _ in range(len(bounds) + 1)]
                histogram.histogram.data_points.add(
                    count=sum(buckets), sum=rng.random() * 100, min=0.001, max=9.5,
                    bucket_counts=buckets, explicit_bounds=bounds, attributes=labels, **times,
                )  # fmt: skip
        return request


def requests(
    records: int, *, signal: str = "traces", batch: int = BATCH, seed: int = 1
) -> Iterator[bytes]:
    """Serialised requests that hold about so many records."""
    telemetry = Telemetry(seed)
    make = {"traces": telemetry.traces, "logs": telemetry.logs, "metrics": telemetry.metrics}[
        signal
    ]
    for _ in range(-(-records // batch)):
        yield make(batch).SerializeToString()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--spans", type=int, default=100_000, help="records to write")
    parser.add_argument("--signal", choices=("traces", "logs", "metrics"), default="traces")
    parser.add_argument("--batch", type=int, default=BATCH, help="records a request")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    count = size = 0
    with options.out.open("wb") as file:
        for body in requests(
            options.spans, signal=options.signal, batch=options.batch, seed=options.seed
        ):
            file.write(struct.pack("<I", len(body)) + body)
            count, size = count + 1, size + len(body)
    print(f"{count} requests, {size:,} bytes, {size / options.spans:.0f} bytes a record")


if __name__ == "__main__":
    main()
