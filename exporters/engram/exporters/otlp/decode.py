"""OTLP requests to Arrow columns, many requests a batch.

`add` only splits requests into messages. `finish` reads the messages of the whole batch at once:
`walk.py` finds their fields, `attributes.py` their attributes, and what is left is one array
operation a column. Redaction happens where a value is first turned into text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from json.encoder import encode_basestring
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
from google.protobuf.message import DecodeError
from xxhash import xxh3_64_intdigest

from engram.exporters.otlp import wire
from engram.exporters.otlp.attributes import Attributes, Members, Values
from engram.exporters.otlp.points import points
from engram.exporters.otlp.slab import Ints, Slab, distinct, strings
from engram.exporters.otlp.values import Redact, ValueWriter, text
from engram.exporters.otlp.walk import Found, Shape, read
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
_SPAN: Final = Shape(wire.LiteSpan)
_EVENT: Final = Shape(wire.LiteEvent)
_LOG: Final = Shape(wire.LiteLogRecord)


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
    rejected: int
    """Spans without identity, which are in none of these."""

    def __len__(self) -> int:
        return int(self.spans.num_rows + self.logs.num_rows + self.metrics.num_rows)


class _Collected:
    """Messages of one signal, their hashes, and runs of their contexts."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.hashes: list[int] = []
        self.contexts: list[int] = []
        self.counts: list[int] = []
        """How many messages in a row have the context of the same place."""

    def __len__(self) -> int:
        return len(self.messages)

    def add(self, context: int, messages: Iterable[Any], hashes: list[int]) -> None:
        self.messages += messages
        self.hashes += hashes
        self.contexts.append(context)
        self.counts.append(len(hashes))

    def truncate(self, messages: int, contexts: int) -> None:
        del self.messages[messages:], self.hashes[messages:]
        del self.contexts[contexts:], self.counts[contexts:]

    def context_rows(self) -> Any:
        return np.repeat(np.array(self.contexts, np.int32), np.array(self.counts, np.int64))


