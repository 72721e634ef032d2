"""From rules to Polars expressions, for the columns that a batch really has.

A wanted attribute that no record of the batch carries has no column: its value is absent at
compile time, texts and conditions over it fold away, and a rule that cannot match costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from itertools import accumulate, chain
from operator import and_, or_
from typing import Any, Final

import polars as pl
import pyarrow as pa

from engram.exporters.memories import MEMORY_SCHEMA, memory_ids
from engram.exporters.merge import PRIORITISED, canonical_object
from engram.exporters.recalled import NAME as RECALLED
from engram.exporters.recalled import without, without_json
from engram.exporters.trust import ATTRIBUTE as TRUST
from engram.exporters.trust import GIVEN

from .load import (
    NUMERIC_COLUMNS,
    Apply,
    Choose,
    Condition,
    Const,
    Every,
    First,
    Kind,
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
    parts_of,
    walk,
)
from .read import READERS, digest, quote

TITLE_CHARACTERS: Final = 120
CONTENT_BYTES: Final = 8192

_STRING = pl.String()
_BREAKS = r"[ \t\r\n\v\f]{2,}|[\t\r\n\v\f]"  # ASCII: Unicode classes cost four times as much
_URL = r"^(?:[A-Za-z][A-Za-z0-9+.-]*:)?//(?:[^/?#@]*@)?([^/?#]*)"
_URL_PATH = r"^(?:(?:[A-Za-z][A-Za-z0-9+.-]*:)?//[^/?#]*)?([^?#]*)"
_JSON_MAKERS = ("question:", "answer:")
_JSON_COLUMNS = ("labels", "last")
_TAG_SEPARATOR = "\x1f"
_COMMON_TAGS = (
    Text(("service:", (Ref("service_name"), None))),
    Text(("signal:", (Ref("signal"), None))),
    Text(("scope:", (Ref("scope_name"), None))),
    Text(("lang:", (Ref("res:telemetry.sdk.language"), None))),
)
_WORKING: Final[dict[str, pl.DataType]] = {
    **{
        name: dtype
        for name, dtype in MEMORY_SCHEMA.items()
        if name not in ("id", "tags", "sources", "ranks", "rules_version")
    },
    "=rank": pl.Int64(),
    "=scope": _STRING,
    "=key": _STRING,
    "=tags": _STRING,
    "=more_tags": pl.List(pl.String()),
    "=hash": pl.UInt64(),
    "=into": _STRING,
    "=certainty": _STRING,
    "=hashes": pl.List(pl.UInt64()),
}
"""What a rule puts out, before `finish` makes memories of it."""
_BROWSER = Named("from_browser")
_TRUST = Ref(f"res:{TRUST}")


@dataclass(frozen=True, slots=True)
class Plan:
    """One rule over one set of columns."""

    rule: Rule
    mask: pl.Expr | bool
    columns: list[str]
    """What it reads, so that filtering gathers nothing else."""
    levels: list[list[pl.Expr]]
    """Named values, each level from the one before."""
    takes: list[pl.Expr]
    """Columns for its reader."""
    keep: pl.Expr | bool
    """Whether a record still makes a memory after reading."""
    cuts: list[pl.Expr]
    """Shortened texts, each made once however many titles try it."""
    outputs: list[pl.Expr]


def shorten(text: pl.Expr, limit: int) -> pl.Expr:
    """At most so many characters on one line, with `…` where it was cut."""
    line = text.str.slice(0, 2 * limit).str.replace_all(_BREAKS, " ").str.strip_chars()
    cut = line.str.slice(0, limit - 1).str.strip_chars_end() + "…"
    return (
        pl.when(line.str.len_bytes() <= limit)
        .then(line)
        .when(line.str.len_chars() > limit)
        .then(cut)
        .otherwise(line)
    )


def one_line(text: str, limit: int) -> str:
    """What `shorten` does, for one text."""
    line = text[: 2 * limit]
    if not line.isprintable() or "  " in line or line[:1] == " " or line[-1:] == " ":
        line = " ".join(line.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def _cut(text: pl.Expr, limit: int) -> pl.Expr:
    """`shorten` for long texts, where Python's own splitting is faster than a regex."""

    def cut(series: pl.Series) -> pl.Series:
        lines = [None if t is None else one_line(t, limit) for t in series.to_list()]
        return pl.Series(series.name, lines, dtype=_STRING)

    return text.map_batches(cut, return_dtype=_STRING)


