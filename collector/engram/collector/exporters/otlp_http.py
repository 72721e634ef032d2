"""OTLP over HTTP, with `requests`: connections are kept, and the environment's proxies are used.

Nothing else of the environment is: `requests` would take an Authorization header from `.netrc`.
"""

from __future__ import annotations

import contextlib
import gzip
import time
from email.utils import parsedate_to_datetime
from typing import Final

import requests
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from engram.exporters.otlp.wire import OFFICIAL_REQUEST
from engram.exporters.signals import Signal

from .otlp_grpc import complaint
from .otlp_json import dumps
from .sender import Later, Never
from .settings import OtlpHttp, is_here, target

_AGAIN: Final = frozenset({429, 502, 503, 504})
"""Retryable by OTLP's specification."""

_PROTOBUF: Final = "application/x-protobuf"
_GZIP_LEVEL: Final = 1
"""1.0 µs a span where level 6 takes 2.6, for an eighth more bytes (`bench/processors.py`)."""


class HttpSender:
    """Sends to the URLs of one exporter."""

    def __init__(self, settings: OtlpHttp) -> None:
        self._settings = settings
        self._json = settings.encoding == "json"
        self._session: requests.Session | None = None

    def _connect(self) -> requests.Session:
        settings, tls = self._settings, self._settings.tls
        session = requests.Session()
        session.trust_env = False
        session.headers.clear()
        session.headers["Content-Type"] = "application/json" if self._json else _PROTOBUF
        session.headers["User-Agent"] = "engram"
        if settings.compression == "gzip":
            session.headers["Content-Encoding"] = "gzip"
        session.headers.update(settings.headers)
        session.verify = False if tls.insecure_skip_verify else tls.ca_file or True
        if tls.cert_file and tls.key_file:
            session.cert = (tls.cert_file, tls.key_file)
        return session

    def send(self, signal: Signal, body: bytes) -> str:
        """See `Sender`."""
        self._session = self._session or self._connect()
        url = self._settings.url(signal)
        if url is None:
            raise Never(f"no {signal}_endpoint and no endpoint is given")
        if self._json:
            body = dumps(OFFICIAL_REQUEST[signal].FromString(body)).encode()
        if self._settings.compression == "gzip":
            body = gzip.compress(body, _GZIP_LEVEL)
        try:
            answer = self._session.post(
                url,
                data=body,
                timeout=self._settings.timeout.total_seconds(),
                proxies=_proxies(url),
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise Later(str(error)) from error
        if answer.status_code in _AGAIN:
            raise Later(_why(answer), _retry_after(answer.headers.get("Retry-After")))
        if answer.status_code != 200:
            raise Never(_why(answer))
        with contextlib.suppress(DecodeError):
            return "" if self._json else complaint(signal, answer.content)
        return "an answer that is no OTLP"

    def close(self) -> None:
        """See `Sender`."""
        if self._session is not None:
            self._session.close()
            self._session = None


def _proxies(url: str) -> dict[str, str]:
    """The environment's proxies for a URL; none on the way to this machine."""
    address = target(url)
    if address is not None and is_here(address[0]):
        return {}
    return dict(requests.utils.get_environ_proxies(url))


def _why(answer: requests.Response) -> str:
    text = ""
    if answer.headers.get("Content-Type", "").startswith(_PROTOBUF):
        with contextlib.suppress(DecodeError):
            text = Status.FromString(answer.content).message
    text = text or answer.content[:200].decode(errors="replace")
    return f"HTTP {answer.status_code} {text}".strip()


def _retry_after(value: str | None) -> float:
    """Seconds of a Retry-After header, which may be a date; 0 when it is neither."""
    if not value:
        return 0.0
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0
