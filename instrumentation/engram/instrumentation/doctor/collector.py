"""The collector's side: which ports are open, whose they are, and one log record there and back."""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from .environment import endpoint, protocol
from .findings import Finding, Stored, ok, problem, warning

MARKER: Final = "engram.doctor.marker"
_WAIT_S: Final = 15.0
_SKEW_S: Final = 30.0
_START: Final = "engram up, or set OTEL_EXPORTER_OTLP_ENDPOINT"
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def check(environment: Mapping[str, str], stored: Stored | None) -> Iterator[Finding]:
    """Ports, then a round trip to where logs go."""
    at = endpoint(environment)
    try:
        parts = urlsplit(at)
        host, port = parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return  # said of the environment already, as below
    if host is None or port is None or parts.scheme not in ("http", "https"):
        return
    yield from _ports(host, port, grpc=protocol(environment) == "grpc")
    if protocol(environment) == "grpc":
        yield warning(
            "round trip", "not tried: logs go by gRPC", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
        )
    elif _open(host, port):
        yield from _round_trip(at, environment, stored)


def _ports(host: str, told: int, *, grpc: bool) -> Iterator[Finding]:
    for port, what in ((4317, "OTLP/gRPC"), (4318, "OTLP/HTTP"), (4319, "page and REST")):
        if not _open(host, port):
            yield ok("port", f"{host}:{port} ({what}) is closed")
            continue
        whose = "open"
        if port == 4318:
            whose = "Engram" if _is_engram(host, port) else "open, and not Engram"
        elif port == 4319:
            whose = "Engram" if _is_api(host, port) else "open, and not Engram"
        if "not" in whose and port == told:
            yield problem("port", f"{host}:{port} ({what}): {whose}", _START)
        else:
            yield ok("port", f"{host}:{port} ({what}): {whose}")
    if not _open(host, told):
        yield problem("port", f"nothing listens on {host}:{told}, where telemetry goes", _START)
    elif told not in (4317, 4318, 4319) and not grpc:
        yield ok("port", f"{host}:{told}: {'Engram' if _is_engram(host, told) else 'open'}")


def _open(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), 2):
            return True
    except OSError:
        return False


def _is_engram(host: str, port: int) -> bool:
    """An empty request is acknowledged with a place in the log, which only Engram says."""
    try:
        connection = http.client.HTTPConnection(host, port, timeout=3)
        try:
            headers = {"content-type": "application/json"}
            connection.request("POST", "/v1/logs", b'{"resourceLogs":[]}', headers)
            return connection.getresponse().getheader("engram-position") is not None
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return False


def _is_api(host: str, port: int) -> bool:
    try:
        connection = http.client.HTTPConnection(host, port, timeout=3)
        try:
            connection.request("GET", "/api/status", headers={"host": f"localhost:{port}"})
            answer = connection.getresponse()
            return answer.status == 200 and b'"tables"' in answer.read(1 << 20)
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return False


def _round_trip(
    at: str, environment: Mapping[str, str], stored: Stored | None
) -> Iterator[Finding]:
    marker, before = secrets.token_hex(16), time.time()
    record = {
        "timeUnixNano": str(time.time_ns()),
        "severityNumber": 9,
        "body": {"stringValue": "engram doctor: round trip"},
        "attributes": [{"key": MARKER, "value": {"stringValue": marker}}],
    }
    resource = [{"key": "service.name", "value": {"stringValue": "engram-doctor"}}]
    body = {
        "resourceLogs": [
            {"resource": {"attributes": resource}, "scopeLogs": [{"logRecords": [record]}]}
        ]
    }
    headers = {"content-type": "application/json", **_headers(environment)}
    asked = urllib.request.Request(at, json.dumps(body).encode(), headers)  # noqa: S310 - http(s)
    begun = time.monotonic()
    try:
        with _opener.open(asked, timeout=10) as answer:
            date = answer.headers.get("date")
            rejected = json.loads(answer.read(1 << 16) or b"{}").get("partialSuccess", {})
    except urllib.error.HTTPError as error:
        with error:
            yield problem("round trip", f"{at} answered {error.code} {error.reason}", _START)
        return
    except (OSError, ValueError, AttributeError, http.client.HTTPException) as error:
        yield problem("round trip", f"{at}: {error}", _START)
        return
    took = time.monotonic() - begun
    if int(rejected.get("rejectedLogRecords") or 0):
        yield problem("round trip", f"{at} rejected it: {rejected.get('errorMessage')}", _START)
        return
    yield _stored(at, marker, took, stored)
    yield _clock(at, date, before, took)


def _headers(environment: Mapping[str, str]) -> dict[str, str]:
    from urllib.parse import unquote

    own = environment.get("OTEL_EXPORTER_OTLP_LOGS_HEADERS")
    said = own or environment.get("OTEL_EXPORTER_OTLP_HEADERS", "")
    pairs = (one.partition("=") for one in said.split(",") if "=" in one)
    return {unquote(key.strip()).lower(): unquote(value.strip()) for key, _, value in pairs}


def _stored(at: str, marker: str, took: float, stored: Stored | None) -> Finding:
    acknowledged = f"{at} acknowledged a log record in {took * 1000:.0f} ms"
    deadline = time.monotonic() + _WAIT_S
    while stored is not None:
        found = stored(marker)
        if found is None:
            break
        if found:
            return ok("round trip", f"{acknowledged}, and it can be queried")
        if time.monotonic() > deadline:
            return problem(
                "round trip",
                f"{acknowledged}, and it is not in the lake of this home",
                "is it the home of that collector? engram status",
            )
        time.sleep(0.2)
    return ok("round trip", f"{acknowledged} (no lake at hand to see it in)")


def _clock(at: str, date: str | None, before: float, took: float) -> Finding:
    if urlsplit(at).hostname in ("127.0.0.1", "localhost", "::1"):
        return ok("clock", "the collector is on this machine")
    try:
        skew = parsedate_to_datetime(date or "").timestamp() - (before + took / 2)
    except ValueError:
        return ok("clock", "the collector does not say its time")
    if abs(skew) > _SKEW_S:
        return warning(
            "clock", f"{skew:+.0f} s away from the collector's", "synchronise the clocks"
        )
    return ok("clock", f"within {_SKEW_S:.0f} s of the collector's")
