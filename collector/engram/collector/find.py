"""Search from the command line: by the running `serve`, which has the index open, else in process.

Opening the index costs about two seconds of CPU; asking `serve` costs milliseconds.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Final

from engram.exporters.errors import EngramError, NotFound
from engram.exporters.home import Home

SERVE_FILE: Final = "serve.json"
"""Where `serve` says in the home where it listens. Stale after a crash, so it is only a hint."""


def find(
    home: Home,
    text: str,
    *,
    limit: int = 10,
    types: list[str] | None = None,
    service: str | None = None,
) -> list[dict[str, Any]]:
    """The best memories for a question, best first.

    Raises:
        NotFound: this home has no lake.
    """
    if not home.catalog.exists():
        raise NotFound(f"no lake in {home.root}; start one with: engram up --home {home.root}")
    hits = _ask_serve(home, text, limit, types, service)
    return hits if hits is not None else search_here(home, text, limit, types, service)


def search_here(
    home: Home, text: str, limit: int, types: list[str] | None, service: str | None
) -> list[dict[str, Any]]:
    """Search in this process."""
    from engram.learning.search import search

    return [
        dataclasses.asdict(hit)
        for hit in search(home, text, limit=limit, types=types or None, service=service)
    ]


def _ask_serve(
    home: Home, text: str, limit: int, types: list[str] | None, service: str | None
) -> list[dict[str, Any]] | None:
    """What serve finds; None when it is not there, or what is there is not it."""
    import http.client
    from urllib.parse import urlencode

    try:
        where = json.loads((home.root / SERVE_FILE).read_text())
        host, port = str(where["host"]), int(where["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    asked: list[tuple[str, str]] = [("q", text), ("limit", str(limit))]
    asked += [("type", one) for one in types or ()]
    asked += [("service", service)] if service else []
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        connection.request("GET", f"/api/search?{urlencode(asked)}")
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    if not isinstance(answer, dict) or answer.get("home") != str(home.root):
        return None  # the port belongs to somebody else by now
    if response.status != 200:
        raise EngramError(str(answer.get("error", {}).get("message", "search failed")))
    return list(answer["hits"])
