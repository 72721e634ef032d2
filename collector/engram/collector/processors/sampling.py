"""The `probabilistic_sampler` processor: a share of all traces, and the logs of the same traces.

The decision is the Collector's in mode `hash_seed`: 32-bit FNV-1a over the seed (four bytes, the
lowest first) and the id, of which 14 bits are compared with the percentage. So collectors with
equal seeds, ours or theirs, keep the same traces.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from engram.collector.ottl import Row, values
from engram.exporters.signals import Signal

from .settings import Sampler
from .stage import Stage, prune

_BUCKETS: Final = 1 << 14
_PRIORITY: Final = "sampling.priority"
_NO_TRACE: Final = bytes(16)


def bucket(key: bytes, seed: int) -> int:
    """Which of 16,384 buckets a key falls into."""
    found = 0x811C9DC5
    for byte in seed.to_bytes(4, "little") + key:
        found = ((found ^ byte) * 0x01000193) & 0xFFFFFFFF
    return found & (_BUCKETS - 1)


def kept_buckets(percentage: float) -> int:
    """How many buckets are kept: in single precision and rounded down, as in the Collector."""
    single = struct.unpack("<f", struct.pack("<f", min(percentage, 100.0)))[0]
    return int(struct.unpack("<f", struct.pack("<f", single * (_BUCKETS / 100.0)))[0])


def sampling(settings: Sampler) -> Stage:
    """The stage of a `probabilistic_sampler` processor."""
    kept, seed = kept_buckets(settings.sampling_percentage or 0.0), settings.hash_seed

    def keeps_span(row: Row) -> bool:
        priority = _number(row.span.attributes, _PRIORITY)
        if priority is not None:
            return priority > 0
        return bucket(row.span.trace_id, seed) < kept

    def keeps_log(row: Row) -> bool:
        share = kept
        if settings.sampling_priority:
            priority = _number(row.log.attributes, settings.sampling_priority)
            share = share if priority is None else kept_buckets(max(priority, 0.0))
        key = _key_of_log(settings, row.log)
        if key is None:
            return share > 0 and not settings.fail_closed
        return bucket(key, seed) < share

    def run(signal: Signal, request: Any) -> int:
        if signal is Signal.METRICS:
            return 0
        keeps = keeps_span if signal is Signal.TRACES else keeps_log
        return prune(signal, request, lambda row: None if keeps(row) else 1)

    return run


def _key_of_log(settings: Sampler, log: Any) -> bytes | None:
    if settings.attribute_source == "traceID" and log.trace_id not in (b"", _NO_TRACE):
        return bytes(log.trace_id)
    if not settings.from_attribute:
        return None
    found = values.find(log.attributes, settings.from_attribute)
    value = None if found is None else values.read(found)
    if value is None or value in ("", b""):
        return None
    return value if isinstance(value, bytes) else values.as_text(value).encode()


def _number(pairs: Any, key: str) -> float | None:
    found = values.find(pairs, key)
    value = None if found is None else values.read(found)
    try:
        return None if value is None or isinstance(value, list | dict | bytes) else float(value)
    except (ValueError, OverflowError):
        return None
