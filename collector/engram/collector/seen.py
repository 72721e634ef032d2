"""Which routes, nodes, models and jobs of an audit a lake has seen, and when last.

Matched by what telemetry calls them: the route template and method, the node, the requested model,
the last part of a task's or span's name. Somebody else's service with the same route counts too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from engram.collector import query
from engram.instrumentation.audit import Finding, Kind, Report

if TYPE_CHECKING:
    from engram.exporters.home import Home

_QUERIES: Final = {
    Kind.ROUTE: """
        SELECT http_route, upper(coalesce(http_request_method, '')), max(start_time_unix_nano)
        FROM spans WHERE kind = 2 AND http_route IS NOT NULL GROUP BY ALL
        UNION ALL  -- Names before 1.23 of the conventions, and WebSockets, have no promoted method.
        SELECT attributes ->> '$.route', upper(coalesce(attributes ->> '$.method', '')),
               max(time_unix_nano)
        FROM memories WHERE type = 'request_intent' AND (attributes ->> '$.route') IS NOT NULL
        GROUP BY ALL""",
    Kind.NODE: """
        SELECT attributes ->> '$.node', '', max(time_unix_nano) FROM memories
        WHERE type IN ('langgraph_node', 'langgraph_outcome') GROUP BY ALL""",
    Kind.LLM: """
        SELECT gen_ai_request_model, '', max(start_time_unix_nano) FROM spans
        WHERE gen_ai_request_model IS NOT NULL GROUP BY ALL
        UNION ALL
        SELECT attributes ->> '$.model', '', max(time_unix_nano) FROM memories
        WHERE type IN ('ai_response', 'user_interaction') GROUP BY ALL""",
    Kind.JOB: """
        SELECT regexp_extract(name, '(\\w+)$', 1), '', max(start_time_unix_nano) FROM spans
        WHERE kind IN (1, 2, 5) GROUP BY ALL
        UNION ALL
        SELECT regexp_extract(attributes ->> '$.job', '(\\w+)$', 1), '', max(time_unix_nano)
        FROM memories WHERE type IN ('workflow_state', 'integration_sync') GROUP BY ALL""",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """A finding, and when it was last seen; None: never."""

    finding: Finding
    last_ns: int | None

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "file": self.finding.file,
            "line": self.finding.line,
            "kind": self.finding.kind.value,
            "name": self.finding.name,
            "last_seen": None if self.last_ns is None else _time(self.last_ns),
        }


def seen(home: Home, report: Report) -> list[Seen]:
    """Ask the lake, read-only. What has no name in the code (a model in a variable) is left out."""
    found: dict[tuple[Kind, str, str], int] = {}
    with query.reader(home) as lake:
        for kind, sql in _QUERIES.items():
            for name, method, last in lake.execute(sql).fetchall():
                for key in ((kind, name, method), (kind, name, "")):
                    if name and last is not None:
                        found[key] = max(found.get(key, 0), last)
    return [
        Seen(one, max(times, default=None))
        for one in report.findings
        if one.seen_as
        for times in [[found[key] for key in _keys(one) if key in found]]
    ]


def _keys(one: Finding) -> Iterator[tuple[Kind, str, str]]:
    for name in one.seen_as:
        if not one.methods or one.methods == ("WEBSOCKET",):
            yield one.kind, name, ""
        for method in one.methods:
            yield one.kind, name, method


def lines(found: list[Seen]) -> list[str]:
    """For people: what was never seen, then when the others were last."""
    told = []
    for title, some in (
        ("never seen at run time:", [one for one in found if one.last_ns is None]),
        ("last seen at run time:", [one for one in found if one.last_ns is not None]),
    ):
        if some:
            told += ["", title]
        for one in some:
            at = one.finding
            when = "" if one.last_ns is None else f"  {_time(one.last_ns)}"
            told.append(f"  {at.file}:{at.line}  {at.kind}  {at.name}{when}")
    return told


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
