"""The processors of a pipeline, one after the other: OTLP bytes in, OTLP bytes out.

Reading and writing a request costs 1 µs a span and each processor some 3 to 10 µs
(`bench/processors.py`), so a pipeline without such processors has no chain at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from google.protobuf.message import DecodeError

from engram.collector.component import Kind
from engram.collector.config import ComponentId, Config, Pipeline
from engram.collector.registry import Redaction
from engram.exporters.errors import EngramError
from engram.exporters.otlp.wire import OFFICIAL_REQUEST, STRICT_REQUEST
from engram.exporters.redact import RedactionConfig
from engram.exporters.signals import Processed, Signal

from .actions import attributes, resource
from .filtering import filtering
from .redacting import redacting
from .sampling import sampling
from .settings import Attributes, Filter, Resource, Sampler, Transform
from .stage import Stage
from .transforming import transforming


class ProcessorError(EngramError):
    """A processor cannot do its work on a request; the request is kept aside."""


class Chain:
    """The stages of one pipeline. Calling it twice with the same bytes gives the same bytes."""

    def __init__(self, stages: Sequence[tuple[str, Stage]]) -> None:
        self._stages = stages

    def __call__(self, signal: Signal, body: bytes) -> Processed:
        """Run a request through; the body is empty when no record is left.

        Raises:
            ProcessorError: a processor failed, or the body is no OTLP.
        """
        request = _parse(signal, body)
        dropped: dict[str, int] = {}
        for name, stage in self._stages:
            try:
                gone = stage(signal, request)
            except Exception as error:
                raise ProcessorError(f"processor {name}: {error}") from error
            if gone:
                dropped[name] = dropped.get(name, 0) + gone
        return Processed(request.SerializeToString(), dropped)


class Chains:
    """The chains of the signals that have one; others pass as they are."""

    def __init__(self, chains: Mapping[Signal, Chain]) -> None:
        self._chains = chains

    def __call__(self, signal: Signal, body: bytes) -> Processed:
        """Run a request through the chain of its signal; see `engram.exporters.signals.Process`."""
        chain = self._chains.get(signal)
        return Processed(body) if chain is None else chain(signal, body)


def for_memory(config: Config) -> Chains | None:
    """What stands between the log and the memory exporter; None when nothing does."""
    found: dict[Signal, Chain] = {}
    for pipeline in config.pipelines:
        if any(at.type == "memory" for at in pipeline.exporters):
            # The decoder redacts what is last; the stage is for processors behind it.
            ids = list(pipeline.processors)
            while ids and ids[-1].type not in _STAGES.keys() - {"redaction"}:
                ids.pop()
            if stages := _stages(config, ids):
                found[pipeline.signal] = Chain(stages)
    return Chains(found) if found else None


def for_sending(config: Config, pipeline: Pipeline) -> Chain | None:
    """What stands between the log and another exporter of a pipeline; None when nothing does."""
    stages = _stages(config, pipeline.processors)
    return Chain(stages) if stages else None


_STAGES: Final[Mapping[str, Any]] = {
    "attributes": (Attributes, attributes),
    "resource": (Resource, resource),
    "filter": (Filter, filtering),
    "transform": (Transform, transforming),
    "probabilistic_sampler": (Sampler, sampling),
    "redaction": (Redaction, lambda settings: redacting(RedactionConfig(**asdict(settings)))),
}
"""Processors that are stages. `batch` and `memory_limiter` are the engine's."""


def _stages(config: Config, ids: Iterable[ComponentId]) -> list[tuple[str, Stage]]:
    found = []
    for at in ids:
        if at.type in _STAGES:
            kind, make = _STAGES[at.type]
            settings = config.components[Kind.PROCESSOR][at]
            if not isinstance(settings, kind):
                raise AssertionError(f"{at} has other settings than its type")
            found.append((str(at), make(settings)))
    return found


# -- bytes -----------------------------------------------------------------------------------------


def _parse(signal: Signal, body: bytes) -> Any:
    kind = OFFICIAL_REQUEST[signal]
    try:
        return kind.FromString(body)
    except DecodeError:
        pass  # perhaps only for text that is not UTF-8, which the intake accepts
    try:
        mirror = STRICT_REQUEST[signal].FromString(body)
        _mend(mirror, kind.DESCRIPTOR)
        return kind.FromString(mirror.SerializeToString())
    except DecodeError as error:
        raise ProcessorError(f"no OTLP {signal} request: {error}") from error


def _mend(message: Any, official: Any) -> None:
    """Give each text that is not UTF-8 its replacement characters."""
    for field, value in message.ListFields():
        like = official.fields_by_name[field.name]
        if like.type == like.TYPE_MESSAGE:
            for one in value if field.is_repeated else (value,):
                _mend(one, like.message_type)
        elif like.type == like.TYPE_STRING:
            if field.is_repeated:
                value[:] = [_utf8(one) for one in value]
            else:
                setattr(message, field.name, _utf8(value))


def _utf8(raw: bytes) -> bytes:
    return raw.decode("utf-8", "replace").encode()
