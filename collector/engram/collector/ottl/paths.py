"""What a path means: how its value is read, set, and reached as a map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from . import values
from .errors import OttlError, RunError
from .parse import Path
from .rows import PARENTS, Row

Get = Callable[[Row], Any]
Set = Callable[[Row, Any], None]

_ALIASES: Final = {"instrumentation_scope": "scope"}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message that a path can name."""

    get: Get
    set: Set | None = None
    """None when it can only be read."""

    pairs: Get | None = None
    """Its repeated `KeyValue` when it is a map, or may be one."""

    any: Get | None = None
    """Its `AnyValue` when it is one."""


def _plain(message: Get, name: str) -> Field:
    def put(row: Row, value: Any) -> None:
        try:
            setattr(message(row), name, value)
        except (TypeError, ValueError) as error:
            raise RunError(f"{name} cannot be {value!r}: {error}") from error

    return Field(lambda row: getattr(message(row), name), put)


def _read_only(get: Get) -> Field:
    return Field(get)


def _map(message: Get, name: str) -> Field:
    def pairs(row: Row) -> Any:
        return getattr(message(row), name)

    def put(row: Row, value: Any) -> None:
        if not isinstance(value, dict):
            raise RunError(f"{name} can only be set to a map, not to {value!r}")
        values.replace(pairs(row), value)

    return Field(lambda row: values.as_dict(pairs(row)), put, pairs)


def _id(message: Get, name: str, size: int) -> dict[str, Field]:
    def put(row: Row, value: Any) -> None:
        if not isinstance(value, bytes) or len(value) not in (0, size):
            raise RunError(f"{name} must be {size} bytes, such as from its converter")
        setattr(message(row), name, value)

    return {
        name: Field(lambda row: getattr(message(row), name), put),
        f"{name}.string": _read_only(lambda row: getattr(message(row), name).hex()),
    }


def _body() -> dict[str, Field]:
    def any_(row: Row) -> Any:
        return row.log.body

    def pairs(row: Row) -> Any:
        body = row.log.body
        return body.kvlist_value.values if body.WhichOneof("value") == "kvlist_value" else None

    return {
        "body": Field(
            lambda row: values.read(row.log.body),
            lambda row, value: values.write(row.log.body, value),
            pairs,
            any_,
        ),
        "body.string": Field(
            lambda row: values.as_text(values.read(row.log.body)),
            lambda row, value: values.write(row.log.body, values.as_text(value)),
        ),
    }


_DATA: Final = ("", "gauge", "sum", "histogram", "exponential_histogram", "summary")
"""The kinds of metric by the number of `METRIC_DATA_TYPE_*`."""


def _of_data(name: str) -> Field:
    """A field of a metric's data that only some kinds have."""

    def data(row: Row) -> Any:
        kind = row.metric.WhichOneof("data")
        found = getattr(row.metric, kind) if kind else None
        return found if found is not None and name in found.DESCRIPTOR.fields_by_name else None

    def get(row: Row) -> Any:
        found = data(row)
        return None if found is None else getattr(found, name)

    def put(row: Row, value: Any) -> None:
        found = data(row)
        if found is not None:
            try:
                setattr(found, name, value)
            except (TypeError, ValueError) as error:
                raise RunError(f"{name} cannot be {value!r}: {error}") from error

    return Field(get, put)


def _of_point(name: str, only: str = "") -> Field:
    """A field that only some kinds of data point have; nil in the others."""

    def has(row: Row) -> bool:
        field = row.datapoint.DESCRIPTOR.fields_by_name.get(name)
        if field is None:
            return False
        return not only or row.datapoint.WhichOneof("value") == only

    def get(row: Row) -> Any:
        return getattr(row.datapoint, name) if has(row) else None

    def put(row: Row, value: Any) -> None:
        if name not in row.datapoint.DESCRIPTOR.fields_by_name:
            return
        try:
            setattr(row.datapoint, name, value)
        except (TypeError, ValueError) as error:
            raise RunError(f"{name} cannot be {value!r}: {error}") from error

    return Field(get, put)


