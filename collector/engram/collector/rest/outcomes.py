"""Outcomes: what came of a decision, or of anything else that is remembered."""

from __future__ import annotations

from functools import partial

from fastapi import Request, Response

from engram.collector.access import Scope
from engram.collector.rest.models import OutcomeIn, OutcomeOut
from engram.collector.rest.routing import (
    answer,
    backend,
    base,
    group,
    mine,
    needs,
    problems,
    who,
)
from engram.collector.rest.writing import outcome_of

router = group("outcomes")

_JSON = needs(Scope.WRITE, json=True)


@router.post(
    "/outcomes", status_code=201, responses={201: {"model": OutcomeOut}, **problems(415)},
    **_JSON,
)  # fmt: skip
async def record(request: Request, given: OutcomeIn) -> Response:
    """Record what came of it; the memory keeps its title and content.

    A memory has one outcome. Each try of a solution is a memory of its own, which is answered.
    """
    back = backend(request)
    target = mine(request, await back.work(partial(back.recall.get, given.target_id)))
    event = outcome_of(
        target, given.outcome, who(request), success=given.success, value=given.value,
        notes=given.notes,
    )  # fmt: skip
    written = await back.work(partial(back.writer.write, event, who(request), wait=given.wait))
    body = {"id": written.id, "position": written.position, "committed": written.committed}
    headers = {"location": f"{base(request)}/memories/{written.id}"}
    return answer(
        request, body, what="record outcome", ids=[target.id], status=201, headers=headers
    )
