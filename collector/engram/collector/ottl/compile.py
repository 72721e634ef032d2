"""Tree to functions of a `Row`. All names, arities and literal patterns are checked here, once."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from . import functions, values
from .errors import OttlError, RunError
from .parse import (
    All,
    Any_,
    Call,
    Compare,
    Enum,
    Items,
    Literal,
    Math,
    Not,
    Pairs,
    Path,
    Statement,
    Test,
    Truth,
    Value,
    parse_condition,
    parse_statement,
)
from .paths import Field, Get, context_of, field_of
from .rows import Row

Condition = Callable[[Row], bool]
Edit = Callable[[Row], None]

_SEVERITIES: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")

ENUMS: Final[dict[str, int]] = {
    **{
        f"SPAN_KIND_{name}": number
        for number, name in enumerate(
            ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
        )
    },
    **{f"STATUS_CODE_{name}": number for number, name in enumerate(("UNSET", "OK", "ERROR"))},
    "SEVERITY_NUMBER_UNSPECIFIED": 0,
    **{
        f"SEVERITY_NUMBER_{name}{step or ''}": 4 * at + max(step, 1)
        for at, name in enumerate(_SEVERITIES)
        for step in (0, 2, 3, 4)
    },
    **{
        f"METRIC_DATA_TYPE_{name}": number
        for number, name in enumerate(
            ("NONE", "GAUGE", "SUM", "HISTOGRAM", "EXPONENTIAL_HISTOGRAM", "SUMMARY")
        )
    },
    **{
        f"AGGREGATION_TEMPORALITY_{name}": number
        for number, name in enumerate(("UNSPECIFIED", "DELTA", "CUMULATIVE"))
    },
}
"""Names in capitals, and the numbers OTLP has for them."""


def compile_condition(text: str, context: str) -> Condition:
    """A condition for one context.

    Raises:
        OttlError: the text is not in the subset.
    """
    return _truth(parse_condition(text), context)


def compile_statement(text: str, context: str) -> Edit:
    """A statement for one context.

    Raises:
        OttlError: the text is not in the subset.
    """
    tree = parse_statement(text)
    edit = _editor(tree.call, context)
    if tree.where is None:
        return edit
    holds = _truth(tree.where, context)

    def run(row: Row) -> None:
        if holds(row):
            edit(row)

    return run


def contexts_of(text: str, *, statement: bool) -> set[str]:
    """The contexts that the paths of a text name by their first field.

    Raises:
        OttlError: the text is not in the subset, or a path names no context.
    """
    tree: Statement | Truth = parse_statement(text) if statement else parse_condition(text)
    found = set()
    for path in _paths(tree):
        context = context_of(path)
        if context is None:
            raise OttlError(
                path.column,
                f"whose {path} is not said; write it with its context, such as span.{path}",
            )
        found.add(context)
    return found


def deepest(found: Iterable[str], order: tuple[str, ...]) -> str | None:
    """The context from which all of these can be seen; None when there is none in this signal."""
    named = set(found)
    if not named or not named <= set(order):
        return None
    return max(named, key=order.index)


def _paths(tree: Statement | Truth | Value) -> Iterator[Path]:
    if isinstance(tree, Path):
        yield tree
    for child in _children(tree):
        yield from _paths(child)


def _children(tree: Statement | Truth | Value) -> Iterable[Truth | Value]:
    match tree:
        case Statement(call, where):
            return [call] if where is None else [call, where]
        case Compare(_, left, right) | Math(_, left, right):
            return (left, right)
        case Test(value, _):
            return (value,)
        case Not(inner):
            return (inner,)
        case All(parts) | Any_(parts):
            return parts
        case Call(_, arguments, keys, _):
            return (*arguments, *keys)
        case Path(_, keys, _):
            return keys
        case Items(items, _):
            return items
        case Pairs(pairs, _):
            return [value for _, value in pairs]
    return ()


# -- conditions ------------------------------------------------------------------------------------


def _truth(tree: Truth, context: str) -> Condition:
    match tree:
        case Compare(sign, left, right, _):
            compare = values.comparison(sign)
            one, other = _value(left, context), _value(right, context)
            return lambda row: compare(one(row), other(row))
        case Not(inner):
            holds = _truth(inner, context)
            return lambda row: not holds(row)
        case All(parts):
            every = [_truth(part, context) for part in parts]
            return lambda row: all(part(row) for part in every)
        case Any_(parts):
            some = [_truth(part, context) for part in parts]
            return lambda row: any(part(row) for part in some)
        case Test(value, column):
            if isinstance(value, Call) and value.name not in functions.TRUTHS:
                raise OttlError(column, f"{value.name} alone is no condition; compare its value")
            get = _value(value, context)
            return lambda row: get(row) is True


# -- values ----------------------------------------------------------------------------------------


def _value(tree: Value, context: str) -> Get:
    match tree:
        case Literal(value, _):
            return lambda row: value
        case Enum(name, column):
            if name not in ENUMS:
                raise OttlError(column, f"{name!r} is unknown{_close(name, ENUMS)}")
            number = ENUMS[name]
            return lambda row: number
        case Path():
            return _path(tree, context)
        case Call():
            return _call(tree, context)
        case Items(items, _):
            gets = [_value(item, context) for item in items]
            return lambda row: [get(row) for get in gets]
        case Pairs(pairs, _):
            parts = [(key, _value(item, context)) for key, item in pairs]
            return lambda row: {key: get(row) for key, get in parts}
        case Math(sign, left, right, _):
            return _math(sign, _value(left, context), _value(right, context))


def _keys(tree: Path | Call) -> list[str | int]:
    found: list[str | int] = []
    for key in tree.keys:
        if not isinstance(key, Literal) or isinstance(key.value, bool):
            raise OttlError(key.column, "a key must be a text or a whole number, written out")
        if not isinstance(key.value, str | int):
            raise OttlError(key.column, "a key must be a text or a whole number")
        found.append(key.value)
    return found


def _into(value: Any, keys: list[str | int]) -> Any:
    """What lies behind keys; None when nothing does."""
    for key in keys:
        if isinstance(key, str):
            value = value.get(key) if isinstance(value, dict) else None
        elif isinstance(value, list):
            value = value[key] if -1 < key < len(value) else None
        else:
            value = None
    return value


def _path(tree: Path, context: str) -> Get:
    field, keys = field_of(tree, context), _keys(tree)
    if not keys:
        return field.get
    pairs, any_ = field.pairs, field.any
    if pairs is None:
        raise OttlError(tree.keys[0].column, f"{tree} is no map")
    first, rest = keys[0], keys[1:]
    if any_ is not None:
        return lambda row: _into(field.get(row), keys)
    if not isinstance(first, str):
        raise OttlError(tree.keys[0].column, f"{tree} is a map; its keys are texts")

    def get(row: Row) -> Any:
        found = values.find(pairs(row), first)
        return None if found is None else _into(values.read(found), rest)

    return get


def _call(tree: Call, context: str) -> Get:
    known = functions.CONVERTERS.get(tree.name)
    if known is None:
        close = _close(tree.name, functions.CONVERTERS)
        raise OttlError(tree.column, f"{tree.name} is no converter of the subset{close}")
    count, function = known
    _check_count(tree, count)
    _check_pattern(tree)
    gets, keys = [_value(one, context) for one in tree.arguments], _keys(tree)
    if keys:
        return lambda row: _into(function(*(get(row) for get in gets)), keys)
    if len(gets) == 1:
        (only,) = gets
        return lambda row: function(only(row))
    return lambda row: function(*(get(row) for get in gets))


def _check_count(tree: Call, count: int) -> None:
    if len(tree.arguments) != count:
        raise OttlError(
            tree.column, f"{tree.name} takes {count} arguments, not {len(tree.arguments)}"
        )


def _check_pattern(tree: Call) -> None:
    at = functions.PATTERNS.get(tree.name)
    if at is None:
        return
    argument = tree.arguments[at]
    if isinstance(argument, Literal) and isinstance(argument.value, str):
        try:
            functions.pattern(argument.value)
        except RunError as error:
            raise OttlError(argument.column, str(error)) from None


_MATH: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
}


def _math(sign: str, left: Get, right: Get) -> Get:
    def run(row: Row) -> Any:
        one, other = left(row), right(row)
        for number in (one, other):
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise RunError(f"{sign} needs numbers, not {number!r}")
        if sign != "/":
            return _MATH[sign](one, other)
        if other == 0:
            raise RunError("division by zero")
        if isinstance(one, int) and isinstance(other, int):
            whole = abs(one) // abs(other)  # towards zero, as in Go
            return whole if (one < 0) == (other < 0) else -whole
        return one / other

    return run


# -- editors ---------------------------------------------------------------------------------------


def _editor(tree: Call, context: str) -> Edit:
    if tree.keys:
        raise OttlError(tree.keys[0].column, "an editor has no value to take a key of")
    name = tree.name
    if name not in functions.MAP_EDITORS and name not in functions.VALUE_EDITORS:
        known = list(functions.editor_names())
        raise OttlError(tree.column, f"{name} is no editor of the subset{_close(name, known)}")
    if name in functions.MAP_EDITORS:
        count, function = functions.MAP_EDITORS[name]
        _check_count(tree, count)
        _check_pattern(tree)
        pairs = _pairs(_target(tree), context)
        gets = [_value(one, context) for one in tree.arguments[1:]]

        def edit_map(row: Row) -> None:
            found = pairs(row)
            if found is not None:
                function(found, *(get(row) for get in gets))

        return edit_map
    _check_count(tree, functions.VALUE_EDITORS[name])
    _check_pattern(tree)
    target = _target(tree)
    put = _setter(target, context)
    gets = [_value(one, context) for one in tree.arguments[1:]]
    if name == "set":
        (new,) = gets

        def edit_set(row: Row) -> None:
            value = new(row)
            if value is not None:  # as in the Collector: nothing to set
                put(row, value)

        return edit_set
    before = _path(target, context)

    def edit_pattern(row: Row) -> None:
        value = before(row)
        changed = functions.replaced(value, *(get(row) for get in gets))
        if changed != value:
            put(row, changed)

    return edit_pattern


def _target(tree: Call) -> Path:
    target = tree.arguments[0]
    if not isinstance(target, Path):
        raise OttlError(
            target.column, f'the first argument of {tree.name} must be a path: attributes["a"]'
        )
    return target


def _pairs(tree: Path, context: str) -> Get:
    """The repeated `KeyValue` that a path means in a row; None when there is no map."""
    field, keys = field_of(tree, context), _keys(tree)
    pairs = field.pairs
    if pairs is None:
        raise OttlError(tree.column, f"{tree} is no map")
    if not keys:
        return pairs

    def get(row: Row) -> Any:
        found = pairs(row)
        for key in keys:
            value = values.find(found, key) if found is not None and isinstance(key, str) else None
            if value is None or value.WhichOneof("value") != "kvlist_value":
                return None
            found = value.kvlist_value.values
        return found

    return get


def _setter(tree: Path, context: str) -> Callable[[Row, Any], None]:
    field, keys = field_of(tree, context), _keys(tree)
    if field.set is None:
        raise OttlError(tree.column, f"{tree} can only be read")
    if not keys:
        return field.set
    if field.pairs is None:
        raise OttlError(tree.keys[0].column, f"{tree} is no map")
    if field.any is None and not isinstance(keys[0], str):
        raise OttlError(tree.keys[0].column, f"{tree} is a map; its keys are texts")
    return _deep_setter(field, keys, str(tree))


def _deep_setter(field: Field, keys: list[str | int], name: str) -> Callable[[Row, Any], None]:
    pairs, any_ = field.pairs, field.any
    first, rest = keys[0], keys[1:]

    def put_in_any(row: Row, value: Any) -> None:
        whole = field.get(row)
        values.write(any_(row) if any_ else None, _placed(whole, keys, value, name))

    def put_in_pairs(row: Row, value: Any) -> None:
        found, key = pairs(row) if pairs else (), str(first)
        old = values.find(found, key) if rest else None
        whole = None if old is None else values.read(old)
        values.put(found, key, _placed(whole, rest, value, name))

    return put_in_pairs if any_ is None else put_in_any


def _placed(whole: Any, keys: list[str | int], value: Any, name: str) -> Any:
    """The whole with a value at the end of the keys; maps on the way are made, lists are not."""
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if isinstance(key, str):
        if whole is not None and not isinstance(whole, dict):
            raise RunError(f"{name} holds no map where {key!r} is set")
        whole = whole or {}
        return {**whole, key: _placed(whole.get(key), rest, value, name)}
    if not isinstance(whole, list) or not -1 < key < len(whole):
        raise RunError(f"{name} holds no item {key}")
    return [*whole[:key], _placed(whole[key], rest, value, name), *whole[key + 1 :]]


def _close(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f", did you mean {near[0]}?" if near else f" (supported: {', '.join(sorted(known))})"
