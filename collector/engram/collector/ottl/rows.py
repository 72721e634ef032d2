"""The contexts: what a statement is applied to, and what it can see from there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from engram.exporters.signals import Signal

CONTEXTS: Final[dict[Signal, tuple[str, ...]]] = {
    Signal.TRACES: ("resource", "scope", "span", "spanevent"),
    Signal.LOGS: ("resource", "scope", "log"),
    Signal.METRICS: ("resource", "scope", "metric", "datapoint"),
}
"""The contexts of each signal, from the outside in. A context sees itself and those before it."""

PARENTS: Final[dict[str, tuple[str, ...]]] = {
    context: found[: at + 1] for found in CONTEXTS.values() for at, context in enumerate(found)
}


class Row:
    """One place in a request: the messages that a statement there can reach."""

    __slots__ = ("datapoint", "index", "log", "metric", "resource", "scope", "span", "spanevent")

    def __init__(self, resource: Any) -> None:
        self.resource = resource
        """`ResourceSpans`, `ResourceLogs` or `ResourceMetrics`."""
        self.scope: Any = None
        """`ScopeSpans`, `ScopeLogs` or `ScopeMetrics`."""
        self.span: Any = None
        self.spanevent: Any = None
        self.log: Any = None
        self.metric: Any = None
        self.datapoint: Any = None
        self.index = 0
        """Which of its span's events it is."""


def resources(signal: Signal, request: Any) -> Any:
    """The repeated outermost messages of a request."""
    if signal is Signal.TRACES:
        return request.resource_spans
    return request.resource_logs if signal is Signal.LOGS else request.resource_metrics


def scopes(signal: Signal, resource: Any) -> Any:
    """The repeated scopes of a resource."""
    if signal is Signal.TRACES:
        return resource.scope_spans
    return resource.scope_logs if signal is Signal.LOGS else resource.scope_metrics


def records(signal: Signal, scope: Any) -> Any:
    """The repeated spans, log records or metrics of a scope."""
    if signal is Signal.TRACES:
        return scope.spans
    return scope.log_records if signal is Signal.LOGS else scope.metrics


def points(metric: Any) -> Any:
    """The repeated points of a metric; an empty tuple when it has no data."""
    kind = metric.WhichOneof("data")
    return getattr(metric, kind).data_points if kind else ()


def rows(context: str, signal: Signal, request: Any) -> Iterator[Row]:
    """Every place of a context in a request. The one `Row` is used again and again."""
    depth = CONTEXTS[signal].index(context)
    for resource in resources(signal, request):
        row = Row(resource)
        if depth == 0:
            yield row
            continue
        for scope in scopes(signal, resource):
            row.scope = scope
            if depth == 1:
                yield row
                continue
            for record in records(signal, scope):
                yield from inside(context, signal, row, record)


def inside(context: str, signal: Signal, row: Row, record: Any) -> Iterator[Row]:
    """A span, log record or metric, or what is in it, as the context says."""
    if signal is Signal.LOGS:
        row.log = record
        yield row
    elif signal is Signal.TRACES:
        row.span = record
        if context == "span":
            yield row
            return
        for row.index, row.spanevent in enumerate(record.events):
            yield row
    else:
        row.metric = record
        if context == "metric":
            yield row
            return
        for row.datapoint in points(record):
            yield row
