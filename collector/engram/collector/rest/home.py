"""The home as a whole: status, readiness, reports, SQL."""

from __future__ import annotations

from datetime import date
from functools import partial
from typing import Any

from fastapi import Request, Response

from engram.collector.access import Scope
from engram.collector.rest.models import RowsOut, SqlIn
from engram.collector.rest.problems import Problem, unavailable
from engram.collector.rest.routing import (
    answer,
    backend,
    group,
    needs,
    problems,
    who,
)

router = group("home")

_JSON = needs(Scope.READ, json=True)


@router.get("/status", responses=problems(), **needs(Scope.READ))
async def status(request: Request) -> Response:
    """Rows of each table, memories of each type, and whether the collector runs."""
    from engram.exporters.ask import ask
    from engram.exporters.errors import EngramError

    back = backend(request)

    def look() -> dict[str, Any]:
        try:
            collector = ask(back.home, "status", timeout_s=5.0)
        except EngramError as error:
            collector = {"running": False, "message": str(error)}
        else:
            collector = {"running": True, **collector}
        return {"home": str(back.home.root), **back.lake.counts(), "collector": collector}

    if who(request).service is not None:
        raise Problem(403, "counts are of all services, and this token is for one", "scope")
    return answer(request, await back.work(look), what="status")


@router.get("/reports/{day}", responses=problems(), **needs(Scope.READ))
async def report(request: Request, day: date) -> Response:
    """The learnings of a day, with numbers, intervals and evidence."""
    from engram.collector.report import facts, report

    if who(request).service is not None:
        raise Problem(403, "a report is of all services, and this token is for one", "scope")
    told = await backend(request).work(partial(report, backend(request).home, day.isoformat()))
    return answer(request, facts(told), what=f"report {day}")


@router.post(
    "/sql", responses={200: {"model": RowsOut}, **problems(415)},
    **_JSON,
)  # fmt: skip
async def sql(request: Request, asked: SqlIn) -> Response:
    """One reading statement, in a process of its own with limits of time, memory and rows."""
    if who(request).service is not None:
        raise Problem(403, "SQL sees all services, and this token is for one", "scope")
    found = await backend(request).work(
        partial(backend(request).sandbox.run, asked.sql, asked.max_rows)
    )
    body = {
        "columns": found.columns, "types": found.types, "rows": found.rows,
        "truncated": found.truncated, "elapsed_ms": found.elapsed_ms,
    }  # fmt: skip
    return answer(request, body, what="sql", count=len(found.rows), scope={"sql": asked.sql})


ready = group("ready")
ready.prefix = ""


@ready.get("/readyz", responses=problems())
async def readyz(request: Request) -> Response:
    """Whether questions can be answered: 503 until the lake is there and can be read."""
    back = backend(request)
    if not back.home.catalog.exists():
        raise unavailable("there is no lake yet: nothing has come in", 5.0)
    await back.work(partial(back.lake.counts))
    return Response(b'{"status":"ready"}', media_type="application/json")
