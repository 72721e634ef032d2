"""From YAML to rules: frozen dataclasses, checked with all problems at once.

The grammar is described at the top of `default.yaml`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

import polars as pl
import yaml

from engram.exporters.errors import ConfigError

from .read import READERS, REVISION

Kind = Literal["span", "log", "span_event", "metric"]
KINDS: Final[tuple[Kind, ...]] = ("span", "log", "span_event", "metric")

_SHARED = (
    "trace_id", "span_id", "service_name", "scope_name", "attributes", "content_hash", "signal",
)  # fmt: skip
COLUMNS: Final[dict[Kind, frozenset[str]]] = {
    "span": frozenset(
        (*_SHARED, "parent_span_id", "name", "kind", "start_time_unix_nano", "end_time_unix_nano",
         "duration_ns", "status_code", "status_message", "own_exception")
    ),
    "log": frozenset(
        (*_SHARED, "time_unix_nano", "observed_time_unix_nano", "severity_number", "severity_text",
         "body", "body_text", "event_name")
    ),
    "span_event": frozenset(
        (*_SHARED, "parent_span_id", "time_unix_nano", "name", "span.name", "span.kind",
         "span.status_code", "span.status_message", "span.attributes")
    ),
    "metric": frozenset(
        (*_SHARED, "name", "description", "unit", "metric_type", "temporality", "labels",
         "labels_text", "last", "series", "window", "time_unix_nano", "end_time_unix_nano")
    ),
}  # fmt: skip
"""Columns of a record that a rule may name.

`signal` (the kind itself) and `duration_ns` of a span are the compiler's.
`own_exception` is the type of the last exception event in the span, null when it has none.
A row of kind `metric` is all points of one series in one window (`engram.exporters.metrics`)."""

NUMERIC_COLUMNS: Final = frozenset(
    ("kind", "start_time_unix_nano", "end_time_unix_nano", "duration_ns", "status_code",
     "time_unix_nano", "observed_time_unix_nano", "severity_number", "content_hash",
     "span.kind", "span.status_code", "mark:importance")
)  # fmt: skip

_ALL_COLUMNS = frozenset[str]().union(*COLUMNS.values())
_PREFIXES = ("attr:", "res:", "span.attr:")
_HOLE = re.compile(r"\{([^{}|]+)(?:\|(\d+))?\}")


@dataclass(frozen=True, slots=True)
class Ref:
    """A column or a named value."""

    name: str


@dataclass(frozen=True, slots=True)
class Const:
    """A literal."""

    value: str | float


@dataclass(frozen=True, slots=True)
class First:
    """The first of several that is there."""

    of: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """Literal pieces and holes; absent when one hole is."""

    parts: tuple[str | tuple[Value, int | None], ...]


@dataclass(frozen=True, slots=True)
class Apply:
    """One operation on one value: number, path, host, duration, nonempty, digest, item, json."""

    op: str
    of: Value


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a JSON object as text; absent where there is no such object or member."""

    of: Value
    key: str


@dataclass(frozen=True, slots=True)
class Choose:
    """The value of the first case whose condition holds."""

    cases: tuple[tuple[Condition, Value], ...]
    otherwise: Value | None


@dataclass(frozen=True, slots=True)
class Lookup:
    """A translation by table; what is not in the table passes through, or becomes `otherwise`."""

    of: Value
    table: tuple[tuple[str, str | float], ...]
    otherwise: Value | None


Value = Ref | Const | First | Text | Apply | Member | Choose | Lookup


