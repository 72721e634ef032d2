"""One kept-alive connection, and what to do when it is refused.

All of it happens in the thread of the SDK's batch processor: the app never waits for it. What
waits meanwhile is in that processor's queue, which is bounded and drops the oldest.
`http.client` and nothing else: `requests` would be seven more packages in every app.
"""

from __future__ import annotations

import atexit
import contextlib
import http.client
import logging
import os
import random
import selectors
import socket
import threading
import time
import weakref
import zlib
from email.utils import parsedate_to_datetime
from typing import Final

from opentelemetry.instrumentation.utils import suppress_instrumentation

from engram.instrumentation.export.settings import Target

_RETRYABLE: Final = frozenset({429, 502, 503, 504})
_CONNECT_S: Final = 3.0
_LAST_S: Final = 3.0
"""How long a receiver that does not answer may hold up the end of the app: all signals together."""
_LATEST_S: Final = 10.0
"""How long one that answers may, while there is something left to send."""
_LOOK_S: Final = 0.25
"""A sender that waits for an answer looks this often whether the app ends meanwhile."""
_BACKOFF_S: Final = 0.5
_LONGEST_WAIT_S: Final = 5.0
_ANSWER_BYTES: Final = 64 << 10
_SILENCE_S: Final = 60.0
_log = logging.getLogger("engram.export")
_all: weakref.WeakSet[Sender] = weakref.WeakSet()


class _Ending:
    """The time that is left when the app ends."""

    def __init__(self) -> None:
        now = time.monotonic()
        self._until, self._latest = now + _LAST_S, now + _LATEST_S

    @property
    def until(self) -> float:
        """When the last request is given up."""
        return self._until

    def answered(self) -> None:
        """Somebody is there: the next request may take as long."""
        self._until = min(time.monotonic() + _LAST_S, self._latest)


