"""Rules: which record becomes which memory.

They are data (`default.yaml`, and an operator's own), compiled to Polars expressions that run on
whole batches. A memory depends on one record alone.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from engram.exporters import own
from engram.exporters.memories import MEMORY_SCHEMA

from .compile import Compiler, Known, Plan, finish, run
from .load import Kind, RuleSet, load
from .patch import patches

__all__ = ["Kind", "Rules"]

_CACHED_PLANS = 256


class Rules:
    """The effective rules, ready to be applied to batches of records."""

    def __init__(self, rules: RuleSet) -> None:
        self._rules = rules
        self._plans: dict[tuple[Kind, frozenset[str]], list[Plan]] = {}
        self._known = Known(rules)

    @classmethod
    def load(cls, extra: list[dict[str, Any]] | None = None) -> Rules:
        """The shipped rules and an operator's own.

        Raises `ConfigError` with every problem.
        """
        return cls(load(extra))

    @property
    def version(self) -> str:
        """Hash of the effective rules: 12 hex digits."""
        return self._rules.version

    @property
    def wanted(self) -> frozenset[str]:
        """Attribute keys that the rules read."""
        return self._rules.wanted

    @property
    def resource_wanted(self) -> frozenset[str]:
        """Resource attribute keys that the rules read."""
        return self._rules.resource_wanted

    def apply(self, frame: pl.DataFrame, kind: Kind) -> pl.DataFrame:
        """The memories of a batch, unmerged: exactly the columns of `MEMORY_SCHEMA`."""
        if kind == "log" and "scope_name" in frame.columns:
            ours = frame["scope_name"] == own.ITSELF
            if ours.any():
                frame = frame.filter(~ours.fill_null(False))  # no memory of the user's
        if not frame.height:
            return pl.DataFrame(schema=MEMORY_SCHEMA)
        plans = self._compiled(kind, frozenset(frame.columns))
        conditions = [
            p.mask.alias(str(i)) for i, p in enumerate(plans) if isinstance(p.mask, pl.Expr)
        ]
        masks = frame.select(conditions) if conditions else frame
        made: list[pl.DataFrame] = []
        patched: list[pl.DataFrame] = []
        for i, plan in enumerate(plans):
            if isinstance(plan.mask, pl.Expr):
                mask = masks[str(i)]
                if not mask.any():
                    continue
                # By series: a filter on the frame costs four times as much in planning.
                rows = pl.DataFrame([frame[name].filter(mask) for name in plan.columns])
            else:
                rows = frame.select(plan.columns)
            memories = run(plan, rows)
            if memories is not None:
                (made if plan.rule.into is None else patched).append(memories)
        done = finish(made, self.version) if made else pl.DataFrame(schema=MEMORY_SCHEMA)
        return pl.concat([done, *map(patches, patched)]) if patched else done

    def _compiled(self, kind: Kind, columns: frozenset[str]) -> list[Plan]:
        """Plans for a set of columns; a process sees few sets, so they are kept."""
        key = (kind, columns)
        plans = self._plans.get(key)
        if plans is None:
            if len(self._plans) >= _CACHED_PLANS:
                self._plans.clear()
                self._known.clear()
            plans = self._plans[key] = Compiler(self._rules, kind, columns, self._known).plans()
        return plans