def cap(text: str, limit: int = CONTENT_BYTES) -> str:
    """At most so many bytes of UTF-8, cut at a word boundary where one is near."""
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) <= limit:
        return text
    kept = raw[: limit - 3].decode("utf-8", "ignore")
    space = max(kept.rfind(" "), kept.rfind("\n"))
    return (kept[:space] if space > len(kept) - 200 else kept).rstrip() + "…"


@lru_cache(maxsize=4096)
def _valid_json(text: str) -> str:
    try:
        json.loads(text)
    except ValueError:
        return quote(text)
    return text


def _checked(series: pl.Series) -> pl.Series:
    return pl.Series(
        series.name, [None if v is None else _valid_json(v) for v in series], dtype=_STRING
    )


def _digested(series: pl.Series) -> pl.Series:
    return pl.Series(
        series.name, [None if v is None else digest(v.strip()) for v in series], dtype=_STRING
    )


def _canonical(series: pl.Series) -> pl.Series:
    return pl.Series(series.name, [canonical_object(v) for v in series], dtype=_STRING)


_Key = tuple[Kind, str, frozenset[str]]


class Known:
    """What is compiled already: by kind, rule, and those of a batch's columns that it reads.

    A rare attribute in a batch costs only the rules that ask for it.
    """

    def __init__(self, rules: RuleSet) -> None:
        self.tested = {r.name: frozenset(_names(rules, [r.when])) for r in rules.rules}
        """The columns that the condition of a rule names."""
        self.read = {r.name: frozenset(_names(rules, _nodes(r))) for r in rules.rules}
        """The columns that the rest of it names."""
        self.masks: dict[_Key, pl.Expr | bool] = {}
        self.plans: dict[_Key, Plan] = {}

    def clear(self) -> None:
        """Forget what was compiled."""
        self.masks.clear()
        self.plans.clear()


