"""CORS: which web pages may send telemetry, in the grammar and with the defaults of the Collector.

A browser asks before it sends JSON to another origin (a preflight, OPTIONS), and hides every answer
that does not allow the page's origin, errors too.
"""

from __future__ import annotations

import re

from engram.collector.registry import Cors

Headers = list[tuple[bytes, bytes]]

_ALWAYS_ALLOWED = frozenset({"accept", "content-type", "content-encoding", "x-requested-with"})
"""The Collector's defaults, and `content-encoding`, without which a page could not compress."""

_EXPOSED = b"retry-after, engram-position"
"""What a page's exporter may read of an answer."""


class CorsPolicy:
    """Answers which headers an origin gets."""

    def __init__(self, settings: Cors) -> None:
        self._any_origin = "*" in settings.allowed_origins
        self._origins = [
            re.compile(".*".join(map(re.escape, origin.lower().split("*"))))
            for origin in settings.allowed_origins
        ]
        named = frozenset(name.lower() for name in settings.allowed_headers)
        self._any_header = "*" in named
        self._headers = named | _ALWAYS_ALLOWED
        self._max_age = settings.max_age

    def allows(self, origin: bytes) -> bool:
        """Whether pages of this origin may send."""
        name = origin.decode("latin-1").lower()
        return any(pattern.fullmatch(name) for pattern in self._origins)

    def answer(self, origin: bytes) -> Headers:
        """Headers of the answer to a request with this `Origin` (empty: it has none)."""
        headers = [(b"vary", b"Origin")]
        if origin and self.allows(origin):
            headers += [
                (b"access-control-allow-origin", b"*" if self._any_origin else origin),
                (b"access-control-expose-headers", _EXPOSED),
            ]
        return headers

    def preflight(self, method: bytes, headers: bytes) -> Headers | str:
        """What is added to `answer` for a preflight, or why the request will be refused.

        `method` and `headers` are the values of the `Access-Control-Request-...` headers.
        """
        if method != b"POST":
            return f"method {method[:20].decode('latin-1')} is not allowed, only POST is"
        wanted = [name.strip() for name in headers.decode("latin-1").lower().split(",")]
        refused = [name for name in wanted if name and not self._takes(name)]
        if refused:
            return (
                f"header {refused[0][:60]} is not allowed; add it to cors.allowed_headers of the "
                "otlp receiver"
            )
        made = [(b"access-control-allow-methods", b"POST")]
        if headers:
            made.append((b"access-control-allow-headers", headers))
        if self._max_age:
            made.append((b"access-control-max-age", str(self._max_age).encode()))
        return made

    def _takes(self, header: str) -> bool:
        return self._any_header or header in self._headers
