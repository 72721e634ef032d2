"""Questions over HTTP: kept connections, a time-out, and a circuit that opens when nobody answers.

What the client itself does is no telemetry: it would remember its own recalls.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import threading
import urllib.parse
from collections.abc import Mapping
from typing import Any, Final

from engram.instrumentation.api.breaker import Breaker

DEFAULT_URL: Final = "http://127.0.0.1:4319"
URL: Final = "ENGRAM_API"
TOKEN: Final = "ENGRAM_TOKEN"  # noqa: S105 - the name of a variable

_KEPT: Final = 4
_MOST_BYTES: Final = 64 << 20


class RecallError(Exception):
    """Memory could not be asked."""


class RecallUnavailable(RecallError):
    """Nobody answers, or not in time. Another time may do."""


class RecallRefused(RecallError):
    """The question was refused: `status` is HTTP's, `problem` what the API said (RFC 9457)."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or problem.get("title") or f"HTTP {status}"))
        self.status = status
        self.problem = dict(problem)


class Http:
    """One address. Safe for several threads; a child of a fork makes its own connections."""

    def __init__(
        self, url: str | None = None, token: str | None = None, *, timeout_s: float = 2.0,
        breaker: Breaker | None = None,
    ) -> None:  # fmt: skip
        self.url = (url or os.environ.get(URL) or DEFAULT_URL).rstrip("/")
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{self.url!r} is no address such as {DEFAULT_URL} ({URL})")
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self._path = parts.path
        self._token = token or os.environ.get(TOKEN)
        self._timeout_s = timeout_s
        self._breaker = breaker or Breaker(failures=3, pause_s=10.0)
        self._lock = threading.Lock()
        self._free: list[http.client.HTTPConnection] = []
        self._pid = os.getpid()

    def ask(
        self, method: str, path: str, body: Any = None, *, timeout_s: float | None = None,
        headers: Mapping[str, str] | None = None, **query: Any,
    ) -> Any:  # fmt: skip
        """The JSON of the answer.

        Raises:
            RecallUnavailable: nobody answers in time, or they cannot now.
            RecallRefused: the question is refused.
        """
        if (why := self._breaker.admit()) is not None:
            raise RecallUnavailable(f"{self.url} did not answer lately ({why})")
        given = {name: value for name, value in query.items() if value is not None}
        target = self._path + path
        if given:
            target += "?" + urllib.parse.urlencode(given, doseq=True)
        sent = {"accept": "application/json", **(headers or {})}
        raw: bytes | None = None
        if body is not None:
            raw = json.dumps(body, default=str, ensure_ascii=False).encode("utf-8", "replace")
            sent["content-type"] = "application/json"
        if self._token:
            sent["authorization"] = f"Bearer {self._token}"
        limit = self._timeout_s if timeout_s is None else timeout_s
        # With the first question: an app that only writes loads nothing of it.
        from opentelemetry.instrumentation.utils import suppress_instrumentation

        try:
            with suppress_instrumentation():
                status, answer = self._exchange(method, target, raw, sent, limit)
        except (OSError, http.client.HTTPException) as error:
            self._breaker.report(False)
            why = "not in time" if isinstance(error, TimeoutError) else str(error)
            raise RecallUnavailable(f"{self.url} does not answer: {why}") from error
        except BaseException:
            self._breaker.report(True)  # it was not for them
            raise
        self._breaker.report(True)
        return _read(status, answer)

    def close(self) -> None:
        """Let go of the connections. Safe twice; the next question makes a new one."""
        with self._lock:
            free, self._free = self._free, []
        for one in free:
            one.close()

    def _exchange(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str], limit: float
    ) -> tuple[int, bytes]:
        with self._lock:
            if self._pid != os.getpid():
                self._free, self._pid = [], os.getpid()
            kept = self._free.pop() if self._free else None
        if kept is not None:
            # The other side may have closed it meanwhile. Then nothing of this was read.
            try:
                return self._on(kept, method, target, body, headers, limit)
            except (http.client.RemoteDisconnected, ConnectionError, http.client.BadStatusLine):
                kept.close()
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        return self._on(
            kind(self._host, self._port, timeout=limit), method, target, body, headers, limit
        )

    def _on(
        self, connection: http.client.HTTPConnection, method: str, target: str,
        body: bytes | None, headers: dict[str, str], limit: float,
    ) -> tuple[int, bytes]:  # fmt: skip
        done = False
        try:
            connection.timeout = limit
            if connection.sock is not None:
                connection.sock.settimeout(limit)
            connection.request(method, target, body, headers)
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answer = connection.getresponse()
            said = answer.read(_MOST_BYTES)
            done = not answer.will_close and answer.isclosed()
            return answer.status, said
        finally:
            with self._lock:
                keep = done and len(self._free) < _KEPT
                if keep:
                    self._free.append(connection)
            if not keep:
                connection.close()


def _read(status: int, raw: bytes) -> Any:
    try:
        said = json.loads(raw) if raw else None
    except ValueError as error:
        if status < 400:
            raise RecallUnavailable("what answers there is not Engram") from error
        said = None
    if status < 400:
        return said
    problem = said if isinstance(said, dict) else {"title": f"HTTP {status}"}
    if status in (429, 502, 503, 504):
        raise RecallUnavailable(str(problem.get("detail") or problem.get("title")))
    raise RecallRefused(status, problem)


__all__ = ["DEFAULT_URL", "Http", "RecallError", "RecallRefused", "RecallUnavailable"]
