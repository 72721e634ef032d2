"""Whose word a memory is: from the authenticated way it came in, never from what it says.

A resource attribute carries it, so that it is in the lake and memories rebuilt from there have the
same. Whoever sends OTLP over the network may say less of itself than `app`, and not more: what a
request claims is taken out before it is logged. What comes by the control socket, which is open to
the owner of the home alone, may be marked as Engram's own or as an operator's.
"""

from __future__ import annotations

from typing import Final

from engram.exporters.signals import Signal

ATTRIBUTE: Final = "engram.trust"
"""Of the resource."""

LEAST_FIRST: Final = ("unknown", "browser", "app", "agent", "operator", "engram")
"""Of several records of one memory the least trusted one counts."""

CLAIMED: Final = ("unknown", "browser")
"""What anybody may say of itself."""

GIVEN: Final = ("agent", "operator", "engram")
"""What only the owner of the home may say."""

_BYTES: Final = ATTRIBUTE.encode()
_CLAIMED: Final = tuple(one.encode() for one in CLAIMED)


def without_claims(signal: Signal, raw: bytes) -> bytes:
    """A request (protobuf) without trust that it may not claim. Hardly ever is there any."""
    if _BYTES not in raw:
        return raw
    # The strict view: a sender is not refused for invalid UTF-8, here neither.
    from engram.exporters.otlp.wire import STRICT_REQUEST

    request = STRICT_REQUEST[signal].FromString(raw)
    batches = next(iter(value for _, value in request.ListFields()), ())
    changed = False
    for batch in batches:
        attributes = batch.resource.attributes
        allowed = [
            one for one in attributes if one.key != _BYTES or one.value.string_value in _CLAIMED
        ]
        if len(allowed) != len(attributes):
            changed = True
            del attributes[:]
            attributes.extend(allowed)
    sent: bytes = request.SerializeToString() if changed else raw
    return sent


def least(values: list[str]) -> str:
    """The least of some; what is not known here counts as least."""
    return min(values, key=lambda one: (_place(one), one))


def _place(value: str) -> int:
    return LEAST_FIRST.index(value) if value in LEAST_FIRST else -1


__all__ = ["ATTRIBUTE", "CLAIMED", "GIVEN", "LEAST_FIRST", "least", "without_claims"]
