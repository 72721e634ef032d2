"""OTLP over gRPC: bytes in, bytes out, no message object per request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from engram.collector.access.scopes import Scope
from engram.collector.access.tokens import Tokens
from engram.exporters.errors import ConfigError
from engram.exporters.signals import Encoding, Intake, Signal

from .answers import response
from .endpoint import endpoint_problems, listen, reachable
from .listening import ListeningReceiver
from .senders import sender_problem
from .status import NO_PROFILES, refusal, release_memory

_SERVICES = {
    "opentelemetry.proto.collector.trace.v1.TraceService": Signal.TRACES,
    "opentelemetry.proto.collector.logs.v1.LogsService": Signal.LOGS,
    "opentelemetry.proto.collector.metrics.v1.MetricsService": Signal.METRICS,
}
_PROFILES = "opentelemetry.proto.collector.profiles.v1development.ProfilesService"
_MAGIC = {0x1F: Encoding.GZIP, 0x78: Encoding.DEFLATE}
"""The first byte of a message as grpc's core compresses it. Neither begins a request: 1f is no
protobuf tag (wire type 7), 78 would be field 15."""

_TRIM_ABOVE = 1 << 20
"""Refused messages above this are followed by a trim.

Four refused messages of 15 MB left 127 MB resident without it, 80 MB with it.
HTTP bodies showed no difference.
"""

_ALL_OF_GRPC = 0b111
"""Bits of GRPC_COMPRESS_NONE, GRPC_COMPRESS_DEFLATE and GRPC_COMPRESS_GZIP.

Others core refuses itself with UNIMPLEMENTED, and says which encodings it takes.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpGrpcConfig:
    """Settings of the `otlp` receiver's gRPC protocol."""

    endpoint: str = "127.0.0.1:4317"
    """Where to listen; loopback only, unless there are tokens. Port 0 lets the system choose."""

    max_recv_msg_size_mib: int = 4
    """Refuse messages that are larger as sent. The limit on inflated bytes is the intake's."""

    max_concurrent_streams: int = 32
    """Requests of one connection that may be in flight; HTTP/2 makes the sender wait with more.

    Core holds each whole message before it asks us, and no option of Python's gRPC bounds them
    together. Garbage of 4 MiB cost 12 to 21 MB from a sender that waits for its answers, as SDKs
    do, 80 MB with 16 in flight and 100 MB with 32 (165 MB when 64 were allowed). A sender that uses
    up all of them may see UNAVAILABLE, so this must stay far above the Collector's 10.
    """

    threads: int = 16
    """Requests that are checked or wait for the disk at the same time; more share one fdatasync."""

    tokens: Tokens | None = None
    """Of the home: a sender that may be another machine must show one. None is loopback only."""

    @property
    def guarded(self) -> bool:
        """Whether somebody could show what is asked for."""
        return self.tokens is not None and self.tokens.any([Scope.INGEST])

    def problems(self) -> Iterator[str]:
        """What is wrong with these settings."""
        yield from endpoint_problems(self.endpoint, guarded=self.guarded)
        if not 1 <= self.max_recv_msg_size_mib <= 2047:
            yield "max_recv_msg_size_mib must be from 1 to 2047"
        if self.max_concurrent_streams < 1:
            yield "max_concurrent_streams must be at least 1"
        if self.threads < 1:
            yield "threads must be at least 1"


class OtlpGrpcReceiver(ListeningReceiver[tuple[Any, ThreadPoolExecutor]]):
    """Listens for OTLP/gRPC and hands each message to the intake, compressed if it came so."""

    def __init__(self, config: OtlpGrpcConfig, intake: Intake) -> None:
        super().__init__(config)
        self._config = config
        self._intake = intake

    def _open(self) -> tuple[tuple[Any, ThreadPoolExecutor], int]:
        config = self._config
        # gRPC only says "failed to bind". Bound by plain sockets first, the error has a reason,
        # and port 0 becomes a number that holds for every address.
        listening = listen(config.endpoint, guarded=config.guarded)
        hosts = [sock.getsockname()[:2] for sock in listening]
        for sock in listening:
            sock.close()
        pool = ThreadPoolExecutor(config.threads, thread_name_prefix="otlp-grpc")
        server = grpc.server(
            pool,
            options=[
                ("grpc.max_receive_message_length", config.max_recv_msg_size_mib << 20),
                ("grpc.max_concurrent_streams", config.max_concurrent_streams),
                # The log keeps bodies as sent, so nothing is gained by inflating in core.
                # Not documented for Python; test_otlp_grpc.py notices if it goes.
                ("grpc.per_message_decompression", 0),
                ("grpc.compression_enabled_algorithms_bitset", _ALL_OF_GRPC),
                # On by default, with which two collectors would share a port in silence.
                ("grpc.so_reuseport", 0),
            ],
        )
        handlers = {service: self._export(signal) for service, signal in _SERVICES.items()}
        for service, handler in {**handlers, _PROFILES: _no_profiles}.items():
            export = grpc.unary_unary_rpc_method_handler(handler)
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, {"Export": export}),)
            )
        for host, port in hosts:
            place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            try:
                server.add_insecure_port(place)
            except RuntimeError as error:
                server.stop(None)
                pool.shutdown(wait=False)
                raise ConfigError([f"endpoint {place}: cannot listen: {error}"]) from None
        server.start()
        return (server, pool), hosts[0][1]

    def _close(self, running: tuple[Any, ThreadPoolExecutor], drain_timeout: float) -> None:
        server, pool = running
        server.stop(drain_timeout).wait()
        pool.shutdown(wait=False)

    def _export(self, signal: Signal) -> Callable[[bytes, Any], bytes]:
        intake = self._intake
        tokens = self._config.tokens
        if tokens is not None and not reachable(self._config.endpoint):
            tokens = None

        def export(body: bytes, context: Any) -> bytes:
            shown = dict(context.invocation_metadata())
            code, why = Code.OK, ""
            if "engram-key" in shown:
                # No page speaks gRPC; whoever does, would have more trust than the key gives.
                code, why = Code.PERMISSION_DENIED, "browser keys are taken by OTLP/HTTP alone"
            elif tokens is not None:
                code, why = sender_problem(tokens, str(shown.get("authorization", "")))
            if code:
                context.abort_with_status(rpc_status.to_status(Status(code=code, message=why)))
                raise AssertionError("unreachable: abort raises")
            encoding = _MAGIC.get(body[0], Encoding.IDENTITY) if body else Encoding.IDENTITY
            try:
                admission = intake.admit(signal, body, encoding).result()
                answer = response(signal, admission)
            except Exception as error:  # noqa: BLE001 - whatever it is, the sender gets a status
                refused = refusal(error)
                error.__traceback__ = None  # it holds the body, and may be raised again
                large = len(body) > _TRIM_ABOVE
                del body
                if large:
                    release_memory()
                context.abort_with_status(rpc_status.to_status(refused.status()))
                raise AssertionError("unreachable: abort raises") from None
            context.set_trailing_metadata((("engram-position", str(admission.position)),))
            return answer

        return export


def _no_profiles(_: bytes, context: Any) -> bytes:
    context.abort_with_status(rpc_status.to_status(NO_PROFILES.status()))
    raise AssertionError("unreachable: abort raises")
