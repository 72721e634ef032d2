"""Why a record becomes the memories it does, and why not others.

Every part of every condition is evaluated by the compiler that ingest uses, so what is explained is
what happens; only the words are made here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from . import words
from .compile import Compiler, Plan, finish, run
from .load import (
    Condition,
    Every,
    Kind,
    Named,
    Negation,
    Present,
    Ref,
    Rule,
    RuleSet,
    Some,
    Test,
    Value,
)


@dataclass(frozen=True, slots=True)
class Made:
    """A memory that a rule makes of a record."""

    rule: str
    memory: dict[str, Any]
    """One row of `MEMORY_SCHEMA`, before merging with what other records say of the same fact."""


@dataclass(frozen=True, slots=True)
class Missed:
    """A rule that makes nothing of a record."""

    rule: str
    type: str | None
    why: str
    closeness: float
    """0 to 1: how much of its condition holds; 1 when it holds, and something behind it did not."""


@dataclass(frozen=True, slots=True)
class Explained:
    """What the rules say of one record."""

    record: dict[str, Any]
    """Its row of the frame."""
    made: tuple[Made, ...]
    missed: tuple[Missed, ...]
    """The closest first."""


def explain(
    rules: RuleSet, kind: Kind, frame: pl.DataFrame, off: frozenset[str] = frozenset()
) -> Iterator[Explained]:
    """Explain the records of a frame, one by one, in its order.

    Rules whose name is in `off` are switched off: only what they would take is told.
    """
    if not frame.height:
        return
    judge = _Judge(rules, kind, frame)
    on = replace(rules, rules=tuple(rule for rule in rules.rules if rule.name not in off))
    compiler = Compiler(on, kind, frozenset(frame.columns))
    plans = {plan.rule.name: plan for plan in compiler.plans()}
    for row in range(frame.height):
        made: list[Made] = []
        missed: list[Missed] = []
        hidden = next(
            (rule.name for rule in on.rules
             if rule.exclusive and kind in rule.signal and judge.holds(rule.when, row)), None,
        )  # fmt: skip
        for rule in rules.rules:
            type_ = words.type_of(rule)
            if kind not in rule.signal:
                why = f"takes {words.signals(rule.signal)} records"
                missed.append(Missed(rule.name, type_, why, -1.0))
            elif not judge.holds(rule.when, row):
                near = judge.closeness(rule.when, row)
                missed.append(Missed(rule.name, type_, judge.why_not(rule.when, row), near))
            elif rule.name in off:
                why = "its condition holds, but the configuration switches it off"
                missed.append(Missed(rule.name, type_, why, 1.0))
            elif hidden is not None and hidden != rule.name:
                why = f"{hidden} matched, and what it takes no other rule sees"
                missed.append(Missed(rule.name, type_, why, 1.0))
            elif memory := _memory(plans[rule.name], frame[row], rules.version):
                made.append(Made(rule.name, memory))
            else:
                missed.append(Missed(rule.name, type_, _needed(rule), 1.0))
        missed.sort(key=lambda one: -one.closeness)
        yield Explained(frame.row(row, named=True), tuple(made), tuple(missed))


def _memory(plan: Plan, record: pl.DataFrame, version: str) -> dict[str, Any] | None:
    made = run(plan, record.select(plan.columns))
    return None if made is None else finish([made], version).row(0, named=True)


def _needed(rule: Rule) -> str:
    what = words.value(rule.needs) if rule.needs is not None else "what it needs"
    return f"the condition holds, but {what} is absent"


class _Judge:
    """Evaluates parts of conditions over a whole frame, each once."""

    def __init__(self, rules: RuleSet, kind: Kind, frame: pl.DataFrame) -> None:
        self._rules = rules
        self._frame = frame
        self._compiler = Compiler(rules, kind, frozenset(frame.columns))
        self._truths: dict[Condition, list[bool]] = {}

    def holds(self, node: Condition, row: int) -> bool:
        """Whether a condition holds for a record."""
        known = self._truths.get(node)
        if known is None:
            found = self._compiler.condition(node)
            if isinstance(found, bool):
                known = [found] * self._frame.height
            else:
                known = self._frame.select(found.fill_null(False).alias("")).to_series().to_list()
            self._truths[node] = known
        return known[row]

    def closeness(self, node: Condition, row: int) -> float:
        """How much of a condition holds, 0 to 1."""
        if self.holds(node, row):
            return 1.0
        match node:
            case Named(name):
                return self.closeness(self._rules.conditions[name], row)
            case Every(of):
                told = [self.closeness(one, row) for one in of if not self._on_signal(one)]
                return sum(told) / len(told) if told else 0.0
            case Some(of):
                return max((self.closeness(one, row) for one in self._ways(of, row)), default=0.0)
            case _:
                return 0.0

    def why_not(self, node: Condition, row: int) -> str:
        """The first thing that a condition lacks."""
        match node:
            case Named(name):
                return f"no {name}: {self.why_not(self._rules.conditions[name], row)}"
            case Every(of):
                failing = next(one for one in of if not self.holds(one, row))
                return self.why_not(failing, row)
            case Some(of) if not of:
                return "no alternative is given"
            case Some(of):
                ways = self._ways(of, row)
                closest = max(ways, key=lambda one: self.closeness(one, row))
                others = len(ways) - 1
                also = "; nor holds the other way" if others == 1 else f"; nor {others} other ways"
                return self.why_not(closest, row) + (also if others else "")
            case Negation(Present(of)):
                return f"has {words.value(of)} ({self._said(of, row)}), and must not"
            case Negation(of):
                return f"{words.condition(of)} holds, and must not"
            case Present(of):
                return f"has no {self._named(of)}"
            case Test():
                return self._failed(node, row)

    def _ways(self, of: tuple[Condition, ...], row: int) -> list[Condition]:
        """Alternatives that are for this kind of record; all, when none is."""
        mine = [one for one in of if not self._other_signal(one, row)]
        return mine or list(of)

    def _other_signal(self, node: Condition, row: int) -> bool:
        match node:
            case Named(name):
                return self._other_signal(self._rules.conditions[name], row)
            case Every(of):
                return any(self._other_signal(one, row) for one in of)
            case _:
                return self._on_signal(node) and not self.holds(node, row)

    def _on_signal(self, node: Condition) -> bool:
        """Whether a condition is about the kind of record and nothing else."""
        if isinstance(node, Negation):
            return self._on_signal(node.of)
        return isinstance(node, Test) and node.of == Ref("signal")

    def _named(self, of: Value) -> str:
        """A value by its name, with where it comes from when that is short."""
        name = words.value(of)
        inner = self._rules.values.get(of.name) if isinstance(of, Ref) else None
        sources = words.value(inner) if inner is not None else name
        return f"{name} ({sources})" if name != sources and len(sources) <= 80 else name

    def _failed(self, test: Test, row: int) -> str:
        name, expected = words.value(test.of), words.literal(test.operand, test.of)
        said = self._said(test.of, row)
        if said is None:
            return f"{self._named(test.of)} is absent, and must be {_MUST[test.op]}{expected}"
        return f"{name} is {said}, not {_MUST[test.op]}{expected}"

    def _said(self, of: Any, row: int) -> str | None:
        expr = self._compiler.value(of)
        if expr is None:
            return None
        found = self._frame.lazy().slice(row, 1).select(expr.alias("")).collect().item()
        return None if found is None else words.literal(found, of)


_MUST = {
    "is": "", "in": "one of ", "matches": "matching ", "starts_with": "starting with ",
    "at_least": "at least ", "below": "below ",
}  # fmt: skip

__all__ = ["Explained", "Made", "Missed", "explain"]
