"""Changes of memories: edit, pin, hide, supersede. Each is an event; nothing is overwritten."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from functools import partial
from typing import Any

from fastapi import Request, Response

from engram.collector.access import Scope
from engram.collector.rest.items import etag, told
from engram.collector.rest.memories import MemoryId
from engram.collector.rest.models import ChangedOut, ChangeIn, EditIn
from engram.collector.rest.problems import Problem
from engram.collector.rest.routing import (
    answer,
    backend,
    base,
    group,
    mine,
    needs,
    problems,
    unchanged,
    who,
)
from engram.collector.rest.writing import REVISION, Event
from engram.instrumentation.api.marks import source_key
from engram.instrumentation.api.values import plain, text

router = group("changes")

_JSON = needs(Scope.WRITE, json=True)
_OUT: dict[int | str, dict[str, Any]] = {200: {"model": ChangedOut}, **problems(412, 415)}


class Action(StrEnum):
    """What can be done with a memory besides editing it."""

    PIN = "pin"
    UNPIN = "unpin"
    HIDE = "hide"
    SHOW = "show"
    SUPERSEDE = "supersede"
    RESTORE = "restore"


@router.patch(
    "/memories/{memory_id}", responses=_OUT, **_JSON,
)  # fmt: skip
async def edit(request: Request, memory_id: MemoryId, given: EditIn) -> Response:
    """Change title, content, tags or fields. `If-Match` with an ETag: only if it is still that."""
    fields = given.model_dump(exclude_none=True, exclude={"reason", "wait"})
    if not fields:
        raise Problem(422, "nothing to change: title, content, tags or meta_data")
    if "content" in fields:
        fields["content"] = text(fields["content"])
    for name in ("tags", "meta_data"):
        if name in fields:  # as JSON text: a list or an object of its own would be flattened
            fields[name] = json.dumps(plain(fields[name]), ensure_ascii=False)
    return await _change(request, memory_id, "edit", fields, given.reason, wait=given.wait)


@router.post(
    "/memories/{memory_id}/{action}", responses=_OUT, **needs(Scope.WRITE),
)  # fmt: skip
async def act(
    request: Request, memory_id: MemoryId, action: Action, given: ChangeIn | None = None
) -> Response:
    """Pin, hide, show, supersede (`by`), or undo all edits (restore)."""
    given = given or ChangeIn()
    fields: dict[str, Any] = {}
    if action is Action.SUPERSEDE:
        if given.by is None or given.by == memory_id:
            raise Problem(422, "supersede needs `by`, the id of the memory that replaces this one")
        other = await backend(request).work(partial(backend(request).recall.get, given.by))
        mine(request, other)
        fields["by"] = given.by
    elif given.by is not None:
        raise Problem(422, f"`by` is of supersede, not of {action}")
    return await _change(request, memory_id, action.value, fields, given.reason, wait=given.wait)


async def _change(
    request: Request,
    memory_id: str,
    action: str,
    fields: Mapping[str, Any],
    reason: str | None,
    *,
    wait: bool,
) -> Response:
    back, person = backend(request), who(request)
    async with back.one_at_a_time(memory_id):
        item = mine(request, await back.work(partial(back.recall.get, memory_id)))
        unchanged(request, item)
        event = Event(
            REVISION, f"{action} {memory_id}", content=reason or action, source=source_key(),
            importance=0.1, user_id=item.user_id, session_id=item.session_id,
            service=item.service, tags=[f"action:{action}"],
            payload={"target": memory_id, "action": action, **fields, "reason": reason,
                     "actor": person.name},
        )  # fmt: skip
        # A later If-Match must see this change, so such a one is waited for in any case.
        guarded = "if-match" in request.headers
        written = await back.work(partial(back.writer.write, event, person, wait=wait or guarded))
        now = await back.work(partial(back.recall.get, memory_id)) if written.committed else None
    body = {
        "id": memory_id, "revision": written.id, "position": written.position,
        "committed": written.committed,
        "memory": None if now is None else told(now, base(request)),
    }  # fmt: skip
    headers = {} if now is None else {"etag": etag(now)}
    return answer(request, body, what=f"{action} memory", ids=[memory_id], headers=headers)
