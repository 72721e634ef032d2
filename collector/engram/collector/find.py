"""Search from the command line: by the running `serve`, which has the index open, else in process.

Opening the index costs about two seconds of CPU; asking `serve` costs milliseconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from engram.collector.access import own
from engram.exporters.errors import BadRequest, EngramError, NotFound
from engram.exporters.home import Home

if TYPE_CHECKING:
    from engram.learning.recall import Recall

SERVE_FILE: Final = "serve.json"
"""Where `serve` says in the home where it listens. Stale after a crash, so it is only a hint."""

FILTERS: Final = (
    "types", "service", "user_id", "session_id", "since_ns", "until_ns", "min_importance",
)  # fmt: skip
"""The filters of a search."""

PARAMETERS: Final = {
    "types": "type", "service": "service", "user_id": "user", "session_id": "session",
    "since_ns": "since", "until_ns": "until", "min_importance": "min_importance",
}  # fmt: skip
"""What each is called in a query string. Times are integer nanoseconds, or what `moment` reads."""

_TOLD: Final = (
    "title", "content", "score", "service", "source", "trust", "outcome", "count", "first_seen",
    "last_seen", "pinned", "edited", "superseded_by", "why",
)  # fmt: skip
"""Of an item, in an answer."""

_AGO: Final = re.compile(r"([0-9]+)(s|m|h|d|w)")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def find(
    home: Home, text: str, *, limit: int = 10, filters: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The best memories for a question (`hits`), why (`explanation`), and a `note`.

    Raises:
        NotFound: this home has no lake.
    """
    if not home.catalog.exists():
        raise NotFound(f"no lake in {home.root}; start one with: engram up --home {home.root}")
    given = {name: value for name, value in (filters or {}).items() if value not in (None, [])}
    told = _ask_serve(home, text, limit, given)
    return told if told is not None else search_here(home, text, limit, given)


def search_here(home: Home, text: str, limit: int, filters: Mapping[str, Any]) -> dict[str, Any]:
    """Search in this process."""
    from engram.learning.recall import Recall

    recall = Recall(home)
    try:
        return answer(recall, text, limit, filters)
    finally:
        recall.close()


def answer(recall: Recall, text: str, limit: int, filters: Mapping[str, Any]) -> dict[str, Any]:
    """What recall finds, for people: near-equal memories once, hidden ones not at all."""
    from engram.learning.recall import Scope

    more = dict(filters)
    scope = Scope(**{name: more.pop(name, None) for name in ("user_id", "session_id", "service")})
    found = recall.search(
        text, scope=scope, types=more.pop("types", None) or (), limit=limit, explain=True, **more
    )
    return {
        "hits": [
            {"id": one.id, "type": one.memory_type, "time": one.created_at}
            | {name: getattr(one, name) for name in _TOLD}
            for one in found.items
        ],
        "explanation": dict(found.explanation),
        "note": found.note,
    }


def moment(text: str) -> int:
    """A time as integer nanoseconds: such a number, ISO 8601 (UTC without an offset), or `2h` ago.

    Raises:
        BadRequest: it is none of these.
    """
    if text.isascii() and text.isdigit():
        if len(text) <= 19:
            return int(text)
        raise BadRequest(f"{text!r} is no time: nanoseconds have at most 19 digits")
    if ago := _AGO.fullmatch(text):
        try:
            at = datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        except OverflowError as error:
            raise BadRequest(f"{text} ago is before all time") from error
    else:
        try:
            at = datetime.fromisoformat(text)
        except ValueError as error:
            raise BadRequest(
                f"{text!r} is no time; write 2h, 3d, 2026-11-22, 2026-11-22T10:00:00Z, or "
                "nanoseconds"
            ) from error
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
    since_1970 = at - datetime(1970, 1, 1, tzinfo=UTC)
    return (since_1970 // timedelta(microseconds=1)) * 1000


def importance(text: str) -> float:
    """A least importance, 0 to 1.

    Raises:
        BadRequest: it is no such number.
    """
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise BadRequest(f"the least importance must be a number from 0 to 1, not {text!r}")
    return number


def _ask_serve(
    home: Home, text: str, limit: int, filters: Mapping[str, Any]
) -> dict[str, Any] | None:
    """What serve finds; None when it is not there, or what is there is not it."""
    import http.client
    from urllib.parse import urlencode

    try:
        where = json.loads((home.root / SERVE_FILE).read_text())
        host, port = str(where["host"]), int(where["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    asked: list[tuple[str, str]] = [("q", text), ("limit", str(limit))]
    for name, value in filters.items():
        values = value if isinstance(value, list) else [value]
        asked += [(PARAMETERS[name], str(one)) for one in values]
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        secret = own.found(home)
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        connection.request("GET", f"/api/search?{urlencode(asked)}", headers=headers)
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
    return {name: value for name, value in answer.items() if name != "home"}
