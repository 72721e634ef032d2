"""Settings of the exporters that send on what arrived."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often a request is tried again. Between tries it stays in the log."""

    enabled: bool = True
    """False gives a request up at the first failure."""

    initial_interval: timedelta = timedelta(seconds=5)
    """The first wait."""

    multiplier: float = 1.5
    """How each wait grows; a random half more or less is added."""

    max_interval: timedelta = timedelta(seconds=30)
    """The longest wait, unless the remote's Retry-After is longer."""

    max_elapsed_time: timedelta = timedelta(0)
    """Give a request up after this long. 0, the default, goes on as long as the log holds it."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        if self.initial_interval <= timedelta(0):
            yield "initial_interval: must be more than 0"
        if self.multiplier < 1:
            yield "multiplier: must be 1 or more"
        if self.max_interval < self.initial_interval:
            yield "max_interval: must be initial_interval or more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How the remote is trusted."""

    insecure: bool = False
    """gRPC without TLS."""

    ca_file: str | None = None
    """Certificates that are trusted. Null is the system's."""

    cert_file: str | None = None
    """Our certificate, where the remote asks for one."""

    key_file: str | None = None
    """Its key."""

    insecure_skip_verify: bool = False
    """HTTP only: take any certificate. For tests."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        for name in ("ca_file", "cert_file", "key_file"):
            path = getattr(self, name)
            if path is not None and not os.path.isfile(path):
                yield f"{name}: no file {path}"
        if (self.cert_file is None) != (self.key_file is None):
            yield "cert_file and key_file belong together"


_QUEUE = "sending_queue: is not needed; the write-ahead log is the queue. Remove it"


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpSender:
    """What both OTLP exporters have."""

    endpoint: str = ""
    """Where to send."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every request, such as `authorization`. Masked by `engram config validate`."""

    compression: Literal["gzip", "none"] = "gzip"
    """How bodies are sent."""

    timeout: timedelta = timedelta(seconds=5)
    """The longest wait for an answer."""

    tls: Tls = field(default_factory=Tls)
    """How the remote is trusted."""

    retry_on_failure: Retry = field(default_factory=Retry)
    """How often a request is tried again."""

    sending_queue: Any = None
    """Not needed: the log is the queue. Its keys are refused, so that nobody relies on them."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        for key, value in self.headers.items():
            if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", key):
                yield f"headers: {key!r} is no name of a header"
            elif not value.isprintable():
                yield f"headers.{key}: holds characters that no header may have"
        if self.timeout <= timedelta(0):
            yield "timeout: must be more than 0"
        if self.sending_queue is not None:
            yield _QUEUE

    def reaches(self, ports: set[int]) -> bool:
        """Whether it would send to one of these ports of this machine."""
        address = target(self.endpoint)
        return address is not None and is_here(address[0]) and address[1] in ports


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpGrpc(OtlpSender):
    """Settings of the `otlp` exporter: OTLP over gRPC."""

    endpoint: str = ""
    """Where to send: host:port, or a URL; `http://` is without TLS."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        yield from OtlpSender.problems(self)
        if target(self.endpoint) is None:
            yield f"endpoint: {self.endpoint!r} is none; write host:port, such as collector:4317"
        if self.tls.insecure_skip_verify:
            yield "tls.insecure_skip_verify: is for otlphttp; gRPC has tls.insecure"
        for key in self.headers:
            if key.lower().startswith(("grpc-", ":")):
                yield f"headers: {key!r} is gRPC's own"

    @property
    def insecure(self) -> bool:
        """Whether to send without TLS."""
        scheme = self.endpoint.partition("://")[0] if "://" in self.endpoint else ""
        return scheme == "http" or (self.tls.insecure and scheme != "https")


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpHttp(OtlpSender):
    """Settings of the `otlphttp` exporter: OTLP over HTTP."""

    endpoint: str = ""
    """Where to send: a URL, to which `/v1/traces`, `/v1/logs` or `/v1/metrics` is added."""

    traces_endpoint: str | None = None
    """The whole URL for traces."""

    logs_endpoint: str | None = None
    """The whole URL for logs."""

    metrics_endpoint: str | None = None
    """The whole URL for metrics."""

    encoding: Literal["proto", "json"] = "proto"
    """Protobuf or OTLP/JSON."""

    timeout: timedelta = timedelta(seconds=30)
    """The longest wait for an answer."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        yield from OtlpSender.problems(self)
        own = [getattr(self, f"{signal}_endpoint") for signal in ("traces", "logs", "metrics")]
        if not self.endpoint and not any(own):
            yield "endpoint is missing: where to send, such as https://collector:4318"
        for name in ("endpoint", "traces_endpoint", "logs_endpoint", "metrics_endpoint"):
            url = getattr(self, name)
            if url and (not url.startswith(("http://", "https://")) or target(url) is None):
                yield f"{name}: {url!r} is no URL; write http://host:port or https://host"

    def url(self, signal: str) -> str | None:
        """The URL of a signal; None when none is given."""
        own = getattr(self, f"{signal}_endpoint")
        if own:
            return str(own)
        return f"{self.endpoint.rstrip('/')}/v1/{signal}" if self.endpoint else None

    def reaches(self, ports: set[int]) -> bool:
        """Whether it would send to one of these ports of this machine."""
        for url in (self.url(signal) for signal in ("traces", "logs", "metrics")):
            address = target(url or "")
            if address is not None and is_here(address[0]) and address[1] in ports:
                return True
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """When a file is put aside and a new one begun."""

    max_megabytes: int = 100
    """At this size, in MiB."""

    max_backups: int = 100
    """How many are kept; older ones are deleted. 0 keeps all."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        if self.max_megabytes < 1:
            yield "max_megabytes: must be 1 or more"
        if self.max_backups < 0:
            yield "max_backups: must be 0 or more"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSender:
    """Settings of the `file` exporter: one line of OTLP/JSON for each request."""

    path: str = ""
    """The file. It is appended to."""

    format: str = "json"
    """Only `json` is supported."""

    append: bool = True
    """Must be true: a restart would lose what was written."""

    create_directory: bool = False
    """Make the directory of the file when it is missing."""

    rotation: Rotation | None = None
    """Null never begins a new file."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        if not self.path:
            yield "path is missing: which file to write"
        elif not self.create_directory and not os.path.isdir(os.path.dirname(self.path) or "."):
            yield f"path: the directory of {self.path} is missing; create_directory makes it"
        if self.format != "json":
            yield f"format: only json is supported, not {self.format!r}"
        if not self.append:
            yield "append: only true is supported; a restart would lose what was written"


def target(endpoint: str) -> tuple[str, int] | None:
    """Host and port of an endpoint or URL; None when it is neither."""
    whole = endpoint if "://" in endpoint else f"grpc://{endpoint}"
    try:
        parts = urlsplit(whole)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or parts.scheme not in ("grpc", "http", "https", "dns"):
        return None
    if port is None:
        port = {"http": 80, "https": 443}.get(parts.scheme)
    return None if port is None else (parts.hostname, port)


def is_here(host: str) -> bool:
    """Whether a host is this machine."""
    return host in ("localhost", "0.0.0.0", "::", "::1") or host.startswith("127.")  # noqa: S104
