"""Where to send and how: the `OTEL_EXPORTER_OTLP_*` variables, read once per exporter."""

from __future__ import annotations

import ipaddress
import logging
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

DEFAULT_ENDPOINT: Final = "http://127.0.0.1:4318"
GRPC_ENDPOINT: Final = "http://127.0.0.1:4317"
_TIMEOUT_S: Final = 10.0
_COMPRESSIONS: Final = frozenset({"gzip", "deflate", "none"})
_log = logging.getLogger("engram.export")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One signal's way to its receiver."""

    url: SplitResult
    """Scheme, host, port and path."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the user: a token, a tenant."""

    timeout_s: float = _TIMEOUT_S
    """For one request with all its retries."""

    compression: str = "none"
    """`gzip`, `deflate` or `none`."""

    tls: ssl.SSLContext | None = None
    """For https."""


def target(signal: str, environment: Mapping[str, str] = os.environ) -> Target:
    """The settings of `traces`, `logs` or `metrics`; what is wrong in them is said and left out."""

    def setting(name: str) -> str:
        own = environment.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}", "").strip()
        return own or environment.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()

    own = environment.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "").strip()
    shared = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip() or DEFAULT_ENDPOINT
    url = _url(own) or _url(_below(shared, signal)) or _url(_below(DEFAULT_ENDPOINT, signal))
    assert url is not None  # noqa: S101 - the default is a URL
    return Target(
        url=url,
        headers=_headers(setting("HEADERS")),
        timeout_s=_seconds(setting("TIMEOUT")),
        compression=_compression(setting("COMPRESSION"), url.hostname or ""),
        tls=_tls(setting) if url.scheme == "https" else None,
    )


def _below(endpoint: str, signal: str) -> str:
    return f"{endpoint.rstrip('/')}/v1/{signal}"


def _url(text: str) -> SplitResult | None:
    if not text:
        return None
    try:
        url = urlsplit(text if "://" in text else f"http://{text}")
        _ = url.port
    except ValueError:
        url = None
    if url is None or url.scheme not in ("http", "https") or not url.hostname:
        _log.warning("engram: %r is no http address to send to; it is not used", text)
        return None
    return url


def _headers(text: str) -> dict[str, str]:
    found = {}
    for pair in filter(None, map(str.strip, text.split(","))):
        name, equals, value = pair.partition("=")
        name, value = unquote(name).strip().lower(), unquote(value).strip()
        if equals and name and not set("\r\n") & set(name + value):
            found[name] = value
        else:
            _log.warning("engram: a header of OTEL_EXPORTER_OTLP_HEADERS is not NAME=VALUE")
    return found


def _seconds(text: str) -> float:
    try:
        seconds = float(text) if text else _TIMEOUT_S
    except ValueError:
        seconds = 0.0
    if 0 < seconds < float("inf"):
        return seconds
    _log.warning("engram: OTEL_EXPORTER_OTLP_TIMEOUT=%r is no number of seconds", text)
    return _TIMEOUT_S


def _compression(text: str, host: str) -> str:
    if text in _COMPRESSIONS:
        return text
    if text:
        _log.warning("engram: OTEL_EXPORTER_OTLP_COMPRESSION=%r is not known", text)
    # On the loopback a copy is cheaper than deflating: 2 µs a span that the app does not pay.
    return "none" if _is_loopback(host) else "gzip"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(setting: object) -> ssl.SSLContext | None:
    get = setting if callable(setting) else (lambda _: "")
    try:
        context = ssl.create_default_context(cafile=get("CERTIFICATE") or None)
        if certificate := get("CLIENT_CERTIFICATE"):
            context.load_cert_chain(certificate, get("CLIENT_KEY") or None)
    except (OSError, ssl.SSLError) as error:
        _log.warning("engram: the certificates of OTEL_EXPORTER_OTLP_* cannot be used: %s", error)
        return ssl.create_default_context()
    return context


__all__ = ["DEFAULT_ENDPOINT", "GRPC_ENDPOINT", "Target", "target"]