def _data_type(row: Row) -> int:
    return _DATA.index(row.metric.WhichOneof("data") or "")


def _plains(message: Get, *names: str) -> dict[str, Field]:
    return {name: _plain(message, name) for name in names}


def _resource(row: Row) -> Any:
    return row.resource.resource


def _scope(row: Row) -> Any:
    return row.scope.scope


def _span(row: Row) -> Any:
    return row.span


def _event(row: Row) -> Any:
    return row.spanevent


def _log(row: Row) -> Any:
    return row.log


def _metric(row: Row) -> Any:
    return row.metric


def _point(row: Row) -> Any:
    return row.datapoint


FIELDS: Final[dict[str, dict[str, Field]]] = {
    "resource": {
        "attributes": _map(_resource, "attributes"),
        "schema_url": _plain(lambda row: row.resource, "schema_url"),
        **_plains(_resource, "dropped_attributes_count"),
    },
    "scope": {
        "attributes": _map(_scope, "attributes"),
        "schema_url": _plain(lambda row: row.scope, "schema_url"),
        **_plains(_scope, "name", "version", "dropped_attributes_count"),
    },
    "span": {
        "attributes": _map(_span, "attributes"),
        **_id(_span, "trace_id", 16),
        **_id(_span, "span_id", 8),
        **_id(_span, "parent_span_id", 8),
        **_plains(
            _span, "name", "kind", "trace_state", "flags", "start_time_unix_nano",
            "end_time_unix_nano", "dropped_attributes_count", "dropped_events_count",
            "dropped_links_count",
        ),
        "status.code": _plain(lambda row: row.span.status, "code"),
        "status.message": _plain(lambda row: row.span.status, "message"),
    },
    "spanevent": {
        "attributes": _map(_event, "attributes"),
        **_plains(_event, "name", "time_unix_nano", "dropped_attributes_count"),
        "event_index": _read_only(lambda row: row.index),
    },
    "log": {
        "attributes": _map(_log, "attributes"),
        **_body(),
        **_id(_log, "trace_id", 16),
        **_id(_log, "span_id", 8),
        **_plains(
            _log, "severity_number", "severity_text", "event_name", "flags", "time_unix_nano",
            "observed_time_unix_nano", "dropped_attributes_count",
        ),
    },
    "metric": {
        **_plains(_metric, "name", "description", "unit"),
        "type": _read_only(_data_type),
        "aggregation_temporality": _of_data("aggregation_temporality"),
        "is_monotonic": _of_data("is_monotonic"),
    },
    "datapoint": {
        "attributes": _map(_point, "attributes"),
        **_plains(_point, "flags", "start_time_unix_nano", "time_unix_nano"),
        "value_double": _of_point("as_double", "as_double"),
        "value_int": _of_point("as_int", "as_int"),
        "count": _of_point("count"),
        "sum": _of_point("sum"),
        "min": _of_point("min"),
        "max": _of_point("max"),
    },
}  # fmt: skip
"""Every path of the subset, by context."""


def context_of(path: Path) -> str | None:
    """The context that a path names by its first field; None when it names none."""
    first = _ALIASES.get(path.fields[0], path.fields[0])
    return first if first in FIELDS and len(path.fields) > 1 else None


def field_of(path: Path, context: str) -> Field:
    """What a path means in a context.

    Raises:
        OttlError: nothing, or nothing in the subset.
    """
    named = context_of(path)
    if named is not None and named not in PARENTS[context]:
        raise OttlError(path.column, f"{path} cannot be seen from the context {context}")
    where = named or context
    name = ".".join(path.fields[1:] if named else path.fields)
    field = FIELDS[where].get(name)
    if field is None:
        known = ", ".join(FIELDS[where])
        raise OttlError(path.column, f"{where} has no field {name!r} (supported: {known})")
    return field
