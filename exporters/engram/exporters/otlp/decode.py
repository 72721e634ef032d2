"""OTLP requests to Arrow columns, many requests a batch.

A record becomes one tuple, and its attributes become numbers (see `attributes.py`).
Everything else is done by column when the batch is finished.
Redaction happens where a value is first turned into text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from json.encoder import encode_basestring
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.message import DecodeError

from engram.exporters.otlp import wire
from engram.exporters.otlp.attributes import Attributes
from engram.exporters.otlp.check import good_ids
from engram.exporters.otlp.values import Redact, ValueWriter, double_json, text
from engram.exporters.records import (
    CONTEXT_COLUMNS,
    INGEST,
    INTEGER_PROMOTED,
    LOG_PROMOTED,
    LOGS,
    METRICS,
    PROMOTED,
    SPANS,
)
from engram.exporters.signals import Signal

_CONTEXTS: Final = 1000
_WRAP: Final = 1 << 64
_TIMES: Final = frozenset({"start_time_unix_nano", "end_time_unix_nano", "time_unix_nano",
                           "observed_time_unix_nano"})  # fmt: skip
_IDS: Final = frozenset({"trace_id", "span_id", "parent_span_id"})
_BYTES: Final = frozenset({"trace_state", "severity_text", "event_name", "description", "unit"})
"""Strings that stay bytes until their column is made, null when empty."""


def _signed(value: int) -> int:
    """A fixed64 as the int64 with the same bits."""
    return value - _WRAP if value >= 1 << 63 else value


def _or_none(raw: bytes) -> str | None:
    return text(raw) if raw else None


@dataclass(slots=True)
class Records:
    """One batch of decoded records: lake tables, and frames for the rules."""

    spans: pa.Table
    logs: pa.Table
    metrics: pa.Table
    span_frame: pl.DataFrame
    event_frame: pl.DataFrame
    log_frame: pl.DataFrame

    def __len__(self) -> int:
        return int(self.spans.num_rows + self.logs.num_rows + self.metrics.num_rows)


@dataclass(slots=True)
class _Event:
    """A span event; the last two are made with the batch."""

    row: int
    time: int
    name: str
    numbers: list[int]
    dropped: int
    attributes: str = ""
    wanted: dict[str, str] = field(default_factory=dict)


class _Table:
    """Rows of one signal: a tuple of its own columns, then of hash, context and attributes' end."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.own = schema.names[: schema.names.index("service_name")]
        self.names = [*self.own, "hash", "context", "end"]
        self.rows: list[tuple[Any, ...]] = []
        self.attributes: list[int] = []

    def __len__(self) -> int:
        return len(self.rows)

    def truncate(self, rows: int, attributes: int) -> None:
        del self.rows[rows:]
        del self.attributes[attributes:]

    def hashes(self) -> Any:
        return np.frombuffer(b"".join([row[-3] for row in self.rows]), np.uint64)


