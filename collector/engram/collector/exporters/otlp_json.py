"""OTLP/JSON: protobuf's JSON mapping, with ids in hexadecimal and enums as numbers."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from google.protobuf.json_format import MessageToDict

_IDS: Final = frozenset({"traceId", "spanId", "parentSpanId"})
_ATTRIBUTE_LISTS: Final = frozenset({"attributes", "filteredAttributes", "body"})


def dumps(request: Any) -> str:
    """One line of JSON for an OTLP request of the official classes."""
    tree = MessageToDict(request, use_integers_for_enums=True)
    _hex_ids(tree)
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":"))


def _hex_ids(tree: Any) -> None:
    """Turn the ids from base64. Attributes hold none: what is called so there is a sender's."""
    if isinstance(tree, list):
        for one in tree:
            _hex_ids(one)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if key in _IDS:
                tree[key] = base64.b64decode(value).hex()
            elif key not in _ATTRIBUTE_LISTS:
                _hex_ids(value)
