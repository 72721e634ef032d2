"""What a token is good for."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from engram.exporters.errors import BadRequest


class Scope(StrEnum):
    """One permission."""

    INGEST = "ingest"
    """Send telemetry by OTLP."""

    BROWSER = "browser"
    """Send telemetry as a web page does: logs and traces, little at a time, trust `browser`."""

    READ = "read"
    """Ask: search, memories, context, SQL."""

    WRITE = "write"
    """Remember, edit, pin, hide and supersede, record outcomes; with trust `agent`."""

    ADMIN = "admin"
    """All but `browser`, and what is written has trust `operator`."""


IMPLIED: Final = {Scope.ADMIN: frozenset((Scope.INGEST, Scope.READ, Scope.WRITE))}
"""What a scope brings with it."""

REST: Final = frozenset((Scope.READ, Scope.WRITE, Scope.ADMIN))
OTLP: Final = frozenset((Scope.INGEST, Scope.BROWSER, Scope.ADMIN))


def scopes_of(text: str) -> frozenset[Scope]:
    """`read,write` as scopes.

    Raises:
        BadRequest: there are none, or one is unknown.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = [one.value for one in Scope]
    for name in names:
        if name not in known:
            raise BadRequest(f"there is no scope {name!r}; there are {', '.join(known)}")
    if not names:
        raise BadRequest(f"say what the token is for: --scope {','.join(known)}")
    return frozenset(map(Scope, names))


def allow(given: Iterable[Scope], wanted: Scope) -> bool:
    """Whether these scopes are good for that."""
    return any(one is wanted or wanted in IMPLIED.get(one, ()) for one in given)


def ordered(scopes: Iterable[Scope]) -> list[str]:
    """Names in the order of the class."""
    found = set(scopes)
    return [one.value for one in Scope if one in found]
