"""Metrics that fill up (against what there is of it) and queues that grow (against their history).

What is known of a metric is its name, by the semantic conventions: `*.utilization` is a share of 1;
`*.used` or `*.usage` has a `*.limit`, `*.max` or `*.capacity` of the same labels, or is one of
several states of the same thing, which together are all there is (`system.filesystem.usage`).
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engram.learning.changepoints import Series as Values
from engram.learning.jobs.predictions.series import (
    HISTORY,
    HOUR,
    Evidence,
    Watched,
    hours,
    own_limit,
)
from engram.learning.limits import Limits

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

_SHARE: Final = re.compile(r"[._]utili[sz]ation$")
_USED: Final = re.compile(r"[._](used|usage|count)$")
_WORDS: Final = ("limit", "max", "capacity", "quota")
_LIMIT: Final = re.compile(rf"[._]({'|'.join(_WORDS)})$")
_QUEUE: Final = re.compile(
    r"(^|[._])(lag|backlog|queue[._](depth|size|length|messages?|pending))([._]|$)"
)
_STATE: Final = re.compile(r"(^|[._])(state|mode)$")
_MOST: Final = 2_000
"""Series that are looked at; more are a mistake of labels, and the longest are taken."""

_SCOPES: Final = ("host.name", "k8s.node.name")
"""Of the resource, what tells series apart; a process or a pod would begin a new one each time."""

_EVIDENCE: Final = (
    "SELECT id FROM lake.memories WHERE type = 'performance_metric' AND time_unix_nano >= ? "
    "AND time_unix_nano < ? AND coalesce(service_name, '') = ? AND subject = ? "
    "ORDER BY time_unix_nano DESC, id LIMIT 5"
)

_Key = tuple[str, str, str]
"""Service, name and labels."""


def gauges(read: Read, limits: Limits, end: int) -> Iterator[Watched]:
    """Every metric whose limit is known, or that is a queue."""
    since = (end - HISTORY) * HOUR
    there = read(
        "SELECT DISTINCT name FROM lake.metrics WHERE time_unix_nano >= ? AND time_unix_nano < ? "
        "AND type IN ('gauge', 'sum')",
        [since, end * HOUR],
    )["name"].to_list()
    names = sorted(_wanted({str(one) for one in there}, limits))
    if not names:
        return
    found = _series(read, names, since, end)
    for (service, name, labels), values in sorted(_shares(found, limits)):
        yield _watched("saturation", service, name, labels, limits.full, "known", end, values)
    for (service, name, labels), values in sorted(found.items()):
        limit = limits.gauge_of(name)
        if limit is not None:
            yield _watched("saturation", service, name, labels, limit, "configured", end, values)
        elif _QUEUE.search(name) and (own := own_limit(values, 2.0, 1.0)) is not None:
            yield _watched("queue", service, name, labels, own, "its own history", end, values)


def _wanted(names: set[str], limits: Limits) -> Iterator[str]:
    """The names that are needed: alone, in pairs, or with states."""
    bases = {_LIMIT.sub("", one) for one in names if _LIMIT.search(one)}
    for name in names:
        base = _USED.sub("", name)
        if (
            _SHARE.search(name)
            or _QUEUE.search(name)
            or limits.gauge_of(name) is not None
            or name.endswith((".usage", "_usage"))
            or (_USED.search(name) and base in bases)
            or _LIMIT.search(name)
        ):
            yield name


def _series(read: Read, names: Iterable[str], since: int, end: int) -> dict[_Key, Values]:
    """The mean of each hour; of several processes with the same labels, the highest."""
    import polars as pl

    names = list(names)
    frame = read(
        "SELECT name, coalesce(service_name, '') AS service, coalesce(resource, '') AS resource, "
        f"coalesce(attributes, '') AS attributes, time_unix_nano // {HOUR} AS hour, "
        "avg(coalesce(value_double, value_int)) AS value FROM lake.metrics "
        "WHERE time_unix_nano >= ? AND time_unix_nano < ? AND type IN ('gauge', 'sum') "
        "AND (type = 'gauge' OR NOT is_monotonic AND aggregation_temporality = 2) "
        f"AND flags & 1 = 0 AND name IN ({', '.join('?' * len(names))}) GROUP BY ALL",
        [since, end * HOUR, *names],
    ).drop_nulls("value")
    wheres = {one: _where(one) for one in frame["resource"].unique().to_list()}
    labels = {one: _object(one) for one in frame["attributes"].unique().to_list()}
    pairs = frame.select("resource", "attributes").unique().rows()
    told = pl.DataFrame(
        [
            {"resource": one, "attributes": two, "labels": _text({**labels[two], **wheres[one]})}
            for one, two in pairs
        ],
        schema={"resource": pl.String, "attributes": pl.String, "labels": pl.String},
    )
    keys = ["service", "name", "labels"]
    rows = frame.join(told, on=["resource", "attributes"]).group_by([*keys, "hour"])
    rows_ = rows.agg(pl.col("value").max())
    longest = rows_.group_by(keys).len().sort(
        "len", *keys, descending=[True, False, False, False]
    )  # fmt: skip
    rows_ = rows_.join(longest.head(_MOST).select(keys), on=keys, how="semi")
    return {
        (str(key[0]), str(key[1]), str(key[2])): values
        for key, (values,) in hours(rows_, keys, ["value"], end, fill=np.nan)
    }


def _shares(found: dict[_Key, Values], limits: Limits) -> Iterator[tuple[_Key, Values]]:
    """What is used of what there is."""
    states: dict[_Key, dict[str, Values]] = defaultdict(dict)
    for (service, name, labels), values in found.items():
        if limits.gauge_of(name) is not None:
            continue
        told = _object(labels)
        state = next((one for one in told if _STATE.search(one)), None)
        rest = _text({key: one for key, one in told.items() if key != state})
        if state is not None and told[state] != "used" and not name.endswith((".usage", "_usage")):
            continue  # what is idle is not used, and of a processor's states each is a part
        if _SHARE.search(name):
            yield (service, name, labels), values
        elif _USED.search(name) and (limit := _limit(found, service, name, rest)) is not None:
            if state is None or told[state] == "used":
                yield (service, name, rest), _part(values, limit)
        elif state is not None:
            states[service, name, rest][told[state]] = values
    for key, some in states.items():
        if "used" in some and len(some) > 1:
            length = max(len(one) for one in some.values())
            whole = np.sum([_filled(one, length) for one in some.values()], axis=0)
            yield key, _part(some["used"], whole)


def _limit(found: dict[_Key, Values], service: str, name: str, labels: str) -> Values | None:
    """The metric that says how much there is of what another one uses."""
    base = _USED.sub("", name)
    names = (f"{base}{mark}{word}" for word in _WORDS for mark in "._")
    return next(
        (found[service, one, labels] for one in names if (service, one, labels) in found), None
    )


def _filled(values: Values, length: int) -> Values:
    """As long; before it began nothing is known."""
    return np.concatenate([np.full(length - len(values), np.nan), values])


def _part(used: Values, whole: Values) -> Values:
    length = min(len(used), len(whole))
    used, whole = used[len(used) - length :], whole[len(whole) - length :]
    return np.asarray(np.divide(used, whole, out=np.full(length, np.nan), where=whole > 0))


def _watched(
    kind: Any, service: str, name: str, labels: str, limit: float, said: str, end: int,
    values: Values,
) -> Watched:  # fmt: skip
    return Watched(
        kind, service, name, labels, "", limit, said, end, values,
        evidence=Evidence(_EVIDENCE, ((end - 24) * HOUR, end * HOUR, service, name)),
    )  # fmt: skip


def _where(resource: str) -> dict[str, str]:
    return {key: one for key, one in _object(resource).items() if key in _SCOPES}


def _object(text: str) -> dict[str, str]:
    try:
        told = json.loads(text) if text else {}
    except ValueError:
        return {}
    if not isinstance(told, dict):
        return {}
    return {str(key): one if isinstance(one, str) else json.dumps(one) for key, one in told.items()}


def _text(labels: dict[str, str]) -> str:
    return json.dumps(labels, sort_keys=True, ensure_ascii=False) if labels else ""


__all__ = ["gauges"]