@dataclass(frozen=True, slots=True)
class Every:
    """All of these hold."""

    of: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one of these holds."""

    of: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Negation:
    """This does not hold (an absent value never holds)."""

    of: Condition


@dataclass(frozen=True, slots=True)
class Present:
    """The value is there."""

    of: Value


@dataclass(frozen=True, slots=True)
class Test:
    """A comparison; false when the value is absent."""

    __test__ = False  # pytest: not a test class

    of: Value
    op: str
    operand: str | float | tuple[str | float, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """A condition by its name."""

    name: str


Condition = Every | Some | Negation | Present | Test | Named


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: which records, and the memory each becomes."""

    name: str
    """Its name; an extra rule of the same name takes the place of the shipped one."""
    type: Text
    signal: tuple[Kind, ...]
    when: Condition
    title: tuple[Value, ...]
    """The first that is there."""
    content: tuple[Value, ...] = ()
    """Lines; absent ones are left out."""
    importance: Value = Const(0.3)
    tags: tuple[Value, ...] = ()
    tag_list: Value | None = None
    """A reader's list column, more tags."""
    user_id: Value = Ref("user_id")
    session_id: Value = Ref("session_id")
    conversation_id: Value = Ref("conversation_id")
    subject: Value | None = None
    fingerprint: Value | None = None
    outcome: Value | None = None
    attributes: tuple[tuple[str, Value], ...] = ()
    attributes_json: Value | None = None
    """A JSON object to keep as it is, instead of `attributes`."""
    index_as: Literal["memory", "template", "none"] = "memory"
    scope: tuple[Value, ...] = ()
    """What the key is unique in."""
    key: tuple[Value, ...] = (Ref("content_hash"),)
    """The source key: what all records of one fact share."""
    read: str | None = None
    """A reader that parses messages, stacks or marks of the matching records."""
    needs: Value | None = None
    """After reading: no memory where this is absent."""
    exclusive: bool = False
    """Its records are hidden from all other rules."""
    into: Value | None = None
    """The ids of memories whose empty user, session and conversation the record fills.

    Nothing else of the record is kept in it, and no memory is made (`patch.py`)."""
    certainty: Value | None = None
    """With `into`: how sure each of the three is, one character each (`own.INFERRED`)."""
    rank: Value | None = None
    """Who speaks where several records make one memory, 1 to 5; else the kind of record says it."""
    moment: Literal["start", "end"] | None = None
    """A point in time, no end and no duration: for a span its start or its end."""
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All rules with the values and conditions they name."""

    values: Mapping[str, Value]
    conditions: Mapping[str, Condition]
    rules: tuple[Rule, ...]
    version: str
    wanted: frozenset[str] = frozenset()
    resource_wanted: frozenset[str] = frozenset()
    levels: Mapping[str, int] = field(default_factory=dict)
    """How deep a named value stands on other named values: they are computed level by level."""


_OPS = ("first", "text", "number", "path", "host", "duration", "nonempty", "digest", "item", "json",
        "member", "choose", "lookup")  # fmt: skip
_TESTS = ("is", "in", "matches", "starts_with", "at_least", "below")
_RULE_KEYS = tuple(Rule.__dataclass_fields__)


def _near(word: str, known: tuple[str, ...]) -> str:
    close = get_close_matches(word, known, 1, 0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"


class _Parser:
    """Parses one document, collecting what is wrong with it."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.refs: list[tuple[str, str]] = []
        self.names: list[tuple[str, str]] = []

    def bad(self, where: str, what: str) -> None:
        self.problems.append(f"{where}: {what}")

    def keys(self, raw: Mapping[Any, Any], known: tuple[str, ...], where: str) -> None:
        for key in raw:
            if key not in known:
                self.bad(where, f"unknown key {key!r}{_near(str(key), known)}")

    def ref(self, name: str, where: str) -> Ref:
        self.refs.append((name, where))
        return Ref(name)

    def value(self, raw: Any, where: str) -> Value:
        if isinstance(raw, bool) or raw is None:
            self.bad(where, f"{raw!r} is not a value")
        elif isinstance(raw, int | float):
            return Const(raw)
        elif isinstance(raw, str):
            return Const(raw[1:]) if raw.startswith("=") else self.ref(raw, where)
        elif isinstance(raw, list):
            return First(tuple(self.value(v, f"{where}[{i}]") for i, v in enumerate(raw)))
        elif isinstance(raw, dict):
            return self.operation(raw, where)
        else:
            self.bad(where, f"{raw!r} is not a value")
        return Const("")

    def operation(self, raw: dict[Any, Any], where: str) -> Value:
        self.keys(raw, (*_OPS, "else", "key"), where)
        ops = [op for op in _OPS if op in raw]
        if len(ops) != 1:
            self.bad(where, f"exactly one operation is needed, one of {', '.join(_OPS)}")
            return Const("")
        op, arg, inner = ops[0], raw[ops[0]], f"{where}.{ops[0]}"
        otherwise = self.value(raw["else"], f"{where}.else") if "else" in raw else None
        if otherwise is not None and op != "choose":
            self.bad(where, "'else' belongs to 'choose' (and inside 'lookup')")
        key = raw.get("key")
        if (op == "member") != ("key" in raw):
            self.bad(where, "'member' and 'key' belong together")
        if op == "member":
            if not isinstance(key, str) or not re.fullmatch(r"\w+", key):
                self.bad(f"{where}.key", f"{key!r}: a name of letters, digits and _ was expected")
                key = "_"
            return Member(self.value(arg, inner), key)
        if op == "first":
            return self.value(arg if isinstance(arg, list) else [arg], inner)
        if op == "text":
            return self.text(arg, inner)
        if op == "choose":
            cases = []
            for i, case in enumerate(arg if isinstance(arg, list) else [arg]):
                at = f"{inner}[{i}]"
                if not isinstance(case, dict) or set(case) != {"when", "is"}:
                    self.bad(at, "a case is {when: CONDITION, is: VALUE}")
                    continue
                when = self.condition(case["when"], f"{at}.when")
                cases.append((when, self.value(case["is"], f"{at}.is")))
            return Choose(tuple(cases), otherwise)
        if op == "lookup":
            if not isinstance(arg, dict) or not isinstance(arg.get("in"), dict) or "of" not in arg:
                self.bad(inner, "a lookup is {of: VALUE, in: {FROM: TO}, else: VALUE}")
                return Const("")
            self.keys(arg, ("of", "in", "else"), inner)
            other = self.value(arg["else"], f"{inner}.else") if "else" in arg else None
            table = tuple((str(k), v) for k, v in arg["in"].items())
            return Lookup(self.value(arg["of"], f"{inner}.of"), table, other)
        return Apply(op, self.value(arg, inner))

    def text(self, raw: Any, where: str) -> Text:
        if not isinstance(raw, str):
            self.bad(where, f"a text was expected, not {raw!r}")
            return Text(("",))
        parts: list[str | tuple[Value, int | None]] = []
        end = 0
        for hole in _HOLE.finditer(raw):
            if hole.start() > end:
                parts.append(raw[end : hole.start()])
            parts.append((self.ref(hole[1], where), int(hole[2]) if hole[2] else None))
            end = hole.end()
        if end < len(raw):
            parts.append(raw[end:])
        return Text(tuple(parts))

    def texts(self, raw: Any, where: str) -> tuple[Value, ...]:
        """Strings here are texts with holes; operations are values."""
        return tuple(
            self.value(v, f"{where}[{i}]") if isinstance(v, dict) else self.text(v, f"{where}[{i}]")
            for i, v in enumerate(raw if isinstance(raw, list) else [raw])
        )

    def condition(self, raw: Any, where: str) -> Condition:
        if isinstance(raw, str):
            self.names.append((raw, where))
            return Named(raw)
        if isinstance(raw, list):
            return Every(tuple(self.condition(c, f"{where}[{i}]") for i, c in enumerate(raw)))
        if not isinstance(raw, dict):
            self.bad(where, f"{raw!r} is not a condition")
            return Every(())
        if "value" in raw:
            self.keys(raw, ("value", *_TESTS), where)
            tests = [op for op in _TESTS if op in raw]
            if len(tests) != 1:
                self.bad(where, f"exactly one comparison is needed, one of {', '.join(_TESTS)}")
                return Every(())
            operand = raw[tests[0]]
            if tests[0] == "matches":
                try:
                    re.compile(operand)
                    pl.select(pl.lit("").str.contains(operand))  # no look-around there
                except (re.error, TypeError, pl.exceptions.PolarsError) as error:
                    what = str(error).strip().splitlines()[-1]
                    self.bad(f"{where}.matches", f"not a pattern: {what}")
            if tests[0] == "in" and not isinstance(operand, list):
                self.bad(f"{where}.in", "a list was expected")
                operand = [operand]
            frozen = tuple(operand) if isinstance(operand, list) else operand
            return Test(self.value(raw["value"], f"{where}.value"), tests[0], frozen)
        known = ("all", "any", "not", "present", "absent", "value")
        self.keys(raw, known, where)
        if len(raw) != 1 or next(iter(raw)) not in known:
            if len(raw) != 1:
                self.bad(where, f"exactly one of {', '.join(known)} is needed")
            return Every(())
        ((op, arg),) = raw.items()
        at = f"{where}.{op}"
        if op == "not":
            return Negation(self.condition(arg, at))
        if op == "present":
            return Present(self.value(arg, at))
        if op == "absent":
            return Negation(Present(self.value(arg, at)))
        if not isinstance(arg, list):
            self.bad(at, "a list of conditions was expected")
            return Every(())
        of = tuple(self.condition(c, f"{at}[{i}]") for i, c in enumerate(arg))
        return Every(of) if op == "all" else Some(of)

    def rule(self, raw: Any, where: str) -> Rule | None:
        if not isinstance(raw, dict):
            self.bad(where, f"a rule is a mapping, not {raw!r}")
            return None
        name = raw.get("name")
        where = f"rules.{name}" if isinstance(name, str) else where
        self.keys(raw, _RULE_KEYS, where)
        missing = [k for k in ("name", "type", "signal", "when", "title") if k not in raw]
        if missing:
            self.bad(where, f"missing: {', '.join(missing)}")
            return None
        out: dict[str, Any] = {"name": str(name)}
        signal = raw["signal"] if isinstance(raw["signal"], list) else [raw["signal"]]
        for kind in signal:
            if kind not in KINDS:
                self.bad(f"{where}.signal", f"unknown signal {kind!r}{_near(str(kind), KINDS)}")
        out["signal"] = tuple(signal)
        out["type"] = self.text(raw["type"], f"{where}.type")
        out["when"] = self.condition(raw["when"], f"{where}.when")
        for key in ("title", "content", "tags"):
            if key in raw:
                out[key] = self.texts(raw[key], f"{where}.{key}")
        for key in ("importance", "tag_list", "user_id", "session_id", "conversation_id",
                    "subject", "fingerprint", "outcome", "attributes_json", "needs", "rank", "into",
                    "certainty"):  # fmt: skip
            if key in raw:
                out[key] = self.value(raw[key], f"{where}.{key}")
        for const in walk(out["rank"]) if "rank" in out else ():
            # What a condition compares with is no Const, so these are all the ranks there can be.
            if isinstance(const, Const) and const.value not in (1, 2, 3, 4, 5):
                self.bad(f"{where}.rank", f"{const.value!r} is no rank: 1 to 5")
        for key in ("scope", "key"):
            if key in raw:
                parts = raw[key] if isinstance(raw[key], list) else [raw[key]]
                out[key] = tuple(self.value(v, f"{where}.{key}[{i}]") for i, v in enumerate(parts))
        if raw.get("moment") is not None:
            if raw["moment"] not in ("start", "end"):
                self.bad(f"{where}.moment", "one of start, end was expected")
            out["moment"] = raw["moment"]
        for key in ("exclusive", "enabled"):
            if key in raw:
                out[key] = bool(raw[key])
        if "attributes" in raw:
            if isinstance(raw["attributes"], dict):
                out["attributes"] = tuple(
                    (str(k), self.value(v, f"{where}.attributes.{k}"))
                    for k, v in sorted(raw["attributes"].items())
                )
            else:
                self.bad(f"{where}.attributes", "a mapping was expected")
            for key, _ in out.get("attributes", ()):
                if not re.fullmatch(r"[A-Za-z0-9_.]+", key):
                    self.bad(f"{where}.attributes", f"{key!r}: letters, digits, _ and . only")
        if "index_as" in raw:
            choices = ("memory", "template", "none")
            if raw["index_as"] not in choices:
                self.bad(f"{where}.index_as", f"one of {', '.join(choices)} was expected")
            out["index_as"] = raw["index_as"]
        if raw.get("read") is not None:
            if raw["read"] not in READERS:
                near = _near(str(raw["read"]), tuple(READERS))
                self.bad(f"{where}.read", f"unknown reader {raw['read']!r}{near}")
            out["read"] = raw["read"]
        return Rule(**out)

    def check_names(self, values: Mapping[str, Value], conditions: Mapping[str, Condition]) -> None:
        made = {f"{r}:{c}" for r, reader in READERS.items() for c in reader.makes}
        known = tuple(sorted({*values, *_ALL_COLUMNS, *made}))
        for name, where in self.refs:
            if name not in known and not name.startswith(_PREFIXES):
                self.bad(where, f"unknown source {name!r}{_near(name, known)[:200]}")
        for name, where in self.names:
            if name not in conditions:
                near = _near(name, tuple(conditions))
                self.bad(where, f"unknown condition {name!r}{near[:200]}")