class Decoder:
    """Collects requests (`add`) and hands out one batch of columns (`finish`).

    A request that cannot be decoded raises and leaves the batch as it was. Not thread-safe.
    """

    def __init__(
        self,
        redact: Redact,
        wanted: frozenset[str] = frozenset(),
        resource_wanted: frozenset[str] = frozenset(),
    ) -> None:
        self._redact = redact
        self._writer = ValueWriter(redact)
        promoted = {key for keys in (*PROMOTED.values(), *LOG_PROMOTED.values()) for key in keys}
        self._keys = sorted(wanted | promoted)
        self._resource_wanted = resource_wanted
        slot_of = {key: i for i, key in enumerate(self._keys)}
        self._attributes = Attributes(redact, slot_of)
        self._context_memo: dict[tuple[bytes, bytes, bytes, bytes], tuple[Any, ...]] = {}
        self._reset()

    def _reset(self) -> None:
        self._attributes.reset()
        self._spans = _Table(SPANS)
        self._logs = _Table(LOGS)
        self._metrics = _Table(METRICS)
        self._events: list[_Event] = []
        self._contexts: list[tuple[Any, ...]] = []
        self._context_index: dict[tuple[bytes, bytes, bytes, bytes], int] = {}

    def __len__(self) -> int:
        return len(self._spans) + len(self._logs) + len(self._metrics)

    def clear(self) -> None:
        """Drop the batch."""
        self._reset()

    def add(self, signal: Signal, body: bytes) -> int:
        """Decode one inflated request into the batch; returns the number of records.

        Raises:
            DecodeError: the bytes are no such request (the check before the ack lets none through).
        """
        tables = (self._spans, self._logs, self._metrics)
        before = [(len(table), len(table.attributes)) for table in tables]
        events = len(self._events)
        total = len(self)
        try:
            if signal is Signal.TRACES:
                self._add_traces(body)
            elif signal is Signal.LOGS:
                self._add_logs(body)
            else:
                self._add_metrics(body)
        except BaseException:
            for table, (rows, attributes) in zip(tables, before, strict=True):
                table.truncate(rows, attributes)
            del self._events[events:]
            raise
        return len(self) - total

    # ------------------------------------------------------------------ shared parts

    def _context(self, resource: bytes, resource_url: bytes, scope: bytes, scope_url: bytes) -> int:
        key = (resource, resource_url, scope, scope_url)
        index = self._context_index.get(key)
        if index is None:
            known = self._context_memo.get(key)
            if known is None:
                if len(self._context_memo) >= _CONTEXTS:
                    self._context_memo.clear()
                known = self._context_memo[key] = self._build_context(*key)
            index = self._context_index[key] = len(self._contexts)
            self._contexts.append(known)
        return index

    def _build_context(
        self, resource: bytes, resource_url: bytes, scope: bytes, scope_url: bytes
    ) -> tuple[Any, ...]:
        """The values of CONTEXT_COLUMNS, then the wanted resource attributes as a dict."""
        res = wire.LiteResource.FromString(resource)
        sc = wire.LiteScope.FromString(scope)
        wanted: dict[str, str] = {}
        service = None
        members = []
        for raw in res.attributes:
            pair = wire.KeyValue.FromString(raw)
            key, value, plain = self._writer.member(pair)
            members.append(f"{key}:{value}")
            if plain is None or pair.key_strindex:
                continue
            if pair.key == b"service.name":
                service = plain
            if text(pair.key) in self._resource_wanted:
                wanted[text(pair.key)] = plain
        refs = [
            json.dumps(
                {
                    "schema_url": text(ref.schema_url),
                    "type": text(ref.type),
                    "id_keys": [*map(text, ref.id_keys)],
                    "description_keys": [*map(text, ref.description_keys)],
                },
                ensure_ascii=False,
                separators=(",", ":"),
            )
            for ref in res.entity_refs
        ]
        return (
            service,
            f"{{{','.join(members)}}}",
            res.dropped_attributes_count,
            f"[{','.join(refs)}]" if refs else None,
            _or_none(resource_url),
            _or_none(sc.name),
            _or_none(sc.version),
            self._attributes.object(sc.attributes) if sc.attributes else None,
            sc.dropped_attributes_count,
            _or_none(scope_url),
            wanted,
        )

    # ------------------------------------------------------------------ traces

    def _add_traces(self, body: bytes) -> None:
        request = wire.LITE_REQUEST[Signal.TRACES].FromString(body)
        table, attributes = self._spans, self._spans.attributes
        rows, attribute = table.rows, self._attributes.__getitem__
        parse, plain = wire.LiteSpan.FromString, self._redact.text
        name_memo: dict[bytes, str] = {}
        status_memo: dict[bytes, tuple[int, str | None]] = {b"": (0, None)}
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                if not scope.spans:
                    continue
                context = self._context(
                    resource.resource, resource.schema_url, scope.scope, scope.schema_url
                )
                origin = _origin(resource.resource, scope.scope)
                for raw in scope.spans:
                    span = parse(raw)
                    trace_id, span_id = span.trace_id, span.span_id
                    if not good_ids(trace_id, span_id):
                        continue
                    attributes.extend(map(attribute, span.attributes))
                    raw_name = span.name
                    name = name_memo.get(raw_name)
                    if name is None:
                        name = name_memo[raw_name] = plain(text(raw_name))
                    raw_status = span.status
                    status = status_memo.get(raw_status)
                    if status is None:
                        status = status_memo[raw_status] = self._status(raw_status)
                    events, links = span.events, span.links
                    if events:
                        self._add_events(len(rows), events)
                    rows.append(
                        (
                            trace_id,
                            span_id,
                            span.parent_span_id,
                            span.trace_state,
                            span.flags,
                            name,
                            span.kind,
                            span.start_time_unix_nano,
                            span.end_time_unix_nano,
                            *status,
                            None,
                            span.dropped_attributes_count,
                            None,
                            span.dropped_events_count,
                            self._links(links) if links else None,
                            span.dropped_links_count,
                            blake2b(raw, digest_size=8, person=origin).digest(),
                            context,
                            len(attributes),
                        )
                    )

    def _status(self, raw: bytes) -> tuple[int, str | None]:
        status = wire.Status.FromString(raw)
        return status.code, self._redact.text(text(status.message)) if status.message else None

    def _add_events(self, row: int, raw_events: Iterable[bytes]) -> None:
        """Collect a span's events; their text is made when the batch is, after redaction."""
        for raw in raw_events:
            event = wire.LiteEvent.FromString(raw)
            self._events.append(
                _Event(
                    row,
                    _signed(event.time_unix_nano),
                    self._redact.text(text(event.name)),
                    [self._attributes[pair] for pair in event.attributes],
                    event.dropped_attributes_count,
                )
            )

    def _finish_events(self) -> dict[int, str]:
        """Make the text of all events; the JSON array of each span that has some, by row."""
        spans: dict[int, list[str]] = {}
        for event in self._events:
            members = [self._attributes.known(number) for number in event.numbers]
            event.wanted = {self._keys[slot]: plain for _, slot, plain in members if slot >= 0}
            event.attributes = f"{{{','.join([member[0] for member in members])}}}"
            spans.setdefault(event.row, []).append(
                f'{{"time_unix_nano":{event.time},"name":{encode_basestring(event.name)},'
                f'"attributes":{event.attributes},"dropped_attributes_count":{event.dropped}}}'
            )
        return {row: f"[{','.join(parts)}]" for row, parts in spans.items()}

    def _links(self, raw_links: Iterable[bytes]) -> str:
        parts = []
        for raw in raw_links:
            link = wire.Link.FromString(raw)
            parts.append(
                f'{{"trace_id":"{link.trace_id.hex()}","span_id":"{link.span_id.hex()}",'
                f'"trace_state":{encode_basestring(text(link.trace_state))},"flags":{link.flags},'
                f'"attributes":{self._writer.object(link.attributes)},'
                f'"dropped_attributes_count":{link.dropped_attributes_count}}}'
            )
        return f"[{','.join(parts)}]"

    # ------------------------------------------------------------------ logs

    def _add_logs(self, body: bytes) -> None:
        request = wire.LITE_REQUEST[Signal.LOGS].FromString(body)
        table, attributes = self._logs, self._logs.attributes
        rows, attribute = table.rows, self._attributes.__getitem__
        seen: dict[bytes, int] = {}
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                if not scope.log_records:
                    continue
                context = self._context(
                    resource.resource, resource.schema_url, scope.scope, scope.schema_url
                )
                base = _base(resource.resource, scope.scope)
                for raw in scope.log_records:
                    record = wire.LiteLogRecord.FromString(raw)
                    attributes.extend(map(attribute, record.attributes))
                    rows.append(
                        (
                            record.time_unix_nano,
                            record.observed_time_unix_nano,
                            record.severity_number,
                            record.severity_text,
                            record.event_name,
                            self._body(record.body) if record.HasField("body") else None,
                            record.trace_id,
                            record.span_id,
                            record.flags,
                            None,
                            record.dropped_attributes_count,
                            _numbered(base, raw, seen),
                            context,
                            len(attributes),
                        )
                    )

    def _body(self, raw: bytes) -> str:
        return self._writer.value(wire.AnyValue.FromString(raw))

    # ------------------------------------------------------------------ metrics

    def _add_metrics(self, body: bytes) -> None:
        request = wire.LITE_REQUEST[Signal.METRICS].FromString(body)
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                if not scope.metrics:
                    continue
                context = self._context(
                    resource.resource, resource.schema_url, scope.scope, scope.schema_url
                )
                base = _base(resource.resource, scope.scope)
                for raw in scope.metrics:
                    self._add_metric(wire.Metric.FromString(raw), context, base)

    def _add_metric(self, metric: Any, context: int, base: Any) -> None:
        """One row a data point. A metric without any has nothing to remember."""
        kind = metric.WhichOneof("data")
        if kind is None:
            return
        data = getattr(metric, kind)
        shared = {
            "name": text(metric.name),
            "description": metric.description,
            "unit": metric.unit,
            "metadata": self._writer.object(metric.metadata) if metric.metadata else None,
            "type": kind,
            "aggregation_temporality": getattr(data, "aggregation_temporality", None),
            "is_monotonic": getattr(data, "is_monotonic", None),
        }
        table, attributes = self._metrics, self._metrics.attributes
        for point in data.data_points:
            row = {
                **shared,
                "start_time_unix_nano": point.start_time_unix_nano,
                "time_unix_nano": point.time_unix_nano,
                "flags": point.flags,
                **_POINT[kind](point),
            }
            if getattr(point, "exemplars", None):
                row["exemplars"] = f"[{','.join(map(self._exemplar, point.exemplars))}]"
            raw_attributes = [pair.SerializeToString() for pair in point.attributes]
            attributes.extend(map(self._attributes.__getitem__, raw_attributes))
            digest = base.copy()
            for part in (
                metric.name,
                kind.encode(),
                b"".join(sorted(raw_attributes)),
                point.start_time_unix_nano.to_bytes(8, "little"),
                point.time_unix_nano.to_bytes(8, "little"),
            ):
                digest.update(len(part).to_bytes(8, "little") + part)
            own = map(row.get, table.own)
            table.rows.append((*own, digest.digest(), context, len(attributes)))

    def _exemplar(self, exemplar: Any) -> str:
        kind = exemplar.WhichOneof("value")
        value = (
            "null"
            if kind is None
            else str(exemplar.as_int)
            if kind == "as_int"
            else double_json(exemplar.as_double)
        )
        return (
            f'{{"time_unix_nano":{_signed(exemplar.time_unix_nano)},"value":{value},'
            f'"trace_id":"{exemplar.trace_id.hex()}","span_id":"{exemplar.span_id.hex()}",'
            f'"filtered_attributes":{self._writer.object(exemplar.filtered_attributes)}}}'
        )

    # ------------------------------------------------------------------ the batch

    def hashes(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Content hashes of spans, logs and metrics collected so far, as uint64."""
        return self._spans.hashes(), self._logs.hashes(), self._metrics.hashes()

    def finish(self, keep: tuple[Any, Any, Any] | None = None) -> Records:
        """The batch as columns, without the rows that `keep` (boolean masks or None) leaves out."""
        keeps = keep or (None, None, None)
        self._attributes.settle()
        spans, span_attrs, span_resource = self._finish(
            self._spans, PROMOTED, self._finish_events()
        )
        logs, log_attrs, log_resource = self._finish(self._logs, LOG_PROMOTED)
        metrics, _, _ = self._finish(self._metrics, {})
        span_frame = _frame(spans, _SPAN_RULES, span_attrs, span_resource)
        event_frame = self._event_frame(span_frame)
        if event_frame.height:
            own = self._own_exceptions(span_frame.height)
            span_frame = span_frame.with_columns(own_exception=own)
        log_frame = _frame(logs, _LOG_RULES, log_attrs, log_resource)
        if log_frame.height:
            log_frame = log_frame.with_columns(body_text=_body_text(log_frame["body"]))
        if keeps[0] is not None:
            event_frame = event_frame.filter(
                pl.Series(keeps[0])[event_frame["row"]] if event_frame.height else []
            )
            span_frame = span_frame.filter(pl.Series(keeps[0]))
            spans = spans.filter(pa.array(keeps[0]))
        if keeps[1] is not None:
            log_frame = log_frame.filter(pl.Series(keeps[1]))
            logs = logs.filter(pa.array(keeps[1]))
        if keeps[2] is not None:
            metrics = metrics.filter(pa.array(keeps[2]))
        self._reset()
        return Records(
            spans, logs, metrics, span_frame, event_frame.drop("row", strict=False), log_frame
        )

    def _own_exceptions(self, length: int) -> pl.Series:
        """Which spans carry an exception event: those tell of their failure themselves."""
        column: list[str | None] = [None] * length
        for event in self._events:
            if event.name == "exception" or "exception.type" in event.wanted:
                column[event.row] = event.wanted.get("exception.type", "exception")
        return pl.Series(column, dtype=pl.String)

    def _finish(
        self,
        table: _Table,
        promoted: dict[str, tuple[str, ...]],
        events: dict[int, str] | None = None,
    ) -> tuple[pa.Table, dict[str, pl.Series], list[pl.Series]]:
        """The table, and the wanted attributes of its records and of their resources."""
        length = len(table)
        kept = pa.schema([field for field in table.schema if field.name not in INGEST])
        if not length:
            return kept.empty_table(), {}, []
        columns = dict(zip(table.names, zip(*table.rows, strict=True), strict=True))
        if events:
            columns["events"] = tuple(map(events.get, range(length)))
        index = pa.array(columns["context"], pa.int32())
        ends = np.array(columns["end"], np.int64)
        attrs: dict[str, pl.Series] = {}
        if promoted:
            attrs = self._attributes.columns(self._keys, table.attributes, ends)
        contexts = dict(zip(CONTEXT_COLUMNS, zip(*self._contexts, strict=True), strict=False))
        arrays: list[Any] = []
        for column in kept:
            name = column.name
            if name == "attributes":
                arrays.append(self._attributes.join(table.attributes, ends))
            elif name in contexts:
                arrays.append(pc.take(pa.array(contexts[name], column.type), index))
            elif name in promoted:
                arrays.append(_promote(name, promoted[name], attrs, length, column.type))
            elif name == "content_hash":
                arrays.append(pa.array(table.hashes()))
            else:
                arrays.append(_column(name, columns[name], column.type))
        present = sorted({key for context in self._contexts for key in context[-1]})
        resource = [
            pl.Series(
                f"res:{key}",
                pc.take(pa.array([c[-1].get(key) for c in self._contexts], pa.string()), index),
            )
            for key in present
        ]
        return pa.table(arrays, schema=kept), attrs, resource

    def _event_frame(self, spans: pl.DataFrame) -> pl.DataFrame:
        if not self._events:
            return pl.DataFrame()
        events = self._events
        rows = [event.row for event in events]
        mine = spans[rows]
        keys = sorted({key for event in events for key in event.wanted})
        shared = ["trace_id", "span_id", "parent_span_id", "service_name", "scope_name"]
        theirs = ["name", "kind", "status_code", "status_message", "attributes"]
        theirs += [name for name in mine.columns if name.startswith("attr:")]
        return pl.DataFrame(
            [
                pl.Series("row", rows, dtype=pl.Int64),
                pl.Series("time_unix_nano", [event.time for event in events], dtype=pl.Int64),
                pl.Series("name", [event.name for event in events], dtype=pl.String),
                pl.Series("attributes", [event.attributes for event in events], dtype=pl.String),
                *(
                    pl.Series(f"attr:{key}", [e.wanted.get(key) for e in events], dtype=pl.String)
                    for key in keys
                ),
                *(mine[name] for name in (*shared, "content_hash")),
                *(mine[name].alias(f"span.{name}") for name in theirs),
                *(mine[name] for name in mine.columns if name.startswith("res:")),
            ]
        )


_SPAN_RULES: Final = [
    "trace_id", "span_id", "parent_span_id", "name", "kind", "start_time_unix_nano",
    "end_time_unix_nano", "status_code", "status_message", "service_name", "scope_name",
    "attributes", "content_hash",
]  # fmt: skip
_LOG_RULES: Final = [
    "time_unix_nano", "observed_time_unix_nano", "severity_number", "severity_text", "event_name",
    "body", "trace_id", "span_id", "service_name", "scope_name", "attributes", "content_hash",
]  # fmt: skip


def _frame(
    table: pa.Table, names: list[str], attrs: dict[str, pl.Series], resource: list[pl.Series]
) -> pl.DataFrame:
    if not table.num_rows:
        return pl.DataFrame()
    frame = pl.from_arrow(table.select(names))
    assert isinstance(frame, pl.DataFrame)  # noqa: S101
    return frame.hstack([*attrs.values(), *resource])


def _promote(
    name: str,
    keys: tuple[str, ...],
    attrs: dict[str, pl.Series],
    length: int,
    type_: pa.DataType,
) -> Any:
    found = [attrs[key] for key in keys if key in attrs]
    if not found:
        return pa.nulls(length, type_)
    series = found[0]
    for other in found[1:]:
        series = series.zip_with(series.is_not_null(), other)
    if name in INTEGER_PROMOTED:
        series = series.cast(pl.Int32, strict=False)
    return series.to_arrow().cast(type_)


def _body_text(bodies: pl.Series) -> pl.Series:
    """The body of a log as plain text: strings without quotes, everything else as JSON."""
    return pl.Series(
        "body_text",
        [json.loads(b) if b is not None and b[0] == '"' else b for b in bodies.to_list()],
        dtype=pl.String,
    )


def _origin(resource: bytes, scope: bytes) -> bytes:
    """Resource and scope as BLAKE2's personalisation, which costs a span's hash nothing."""
    size = len(resource).to_bytes(8, "little")
    return blake2b(size + resource + scope, digest_size=blake2b.PERSON_SIZE).digest()


def _base(resource: bytes, scope: bytes) -> Any:
    """A digest that has seen a record's resource and scope."""
    digest = blake2b(digest_size=8)
    for part in (resource, scope):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest


def _numbered(base: Any, raw: bytes, seen: dict[bytes, int]) -> bytes:
    """The hash of a log record. Equal records of one request are different records."""
    digest = base.copy()
    digest.update(raw)
    key: bytes = digest.digest()
    ordinal = seen.get(key, 0)
    seen[key] = ordinal + 1
    if ordinal:
        digest.update(ordinal.to_bytes(8, "little"))
        key = digest.digest()
    return key


def _column(name: str, values: Sequence[Any], type_: pa.DataType) -> Any:
    """A column of what the messages held."""
    if name in _TIMES:
        return pa.array(values, pa.uint64()).view(pa.int64())
    if name in _IDS:
        return _hex(values)
    if name in _BYTES:
        if not any(values):
            return pa.nulls(len(values), type_)
        return pa.array([text(raw) if raw else None for raw in values], type_)
    if type_ == pa.uint32() and not any(values):
        return pa.array(np.zeros(len(values), np.uint32))
    return pa.array(values, type_)


def _hex(values: Sequence[bytes]) -> Any:
    """Ids as lower-case hex, null where they are empty."""
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    offsets = np.concatenate(([0], np.cumsum(2 * lengths))).astype(np.int32)
    valid = np.packbits(lengths > 0, bitorder="little").tobytes() if not lengths.all() else None
    buffers = [valid and pa.py_buffer(valid), pa.py_buffer(offsets.tobytes())]
    digits = pa.py_buffer(b"".join(values).hex().encode())
    return pa.Array.from_buffers(pa.string(), len(values), [*buffers, digits])


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
__all__ = ["DecodeError", "Decoder", "Records"]
