"""OTLP in files: protobuf, JSON, or JSON lines (as the Collector's `file` exporter writes).

Files do not say which signal they hold: it is seen by what is in them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import DecodeError

from engram.collector.otlp_files import MOST
from engram.exporters.errors import BadRequest, NotFound
from engram.exporters.otlp.check import good_ids
from engram.exporters.otlp.json import to_protobuf
from engram.exporters.otlp.wire import STRICT_REQUEST
from engram.exporters.signals import Signal

_KEYS: Final = {
    "resourceSpans": Signal.TRACES, "resource_spans": Signal.TRACES,
    "resourceLogs": Signal.LOGS, "resource_logs": Signal.LOGS,
    "resourceMetrics": Signal.METRICS, "resource_metrics": Signal.METRICS,
}  # fmt: skip


def read(path: Path) -> list[tuple[Signal, bytes]]:
    """The requests in a file, serialised.

    Raises:
        NotFound: there is no such file.
        BadRequest: it holds no OTLP.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"no file {path}") from None
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror}") from error
    if raw.lstrip()[:1] in (b"{", b"["):
        try:
            return list(_from_json(path, raw))
        except RecursionError:
            raise BadRequest(f"{path} is nested too deeply") from None
    for signal, is_of in _LOOKS_LIKE:
        try:
            request = STRICT_REQUEST[signal].FromString(raw)
        except DecodeError:
            continue
        if raw and is_of(request):
            return [(signal, raw)]
    raise BadRequest(f"{path} is no OTLP request, neither JSON nor protobuf")


def _from_json(path: Path, raw: bytes) -> Iterator[tuple[Signal, bytes]]:
    for place, document in _documents(path, raw):
        signals = {_KEYS[key] for key in document if key in _KEYS}
        if len(signals) != 1:
            raise BadRequest(
                f"{place}: an OTLP request has one of resourceSpans, resourceLogs, resourceMetrics"
            )
        (signal,) = signals
        try:
            yield signal, to_protobuf(signal, json.dumps(document).encode(), MOST)
        except BadRequest as error:
            raise BadRequest(f"{place}: {error}") from error


def _documents(path: Path, raw: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        whole = json.loads(raw)
        documents = whole if isinstance(whole, list) else [whole]
        places = [str(path)] * len(documents)
    except ValueError as error:
        lines = [(at, line) for at, line in enumerate(raw.splitlines(), 1) if line.strip()]
        documents, places = [], []
        for at, line in lines:
            try:
                documents.append(json.loads(line))
            except ValueError:
                raise BadRequest(f"{path}: not valid JSON: {error}") from None
            places.append(f"{path}:{at}")
    for place, document in zip(places, documents, strict=True):
        if not isinstance(document, dict):
            raise BadRequest(f"{place}: an OTLP request is a JSON object")
        yield place, document


def _traces(request: Any) -> bool:
    spans = [s for r in request.resource_spans for c in r.scope_spans for s in c.spans]
    return bool(spans) and all(good_ids(span.trace_id, span.span_id) for span in spans)


def _metrics(request: Any) -> bool:
    found = [m for r in request.resource_metrics for c in r.scope_metrics for m in c.metrics]
    return bool(found) and all(metric.WhichOneof("data") for metric in found)


def _logs(request: Any) -> bool:
    return any(c.log_records for r in request.resource_logs for c in r.scope_logs)


_LOOKS_LIKE: Final[tuple[tuple[Signal, Callable[[Any], bool]], ...]] = (
    (Signal.TRACES, _traces), (Signal.METRICS, _metrics), (Signal.LOGS, _logs),
)  # fmt: skip
