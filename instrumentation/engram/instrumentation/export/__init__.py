"""OTLP/HTTP exporters of our own: SDK objects to protobuf by hand, sent by the standard library.

The official ones need `requests` and `protobuf`, which are nine packages and 6 MB in every app, and
four times the CPU. `OTEL_TRACES_EXPORTER=engram_otlp` and its two sisters name these.
They honour the `OTEL_EXPORTER_OTLP_*` variables, never raise, and never block the app.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics import (
    Counter,
    Histogram,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
    UpDownCounter,
)
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExporter,
    MetricExportResult,
    MetricsData,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from engram.instrumentation.export.encode import encode_logs, encode_spans
from engram.instrumentation.export.metrics import encode_metrics
from engram.instrumentation.export.sending import Sender, hurry_at_exit
from engram.instrumentation.export.settings import target

_BODY_BYTES: Final = 8 << 20
"""A batch over this is sent in halves: receivers take some 20 MiB."""


class OtlpSpanExporter(SpanExporter):
    """Spans to a collector."""

    def __init__(self) -> None:
        self._sender = Sender(target("traces"))
        hurry_at_exit()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send in the caller's thread, which is the batch processor's."""
        sent = _send(self._sender, spans, encode_spans)
        return SpanExportResult.SUCCESS if sent else SpanExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is kept here."""
        return True

    def shutdown(self) -> None:
        """Let go of the connection."""
        self._sender.close()


class OtlpLogRecordExporter(LogRecordExporter):
    """Log records and events to a collector."""

    def __init__(self) -> None:
        self._sender = Sender(target("logs"))
        hurry_at_exit()

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Send in the caller's thread, which is the batch processor's."""
        sent = _send(self._sender, batch, encode_logs)
        return LogRecordExportResult.SUCCESS if sent else LogRecordExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is kept here."""
        return True

    def shutdown(self) -> None:
        """Let go of the connection."""
        self._sender.close()


class OtlpMetricExporter(MetricExporter):
    """Metric points to a collector."""

    def __init__(self) -> None:
        super().__init__(preferred_temporality=_temporality())
        self._sender = Sender(target("metrics"))
        hurry_at_exit()

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Send in the caller's thread, which is the reader's."""
        try:
            sent = self._sender.send(encode_metrics(metrics_data))
        except Exception as error:  # noqa: BLE001 - nothing of ours may reach the app
            self._sender.warn(f"not encoded: {type(error).__name__}: {error}")
            sent = False
        return MetricExportResult.SUCCESS if sent else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Nothing is kept here."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Let go of the connection."""
        self._sender.close()


def _send(sender: Sender, batch: Sequence[Any], encode: Any) -> bool:
    try:
        body = encode(batch)
    except Exception as error:  # noqa: BLE001 - nothing of ours may reach the app
        if len(batch) > 1:
            # One record that cannot be encoded must not take the others with it.
            sent = [_send(sender, [one], encode) for one in batch]
            return all(sent)
        sender.warn(f"not encoded: {type(error).__name__}: {error}")
        return False
    if len(body) > _BODY_BYTES and len(batch) > 1:
        middle = len(batch) // 2
        sent = [_send(sender, half, encode) for half in (batch[:middle], batch[middle:])]
        return all(sent)
    return sender.send(body)


def _temporality() -> dict[type, AggregationTemporality] | None:
    """`OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`, as the specification has it."""
    wanted = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "").lower()
    delta, cumulative = AggregationTemporality.DELTA, AggregationTemporality.CUMULATIVE
    if wanted not in ("delta", "lowmemory"):
        return None
    return {
        Counter: delta,
        Histogram: delta,
        ObservableCounter: delta if wanted == "delta" else cumulative,
        UpDownCounter: cumulative,
        ObservableUpDownCounter: cumulative,
        ObservableGauge: cumulative,
    }


__all__ = ["OtlpLogRecordExporter", "OtlpMetricExporter", "OtlpSpanExporter"]