def _children(node: Value | Condition) -> Iterator[Value | Condition]:
    match node:
        case First() | Every() | Some():
            yield from node.of
        case Text():
            yield from (part[0] for part in node.parts if not isinstance(part, str))
        case Apply() | Member() | Negation() | Present() | Test():
            yield node.of
        case Lookup():
            yield node.of
            if node.otherwise is not None:
                yield node.otherwise
        case Choose():
            for when, then in node.cases:
                yield when
                yield then
            if node.otherwise is not None:
                yield node.otherwise
        case _:
            return


def walk(node: Value | Condition) -> Iterator[Value | Condition]:
    """The node and everything below it, names not followed."""
    yield node
    for child in _children(node):
        yield from walk(child)


def parts_of(rule: Rule) -> Iterator[Value | Condition]:
    """Every expression of a rule except its condition."""
    yield rule.type
    yield from rule.title
    yield from rule.content
    yield from rule.tags
    yield from rule.scope
    yield from rule.key
    yield from (value for _, value in rule.attributes)
    for value in (rule.importance, rule.tag_list, rule.user_id, rule.session_id, rule.needs,
                  rule.conversation_id, rule.subject, rule.fingerprint, rule.outcome,
                  rule.attributes_json, rule.rank, rule.into, rule.certainty):  # fmt: skip
        if value is not None:
            yield value


