"""Memories: the newest, one, its history and context, and a new one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from fastapi import Header, Path, Query, Request, Response

from engram.collector.access import Scope
from engram.collector.output import dumps
from engram.collector.rest import cursors
from engram.collector.rest.idempotency import Answered, source_of
from engram.collector.rest.items import FIELDS, chosen, etag, told
from engram.collector.rest.models import (
    HistoryOut,
    Id,
    ItemOut,
    Limit,
    MemoryIn,
    PageOut,
    WrittenOut,
)
from engram.collector.rest.problems import Problem
from engram.collector.rest.routing import (
    answer,
    backend,
    base,
    group,
    mine,
    narrowed,
    needs,
    noted,
    one,
    problems,
    who,
)
from engram.collector.rest.writing import ENRICHMENT, REVISION, Event, Written, own_source
from engram.exporters.errors import NotFound
from engram.instrumentation.api.marks import memory_type
from engram.instrumentation.api.values import json_text
from engram.learning.recall import Item

router = group("memories")

MemoryId = Annotated[Id, Path()]


@router.get("/memories", responses={200: {"model": PageOut}, **problems()}, **needs(Scope.READ))
async def newest(
    request: Request,
    type: Annotated[list[str] | None, Query()] = None,
    user_id: str | None = None,
    session_id: str | None = None,
    service: str | None = None,
    hours: Annotated[float | None, Query(gt=0, le=1_000_000)] = None,
    limit: Limit = 20,
    cursor: str | None = None,
    fields: str | None = None,
) -> Response:
    """The newest memories, a page at a time."""
    names = chosen(fields)
    whose = narrowed(request, user_id, session_id, service)
    question = [whose.given, type, hours]
    page = await backend(request).work(
        partial(
            backend(request).recall.recent, scope=whose, types=type or (), hours=hours,
            limit=limit, cursor=cursors.opened(cursor, question),
        )
    )  # fmt: skip
    where = base(request)
    body = {
        "items": [told(each, where, names) for each in page.items],
        "next": cursors.sealed(page.next, question),
    }
    ids = [each.id for each in page.items]
    return answer(request, body, what="memories", ids=ids, scope=whose.given)


@router.post(
    "/memories",
    status_code=201,
    responses={201: {"model": WrittenOut}, **problems(415)},
    **needs(Scope.WRITE, json=True),
)
async def create(
    request: Request,
    given: MemoryIn,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> Response:
    """Remember. The answer comes when it is on disk, with `wait` when it can be read."""
    raw = await request.body()
    made = await backend(request).answered.once(
        who(request), "memories", idempotency_key, raw,
        lambda: _create(request, given, idempotency_key, raw),
    )  # fmt: skip
    return Response(made.body, made.status, made.headers, "application/json")


async def _create(request: Request, given: MemoryIn, key: str | None, raw: bytes) -> Answered:
    person = who(request)
    service = narrowed(request, service=given.service).service
    type_ = memory_type(given.memory_type)
    if type_ in (REVISION, ENRICHMENT):
        raise Problem(422, f"{type_} is written by PATCH and the routes of a memory only")
    source = (
        own_source(given.key, person)
        if given.key is not None or key is None
        else source_of(person, key, raw)
    )
    content = json_text(given.content)
    event = Event(
        type_, given.title, content=content, source=source, tags=given.tags,
        importance=given.importance, subject=given.subject, user_id=given.user_id,
        session_id=given.session_id, service=service, payload=given.meta_data,
    )  # fmt: skip
    written = await backend(request).work(
        partial(backend(request).writer.write, event, person, wait=given.wait)
    )
    item = None
    if written.committed:
        try:
            item = await backend(request).work(partial(backend(request).recall.get, written.id))
        except NotFound:  # a filter or sampler of the operator's dropped it
            written = replace(written, committed=False)
    item = item or _as_given(event, written, person.trust)
    where = base(request)
    body = {
        **told(item, where, FIELDS), "position": written.position, "committed": written.committed,
    }  # fmt: skip
    noted(request, "remember", ids=[written.id], scope=_scope(given))
    headers = {"location": f"{where}/memories/{written.id}", "etag": etag(item)}
    if not written.committed:
        del headers["etag"]  # of what it will be is not known
    return Answered(201, dumps(body).encode("utf-8", "replace"), headers)


def _scope(given: MemoryIn) -> dict[str, Any]:
    return {"user_id": given.user_id, "session_id": given.session_id}


def _as_given(event: Event, written: Written, trust: str) -> Item:
    """The memory as it will be, but for what redaction and the rules still change."""
    return Item(
        id=written.id, memory_type=event.type, title=event.title, content=event.content or "",
        tags=tuple(sorted(set(event.tags))), meta_data=dict(event.payload or {}),
        created_at=datetime.fromtimestamp(written.time_unix_nano / 1e9, UTC),
        importance=event.importance if event.importance is not None else 0.5,
        user_id=event.user_id, session_id=event.session_id, service=event.service, source="log",
        trust=trust,
    )  # fmt: skip


@router.get(
    "/memories/{memory_id}", responses={200: {"model": ItemOut}, 304: {"description": "as known"},
                                        **problems()}, **needs(Scope.READ),
)  # fmt: skip
async def get(request: Request, memory_id: MemoryId, fields: str | None = None) -> Response:
    """One memory as it is now, with an ETag."""
    names = chosen(fields)
    item = await backend(request).work(partial(backend(request).recall.get, memory_id))
    return one(request, mine(request, item), names)


@router.get(
    "/memories/{memory_id}/history",
    responses={200: {"model": HistoryOut}, **problems()},
    **needs(Scope.READ),
)
async def history(request: Request, memory_id: MemoryId) -> Response:
    """The memory as it was written and after each change; `why` says who changed it and why."""
    versions = await backend(request).work(partial(backend(request).recall.history, memory_id))
    mine(request, versions[0])
    where = base(request)
    body = {"items": [told(each, where) for each in versions]}
    return answer(request, body, what="history", ids=[memory_id], count=len(versions))


@router.get("/memories/{memory_id}/context", responses=problems(), **needs(Scope.READ))
async def surroundings(request: Request, memory_id: MemoryId, limit: Limit = 20) -> Response:
    """The memory with all that belongs to it: its trace, cause, request, neighbours."""

    def ask() -> dict[str, Any]:
        mine(request, backend(request).recall.get(memory_id))
        return backend(request).lake.context(memory_id, limit)

    if who(request).service is not None:
        raise Problem(403, "what belongs to a memory may be of other services", "scope")
    return answer(request, await backend(request).work(ask), what="context", ids=[memory_id])
