"""Lake rows back to the frames that rules take, as the decoder made them when the rows arrived.

What a rule reads of a record is all in its row, redacted already, so rules can be applied again,
or explained, without OTLP in between. A test holds these frames and the decoder's equal for
arbitrary requests.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pyarrow as pa

from engram.exporters.metrics import POINT_COLUMNS, metric_frame
from engram.exporters.otlp.values import double_json, parse, text
from engram.exporters.records import LOG_PROMOTED, PROMOTED

if TYPE_CHECKING:
    from engram.exporters.rules.load import Kind

_SPAN_COLUMNS: Final = (
    "trace_id", "span_id", "parent_span_id", "name", "kind", "start_time_unix_nano",
    "end_time_unix_nano", "status_code", "status_message", "service_name", "scope_name",
    "attributes", "content_hash",
)  # fmt: skip
_LOG_COLUMNS: Final = (
    "time_unix_nano", "observed_time_unix_nano", "severity_number", "severity_text", "event_name",
    "body", "trace_id", "span_id", "service_name", "scope_name", "attributes", "content_hash",
)  # fmt: skip
_ALWAYS: Final = frozenset(
    key for keys in (*PROMOTED.values(), *LOG_PROMOTED.values()) for key in keys
)

NEEDED: Final = {
    "spans": (*_SPAN_COLUMNS, "resource", "events"),
    "logs": (*_LOG_COLUMNS, "resource"),
    "metrics": POINT_COLUMNS,
}
"""Columns of each table that the frames are made from."""

Wanted = Callable[[str | None], dict[str, str]]


def frames(
    rows: Mapping[str, pa.Table], wanted: frozenset[str], resource_wanted: frozenset[str]
) -> dict[Kind, pl.DataFrame]:
    """The frame of each kind of record; `rows` has the tables and columns of `NEEDED`.

    Rows keep their order; a span's events follow each other in theirs.
    """
    spans, logs = rows["spans"], rows["logs"]
    keys = wanted | _ALWAYS
    of_resource = _remembered(resource_wanted)
    span_frame = _frame(spans, _SPAN_COLUMNS, _reader(keys), of_resource)
    log_frame = _frame(logs, _LOG_COLUMNS, _reader(keys), of_resource)
    event_frame = pl.DataFrame()
    if span_frame.height:
        events, own = _events(spans["events"].to_pylist(), keys)
        if events:
            event_frame = _event_frame(events, span_frame)
            span_frame = span_frame.with_columns(pl.Series("own_exception", own, dtype=pl.String))
    if log_frame.height:
        log_frame = log_frame.with_columns(
            pl.Series("body_text", map(_body_text, log_frame["body"]), dtype=pl.String)
        )
    metrics = metric_frame(rows["metrics"], wanted, resource_wanted)
    return {"span": span_frame, "span_event": event_frame, "log": log_frame, "metric": metrics}


def _frame(
    rows: pa.Table, names: Sequence[str], of_record: Wanted, of_resource: Wanted
) -> pl.DataFrame:
    if not rows.num_rows:
        return pl.DataFrame()
    frame = pl.from_arrow(rows.select(names))
    assert isinstance(frame, pl.DataFrame)  # noqa: S101
    attributes = _columns("attr:", [*map(of_record, rows["attributes"].to_pylist())])
    resource = _columns("res:", [*map(of_resource, rows["resource"].to_pylist())])
    return frame.hstack([*attributes, *resource])


def _columns(prefix: str, found: list[dict[str, str]]) -> list[pl.Series]:
    """A column for each key that some record has."""
    keys = sorted({key for one in found for key in one})
    return [
        pl.Series(f"{prefix}{key}", [one.get(key) for one in found], dtype=pl.String)
        for key in keys
    ]


def _events(
    texts: list[str | None], keys: frozenset[str]
) -> tuple[list[tuple[int, dict[str, Any], dict[str, str]]], list[str | None]]:
    """(row, event, its wanted values) of all spans, and the type of each span's last exception."""
    found = []
    own: list[str | None] = [None] * len(texts)
    for row, array in enumerate(texts):
        for pairs in parse(array) if array else ():
            event = dict(pairs)
            wanted = _wanted(event["attributes"], keys)
            found.append((row, event, wanted))
            if event["name"] == "exception" or "exception.type" in wanted:
                own[row] = wanted.get("exception.type", "exception")
    return found, own


def _event_frame(
    events: list[tuple[int, dict[str, Any], dict[str, str]]], spans: pl.DataFrame
) -> pl.DataFrame:
    mine = spans[[row for row, _, _ in events]]
    shared = ("trace_id", "span_id", "parent_span_id", "service_name", "scope_name")
    theirs = ["name", "kind", "status_code", "status_message", "attributes"]
    theirs += [name for name in mine.columns if name.startswith("attr:")]
    times = [event["time_unix_nano"] for _, event, _ in events]
    texts = [_json(event["attributes"]) for _, event, _ in events]
    return pl.DataFrame(
        [
            pl.Series("time_unix_nano", times, dtype=pl.Int64),
            pl.Series("name", [event["name"] for _, event, _ in events], dtype=pl.String),
            pl.Series("attributes", texts, dtype=pl.String),
            *_columns("attr:", [wanted for _, _, wanted in events]),
            *(mine[name] for name in (*shared, "content_hash")),
            *(mine[name].alias(f"span.{name}") for name in theirs),
            *(mine[name] for name in mine.columns if name.startswith("res:")),
        ]
    )


def _reader(keys: frozenset[str]) -> Wanted:
    return lambda attributes: _wanted(parse(attributes), keys) if attributes else {}


def _remembered(keys: frozenset[str]) -> Wanted:
    """The same for resources, of which there are few."""
    known: dict[str | None, dict[str, str]] = {}
    read = _reader(keys)

    def remember(attributes: str | None) -> dict[str, str]:
        found = known.get(attributes)
        if found is None:
            found = known[attributes] = read(attributes)
        return found

    return remember


def _wanted(pairs: Iterable[tuple[str, Any]], keys: frozenset[str]) -> dict[str, str]:
    """The plain text of the wanted members; of equal keys the last one with a value counts."""
    found = {}
    for key, value in pairs:
        if key.startswith("$"):
            if key.startswith("$strindex/"):  # no text: nothing a rule could name
                continue
            raw = key.removeprefix("$key/")
            key = key[1:] if raw == key else text(base64.b64decode(raw))
        if key in keys and (plain := _plain(value)) is not None:
            found[key] = plain
    return found


def _plain(value: Any) -> str | None:
    """A value as the decoder hands it to rules: a string as it is, all else as JSON."""
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], tuple):
        special, inner = value[0]
        if special == "$unset":
            return None
        if special == "$string":
            return text(base64.b64decode(inner))
    return _json(value)


def _json(value: Any) -> str:
    """Parsed JSON as the text it was parsed from."""
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, float):
        return double_json(value)
    if isinstance(value, list):
        if type(value) is not list:  # an object: pairs
            return f"{{{','.join(f'{encode_basestring(k)}:{_json(v)}' for k, v in value)}}}"
        return f"[{','.join(map(_json, value))}]"
    return json.dumps(value)


def _body_text(body: str | None) -> str | None:
    """The body of a log as plain text: a string without quotes, everything else as JSON."""
    return str(json.loads(body)) if body is not None and body[0] == '"' else body


__all__ = ["NEEDED", "frames"]
