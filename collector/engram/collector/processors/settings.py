"""Settings of the processors that change or drop records. OTTL is checked when they are read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from engram.collector.ottl import (
    CONTEXTS,
    OttlError,
    compile_condition,
    compile_statement,
    contexts_of,
    deepest,
)
from engram.exporters.signals import Signal

ErrorMode = Literal["propagate", "ignore", "silent"]

CONVERSIONS = ("int", "double", "string", "boolean")


# -- attributes, resource --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One step of the `attributes` and `resource` processors."""

    key: str | None = None
    """The attribute. `delete`, `hash` and `convert` may have `pattern` instead."""

    action: Literal["insert", "update", "upsert", "delete", "hash", "extract", "convert"] = "upsert"
    """What to do."""

    value: Any = None
    """What to set."""

    from_attribute: str | None = None
    """Set to what another attribute of the same record has; nothing when it is not there."""

    pattern: str | None = None
    """`extract`: the expression whose named groups become attributes. Else: which keys."""

    converted_type: str | None = None
    """`convert`: int, double, string or boolean."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        if self.action in ("insert", "update", "upsert"):
            if (self.value is None) == (self.from_attribute is None):
                yield f"{self.action} needs either value or from_attribute"
            if self.pattern is not None:
                yield f"pattern: {self.action} takes none"
        elif self.value is not None or self.from_attribute is not None:
            yield f"{self.action} takes neither value nor from_attribute"
        if self.action == "extract" and not self.pattern:
            yield "extract needs a pattern with named groups, such as ^/user/(?P<user_id>\\d+)"
        if (self.converted_type in CONVERSIONS) != (self.action == "convert"):
            known = ", ".join(CONVERSIONS)
            yield f"converted_type: is for convert and must be one of {known}"
        by_pattern = self.action in ("delete", "hash") and self.pattern
        if not self.key and not by_pattern:
            yield "key is missing: it says which attribute"
        yield from _pattern("pattern", self.pattern)
        if self.action == "extract" and self.pattern and not _groups(self.pattern):
            yield "pattern: has no named group, such as (?P<name>...)"


def _groups(text: str) -> bool:
    try:
        return bool(_compiled(text).groupindex)
    except re.error:
        return True


def _compiled(text: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"(?<!\\)\(\?<(?=[A-Za-z_])", "(?P<", text))


def _pattern(name: str, text: str | None) -> Iterator[str]:
    try:
        _compiled(text or "")
    except re.error as error:
        yield f"{name}: {text!r} is no regular expression: {error}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeMatch:
    """An attribute that must be there, with this value when one is given."""

    key: str
    """Its key."""

    value: Any = None
    """Its value; with `match_type: regexp` an expression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which records: all properties that are given must match, each by one of its list."""

    match_type: Literal["strict", "regexp"] = "strict"
    """strict: equal; regexp: the expression is found."""

    services: tuple[str, ...] = ()
    """The resource's `service.name`."""

    span_names: tuple[str, ...] = ()
    """Names of spans."""

    span_kinds: tuple[str, ...] = ()
    """Kinds of spans, such as `SPAN_KIND_SERVER`."""

    log_bodies: tuple[str, ...] = ()
    """Bodies of log records that are texts."""

    log_severity_texts: tuple[str, ...] = ()
    """Severity texts of log records."""

    metric_names: tuple[str, ...] = ()
    """Names of metrics."""

    attributes: tuple[AttributeMatch, ...] = ()
    """Attributes of the record, all of them."""

    resources: tuple[AttributeMatch, ...] = ()
    """Attributes of the resource, all of them."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        lists = ("services", "span_names", "span_kinds", "log_bodies", "log_severity_texts",
                 "metric_names")  # fmt: skip
        if not any(getattr(self, name) for name in (*lists, "attributes", "resources")):
            yield "matches everything or nothing; give at least one property"
        if self.match_type == "regexp":
            for name in lists:
                for at, text in enumerate(getattr(self, name)):
                    yield from _pattern(f"{name}[{at}]", text)
            for name in ("attributes", "resources"):
                for at, one in enumerate(getattr(self, name)):
                    if isinstance(one.value, str):
                        yield from _pattern(f"{name}[{at}].value", one.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """Settings of the `attributes` processor: change attributes of spans, logs and data points."""

    actions: tuple[Action, ...] = ()
    """What to do, in this order."""

    include: Match | None = None
    """Only records that match. Null is all."""

    exclude: Match | None = None
    """But not records that match."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        if not self.actions:
            yield "actions is missing: it says what to do"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """Settings of the `resource` processor: change the attributes of resources."""

    attributes: tuple[Action, ...] = ()
    """What to do, in this order: the actions of the `attributes` processor."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        if not self.attributes:
            yield "attributes is missing: it says what to do"


# -- filter ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterTraces:
    """Conditions on traces."""

    resource: tuple[str, ...] = ()
    """Everything of a resource is dropped."""

    span: tuple[str, ...] = ()
    """The span is dropped."""

    spanevent: tuple[str, ...] = ()
    """The event is dropped from its span."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterLogs:
    """Conditions on logs."""

    resource: tuple[str, ...] = ()
    """Everything of a resource is dropped."""

    log_record: tuple[str, ...] = ()
    """The record is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterMetrics:
    """Conditions on metrics."""

    resource: tuple[str, ...] = ()
    """Everything of a resource is dropped."""

    metric: tuple[str, ...] = ()
    """The metric is dropped with all its points."""

    datapoint: tuple[str, ...] = ()
    """The point is dropped, and the metric when no point is left."""


CONTEXT_OF_KEY: Mapping[str, str] = {"log_record": "log"}
"""Where a key of `filter` is not called as its context is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Settings of the `filter` processor: drop what meets any of the conditions."""

    error_mode: ErrorMode = "propagate"
    """A condition fails on a record: propagate keeps the request aside, ignore says so and goes on,
    silent goes on."""

    traces: FilterTraces = field(default_factory=FilterTraces)
    """Conditions on traces."""

    logs: FilterLogs = field(default_factory=FilterLogs)
    """Conditions on logs."""

    metrics: FilterMetrics = field(default_factory=FilterMetrics)
    """Conditions on metrics."""

    def conditions(self) -> Iterator[tuple[Signal, str, str, str]]:
        """Signal, context, place in the file, text; from the outermost context in."""
        for signal in Signal:
            section = getattr(self, signal.value)
            for key in section.__slots__:
                for at, text in enumerate(getattr(section, key)):
                    context = CONTEXT_OF_KEY.get(key, key)
                    yield signal, context, f"{signal.value}.{key}[{at}]", text

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        empty = True
        for _, context, place, text in self.conditions():
            empty = False
            try:
                compile_condition(text, context)
            except OttlError as error:
                yield f"{place}: {error}"
        if empty:
            yield "drops nothing: give conditions, such as traces: {span: ['name == \"x\"']}"


# -- transform -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One statement of a `transform` processor."""

    signal: Signal
    context: str
    text: str
    conditions: tuple[str, ...]
    error_mode: str


