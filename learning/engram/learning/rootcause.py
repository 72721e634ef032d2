"""What an incident began with: components ranked by how they deviate, along the graph of calls.

For every metric the worst points of the incident are compared with the worst points of as many in
a row before it, so that a series that is often bad is not found bad. Only what is worse counts:
latency and errors up, availability down; more or less traffic is passed on by callers and is no
cause. Of the same kind as the target's own deviation, and at the same moments, weighs more. A
caller that calls something as bad is explained by it; who explains more callers ranks higher, and
who adds more time or errors over all its calls, where it is known how many there are.
Nothing that stands out, or a target that is as ever, is said to be unclear.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engram.exporters.errors import BadRequest

Floats = NDArray[np.float64]

_WINDOWS: Final = 8
"""Windows of the time before without which a metric's usual variation is not known."""

_STILL: Final = 0.03
"""A change by this share of the usual value is one deviation at least."""

_SHARE: Final = 0.005
"""And of a share of calls, this much."""

_USUAL: Final = 0.95
"""The share of the time before that counts as usual."""

_CLEAR: Final = 2.0
"""Deviations above the worst that is usual, from which a component is one that deviates."""

_MOST: Final = 50.0
"""Deviations beyond which more is not worse."""

_AMOUNT: Final = 0.7
"""The part of a score that goes by what it amounts to over all calls."""

_EXPLAINED: Final = 0.5
"""A callee at least this bad, as a share of its caller's deviation, explains the caller."""

_CALLERS: Final = 1.0
"""What a component gains, at most, by callers that are bad as well."""

_OTHER_KIND: Final = 0.3
"""What a deviation of another kind than the target's counts."""

_KINDS: Final = (
    ("available", re.compile(r"avail|success|uptime", re.I)),
    ("errors", re.compile(r"err|fail|fault|exception|5xx|timeout|drop|reject", re.I)),
    (
        "latency",
        re.compile(r"laten|durat|elapsed|response.?time|wait|p\d\d\b|_(ms|s)$", re.I),
    ),
    ("traffic", re.compile(r"request|count|calls|traffic|throughput|rate|rps|sum$", re.I)),
)


@dataclass(frozen=True, slots=True)
class Causes:
    """Components, the likeliest first, each with a score from 0 to 1."""

    ranked: list[tuple[str, float]]
    unclear: bool


@dataclass(frozen=True, slots=True)
class _Change:
    """How far a metric is off: beyond the usual, from the middle, in its own unit; and when."""

    size: float
    off: float
    amount: float
    shape: Floats


def rank_causes(
    graph: Iterable[Sequence[str]],
    times: Sequence[float],
    metrics: Mapping[str, Mapping[str, Sequence[float | None]]],
    incident: Sequence[float],
    target: str | None = None,
) -> Causes:
    """Rank what may have caused the incident that was seen at `target`.

    Raises:
        BadRequest: the graph is not of pairs, a series not as long as the times, or not of numbers.
    """
    at = _numbers(times, "times")
    if len(incident) != 2 or not all(isinstance(one, int | float) for one in incident):
        raise BadRequest("incident must be [start, end]")
    if not isinstance(metrics, Mapping):
        raise BadRequest("metrics must be {component: {name: [...]}}")
    order = np.argsort(at, kind="stable")
    at = at[order]
    before, during = at < incident[0], (at >= incident[0]) & (at <= incident[1])
    found: dict[str, dict[str, _Change]] = {}
    traffic: dict[str, float] = {}
    for name, series in metrics.items():
        of: dict[str, _Change] = {}
        for metric, values in (series or {}).items():
            numbers = _numbers(values, f"{name} {metric}")
            if len(numbers) != len(at):
                raise BadRequest(f"{name} {metric}: {len(numbers)} values, {len(at)} times")
            kind = _kind(metric)
            calls = numbers[order][during]
            if kind == "traffic" and np.isfinite(calls).any():
                traffic[str(name)] = max(float(np.nanmean(calls)), 0.0)
            change = _change(kind, numbers[order][before], numbers[order][during])
            kind = "errors" if kind == "available" else kind
            if kind not in of or change.size > of[kind].size:
                of[kind] = change
        found[str(name)] = of
    callees = _callees(graph)
    return _rank(found, traffic, callees, None if target is None else str(target))


def _numbers(values: Any, what: str) -> Floats:
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise BadRequest(f"{what} must be a list of numbers") from None
    if found.ndim != 1:
        raise BadRequest(f"{what} must be a list of numbers")
    return np.where(np.abs(found) < 1e150, found, np.nan)


def _callees(graph: Iterable[Sequence[str]]) -> dict[str, set[str]]:
    callees: dict[str, set[str]] = defaultdict(set)
    for edge in graph:
        if isinstance(edge, str) or len(edge) != 2:
            raise BadRequest("graph must be a list of [caller, callee]")
        callees[str(edge[0])].add(str(edge[1]))
    return callees


