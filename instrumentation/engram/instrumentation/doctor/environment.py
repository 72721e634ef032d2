"""What the environment variables say, and where they contradict each other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from .findings import Finding, ok, problem, warning

_OFF: Final = ("0", "false", "no", "off")
_SIGNALS: Final = ("TRACES", "LOGS", "METRICS")
_SERVICE: Final = re.compile(r"(?:^|,)\s*service\.name\s*=\s*[^,\s]")


def endpoint(environment: Mapping[str, str], signal: str = "LOGS") -> str:
    """Where a signal goes by OTLP/HTTP; the default is this machine."""
    own = environment.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", "").strip()
    if own:
        return own
    base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip() or "http://127.0.0.1:4318"
    return base.rstrip("/") + f"/v1/{signal.lower()}"


def protocol(environment: Mapping[str, str], signal: str = "LOGS") -> str:
    """The OTLP protocol of a signal; that of `engram run` where nothing is said."""
    own = environment.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "").strip()
    return own or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip() or "http/protobuf"


def check(environment: Mapping[str, str], *, named: bool) -> Iterator[Finding]:
    """All findings; `named`: `engram run` gives the service a name, of the program."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        yield problem("sdk", "OTEL_SDK_DISABLED=true: nothing is recorded", "unset it")
    if environment.get("OTEL_CONFIG_FILE"):
        yield warning(
            "sdk",
            "OTEL_CONFIG_FILE makes the SDK: the OTEL_EXPORTER_* variables are not read",
            "see that the file exports to Engram, or unset it",
        )
    for signal in _SIGNALS:
        if environment.get(f"OTEL_{signal}_EXPORTER", "").strip() == "none":
            yield problem(
                "exporter",
                f"OTEL_{signal}_EXPORTER=none: no {signal.lower()} are sent",
                "unset it",
            )
    yield from _endpoints(environment)
    if environment.get("OTEL_SERVICE_NAME", "").strip() or _SERVICE.search(
        environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    ):
        yield ok("service.name", "set")
    elif named:
        yield ok("service.name", "not set: engram run names the service after the program")
    else:
        yield warning(
            "service.name", "not set: memories cannot tell services apart", "OTEL_SERVICE_NAME=..."
        )
    yield _content(environment)


def _endpoints(environment: Mapping[str, str]) -> Iterator[Finding]:
    for signal in _SIGNALS:
        at, how = endpoint(environment, signal), protocol(environment, signal)
        said = f"{signal.lower()} by {how} to {at}"
        if how not in ("grpc", "http/protobuf", "http/json"):
            yield problem("endpoint", f"{said}: there is no such protocol", "http/protobuf or grpc")
            continue
        try:
            parts = urlsplit(at)
            port = parts.port
        except ValueError:
            yield problem("endpoint", f"{said}: not a URL", "such as http://127.0.0.1:4318")
            continue
        if parts.scheme not in ("http", "https") or not parts.hostname:
            yield problem("endpoint", f"{said}: not a URL", "such as http://127.0.0.1:4318")
        elif how == "grpc" and port == 4318:
            yield problem("endpoint", f"{said}: 4318 is the port of HTTP", "port 4317")
        elif how != "grpc" and port == 4317:
            yield problem("endpoint", f"{said}: 4317 is the port of gRPC", "port 4318")
        elif (
            how != "grpc"
            and environment.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", "").strip()
            and not parts.path.endswith(f"/v1/{signal.lower()}")
        ):
            yield problem(
                "endpoint",
                f"{said}: the URL of one signal is used as it is, without a path",
                "write the whole URL, or use OTEL_EXPORTER_OTLP_ENDPOINT",
            )
    if len({_place(endpoint(environment, signal)) for signal in _SIGNALS}) > 1:
        yield warning(
            "endpoint", "signals go to different places", "one endpoint keeps them together"
        )


def _place(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:  # said already
        return ""


def _content(environment: Mapping[str, str]) -> Finding:
    theirs = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
    off = environment.get("ENGRAM_CAPTURE_CONTENT", "").strip().lower() in _OFF
    said = environment.get(theirs, "").strip().upper()
    if off and said not in ("", "NO_CONTENT", "FALSE"):
        return warning(
            "content",
            f"ENGRAM_CAPTURE_CONTENT is off and {theirs}={said}: prompts and answers are captured",
            f"unset {theirs}",
        )
    if off or said in ("NO_CONTENT", "FALSE"):
        return ok("content", "off: prompts and answers of models are not remembered")
    return ok("content", "on under engram run: prompts and answers of models are remembered")
