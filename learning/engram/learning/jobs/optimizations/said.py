"""What was said before (read back from the lake), and the words for what is said now."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from engram.learning.jobs.insight import Insight
from engram.learning.jobs.optimizations.find import IN_TOKENS, Found, Name
from engram.learning.jobs.optimizations.reading import DAY, HOUR
from engram.learning.jobs.optimizations.savings import Interval, per_run, significant
from engram.learning.jobs.optimizations.verify import Gone, Known, Measured

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

JOB: Final = "optimizations"
TYPE: Final = "optimization"

WORDS: Final = {
    "n_plus_one": ("N+1 calls", "one call for all of them would do"),
    "repeated_call": ("The same call again", "the first answer could be kept for the run"),
    "retry_storm": ("Retries without a pause", "wait longer each time, and give up earlier"),
    "serial_calls": (
        "Calls in a row that could run at once",
        "no call needs, as far as can be seen, what the one before answered",
    ),
    "slow_query": ("Slow query", "an index, or fewer rows; saved is what is above 500 ms"),
    "cacheable": ("Answers that could be kept", "the same question had the same answer in an hour"),
    "same_prompt": ("The same prompt again", "the first answer could be kept for the run"),
    "same_tool_call": ("The same tool call again", "the first result is still in the context"),
    "context_sent_again": (
        "A long context sent again",
        "its beginning is equal each time: a provider's prompt cache would know it",
    ),
    "context_twice": (
        "The same text twice in one prompt",
        "long texts are in the messages of one call more than once; once would do",
    ),
    "oversize_context": (
        "Far more context than usual",
        "these runs begin with four times the usual tokens or more; they fail as often and answer "
        "at no more length, but whether they need what they are given cannot be seen",
    ),
}
"""Of each kind, what it is and what could be done."""

HELD: Final = {
    "held": "the estimate held",
    "less": "less than estimated",
    "more": "more than estimated",
    "slower": "runs are slower than before, whatever else changed",
    "unclear": "whether runs are faster cannot be told from the noise",
}


def known(read: Read, until: int) -> dict[Name, Known]:
    """The newest statement about each pattern."""
    rows = read(
        "SELECT id, time_unix_nano AS time, attributes, service_name FROM lake.memories "
        f"WHERE type = '{TYPE}' AND time_unix_nano < ? "
        f"AND json_extract_string(attributes, '$.job') = '{JOB}' ORDER BY time_unix_nano, id",
        [until],
    )
    order = {"found": 0, "changed": 1, "gone": 2, "back": 3}
    newest: dict[Name, tuple[tuple[int, int], Known]] = {}
    for row in rows.iter_rows(named=True):
        facts = json.loads(row["attributes"])
        try:
            name = Name(
                facts["kind"], facts["service"], facts["entry"], facts["offending"]
            )  # fmt: skip
            one = Known(
                name, facts["state"], row["time"], int(facts["last"]), int(facts["n"]),
                int(facts["runs"]),
                Interval(*(float(facts[f"per_run{end}"]) for end in ("", "_low", "_high"))),
                facts.get("version"), row["id"],
            )  # fmt: skip
        except (KeyError, TypeError, ValueError):
            continue  # a mark of somebody else that calls itself so
        at = (one.time, order.get(one.state, -1))
        if name not in newest or at >= newest[name][0]:
            newest[name] = (at, one)
    return {name: one for name, (_, one) in newest.items()}


def registered(read: Read, until: int) -> dict[str, dict[str, Any]]:
    """The newest verdict of each `@optimization` of an app, by the operation it is for."""
    rows = read(
        "SELECT id, attributes FROM lake.memories "
        f"WHERE type = '{TYPE}' AND time_unix_nano < ? "
        "AND json_extract_string(attributes, '$.optimization') IS NOT NULL "
        f"AND coalesce(json_extract_string(attributes, '$.job'), '') <> '{JOB}' "
        "ORDER BY time_unix_nano, id",
        [until],
    )
    found = {}
    for row in rows.iter_rows(named=True):
        facts = json.loads(row["attributes"])
        found[str(facts.get("operation"))] = {"id": row["id"], **facts}
    return found


def clock(time: int) -> str:
    """For people."""
    return datetime.fromtimestamp(time / 1e9, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _number(one: Interval, unit: str) -> str:
    said = one.rounded()
    return f"{said.value:,g} {unit} [{said.low:,g}, {said.high:,g}]"


def saving(found: Found) -> Interval:
    """Per run of the entry, over all its runs."""
    return per_run(found.wasted, found.runs.height)


def _observed(found: Found) -> float:
    """Days from the first run to the last; an hour at least, so that minutes make no day."""
    began = found.runs["began"]
    return max(int(began.max() or 0) - int(began.min() or 0), HOUR) / DAY  # type: ignore[arg-type]


def stated(
    found: Found, state: str, key: Iterable[str], before: Known | None,
    evidence: tuple[str, ...], app: dict[str, Any] | None,
) -> Insight:  # fmt: skip
    """A pattern is there: `found` first, `changed` in size, or `back`."""
    name, rows = found.name, found.affected
    what, advice = WORDS[name.kind]
    each = saving(found)
    a_day = each.times(found.runs.height / _observed(found))
    n, runs = rows.height, found.runs.height
    times = int(rows["times"].median() or 1)  # type: ignore[arg-type]
    moment = int(rows["began"][min(n, 5) - 1])
    head = {"changed": " (its size changed)", "back": " (it is back)"}.get(state, "")
    content = [
        f"{what} in {name.entry}: {name.operation}",
        f"In {n} of {runs} runs, {times} times in the usual one of them. {advice.capitalize()}.",
        f"Estimated saving: {_number(each, name.unit)} a run, "
        f"{_number(a_day, name.unit)} a day at this rate (95 % intervals; an estimate).",
        f"First in this look: {clock(int(rows['began'][0]))}; "
        f"last: {clock(int(rows['began'][-1]))}.",
        f"Traces: {', '.join(_some(rows['trace_id'].to_list()))}",
    ]
    if before is not None:
        content.append(
            f"Said before ({before.state}, {clock(before.time)}): "
            f"{_number(before.saving, name.unit)} a run."
        )
    if name.kind not in IN_TOKENS and int(rows["tokens"].sum()):
        content.append(f"Tokens in the look: {int(rows['tokens'].sum()):,}.")
    if app is not None:
        content.append(
            f"The app tries {app['optimization']!r} for this operation: {app.get('state')}."
        )
    return Insight(
        job=JOB, type=TYPE, key=tuple(key), service=name.service or None,
        title=f"{what} in {name.entry}{head}: {name.operation}"[:300],
        content="\n".join(content), time_unix_nano=moment, importance=0.75,
        tags=(f"state:{state}", f"kind:{name.kind}"), evidence=evidence,
        facts={
            **_facts(name, state), "n": n, "runs": runs, "last": int(rows["began"][-1]),
            "times": times, "unit": name.unit,
            "per_run": each.value, "per_run_low": each.low, "per_run_high": each.high,
            "a_day": significant(a_day.value), "a_day_low": significant(a_day.low),
            "a_day_high": significant(a_day.high),
            "tokens": int(rows["tokens"].sum()) or None, "version": rows["version"][-1],
            "traces": _some(rows["trace_id"].to_list()), **_app(app),
        },
    )  # fmt: skip


def ended(
    name: Name, before: Known, end: Gone, compared: Measured | None,
    evidence: tuple[str, ...], app: dict[str, Any] | None,
) -> Insight:  # fmt: skip
    """A pattern is gone, and what that brought."""
    what, _ = WORDS[name.kind]
    content = [
        f"{what} in {name.entry}: {name.operation}",
        f"Not in the {end.judgement.runs} runs since {clock(end.last)}; before in "
        f"{before.n} of {before.runs}, so it has less than a tenth of its former rate "
        f"(e-value {significant(end.judgement.e_value):g}).",
        f"Estimated was: {_number(before.saving, name.unit)} a run.",
    ]
    facts: dict[str, Any] = {}
    verdict = "unclear"
    if compared is None:
        content.append("Too few runs on one of the sides to compare their durations.")
    else:
        if name.unit == "ms":
            verdict = compared.verdict(before.saving)
            content.append(f"Held against the difference of means: {HELD[verdict]}.")
        content.append(
            f"Measured: median {_number(compared.median, 'ms')}, mean "
            f"{_number(compared.mean, 'ms')} faster a run (before minus after, {compared.before} "
            f"runs and {compared.after}; before and after, not with and without)."
        )
        facts = {
            "median_saved_ms": compared.median.value, "median_saved_ms_low": compared.median.low,
            "median_saved_ms_high": compared.median.high, "mean_saved_ms": compared.mean.value,
            "mean_saved_ms_low": compared.mean.low, "mean_saved_ms_high": compared.mean.high,
            "n_before": compared.before, "n_after": compared.after, "estimate": verdict,
        }  # fmt: skip
    if before.version != end.version:
        content.append(f"Version then {before.version}, now {end.version}.")
    if app is not None:
        content.append(f"The app tried {app['optimization']!r}: {app.get('state')}.")
    return Insight(
        job=JOB, type=TYPE, key=(*name.key, "gone", str(end.last)), service=name.service or None,
        title=f"{what} in {name.entry} is gone: {name.operation}"[:300],
        content="\n".join(content), time_unix_nano=end.moment, importance=0.8,
        tags=("state:gone", f"kind:{name.kind}"), evidence=evidence,
        facts={
            **_facts(name, "gone"), "n": before.n, "runs": before.runs, "last": end.last,
            "clean_runs": end.judgement.runs, "unit": name.unit, "per_run": before.saving.value,
            "per_run_low": before.saving.low, "per_run_high": before.saving.high,
            "version": end.version, "version_before": before.version, **facts, **_app(app),
        },
    )  # fmt: skip


def _facts(name: Name, state: str) -> dict[str, Any]:
    return {"state": state, "kind": name.kind, "service": name.service, "entry": name.entry,
            "offending": name.operation}  # fmt: skip


def _app(app: dict[str, Any] | None) -> dict[str, Any]:
    if app is None:
        return {}
    return {"registered": app["optimization"], "registered_state": app.get("state")}


def _some(traces: list[str]) -> list[str]:
    """The newest few."""
    return list(dict.fromkeys(reversed(traces)))[:5]


__all__ = ["JOB", "TYPE", "ended", "known", "registered", "saving", "stated"]