def _finish(rules: RuleSet, problems: list[str]) -> RuleSet:
    levels: dict[str, int] = {}

    def level(node: Value | Condition, path: tuple[str, ...]) -> int:
        deepest = 0
        for part in walk(node):
            if isinstance(part, Named):
                name = f"condition {part.name}"
                inner: Value | Condition | None = rules.conditions.get(part.name)
            elif isinstance(part, Ref):
                name, inner = part.name, rules.values.get(part.name)
            else:
                continue
            if inner is None:
                continue
            if name in path:
                problems.append(f"{path[0]}: goes in a circle: {' > '.join((*path, name))}")
                continue
            below = level(inner, (*path, name)) + isinstance(part, Ref)
            deepest = max(deepest, below)
        return deepest

    for name, value in rules.values.items():
        levels[name] = level(value, (name,))
    wanted, resource = set[str](), set[str]()
    nodes: list[Value | Condition] = [*rules.values.values(), *rules.conditions.values()]
    for rule in rules.rules:
        nodes += [rule.when, *parts_of(rule)]
        if rule.read:
            wanted.update(READERS[rule.read].attributes)
            resource.update(READERS[rule.read].resource)
    for node in nodes:
        for part in walk(node):
            if isinstance(part, Ref):
                for prefix, names in (
                    ("attr:", wanted),
                    ("span.attr:", wanted),
                    ("res:", resource),
                ):
                    if part.name.startswith(prefix):
                        names.add(part.name.removeprefix(prefix))
    return replace(
        rules, wanted=frozenset(wanted), resource_wanted=frozenset(resource), levels=levels
    )


