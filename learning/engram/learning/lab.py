"""`engram lab METHOD`: a method of learning as a filter, with the product's one configuration.

Anyone can score it on data of their own; it needs no lake.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from engram.exporters.errors import BadRequest

if TYPE_CHECKING:
    from engram.learning.changepoints import Series
    from engram.learning.similar import Trace

_LONGEST: Final = 10_000
"""Steps of a forecast."""

_HUGE: Final = 1e15


def run(method: str, source: BinaryIO, target: BinaryIO) -> None:
    """Filter the lines of `source` into `target`.

    Raises:
        BadRequest: there is no such method, or a line is not what it takes.
    """
    if method not in METHODS:
        raise BadRequest(f"no method {method!r}; there is: {', '.join(METHODS)}")
    lines = (line.rstrip(b"\r\n").decode("utf-8", "replace") for line in source)
    try:
        for line in METHODS[method](lines):
            target.write(line.encode("utf-8", "replace") + b"\n")
            if method != "patterns":
                target.flush()  # who asks may wait for the answer before the next question
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise BadRequest(f"not what {method} takes: {type(error).__name__}: {error}") from error
    finally:
        target.flush()


def patterns(lines: Iterable[str]) -> Iterable[str]:
    """A message a line; `id<TAB>template` a line, in the same order."""
    from engram.learning.patterns import mine, pattern_id

    found = mine(list(lines))
    ids = [f"{pattern_id(one)}\t{one.replace(chr(9), ' ')}" for one in found.templates]
    return (ids[at] for at in found.of)


def similar(lines: Iterable[str]) -> Iterable[str]:
    """`{op: index, traces: [...]}` -> `{ok}`; `{op: search, trace, scope, k}` -> `{ids, scores}`.

    A trace is {id, scope, type, message, frames: [[module, function, file]]}, innermost first.
    """
    from engram.learning.similar import SimilarTraces

    scopes: dict[str, SimilarTraces] = defaultdict(SimilarTraces)
    for said in _objects(lines):
        if said.get("op") == "index":
            of_scope = defaultdict(list)
            for trace in said["traces"]:
                of_scope[str(trace.get("scope") or "")].append(_trace(trace))
            for scope, traces in of_scope.items():
                scopes[scope].add(traces)
            yield json.dumps({"ok": True})
        elif said.get("op") == "search":
            trace = said["trace"]
            scope = str(said.get("scope") or trace.get("scope") or "")
            found = scopes[scope].search(_trace(trace), int(said.get("k") or 10))
            ids, scores = [one for one, _ in found], [round(score, 6) for _, score in found]
            yield json.dumps({"ids": ids, "scores": scores})
        else:
            raise BadRequest(f"op must be index or search, not {said.get('op')!r}")


def changepoints(lines: Iterable[str]) -> Iterable[str]:
    """`{id, values}` -> `{id, changepoints: [index]}`; null is a gap."""
    from engram.learning.changepoints import changepoints as found

    for said in _objects(lines):
        yield json.dumps({"id": said.get("id"), "changepoints": found(_values(said))})


def forecast(lines: Iterable[str]) -> Iterable[str]:
    """`{id, values, step_s, horizon}` -> `{id, mean, lo90, hi90}`; null where nothing is known."""
    from engram.learning.forecast import forecast as made

    for said in _objects(lines):
        step_s, horizon = _number(said, "step_s"), _number(said, "horizon")
        if step_s <= 0:
            raise BadRequest(f"step_s must be more than 0 seconds, not {step_s}")
        if horizon != int(horizon) or not 1 <= horizon <= _LONGEST:
            raise BadRequest(f"horizon must be 1..{_LONGEST} steps, not {horizon}")
        one = made(_values(said), step_s, int(horizon))
        answer = {"mean": one.mean, "lo90": one.lo90, "hi90": one.hi90}
        told = {
            name: [value if math.isfinite(value) else None for value in row.tolist()]
            for name, row in answer.items()
        }
        yield json.dumps({"id": said.get("id"), **told})


def _values(said: dict[str, Any]) -> Series:
    """The numbers of a series, NaN for null."""
    import numpy as np

    values = said.get("values")
    if not isinstance(values, list):
        raise BadRequest("values must be a list of numbers and nulls")
    for at, one in enumerate(values):
        if one is not None and (isinstance(one, bool) or not isinstance(one, int | float)):
            raise BadRequest(f"values[{at}] must be a number or null, not {one!r}")
    try:
        return np.array(values, np.float64)
    except OverflowError as error:
        raise BadRequest(f"values: {error}") from None


def _number(said: dict[str, Any], name: str) -> float:
    """A finite number of that name."""
    one = said.get(name)
    if isinstance(one, bool) or not isinstance(one, int | float) or not abs(one) < _HUGE:
        raise BadRequest(f"{name} must be a number, not {one!r}")
    return float(one)


def anomalies(lines: Iterable[str]) -> Iterable[str]:
    """`{id, timestamps, values}` -> `{id, scores}`, 0 to 1, each by the points up to it."""
    from engram.learning.anomalies import anomaly_scores

    for said in _objects(lines):
        scores = anomaly_scores(said["timestamps"], said["values"])
        yield json.dumps({"id": said.get("id"), "scores": scores.round(6).tolist()})


def rootcause(lines: Iterable[str]) -> Iterable[str]:
    """`{id, graph, times, metrics, incident, target}` -> `{id, ranked, scores, unclear}`.

    The graph is of [caller, callee], the incident of [start, end], in the unit of the times.
    """
    from engram.learning.rootcause import rank_causes

    for said in _objects(lines):
        found = rank_causes(
            said["graph"], said["times"], said["metrics"], said["incident"], said.get("target")
        )
        yield json.dumps(
            {
                "id": said.get("id"),
                "ranked": [name for name, _ in found.ranked],
                "scores": [round(score, 6) for _, score in found.ranked],
                "unclear": found.unclear,
            }
        )


def recall(lines: Iterable[str]) -> Iterable[str]:
    """`{op: index, docs: [{id, text, scope, ts}]}` -> `{ok}`; then questions about them.

    `{op: search, text, k, scope}` -> `{ids, scores}`, best first.
    """
    from engram.learning.recall.trial import Trial

    with Trial() as trial:
        for said in _objects(lines):
            if said.get("op") == "index":
                trial.index(said["docs"])
                yield json.dumps({"ok": True})
            elif said.get("op") == "search":
                k = int(said.get("k") or 10)
                ids, scores = trial.search(str(said["text"]), k, said.get("scope"))
                yield json.dumps({"ids": ids, "scores": scores})
            else:
                raise BadRequest(f"op must be index or search, not {said.get('op')!r}")


def _trace(said: dict[str, Any]) -> Trace:
    from engram.learning.similar import Trace

    frames = tuple((str(one[0] or one[-1]), str(one[1])) for one in said.get("frames") or ())
    type_, message = str(said.get("type") or ""), str(said.get("message") or "")
    return Trace(str(said.get("id") or ""), type_, message, frames)


def _objects(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    """A JSON object a line."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"line {number} is no JSON: {error}") from None
        if not isinstance(said, dict):
            raise BadRequest(f"line {number}: a JSON object is needed")
        yield said


METHODS: Final[dict[str, Callable[[Iterable[str]], Iterable[str]]]] = {
    "anomalies": anomalies,
    "changepoints": changepoints,
    "forecast": forecast,
    "patterns": patterns,
    "recall": recall,
    "rootcause": rootcause,
    "similar": similar,
}


__all__ = ["METHODS", "patterns", "run"]
