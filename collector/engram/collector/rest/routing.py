"""What every route does alike: who may, which parameters there are, how an answer is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from fastapi import APIRouter, Depends, Request, Response

from engram.collector.access import Principal, Scope
from engram.collector.access.guard import require
from engram.collector.find import moment
from engram.collector.output import dumps
from engram.collector.rest.backend import Backend
from engram.collector.rest.door import PREFIX
from engram.collector.rest.items import FIELDS, etag, matches, told
from engram.collector.rest.models import ProblemOut
from engram.collector.rest.problems import MEDIA_TYPE, Problem
from engram.exporters.errors import NotFound
from engram.learning.recall import Item
from engram.learning.recall import Scope as Whose

_PROBLEMS: Final = {
    400: "the query or body cannot be meant",
    401: "a token is needed, or this one is not known",
    403: "the token lacks a scope, or the request is a strange page's",
    404: "there is no such thing",
    413: "the body is too large",
    422: "a field is wrong",
    429: "too many requests",
    500: "failed inside",
    503: "not now",
}


def problems(*more: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that are problems."""
    said = {**_PROBLEMS, **{code: {405: "", 412: "it has changed", 415: ""}[code] for code in more}}
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemOut"}}}
    return {code: {"description": text, "content": content} for code, text in said.items()}


def group(name: str) -> APIRouter:
    """A router for one group of routes."""
    return APIRouter(prefix=PREFIX, tags=[name])


def needs(scope: Scope, *, json: bool = False) -> dict[str, Any]:
    """Arguments of a route that needs a scope, and JSON: the checks, and what the document says."""

    def check(request: Request) -> None:
        require(who(request), scope)

    checks = [check, _known_parameters, *([_json_body] if json else [])]
    return {
        "dependencies": [Depends(one) for one in checks],
        "openapi_extra": {"security": [{"token": [scope.value]}, {}]},
    }


def who(request: Request) -> Principal:
    """Who asks; the door has looked."""
    found: Principal = request.scope["engram.principal"]
    return found


def backend(request: Request) -> Backend:
    """What answers."""
    found: Backend = request.app.state.backend
    return found


def _known_parameters(request: Request) -> None:
    """Refuse query parameters that the route does not have: a typo would change the question."""
    known: Mapping[str, set[str]] = request.app.state.parameters()
    names = known.get(request.scope["route"].path_format, set())
    for name in request.query_params:
        if name not in names:
            there_are = ", ".join(sorted(names)) or "none"
            raise Problem(
                400, f"there is no parameter {name!r}; there are {there_are}", "parameter"
            )


def base(request: Request) -> str:
    """Where this API is, as the client named it."""
    return f"{request.url.scheme}://{request.url.netloc}{PREFIX}"


def narrowed(
    request: Request,
    user_id: str | None = None,
    session_id: str | None = None,
    service: str | None = None,
) -> Whose:
    """Whose memories a question is about; a token of one service sees no other.

    Raises:
        Problem: 403, another service was asked for.
    """
    own = who(request).service
    if own is not None and service not in (None, own):
        raise Problem(403, f"the token {who(request).name} is for the service {own} only", "scope")
    return Whose(user_id, session_id, own or service)


def mine(request: Request, item: Item) -> Item:
    """The memory, if the token may see it.

    Raises:
        NotFound: it is of another service; whether it exists is not told.
    """
    own = who(request).service
    if own is not None and item.service != own:
        raise NotFound(f"there is no memory {item.id}")
    return item


def instant(value: str | int | None) -> int | None:
    """A time as nanoseconds."""
    return None if value is None else moment(str(value))


def answer(
    request: Request,
    body: Any,
    *,
    what: str,
    ids: Iterable[str] = (),
    count: int | None = None,
    scope: Mapping[str, Any] | None = None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A JSON answer; the rest is for the audit log."""
    noted(request, what, ids=ids, count=count, scope=scope)
    raw = dumps(body).encode("utf-8", "replace")
    return Response(raw, status, dict(headers or {}), "application/json")


def noted(
    request: Request,
    what: str,
    *,
    ids: Iterable[str] = (),
    count: int | None = None,
    scope: Mapping[str, Any] | None = None,
) -> None:
    """Say what the audit log shall say; the door writes it when the answer is out."""
    request.scope["engram.audit"] = {
        "what": what, "ids": list(ids), "count": count, "scope": dict(scope or {}),
    }  # fmt: skip


def one(request: Request, item: Item, fields: Iterable[str] = FIELDS) -> Response:
    """One memory with its ETag, or 304."""
    tag = etag(item)
    headers = {"etag": tag, "cache-control": "private, no-cache"}
    known = request.headers.get("if-none-match")
    if known is not None and matches(known, tag):
        return Response(status_code=304, headers=headers)
    body = told(item, base(request), fields)
    return answer(request, body, what="GET memory", ids=[item.id], headers=headers)


def unchanged(request: Request, item: Item) -> None:
    """Insist on what `If-Match` says.

    Raises:
        Problem: 412, the memory has changed.
    """
    wanted = request.headers.get("if-match")
    if wanted is not None and not matches(wanted, etag(item)):
        raise Problem(412, f"the memory {item.id} is not what it was; read it again")


def _json_body(request: Request) -> None:
    """Insist on JSON: forms and plain text are what a strange page can send unasked.

    Raises:
        Problem: 415.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise Problem(415, f"the body must be application/json, not {kind or 'of no type'}")


Call = Callable[[], Any]

__all__ = [
    "ProblemOut",
    "answer",
    "backend",
    "base",
    "group",
    "instant",
    "mine",
    "narrowed",
    "needs",
    "noted",
    "one",
    "problems",
    "unchanged",
    "who",
]
