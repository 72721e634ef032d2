"""Text to tree: statements (`set(name, "x") where kind == 2`) and conditions (`name == "x"`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from .errors import OttlError

_DEPTH: Final = 50
"""Nesting of one text. Nobody writes more, and Python's stack has a limit."""


@dataclass(frozen=True, slots=True)
class Literal:
    """Text, bytes, number, truth value or nil."""

    value: str | bytes | int | float | bool | None
    column: int


@dataclass(frozen=True, slots=True)
class Enum:
    """A name in capitals, such as `SPAN_KIND_SERVER`."""

    name: str
    column: int


@dataclass(frozen=True, slots=True)
class Path:
    """Fields joined by dots, then keys: `resource.attributes["a"]["b"]`."""

    fields: tuple[str, ...]
    keys: tuple[Value, ...]
    column: int

    def __str__(self) -> str:
        return ".".join(self.fields)


@dataclass(frozen=True, slots=True)
class Call:
    """A function and its arguments; a converter may be indexed."""

    name: str
    arguments: tuple[Value, ...]
    keys: tuple[Value, ...]
    column: int


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: tuple[Value, ...]
    column: int


@dataclass(frozen=True, slots=True)
class Pairs:
    """A map with literal keys."""

    pairs: tuple[tuple[str, Value], ...]
    column: int


@dataclass(frozen=True, slots=True)
class Math:
    """Two numbers and `+ - * /`."""

    sign: str
    left: Value
    right: Value
    column: int


Value = Literal | Enum | Path | Call | Items | Pairs | Math


@dataclass(frozen=True, slots=True)
class Compare:
    """Two values and `== != < <= > >=`."""

    sign: str
    left: Value
    right: Value
    column: int


@dataclass(frozen=True, slots=True)
class Test:
    """A value that is true or false by itself: a literal or a converter."""

    value: Literal | Call
    column: int


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    inner: Truth


@dataclass(frozen=True, slots=True)
class All:
    """Joined by `and`."""

    parts: tuple[Truth, ...]


@dataclass(frozen=True, slots=True)
class Any_:
    """Joined by `or`."""

    parts: tuple[Truth, ...]


Truth = Compare | Test | Not | All | Any_


@dataclass(frozen=True, slots=True)
class Statement:
    """An editor, and when to call it."""

    call: Call
    where: Truth | None


def parse_statement(text: str) -> Statement:
    """A statement: `editor(arguments)`, then perhaps `where condition`.

    Raises:
        OttlError: the text is none.
    """
    parser = _Parser(text)
    token = parser.take("name", 'an editor, such as set(attributes["a"], 1)')
    if not token.text[0].islower():
        raise OttlError(token.column, f"{token.text!r} is no editor: editors are in lower case")
    call = parser.call(token)
    where = parser.truth() if parser.word("where") else None
    parser.end()
    return Statement(call, where)


def parse_condition(text: str) -> Truth:
    """A condition.

    Raises:
        OttlError: the text is none.
    """
    parser = _Parser(text)
    truth = parser.truth()
    parser.end()
    return truth


# -- tokens ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    column: int


