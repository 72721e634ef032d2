"""What else is known near the beginning of an incident: changes, and errors and logs that are new.

These are told beside the ranking and do not enter it: that something came before is no proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from engram.learning.jobs.causes.incidents import DAY, HOUR, Incident
from engram.learning.jobs.solutions.read import changes

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

LEAD: Final = 2 * HOUR
"""Before the beginning: what was done earlier went well for two hours."""

SLACK: Final = HOUR
"""After it: the beginning is known to an hour."""

MOST: Final = 5


@dataclass(frozen=True, slots=True)
class Change:
    """Something that was done."""

    what: str
    service: str
    time: int
    id: str
    """Of its memory; empty for a version, which is known by its spans."""


@dataclass(frozen=True, slots=True)
class Sign:
    """An error or a warning that is new, back or spikes."""

    title: str
    service: str
    time: int
    id: str


@dataclass(frozen=True, slots=True)
class Around:
    """Both, the nearest to the beginning first."""

    changes: tuple[Change, ...]
    signs: tuple[Sign, ...]


def around(read: Read, incident: Incident, services: Sequence[str]) -> Around:
    """What is known of the services of an incident near its beginning."""
    since, until = incident.since - LEAD, min(incident.since + SLACK, incident.until)
    done = [
        Change(f"{one.kind} {one.name}", service, one.time_unix_nano,
               one.id)
        for service, some in changes(read, since - DAY, until).items()
        if not service or service in services
        for one in some
        if since <= one.time_unix_nano < until
    ]  # fmt: skip
    rows = read(
        """
        SELECT id, title, coalesce(service_name, '') AS service, time_unix_nano AS time
        FROM lake.memories
        WHERE type = 'ai_insight' AND trust = 'engram' AND time_unix_nano >= ?
            AND time_unix_nano < ? AND id <> ? AND list_has_any(tags, ['job:errors', 'job:logs'])
            AND list_has_any(tags, ['state:new', 'state:back', 'state:spike'])
            AND list_contains(?, coalesce(service_name, ''))
        """,
        [since, incident.until + 1, incident.id, list(services)],
    )
    signs = [Sign(**row) for row in rows.iter_rows(named=True)]
    return Around(
        tuple(sorted(done, key=lambda one: (abs(one.time - incident.since), one.what))[:MOST]),
        tuple(sorted(signs, key=lambda one: (abs(one.time - incident.since), one.id))[:MOST]),
    )


__all__ = ["Around", "Change", "Sign", "around"]
