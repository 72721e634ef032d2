"""Questions: search."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import Query, Request, Response

from engram.collector.access import Scope
from engram.collector.rest.items import chosen, told
from engram.collector.rest.models import FoundOut, Limit, Moment, ScopeIn, SearchIn
from engram.collector.rest.routing import (
    answer,
    backend,
    base,
    group,
    instant,
    narrowed,
    needs,
    problems,
)

router = group("search")

_OUT: dict[int | str, dict[str, Any]] = {200: {"model": FoundOut}, **problems()}


@router.post("/search", responses=_OUT, **needs(Scope.READ))
async def search(request: Request, asked: SearchIn, fields: str | None = None) -> Response:
    """The memories that answer a question, best first."""
    return await _answer(request, asked, fields)


@router.get("/search", responses=_OUT, **needs(Scope.READ))
async def search_by_url(
    request: Request,
    q: Annotated[str, Query(min_length=1, max_length=20_000)],
    type: Annotated[list[str] | None, Query()] = None,
    tag: Annotated[list[str] | None, Query()] = None,
    user_id: str | None = None,
    session_id: str | None = None,
    service: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    min_importance: Annotated[float | None, Query(ge=0, le=1)] = None,
    limit: Limit = 10,
    as_of: Moment | None = None,
    explain: bool = False,
    fold: bool = True,
    fields: str | None = None,
) -> Response:
    """The same by URL."""
    asked = SearchIn.model_construct(
        query=q,
        scope=ScopeIn.model_construct(user_id=user_id, session_id=session_id, service=service),
        types=type or [], tags=tag or [], since=since, until=until,
        min_importance=min_importance, limit=limit, as_of=as_of, explain=explain, fold=fold,
    )  # fmt: skip
    return await _answer(request, asked, fields)


async def _answer(request: Request, asked: SearchIn, fields: str | None) -> Response:
    names = chosen(fields)
    whose = narrowed(request, asked.scope.user_id, asked.scope.session_id, asked.scope.service)
    found = await backend(request).work(
        partial(
            backend(request).recall.search, asked.query, scope=whose, types=asked.types,
            tags=asked.tags, since_ns=instant(asked.since), until_ns=instant(asked.until),
            min_importance=asked.min_importance, limit=asked.limit,
            as_of_ns=instant(asked.as_of), explain=asked.explain, fold=asked.fold,
        )
    )  # fmt: skip
    where = base(request)
    body = {
        "items": [told(one, where, names) for one in found.items],
        "note": found.note,
        "explanation": found.explanation,
    }
    ids = [one.id for one in found.items]
    return answer(request, body, what="search", ids=ids, scope=whose.given)
