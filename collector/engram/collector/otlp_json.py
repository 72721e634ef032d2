"""OTLP/JSON to protobuf, by Google's own converter: the one seam that `engram import` uses.

OTLP/JSON differs from protobuf's JSON in ids, which are hexadecimal instead of base64.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from google.protobuf import json_format

from engram.exporters.errors import BadRequest
from engram.exporters.otlp.wire import OFFICIAL_REQUEST
from engram.exporters.signals import Signal

_IDS: Final = frozenset(
    {"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"}
)


def json_to_request(signal: Signal, body: bytes) -> bytes:
    """An OTLP request in JSON as the same request in protobuf.

    Raises:
        BadRequest: it is no JSON, or no request of this signal.
    """
    try:
        found = json.loads(body)
        if not isinstance(found, dict):
            raise ValueError("not an object")
        _ids_to_base64(found)
        message = OFFICIAL_REQUEST[signal]()
        json_format.ParseDict(found, message, ignore_unknown_fields=True)
    except (ValueError, RecursionError, json_format.ParseError) as error:
        raise BadRequest(f"this is no OTLP request in JSON: {error}") from None
    raw: bytes = message.SerializeToString()
    return raw


def _ids_to_base64(value: Any) -> None:
    """Attributes are lists of {key, value}, so a key of this name is always an id's."""
    if isinstance(value, list):
        for one in value:
            _ids_to_base64(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            if key in _IDS and isinstance(one, str):
                try:
                    value[key] = base64.b64encode(bytes.fromhex(one)).decode()
                except ValueError:
                    raise BadRequest(f"{key} {one!r} is not hexadecimal") from None
            elif isinstance(one, list | dict):
                _ids_to_base64(one)