class Compiler:
    """Compiles rules for one kind of record and one set of columns."""

    def __init__(
        self,
        rules: RuleSet,
        kind: Kind,
        columns: frozenset[str],
        known: Known | None = None,
    ) -> None:
        self._rules = rules
        self._known = known or Known(rules)
        self._kind = kind
        self._columns = columns
        self._staged = False
        self._made: frozenset[str] = frozenset()
        self._cuts: dict[str, pl.Expr] = {}

    # --- values

    def numeric(self, value: Value) -> bool:
        """Whether the value is a number and not text."""
        match value:
            case Const(v):
                return not isinstance(v, str)
            case Ref(name):
                inner = self._rules.values.get(name)
                return self.numeric(inner) if inner is not None else name in NUMERIC_COLUMNS
            case First(of):
                return bool(of) and all(self.numeric(v) for v in of)
            case Apply(op, _):
                return op == "number"
            case Choose(cases, otherwise):
                every = [then for _, then in cases] + ([otherwise] if otherwise else [])
                return all(self.numeric(v) for v in every)
            case Lookup(_, table, otherwise):
                return all(not isinstance(v, str) for _, v in table) and (
                    otherwise is None or self.numeric(otherwise)
                )
            case _:
                return False

    def text(self, value: Value) -> pl.Expr | None:
        """The value as text."""
        expr = self.value(value)
        return expr.cast(_STRING) if expr is not None and self.numeric(value) else expr

    def value(self, value: Value) -> pl.Expr | None:
        """The value, or None when no record of this batch can have it."""
        match value:
            case Const(v):
                return pl.lit(v)
            case Ref(name):
                return self._ref(name)
            case First(of):
                numeric = self.numeric(value)
                found = [
                    e for v in of if (e := self.value(v) if numeric else self.text(v)) is not None
                ]
                return None if not found else found[0] if len(found) == 1 else pl.coalesce(found)
            case Text(parts):
                return self._text(parts)
            case Apply(op, of):
                return self._apply(op, of)
            case Member(of, key):
                whole = self.text(of)
                return None if whole is None else whole.str.json_path_match(f"$.{key}")
            case Choose(cases, otherwise):
                return self._choose(cases, otherwise, self.numeric(value))
            case Lookup(of, table, otherwise):
                source = self.text(of)
                if source is None:
                    return None if otherwise is None else self.value(otherwise)
                to = dict(table)
                if otherwise is None:
                    return source.replace(list(to), list(to.values())) if to else source
                return source.replace_strict(
                    list(to), list(to.values()), default=self.value(otherwise),
                    return_dtype=pl.Float64() if self.numeric(value) else _STRING,
                )  # fmt: skip

    def _ref(self, name: str) -> pl.Expr | None:
        inner = self._rules.values.get(name)
        if inner is not None:
            if self._staged:
                return pl.col(f"={name}") if f"={name}" in self._made else None
            return self.value(inner)
        if name == "signal":
            return pl.lit(self._kind)
        if name == "duration_ns" and self._kind == "span":
            return (pl.col("end_time_unix_nano") - pl.col("start_time_unix_nano")).clip(0)
        return pl.col(name) if name in self._columns or name in self._made else None

    def _text(self, parts: Sequence[str | tuple[Value, int | None]]) -> pl.Expr | None:
        exprs: list[pl.Expr] = []
        for part in parts:
            if isinstance(part, str):
                exprs.append(pl.lit(part))
                continue
            hole, limit = part
            expr = self.text(hole)
            if expr is None:
                return None
            if limit and self._staged and isinstance(hole, Ref):
                name = f"={hole.name}|{limit}"
                self._cuts[name] = _cut(expr, limit).alias(name)
                expr = pl.col(name)
            elif limit:
                expr = shorten(expr, limit)
            exprs.append(expr)
        return exprs[0] if len(exprs) == 1 else pl.concat_str(exprs)

    def _apply(self, op: str, of: Value) -> pl.Expr | None:
        if op == "number":
            expr = self.value(of)
            if expr is None or self.numeric(of):
                return expr
            return expr.cast(pl.Int64(), strict=False)
        if op == "duration":
            ns = self.value(of)
            return None if ns is None else _duration(ns)
        expr = self.text(of)
        if expr is None:
            return None
        if op == "path":
            path = expr.str.extract(_URL_PATH, 1)
            return pl.when(path == "").then(pl.lit("/")).otherwise(path)
        if op == "host":
            return expr.str.extract(_URL, 1)
        if op == "item":
            first = expr.str.json_path_match("$[0]")
            return pl.when(expr.str.starts_with("[")).then(first).otherwise(expr)
        if op == "digest":
            return expr.map_batches(_digested, return_dtype=_STRING)
        if op == "nonempty":
            return pl.when(expr != "").then(expr)
        if isinstance(of, Ref) and (of.name.startswith(_JSON_MAKERS) or of.name in _JSON_COLUMNS):
            return expr  # written by a reader or by `metrics`: JSON for certain
        return expr.map_batches(_checked, return_dtype=_STRING)

    def _choose(
        self, cases: Sequence[tuple[Condition, Value]], otherwise: Value | None, numeric: bool
    ) -> pl.Expr | None:
        def branch(value: Value) -> pl.Expr | None:
            return self.value(value) if numeric else self.text(value)

        result = branch(otherwise) if otherwise is not None else None
        for when, then in reversed(cases):
            condition = self.condition(when)
            if condition is False:
                continue
            value = branch(then)
            if condition is True:
                result = value
            elif value is not None or result is not None:
                result = (
                    pl.when(condition)
                    .then(pl.lit(None) if value is None else value)
                    .otherwise(pl.lit(None) if result is None else result)
                )
        return result

    # --- conditions

    def condition(self, condition: Condition) -> pl.Expr | bool:
        """The condition; True or False when the columns alone decide."""
        match condition:
            case Named(name):
                return self.condition(self._rules.conditions[name])
            case Every(of):
                parts = [self.condition(c) for c in of]
                exprs = [p for p in parts if not isinstance(p, bool)]
                if any(p is False for p in parts):
                    return False
                return reduce(and_, exprs) if exprs else True
            case Some(of):
                parts = [self.condition(c) for c in of]
                exprs = [p for p in parts if not isinstance(p, bool)]
                if any(p is True for p in parts):
                    return True
                return reduce(or_, exprs) if exprs else False
            case Negation(Present(of)):
                expr = self.value(of)
                return True if expr is None else expr.is_null()
            case Negation(of):
                inner = self.condition(of)
                return not inner if isinstance(inner, bool) else ~inner.fill_null(False)
            case Present(of):
                expr = self.value(of)
                return False if expr is None else expr.is_not_null()
            case Test():
                return self._test(condition)

    def _test(self, test: Test) -> pl.Expr | bool:
        operand: Any = test.operand
        result: pl.Expr
        if test.of == Ref("signal"):
            return self._kind in operand if test.op == "in" else self._kind == operand
        first = operand[0] if isinstance(operand, tuple) and operand else operand
        if isinstance(first, str):
            expr = self.text(test.of)
        else:
            expr = self.value(test.of)
            if expr is not None and not self.numeric(test.of):
                expr = expr.cast(pl.Float64(), strict=False)
        if expr is None:
            return False
        match test.op:
            case "is":
                result = expr == operand
            case "in":
                result = expr.is_in(list(operand))
            case "matches":
                result = expr.str.contains(operand)
            case "starts_with":
                result = expr.str.starts_with(operand)
            case "at_least":
                result = expr >= operand
            case _:
                result = expr < operand
        return result

    # --- rules

    def plans(self) -> list[Plan]:
        """What is left of the rules for these columns."""
        exclusive: list[pl.Expr] = []
        plans: list[Plan] = []
        for rule in self._rules.rules:
            if self._kind not in rule.signal:
                continue
            self._staged, self._made = False, frozenset()
            key = (self._kind, rule.name, self._columns & self._known.tested[rule.name])
            mask = self._known.masks.get(key)
            if mask is None:
                mask = self._known.masks[key] = self.condition(rule.when)
            if mask is False:
                continue
            others = [~e for e in exclusive]
            if not isinstance(mask, bool):
                mask = mask.fill_null(False)
                if rule.exclusive:
                    exclusive.append(mask)
            combined = reduce(and_, others, mask) if others else mask
            key = (self._kind, rule.name, self._columns & self._known.read[rule.name])
            plan = self._known.plans.get(key)
            if plan is None:
                plan = self._known.plans[key] = self._plan(rule, combined)
            plans.append(replace(plan, mask=combined))
        return plans

    def _plan(self, rule: Rule, mask: pl.Expr | bool) -> Plan:
        reader = READERS[rule.read] if rule.read else None
        self._cuts = {}
        nodes = _nodes(rule)
        levels: list[list[pl.Expr]] = []
        self._staged = True
        for name in sorted(
            _names(self._rules, nodes) & self._rules.values.keys(),
            key=lambda name: (self._rules.levels[name], name),
        ):
            level = self._rules.levels[name]
            while len(levels) <= level:
                levels.append([])
            expr = self.value(self._rules.values[name])
            if self._cuts:  # a value that shortens another: a level of its own, just before
                levels[level - 1].extend(self._cuts.values())
                self._cuts = {}
            if expr is not None:
                levels[level].append(expr.alias(f"={name}"))
                self._made |= {f"={name}"}
        takes = []
        keep: pl.Expr | bool = True
        if reader:
            for name in reader.takes:
                expr = self._ref(name)
                takes.append((pl.lit(None, _STRING) if expr is None else expr).alias(name))
            self._made |= {f"{rule.read}:{name}" for name in reader.makes}
        if rule.needs is not None:
            keep = self.condition(Present(rule.needs))
        outputs = self._outputs(rule)
        cuts = list(self._cuts.values())
        roots = {
            name
            for expr in (*outputs, *takes, *cuts, *(e for level in levels for e in level))
            for name in expr.meta.root_names()
        }
        columns = sorted(roots & self._columns)
        return Plan(rule, mask, columns, [lv for lv in levels if lv], takes, keep, cuts, outputs)

    def _outputs(self, rule: Rule) -> list[pl.Expr]:
        type_ = self.text(rule.type)
        assert type_ is not None  # noqa: S101  # the loader saw to its sources
        if rule.into is not None:
            return self._patch(rule, rule.into)
        titles = [e for v in rule.title if (e := self.text(v)) is not None]
        duration = self._ref("duration_ns") if not rule.moment else None
        importance = self.value(rule.importance)
        source, rank = self._source(rule)
        browser = self.condition(_BROWSER)
        trust = pl.lit("app")
        told = self._ref(_TRUST.name)
        if told is not None:
            given = told.is_in([*GIVEN, "unknown"])
            trust = pl.when(given).then(told).otherwise(trust)
        if not isinstance(browser, bool):
            trust = pl.when(browser).then(pl.lit("browser")).otherwise(trust)
        time, end = self._times(rule)
        fields: dict[str, pl.Expr | None] = {
            "type": type_,
            "time_unix_nano": time,
            "end_time_unix_nano": end,
            "title": pl.coalesce(*titles, type_) if titles else type_,
            "content": self._content(rule),
            "importance": importance,
            "service_name": pl.col("service_name"),
            "user_id": self._optional(rule.user_id),
            "session_id": self._optional(rule.session_id),
            "conversation_id": self._optional(rule.conversation_id),
            "subject": self._optional(rule.subject),
            "fingerprint": self._optional(rule.fingerprint),
            "outcome": self._optional(rule.outcome),
            "duration_ns": duration,
            "trace_id": pl.col("trace_id"),
            "span_id": pl.col("span_id"),
            "attributes": self._attributes(rule),
            "index_as": pl.lit(rule.index_as),
            "source": source,
            "trust": trust,
            "=rank": rank,
            "=scope": self._joined(rule.scope),
            "=key": self._joined(rule.key),
            "=tags": self._tags(rule),
            "=more_tags": self.value(rule.tag_list) if rule.tag_list is not None else None,
            "=hash": pl.col("content_hash"),
            "=hashes": pl.col("sources") if self._kind == "metric" else None,
        }
        return [
            expr.cast(_WORKING[name]).alias(name)
            for name, expr in fields.items()
            if expr is not None
        ]

    def _patch(self, rule: Rule, into: Value) -> list[pl.Expr]:
        """What `patch.py` takes."""
        fields = {
            "=into": self.text(into),
            "=certainty": self._optional(rule.certainty),
            "user_id": self._optional(rule.user_id),
            "session_id": self._optional(rule.session_id),
            "conversation_id": self._optional(rule.conversation_id),
        }
        return [
            (pl.lit(None) if expr is None else expr).cast(_WORKING[name]).alias(name)
            for name, expr in fields.items()
        ]

    def _content(self, rule: Rule) -> pl.Expr | None:
        """The lines that are there."""
        lines = [e for v in rule.content if (e := self.text(v)) is not None]
        return pl.concat_str(lines, separator="\n", ignore_nulls=True) if lines else None

    def _optional(self, value: Value | None) -> pl.Expr | None:
        return self.text(value) if value is not None else None

    def _joined(self, parts: Sequence[Value]) -> pl.Expr:
        exprs = [pl.lit("") if e is None else e.fill_null("") for e in map(self.text, parts)]
        if not exprs:
            return pl.lit("")
        return pl.concat_str(exprs, separator="\0") if len(exprs) > 1 else exprs[0]

    def _times(self, rule: Rule) -> tuple[pl.Expr, pl.Expr]:
        none = pl.lit(None, pl.Int64())
        if self._kind == "span":
            start, end = pl.col("start_time_unix_nano"), pl.col("end_time_unix_nano")
            if rule.moment:
                return (end if rule.moment == "end" else start), none
            return start, end
        time = pl.col("time_unix_nano")
        if self._kind == "metric":
            return time, pl.col("end_time_unix_nano")
        if self._kind == "log":
            time = pl.when(time > 0).then(time).otherwise(pl.col("observed_time_unix_nano"))
        return time, none

    def _source(self, rule: Rule) -> tuple[pl.Expr, pl.Expr]:
        """Which kind of record speaks, and its rank among the records of one fact."""
        if rule.exclusive:
            lower = None if rule.rank is None else self.value(rule.rank)
            return pl.lit("mark"), pl.lit(6) if lower is None else lower.fill_null(6)
        source, rank = self._default_source()
        if rule.rank is not None:
            own = self.value(rule.rank)
            rank = rank if own is None else own
        return source, rank

    def _default_source(self) -> tuple[pl.Expr, pl.Expr]:
        if self._kind in ("span", "metric"):
            return pl.lit(self._kind), pl.lit(1)
        if self._kind == "span_event":
            server = pl.col("span.kind") == 2
            return pl.lit("span_event"), pl.when(server).then(pl.lit(3)).otherwise(pl.lit(2))
        event = self.condition(Present(Ref("event")))
        named = pl.lit(event) if isinstance(event, bool) else event
        return (
            pl.when(named).then(pl.lit("event")).otherwise(pl.lit("log")),
            pl.when(named).then(pl.lit(5)).otherwise(pl.lit(4)),
        )

    def _tags(self, rule: Rule) -> pl.Expr:
        """All tags in one text: few texts are distinct, so each is split once (`finish`)."""
        tags = [e for v in (*_COMMON_TAGS, *rule.tags) if (e := self.text(v)) is not None]
        return pl.concat_str(tags, separator=_TAG_SEPARATOR, ignore_nulls=True)

    def _attributes(self, rule: Rule) -> pl.Expr:
        if rule.attributes_json is not None:
            whole = self.text(rule.attributes_json)
            if whole is None:
                return pl.lit("{}")
            return whole.map_batches(_canonical, return_dtype=_STRING)
        # Polars writes JSON fast; runs of its fields alternate with values that are JSON already.
        pieces: list[pl.Expr] = []
        fields: list[pl.Expr] = []
        for key, value in rule.attributes:
            expr = self.value(value)
            if expr is None:
                continue
            if isinstance(value, Apply) and value.op == "json":
                pieces += [_members(fields), pl.lit(f"{quote(key)}:") + expr]
                fields = []
            else:
                fields.append(expr.alias(key))
        pieces.append(_members(fields))
        found = [p for p in pieces if p is not _NOTHING]
        if not found:
            return pl.lit("{}")
        inner = found[0]
        if len(found) > 1:
            filled = [pl.when(p != "").then(p) for p in found]
            inner = pl.concat_str(filled, separator=",", ignore_nulls=True)
        return pl.concat_str(pl.lit("{"), inner, pl.lit("}"))


