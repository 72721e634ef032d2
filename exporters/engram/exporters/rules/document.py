"""The shipped rules as a page for people: one table of types, triggers and fields.

    python -m engram.exporters.rules.document > docs/memories.md

A test holds the page and the rules equal.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import yaml

from engram.exporters.memories import MEMORY_TYPES

from .load import shipped

_HEAD: Final = """\
# Memory types

Made by `python -m engram.exporters.rules.document` from the shipped rules
([`default.yaml`](../exporters/engram/exporters/rules/default.yaml)); do not edit.

Any type, these and your own, can be marked explicitly: a log event named `engram.<type>`, or the
attribute `engram.memory.type` on a span or log record. The attributes `engram.title`,
`engram.content`, `engram.importance`, `engram.tags`, `engram.subject` and `engram.id` are honoured.
Types with no rule but `mark` are made only so.

Keys without a sign are attributes; `res:` marks a resource's, `=` a column of the record or a value
named below; *italics* are conditions named below. Of sources `a / b` the first that is there
counts, and (word) is an operation described on top of the rules.

| type | rule | of | when | fields |
|---|---|---|---|---|
"""


def _value(raw: Any) -> str:
    if isinstance(raw, list):
        return " / ".join(map(_value, raw))
    if isinstance(raw, dict):
        op = next(key for key in raw if key != "key")
        if op == "member":
            return f"`{_value(raw[op]).strip('`')}.{raw['key']}`"
        if op == "text":
            return f"`{raw[op]}`".replace("attr:", "")
        return _value(raw[op]) if op in ("nonempty", "number", "item") else f"({op})"
    text = str(raw)
    if text.startswith("attr:"):
        return f"`{text.removeprefix('attr:')}`"
    return f"`={text}`" if not text.startswith(("res:", "span.", "=")) else f"`{text}`"


def _said(operand: Any) -> str:
    values = operand if isinstance(operand, list) else [operand]
    return ", ".join(f"`{value}`" for value in values).replace("|", "\\|")


def _condition(raw: Any, *, inner: bool = False) -> str:
    if isinstance(raw, str):
        return f"*{raw}*"
    if isinstance(raw, list):
        raw = {"all": raw}
    if "value" in raw:
        (op,) = [key for key in raw if key != "value"]
        words = {"is": "is", "in": "is one of", "matches": "matches", "starts_with": "starts with",
                 "at_least": "≥", "below": "<"}  # fmt: skip
        return f"{_value(raw['value'])} {words[op]} {_said(raw[op])}"
    ((op, arg),) = raw.items()
    if op in ("present", "absent"):
        return f"{_value(arg)} {op}"
    if op == "not":
        return f"not {_condition(arg, inner=True)}"
    parts = [_condition(part, inner=True) for part in arg]
    text = (", " if op == "all" else " or ").join(parts)
    return f"({text})" if inner and len(parts) > 1 else text


def document() -> str:
    """The page, as Markdown."""
    rules = yaml.safe_load(shipped())
    rows = []
    for type_ in MEMORY_TYPES:
        mine = [rule for rule in rules["rules"] if rule["type"] == type_]
        if not mine:
            rows.append(f"| `{type_}` | mark | span, log, span_event | *marked* | what was sent |")
        for rule in mine:
            fields = ", ".join(f"`{key}`" for key in rule.get("attributes", ())) or "all attributes"
            rows.append(
                f"| `{type_}` | {rule['name']} | {', '.join(rule['signal'])} "
                f"| {_condition(rule['when'])} | {fields} |"
            )
    named = [f"- *{name}*: {_condition(raw)}" for name, raw in rules["conditions"].items()]
    values = [f"- `={name}`: {_value(raw)}" for name, raw in rules["values"].items()]
    parts = [_HEAD + "\n".join(rows), "## Conditions", "\n".join(named)]
    return "\n\n".join([*parts, "## Values", "\n".join(values)]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
