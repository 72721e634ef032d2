"""Decisions whose outcome is known, counted by day, and by what they were decided on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

DAY: Final = 24 * 3600 * 10**9
WEEK: Final = 7 * DAY
RECENT: Final = 7
USUAL: Final = 28
"""Days that are compared: the last ones, and those before them."""

_LONGEST: Final = 180 * DAY
"""Between a decision and its outcome: what takes longer is not looked for."""

_VALUES: Final = 10
"""Different values of an input, for it to be a context and not a number or a name."""

KNOWN: Final = """
SELECT coalesce(service_name, '') AS service,
    coalesce(attributes->>'$.decision', subject) AS decision,
    attributes->>'$.chosen' AS chosen, outcome = 'ok' AS success,
    TRY_CAST(attributes->>'$.confidence' AS DOUBLE) AS confidence,
    coalesce(
        epoch_ns(TRY_CAST(attributes->>'$.outcome_at' AS TIMESTAMPTZ)), time_unix_nano
    ) AS known_at,
    epoch_ns(TRY_CAST(attributes->>'$.outcome_at' AS TIMESTAMPTZ)) - time_unix_nano AS took,
    time_unix_nano AS moment, id, attributes->'$.inputs' AS inputs
FROM lake.memories
WHERE type = 'business_decision' AND outcome IS NOT NULL
    AND (attributes->>'$.chosen') IS NOT NULL
    AND time_unix_nano >= $1 AND time_unix_nano < $2
"""
"""Decisions from $1 to $2 whose outcome is known, at any time; `took` where it is said when."""


@dataclass(frozen=True, slots=True)
class Day:
    """One option on one day."""

    service: str
    decision: str
    chosen: str
    day: int
    n: int
    k: int
    """Successes."""
    sure: int
    """With a stated confidence; the next three are of these."""
    succeeded: int
    confidence: float
    """Sum of it."""
    variance: float
    """Sum of confidence times doubt: what chance alone would make of the successes."""
    brier: float
    """Sum of the squared distances of confidence and outcome."""
    failed: tuple[str, ...]
    """Memories of some that did not succeed."""
    fine: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Context:
    """One option where an input had a value, and where it had another."""

    service: str
    decision: str
    chosen: str
    input: str
    value: str
    n: int
    k: int
    others: int
    others_k: int
    failed: tuple[str, ...]
    fine: tuple[str, ...]


def known(read: Read, end: int) -> list[Day]:
    """Outcomes of the days before a moment."""
    rows = read(
        f"""
        SELECT service, decision, chosen, known_at // {DAY} AS day, count(*) AS n,
            count(*) FILTER (success) AS k, count(confidence) AS sure,
            count(*) FILTER (success AND confidence IS NOT NULL) AS succeeded,
            round(coalesce(sum(confidence), 0.0), 6) AS confidence,
            round(coalesce(sum(confidence * (1 - confidence)), 0.0), 6) AS variance,
            round(coalesce(sum((confidence - success::INTEGER) ** 2), 0.0), 6) AS brier,
            arg_max(id, (known_at, id), 3) FILTER (NOT success) AS failed,
            arg_max(id, (known_at, id), 3) FILTER (success) AS fine
        FROM (
            SELECT * REPLACE (
                CASE WHEN confidence BETWEEN 0 AND 1 THEN confidence END AS confidence
            ) FROM ({KNOWN})
        )
        WHERE known_at >= $2 - {(RECENT + USUAL) * DAY} AND known_at < $2
        GROUP BY ALL ORDER BY service, decision, chosen, day
        """,
        [max(0, end - _LONGEST), end],
    )
    return [
        Day(**row | {"failed": tuple(row["failed"] or ()), "fine": tuple(row["fine"] or ())})
        for row in rows.iter_rows(named=True)
    ]


def contexts(read: Read, end: int, least: int = 15) -> list[Context]:
    """The options of four weeks by the values of their inputs, of each side `least` and more."""
    rows = read(
        f"""
        WITH decided AS (
            SELECT service, decision, chosen, success, known_at, id, inputs,
                unnest(json_keys(inputs)) AS input
            FROM ({KNOWN})
            WHERE known_at >= $2 - {USUAL * DAY} AND known_at < $2
                AND json_type(inputs) = 'OBJECT'
        ),
        valued AS (
            SELECT * EXCLUDE (inputs),
                left(json_value(inputs, '$."' || replace(input, '"', '') || '"')->>'$', 80) AS value
            FROM decided
        ),
        grouped AS (
            SELECT service, decision, chosen, input, value, count(*) AS n,
                count(*) FILTER (success) AS k,
                arg_max(id, (known_at, id), 3) FILTER (NOT success) AS failed,
                arg_max(id, (known_at, id), 3) FILTER (success) AS fine
            FROM valued WHERE value IS NOT NULL
            GROUP BY service, decision, chosen, input, value
        )
        SELECT *, sum(n) OVER w - n AS others, sum(k) OVER w - k AS others_k
        FROM grouped
        WINDOW w AS (PARTITION BY service, decision, chosen, input)
        QUALIFY count(*) OVER w BETWEEN 2 AND {_VALUES} AND n >= {least} AND others >= {least}
        ORDER BY service, decision, chosen, input, value
        """,
        [max(0, end - _LONGEST), end],
    )
    return [
        Context(
            **row
            | {"failed": tuple(row["failed"] or ()), "fine": tuple(row["fine"] or ()),
               "others": int(row["others"]), "others_k": int(row["others_k"])}
        )
        for row in rows.iter_rows(named=True)
    ]  # fmt: skip


__all__ = ["DAY", "KNOWN", "RECENT", "USUAL", "Context", "Day", "contexts", "known"]