_SECTIONS: Mapping[str, Signal] = {
    "trace_statements": Signal.TRACES,
    "log_statements": Signal.LOGS,
    "metric_statements": Signal.METRICS,
}
_MODES = ("propagate", "ignore", "silent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """Settings of the `transform` processor: statements of OTTL's subset, in this order.

    An entry is a statement whose paths name their context (`span.name`), or a mapping of
    `statements` with `context`, `conditions` and `error_mode`.
    """

    error_mode: ErrorMode = "propagate"
    """A statement fails on a record: propagate keeps the request aside, ignore says so and goes on,
    silent goes on."""

    trace_statements: tuple[Any, ...] = ()
    """Contexts: resource, scope, span, spanevent."""

    log_statements: tuple[Any, ...] = ()
    """Contexts: resource, scope, log."""

    metric_statements: tuple[Any, ...] = ()
    """Contexts: resource, scope, metric, datapoint."""

    def steps(self) -> list[Step]:
        """All statements, in order. Problems are left out."""
        return [one for one in self._read() if isinstance(one, Step)]

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        found = list(self._read())
        yield from dict.fromkeys(one for one in found if isinstance(one, str))
        if not found:
            yield "does nothing: give trace_statements, log_statements or metric_statements"

    def _read(self) -> Iterator[Step | str]:
        for section, signal in _SECTIONS.items():
            for at, entry in enumerate(getattr(self, section)):
                place = f"{section}[{at}]"
                if isinstance(entry, str):
                    yield self._step(signal, place, "", entry, (), self.error_mode)
                elif isinstance(entry, Mapping):
                    yield from self._group(signal, place, entry)
                else:
                    yield f"{place}: must be a statement, or a mapping with statements"

    def _group(self, signal: Signal, place: str, entry: Mapping[str, Any]) -> Iterator[Step | str]:
        known = ("context", "conditions", "statements", "error_mode")
        for key in entry:
            if key not in known:
                yield f"{place}.{key}: unknown key (supported: {', '.join(known)})"
        context, mode = entry.get("context") or "", entry.get("error_mode") or self.error_mode
        if context and context not in CONTEXTS[signal]:
            contexts = ", ".join(CONTEXTS[signal])
            yield f"{place}.context: must be one of {contexts}, not {context!r}"
            return
        if mode not in _MODES:
            yield f"{place}.error_mode: must be one of {', '.join(_MODES)}, not {mode!r}"
        texts: dict[str, list[Any]] = {}
        for key in ("conditions", "statements"):
            found = entry.get(key) or []
            if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
                yield f"{place}.{key}: must be a list of texts"
                return
            texts[key] = found
        if not texts["statements"]:
            yield f"{place}.statements: is missing: it says what to do"
        for number, text in enumerate(texts["statements"]):
            yield self._step(
                signal,
                f"{place}.statements[{number}]",
                context,
                text,
                tuple(texts["conditions"]),
                str(mode),
                conditions_at=f"{place}.conditions",
            )

    def _step(
        self,
        signal: Signal,
        place: str,
        context: str,
        text: str,
        conditions: tuple[str, ...],
        mode: str,
        conditions_at: str = "",
    ) -> Step | str:
        """The step, or what is wrong with it."""
        where = place
        try:
            if not context:
                named = contexts_of(text, statement=True)
                for at, condition in enumerate(conditions):
                    where = f"{conditions_at}[{at}]"
                    named |= contexts_of(condition, statement=False)
                where = place
                found = deepest(named, CONTEXTS[signal])
                if found is None:
                    contexts = ", ".join(CONTEXTS[signal])
                    return f"{place}: {signal} have the contexts {contexts}"
                context = found
            compile_statement(text, context)
            for at, condition in enumerate(conditions):
                where = f"{conditions_at}[{at}]"
                compile_condition(condition, context)
        except OttlError as error:
            return f"{where}: {error}"
        return Step(signal, context, text, conditions, mode)


# -- probabilistic_sampler -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """Settings of the `probabilistic_sampler` processor: keep a share of traces, and their logs."""

    sampling_percentage: float | None = None
    """The share that is kept; 100 and more keep everything, 0 nothing. Must be given."""

    hash_seed: int = 0
    """Collectors with equal seeds decide alike."""

    mode: str = "hash_seed"
    """Only `hash_seed` is supported: the Collector's default."""

    attribute_source: Literal["traceID", "record"] = "traceID"
    """Logs: decide by the trace id, or by `from_attribute`."""

    from_attribute: str | None = None
    """Logs: the attribute to decide by, with `record`, or when there is no trace id."""

    sampling_priority: str | None = None
    """Logs: an attribute that says the percentage for its record."""

    fail_closed: bool = True
    """Drop a log record that has neither a trace id nor the attribute. False keeps it."""

    sampling_precision: int = 4
    """Accepted for the Collector's sake: no threshold is written into records."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        if self.sampling_percentage is None:
            yield "sampling_percentage is missing: which share to keep"
        elif not self.sampling_percentage >= 0:
            yield "sampling_percentage: must be 0 or more"
        if not 0 <= self.hash_seed < 1 << 32:
            yield "hash_seed: must be between 0 and 4294967295"
        if self.mode != "hash_seed":
            yield f"mode: only hash_seed is supported, not {self.mode!r}"
        if self.attribute_source == "record" and not self.from_attribute:
            yield "from_attribute: is needed with attribute_source: record"
        if not 1 <= self.sampling_precision <= 14:
            yield "sampling_precision: must be between 1 and 14"
