"""What is said of a prediction, of how it turned out, and of how good they are."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Final

from engram.learning.jobs.insight import Insight
from engram.learning.jobs.predictions.deploys import Regression
from engram.learning.jobs.predictions.record import (
    EXPIRED,
    HIT,
    MISS,
    NAME,
    Made,
    Standing,
)
from engram.learning.jobs.predictions.series import HOUR, Foreseen, Watched

SURE: Final = 0.99
"""No probability is above this: the method may be wrong, too."""

_WHAT: Final = {
    "latency": "{name} will be too slow",
    "error_budget": "The error budget of {service} will be used up",
    "saturation": "{name} will be full",
    "queue": "{name} grows beyond what it ever was",
    "tokens": "Models will use more tokens than a day may cost",
}
_VERDICTS: Final = {
    HIT: "It came true",
    MISS: "It did not come true",
    EXPIRED: "It could not be judged",
}


def predicted(
    series: Watched, found: Foreseen, standing: Standing, evidence: tuple[str, ...]
) -> Insight:
    """That a limit will be crossed."""
    now = series.end * HOUR
    probability = min(SURE, standing.calibrated(found.probability))
    crosses, deadline = now + round(found.after) * HOUR, now + found.deadline * HOUR
    known = [one for one in series.values[-3:].tolist() if one == one]
    latest = None if found.latest is None else now + round(found.latest) * HOUR
    what = _WHAT[series.kind].format(name=series.name, service=series.service)
    where = f" ({_labels(series.labels)})" if series.labels else ""
    lines = [
        f"{what}{where}: {_value(known[-1], series)} now, limit {_value(series.limit, series)} "
        f"({series.limit_is}).",
        f"expected: {_when(crosses)}, in about {round(found.after)} h; "
        f"between {_when(now + round(found.earliest) * HOUR)} and "
        f"{_when(latest) if latest else 'never'}",
        f"probability: {100 * probability:.0f} % that it happens before {_when(deadline)}",
        f"at the deadline, nine of ten: {_value(found.low, series)} to "
        f"{_value(found.high, series)}",
        f"n: {len(series.values)} hours",
        _standing(standing),
    ]
    return Insight(
        job=NAME,
        key=("prediction", *series.key, str(now)),
        title=f"{what}{where} in about {round(found.after)} h ({100 * probability:.0f} %)"[:300],
        content="\n".join(line for line in lines if line),
        time_unix_nano=now,
        service=series.service or None,
        importance=0.3 if standing.muted else 0.8,
        tags=_tags("predicted", series.kind, muted=standing.muted),
        evidence=evidence,
        facts={
            "says": "prediction", "state": "silent" if standing.muted else "predicted",
            "as_of": now, "kind": series.kind, "series": json.dumps(series.key),
            "name": series.name, "labels": series.labels or None, "unit": series.unit,
            "value": known[-1], "limit": series.limit, "limit_is": series.limit_is,
            "crosses_ns": crosses, "earliest_ns": now + round(found.earliest) * HOUR,
            "latest_ns": latest, "deadline_ns": deadline,
            "low": found.low, "high": found.high,
            "probability": round(probability, 4), "method_probability": round(found.probability, 4),
            "n": len(series.values), "muted": standing.muted,
        },
    )  # fmt: skip


def regressed(
    found: Regression, as_of: int, standing: Standing, evidence: tuple[str, ...]
) -> Insight:
    """That a new version fails more, and will."""
    new, deadline = found.new, as_of + 24 * HOUR
    rate, before = new.failed / new.requests, found.old_failed / found.old_requests
    raw = 1 - 1 / found.e_value
    probability = min(SURE, standing.calibrated(raw))
    what = f"Version {new.name} of {new.service or 'the service'} fails more than {found.old}"
    lines = [
        f"{what}: {new.failed} of {new.requests} requests ({100 * rate:.1f} %, at least "
        f"{100 * found.low:.1f} %) since {_when(new.first)}; before, {found.old_failed} of "
        f"{found.old_requests} ({100 * before:.2f} %).",
        f"probability: {100 * probability:.0f} % that more than {100 * found.limit:.1f} % fail "
        f"until {_when(deadline)}, if it stays",
        f"evidence: e-value {found.e_value:.3g}; it may be looked at as often as one likes",
        f"n: {new.requests} requests",
        _standing(standing),
    ]
    series = series_of(new.service, new.name)
    return Insight(
        job=NAME,
        key=("prediction", *series),
        title=f"{what}: {100 * rate:.1f} % instead of {100 * before:.2f} %"[:300],
        content="\n".join(line for line in lines if line),
        time_unix_nano=as_of,
        service=new.service or None,
        importance=0.3 if standing.muted else 0.85,
        tags=_tags("predicted", "regression", muted=standing.muted),
        evidence=evidence,
        facts={
            "says": "prediction", "state": "silent" if standing.muted else "predicted",
            "as_of": as_of, "kind": "regression", "series": json.dumps(series),
            "name": new.name, "old_version": found.old, "unit": "",
            "value": rate, "low": found.low, "before": before, "limit": found.limit,
            "limit_is": "the version before it", "crosses_ns": as_of, "deadline_ns": deadline,
            "probability": round(probability, 4), "method_probability": round(raw, 4),
            "e_value": found.e_value, "n": new.requests, "muted": standing.muted,
        },
    )  # fmt: skip


def series_of(service: str, version: str) -> tuple[str, ...]:
    """What names the failures of a version."""
    return ("regression", service, "failures of a version", version)


def outcome(made: Made, verdict: str, moment: int, as_of: int, why: str) -> Insight:
    """How a prediction turned out. There is one of each prediction."""
    lead = (moment - made.as_of) / HOUR
    loud = verdict == HIT and not made.muted
    return Insight(
        job=NAME,
        key=("outcome", made.id),
        title=f"{_VERDICTS[verdict]}: {made.title}"[:300],
        content=f"{_VERDICTS[verdict]}: {made.title}\n{why}\n"
        f"predicted: {_when(made.as_of)}, with {100 * made.probability:.0f} %, "
        f"until {_when(made.deadline)}",
        time_unix_nano=moment,
        service=made.service or None,
        importance=0.75 if loud else 0.3,
        tags=_tags(verdict, made.kind, muted=made.muted),
        evidence=(made.id,),
        facts={
            "says": "outcome", "state": verdict, "verdict": verdict, "as_of": as_of,
            "kind": made.kind, "series": json.dumps(made.series), "prediction": made.id,
            "probability": made.probability, "limit": made.limit, "n": 1, "muted": made.muted,
            "lead_hours": round(lead, 1) if verdict == HIT else None,
        },
    )  # fmt: skip


def score(standing: Standing, day: int, evidence: tuple[str, ...]) -> Insight:
    """How good the predictions of a kind were up to the beginning of a day (ns)."""
    rate = "nothing could be judged"
    if standing.rate is not None:
        rate = f"{100 * standing.rate:.0f} % of {standing.n} came true"
    kind = standing.kind.replace("_", " ")
    muted = (
        "muted: fewer than half came true lately; recorded and scored on, until it is better"
        if standing.muted
        else ""
    )
    return Insight(
        job=NAME,
        key=("score", standing.kind, str(day)),
        title=f"Predictions of {kind}: {rate}",
        content="\n".join(
            line
            for line in (
                f"Predictions of {kind}: {rate}.",
                f"Brier score: {standing.brier:.3f} (0 is best, 0.25 is a coin)"
                if standing.brier is not None
                else "",
                f"n: {standing.n}; {standing.expired} more could not be judged",
                muted,
            )
            if line
        ),
        time_unix_nano=day,
        importance=0.4,
        tags=_tags("scored", standing.kind, muted=standing.muted),
        evidence=evidence,
        facts={
            "says": "score", "state": "scored", "as_of": day, "kind": standing.kind,
            "n": standing.n, "hits": standing.hits, "misses": standing.misses,
            "expired": standing.expired, "hit_rate": standing.rate, "brier": standing.brier,
            "muted": standing.muted,
        },
    )  # fmt: skip


def _tags(state: str, kind: str, *, muted: bool) -> tuple[str, ...]:
    if not muted:
        return (f"state:{state}", f"kind:{kind}")
    return ("state:silent" if state == "predicted" else f"state:{state}", f"kind:{kind}", "muted")


def _standing(one: Standing) -> str:
    hits, n = one.lately
    if not n:
        return "record: no such prediction was scored yet"
    return f"record: {hits} of the last {n} such predictions came true"


def _when(moment: int) -> str:
    return datetime.fromtimestamp(moment / 1e9, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _labels(text: str) -> str:
    return ", ".join(f"{key}={one}" for key, one in json.loads(text).items())


def _value(value: float, series: Watched) -> str:
    if series.unit == "s":
        return f"{1000 * value:,.0f} ms"
    share = series.kind == "saturation" and series.limit_is == "known"
    if share or series.kind == "error_budget":
        return f"{100 * value:.0f} %"
    return f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}"


__all__ = ["outcome", "predicted", "regressed", "score", "series_of"]
