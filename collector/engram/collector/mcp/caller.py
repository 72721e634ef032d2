"""Who calls a tool, for as long as the call lasts."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from engram.exporters.errors import BadRequest
from engram.learning.recall.items import Scope


@dataclass(frozen=True, slots=True)
class Caller:
    """An agent, as far as its token tells."""

    name: str = "local"
    may_write: bool = True
    service: str | None = None
    """The one service whose memories it sees; None is all."""
    trust: str = "agent"
    """How far what it writes is believed; never from what it says."""

    def whole(self, what: str) -> None:
        """Insist that it may see everything.

        Raises:
            BadRequest: its token is for one service.
        """
        if self.service is not None:
            raise BadRequest(
                f"{what} looks at all services, and this token is for {self.service} alone; "
                "ask with recall and get"
            )

    def within(self, scope: Scope) -> Scope:
        """The part of a scope that it may see.

        Raises:
            BadRequest: none of it.
        """
        if self.service is None:
            return scope
        if scope.service not in (None, self.service):
            raise BadRequest(f"this token is for the service {self.service} alone")
        return Scope(scope.user_id, scope.session_id, self.service)


LOCAL: Final = Caller()

CALLER: Final[ContextVar[Caller]] = ContextVar("engram_mcp_caller", default=LOCAL)
