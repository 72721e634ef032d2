"""What other jobs said that asks for a cause: slower and failing operations, spiking errors.

They are read back from the lake, so a cause is said in the round after its incident (five minutes
later); one that was looked into is not looked into again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read
    from engram.learning.jobs.window import Window

HOUR: Final = 3600 * 10**9
DAY: Final = 24 * HOUR

BEFORE: Final = DAY
"""The time before that an incident is compared with: all hours of a day are in it."""

LONGEST: Final = 6 * HOUR
"""Of an incident that is looked at: what it began with is at its beginning."""

MOST: Final = 4
"""Incidents of a pass, the newest; the others wait for the next. Each costs a scan of a day."""


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that became worse, as another job said it."""

    id: str
    """Of the memory that says so."""
    title: str
    subject: str | None
    service: str
    operation: str
    """Name of the entry span; empty when it is known of the service alone."""
    kind: str
    """`latency` or `errors`."""
    since: int
    until: int
    told: int
    """When it was known."""


def incidents(read: Read, window: Window, job: str) -> list[Incident]:
    """Incidents that were known within the window or the day before it, without those done."""
    rows = read(
        """
        SELECT id, title, subject, coalesce(service_name, '') AS service, attributes,
            time_unix_nano AS time
        FROM lake.memories
        WHERE type = 'ai_insight' AND trust = 'engram' AND time_unix_nano >= ?
            AND time_unix_nano < ?
            AND list_has_any(tags, ['job:performance', 'job:errors', ?])
        ORDER BY time_unix_nano DESC, id
        """,
        # What was known at the end of an hour has that moment, so the end is in.
        [max(0, window.since - DAY), window.until + 1, f"job:{job}"],
    )
    found: list[Incident] = []
    done: set[str] = set()
    for row in rows.iter_rows(named=True):
        try:
            facts = json.loads(row["attributes"] or "{}")
        except ValueError:
            continue
        if facts.get("job") == job:
            done.add(str(facts.get("incident")))
            continue
        state, time = facts.get("state"), int(row["time"])
        if facts.get("job") == "performance" and state in ("slower", "worse"):
            kind = "latency" if state == "slower" else "errors"
            operation, since = str(facts.get("operation", "")), int(facts.get("since", 0))
        elif facts.get("job") == "errors" and state == "spike":
            kind, operation, since = "errors", "", time // HOUR * HOUR
        else:
            continue
        if since >= time or not row["service"]:
            continue
        found.append(
            Incident(
                str(row["id"]), str(row["title"]), row["subject"], row["service"], operation, kind,
                since, min(time, since + LONGEST), time,
            )
        )  # fmt: skip
    return [one for one in found if one.id not in done][:MOST]


__all__ = ["BEFORE", "DAY", "HOUR", "Incident", "incidents"]
