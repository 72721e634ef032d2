"""Who asks, as far as it is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from engram.collector.access.scopes import Scope, allow


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever has shown a token, or a program of this machine where none is asked for."""

    name: str
    """The token's name, or `local`."""

    scopes: frozenset[Scope]
    service: str | None = None
    """The one service whose memories it sees and writes; None is all."""

    token: str | None = None
    """The token's id."""

    def may(self, scope: Scope) -> bool:
        """Whether it has a scope."""
        return allow(self.scopes, scope)

    @property
    def trust(self) -> str:
        """How far what it writes is believed. From its token, never from what it says."""
        return "operator" if Scope.ADMIN in self.scopes else "agent"

    @property
    def key(self) -> str:
        """What tells it from others."""
        return self.token or self.name


LOCAL: Final = Principal("local", frozenset((Scope.INGEST, Scope.READ, Scope.WRITE)))
"""Any program of this machine, on loopback and as long as there are no tokens."""
