"""What arrives: the columns of `spans`, `logs` and `metrics`, as Arrow schemas.

The SQL of the same tables, with the reason of each column, is in `lake/sql/`; a test holds the
two equal. Times are integer nanoseconds (a fixed64 above 2^63 wraps and unwraps: nothing is lost).
Ids are lower-case hex. Text columns are null where OTLP has the empty string.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

_S, _I64, _I32, _U32, _U64, _F64, _B = (
    pa.string(), pa.int64(), pa.int32(), pa.uint32(), pa.uint64(), pa.float64(), pa.bool_(),
)  # fmt: skip

CONTEXT_COLUMNS: Final = {
    "service_name": _S,
    "resource": _S,
    "resource_dropped_attributes_count": _U32,
    "resource_entity_refs": _S,
    "resource_schema_url": _S,
    "scope_name": _S,
    "scope_version": _S,
    "scope_attributes": _S,
    "scope_dropped_attributes_count": _U32,
    "scope_schema_url": _S,
}
"""Columns that a record shares with all of its resource and scope."""

PROMOTED: Final[dict[str, tuple[str, ...]]] = {
    "user_id": ("user.id", "enduser.id", "enduser.pseudo.id"),
    "session_id": ("session.id",),
    "http_request_method": ("http.request.method", "http.method"),
    "http_route": ("http.route",),
    "http_response_status_code": ("http.response.status_code", "http.status_code"),
    "server_address": ("server.address", "net.peer.name"),
    "error_type": ("error.type",),
    "db_system_name": ("db.system.name", "db.system"),
    "gen_ai_operation_name": ("gen_ai.operation.name",),
    "gen_ai_provider_name": ("gen_ai.provider.name", "gen_ai.system"),
    "gen_ai_request_model": ("gen_ai.request.model",),
    "gen_ai_conversation_id": ("gen_ai.conversation.id",),
}
"""Attributes that get a typed column of their own, first present name wins (3 ms to filter, not
160-400)."""

LOG_PROMOTED: Final[dict[str, tuple[str, ...]]] = {
    "user_id": PROMOTED["user_id"],
    "session_id": PROMOTED["session_id"],
    "exception_type": ("exception.type",),
    "gen_ai_conversation_id": PROMOTED["gen_ai_conversation_id"],
}

INTEGER_PROMOTED: Final = frozenset({"http_response_status_code"})

_TAIL = {"content_hash": _U64}
INGEST: Final = {"collector": _S, "sequence": _I64, "recorded_at": _I64}


def _promoted(names: dict[str, tuple[str, ...]]) -> dict[str, pa.DataType]:
    return {name: _I32 if name in INTEGER_PROMOTED else _S for name in names}


SPANS: Final = pa.schema(
    {
        "trace_id": _S, "span_id": _S, "parent_span_id": _S, "trace_state": _S, "flags": _U32,
        "name": _S, "kind": _I32, "start_time_unix_nano": _I64, "end_time_unix_nano": _I64,
        "status_code": _I32, "status_message": _S,
        "attributes": _S, "dropped_attributes_count": _U32,
        "events": _S, "dropped_events_count": _U32, "links": _S, "dropped_links_count": _U32,
        **CONTEXT_COLUMNS, **_promoted(PROMOTED), **_TAIL, **INGEST,
    }
)  # fmt: skip

LOGS: Final = pa.schema(
    {
        "time_unix_nano": _I64, "observed_time_unix_nano": _I64, "severity_number": _I32,
        "severity_text": _S, "event_name": _S, "body": _S, "trace_id": _S, "span_id": _S,
        "flags": _U32, "attributes": _S, "dropped_attributes_count": _U32,
        **CONTEXT_COLUMNS, **_promoted(LOG_PROMOTED), **_TAIL, **INGEST,
    }
)  # fmt: skip

METRICS: Final = pa.schema(
    {
        "name": _S, "description": _S, "unit": _S, "metadata": _S, "type": _S,
        "aggregation_temporality": _I32, "is_monotonic": _B,
        "start_time_unix_nano": _I64, "time_unix_nano": _I64, "flags": _U32, "attributes": _S,
        "value_int": _I64, "value_double": _F64,
        "count": _U64, "sum": _F64, "min": _F64, "max": _F64,
        "bucket_counts": pa.list_(_U64), "explicit_bounds": pa.list_(_F64),
        "scale": _I32, "zero_count": _U64, "zero_threshold": _F64,
        "positive_offset": _I32, "positive_bucket_counts": pa.list_(_U64),
        "negative_offset": _I32, "negative_bucket_counts": pa.list_(_U64),
        "quantiles": pa.list_(_F64), "quantile_values": pa.list_(_F64), "exemplars": _S,
        **CONTEXT_COLUMNS, **_TAIL, **INGEST,
    }
)  # fmt: skip

TABLES: Final[dict[str, pa.Schema]] = {"spans": SPANS, "logs": LOGS, "metrics": METRICS}
