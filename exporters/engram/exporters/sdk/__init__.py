"""OpenTelemetry SDK exporters: an app remembers without a collector.

`OTEL_TRACES_EXPORTER=engram`, `OTEL_LOGS_EXPORTER=engram` and `OTEL_METRICS_EXPORTER=engram`, or
the classes in code. The home is `home=`, else `ENGRAM_HOME`, else `./.engram`.
An export is a success when its bytes are on disk, and never raises.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from engram.exporters.home import Home
from engram.exporters.sdk.delivery import delivery_to
from engram.exporters.signals import Signal
from engram.instrumentation.export.encode import encode_logs, encode_spans
from engram.instrumentation.export.metrics import encode_metrics

_log = logging.getLogger("engram.exporter")
_SILENCE_S: Final = 60.0
_REQUEST_BYTES: Final = 8 << 20
"""A batch over this is sent in halves: an engine takes requests of 64 MiB."""


class _Road:
    """What the three exporters share: encode, deliver, and let no error out."""

    def __init__(
        self, home: str | os.PathLike[str] | None, signal: Signal, encode: Callable[[Any], bytes]
    ) -> None:
        self._signal = signal
        self._encode = encode
        self._delivery = delivery_to(Home.find(home))
        self._delivery.open()
        self._closed = False
        self._warned = -_SILENCE_S

    def send(self, batch: Any) -> bool:
        if self._closed:
            return False
        try:
            return self._send(batch)
        except Exception:  # noqa: BLE001 - whatever it is, the app goes on
            if time.monotonic() - self._warned >= _SILENCE_S:
                self._warned = time.monotonic()
                _log.exception("engram exporter: a batch of %s is lost", self._signal)
            return False

    def _send(self, batch: Any) -> bool:
        body = self._encode(batch)
        if len(body) > _REQUEST_BYTES and isinstance(batch, Sequence) and len(batch) > 1:
            middle = len(batch) // 2
            sent = [self._send(batch[:middle]), self._send(batch[middle:])]
            return all(sent)
        return self._delivery.deliver(self._signal, body)

    def flush(self, timeout_ms: float) -> bool:
        try:
            if not self._closed:
                self._delivery.flush(timeout_ms / 1e3)
            return not self._delivery.failing
        except Exception:  # noqa: BLE001 - as above
            return False

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            try:
                self._delivery.close()
            except Exception:  # noqa: BLE001 - as above
                _log.debug("engram exporter: at shutdown", exc_info=True)


class EngramSpanExporter(SpanExporter):
    """Spans to the memory of a home."""

    def __init__(self, home: str | os.PathLike[str] | None = None) -> None:
        self._road = _Road(home, Signal.TRACES, encode_spans)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Make the spans durable: a success is on disk."""
        return SpanExportResult.SUCCESS if self._road.send(spans) else SpanExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """What was exported is on disk; wait until it can be queried, if an engine runs."""
        return self._road.flush(timeout_millis)

    def shutdown(self) -> None:
        """The last exporter of a home waits up to 5 s until all can be queried."""
        self._road.close()


class EngramLogRecordExporter(LogRecordExporter):
    """Log records to the memory of a home."""

    def __init__(self, home: str | os.PathLike[str] | None = None) -> None:
        self._road = _Road(home, Signal.LOGS, encode_logs)

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Make the records durable: a success is on disk."""
        done = self._road.send(batch)
        return LogRecordExportResult.SUCCESS if done else LogRecordExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """What was exported is on disk; wait until it can be queried, if an engine runs."""
        return self._road.flush(timeout_millis)

    def shutdown(self) -> None:
        """The last exporter of a home waits up to 5 s until all can be queried."""
        self._road.close()


class EngramMetricExporter(MetricExporter):
    """Metric points to the memory of a home, cumulative as the SDK makes them."""

    def __init__(self, home: str | os.PathLike[str] | None = None, **preferred: Any) -> None:
        super().__init__(**preferred)
        self._road = _Road(home, Signal.METRICS, encode_metrics)

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Make the points durable: a success is on disk."""
        done = self._road.send(metrics_data)
        return MetricExportResult.SUCCESS if done else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """What was exported is on disk; wait until it can be queried, if an engine runs."""
        return self._road.flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """The last exporter of a home waits up to 5 s until all can be queried."""
        self._road.close()


__all__ = ["EngramLogRecordExporter", "EngramMetricExporter", "EngramSpanExporter"]
