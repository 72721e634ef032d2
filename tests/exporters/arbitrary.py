"""Arbitrary OTLP, by walking the official descriptors: a new field is covered by itself."""

from __future__ import annotations

import math
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

from engram.exporters.otlp.wire import OFFICIAL_REQUEST, STRICT_REQUEST
from engram.exporters.signals import Signal

_F = FieldDescriptor
_FREE_TEXT = frozenset({"KeyValue.key", "AnyValue.string_value"})
"""Strings that need not be UTF-8."""

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).map(str.encode)
_raw_texts = (
    _texts
    | st.binary(max_size=4)
    | st.sampled_from(
        [b"$bytes", b"$$x", b"$strindex/1/", b"$unset", b"\xff\xfe", b"a" * 200, b'\x00"\\']
    )
)
_doubles = st.floats() | st.sampled_from(
    [-0.0, 0.0, 1e300, 5e-324, math.nan, math.inf, -math.inf, 3.0]
)
_ints: dict[int, tuple[int, int]] = {
    _F.TYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    _F.TYPE_SINT32: (-(1 << 31), (1 << 31) - 1),
    _F.TYPE_UINT32: (0, (1 << 32) - 1),
    _F.TYPE_FIXED32: (0, (1 << 32) - 1),
    _F.TYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    _F.TYPE_SFIXED64: (-(1 << 63), (1 << 63) - 1),
    _F.TYPE_UINT64: (0, (1 << 64) - 1),
    _F.TYPE_FIXED64: (0, (1 << 64) - 1),
}


def scalar(field: Any) -> st.SearchStrategy[Any]:
    """Values of one field that is no message; strings as bytes."""
    place = f"{field.containing_type.name}.{field.name}"
    if place in ("Span.trace_id", "Span.span_id"):
        size = 16 if field.name == "trace_id" else 8
        return st.binary(min_size=size, max_size=size).filter(any)
    if field.type == _F.TYPE_STRING:
        return _raw_texts if place in _FREE_TEXT else _texts
    if field.type == _F.TYPE_BYTES:
        return st.binary(max_size=9) | st.binary(min_size=16, max_size=16)
    if field.type == _F.TYPE_BOOL:
        return st.booleans()
    if field.type == _F.TYPE_DOUBLE:
        return _doubles
    if field.type == _F.TYPE_ENUM:
        return st.sampled_from([v.number for v in field.enum_type.values]) | st.integers(-9, 99)
    low, high = _ints[field.type]
    return st.integers(low, high) | st.integers(0, min(high, 300))


@st.composite
def fields(draw: st.DrawFn, descriptor: Descriptor, depth: int = 0) -> dict[str, Any]:
    """A message as a dict: any subset of its fields, at most one of each oneof."""
    must = _ALWAYS.get(descriptor.name, ())
    chosen = [field for field in descriptor.fields if field.containing_oneof is None]
    wanted = draw(st.integers(0, (1 << len(chosen)) - 1))
    chosen = [f for i, f in enumerate(chosen) if wanted >> i & 1 or f.name in must]
    for oneof in descriptor.oneofs:
        chosen += draw(st.sampled_from([[], *([field] for field in oneof.fields)]))
    made: dict[str, Any] = {}
    for field in chosen:
        if field.message_type is None:
            one = scalar(field)
        elif depth > 8:
            continue
        else:
            one = fields(field.message_type, depth + 1)
        least = int(field.name in must)
        many = st.lists(one, min_size=least, max_size=2)
        made[field.name] = draw(many if field.is_repeated else one)
    return made


_ALWAYS = {
    "ExportTraceServiceRequest": ("resource_spans",),
    "ExportLogsServiceRequest": ("resource_logs",),
    "ExportMetricsServiceRequest": ("resource_metrics",),
    "ResourceSpans": ("scope_spans",), "ResourceLogs": ("scope_logs",),
    "ResourceMetrics": ("scope_metrics",), "ScopeSpans": ("spans",),
    "ScopeLogs": ("log_records",), "ScopeMetrics": ("metrics",),
    "Span": ("trace_id", "span_id"), "Gauge": ("data_points",), "Sum": ("data_points",),
    "Histogram": ("data_points",), "ExponentialHistogram": ("data_points",),
    "Summary": ("data_points",),
}  # fmt: skip


def fill(message: Any, values: dict[str, Any]) -> Any:
    """Write a dict of `fields` into a message."""
    for name, value in values.items():
        if isinstance(value, dict):
            getattr(message, name).SetInParent()
            fill(getattr(message, name), value)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, dict):
                    fill(getattr(message, name).add(), item)
                else:
                    getattr(message, name).append(item)
        else:
            setattr(message, name, value)
    return message


def bodies(signal: Signal) -> st.SearchStrategy[bytes]:
    """Serialised requests of a signal."""
    return fields(OFFICIAL_REQUEST[signal].DESCRIPTOR).map(
        lambda values: fill(STRICT_REQUEST[signal](), values).SerializeToString()
    )


def normal(message: Any) -> Any:
    """A message as comparable Python values; NaN is equal to itself, and -0.0 is not 0.0."""
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is None:
            found[field.name] = repr(list(value)) if field.is_repeated else repr(value)
        elif field.is_repeated:
            found[field.name] = [normal(item) for item in value]
        else:
            found[field.name] = normal(value)
    if found.get("status") == {}:
        del found["status"]
    return found


_LEVELS = {
    Signal.TRACES: ("resource_spans", "scope_spans", "spans"),
    Signal.LOGS: ("resource_logs", "scope_logs", "log_records"),
    Signal.METRICS: ("resource_metrics", "scope_metrics", "metrics"),
}


def records(signal: Signal, body: bytes) -> list[str]:
    """Every record of a request with its resource, its scope and their urls, in a fixed order."""
    found: list[Any] = []
    resources, scopes, items = _LEVELS[signal]
    for resource in getattr(STRICT_REQUEST[signal].FromString(body), resources):
        for scope in getattr(resource, scopes):
            context = [normal(resource.resource), resource.schema_url]
            context += [normal(scope.scope), scope.schema_url]
            for item in getattr(scope, items):
                if signal is Signal.METRICS:
                    found += [[*context, *point] for point in _points(item)]
                else:
                    found.append([*context, normal(item)])
    return sorted(map(_stable, found))


def _points(metric: Any) -> list[Any]:
    kind = metric.WhichOneof("data")
    if kind is None:
        return []
    data = getattr(metric, kind)
    of_metric = {k: v for k, v in normal(metric).items() if k != kind}
    of_data = {k: v for k, v in normal(data).items() if k != "data_points"}
    return [[of_metric, kind, of_data, normal(point)] for point in data.data_points]


def _stable(value: Any) -> str:
    """Text with sorted keys."""
    if isinstance(value, dict):
        return f"{{{','.join(f'{k}:{_stable(v)}' for k, v in sorted(value.items()))}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_stable, value))}]"
    return repr(value)