class Decoder:
    """Collects requests (`add`) and hands out one batch of columns (`finish`).

    A request that is no OTLP raises in `add` and leaves the batch as it was; one that is broken
    deeper inside raises in `finish`. What passed `check` does neither. Not thread-safe.
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
        self._attributes = Attributes(redact, {key: i for i, key in enumerate(self._keys)})
        self._values = Values(redact)
        self._context_memo: dict[tuple[bytes, bytes, bytes, bytes], tuple[Any, ...]] = {}
        self.clear()

    def clear(self) -> None:
        """Drop the batch."""
        self._spans, self._logs, self._points = _Collected(), _Collected(), _Collected()
        self._contexts: list[tuple[Any, ...]] = []
        self._context_index: dict[tuple[bytes, bytes, bytes, bytes], int] = {}

    def __len__(self) -> int:
        return len(self._spans) + len(self._logs) + len(self._points)

    def add(self, signal: Signal, body: bytes) -> int:
        """Take one inflated request into the batch; returns the number of records.

        Raises:
            DecodeError: the bytes are no such request (the check before the ack lets none through).
        """
        collected = (self._spans, self._logs, self._points)
        before = [(len(c.messages), len(c.contexts)) for c in collected]
        total = len(self)
        try:
            if signal is Signal.TRACES:
                self._add_traces(body)
            elif signal is Signal.LOGS:
                self._add_logs(body)
            else:
                self._add_metrics(body)
        except BaseException:
            for one, marks in zip(collected, before, strict=True):
                one.truncate(*marks)
            raise
        return len(self) - total

    def _add_traces(self, body: bytes) -> None:
        for resource in wire.LITE_REQUEST[Signal.TRACES].FromString(body).resource_spans:
            for scope in resource.scope_spans:
                raws = list(scope.spans)
                if not raws:
                    continue
                seed = _origin(resource.resource, scope.scope)
                hashes = [xxh3_64_intdigest(raw, seed) for raw in raws]
                self._spans.add(self._context(resource, scope), raws, hashes)

    def _add_logs(self, body: bytes) -> None:
        seen: dict[int, int] = {}
        for resource in wire.LITE_REQUEST[Signal.LOGS].FromString(body).resource_logs:
            for scope in resource.scope_logs:
                raws = list(scope.log_records)
                if not raws:
                    continue
                seed = _origin(resource.resource, scope.scope)
                hashes = [_numbered(xxh3_64_intdigest(raw, seed), seen) for raw in raws]
                self._logs.add(self._context(resource, scope), raws, hashes)

    def _add_metrics(self, body: bytes) -> None:
        for resource in wire.LITE_REQUEST[Signal.METRICS].FromString(body).resource_metrics:
            for scope in resource.scope_metrics:
                if not scope.metrics:
                    continue
                seed = _origin(resource.resource, scope.scope)
                context = self._context(resource, scope)
                for raw in scope.metrics:
                    found = [*points(wire.Metric.FromString(raw), self._writer)]
                    hashes = [xxh3_64_intdigest(identity, seed) for _, _, identity in found]
                    self._points.add(context, found, hashes)

    # ------------------------------------------------------------------ resource and scope

    def _context(self, resource: Any, scope: Any) -> int:
        key = (resource.resource, resource.schema_url, scope.scope, scope.schema_url)
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

    # ------------------------------------------------------------------ the batch

    def hashes(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Content hashes of spans, logs and points collected so far, as uint64."""
        spans, logs, found = (
            np.array(c.hashes, np.uint64) for c in (self._spans, self._logs, self._points)
        )
        return spans, logs, found

    def finish(self, keep: tuple[Any, Any, Any] | None = None) -> Records:
        """The batch as columns, without the rows that `keep` (boolean masks or None) leaves out.

        Raises:
            DecodeError: a message cannot be read; the batch is still there.
        """
        keeps = keep or (None, None, None)
        pairs = [pair for _, raws, _ in self._points.messages for pair in raws]
        slab = Slab([*self._spans.messages, *self._logs.messages, *pairs])
        first_log = len(self._spans)
        first_pair = first_log + len(self._logs)
        at, size = slab.at, slab.size
        span = read(_SPAN, slab, at[:first_log], size[:first_log])
        log = read(_LOG, slab, at[first_log:first_pair], size[first_log:first_pair])
        event_at, event_size, event_ends = span.run("events")
        event = read(_EVENT, slab, event_at, event_size)
        runs = [found.run("attributes") for found in (span, log, event)]
        counts = [len(raws) for _, raws, _ in self._points.messages]
        runs.append((at[first_pair:], size[first_pair:], np.cumsum(counts, dtype=np.int64)))
        members = self._attributes.read(
            slab, np.concatenate([run[0] for run in runs]), np.concatenate([run[1] for run in runs])
        )
        whole, parts, ends = members, [], [run[2] for run in runs]
        for run in runs:
            parts.append(whole.part(0, len(run[0])))
            whole = whole.part(len(run[0]), len(whole.codes))

        events = self._events(slab, event, event_ends, parts[2], ends[2])
        good = _identified(slab, span)
        own = self._span_columns(slab, span, events)
        spans, span_frame = self._table(self._spans, SPANS, own, parts[0], ends[0], PROMOTED)
        event_frame = events.for_rules(span_frame)
        if event_frame.height:
            span_frame = span_frame.with_columns(events.exceptions(span_frame.height))
        body, body_text = self._bodies(slab, log)
        own = self._log_columns(slab, log) | {"body": _arrow(body)}
        logs, log_frame = self._table(self._logs, LOGS, own, parts[1], ends[1], LOG_PROMOTED)
        if log_frame.height:
            log_frame = log_frame.with_columns(body_text)
        own = self._point_columns()
        metrics, _ = self._table(self._points, METRICS, own, parts[3], ends[3], {})
        keep_span = good if keeps[0] is None else good & keeps[0]
        if not keep_span.all():
            event_frame = event_frame.filter(
                pl.Series(keep_span)[event_frame["row"]] if event_frame.height else []
            )
            span_frame = span_frame.filter(pl.Series(keep_span))
            spans = spans.filter(pa.array(keep_span))
        if keeps[1] is not None:
            log_frame = log_frame.filter(pl.Series(keeps[1]))
            logs = logs.filter(pa.array(keeps[1]))
        if keeps[2] is not None:
            metrics = metrics.filter(pa.array(keeps[2]))
        self.clear()
        event_frame = event_frame.drop("row", strict=False)
        rejected = int(np.count_nonzero(~good))
        return Records(spans, logs, metrics, span_frame, event_frame, log_frame, rejected)

    def _table(
        self,
        collected: _Collected,
        schema: pa.Schema,
        own: dict[str, Any],
        members: Members,
        ends: Ints,
        promoted: dict[str, tuple[str, ...]],
    ) -> tuple[pa.Table, pl.DataFrame]:
        """The lake's table of a signal, and the frame that rules read."""
        kept = pa.schema([field for field in schema if field.name not in INGEST])
        length = len(collected)
        if not length:
            return kept.empty_table(), pl.DataFrame()
        index = pa.array(collected.context_rows())
        attrs = members.columns(self._keys, ends) if promoted else {}
        contexts = dict(zip(CONTEXT_COLUMNS, zip(*self._contexts, strict=True), strict=False))
        arrays: list[Any] = []
        for column in kept:
            name = column.name
            if name == "attributes":
                arrays.append(members.objects(ends))
            elif name in contexts:
                arrays.append(pa.array(contexts[name], column.type).take(index))
            elif name in promoted:
                arrays.append(_promote(name, promoted[name], attrs, length, column.type))
            elif name == "content_hash":
                arrays.append(pa.array(np.array(collected.hashes, np.uint64)))
            else:
                arrays.append(pa.array(own[name], column.type))
        table = pa.table(arrays, schema=kept)
        if not promoted:
            return table, pl.DataFrame()
        present = sorted({key for context in self._contexts for key in context[-1]})
        resource = [
            pl.Series(
                f"res:{key}",
                pa.array([c[-1].get(key) for c in self._contexts], pa.string()).take(index),
            )
            for key in present
        ]
        frame = pl.from_arrow(table.select(_SPAN_RULES if schema is SPANS else _LOG_RULES))
        assert isinstance(frame, pl.DataFrame)  # noqa: S101
        return table, frame.hstack([*attrs.values(), *resource])

    # ------------------------------------------------------------------ columns

    def _words(self, slab: Slab, where: tuple[Ints, Ints], *, redact: bool = True) -> pl.Series:
        """A text column; empty texts stay empty."""
        at, size = where
        first, codes = distinct(slab.views(at, size))
        words = strings([*map(text, slab.raws(at[first], size[first]))])
        if redact:
            words = self._values.redacted(words)
        return words.gather(codes)

    def _span_columns(self, slab: Slab, span: Found, events: _Events) -> dict[str, Any]:
        first, codes = distinct(slab.views(*span.slice("status")))
        at, size = span.slice("status")
        statuses = [*map(wire.Status.FromString, slab.raws(at[first], size[first]))]
        messages = [self._redact.text(text(s.message)) or None for s in statuses]
        return {
            **_ids(slab, span, "trace_id", "span_id", "parent_span_id"),
            **_numbers(span, np.int64, "start_time_unix_nano", "end_time_unix_nano"),
            **_numbers(span, np.uint32, "flags", "dropped_attributes_count"),
            **_numbers(span, np.uint32, "dropped_events_count", "dropped_links_count"),
            **_numbers(span, np.int32, "kind"),
            "trace_state": _arrow(
                _filled(self._words(slab, span.slice("trace_state"), redact=False))
            ),
            "name": _arrow(self._words(slab, span.slice("name"))),
            "status_code": np.array([s.code for s in statuses], np.int32)[codes],
            "status_message": _arrow(strings(messages).gather(codes)),
            "events": events.of_spans(len(self._spans)),
            "links": self._links(slab, span),
        }

    def _log_columns(self, slab: Slab, log: Found) -> dict[str, Any]:
        return {
            **_ids(slab, log, "trace_id", "span_id"),
            **_numbers(log, np.int64, "time_unix_nano", "observed_time_unix_nano"),
            **_numbers(log, np.uint32, "flags", "dropped_attributes_count"),
            **_numbers(log, np.int32, "severity_number"),
            **{
                name: _arrow(_filled(self._words(slab, log.slice(name), redact=False)))
                for name in ("severity_text", "event_name")
            },
        }

    def _point_columns(self) -> dict[str, Any]:
        own = METRICS.names[: METRICS.names.index("service_name")]
        rows = [row for row, _, _ in self._points.messages]
        return dict(zip(own, zip(*rows, strict=True), strict=True)) if rows else {}

    def _bodies(self, slab: Slab, log: Found) -> tuple[pl.Series, pl.Series]:
        """The bodies of logs as JSON, and as plain text: strings without quotes."""
        at, size = log.slice("body")
        there = np.flatnonzero(at)
        first, codes = distinct(slab.views(at[there], size[there]))
        at, size = at[there][first], size[there][first]
        json, plain, places = [_NULL], [_NULL], []
        for group in self._values.read(slab, at, size):
            quote = pl.lit(group.quote)
            json.append(pl.select(pl.concat_str(quote, group.inner, quote)).to_series())
            plain.append(group.plain if group.quote else json[-1])
            places.append(group.rows)
        order = np.zeros(len(at), np.int64)
        if places:
            order[np.concatenate(places)] = np.arange(1, len(at) + 1)
        rows = np.zeros(len(self._logs), np.int64)
        rows[there] = order[codes]
        return pl.concat(json).gather(rows), pl.concat(plain).gather(rows).alias("body_text")

    def _links(self, slab: Slab, span: Found) -> list[str | None]:
        at, size, ends = span.run("links")
        found: list[str | None] = [None] * len(ends)
        raws = slab.raws(at, size)
        begins = np.concatenate(([0], ends[:-1]))
        for row in np.flatnonzero(ends > begins).tolist():
            links = map(self._link, raws[begins[row] : ends[row]])
            found[row] = f"[{','.join(links)}]"
        return found

    def _link(self, raw: bytes) -> str:
        link = wire.Link.FromString(raw)
        return (
            f'{{"trace_id":"{link.trace_id.hex()}","span_id":"{link.span_id.hex()}",'
            f'"trace_state":{encode_basestring(text(link.trace_state))},"flags":{link.flags},'
            f'"attributes":{self._writer.object(link.attributes)},'
            f'"dropped_attributes_count":{link.dropped_attributes_count}}}'
        )

    def _events(
        self, slab: Slab, event: Found, ends: Ints, members: Members, last: Ints
    ) -> _Events:
        """Span events, of spans that end theirs at `ends`; their attributes end at `last`."""
        rows = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
        frame = pl.DataFrame(
            {
                "row": rows,
                "time_unix_nano": event.number("time_unix_nano"),
                "name": self._words(slab, event.slice("name")),
                "attributes": pl.Series(members.objects(last), dtype=pl.String),
            }
        )
        attrs = members.columns(self._keys, last)
        dropped = event.number("dropped_attributes_count").astype(np.uint32)
        return _Events(frame.hstack([*attrs.values()]), dropped)


