"""The built-in component types and their settings: every key of `otel-config.yaml` is here.

What a field means stands under the field; `docs/configuration.md` is the same list for people,
and a test holds the two together.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal, NewType

from engram.collector.component import Factory, Kind
from engram.collector.exporters.settings import FileSender, OtlpGrpc, OtlpHttp
from engram.collector.processors.settings import Attributes, Filter, Resource, Sampler, Transform
from engram.learning.alerts.settings import Alerts
from engram.learning.itself import Itself
from engram.learning.limits import Limits

Size = NewType("Size", int)
"""Bytes. In the file a number, or text such as `64MiB`."""

MIB: Final = 1024 * 1024


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` in its two parts.

    Raises:
        ValueError: it is neither, or the port is none.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]/\s]+)):(\d{1,5})", endpoint)
    if match is None or int(match[3]) > 65535:
        raise ValueError(f"{endpoint!r} is no endpoint; write host:port, such as 127.0.0.1:4318")
    return match[1] or match[2], int(match[3])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _endpoint_problems(endpoint: str) -> Iterator[str]:
    """What is wrong with an endpoint that asks for tokens where other machines can reach it.

    Whether there are tokens is asked at the start (`access.exposure`): they are in the home.
    """
    try:
        split_endpoint(endpoint)
    except ValueError as error:
        yield f"endpoint: {error}"


def _local_problems(endpoint: str) -> Iterator[str]:
    yield from (found := list(_endpoint_problems(endpoint)))
    if not found and not is_loopback(split_endpoint(endpoint)[0]):
        yield (
            f"endpoint: {endpoint!r} is reachable from other machines and nothing asks them who "
            "they are; use 127.0.0.1"
        )


def _at_least(minimum: int, **values: float) -> Iterator[str]:
    for name, value in values.items():
        if value < minimum:
            yield f"{name}: {value:g} is too small, the least is {minimum}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcServer:
    """OTLP over gRPC."""

    endpoint: str = "127.0.0.1:4317"
    """Where to listen. Port 0 takes a free one. Not on loopback: with tokens only."""

    max_recv_msg_size_mib: int = 4
    """The largest request as sent, in MiB. Inflated, the larger of the two limits holds."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        yield from _endpoint_problems(self.endpoint)
        yield from _at_least(1, max_recv_msg_size_mib=self.max_recv_msg_size_mib)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cors:
    """Which web pages may send telemetry."""

    allowed_origins: tuple[str, ...] = ()
    """Origins such as `https://shop.example`; `*` stands for any text. Empty is CORS off."""

    allowed_headers: tuple[str, ...] = ()
    """Request headers besides the usual ones; `*` is any."""

    max_age: int = 0
    """Seconds for which a browser need not ask again. 0 leaves it to the browser."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        yield from _at_least(0, max_age=self.max_age)
        for at, origin in enumerate(self.allowed_origins):
            if not re.fullmatch(r"\*|[\w.*+-]+://[^/\s]+", origin):
                yield (
                    f"allowed_origins[{at}]: {origin!r} is no origin; write scheme and host without"
                    " a path, such as https://shop.example or http://localhost:*"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Browser:
    """What web pages may send, and how much. All of it is stored with trust `browser`."""

    allowed_origins: tuple[str, ...] = (
        "http://localhost",
        "http://localhost:*",
        "http://127.0.0.1",
        "http://127.0.0.1:*",
    )
    """Origins of pages that may send; `*` stands for any text."""

    keys: tuple[str, ...] = ()
    """Ingest-only keys, as header `engram-key`. When there are any, a page must send one."""

    max_request_bytes: Size = Size(256 * 1024)
    """The largest request of a page, as sent and inflated."""

    rate_per_minute: int = 600
    """Requests per address and minute; beyond, 429."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        yield from Cors(allowed_origins=self.allowed_origins).problems()
        yield from _at_least(1024, max_request_bytes=self.max_request_bytes)
        yield from _at_least(1, rate_per_minute=self.rate_per_minute)
        for at, key in enumerate(self.keys):
            if not re.fullmatch(r"[!-~]{16,256}", key):
                yield f"keys[{at}]: a key has 16 to 256 visible ASCII characters and no spaces"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpServer:
    """OTLP over HTTP: protobuf and JSON, plain, gzip, zstd or deflate."""

    endpoint: str = "127.0.0.1:4318"
    """Where to listen. Port 0 takes a free one. Not on loopback: with tokens only."""

    max_request_body_size: Size = Size(64 * MIB)
    """The largest request as sent. Inflated, the larger of the two limits holds; for JSON this."""

    cors: Cors | None = None
    """Which web pages may send besides those of `browser`; null is none."""

    browser: Browser = field(default_factory=Browser)
    """The door for web pages, and `GET /engram.js`."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        yield from _endpoint_problems(self.endpoint)
        yield from _at_least(1024, max_request_body_size=self.max_request_body_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocols:
    """Which doors are open: those listed; without `protocols`, both."""

    grpc: GrpcServer | None = field(default_factory=GrpcServer)
    """OTLP/gRPC."""

    http: HttpServer | None = field(default_factory=HttpServer)
    """OTLP/HTTP."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        if self.grpc is None and self.http is None:
            yield "at least one of grpc and http must be listed"


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpReceiver:
    """Settings of the `otlp` receiver."""

    protocols: Protocols = field(default_factory=Protocols)
    """The doors."""

    def ports(self) -> set[int]:
        """The ports that are listened on; a free one is not known yet."""
        doors = (self.protocols.grpc, self.protocols.http)
        return {split_endpoint(one.endpoint)[1] for one in doors if one is not None} - {0}


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLimiter:
    """Settings of the `memory_limiter` processor: refuse, retryably, before memory runs out."""

    check_interval: timedelta = timedelta(seconds=1)
    """As in the Collector. Memory is looked at with every batch, at least four times a second."""

    limit_mib: int = 850
    """The most resident memory the collect process should have, in MiB."""

    spike_limit_mib: int | None = None
    """Requests are refused this many MiB below the limit. Null is a fifth of the limit."""

    @property
    def soft_limit_mib(self) -> int:
        """Where refusing begins."""
        spike = self.limit_mib // 5 if self.spike_limit_mib is None else self.spike_limit_mib
        return self.limit_mib - spike

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        yield from _at_least(64, limit_mib=self.limit_mib)
        if self.check_interval <= timedelta(0):
            yield "check_interval: must be more than 0"
        if self.spike_limit_mib is not None and not 0 <= self.spike_limit_mib < self.limit_mib:
            yield f"spike_limit_mib: must be between 0 and limit_mib ({self.limit_mib})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Settings of the `batch` processor: how often the lake commits."""

    send_batch_size: int = 16384
    """Commit when this many records wait."""

    timeout: timedelta = timedelta(seconds=1)
    """Commit when the oldest record has waited this long."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        yield from _at_least(1, send_batch_size=self.send_batch_size)
        if not timedelta(milliseconds=50) <= self.timeout <= timedelta(minutes=1):
            yield "timeout: must be between 50ms and 1m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Redaction:
    """Settings of the `redaction` processor: what must not become queryable."""

    allow_all_keys: bool = True
    """Keep keys that no list names. Must be true: Engram drops no attribute."""

    ignored_keys: tuple[str, ...] = ()
    """Keys whose value is never replaced because of its key."""

    blocked_key_patterns: tuple[str, ...] = ()
    """Regular expressions: more keys, besides the built-in ones, whose value is replaced."""

    blocked_values: tuple[str, ...] = ()
    """Regular expressions: more secrets inside values; the matching part is replaced."""

    allowed_values: tuple[str, ...] = ()
    """Regular expressions: values that stay as they are when one matches the whole value."""

    summary: Literal["debug", "info", "silent"] = "silent"
    """Accepted for the Collector's sake: nothing is added to a record."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        if not self.allow_all_keys:
            yield "allow_all_keys: only true is supported; block keys with blocked_key_patterns"
        for name in ("blocked_key_patterns", "blocked_values", "allowed_values"):
            for at, pattern in enumerate(getattr(self, name)):
                try:
                    re.compile(pattern)
                except re.error as error:
                    yield f"{name}[{at}]: {pattern!r} is no regular expression: {error}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryExporter:
    """Settings of the `memory` exporter: the home, and what becomes a memory."""

    path: str | None = None
    """The home directory. Null is --home, else ENGRAM_HOME, else ./.engram."""

    rules: tuple[Mapping[str, Any], ...] = ()
    """Rules of your own; one of a built-in rule's name takes its place. See docs/rules.md."""

    rules_file: str | None = None
    """A YAML file with more of them (`rules:`, `disabled:`), beside this one."""

    disabled: tuple[str, ...] = ()
    """Built-in rules to switch off, by name; `engram rules list` shows them."""

    assistant: str = "AUREA"
    """The agent whose turns are aurea_response and aurea_conversation, by name in any case."""

    retention: timedelta = timedelta(0)
    """Records older than this are deleted. 0 keeps them forever."""

    max_wal_mib: int = 4096
    """Senders are refused, retryably, when this much waits to be committed."""

    compact_interval: timedelta = timedelta(minutes=1)
    """How often small files are merged."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        yield from _at_least(16, max_wal_mib=self.max_wal_mib)
        if not self.assistant.strip():
            yield "assistant: must be the name of an agent"
        if self.retention < timedelta(0):
            yield "retention: must be 0 (forever) or more"
        if self.compact_interval < timedelta(seconds=1):
            yield "compact_interval: must be 1s or more"


@dataclass(frozen=True, slots=True, kw_only=True)
class DebugExporter:
    """Settings of the `debug` exporter: says in the log what went by."""

    verbosity: Literal["basic", "normal", "detailed"] = "basic"
    """basic: counts of each commit; normal: and by service; detailed: and by memory type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """Settings of the `api` extension: the page and the REST API of `engram serve`."""

    endpoint: str = "127.0.0.1:4319"
    """Where to listen. Port 0 takes a free one. Not on loopback: with tokens only."""

    allowed_hosts: tuple[str, ...] = ()
    """Names, besides those of this machine, by which clients may call this server."""

    rate_per_minute: int = 6000
    """Requests per minute of one token, or of one address; beyond, 429."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        yield from _endpoint_problems(self.endpoint)
        yield from _at_least(1, rate_per_minute=self.rate_per_minute)
        for at, host in enumerate(self.allowed_hosts):
            if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", host):
                yield f"allowed_hosts[{at}]: {host!r} is no host name; leave out scheme and port"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """Settings of the `health_check` extension: whether `engram collect` takes telemetry."""

    endpoint: str = "127.0.0.1:13133"
    """Where to listen. Port 0 takes a free one. Loopback only."""

    path: str = "/"
    """The path that answers 200 or 503."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        yield from _local_problems(self.endpoint)
        if not self.path.startswith("/"):
            yield f"path: {self.path!r} must begin with /"


