"""Rules tried on made-up records: what no parser can see fails here, and not on telemetry.

A text compared as a number, or an operation on what it cannot take, fails in Polars only when a
batch is there; the records of that batch would then be stored without memories.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import polars as pl

from .compile import Compiler, finish, run
from .load import COLUMNS, NUMERIC_COLUMNS, Kind, Rule, RuleSet
from .read import READERS


def trial(rules: RuleSet, names: frozenset[str]) -> Iterator[str]:
    """Run the rules of these names on a full and an empty record of each kind; what fails."""
    for rule in rules.rules:
        if rule.name not in names:
            continue
        alone = replace(rules, rules=(rule,))
        for kind in rule.signal:
            try:
                _try(alone, rule, kind)
            except Exception as error:  # noqa: BLE001 - whatever it is, the rule is to blame
                what = str(error).strip().splitlines()
                said = what[0] if what else type(error).__name__
                yield f"rules.{rule.name}: fails on a {kind} record: {said}"
                break


def _try(rules: RuleSet, rule: Rule, kind: Kind) -> None:
    frame = _records(rules, rule, kind)
    for plan in Compiler(rules, kind, frozenset(frame.columns)).plans():
        if isinstance(plan.mask, pl.Expr):
            frame.select(plan.mask)
        made = run(plan, frame.select(plan.columns) if plan.columns else frame)
        if made is not None:
            finish([made], rules.version)


def _records(rules: RuleSet, rule: Rule, kind: Kind) -> pl.DataFrame:
    """A record that has everything, and one that has nothing."""
    reader = READERS[rule.read] if rule.read else None
    keys = rules.wanted | frozenset(reader.attributes if reader else ())
    columns: dict[str, pl.DataType] = {
        name: pl.Int64() if name in NUMERIC_COLUMNS else pl.String()
        for name in COLUMNS[kind] - {"signal", "duration_ns"}
    }
    columns["content_hash"] = pl.UInt64()
    prefixes = ("attr:", "span.attr:") if kind == "span_event" else ("attr:",)
    columns |= {f"{prefix}{key}": pl.String() for prefix in prefixes for key in keys}
    columns |= {f"res:{key}": pl.String() for key in rules.resource_wanted}
    texts = {"attributes": "{}", "span.attributes": "{}", "body": '"1"'}
    full = {
        name: texts.get(name, "1") if type_ == pl.String() else 1 for name, type_ in columns.items()
    }
    empty = {"content_hash": 2, "attributes": "{}"}
    return pl.DataFrame(
        [full, {name: empty.get(name) for name in columns}], schema=columns, orient="row"
    )


__all__ = ["trial"]
