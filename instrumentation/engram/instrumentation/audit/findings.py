"""What an audit finds: one finding per place, with what it leaves, why, and what to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What stands in the code."""

    ROUTE = "route"
    NODE = "node"
    LLM = "llm"
    JOB = "job"
    EXCEPT = "except"
    DECISION = "decision"


class Verdict(StrEnum):
    """What is remembered of it when it runs."""

    ZERO_CODE = "zero_code"
    """A memory arises under `engram run`, with no change to the code."""

    EXPLICIT = "explicit"
    """The code says it: our Python API, or a plain OpenTelemetry mark `engram.<type>`."""

    PARTIAL = "partial"
    """Something is remembered, and the part that matters is not. Counts half."""

    NONE = "none"
    """Nothing is remembered of it."""


WEIGHT = {Verdict.ZERO_CODE: 1.0, Verdict.EXPLICIT: 1.0, Verdict.PARTIAL: 0.5, Verdict.NONE: 0.0}
"""How much of a finding is covered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One place in the code."""

    file: str
    """As given on the command line, or relative to the folder that was given."""

    line: int
    kind: Kind
    name: str
    """For people: `GET /orders/{id}`, a node, the call, the job, the exceptions, the function."""

    verdict: Verdict
    why: str
    do: str = ""
    """What to do about it; empty where nothing needs to be done."""

    seen_as: tuple[str, ...] = ()
    """The names under which run time would show it: a route template, a node, a model, a job."""

    methods: tuple[str, ...] = ()
    """HTTP methods of a route; none: any."""

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "file": self.file,
            "line": self.line,
            "kind": self.kind.value,
            "name": self.name,
            "verdict": self.verdict.value,
            "why": self.why,
            "do": self.do,
        }


@dataclass(slots=True)
class Report:
    """All findings of a code base, in the order of files and lines."""

    files: int = 0
    findings: list[Finding] = field(default_factory=list)
    unread: list[tuple[str, str]] = field(default_factory=list)
    """Files that could not be parsed, each with the reason."""

    def coverage(self, kind: Kind | None = None) -> float | None:
        """Per cent of what was found that leaves a memory; None where nothing was found."""
        found = [one for one in self.findings if kind is None or one.kind is kind]
        if not found:
            return None
        return 100.0 * sum(WEIGHT[one.verdict] for one in found) / len(found)

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        kinds = {}
        for kind in Kind:
            verdicts = [one.verdict for one in self.findings if one.kind is kind]
            share = self.coverage(kind)
            kinds[kind.value] = {
                "found": len(verdicts),
                **{verdict.value: verdicts.count(verdict) for verdict in Verdict},
                "coverage": None if share is None else round(share, 1),
            }
        overall = self.coverage()
        return {
            "files": self.files,
            "coverage": None if overall is None else round(overall, 1),
            "kinds": kinds,
            "findings": [one.facts() for one in self.findings],
            "unread": [{"file": file, "reason": reason} for file, reason in self.unread],
        }