@cache
def shipped() -> str:
    """The text of the rules that come with Engram."""
    return files(__package__).joinpath("default.yaml").read_text("utf-8")


@cache
def enrichment() -> str:
    """The text of the rules for what `learn` found out; they go before all others."""
    return files(__package__).joinpath("enrichment.yaml").read_text("utf-8")


def load(extra: list[dict[str, Any]] | None = None) -> RuleSet:
    """The shipped rules and an operator's own.

    An extra rule takes the place of a shipped one of the same name, or is added behind them;
    `{name, condition}` takes the place of the shipped condition of that name.
    Raises `ConfigError` with everything that is wrong.
    """
    document: dict[str, Any] = yaml.safe_load(shipped())
    first: list[dict[str, Any]] = yaml.safe_load(enrichment())["rules"]
    raw_rules: dict[str, Any] = {rule["name"]: rule for rule in (*first, *document["rules"])}
    parser = _Parser()
    for i, rule in enumerate(extra or []):
        name = rule.get("name") if isinstance(rule, dict) else None
        if name in document["conditions"] and set(rule) == {"name", "condition"}:
            document["conditions"][name] = rule["condition"]
        elif isinstance(name, str) and set(rule) <= {"name", "enabled"} and name in raw_rules:
            raw_rules[name] = {**raw_rules[name], **rule}  # only switched off or on
        else:
            raw_rules[name if isinstance(name, str) else f"extra[{i}]"] = rule
    values = {k: parser.value(v, f"values.{k}") for k, v in document["values"].items()}
    conditions = {
        k: parser.condition(v, f"conditions.{k}") for k, v in document["conditions"].items()
    }
    parsed = [parser.rule(raw, f"rules.{name}") for name, raw in raw_rules.items()]
    rules = tuple(rule for rule in parsed if rule is not None and rule.enabled)
    parser.check_names(values, conditions)
    effective = json.dumps(
        [REVISION, document["values"], document["conditions"], raw_rules], default=str
    )
    version = hashlib.blake2b(effective.encode(), digest_size=6).hexdigest()
    done = RuleSet(values, conditions, rules, version)
    if not parser.problems:
        done = _finish(done, parser.problems)
    if parser.problems:
        raise ConfigError(parser.problems)
    return done