class Sender:
    """Sends the bodies of one signal. `send` never raises."""

    def __init__(self, target: Target) -> None:
        self._target = target
        path = target.url.path or "/"
        self._path = f"{path}?{target.url.query}" if target.url.query else path
        self._headers = {
            "content-type": "application/x-protobuf",
            "user-agent": "engram-python",
            **target.headers,
        }
        if target.compression != "none":
            self._headers["content-encoding"] = target.compression
        self._reset()
        self._ending: _Ending | None = None
        self._gone = False
        self._stop = threading.Event()
        self._warned = -_SILENCE_S
        self._missed = 0
        _all.add(self)

    def _reset(self) -> None:
        """What a forked child must not share with its parent."""
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None
        self._pid = os.getpid()

    def send(self, body: bytes) -> bool:
        """True when the receiver took it; False when it is lost, which is said once a minute."""
        if self._pid != os.getpid():
            self._reset()
        try:
            with self._lock, suppress_instrumentation():
                problem = self._send(_compressed(self._target.compression, body))
        except Exception as error:  # noqa: BLE001 - nothing of ours may reach the app
            problem = f"{type(error).__name__}: {error}"
        if problem:
            self.warn(problem)
        return not problem

    def _send(self, body: bytes) -> str:
        deadline = time.monotonic() + self._target.timeout_s
        if self._ending is not None and (self._gone or time.monotonic() >= self._ending.until):
            return "it was not reached, and the app ends"
        wait_s = _BACKOFF_S
        while True:
            after: float | None = None
            try:
                status, after, answer = self._once(body, deadline)
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                problem = str(error) or type(error).__name__
                self._gone = True
            else:
                self._gone = False
                if self._ending is not None:
                    self._ending.answered()
                if 200 <= status < 300:
                    if answer:
                        self.warn(f"some records were refused: {_readable(answer)}")
                    return ""
                problem = f"HTTP {status} {_readable(answer)}".strip()
                if status not in _RETRYABLE:
                    return problem
            # Not all at the same moment, when a collector comes back.
            pause = after if after is not None else wait_s * random.uniform(0.8, 1.2)  # noqa: S311
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            if self._ending is not None or time.monotonic() + pause >= deadline:
                return problem
            self._stop.wait(pause)

    def _once(self, body: bytes, deadline: float) -> tuple[int, float | None, bytes]:
        """One request. On a connection that was kept it is tried again at once: it may be stale."""
        kept = self._connection is not None
        try:
            return self._exchange(body, deadline)
        except (http.client.RemoteDisconnected, ConnectionError, http.client.CannotSendRequest):
            if not kept:
                raise
            self._drop()
            return self._exchange(body, deadline)

    def _exchange(self, body: bytes, deadline: float) -> tuple[int, float | None, bytes]:
        connection = self._connection or self._connect()
        if connection.sock is None:
            longest = _CONNECT_S if self._ending is None else 1.0
            connection.timeout = min(self._left(deadline), longest)
            connection.connect()
        if connection.sock is not None:
            connection.sock.settimeout(self._left(deadline))
        connection.request("POST", self._path, body, self._headers)
        self._await_answer(connection.sock, deadline)
        response = connection.getresponse()
        answer = response.read(_ANSWER_BYTES)
        if not response.isclosed() or response.will_close:
            self._drop()
        return response.status, _retry_after(response.getheader("retry-after")), answer

    def _left(self, deadline: float) -> float:
        """Seconds for what is under way; fewer than were meant when the app ends meanwhile."""
        if self._ending is not None:
            deadline = min(deadline, self._ending.until)
        return max(deadline - time.monotonic(), 0.1)

    def _await_answer(self, sock: socket.socket | None, deadline: float) -> None:
        """A read cannot be woken, so it begins when there is something to read."""
        if sock is None:
            return
        with selectors.DefaultSelector() as answers:
            answers.register(sock, selectors.EVENT_READ)
            while not answers.select(min(self._left(deadline), _LOOK_S)):
                until = deadline if self._ending is None else min(deadline, self._ending.until)
                if time.monotonic() >= until:
                    raise TimeoutError("timed out")
        sock.settimeout(self._left(deadline))

    def _connect(self) -> http.client.HTTPConnection:
        url, tls = self._target.url, self._target.tls
        host = url.hostname or ""
        if url.scheme == "https":
            self._connection = http.client.HTTPSConnection(host, url.port, context=tls)
        else:
            self._connection = http.client.HTTPConnection(host, url.port)
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()

    def warn(self, problem: str) -> None:
        """Say it, at most once a minute."""
        self._missed += 1
        now = time.monotonic()
        if now - self._warned < _SILENCE_S:
            return
        self._warned = now
        url = self._target.url
        host = f"{url.hostname}:{url.port}" if url.port else url.hostname  # no user and password
        _log.warning("engram: telemetry was not taken by %s%s: %s", host, url.path, problem)

    def hurry(self, ending: _Ending | None = None) -> None:
        """The app ends: what is left is tried once, as long as there is time."""
        if self._ending is None:
            self._ending = ending or _Ending()
        self._stop.set()

    def close(self) -> None:
        """Let go of the connection."""
        self.hurry()
        if self._pid == os.getpid() and self._lock.acquire(timeout=1):
            try:
                self._drop()
            finally:
                self._lock.release()


@atexit.register
def _hurry_all() -> None:
    """Before the providers flush: an app must not hang at its end because a collector is gone.

    Functions registered later run earlier, and the SDK's are registered when its providers are
    made, before their exporters; so `exporters` registers this once more then.
    """
    ending = _Ending()  # of all: their providers are shut down one after the other
    for sender in list(_all):
        sender.hurry(ending)


def hurry_at_exit() -> None:
    """Call after a provider was made."""
    atexit.unregister(_hurry_all)
    atexit.register(_hurry_all)


def _compressed(how: str, body: bytes) -> bytes:
    if how == "gzip":
        deflater = zlib.compressobj(1, zlib.DEFLATED, 31)
        return deflater.compress(body) + deflater.flush()
    return zlib.compress(body, 1) if how == "deflate" else body


def _retry_after(text: str | None) -> float | None:
    """Seconds or a date; what is neither is no wish."""
    if not text:
        return None
    try:
        return max(float(text), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None


def _readable(answer: bytes) -> str:
    """What can be read in a protobuf answer: its message is in there as plain text."""
    text = answer.decode("utf-8", "replace")
    return "".join(c for c in text if c.isprintable() and c != "\ufffd")[:300]


__all__ = ["Sender", "hurry_at_exit"]
