"""The names on what Engram says of itself: it comes in as OTLP, by the road of everything.

Whoever samples or filters MUST let records of `SCOPE` pass; whoever learns MUST NOT take them as
evidence: they were made from what is here already.
"""

from __future__ import annotations

from typing import Final

SCOPE: Final = "engram.learning"
"""Instrumentation scope of what `learn` sends."""

ITSELF: Final = "engram.self"
"""Scope of what the roles tell of their own work (`itself/`): numbers for the job `engram` alone.

Nobody else reads it: no count of the user's records, no other job, no remote."""

SERVICE: Final = "engram"
"""`service.name` of its resource."""

ENRICHMENT: Final = "engram.enrichment"
"""Event name of an enrichment; the rule for it is `rules/enrichment.yaml`."""

MEMORY_IDS: Final = "engram.memory.ids"
"""The memories that an enrichment is for, with spaces in between."""

CERTAINTY: Final = "engram.memory.certainty"

INHERITED: Final = ("user_id", "session_id", "conversation_id")
"""The columns that an enrichment can fill, in the order of the characters of its certainty."""

RANKS_AT: Final = 4
"""Where the ranks of these columns begin in `ranks`, as SQL counts."""

INFERRED: Final = "-./0"
"""Ranks of what `learn` found out from the trace, least certain first; a record's own begin at 1.

`-` the only value in the trace; `.` several and none above the record, so the value is the empty
string; `/` several, and the root's; `0` several, and the nearest span above the record's.
A trace only grows, and what is found of more of it has the higher rank, so any order ends alike."""
