"""Who calls a tool, for as long as the call lasts, and what it may."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from engram.collector.access import LOCAL, Principal
from engram.collector.access import Scope as Permission
from engram.exporters.errors import BadRequest
from engram.learning.recall.items import Scope

CALLER: Final[ContextVar[Principal]] = ContextVar("engram_mcp_caller", default=LOCAL)


def writer() -> Principal:
    """The caller, who may write.

    Raises:
        BadRequest: it may not.
    """
    caller = CALLER.get()
    if not caller.may(Permission.WRITE):
        raise BadRequest(f"the token {caller.name} may only read; writing needs the scope write")
    return caller


def whole(what: str) -> None:
    """Insist that the caller may see everything.

    Raises:
        BadRequest: its token is for one service.
    """
    if (service := CALLER.get().service) is not None:
        raise BadRequest(
            f"{what} looks at all services, and this token is for {service} alone; "
            "ask with recall and get"
        )


def within(scope: Scope) -> Scope:
    """The part of a scope that the caller may see.

    Raises:
        BadRequest: none of it.
    """
    service = CALLER.get().service
    if service is None:
        return scope
    if scope.service not in (None, service):
        raise BadRequest(f"this token is for the service {service} alone")
    return Scope(scope.user_id, scope.session_id, service)