_NOTHING = pl.lit("")


def _nodes(rule: Rule) -> list[Value | Condition]:
    """Everything that the plan of a rule is made of, its condition aside."""
    takes = READERS[rule.read].takes if rule.read else ()
    return [*parts_of(rule), *_COMMON_TAGS, _BROWSER, _TRUST, Ref("event"), *map(Ref, takes)]


def _names(rules: RuleSet, nodes: list[Value | Condition]) -> set[str]:
    """Columns and values that some expressions name, through values and conditions."""
    found: set[str] = set()
    queue = list(nodes)
    while queue:
        for part in walk(queue.pop()):
            if isinstance(part, Named):
                queue.append(rules.conditions[part.name])
            elif isinstance(part, Ref) and part.name not in found:
                found.add(part.name)
                inner = rules.values.get(part.name)
                if inner is not None:
                    queue.append(inner)
    return found


def _members(fields: list[pl.Expr]) -> pl.Expr:
    """`"key":value` of each field that is there, without the braces.

    A quote inside a value is escaped, so nothing inside one looks like a null member; and every
    member ends in a quote or a digit, so nothing of a value is stripped with the braces.
    """
    if not fields:
        return _NOTHING
    whole = pl.struct(fields).struct.json_encode()
    return whole.str.replace_all(r'"[A-Za-z0-9_.]+":null,?', "").str.strip_chars("{},")


