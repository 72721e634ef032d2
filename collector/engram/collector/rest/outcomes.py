"""Outcomes: what came of a decision, or of anything else that is remembered."""

from __future__ import annotations

from datetime import UTC, datetime
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
from engram.collector.rest.writing import Event
from engram.instrumentation.api.values import json_text

router = group("outcomes")

_JSON = needs(Scope.WRITE, json=True)


@router.post(
    "/outcomes", status_code=201, responses={201: {"model": OutcomeOut}, **problems(415)},
    **_JSON,
)  # fmt: skip
async def record(request: Request, given: OutcomeIn) -> Response:
    """Record what came of it. A memory has one outcome; the memory keeps its title and content."""
    back = backend(request)
    target = mine(request, await back.work(partial(back.recall.get, given.target_id)))
    event = Event(
        target.memory_type, f"Outcome: {json_text(given.outcome, 80)}", amends=target.id,
        outcome=given.success, service=target.service,
        payload={
            "outcome": given.outcome, "outcome_value": given.value,
            "outcome_success": given.success, "outcome_notes": given.notes,
            "outcome_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "outcome_by": who(request).name,
        },
    )  # fmt: skip
    written = await back.work(partial(back.writer.write, event, who(request), wait=given.wait))
    body = {"id": target.id, "position": written.position, "committed": written.committed}
    headers = {"location": f"{base(request)}/memories/{target.id}"}
    return answer(
        request, body, what="record outcome", ids=[target.id], status=201, headers=headers
    )