_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*")
    |(?P<bytes>0[xX][0-9A-Fa-f]+\b)
    |(?P<float>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)
    |(?P<int>\d+(?![A-Za-z_]))
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<compare>==|!=|<=|>=|<|>)
    |(?P<math>[+*/-])
    |(?P<mark>[()\[\]{},.:=]))""",
    re.VERBOSE | re.DOTALL,
)

_ESCAPES: Final = {
    "n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v",
    "\\": "\\", '"': '"', "'": "'",
}  # fmt: skip
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U000[0-9A-Fa-f]{5}|.)", re.DOTALL)


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            if text[at] == '"':
                raise OttlError(at + 1, "a text that does not end; close it with a double quote")
            if text[at] == "'":
                raise OttlError(at + 1, "texts are in double quotes")
            raise OttlError(at + 1, f"{text[at]!r} is not understood")
        kind = str(match.lastgroup)
        found.append(_Token(kind, match[kind], match.start(kind) + 1))
        at = match.end()
    found.append(_Token("end", "", len(text) + 1))
    return found


def _unquote(token: _Token) -> str:
    def one(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] in "xuU" and len(code) > 1:
            number = int(code[1:], 16)
            if number > 0x10FFFF or 0xD800 <= number < 0xE000:
                raise OttlError(token.column + match.start() + 1, f"\\{code} is no character")
            return chr(number)
        if code not in _ESCAPES:
            raise OttlError(
                token.column + match.start() + 1,
                f"\\{code} is no escape; write \\\\{code} for a pattern's \\{code}",
            )
        return _ESCAPES[code]

    return _ESCAPE.sub(one, token.text[1:-1])


# -- grammar ---------------------------------------------------------------------------------------


class _Parser:
    """One text, read from left to right."""

    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.at = 0
        self.depth = 0

    @property
    def next(self) -> _Token:
        return self.tokens[self.at]

    def mark(self, *texts: str) -> _Token | None:
        """The next token, taken, when it is one of these marks or signs."""
        token = self.next
        if token.kind in ("mark", "compare", "math") and token.text in texts:
            self.at += 1
            return token
        return None

    def word(self, text: str) -> bool:
        """Whether the next token is this word; takes it."""
        if self.next.kind == "name" and self.next.text == text:
            self.at += 1
            return True
        return False

    def take(self, kind: str, what: str) -> _Token:
        token = self.next
        if token.kind != kind:
            raise self.expected(what)
        self.at += 1
        return token

    def close(self, mark: str) -> None:
        if self.mark(mark) is None:
            raise self.expected(repr(mark))

    def expected(self, what: str) -> OttlError:
        found = f"not {self.next.text!r}" if self.next.kind != "end" else "and the text ends"
        return OttlError(self.next.column, f"here must be {what}, {found}")

    def end(self) -> None:
        if self.next.kind != "end":
            raise OttlError(self.next.column, f"{self.next.text!r} is too much")

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > _DEPTH:
            raise OttlError(self.next.column, "nested too deeply")

    # -- conditions

    def truth(self) -> Truth:
        self.deeper()
        parts = [self.all()]
        while self.word("or"):
            parts.append(self.all())
        self.depth -= 1
        return parts[0] if len(parts) == 1 else Any_(tuple(parts))

    def all(self) -> Truth:
        parts = [self.one()]
        while self.word("and"):
            parts.append(self.one())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def one(self) -> Truth:
        if self.word("not"):
            self.deeper()
            inner = self.one()
            self.depth -= 1
            return Not(inner)
        if self.next.text == "(" and self.is_truth_in_brackets():
            self.at += 1
            truth = self.truth()
            self.close(")")
            return truth
        left = self.value()
        sign = self.mark("==", "!=", "<", "<=", ">", ">=")
        if sign is not None:
            return Compare(sign.text, left, self.value(), sign.column)
        if isinstance(left, Call) or (isinstance(left, Literal) and isinstance(left.value, bool)):
            return Test(left, left.column)
        raise OttlError(left.column, 'this alone is no condition; compare it, such as ... == "a"')

    def is_truth_in_brackets(self) -> bool:
        """Whether the bracket that opens here holds a condition, and no sum: `(1 + 2) * 3 == 9`."""
        depth = 0
        for at in range(self.at, len(self.tokens)):
            token = self.tokens[at]
            depth += (token.text in ("(", "[", "{")) - (token.text in (")", "]", "}"))
            if depth == 0:
                return self.tokens[at + 1].kind not in ("compare", "math")
        return True

    # -- values

    def value(self) -> Value:
        self.deeper()
        left = self.product()
        while (sign := self.mark("+", "-")) is not None:
            left = Math(sign.text, left, self.product(), sign.column)
        self.depth -= 1
        return left

    def product(self) -> Value:
        left = self.factor()
        while (sign := self.mark("*", "/")) is not None:
            left = Math(sign.text, left, self.factor(), sign.column)
        return left

    def factor(self) -> Value:
        token = self.next
        if token.kind == "text":
            self.at += 1
            return Literal(_unquote(token), token.column)
        if token.kind == "bytes":
            self.at += 1
            digits = token.text[2:]
            if len(digits) % 2:
                raise OttlError(token.column, "bytes have two hexadecimal digits each")
            return Literal(bytes.fromhex(digits), token.column)
        if token.kind in ("int", "float"):
            return self.number("")
        if (sign := self.mark("-", "+")) is not None:
            if self.next.kind not in ("int", "float"):
                raise self.expected("a number")
            return self.number(sign.text)
        if self.mark("("):
            value = self.value()
            self.close(")")
            return value
        if self.mark("["):
            return Items(tuple(self.list("]")), token.column)
        if self.mark("{"):
            return self.map(token)
        if token.kind == "name":
            self.at += 1
            return self.named(token)
        raise self.expected("a value")

    def number(self, sign: str) -> Literal:
        token = self.next
        self.at += 1
        text = sign + token.text
        return Literal(int(text) if token.kind == "int" else float(text), token.column)

    def named(self, token: _Token) -> Value:
        words: dict[str, bool | None] = {"true": True, "false": False, "nil": None}
        if token.text in words:
            return Literal(words[token.text], token.column)
        if token.text in ("and", "or", "not", "where"):
            raise OttlError(token.column, f"here must be a value, not {token.text!r}")
        if self.next.text == "(":
            if token.text[0].islower():
                raise OttlError(
                    token.column,
                    f"{token.text} is an editor (lower case) and stands alone; values come from "
                    "converters, such as Concat or IsMatch",
                )
            return self.call(token)
        if token.text[0].isupper():
            return Enum(token.text, token.column)
        fields = [token.text]
        while self.mark("."):
            fields.append(self.take("name", "the name of a field").text)
        return Path(tuple(fields), self.keys(), token.column)

    def call(self, token: _Token) -> Call:
        if self.mark("(") is None:
            raise self.expected("'('")
        return Call(token.text, tuple(self.list(")")), self.keys(), token.column)

    def list(self, closing: str) -> list[Value]:
        items: list[Value] = []
        if self.mark(closing):
            return items
        while True:
            items.append(self.value())
            if self.next.text == "=":
                raise OttlError(self.next.column, "arguments by name are not supported")
            if self.mark(","):
                continue
            if self.mark(closing):
                return items
            raise self.expected(f"',' or {closing!r}")

    def map(self, start: _Token) -> Pairs:
        pairs: list[tuple[str, Value]] = []
        if self.mark("}"):
            return Pairs((), start.column)
        while True:
            key = _unquote(self.take("text", "a key in double quotes"))
            self.close(":")
            pairs.append((key, self.value()))
            if self.mark(","):
                continue
            self.close("}")
            return Pairs(tuple(pairs), start.column)

    def keys(self) -> tuple[Value, ...]:
        keys: list[Value] = []
        while self.mark("["):
            keys.append(self.value())
            self.close("]")
        return tuple(keys)
