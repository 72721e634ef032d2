"""The page of `engram serve`, its own few reads, and the way to `/api/v1`: a bare ASGI application.

Memory text was written by somebody's users, programs and models. It is data: always escaped, under
a policy that runs no script at all, and never sent to a page of another site (`access.guard` looks
at Host and Origin, and there is no CORS).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qs, urlencode

from engram.collector import query
from engram.collector.access import AuditLog, Denied, Guard
from engram.collector.access import Scope as Permission
from engram.collector.find import PARAMETERS, answer, importance, moment
from engram.collector.kept import Kept
from engram.collector.mcp.http import PATH as MCP
from engram.collector.mcp.http import McpApp
from engram.collector.output import dumps
from engram.collector.rest import Door
from engram.exporters.errors import BadRequest, EngramError, NotFound
from engram.exporters.home import Home

if TYPE_CHECKING:
    import duckdb


_T = TypeVar("_T")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_LOG = logging.getLogger("engram.serve")

_MOST: Final = 200
"""The largest `limit`."""

_ONE_MEMORY: Final = "/api/memories/"
"""Followed by an id."""

_HEADERS: Final = (
    (b"content-security-policy",
     b"default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
     b"frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)  # fmt: skip


_READ: Final[Mapping[str, Callable[[str], Any]]] = {
    "user_id": str, "session_id": str, "since_ns": moment, "until_ns": moment,
    "min_importance": importance,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Response:
    """What goes back."""

    status: int
    body: bytes
    content_type: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    ids: tuple[str, ...] = ()
    """The memories in it, for the audit log."""


@dataclass(frozen=True, slots=True)
class Question:
    """The query string, checked."""

    text: str
    types: tuple[str, ...]
    service: str | None
    limit: int
    filters: Mapping[str, Any] = field(default_factory=dict)
    """Of a search: user, session, times, importance."""

    @classmethod
    def parse(cls, raw: bytes, *, default_limit: int) -> Question:
        """Read `q`, `limit` and the filters.

        Raises:
            BadRequest: a value cannot be meant.
        """
        try:
            given = parse_qs(raw.decode("ascii"), errors="strict", max_num_fields=50)
        except ValueError as error:
            raise BadRequest(f"the query string cannot be read: {error}") from error
        text = given.get("limit", [str(default_limit)])[0]
        if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= _MOST:
            raise BadRequest(f"limit must be a whole number from 1 to {_MOST}, not {text!r}")
        types = tuple(one for one in given.get("type", []) if one)
        filters: dict[str, Any] = {
            name: read(given[PARAMETERS[name]][0])
            for name, read in _READ.items()
            if PARAMETERS[name] in given
        }
        service = given.get("service", [None])[0]
        return cls(given.get("q", [""])[0].strip(), types, service, int(text), filters)


class Lake:
    """One read-only connection, opened at the first question and again after a failure."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None

    def counts(self) -> dict[str, dict[str, int]]:
        """Rows of each table, memories of each type; nothing when there is no lake yet."""
        try:
            return self._ask(query.counts)
        except NotFound:
            return {"tables": {}, "memory_types": {}}

    def newest(
        self, types: tuple[str, ...], service: str | None, limit: int
    ) -> list[dict[str, Any]]:
        """The newest memories."""
        where, values = ["true"], list[Any]()
        if types:
            where.append("list_contains(?, type)")
            values.append(list(types))
        if service:
            where.append("service_name = ?")
            values.append(service)
        sql = (
            "SELECT id, type, make_timestamp_ns(time_unix_nano) AS time, title, content, "
            "importance, outcome, duration_ns, service_name AS service, subject, trace_id, "
            "attributes, source, trust "
            f"FROM memories WHERE {' AND '.join(where)} ORDER BY time_unix_nano DESC LIMIT ?"
        )

        def ask(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
            cursor = connection.execute(sql, [*values, limit])
            names = [column[0] for column in cursor.description or []]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

        try:
            return self._ask(ask)
        except NotFound:
            return []

    def context(self, memory_id: str, most: int) -> dict[str, Any]:
        """One memory with what belongs to it."""
        from engram.learning.context import context

        return self._ask(lambda connection: context(connection, memory_id, most=most))

    def close(self) -> None:
        """Let go of the lake. Safe twice."""
        with self._lock:
            self._drop()

    def _ask(self, work: Callable[[duckdb.DuckDBPyConnection], _T]) -> _T:
        with self._lock:
            if self._connection is None:
                self._connection = query.open_reader(self._home, threads=1, memory_limit="160MB")
            try:
                return work(self._connection)
            except (BadRequest, NotFound):
                raise  # of the question, not of the connection
            except Exception:
                self._drop()
                raise

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Api:
    """The ASGI application."""

    def __init__(
        self, home: Home, guard: Guard | None = None, audit: AuditLog | None = None
    ) -> None:
        self._home = home
        self._guard = guard or Guard(home)
        self._audit = audit or AuditLog(home)
        self._kept = Kept(home)
        self._door = Door(self._kept, self._guard, self._audit)
        self._lake = Lake(home)
        self._mcp = McpApp(self._kept, self._audit)
        self._routes: dict[str, Callable[[Question], Response]] = {
            "/": self._page,
            "/api/status": self._status,
            "/api/memories": self._memories,
            "/api/search": self._search,
        }

    def close(self) -> None:
        """Let go of the lake and the index."""
        self._door.close()
        self._mcp.close()
        self._audit.close()
        self._lake.close()
        self._kept.close()

    async def stop(self) -> None:
        """End what runs in the event loop. Before `close`, and safe twice."""
        await self._mcp.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        if self._door.serves(scope["path"]):
            await self._door(scope, receive, send)
            return
        if scope["path"] == MCP:
            try:
                principal = self._guard.admit(scope, Permission.READ)
            except Denied as error:
                response = _error(error.status, error.detail, headers=error.headers)
            else:
                await self._mcp(dict(scope), receive, send, principal)
                return
        else:
            response = await self._respond(scope)
        body = b"" if scope["method"] == "HEAD" else response.body
        headers = [
            (b"content-type", response.content_type.encode()),
            (b"content-length", str(len(response.body)).encode()),
            *_HEADERS,
            *response.headers,
        ]
        if response.status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        with contextlib.suppress(OSError):  # the reader went away
            await send(
                {"type": "http.response.start", "status": response.status, "headers": headers}
            )
            await send({"type": "http.response.body", "body": body})

    async def _respond(self, scope: Scope) -> Response:
        path: str = scope["path"]
        try:
            if path in ("/health", "/style.css"):
                self._guard.visitor(scope)
                who = ""
            else:
                principal = self._guard.admit(scope, Permission.READ)
                who = principal.name
                if principal.service is not None:
                    why = f"this is about all services, and the token {who} is for one: use /api/v1"
                    return _error(403, why)
        except Denied as error:
            return _error(error.status, error.detail, headers=error.headers)
        if scope["method"] not in ("GET", "HEAD"):
            return _error(405, "reads only; telemetry comes in by OTLP")
        if path == "/health":
            return _json(200, {"status": "ok"})
        if path == "/style.css":
            return Response(200, _STYLE.encode(), "text/css; charset=utf-8")
        route = self._routes.get(path) or self._memory_route(path)
        if route is None:
            return _error(404, f"no {path}; there are {', '.join([*self._routes, MCP, '/health'])}")
        try:
            default = 40 if path in ("/", "/api/memories") else 10
            default = 20 if path.startswith(_ONE_MEMORY) else default
            question = Question.parse(scope["query_string"], default_limit=default)
            response = await asyncio.to_thread(route, question)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered and logged
            status, text = _mapped(error)
            return _error(status, text, home=str(self._home.root))
        if path != "/api/status":
            whose = {"service": question.service, **question.filters}
            self._audit.note(who, f"GET {path}", via="rest", scope=whose, ids=response.ids)
        return response

    def _status(self, question: Question) -> Response:
        return _json(200, {"home": str(self._home.root), **self._lake.counts()})

    def _memories(self, question: Question) -> Response:
        found = self._lake.newest(question.types, question.service, question.limit)
        body = {"home": str(self._home.root), "memories": found}
        return _json(200, body, ids=_ids(found))

    def _memory_route(self, path: str) -> Callable[[Question], Response] | None:
        """The route of one memory: its id is in the path."""
        id_ = path.removeprefix(_ONE_MEMORY)
        if id_ == path or not id_ or "/" in id_:
            return None

        def show(question: Question) -> Response:
            told = self._lake.context(id_, question.limit)
            return _json(200, {"home": str(self._home.root), **told}, ids=(id_,))

        return show

    def _search(self, question: Question) -> Response:
        if not question.text:
            raise BadRequest("q is missing: /api/search?q=what+failed")
        found = self._answer(question)
        return _json(200, {"home": str(self._home.root), **found}, ids=_ids(found["hits"]))

    def _answer(self, question: Question) -> dict[str, Any]:
        filters = {**question.filters, "types": question.types, "service": question.service}
        return answer(self._kept.recall, question.text, question.limit, filters)

    def _page(self, question: Question) -> Response:
        counts = self._lake.counts()
        note = ""
        try:
            if question.text:
                found = self._answer(question)
                memories, note = found["hits"], found["note"]
            else:
                memories = self._lake.newest(question.types, question.service, question.limit)
        except Exception as error:  # noqa: BLE001 - the page says it
            memories, note = [], _mapped(error)[1]
        html = page(counts, memories, question, note).encode("utf-8", "replace")
        return Response(200, html, "text/html; charset=utf-8", ids=_ids(memories))


def _mapped(error: Exception) -> tuple[int, str]:
    """The one map of errors to HTTP statuses and texts."""
    if isinstance(error, BadRequest):
        return 400, str(error)
    if isinstance(error, NotFound):
        return 404, str(error)
    if isinstance(error, EngramError):
        return 503, str(error)
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("engram"):
        return 503, f'this needs the package {error.name}: pip install "engram[server]"'
    _LOG.exception("a request failed", exc_info=error)
    return 500, f"failed inside ({type(error).__name__}); the log of engram serve says more"


def _json(status: int, body: Mapping[str, Any], ids: tuple[str, ...] = ()) -> Response:
    raw = dumps(body).encode("utf-8", "replace")
    return Response(status, raw, "application/json", ids=ids)


def _error(
    status: int, text: str, *, headers: tuple[tuple[bytes, bytes], ...] = (), **more: str
) -> Response:
    made = _json(status, {"error": {"status": status, "message": text}, **more})
    return replace(made, headers=headers)


def _ids(memories: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(str(one.get("id")) for one in memories)


# -- the page --------------------------------------------------------------------------------------

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8889; --mark: #c0392b; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.3rem; margin: 0 0 1rem } h1 a { color: inherit; text-decoration: none }
form { display: flex; gap: .5rem; margin: 0 0 1rem }
input, button { font: inherit; padding: .45rem .8rem; border: 1px solid var(--line) }
input { flex: 1 } input, button { border-radius: 6px }
nav { display: flex; flex-wrap: wrap; gap: .3rem .9rem; margin: 0 0 1.2rem; font-size: .9rem }
nav a { color: inherit } nav .on { font-weight: 600 } .soft, time { color: var(--soft) }
article { border-top: 1px solid var(--line); padding: .6rem 0 }
article header { display: flex; flex-wrap: wrap; gap: .2rem .8rem; font-size: .85rem }
article h2 { font-size: 1rem; margin: .15rem 0; overflow-wrap: anywhere }
article p { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere }
article p { max-height: 9em; overflow: auto }
.type { font-weight: 600 } .error .type { color: var(--mark) } .note { color: var(--mark) }
"""


def page(
    counts: Mapping[str, Mapping[str, int]],
    memories: Iterable[Mapping[str, Any]],
    question: Question,
    note: str = "",
) -> str:
    """The one page: counts, a search box, memories. All of it text from elsewhere, escaped."""
    tables = counts.get("tables", {})
    totals = " · ".join(f"{number:,} {escape(name)}" for name, number in tables.items())
    types = [
        f'<a href="/?{escape(urlencode({"type": name}))}"'
        f"{' class=on' if name in question.types else ''}>"
        f"{escape(name)} <span class=soft>{number:,}</span></a>"
        for name, number in counts.get("memory_types", {}).items()
    ]
    hidden = "".join(
        f'<input type="hidden" name="type" value="{escape(name)}">' for name in question.types
    )
    items = [_article(memory) for memory in memories]
    empty = "nothing relevant" if question.text else "no memories yet"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Engram</title>'
        '<meta name="viewport" content="width=device-width">'
        '<link rel="stylesheet" href="/style.css">'
        f'</head><body><h1><a href="/">Engram</a></h1><form action="/" method="get">{hidden}'
        '<input name="q" aria-label="search" placeholder="what failed?" '
        f'value="{escape(question.text)}">'
        f"<button>Search</button></form><p class=soft>{totals or 'the lake is empty'}</p>"
        f"<nav>{''.join(types)}</nav>"
        + (f"<p class=note>{escape(note)}</p>" if note else "")
        + ("".join(items) or f"<p class=soft>{empty}</p>")
        + "</body></html>"
    )


def _often(memory: Mapping[str, Any]) -> str:
    count = int(memory.get("count") or 1)
    return f"<span class=soft>{count:,} times</span>" if count > 1 else ""


def _article(memory: Mapping[str, Any]) -> str:
    def text(key: str, most: int = 4000) -> str:
        value = memory.get(key)
        return escape("" if value is None else str(value)[:most])

    kind = text("type")
    outcome = "error" if memory.get("outcome") == "error" or kind == "system_error" else ""
    origin = "/".join(one for one in (text("source"), text("trust")) if one)
    title, content = text("title"), text("content")
    return (
        f'<article class="{outcome}"><header><span class="type">{kind}</span>'
        f"<time>{text('time', 19)}</time><span>{text('service')}</span>"
        f"<span class=soft>{origin}</span>{_often(memory)}</header><h2>{title}</h2>"
        + (f"<p>{content}</p>" if content != title else "")
        + "</article>"
    )
