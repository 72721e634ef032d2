"""Metrics to rows: one a data point."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from engram.exporters.otlp.values import ValueWriter, double_json, text
from engram.exporters.records import METRICS

_OWN: Final = METRICS.names[: METRICS.names.index("service_name")]
_WRAP: Final = 1 << 64


def signed(value: int) -> int:
    """A fixed64 as the int64 with the same bits."""
    return value - _WRAP if value >= 1 << 63 else value


def points(
    metric: Any, writer: ValueWriter
) -> Iterator[tuple[tuple[Any, ...], list[bytes], bytes]]:
    """The data points of a metric; one without any has nothing to remember.

    Each as the values of the columns before `service_name`, its raw attributes, and the bytes that
    make it this point: name, type, attributes in any order, and times.
    """
    kind = metric.WhichOneof("data")
    if kind is None:
        return
    data = getattr(metric, kind)
    shared = {
        "name": text(metric.name),
        "description": text(metric.description) or None,
        "unit": text(metric.unit) or None,
        "metadata": writer.object(metric.metadata) if metric.metadata else None,
        "type": kind,
        "aggregation_temporality": getattr(data, "aggregation_temporality", None),
        "is_monotonic": getattr(data, "is_monotonic", None),
    }
    for point in data.data_points:
        row = {
            **shared,
            "start_time_unix_nano": signed(point.start_time_unix_nano),
            "time_unix_nano": signed(point.time_unix_nano),
            "flags": point.flags,
            **_POINT[kind](point),
        }
        if getattr(point, "exemplars", None):
            found = ",".join(_exemplar(exemplar, writer) for exemplar in point.exemplars)
            row["exemplars"] = f"[{found}]"
        attributes = [pair.SerializeToString() for pair in point.attributes]
        identity = (
            metric.name,
            kind.encode(),
            b"".join(sorted(attributes)),
            point.start_time_unix_nano.to_bytes(8, "little"),
            point.time_unix_nano.to_bytes(8, "little"),
        )
        told_apart = b"".join(len(part).to_bytes(8, "little") + part for part in identity)
        yield tuple(map(row.get, _OWN)), attributes, told_apart


def _exemplar(exemplar: Any, writer: ValueWriter) -> str:
    kind = exemplar.WhichOneof("value")
    value = (
        "null"
        if kind is None
        else str(exemplar.as_int)
        if kind == "as_int"
        else double_json(exemplar.as_double)
    )
    return (
        f'{{"time_unix_nano":{signed(exemplar.time_unix_nano)},"value":{value},'
        f'"trace_id":"{exemplar.trace_id.hex()}","span_id":"{exemplar.span_id.hex()}",'
        f'"filtered_attributes":{writer.object(exemplar.filtered_attributes)}}}'
    )


def _number(point: Any) -> dict[str, Any]:
    kind = point.WhichOneof("value")
    return {
        "value_int": point.as_int if kind == "as_int" else None,
        "value_double": point.as_double if kind == "as_double" else None,
    }


def _optional(point: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(point, name) if point.HasField(name) else None for name in names}


def _histogram(point: Any) -> dict[str, Any]:
    return {
        "count": point.count,
        "bucket_counts": list(point.bucket_counts),
        "explicit_bounds": list(point.explicit_bounds),
        **_optional(point, "sum", "min", "max"),
    }


def _exponential(point: Any) -> dict[str, Any]:
    row = {
        "count": point.count,
        "scale": point.scale,
        "zero_count": point.zero_count,
        "zero_threshold": point.zero_threshold,
        **_optional(point, "sum", "min", "max"),
    }
    for side in ("positive", "negative"):
        if point.HasField(side):
            row[f"{side}_offset"] = getattr(point, side).offset
            row[f"{side}_bucket_counts"] = list(getattr(point, side).bucket_counts)
    return row


def _summary(point: Any) -> dict[str, Any]:
    return {
        "count": point.count,
        "sum": point.sum,
        "quantiles": [v.quantile for v in point.quantile_values],
        "quantile_values": [v.value for v in point.quantile_values],
    }


_POINT: Final = {
    "gauge": _number,
    "sum": _number,
    "histogram": _histogram,
    "exponential_histogram": _exponential,
    "summary": _summary,
}