def _duration(ns: pl.Expr) -> pl.Expr:
    """`0.4 ms`, `15 ms`, `12.5 s`: one cast to text, which is what costs."""
    short, seconds = ns < 10_000_000, ns >= 10_000_000_000
    number = pl.when(short).then((ns / 1e6).round(1)).when(seconds).then((ns / 1e9).round(1))
    text = number.otherwise((ns / 1e6).round(0)).cast(_STRING).str.strip_suffix(".0")
    return text + pl.when(seconds).then(pl.lit(" s")).otherwise(pl.lit(" ms"))


def run(plan: Plan, frame: pl.DataFrame) -> pl.DataFrame | None:
    """What one rule puts out for the records that its mask left."""
    rows = frame
    for level in plan.levels:
        rows = rows.with_columns(level)
    if plan.rule.read:
        reader = READERS[plan.rule.read]
        height = rows.height
        taken = rows.with_columns(plan.takes)
        made = reader.read({name: taken[name].to_list() for name in reader.takes}, height)
        rows = rows.with_columns(
            pl.Series(f"{plan.rule.read}:{name}", made[name], dtype=dtype)
            for name, dtype in reader.makes.items()
        )
        if plan.keep is not True:
            rows = rows.filter(plan.keep)
            if not rows.height:
                return None
    if plan.cuts:
        rows = rows.with_columns(plan.cuts)
    return rows.select(plan.outputs)


