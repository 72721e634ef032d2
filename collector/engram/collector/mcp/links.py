"""What a pasted id or address means, and the address of an item."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

from engram.collector.find import SERVE_FILE
from engram.exporters.errors import BadRequest
from engram.exporters.home import Home

_HEX: Final = re.compile(r"[0-9a-f]+")
_MEMORY, _TRACE = 24, 32
Kind = Literal["memory", "trace", "error", "report"]


@dataclass(frozen=True, slots=True)
class Target:
    """What is meant."""

    kind: Kind
    id: str


def base_url(home: Home) -> str:
    """Where `serve` of this home listens; its default where it does not run."""
    try:
        where = json.loads((home.root / SERVE_FILE).read_text())
        host, port = str(where["host"]), int(where["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return "http://127.0.0.1:4319"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def target(text: str) -> Target:
    """The meaning of an id, of an address of ours, or of `memory://trace/ID`.

    Raises:
        BadRequest: it is none of these.
    """
    given = text.strip()
    split = urlsplit(given)
    parts = [unquote(one) for one in f"{split.netloc}/{split.path}".split("/") if one]
    if split.scheme and len(parts) > 1:
        for word, kind in _KINDS.items():
            if word in parts[:-1]:
                return Target(kind, parts[-1])
    plain = given.lower()
    if _HEX.fullmatch(plain):
        if len(plain) == _TRACE:
            return Target("trace", plain)
        if len(plain) == _MEMORY:
            return Target("memory", plain)
        if 6 <= len(plain) < _TRACE:
            return Target("error" if len(plain) == 16 else "memory", plain)
    if re.fullmatch(r"\d{4}-\d\d-\d\d", plain):
        return Target("report", plain)
    raise BadRequest(
        f"{given[:80]!r} is no id: give that of a memory (24 hex digits), of a trace (32), of an "
        "error (its fingerprint), or an address from a result"
    )


_KINDS: Final[dict[str, Kind]] = {
    "trace": "trace", "traces": "trace", "error": "error", "errors": "error",
    "report": "report", "reports": "report", "memories": "memory", "memory": "memory",
}  # fmt: skip
