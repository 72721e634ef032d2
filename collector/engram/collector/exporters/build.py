"""From a configuration to running exporters: one `Forwarder` for each component that is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from engram.collector.component import Kind
from engram.collector.config import Config
from engram.collector.processors.chain import for_sending
from engram.exporters.engine import Engine
from engram.exporters.signals import Signal

from .forward import Forwarder, Route
from .sender import Sender
from .settings import FileSender, OtlpGrpc, OtlpHttp, Retry


def forwarders(config: Config, engine: Engine) -> Iterator[Forwarder]:
    """The exporters that send on, for an engine that is not started yet."""
    for at in config.used(Kind.EXPORTER):
        made = _sender(config.components[Kind.EXPORTER][at])
        if made is None:
            continue
        sender, retry = made
        routes: dict[Signal, list[Route]] = {}
        for pipeline in config.pipelines:
            if at in pipeline.exporters:
                routes.setdefault(pipeline.signal, []).append(for_sending(config, pipeline))
        name = str(at)
        yield Forwarder(
            name,
            engine.follow(quote(name, safe=""), frozenset(routes)),
            sender,
            routes,
            retry=retry,
            max_request_bytes=engine.settings.max_request_bytes,
            quarantine=engine.quarantine,
        )


def _sender(settings: Any) -> tuple[Sender, Retry] | None:
    """How to send; None for an exporter that does not. What it needs is imported only now."""
    if isinstance(settings, OtlpGrpc):
        from .otlp_grpc import GrpcSender

        return GrpcSender(settings), settings.retry_on_failure
    if isinstance(settings, OtlpHttp):
        from .otlp_http import HttpSender

        return HttpSender(settings), settings.retry_on_failure
    if isinstance(settings, FileSender):
        from .file import LineSender

        return LineSender(settings), Retry()
    return None