def _kind(metric: str) -> str:
    return next((kind for kind, words in _KINDS if words.search(metric)), "other")


def _change(kind: str, before: Floats, during: Floats) -> _Change:
    """The deviation of the worse half of the incident, beyond the worst of the time before."""
    shape = np.zeros(len(during))
    known = before[np.isfinite(before)]
    here = np.isfinite(during)
    size = int(here.sum())
    if kind == "traffic" or not size or len(known) < size + _WINDOWS - 1:
        return _Change(0.0, 0.0, 0.0, shape)
    sign = -1.0 if kind == "available" else 1.0
    windows = np.lib.stride_tricks.sliding_window_view(sign * known, min(size, 100))
    windows = windows[:: max(1, len(windows) // 2_000)]
    usual = _worse_half(windows)
    middle = float(np.median(usual))
    spread = float(np.subtract(*np.quantile(usual, (0.9, 0.1)))) / 2.56
    floor = _STILL * abs(middle)
    if kind == "available":
        floor = _SHARE * float(np.max(np.abs(known)))
    spread = max(spread, floor, 1e-9)
    shape[here] = (sign * during[here] - float(np.median(sign * known))) / spread
    stands = float(_worse_half(sign * during[here][None, :])[0])
    worst = float(np.quantile(usual, _USUAL))
    beyond, off = (min(max((stands - one) / spread, 0.0), _MOST) for one in (worst, middle))
    return _Change(beyond, off, max(stands - middle, 0.0), shape)


def _worse_half(windows: Floats) -> Floats:
    """The mean of the upper half of each."""
    half = (windows.shape[1] + 1) // 2
    found: Floats = np.sort(windows, axis=1)[:, -half:].mean(axis=1)
    return found


def _rank(
    found: dict[str, dict[str, _Change]],
    traffic: dict[str, float],
    callees: dict[str, set[str]],
    target: str | None,
) -> Causes:
    seen = found.get(target or "", {})
    off = max((one.size for one in seen.values()), default=0.0)
    main = max(seen, key=lambda kind: (seen[kind].size, seen[kind].off), default="")
    below = _reachable(callees, target) if target in callees else None
    strength = {}
    for name, of in found.items():
        score = 0.0
        for kind, change in of.items():
            weight = 1.0 if not main or kind == main else _OTHER_KIND
            if main:
                weight *= 0.2 + 0.8 * _together(change.shape, seen[main].shape)
            score = max(score, weight * math.log1p(change.size))
        strength[name] = score
    callers: dict[str, set[str]] = defaultdict(set)
    for name in found:
        for other in _reachable(callees, name) - {name}:
            callers[other].add(name)
    amounts = {
        name: of[main].amount * traffic[name]
        for name, of in found.items()
        if main in of and name in traffic
    }
    most = max(
        (one for name, one in amounts.items() if strength[name] > 0 and name != target), default=0.0
    )
    scores = {}
    for name, score in strength.items():
        under = _reachable(callees, name) - {name}
        # What is in a cycle with it is above it as much as below: it explains nothing.
        worst = max(
            (strength.get(one, 0.0) for one in under if one not in callers[name]), default=0.0
        )
        if score and worst > _EXPLAINED * score:
            score *= 0.4
        explained = sum(min(strength[one], score) for one in callers[name])
        score *= 1 + _CALLERS * explained / (explained + 2)
        share = amounts[name] / most if most and name in amounts else 0.25
        score *= 1 - _AMOUNT * (1 - min(math.sqrt(share), 1.0))
        scores[name] = score * (1.0 if below is None or name in below else 0.1)
    ranked = sorted(scores.items(), key=lambda one: (-one[1], one[0]))
    known = target in found and bool(found[str(target)])
    best = max((strength[name] for name, _ in ranked[:3]), default=0.0)
    unclear = best < math.log1p(_CLEAR) or (known and off < _CLEAR)
    return Causes([(name, score / (score + 2)) for name, score in ranked], unclear)


def _reachable(callees: dict[str, set[str]], start: str | None) -> set[str]:
    seen: set[str] = set()
    todo = [str(start)]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += callees.get(name, ())
    return seen


def _together(one: Floats, other: Floats) -> float:
    """How much two deviations move at the same moments, 0 to 1; 1 when there are too few."""
    both = np.isfinite(one) & np.isfinite(other)
    if both.sum() < 4:
        return 1.0
    a, b = np.clip(one[both], -50, 50), np.clip(other[both], -50, 50)
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    if size > 0:
        return max(0.0, float(a @ b) / size)
    return 1.0 if not a.any() and not b.any() else 0.0


__all__ = ["Causes", "rank_causes"]
