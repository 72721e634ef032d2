"""Real SDK providers that send to a collector, as a program under test sets them up."""

from __future__ import annotations

import os

from opentelemetry import _logs, trace
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

_providers: list[TracerProvider | LoggerProvider] = []


def start(service: str) -> None:
    """Make the providers the global ones; `ENDPOINT` is where they send to."""
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return  # `engram run` did it all
    endpoint = os.environ["ENDPOINT"]
    resource = Resource.create({"service.name": service})
    traces = TracerProvider(resource=resource)
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint}/v1/traces")))
    trace.set_tracer_provider(traces)
    logs = LoggerProvider(resource=resource)
    logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(f"{endpoint}/v1/logs")))
    _logs.set_logger_provider(logs)
    _providers.extend((traces, logs))


def stop() -> None:
    """Send what is still here."""
    for provider in _providers:  # `engram run` sends at exit by itself
        provider.force_flush()
        provider.shutdown()
