"""OTLP over gRPC: bytes in, bytes out, no message object per request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_status import rpc_status

from engram.exporters.errors import ConfigError
from engram.exporters.signals import Encoding, Intake, Signal

from .answers import response
from .endpoint import endpoint_problems, listen
from .status import refusal, release_memory

_SERVICES = {
    "opentelemetry.proto.collector.trace.v1.TraceService": Signal.TRACES,
    "opentelemetry.proto.collector.logs.v1.LogsService": Signal.LOGS,
    "opentelemetry.proto.collector.metrics.v1.MetricsService": Signal.METRICS,
}
_GZIP_MAGIC = b"\x1f\x8b"
_TRIM_ABOVE = 1 << 20
"""Refused messages above this are followed by a trim.

Four refused messages of 15 MB left 127 MB resident without it, 80 MB with it.
HTTP bodies showed no difference.
"""

_IDENTITY_AND_GZIP = 0b101
"""Bits of GRPC_COMPRESS_NONE and GRPC_COMPRESS_GZIP.

Without this, a deflate message would reach us compressed and look like bad protobuf; with it, core
answers UNIMPLEMENTED and says which encodings it takes.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpGrpcConfig:
    """Settings of the `otlp` receiver's gRPC protocol."""

    endpoint: str = "127.0.0.1:4317"
    """Where to listen; loopback only. Port 0 lets the system choose."""

    max_recv_msg_size_mib: int = 4
    """Refuse messages that are larger as sent. The limit on inflated bytes is the intake's."""

    max_concurrent_streams: int = 64
    """Requests of one connection that may be in flight; HTTP/2 makes the sender wait with more."""

    threads: int = 16
    """Requests that are checked or wait for the disk at the same time; more share one fdatasync."""

    def problems(self) -> Iterator[str]:
        """What is wrong with these settings."""
        yield from endpoint_problems(self.endpoint)
        if not 1 <= self.max_recv_msg_size_mib <= 2047:
            yield "max_recv_msg_size_mib must be from 1 to 2047"
        if self.max_concurrent_streams < 1:
            yield "max_concurrent_streams must be at least 1"
        if self.threads < 1:
            yield "threads must be at least 1"


class OtlpGrpcReceiver:
    """Listens for OTLP/gRPC and hands each message to the intake, gzipped if it came so.

    Contract of `start` and `shutdown`: see the package.
    """

    def __init__(self, config: OtlpGrpcConfig, intake: Intake) -> None:
        self._config = config
        self._intake = intake
        self._lock = threading.Lock()
        self._server: Any = None
        self._pool: ThreadPoolExecutor | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The port that is bound (also when the endpoint says 0); 0 before `start`."""
        return self._port

    def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the settings are wrong or the port is taken.
        """
        config = self._config
        if problems := list(config.problems()):
            raise ConfigError(problems)
        with self._lock:
            if self._server is not None:
                return
            pool = ThreadPoolExecutor(config.threads, thread_name_prefix="otlp-grpc")
            server = grpc.server(
                pool,
                options=[
                    ("grpc.max_receive_message_length", config.max_recv_msg_size_mib << 20),
                    ("grpc.max_concurrent_streams", config.max_concurrent_streams),
                    # The log keeps bodies as sent, so nothing is gained by inflating in core.
                    # Not documented for Python; test_otlp_grpc.py notices if it goes.
                    ("grpc.per_message_decompression", 0),
                    ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_AND_GZIP),
                    # On by default, with which two collectors would share a port in silence.
                    ("grpc.so_reuseport", 0),
                ],
            )
            for service, signal in _SERVICES.items():
                export = grpc.unary_unary_rpc_method_handler(self._export(signal))
                server.add_generic_rpc_handlers(
                    (grpc.method_handlers_generic_handler(service, {"Export": export}),)
                )
            # gRPC only says "failed to bind". Bound by plain sockets first, the error has a reason,
            # and port 0 becomes a number that holds for every address.
            listening = listen(config.endpoint)
            hosts = [sock.getsockname()[:2] for sock in listening]
            for sock in listening:
                sock.close()
            for host, port in hosts:
                place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                try:
                    server.add_insecure_port(place)
                except RuntimeError as error:
                    server.stop(None)
                    raise ConfigError([f"endpoint {place}: cannot listen: {error}"]) from None
            server.start()
            self._server, self._pool, self._port = server, pool, hosts[0][1]

    def shutdown(self, drain_timeout: float = 5.0) -> None:
        """Take no more requests and wait for those under way, at most `drain_timeout` seconds."""
        with self._lock:
            server, self._server = self._server, None
            pool, self._pool = self._pool, None
        if server is not None:
            server.stop(drain_timeout).wait()
        if pool is not None:
            pool.shutdown(wait=False)

    def _export(self, signal: Signal) -> Callable[[bytes, Any], bytes]:
        intake = self._intake

        def export(body: bytes, context: Any) -> bytes:
            # 1f is no protobuf tag (wire type 7), so the magic cannot be a message.
            encoding = Encoding.GZIP if body.startswith(_GZIP_MAGIC) else Encoding.IDENTITY
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
