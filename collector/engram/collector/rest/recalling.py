"""What recall puts together: context windows, known errors, decisions, endpoints."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated

from fastapi import Query, Request, Response

from engram.collector.access import Scope
from engram.collector.rest.models import ContextIn, DecisionsIn, KnownErrorIn
from engram.collector.rest.problems import Problem
from engram.collector.rest.routing import (
    answer,
    backend,
    group,
    instant,
    narrowed,
    needs,
    noted,
    problems,
)
from engram.instrumentation.api.values import json_text
from engram.learning.recall.telling import told

router = group("recall")

_OUT = problems()


@router.post("/context", responses=_OUT, **needs(Scope.READ))
async def context(request: Request, asked: ContextIn) -> Response:
    """What an agent or a person should know before the next step, within a budget."""
    whose = narrowed(request, asked.user_id, asked.session_id, asked.service)
    window = await backend(request).work(
        partial(
            backend(request).recall.context_window, scope=whose, window_size=asked.window_size,
            include_similar=asked.include_similar, max_tokens=asked.max_tokens,
            query=asked.query, as_of_ns=instant(asked.as_of),
        )
    )  # fmt: skip
    ids = [one.id for one in window.items]
    if asked.format == "markdown":
        noted(request, "context window", ids=ids, scope=whose.given)
        return Response(str(window), media_type="text/markdown; charset=utf-8")
    body = {"messages": window.messages()} if asked.format == "messages" else window.json()
    return answer(request, body, what="context window", ids=ids, scope=whose.given)


@router.post("/known-errors", responses=_OUT, **needs(Scope.READ))
async def known_errors(request: Request, asked: KnownErrorIn) -> Response:
    """Whether a failure was seen before, how often, and what helped; `text` says it, fenced."""
    if not (asked.text or asked.type or asked.message or asked.file):
        raise Problem(422, "say something of the failure: text, type, message or file")
    service = narrowed(request, service=asked.service).service
    found = await backend(request).work(
        partial(
            backend(request).recall.known_error, asked.text, error_type=asked.type,
            message=asked.message, file=asked.file, service=service,
        )
    )  # fmt: skip
    body = {
        **asdict(found), "best": None if found.best is None else asdict(found.best),
        "text": told(found),
    }  # fmt: skip
    ids = [one.memory_id for one in (*found.patterns, *found.similar)]
    return answer(request, body, what="known errors", ids=ids, scope={"service": service})


@router.post("/decisions/history", responses=_OUT, **needs(Scope.READ))
async def decisions(request: Request, asked: DecisionsIn) -> Response:
    """Similar past decisions, and how often each option went well."""
    whose = narrowed(request, service=asked.service)
    found = await backend(request).work(
        partial(
            backend(request).recall.decision_history, json_text(asked.context), asked.options,
            scope=whose, limit=asked.limit,
        )
    )  # fmt: skip
    ids = [one.id for one in found.similar]
    return answer(request, found.json(), what="decision history", ids=ids, scope=whose.given)


@router.get("/endpoints", responses=_OUT, **needs(Scope.READ))
async def endpoints(
    request: Request,
    operation: Annotated[str, Query(min_length=1, max_length=500)],
    service: str | None = None,
) -> Response:
    """Of an operation (`GET /orders/{id}`): past requests, their outcomes, what was learned."""
    service = narrowed(request, service=service).service
    found = await backend(request).work(
        partial(backend(request).recall.endpoint_memory, operation, service=service)
    )
    return answer(
        request, found.json(), what="endpoint memory", ids=found.requests,
        scope={"service": service},
    )  # fmt: skip