_FILLED = {name: 10 ** (len(PRIORITISED) - 1 - i) for i, name in enumerate(PRIORITISED)}


def _tag_lists(joined: list[str], more: list[list[str] | None] | None) -> pl.Series:
    """Sorted tags without repetition. By Arrow: Polars takes 2 µs to convert a list of texts."""
    if more is not None:
        texts = zip(joined, more, strict=True)
        lists = [sorted({*text.split(_TAG_SEPARATOR), *(m or ())}) for text, m in texts]
        at = [*range(len(lists))]
    else:
        places: dict[str, int] = {}
        at = [places.setdefault(text, len(places)) for text in joined]
        lists = [sorted(set(text.split(_TAG_SEPARATOR))) for text in places]
    offsets = [0, *accumulate(map(len, lists))]
    made = pa.ListArray.from_arrays(offsets, pa.array([*chain.from_iterable(lists)], pa.string()))
    return pl.Series("tags", made, dtype=MEMORY_SCHEMA["tags"]).gather(at)


_TEXTS = {"title": without, "content": without, "attributes": without_json}


def _without_recalled(rows: pl.DataFrame) -> pl.DataFrame:
    """What was recalled into a text is taken out of it: it is no evidence."""
    for name, clean in _TEXTS.items():
        if name in rows.columns and rows[name].str.contains(RECALLED, literal=True).any():
            kept = [one and (clean(one) or "(recalled)") for one in rows[name].to_list()]
            rows = rows.with_columns(pl.Series(name, kept, dtype=_STRING))
    return rows


