"""`engram collect`: the one writer of a home. Receivers in front, the engine behind."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from typing import Final, Protocol

from engram.collector.access.exposure import check_exposure
from engram.collector.access.tokens import Tokens
from engram.collector.component import Component, Kind
from engram.collector.config import Config, check_rules
from engram.collector.control import ask
from engram.collector.debug import DebugReporter
from engram.collector.exporters.build import forwarders
from engram.collector.health import HealthServer
from engram.collector.itself import collect_teller, may_change, records
from engram.collector.processors.chain import for_memory
from engram.collector.receivers import (
    OtlpGrpcConfig,
    OtlpGrpcReceiver,
    OtlpHttpConfig,
    OtlpHttpReceiver,
)
from engram.collector.registry import (
    MIB,
    Batch,
    DebugExporter,
    HealthCheck,
    MemoryExporter,
    MemoryLimiter,
    OtlpReceiver,
    Redaction,
    Size,
)
from engram.collector.roles.process import Supervised, set_up_log, stop_event
from engram.collector.rules import rules_of
from engram.exporters.control import ControlServer
from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.errors import EngramError, HomeBusy, StoreError
from engram.exporters.home import Home
from engram.exporters.itself.settings import COMPACT
from engram.exporters.signals import Intake

_LOG = logging.getLogger("engram.collect")

_DRAIN_S: Final = 3.0
"""What is not committed by then stays in the write-ahead log, for the next start."""

_LOOK_S: Final = 0.5
"""How often it is looked whether the engine still lives. A dead one ends the process: `up` starts
another, which replays the log."""

_YIELD_S: Final = 12.0
"""An engine of SDK exporters commits what it has, and has left the home by then."""

_SWITCH_S: Final = 0.0005
"""A receiver's thread waits this long for the interpreter while the decoder computes, not 5 ms: an
acknowledgement takes several turns, and its slowest hundredth is made of these waits."""

_GC_OBJECTS: Final = 50_000
"""Young objects before a collection: a batch is thousands of tuples, none of them in a cycle."""

_M_ARENA_MAX: Final = -8
_ARENAS: Final = 2
"""Heaps of glibc's malloc. By default each thread may have its own, and each keeps its peak."""


class Receiver(Component, Protocol):
    """A component that listens."""

    @property
    def port(self) -> int:
        """The port that is bound."""
        ...


def run(home: Home, config: Config, supervised: Supervised) -> int:
    """Collect until told to stop; the exit code.

    Raises:
        HomeBusy: another process writes to this home.
        ConfigError: an endpoint is taken.
    """
    set_up_log(config.log_level)
    stop = stop_event(supervised)
    check_rules(config)
    check_exposure(home, config)
    sys.setswitchinterval(_SWITCH_S)
    gc.freeze()
    gc.set_threshold(_GC_OBJECTS, 20, 100)
    _bound_heap()
    engine = Engine(home, engine_settings(config))
    sending = list(forwarders(config, engine))  # before the start: the log keeps what they need
    endpoints: dict[str, str] = {}
    with ExitStack() as running:  # stops in the reverse order: receivers first, then the engine
        health = health_server(config, engine)
        if health is not None:
            health.start()
            running.callback(health.shutdown)
        take_home(engine)
        running.callback(engine.shutdown, _DRAIN_S)
        for forwarder in sending:
            forwarder.start()
            running.callback(forwarder.shutdown)
        engine.reports["exporters"] = lambda: {one.name: one.status() for one in sending}
        control = ControlServer(engine)
        control.start()
        running.callback(control.shutdown)
        if records(config):
            teller = collect_teller(engine)
            teller.start()
            running.callback(teller.shutdown)
        for reporter in debug_reporters(home, config):
            reporter.start()
            running.callback(reporter.shutdown)
        for name, endpoint, receiver in receivers(config, engine, Tokens(home)):
            receiver.start()
            running.callback(receiver.shutdown)
            host = endpoint.rpartition(":")[0]
            endpoints[name] = f"http://{host}:{receiver.port}"
        _LOG.info("collecting into %s from %s", home.root, ", ".join(endpoints.values()))
        if health is not None:
            host = health.endpoint.rpartition(":")[0]
            endpoints["health_check"] = f"http://{host}:{health.port}"
            health.ready()
            running.callback(health.stopping)
        supervised.ready(
            {
                "home": str(home.root),
                "config": [str(path) for path in config.files],
                "set": list(config.settings_given),
                "endpoints": endpoints,
                "api": config.api is not None,
            }
        )
        while not stop.wait(_LOOK_S):
            if engine.failure is not None:
                raise StoreError(f"the engine stopped: {engine.failure}")
        _LOG.info("stopping")
    _LOG.info("stopped")
    return 0


