"""The ways in: OTLP over HTTP and OTLP over gRPC, each handing bytes to an `Intake`.

A receiver checks the transport (path, type, encoding, size), never the telemetry.
Constructing does no I/O. `start()` listens.
`shutdown()` drains, is safe twice and without `start()`; afterwards `start()` may come again.
"""

from .otlp_grpc import OtlpGrpcConfig, OtlpGrpcReceiver
from .otlp_http import OtlpHttpConfig, OtlpHttpReceiver

__all__ = ["OtlpGrpcConfig", "OtlpGrpcReceiver", "OtlpHttpConfig", "OtlpHttpReceiver"]
