"""Who vouches for a request: a mark on its resources that only Engram's own doors may set.

The rules read the mark, so it is in the lake with the telemetry and a rebuild reads it again. A
sender that writes it into its own telemetry is not believed: `engine.admit` takes it out, except
`browser`, which only lowers what is believed.
"""

from __future__ import annotations

from typing import Any, Final

from engram.exporters.otlp.wire import STRICT_REQUEST
from engram.exporters.signals import Signal

TRUST: Final = "engram.trust"
"""Attribute of the resource: `operator`, `agent` or `browser`. Without it the sender is an app."""

VOUCHED: Final = ("operator", "agent")
"""What REST and MCP say of what they append for somebody who has shown a token."""

_KEY: Final = TRUST.encode()


def unvouched(signal: Signal, raw: bytes) -> bytes:
    """An inflated, checked request without marks of trust that its sender may not give itself."""
    if _KEY not in raw:
        return raw
    request: Any = STRICT_REQUEST[signal].FromString(raw)
    batches = getattr(
        request,
        {"traces": "resource_spans", "logs": "resource_logs"}.get(signal, "resource_metrics"),
    )
    changed = False
    for batch in batches:
        given = batch.resource.attributes
        kept = [one for one in given if one.key != _KEY or one.value.string_value == b"browser"]
        if len(kept) < len(given):
            del given[:]
            given.extend(kept)
            changed = True
    return request.SerializeToString() if changed else raw