def take_home(engine: Engine) -> None:
    """Start the engine; an engine of SDK exporters leaves the home to us, and they come to us.

    Raises:
        HomeBusy: another collector writes to this home, or the other engine does not leave.
    """
    try:
        engine.start()
    except HomeBusy:
        try:
            ask(engine.home, "yield", timeout_s=_YIELD_S)
        except EngramError:
            pass  # another collector, or whoever had the home has just gone
        else:
            _LOG.info("the engine of SDK exporters leaves %s to this collector", engine.home.root)
            engine.start(_YIELD_S)
            return
        raise


def debug_reporters(home: Home, config: Config) -> Iterator[DebugReporter]:
    """One for each `debug` exporter that a pipeline lists, for the signals that list it."""
    for at in config.used(Kind.EXPORTER):
        settings = config.components[Kind.EXPORTER][at]
        if isinstance(settings, DebugExporter):
            signals = frozenset(one.signal for one in config.pipelines if at in one.exporters)
            yield DebugReporter(home, settings, signals)


def health_server(config: Config, engine: Engine) -> HealthServer | None:
    """The `health_check` extension, when the service lists it."""
    settings = config.settings(Kind.EXTENSION, "health_check", HealthCheck)
    return None if settings is None else HealthServer(settings, lambda: engine.failure is None)


def _bound_heap() -> None:
    """Let few heaps serve all threads; where there is no glibc, leave them as they are."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def engine_settings(config: Config) -> EngineSettings:
    """What the file says, in the engine's words. A component that is not used is at its default.

    Without `redaction` in the pipelines nothing is masked, which an operator may want.
    """
    batch = config.settings(Kind.PROCESSOR, "batch", Batch) or Batch()
    limiter = config.settings(Kind.PROCESSOR, "memory_limiter", MemoryLimiter)
    redaction = config.settings(Kind.PROCESSOR, "redaction", Redaction)
    memory = config.settings(Kind.EXPORTER, "memory", MemoryExporter) or MemoryExporter()
    return EngineSettings(
        commit_rows=batch.send_batch_size,
        commit_interval_s=batch.timeout.total_seconds(),
        max_request_bytes=_largest_request(config),
        max_wal_bytes=memory.max_wal_mib * MIB,
        limit_memory_bytes=limiter.soft_limit_mib * MIB if limiter else 0,
        retention_s=memory.retention.total_seconds(),
        compact_interval_s=memory.compact_interval.total_seconds(),
        redaction=asdict(redaction) if redaction else None,
        chosen=COMPACT in may_change(config),
        rules=rules_of(config),
        process=for_memory(config),
    )


def _largest_request(config: Config) -> int:
    """The limit on inflated bytes; each receiver has its own on bytes as sent."""
    protocols = (config.settings(Kind.RECEIVER, "otlp", OtlpReceiver) or OtlpReceiver()).protocols
    sizes = [protocols.http.max_request_body_size] if protocols.http else []
    sizes += [Size(protocols.grpc.max_recv_msg_size_mib * MIB)] if protocols.grpc else []
    return max(sizes)


def receivers(
    config: Config, intake: Intake, tokens: Tokens | None = None
) -> Iterator[tuple[str, str, Receiver]]:
    """The receivers that are on: name, endpoint as configured, receiver."""
    protocols = (config.settings(Kind.RECEIVER, "otlp", OtlpReceiver) or OtlpReceiver()).protocols
    if protocols.http is not None:
        http = OtlpHttpConfig(
            endpoint=protocols.http.endpoint,
            max_request_body_size=protocols.http.max_request_body_size,
            cors=protocols.http.cors,
            browser=protocols.http.browser,
            tokens=tokens,
        )
        yield "otlp_http", http.endpoint, OtlpHttpReceiver(http, intake)
    if protocols.grpc is not None:
        grpc = OtlpGrpcConfig(
            endpoint=protocols.grpc.endpoint,
            max_recv_msg_size_mib=protocols.grpc.max_recv_msg_size_mib,
            tokens=tokens,
        )
        yield "otlp_grpc", grpc.endpoint, OtlpGrpcReceiver(grpc, intake)