def finish(made: list[pl.DataFrame], version: str) -> pl.DataFrame:
    """Memories from what the rules put out: ids, tags, ranks, and limits of title and content."""
    rows = made[0] if len(made) == 1 else pl.concat(made, how="diagonal")
    rows = _without_recalled(rows)
    present = set(rows.columns)
    if "content" in present and (rows["content"] == "").any():
        # Nothing to say is null, so that another record of the same fact may speak.
        rows = rows.with_columns(content=pl.when(pl.col("content") != "").then("content"))
    ids = memory_ids(rows["type"].to_list(), rows["=scope"].to_list(), rows["=key"].to_list())
    more = rows["=more_tags"].to_list() if "=more_tags" in present else None
    columns: list[pl.Series | pl.Expr] = [
        pl.Series("id", ids, dtype=_STRING),
        _tag_lists(rows["=tags"].to_list(), more),
        rows["=hashes"].alias("sources")
        if "=hashes" in present
        else rows["=hash"].reshape((-1, 1)).arr.to_list().alias("sources"),
        pl.lit(version).alias("rules_version"),
    ]
    title = rows["title"]
    widest: Any = title.str.len_bytes().max()
    if widest > TITLE_CHARACTERS or title.str.contains(_BREAKS).any():
        columns.append(shorten(pl.col("title"), TITLE_CHARACTERS).alias("title"))
    longest: Any = rows["content"].str.len_bytes().max() if "content" in present else None
    if longest is not None and longest > CONTENT_BYTES:
        capped = [None if c is None else cap(c) for c in rows["content"].to_list()]
        columns.append(pl.Series("content", capped, dtype=_STRING))
    # 18 digits fit an Int64. What is never null needs no test; what is not there counts nothing.
    filled = sum(
        digit * (1 if name == "rules_version" or not rows[name].null_count()
                 else pl.col(name).is_not_null().cast(pl.Int64()))
        for name, digit in _FILLED.items()
        if name in present or name == "rules_version"
    )  # fmt: skip
    columns.append((filled * pl.col("=rank")).cast(_STRING).str.zfill(18).alias("ranks"))
    columns += [
        pl.lit(None, dtype).alias(name)
        for name, dtype in MEMORY_SCHEMA.items()
        if name not in present and name not in ("id", "tags", "sources", "ranks", "rules_version")
    ]
    return rows.with_columns(columns).select(list(MEMORY_SCHEMA))