FACTORIES: Final = (
    Factory(Kind.RECEIVER, "otlp", OtlpReceiver, "takes OTLP over gRPC and HTTP"),
    Factory(Kind.PROCESSOR, "memory_limiter", MemoryLimiter, "refuses before memory runs out"),
    Factory(Kind.PROCESSOR, "batch", Batch, "how often the lake commits"),
    Factory(Kind.PROCESSOR, "redaction", Redaction, "masks secrets before they can be queried"),
    Factory(Kind.PROCESSOR, "attributes", Attributes, "changes attributes of records"),
    Factory(Kind.PROCESSOR, "resource", Resource, "changes attributes of resources"),
    Factory(Kind.PROCESSOR, "filter", Filter, "drops what meets a condition"),
    Factory(Kind.PROCESSOR, "transform", Transform, "changes records by statements of OTTL"),
    Factory(Kind.PROCESSOR, "probabilistic_sampler", Sampler, "keeps a share of the traces"),
    Factory(Kind.EXPORTER, "memory", MemoryExporter, "records and memories into the lake"),
    Factory(Kind.EXPORTER, "debug", DebugExporter, "counts of each batch, in the log"),
    Factory(Kind.EXPORTER, "otlp", OtlpGrpc, "sends on by OTLP over gRPC"),
    Factory(Kind.EXPORTER, "otlphttp", OtlpHttp, "sends on by OTLP over HTTP"),
    Factory(Kind.EXPORTER, "file", FileSender, "appends OTLP/JSON lines to a file"),
    Factory(Kind.EXTENSION, "api", Api, "the page and the REST API (engram serve)"),
    Factory(Kind.EXTENSION, "health_check", HealthCheck, "says by HTTP whether collect works"),
    Factory(Kind.EXTENSION, "predictions", Limits, "limits that learn foresees the crossing of"),
    Factory(Kind.EXTENSION, "self_optimization", Itself, "what Engram learns about itself"),
    Factory(Kind.EXTENSION, "alerts", Alerts, "tells webhooks and commands what learn found"),
)


_ALIASES: Final = {Kind.EXPORTER: {"otlp_grpc": "otlp", "otlp_http": "otlphttp"}}
"""Newer names that the Collector has for the same types."""


def factories(kind: Kind) -> dict[str, Factory]:
    """The component types of one section, by name; also by their other names."""
    found = {factory.type: factory for factory in FACTORIES if factory.kind is kind}
    return found | {alias: found[name] for alias, name in _ALIASES.get(kind, {}).items()}
