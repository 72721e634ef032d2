"""Rules in words: for `engram rules` and for the table of types in the documentation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from engram.exporters.memories import MEMORY_TYPES

from .load import (
    Apply,
    Choose,
    Condition,
    Const,
    Every,
    First,
    Lookup,
    Member,
    Named,
    Negation,
    Present,
    Ref,
    Rule,
    RuleSet,
    Some,
    Test,
    Text,
    Value,
)

_NUMBERS: Final[dict[str, dict[int, str]]] = {
    "kind": {0: "unspecified", 1: "internal", 2: "server", 3: "client", 4: "producer",
             5: "consumer"},
    "status_code": {0: "unset", 1: "ok", 2: "error"},
    "severity_number": {1: "TRACE", 5: "DEBUG", 9: "INFO", 13: "WARN", 17: "ERROR", 21: "FATAL"},
}  # fmt: skip
_TESTS: Final = {
    "is": "is", "in": "is one of", "matches": "matches", "starts_with": "starts with",
    "at_least": "is at least", "below": "is below",
}  # fmt: skip
_SIGNALS: Final = {"span_event": "span event"}


def signals(kinds: Iterable[str]) -> str:
    """The kinds of records a rule takes."""
    return ", ".join(_SIGNALS.get(kind, kind) for kind in kinds)


def literal(value: object, of: Value | None = None) -> str:
    """A value as it is compared, with the word for a number that has one."""
    if isinstance(value, tuple):
        return ", ".join(literal(one, of) for one in value)
    if isinstance(value, str):
        return f"'{value if len(value) <= 60 else value[:59] + '…'}'"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    word = None
    if isinstance(of, Ref) and isinstance(value, int):
        word = _NUMBERS.get(of.name.removeprefix("span."), {}).get(value)
    return f"{value} ({word})" if word else str(value)


def value(node: Value) -> str:
    """Where a value comes from."""
    match node:
        case Ref(name):
            return _source(name)
        case Const(v):
            return literal(v)
        case First(of):
            return " or ".join(map(value, of))
        case Text(parts):
            return "".join(p if isinstance(p, str) else f"{{{value(p[0])}}}" for p in parts)
        case Apply("nonempty" | "number" | "json", of):
            return value(of)
        case Member(of, key):
            return f"{value(of)}.{key}"
        case Apply(op, of):
            return f"{op} of {value(of)}"
        case Choose(cases, otherwise):
            every = [then for _, then in cases] + ([otherwise] if otherwise else [])
            return " or ".join(dict.fromkeys(map(value, every)))
        case Lookup(of, _, _):
            return value(of)


def _source(name: str) -> str:
    for prefix, word in (("span.attr:", "span's "), ("attr:", ""), ("res:", "resource ")):
        if name.startswith(prefix):
            return word + name.removeprefix(prefix)
    if name.startswith("span."):
        return f"span's {name.removeprefix('span.')}"
    return name


def condition(node: Condition, *, inner: bool = False) -> str:
    """What must hold."""
    match node:
        case Named(name):
            return name
        case Every(of) if len(of) == 1:
            return condition(of[0], inner=inner)
        case Every(of):
            text = " and ".join(condition(one, inner=True) for one in of)
            return f"({text})" if inner else text or "always"
        case Some(of):
            text = " or ".join(condition(one, inner=True) for one in of)
            return f"({text})" if inner else text
        case Negation(Present(of)):
            return f"no {value(of)}"
        case Negation(of):
            return f"not {condition(of, inner=True)}"
        case Present(of):
            return f"has {value(of)}"
        case Test(of, op, operand):
            return f"{value(of)} {_TESTS[op]} {literal(operand, of)}"


def type_of(rule: Rule) -> str | None:
    """The one type of a rule's memories; None when the record says it."""
    parts = rule.type.parts
    return "".join(map(str, parts)) if all(isinstance(part, str) for part in parts) else None


def document(rules: RuleSet) -> str:
    """The table of types, triggers and fields, as Markdown."""
    lines = [
        "# Memory types",
        "",
        "<!-- Made from the built-in rules by `engram rules table`; a test compares. -->",
        "",
        "Which record becomes a memory of which type, and what the memory's `attributes` hold.",
        "A record may match several rules; names in the triggers are explained below the table.",
        "Rules of your own, and `engram rules explain`, are in [rules.md](rules.md).",
        "",
        "| type | from | trigger | title | fields | indexed as | rule |",
        "|---|---|---|---|---|---|---|",
    ]
    by_type: dict[str, list[Rule]] = {}
    any_type = [rule for rule in rules.rules if type_of(rule) is None]
    for rule in rules.rules:
        if (type_ := type_of(rule)) is not None:
            by_type.setdefault(type_, []).append(rule)
    for rule in any_type:
        lines.append(_row("*any*", rule))
    types = [*MEMORY_TYPES, *sorted(by_type.keys() - set(MEMORY_TYPES))]
    for type_ in types:
        lines += [_row(f"`{type_}`", rule) for rule in by_type.get(type_, ())]
    silent = [f"`{type_}`" for type_ in MEMORY_TYPES if type_ not in by_type]
    if silent and any_type:
        names = " or ".join(f"`{rule.name}`" for rule in any_type)
        lines += ["", f"Only by an explicit mark (rule {names}): {', '.join(silent)}."]
    lines += ["", "## Conditions", "", "| name | holds when |", "|---|---|"]
    used = sorted(rules.conditions.items())
    lines += [f"| `{name}` | {_cell(condition(node))} |" for name, node in used]
    lines += ["", "## Values", "", "Of several sources the first that is there counts.", ""]
    lines += ["| name | from |", "|---|---|"]
    lines += [f"| `{name}` | {_cell(value(node))} |" for name, node in sorted(rules.values.items())]
    return "\n".join(lines) + "\n"


def _row(type_: str, rule: Rule) -> str:
    fields = ", ".join(f"`{name}`" for name, _ in rule.attributes)
    if rule.attributes_json is not None:
        fields = f"all of {value(rule.attributes_json)}"
    title = value(rule.title[0]) if rule.title else ""
    for one in rule.title:
        if isinstance(one, Text):
            title = value(one)
            break
    when = condition(rule.when) + (", and nothing else is made of it" if rule.exclusive else "")
    cells = (signals(rule.signal), when, title, fields, rule.index_as)
    return f"| {type_} | {' | '.join(map(_cell, cells))} | `{rule.name}` |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("\n", " ")


__all__ = ["condition", "document", "literal", "signals", "type_of", "value"]
