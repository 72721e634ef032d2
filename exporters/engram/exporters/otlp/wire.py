"""Wire-compatible views of OTLP, made at import from the official descriptors.

`STRICT` mirrors every message with strings as bytes: parsing it checks the whole structure, without
refusing a sender for invalid UTF-8. `LITE` leaves repeated parts as raw slices, so that parsing a
request builds nothing per attribute (research: attributes are three quarters of a decoder's time).
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from engram.exporters.signals import Signal

_F = descriptor_pb2.FieldDescriptorProto
_RAW_FIELDS: Final = frozenset(
    [
        "attributes",
        "events",
        "links",
        "body",
        "status",
        "resource",
        "scope",
        "spans",
        "log_records",
        "metrics",
    ]
)
_SERVICES: Final = {
    Signal.TRACES: (trace_service_pb2, "trace.v1.ExportTraceServiceRequest"),
    Signal.LOGS: (logs_service_pb2, "logs.v1.ExportLogsServiceRequest"),
    Signal.METRICS: (metrics_service_pb2, "metrics.v1.ExportMetricsServiceRequest"),
}


def _mirror(prefix: str, raw: frozenset[str]) -> Any:
    """A pool with every OTLP message under `prefix.`; strings and the `raw` fields become bytes."""
    pool = descriptor_pool.DescriptorPool()
    done: set[str] = set()

    def add(file: Any) -> None:
        if file.name in done:
            return
        done.add(file.name)
        for dependency in file.dependencies:
            add(dependency)
        proto = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(proto)
        proto.name = f"{prefix}/{proto.name}"
        proto.package = f"{prefix}.{proto.package}"
        for i, name in enumerate(proto.dependency):
            proto.dependency[i] = f"{prefix}/{name}"
        del proto.service[:]
        proto.ClearField("options")
        for message in proto.message_type:
            rewrite(message)
        pool.AddSerializedFile(proto.SerializeToString())

    def rewrite(message: Any) -> None:
        for nested in message.nested_type:
            rewrite(nested)
        for field in message.field:
            if field.type == _F.TYPE_STRING or (
                field.type == _F.TYPE_MESSAGE and field.name in raw
            ):
                if field.name == "body":  # an empty body is not the same as none
                    field.proto3_optional = True
                    field.oneof_index = len(message.oneof_decl)
                    message.oneof_decl.add(name="_body")
                field.type = _F.TYPE_BYTES
                field.ClearField("type_name")
            elif field.type_name:
                field.type_name = f".{prefix}{field.type_name}"

    for module, _ in _SERVICES.values():
        add(module.DESCRIPTOR)

    def get(name: str) -> Any:
        full = f"{prefix}.opentelemetry.proto.{name}"
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(full))

    return get


_strict = _mirror("strict", frozenset())
_lite = _mirror("lite", _RAW_FIELDS)

STRICT_REQUEST: Final[dict[Signal, Any]] = {
    signal: _strict(f"collector.{name}") for signal, (_, name) in _SERVICES.items()
}
OFFICIAL_REQUEST: Final[dict[Signal, Any]] = {
    signal: getattr(module, name.rpartition(".")[2]) for signal, (module, name) in _SERVICES.items()
}
LITE_REQUEST: Final[dict[Signal, Any]] = {
    signal: _lite(f"collector.{name}") for signal, (_, name) in _SERVICES.items()
}
LiteSpan: Final[Any] = _lite("trace.v1.Span")
LiteEvent: Final[Any] = _lite("trace.v1.Span.Event")
LiteLogRecord: Final[Any] = _lite("logs.v1.LogRecord")
LiteResource: Final[Any] = _lite("resource.v1.Resource")
LiteScope: Final[Any] = _lite("common.v1.InstrumentationScope")
KeyValue: Final[Any] = _strict("common.v1.KeyValue")
AnyValue: Final[Any] = _strict("common.v1.AnyValue")
Status: Final[Any] = _strict("trace.v1.Status")
Link: Final[Any] = _strict("trace.v1.Span.Link")
Metric: Final[Any] = _strict("metrics.v1.Metric")
EntityRef: Final[Any] = _strict("common.v1.EntityRef")
