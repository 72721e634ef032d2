"""Lake rows back to OTLP requests: what was sent can leave again, to any other backend.

With redaction off, OTLP to lake to OTLP is the identity on records, with their resource, scope and
schema urls. Three things of a request have no record and are not kept: a resource or scope without
records, a metric without data points, and the difference between an absent and an empty resource,
scope or status. A string other than a key or a value must be UTF-8, as OTLP says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import pyarrow as pa

from engram.exporters.otlp import wire
from engram.exporters.otlp.values import fill_pairs, fill_value, parse
from engram.exporters.signals import Signal

_Row = dict[str, Any]

_RESOURCE: Final = (
    "resource",
    "resource_dropped_attributes_count",
    "resource_entity_refs",
    "resource_schema_url",
)
_SCOPE: Final = (
    "scope_name",
    "scope_version",
    "scope_attributes",
    "scope_dropped_attributes_count",
    "scope_schema_url",
)
_METRIC: Final = (
    "name",
    "description",
    "unit",
    "metadata",
    "type",
    "aggregation_temporality",
    "is_monotonic",
)


def encode(signal: Signal, rows: pa.Table) -> bytes:
    """Rows of a lake table as one serialised OTLP request, grouped by resource and scope.

    Bytes and not a message: the official classes refuse values that are invalid UTF-8.
    """
    request = wire.STRICT_REQUEST[signal]()
    add, groups = _SIGNALS[signal]
    resources: dict[Any, Any] = {}
    scopes: dict[Any, Any] = {}
    for row in rows.to_pylist():
        of_resource = tuple(row[name] for name in _RESOURCE)
        of_scope = of_resource, tuple(row[name] for name in _SCOPE)
        scope = scopes.get(of_scope)
        if scope is None:
            resource = resources.get(of_resource)
            if resource is None:
                resource = resources[of_resource] = getattr(request, groups[0]).add()
                _fill_resource(resource, row)
            scope = scopes[of_scope] = (getattr(resource, groups[1]).add(), {})
            _fill_scope(scope[0], row)
        add(*scope, row)
    raw: bytes = request.SerializeToString()
    return raw


def request(signal: Signal, rows: pa.Table) -> Any:
    """The same as the official message class.

    Raises:
        DecodeError: a key or a value is invalid UTF-8, which these classes cannot hold.
    """
    return wire.OFFICIAL_REQUEST[signal].FromString(encode(signal, rows))


def _raw(value: str | None) -> bytes:
    return value.encode() if value else b""


def _unsigned(value: int) -> int:
    """An int64 as the fixed64 with the same bits."""
    return value & ((1 << 64) - 1)


def _members(json_text: str | None) -> Iterable[tuple[str, Any]]:
    return parse(json_text) if json_text else ()


def _objects(json_text: str | None) -> list[dict[str, Any]]:
    """A JSON array of objects whose own keys are ours, so each is there once."""
    return [dict(pairs) for pairs in parse(json_text)] if json_text else []


def _fill_resource(into: Any, row: _Row) -> None:
    into.schema_url = _raw(row["resource_schema_url"])
    resource = into.resource
    fill_pairs(resource.attributes, _members(row["resource"]))
    resource.dropped_attributes_count = row["resource_dropped_attributes_count"]
    for ref in _objects(row["resource_entity_refs"]):
        resource.entity_refs.add(
            schema_url=_raw(ref["schema_url"]),
            type=_raw(ref["type"]),
            id_keys=[*map(_raw, ref["id_keys"])],
            description_keys=[*map(_raw, ref["description_keys"])],
        )


def _fill_scope(into: Any, row: _Row) -> None:
    into.schema_url = _raw(row["scope_schema_url"])
    scope = into.scope
    scope.name, scope.version = _raw(row["scope_name"]), _raw(row["scope_version"])
    fill_pairs(scope.attributes, _members(row["scope_attributes"]))
    scope.dropped_attributes_count = row["scope_dropped_attributes_count"]


def _add_span(scope: Any, _: dict[Any, Any], row: _Row) -> None:
    span = scope.spans.add(
        trace_id=bytes.fromhex(row["trace_id"]),
        span_id=bytes.fromhex(row["span_id"]),
        parent_span_id=bytes.fromhex(row["parent_span_id"] or ""),
        trace_state=_raw(row["trace_state"]),
        flags=row["flags"],
        name=_raw(row["name"]),
        kind=row["kind"],
        start_time_unix_nano=_unsigned(row["start_time_unix_nano"]),
        end_time_unix_nano=_unsigned(row["end_time_unix_nano"]),
        dropped_attributes_count=row["dropped_attributes_count"],
        dropped_events_count=row["dropped_events_count"],
        dropped_links_count=row["dropped_links_count"],
    )
    if row["status_code"] or row["status_message"]:
        span.status.code, span.status.message = row["status_code"], _raw(row["status_message"])
    fill_pairs(span.attributes, _members(row["attributes"]))
    for one in _objects(row["events"]):
        event = span.events.add(
            time_unix_nano=_unsigned(one["time_unix_nano"]),
            name=_raw(one["name"]),
            dropped_attributes_count=one["dropped_attributes_count"],
        )
        fill_pairs(event.attributes, one["attributes"])
    for one in _objects(row["links"]):
        link = span.links.add(
            trace_id=bytes.fromhex(one["trace_id"]),
            span_id=bytes.fromhex(one["span_id"]),
            trace_state=_raw(one["trace_state"]),
            flags=one["flags"],
            dropped_attributes_count=one["dropped_attributes_count"],
        )
        fill_pairs(link.attributes, one["attributes"])


def _add_log(scope: Any, _: dict[Any, Any], row: _Row) -> None:
    record = scope.log_records.add(
        time_unix_nano=_unsigned(row["time_unix_nano"]),
        observed_time_unix_nano=_unsigned(row["observed_time_unix_nano"]),
        severity_number=row["severity_number"],
        severity_text=_raw(row["severity_text"]),
        event_name=_raw(row["event_name"]),
        trace_id=bytes.fromhex(row["trace_id"] or ""),
        span_id=bytes.fromhex(row["span_id"] or ""),
        flags=row["flags"],
        dropped_attributes_count=row["dropped_attributes_count"],
    )
    if row["body"] is not None:
        record.body.SetInParent()
        fill_value(record.body, parse(row["body"]))
    fill_pairs(record.attributes, _members(row["attributes"]))


def _add_point(scope: Any, metrics: dict[Any, Any], row: _Row) -> None:
    of_metric = tuple(row[name] for name in _METRIC)
    data = metrics.get(of_metric)
    if data is None:
        data = metrics[of_metric] = _metric(scope, row)
    point = data.data_points.add(
        start_time_unix_nano=_unsigned(row["start_time_unix_nano"]),
        time_unix_nano=_unsigned(row["time_unix_nano"]),
        flags=row["flags"],
    )
    fill_pairs(point.attributes, _members(row["attributes"]))
    _POINTS[row["type"]](point, row)
    for one in _objects(row["exemplars"]):
        exemplar = point.exemplars.add(
            time_unix_nano=_unsigned(one["time_unix_nano"]),
            trace_id=bytes.fromhex(one["trace_id"]),
            span_id=bytes.fromhex(one["span_id"]),
        )
        value = one["value"]
        if isinstance(value, int):
            exemplar.as_int = value
        elif value is not None:
            exemplar.as_double = value if isinstance(value, float) else float(value[0][1])
        fill_pairs(exemplar.filtered_attributes, one["filtered_attributes"])


def _metric(scope: Any, row: _Row) -> Any:
    metric = scope.metrics.add(
        name=_raw(row["name"]), description=_raw(row["description"]), unit=_raw(row["unit"])
    )
    fill_pairs(metric.metadata, _members(row["metadata"]))
    data = getattr(metric, row["type"])
    if row["aggregation_temporality"] is not None:
        data.aggregation_temporality = row["aggregation_temporality"]
    if row["is_monotonic"] is not None:
        data.is_monotonic = row["is_monotonic"]
    return data


def _optional(point: Any, row: _Row, *names: str) -> None:
    for name in names:
        if row[name] is not None:
            setattr(point, name, row[name])


def _number(point: Any, row: _Row) -> None:
    if row["value_int"] is not None:
        point.as_int = row["value_int"]
    elif row["value_double"] is not None:
        point.as_double = row["value_double"]


def _histogram(point: Any, row: _Row) -> None:
    point.count = row["count"]
    point.bucket_counts.extend(row["bucket_counts"])
    point.explicit_bounds.extend(row["explicit_bounds"])
    _optional(point, row, "sum", "min", "max")


def _exponential(point: Any, row: _Row) -> None:
    for name in ("count", "scale", "zero_count", "zero_threshold"):
        setattr(point, name, row[name])
    _optional(point, row, "sum", "min", "max")
    for side in ("positive", "negative"):
        if row[f"{side}_offset"] is not None:
            buckets = getattr(point, side)
            buckets.SetInParent()
            buckets.offset = row[f"{side}_offset"]
            buckets.bucket_counts.extend(row[f"{side}_bucket_counts"])


def _summary(point: Any, row: _Row) -> None:
    point.count, point.sum = row["count"], row["sum"]
    for quantile, value in zip(row["quantiles"], row["quantile_values"], strict=True):
        point.quantile_values.add(quantile=quantile, value=value)


_POINTS: Final[dict[str, Callable[[Any, _Row], None]]] = {
    "gauge": _number,
    "sum": _number,
    "histogram": _histogram,
    "exponential_histogram": _exponential,
    "summary": _summary,
}
_SIGNALS: Final[dict[Signal, tuple[Callable[..., None], tuple[str, str]]]] = {
    Signal.TRACES: (_add_span, ("resource_spans", "scope_spans")),
    Signal.LOGS: (_add_log, ("resource_logs", "scope_logs")),
    Signal.METRICS: (_add_point, ("resource_metrics", "scope_metrics")),
}
__all__ = ["encode", "request"]
