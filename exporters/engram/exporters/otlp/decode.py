"""OTLP requests to Arrow columns, many requests a batch.

Attributes are the whole cost of decoding, so their raw bytes are looked up in a bounded memo that
holds the finished JSON text: the second time a sender says `http.request.method: GET`, it costs one
dictionary access. Redaction happens where a value is first turned into text, so it is memoised too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from json.encoder import encode_basestring
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.message import DecodeError

from engram.exporters.otlp import wire
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

_MEMO_VALUE_BYTES: Final = 256
_MEMO_ENTRIES: Final = 100_000
_WRAP: Final = 1 << 64


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


class _Slots:
    """Sparse values of the wanted attribute keys: cost follows what is there."""

    def __init__(self, count: int) -> None:
        self.rows: list[list[int]] = [[] for _ in range(count)]
        self.values: list[list[str]] = [[] for _ in range(count)]

    def truncate(self, row: int) -> None:
        for rows, values in zip(self.rows, self.values, strict=True):
            while rows and rows[-1] >= row:
                rows.pop()
                values.pop()

    def columns(self, keys: list[str], length: int) -> dict[str, pl.Series]:
        found = {}
        for key, rows, values in zip(keys, self.rows, self.values, strict=True):
            if rows:
                column: list[str | None] = [None] * length
                for row, value in zip(rows, values, strict=True):
                    column[row] = value
                found[key] = pl.Series(f"attr:{key}", column, dtype=pl.String)
        return found


class _Table:
    """Growing columns of one signal, with the context (resource and scope) of each row."""

    def __init__(self, names: Iterable[str], slots: int) -> None:
        self.columns: dict[str, list[Any]] = {name: [] for name in names}
        self.context: list[int] = []
        self.hashes: list[bytes] = []
        self.slots = _Slots(slots)

    def __len__(self) -> int:
        return len(self.context)

    def truncate(self, length: int) -> None:
        for column in (*self.columns.values(), self.context, self.hashes):
            del column[length:]
        self.slots.truncate(length)


_SPAN_OWN = SPANS.names[: SPANS.names.index("service_name")]
_LOG_OWN = LOGS.names[: LOGS.names.index("service_name")]
_METRIC_OWN = METRICS.names[: METRICS.names.index("service_name")]


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
        self._slot_of = {key: i for i, key in enumerate(self._keys)}
        self._resource_wanted = resource_wanted
        self._memo: dict[bytes, tuple[str, int, str]] = {}
        self._context_memo: dict[tuple[bytes, bytes, bytes, bytes], tuple[Any, ...]] = {}
        self._reset()

    def _reset(self) -> None:
        slots = len(self._keys)
        self._spans = _Table(_SPAN_OWN, slots)
        self._logs = _Table(_LOG_OWN, slots)
        self._metrics = _Table(_METRIC_OWN, 0)
        self._events: list[tuple[int, int, str, str, dict[str, str]]] = []
        self._contexts: list[tuple[Any, ...]] = []
        self._context_index: dict[tuple[bytes, bytes, bytes, bytes], int] = {}

    def __len__(self) -> int:
        return len(self._spans) + len(self._logs) + len(self._metrics)

    def add(self, signal: Signal, body: bytes) -> int:
        """Decode one inflated request into the batch; returns the number of records.

        Raises:
            DecodeError: the bytes are no such request (the check before the ack lets none through).
        """
        before = len(self._spans), len(self._logs), len(self._metrics), len(self._events)
        try:
            if signal is Signal.TRACES:
                self._add_traces(body)
            elif signal is Signal.LOGS:
                self._add_logs(body)
            else:
                self._add_metrics(body)
        except BaseException:
            for table, length in zip(
                (self._spans, self._logs, self._metrics), before[:3], strict=True
            ):
                table.truncate(length)
            del self._events[before[3] :]
            raise
        return len(self) - sum(before[:3])

    # ------------------------------------------------------------------ shared parts

    def _context(self, resource: bytes, resource_url: bytes, scope: bytes, scope_url: bytes) -> int:
        key = (resource, resource_url, scope, scope_url)
        index = self._context_index.get(key)
        if index is None:
            known = self._context_memo.get(key)
            if known is None:
                if len(self._context_memo) > 1000:
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
        for raw in res.attributes:
            pair = wire.KeyValue.FromString(raw)
            key, value = self._writer.member(pair)
            plain = _plain(pair, value, self._redact)
            if key == "service.name":
                service = plain
            if key in self._resource_wanted:
                wanted[key] = plain
        refs = [
            f'{{"schema_url":{encode_basestring(text(ref.schema_url))},'
            f'"type":{encode_basestring(text(ref.type))},'
            f'"id_keys":[{",".join(encode_basestring(text(k)) for k in ref.id_keys)}],'
            f'"description_keys":[{",".join(encode_basestring(text(k)) for k in ref.description_keys)}]}}'
            for ref in res.entity_refs
        ]
        return (
            service,
            self._object(res.attributes),
            res.dropped_attributes_count,
            f"[{','.join(refs)}]" if refs else None,
            _or_none(resource_url),
            _or_none(sc.name),
            _or_none(sc.version),
            self._object(sc.attributes) if sc.attributes else None,
            sc.dropped_attributes_count,
            _or_none(scope_url),
            wanted,
        )

    def _object(self, raw_pairs: Iterable[bytes]) -> str:
        return self._writer.object(map(wire.KeyValue.FromString, raw_pairs))

    def _member(self, raw: bytes) -> tuple[str, int, str]:
        """A raw KeyValue as (JSON member, slot or -1, plain text), memoised when small."""
        pair = wire.KeyValue.FromString(raw)
        key, value = self._writer.member(pair)
        slot = self._slot_of.get(key, -1)
        known = (
            f"{encode_basestring(key)}:{value}",
            slot,
            _plain(pair, value, self._redact) if slot >= 0 else "",
        )
        if len(raw) <= _MEMO_VALUE_BYTES:
            if len(self._memo) >= _MEMO_ENTRIES:
                self._memo.clear()
            self._memo[raw] = known
        return known

    # ------------------------------------------------------------------ traces

    def _add_traces(self, body: bytes) -> None:
        request = wire.LITE_REQUEST[Signal.TRACES].FromString(body)
        table = self._spans
        c = table.columns
        parse = wire.LiteSpan.FromString
        memo, member, plain = self._memo, self._member, self._redact.text
        slot_rows, slot_values = table.slots.rows, table.slots.values
        contexts, hashes = table.context, table.hashes
        trace_ids, span_ids, parents = c["trace_id"], c["span_id"], c["parent_span_id"]
        states, flags, names, kinds = c["trace_state"], c["flags"], c["name"], c["kind"]
        starts, ends = c["start_time_unix_nano"], c["end_time_unix_nano"]
        codes, messages = c["status_code"], c["status_message"]
        attributes, dropped = c["attributes"], c["dropped_attributes_count"]
        events, dropped_events = c["events"], c["dropped_events_count"]
        links, dropped_links = c["links"], c["dropped_links_count"]
        name_memo: dict[bytes, str] = {}
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                if not scope.spans:
                    continue
                context = self._context(
                    resource.resource, resource.schema_url, scope.scope, scope.schema_url
                )
                for raw in scope.spans:
                    span = parse(raw)
                    trace_id, span_id = span.trace_id, span.span_id
                    if not good_ids(trace_id, span_id):
                        continue
                    row = len(contexts)
                    fragments = []
                    for raw_pair in span.attributes:
                        known = memo.get(raw_pair)
                        if known is None:
                            known = member(raw_pair)
                        fragments.append(known[0])
                        slot = known[1]
                        if slot >= 0:
                            slot_rows[slot].append(row)
                            slot_values[slot].append(known[2])
                    attributes.append(f"{{{','.join(fragments)}}}")
                    trace_ids.append(trace_id.hex())
                    span_ids.append(span_id.hex())
                    parents.append(span.parent_span_id.hex() or None)
                    states.append(_or_none(span.trace_state))
                    flags.append(span.flags)
                    raw_name = span.name
                    name = name_memo.get(raw_name)
                    if name is None:
                        name = name_memo[raw_name] = plain(text(raw_name))
                    names.append(name)
                    kinds.append(span.kind)
                    starts.append(_signed(span.start_time_unix_nano))
                    ends.append(_signed(span.end_time_unix_nano))
                    status = span.status
                    codes.append(status.code)
                    message = status.message
                    messages.append(plain(text(message)) if message else None)
                    dropped.append(span.dropped_attributes_count)
                    raw_events = span.events
                    events.append(self._add_events(row, raw_events) if raw_events else None)
                    dropped_events.append(span.dropped_events_count)
                    raw_links = span.links
                    links.append(self._links(raw_links) if raw_links else None)
                    dropped_links.append(span.dropped_links_count)
                    hashes.append(blake2b(raw, digest_size=8).digest())
                    contexts.append(context)

    def _add_events(self, row: int, raw_events: Iterable[bytes]) -> str:
        parts = []
        for raw in raw_events:
            event = wire.Event.FromString(raw)
            name = self._redact.text(text(event.name))
            wanted: dict[str, str] = {}
            members = []
            for pair in event.attributes:
                key, value = self._writer.member(pair)
                members.append(f"{encode_basestring(key)}:{value}")
                if key in self._slot_of:
                    wanted[key] = _plain(pair, value, self._redact)
            attributes = f"{{{','.join(members)}}}"
            time = _signed(event.time_unix_nano)
            self._events.append((row, time, name, attributes, wanted))
            parts.append(
                f'{{"time_unix_nano":{time},"name":{encode_basestring(name)},"attributes":{attributes},'
                f'"dropped_attributes_count":{event.dropped_attributes_count}}}'
            )
        return f"[{','.join(parts)}]"

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
        table = self._logs
        c = table.columns
        memo, member = self._memo, self._member
        slot_rows, slot_values = table.slots.rows, table.slots.values
        seen: dict[bytes, int] = {}
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                if not scope.log_records:
                    continue
                context = self._context(
                    resource.resource, resource.schema_url, scope.scope, scope.schema_url
                )
                base = blake2b(digest_size=8)
                for part in (resource.resource, scope.scope):
                    base.update(len(part).to_bytes(8, "little") + part)
                for raw in scope.log_records:
                    record = wire.LiteLogRecord.FromString(raw)
                    row = len(table.context)
                    fragments = []
                    for raw_pair in record.attributes:
                        known = memo.get(raw_pair)
                        if known is None:
                            known = member(raw_pair)
                        fragments.append(known[0])
                        slot = known[1]
                        if slot >= 0:
                            slot_rows[slot].append(row)
                            slot_values[slot].append(known[2])
                    c["attributes"].append(f"{{{','.join(fragments)}}}")
                    c["time_unix_nano"].append(_signed(record.time_unix_nano))
                    c["observed_time_unix_nano"].append(_signed(record.observed_time_unix_nano))
                    c["severity_number"].append(record.severity_number)
                    c["severity_text"].append(_or_none(record.severity_text))
                    c["event_name"].append(_or_none(record.event_name))
                    c["body"].append(
                        self._writer.value(wire.AnyValue.FromString(record.body))
                        if record.body
                        else None
                    )
                    c["trace_id"].append(record.trace_id.hex() or None)
                    c["span_id"].append(record.span_id.hex() or None)
                    c["flags"].append(record.flags)
                    c["dropped_attributes_count"].append(record.dropped_attributes_count)
                    digest = base.copy()
                    digest.update(raw)
                    key = digest.digest()
                    ordinal = seen.get(key, 0)
                    seen[key] = ordinal + 1
                    if ordinal:  # equal records of one request are different records
                        digest.update(ordinal.to_bytes(8, "little"))
                        key = digest.digest()
                    table.hashes.append(key)
                    table.context.append(context)

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
                base = blake2b(digest_size=8)
                for part in (resource.resource, scope.scope):
                    base.update(len(part).to_bytes(8, "little") + part)
                for raw in scope.metrics:
                    self._add_metric(wire.Metric.FromString(raw), context, base)

    def _add_metric(self, metric: Any, context: int, base: Any) -> None:
        kind = metric.WhichOneof("data")
        if kind is None:
            return
        data = getattr(metric, kind)
        shared = {
            "name": text(metric.name),
            "description": _or_none(metric.description),
            "unit": _or_none(metric.unit),
            "metadata": self._writer.object(metric.metadata) if metric.metadata else None,
            "type": kind,
            "aggregation_temporality": getattr(data, "aggregation_temporality", None),
            "is_monotonic": getattr(data, "is_monotonic", None),
        }
        for point in data.data_points:
            row = {
                **shared,
                "start_time_unix_nano": _signed(point.start_time_unix_nano),
                "time_unix_nano": _signed(point.time_unix_nano),
                "flags": point.flags,
                "attributes": self._writer.object(point.attributes),
                **_POINT[kind](point),
            }
            if getattr(point, "exemplars", None):
                row["exemplars"] = f"[{','.join(map(self._exemplar, point.exemplars))}]"
            digest = base.copy()
            for part in (
                metric.name,
                kind.encode(),
                b"".join(sorted(pair.SerializeToString() for pair in point.attributes)),
                point.start_time_unix_nano.to_bytes(8, "little"),
                point.time_unix_nano.to_bytes(8, "little"),
            ):
                digest.update(len(part).to_bytes(8, "little") + part)
            table = self._metrics
            for name, column in table.columns.items():
                column.append(row.get(name))
            table.hashes.append(digest.digest())
            table.context.append(context)

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
        return tuple(  # type: ignore[return-value]
            np.frombuffer(b"".join(table.hashes), np.uint64)
            for table in (self._spans, self._logs, self._metrics)
        )

    def finish(self, keep: tuple[Any, Any, Any] | None = None) -> Records:
        """The batch as columns, without the rows that `keep` (boolean masks or None) leaves out."""
        keeps = keep or (None, None, None)
        spans, span_attrs = self._table(self._spans, SPANS, PROMOTED)
        logs, log_attrs = self._table(self._logs, LOGS, LOG_PROMOTED)
        metrics, _ = self._table(self._metrics, METRICS, {})
        resource = self._resource_columns
        span_frame = _frame(spans, _SPAN_RULES, span_attrs, resource(self._spans))
        event_frame = self._event_frame(span_frame)
        log_frame = _frame(logs, _LOG_RULES, log_attrs, resource(self._logs))
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

    def _table(
        self, table: _Table, schema: pa.Schema, promoted: dict[str, tuple[str, ...]]
    ) -> tuple[pa.Table, dict[str, pl.Series]]:
        length = len(table)
        index = pa.array(table.context, pa.int32())
        attrs = table.slots.columns(self._keys, length) if promoted else {}
        arrays: list[Any] = []
        for field in schema:
            name = field.name
            if name in table.columns:
                arrays.append(pa.array(table.columns[name], field.type))
            elif name in CONTEXT_COLUMNS:
                i = list(CONTEXT_COLUMNS).index(name)
                values = pa.array([context[i] for context in self._contexts], field.type)
                arrays.append(pc.take(values, index))
            elif name in promoted:
                arrays.append(_promote(name, promoted[name], attrs, length, field.type))
            elif name == "content_hash":
                arrays.append(pa.array(np.frombuffer(b"".join(table.hashes), np.uint64)))
        kept = [field for field in schema if field.name not in INGEST]
        return pa.table(arrays, schema=pa.schema(kept)), attrs

    def _resource_columns(self, table: _Table) -> list[pl.Series]:
        if not len(table):
            return []
        present = sorted({key for context in self._contexts for key in context[-1]})
        index = pa.array(table.context, pa.int32())
        return [
            pl.Series(
                f"res:{key}",
                pc.take(pa.array([c[-1].get(key) for c in self._contexts], pa.string()), index),
            )
            for key in present
        ]

    def _event_frame(self, spans: pl.DataFrame) -> pl.DataFrame:
        if not self._events:
            return pl.DataFrame()
        rows, times, names, attributes, wanted = zip(*self._events, strict=True)
        mine = spans[list(rows)]
        keys = sorted({key for found in wanted for key in found})
        shared = ["trace_id", "span_id", "parent_span_id", "service_name", "scope_name"]
        theirs = ["name", "kind", "status_code", "status_message", "attributes"]
        theirs += [name for name in mine.columns if name.startswith("attr:")]
        return pl.DataFrame(
            [
                pl.Series("row", rows, dtype=pl.Int64),
                pl.Series("time_unix_nano", times, dtype=pl.Int64),
                pl.Series("name", names, dtype=pl.String),
                pl.Series("attributes", attributes, dtype=pl.String),
                *(
                    pl.Series(f"attr:{key}", [w.get(key) for w in wanted], dtype=pl.String)
                    for key in keys
                ),
                *(mine[name] for name in (*shared, "content_hash")),
                *(mine[name].alias(f"span.{name}") for name in theirs),
                *(mine[name] for name in mine.columns if name.startswith("res:")),
            ]
        )


def _plain(pair: Any, value: str, redact: Redact) -> str:
    """A value as plain text: strings raw, the rest as its JSON."""
    if value.startswith('"'):
        if value == '"[redacted]"':
            return "[redacted]"
        return redact.text(text(pair.value.string_value))
    return value


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
    import json

    return pl.Series(
        "body_text",
        [json.loads(b) if b is not None and b[0] == '"' else b for b in bodies.to_list()],
        dtype=pl.String,
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
__all__ = ["DecodeError", "Decoder", "Records"]