@dataclass(frozen=True, slots=True)
class _Events:
    """The events of all spans of a batch."""

    frame: pl.DataFrame
    """`row` (of the span), `time_unix_nano`, `name`, `attributes`, and the wanted ones of these."""
    dropped: Any

    def of_spans(self, length: int) -> list[str | None]:
        """The JSON array of each span's events."""
        lists: dict[int, list[str]] = {}
        columns = (self.frame[name].to_list() for name in self.frame.columns[:4])
        for row, time, name, attributes, dropped in zip(
            *columns, self.dropped.tolist(), strict=True
        ):
            lists.setdefault(row, []).append(
                f'{{"time_unix_nano":{time},"name":{encode_basestring(name)},'
                f'"attributes":{attributes},"dropped_attributes_count":{dropped}}}'
            )
        found: list[str | None] = [None] * length
        for row, texts in lists.items():
            found[row] = f"[{','.join(texts)}]"
        return found

    def exceptions(self, length: int) -> pl.Series:
        """Which spans carry an exception event: those tell of their failure themselves."""
        column: list[str | None] = [None] * length
        names = self.frame["name"].to_list()
        type_ = "attr:exception.type"
        none = [None] * len(names)
        types = self.frame[type_].to_list() if type_ in self.frame.columns else none
        for row, name, said in zip(self.frame["row"].to_list(), names, types, strict=True):
            if name == "exception" or said is not None:
                column[row] = "exception" if said is None else said
        return pl.Series("own_exception", column, dtype=pl.String)

    def for_rules(self, spans: pl.DataFrame) -> pl.DataFrame:
        """One row an event, with what rules need of its span."""
        if not self.frame.height:
            return pl.DataFrame()
        mine = spans[self.frame["row"]]
        shared = ["trace_id", "span_id", "parent_span_id", "service_name", "scope_name"]
        theirs = ["name", "kind", "status_code", "status_message", "attributes"]
        theirs += [name for name in mine.columns if name.startswith("attr:")]
        return self.frame.hstack(
            [
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


_NULL: Final = strings([None])


def _filled(words: pl.Series) -> pl.Series:
    """Null where there is nothing."""
    return words.set(words == "", None)


def _arrow(words: pl.Series) -> pa.Array:
    return words.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.string())


def _ids(slab: Slab, found: Found, *names: str) -> dict[str, Any]:
    return {name: slab.hex(*found.slice(name)) for name in names}


def _numbers(found: Found, dtype: Any, *names: str) -> dict[str, Any]:
    return {name: found.number(name).astype(dtype) for name in names}


def _identified(slab: Slab, span: Found) -> Any:
    """Which spans have an identity: ids of the right length that are not all zero."""
    (trace, trace_size), (own, own_size) = span.slice("trace_id"), span.slice("span_id")
    not_zero = ((slab.i64[trace] | slab.i64[trace + 8]) != 0) & (slab.i64[own] != 0)
    return (trace_size == 16) & (own_size == 8) & not_zero


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


def _origin(resource: bytes, scope: bytes) -> int:
    """Resource and scope as the seed of their records' hashes."""
    size = len(resource).to_bytes(8, "little")
    return int.from_bytes(blake2b(size + resource + scope, digest_size=8).digest(), "little")


def _numbered(hash_: int, seen: dict[int, int]) -> int:
    """The hash of a log record. Equal records of one request are different records."""
    ordinal = seen.get(hash_, 0)
    seen[hash_] = ordinal + 1
    return xxh3_64_intdigest(ordinal.to_bytes(8, "little"), hash_) if ordinal else hash_


__all__ = ["DecodeError", "Decoder", "Records"]
