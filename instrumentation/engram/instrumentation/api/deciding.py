"""`decide`: what came of such decisions, a policy, and the record of it in one call."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from engram.instrumentation.api.asking import asked, client
from engram.instrumentation.api.calls import quietly
from engram.instrumentation.api.decisions import record_decision
from engram.instrumentation.api.values import said

Policy = Callable[[Sequence[Any], dict[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Decided:
    """What was chosen; `id` is for `record_outcome`."""

    id: str
    chosen: Any
    history: dict[str, Any]
    """As `Client.decision_history` says it; empty where nobody answered in time."""


def decide(
    name: str,
    options: Sequence[Any],
    policy: Policy,
    *,
    context: object = None,
    confidence: float | Callable[[Any, dict[str, Any]], float] | None = None,
    reason: object = None,
    due: datetime.datetime | None = None,
    condition: str | None = None,
    **attributes: Any,
) -> Decided:
    """Let `policy(options, history)` choose, and remember it. Only the policy's errors are raised.

    `due` and `condition` (SQL) are remembered as `outcome_due` and `outcome_condition`: when the
    outcome should be known, and what would tell. Nothing here evaluates them.
    """
    none: dict[str, Any] = {}
    history = asked(
        "decision_history",
        lambda: client().decision_history(name if context is None else context, options),
        none,
    )
    chosen = policy(options, history)
    sure = quietly(confidence, chosen, history) if callable(confidence) else confidence
    made = record_decision(
        name, options, chosen, confidence=sure, reason=reason, inputs=context,
        outcome_due=None if due is None else said(getattr(due, "isoformat", lambda: due)()),
        outcome_condition=condition,
        **attributes,
    )  # fmt: skip
    return Decided(made.id, chosen, history)


__all__ = ["Decided", "decide"]
