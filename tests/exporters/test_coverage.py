"""Every field of OTLP reaches a column: a field that nobody stores fails here by its name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from engram.exporters.otlp.decode import Decoder
from engram.exporters.otlp.values import NoRedaction
from engram.exporters.otlp.wire import OFFICIAL_REQUEST, STRICT_REQUEST
from engram.exporters.signals import Signal

_EXCEPTIONS: dict[str, str] = {}
"""Fields that are knowingly not stored, each with its reason."""

_RECORD = {
    Signal.TRACES: ("resource_spans", "scope_spans", "spans"),
    Signal.LOGS: ("resource_logs", "scope_logs", "log_records"),
    Signal.METRICS: ("resource_metrics", "scope_metrics", "metrics"),
}
_KINDS = ("gauge", "sum", "histogram", "exponential_histogram", "summary")

_Path = tuple[FieldDescriptor, ...]


def _leaves(descriptor: Descriptor, path: _Path = ()) -> Iterator[_Path]:
    """Paths to all fields that hold a value, entering each recursive message once."""
    for field in descriptor.fields:
        inside = field.message_type
        if inside is None or any(f.message_type == inside for f in path):
            yield (*path, field)
        else:
            yield from _leaves(inside, (*path, field))


def _cases() -> Iterator[Any]:
    for signal in Signal:
        for path in _leaves(OFFICIAL_REQUEST[signal].DESCRIPTOR):
            name = ".".join(field.name for field in path)
            yield pytest.param(signal, path, id=name)


def _value(field: FieldDescriptor) -> Any:
    if field.name == "trace_id":
        return bytes(range(1, 17))
    if field.type in (field.TYPE_STRING, field.TYPE_BYTES):
        return b"12345678"
    return True if field.type == field.TYPE_BOOL else 1


def _row(signal: Signal, path: _Path, *, filled: bool) -> dict[str, Any]:
    """The row of a request that holds one record, what `path` goes through, and its last field."""
    names = [field.name for field in path]
    request = STRICT_REQUEST[signal]()
    at = request
    for name in _RECORD[signal]:
        at = getattr(at, name).add()
    if signal is Signal.TRACES:
        at.trace_id, at.span_id = b"t" * 16, b"s" * 8
    elif signal is Signal.METRICS:
        getattr(at, next((k for k in _KINDS if k in names), "gauge")).data_points.add()
    at = request
    for field in path[:-1]:
        inside = getattr(at, field.name)
        if field.is_repeated:
            at = inside[0] if len(inside) else inside.add()
        else:
            inside.SetInParent()
            at = inside
    if filled:
        _set(at, path[-1])
    decoder = Decoder(NoRedaction())
    assert decoder.add(signal, request.SerializeToString()) == 1
    found = decoder.finish()
    table = {Signal.TRACES: found.spans, Signal.LOGS: found.logs}.get(signal, found.metrics)
    row: dict[str, Any] = table.drop_columns("content_hash").to_pylist()[0]
    return row


def _set(message: Any, field: FieldDescriptor) -> None:
    if field.message_type is not None:
        inside = getattr(message, field.name)
        _ = inside.add() if field.is_repeated else inside.SetInParent()
    elif field.is_repeated:
        getattr(message, field.name).append(_value(field))
    else:
        setattr(message, field.name, _value(field))


@pytest.mark.parametrize(("signal", "path"), list(_cases()))
def test_a_field_reaches_a_column(signal: Signal, path: _Path) -> None:
    """A request in which one field is set gives another row than one in which it is not."""
    name = path[-1].full_name
    stored = _row(signal, path, filled=True) != _row(signal, path, filled=False)
    assert stored is (name not in _EXCEPTIONS), f"no column holds {name}"


def test_the_walk_reaches_every_message() -> None:
    """No message of the OTLP records is left out of the walk."""
    seen = {
        field.full_name.rpartition(".")[0]
        for signal in Signal
        for path in _leaves(OFFICIAL_REQUEST[signal].DESCRIPTOR)
        for field in path
    }
    defined = {
        f"{file.package}.{message}"
        for signal in Signal
        for file in _files(OFFICIAL_REQUEST[signal].DESCRIPTOR.file)
        if "collector" not in file.package
        for message in _messages(file.message_types_by_name.values())
    }
    # The *Data messages are what files hold; they have the same fields as the requests.
    unreached = {name.rpartition("proto.")[2] for name in defined - seen}
    assert unreached == {"trace.v1.TracesData", "logs.v1.LogsData", "metrics.v1.MetricsData"}


def _files(file: Any) -> Iterator[Any]:
    yield file
    for other in file.dependencies:
        yield from _files(other)


def _messages(messages: Any, outer: str = "") -> Iterator[str]:
    for message in messages:
        yield f"{outer}{message.name}"
        yield from _messages(message.nested_types, f"{outer}{message.name}.")
