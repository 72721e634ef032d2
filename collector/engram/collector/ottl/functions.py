"""Converters (values in, value out) and editors (maps and texts changed in place)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final

from . import values
from .errors import RunError
from .values import Pairs

# -- patterns --------------------------------------------------------------------------------------


@lru_cache(maxsize=512)
def pattern(text: str) -> re.Pattern[str]:
    """A regular expression; Go's `(?<name>` is understood too.

    Raises:
        RunError: the text is none.
    """
    try:
        return re.compile(re.sub(r"(?<!\\)\(\?<(?=[A-Za-z_])", "(?P<", text))
    except (re.error, RecursionError, OverflowError) as error:
        raise RunError(f"{text!r} is no regular expression: {error}") from error


_GROUP = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})")


@lru_cache(maxsize=512)
def replacer(template: str) -> Callable[[re.Match[str]], str]:
    """What a match is replaced with, groups in Go's spelling: `$1`, `${1}`, `${name}`, `$$`."""

    def one(match: re.Match[str], found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name is None:
            return "$"
        try:
            return match[int(name) if name.isdigit() else name] or ""
        except IndexError:
            return ""  # as in Go

    if "$" not in template:
        return lambda match: template
    return lambda match: _GROUP.sub(lambda found: one(match, found), template)


# -- converters ------------------------------------------------------------------------------------


def _concat(items: Any, delimiter: Any) -> str:
    if not isinstance(items, list):
        raise RunError("Concat joins a list")
    return _text(delimiter).join(values.texts(items))


def _is_match(value: Any, text: Any) -> bool:
    return value is not None and pattern(_text(text)).search(values.as_text(value)) is not None


def _has_prefix(value: Any, text: Any) -> bool:
    return _text(value).startswith(_text(text))


def _has_suffix(value: Any, text: Any) -> bool:
    return _text(value).endswith(_text(text))


def _len(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, bytes | list | dict):
        return len(value)
    raise RunError(f"Len of {value!r}: only texts, bytes, lists and maps have one")


def _int(value: Any) -> int | None:
    try:
        return None if value is None or isinstance(value, list | dict | bytes) else int(value)
    except (ValueError, OverflowError):
        return None


def _double(value: Any) -> float | None:
    try:
        return None if value is None or isinstance(value, list | dict | bytes) else float(value)
    except (ValueError, OverflowError):
        return None


def _string(value: Any) -> str | None:
    return None if value is None else values.as_text(value)


_CASES: Final[dict[str, Callable[[str], str]]] = {
    "lower": str.lower,
    "upper": str.upper,
    "snake": lambda text: "_".join(_words(text)).lower(),
    "camel": lambda text: "".join(word[:1].upper() + word[1:].lower() for word in _words(text)),
}


def _words(text: str) -> list[str]:
    return re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", text)


def _convert_case(value: Any, case: Any) -> str:
    if case not in _CASES:
        raise RunError(f"ConvertCase knows {', '.join(_CASES)}, not {case!r}")
    return _CASES[case](_text(value))


def _substring(value: Any, start: Any, length: Any) -> str:
    text = _text(value)
    if not isinstance(start, int) or not isinstance(length, int) or start < 0 or length <= 0:
        raise RunError("Substring needs a start of at least 0 and a length of at least 1")
    if start + length > len(text):
        raise RunError("Substring reaches past the end of the text")
    return text[start : start + length]


def _sha256(value: Any) -> str:
    return hashlib.sha256(_text(value).encode()).hexdigest()


def _trace_id(value: Any) -> bytes:
    return _id_bytes(value, 16)


def _span_id(value: Any) -> bytes:
    return _id_bytes(value, 8)


def _id_bytes(value: Any, size: int) -> bytes:
    try:
        found = bytes.fromhex(value) if isinstance(value, str) else value
    except ValueError:
        found = b""
    if not isinstance(found, bytes) or len(found) != size:
        raise RunError(f"{value!r} is no id of {size} bytes")
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise RunError(f"{value!r} is no text")
    return value


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in kinds


CONVERTERS: Final[dict[str, tuple[int, Callable[..., Any]]]] = {
    "Concat": (2, _concat),
    "IsMatch": (2, _is_match),
    "HasPrefix": (2, _has_prefix),
    "HasSuffix": (2, _has_suffix),
    "IsString": (1, _is(str)),
    "IsInt": (1, _is(int)),
    "IsDouble": (1, _is(float)),
    "IsBool": (1, _is(bool)),
    "IsMap": (1, _is(dict)),
    "IsList": (1, _is(list)),
    "Len": (1, _len),
    "Int": (1, _int),
    "Double": (1, _double),
    "String": (1, _string),
    "ConvertCase": (2, _convert_case),
    "Substring": (3, _substring),
    "SHA256": (1, _sha256),
    "TraceID": (1, _trace_id),
    "SpanID": (1, _span_id),
}
"""Name, number of arguments, function."""

TRUTHS: Final = frozenset(
    {name for name in CONVERTERS if name.startswith("Is")} | {"HasPrefix", "HasSuffix"}
)
"""The converters that may stand alone as a condition."""

PATTERNS: Final = {
    "IsMatch": 1,
    "delete_matching_keys": 1,
    "keep_matching_keys": 1,
    "replace_pattern": 1,
    "replace_all_patterns": 2,
}
"""Which argument is a regular expression: a literal one is checked when the file is read."""


# -- editors of maps -------------------------------------------------------------------------------


def _delete_key(pairs: Pairs, key: Any) -> None:
    values.remove(pairs, lambda name: name == key)


def _delete_matching_keys(pairs: Pairs, text: Any) -> None:
    found = pattern(_text(text))
    values.remove(pairs, lambda name: found.search(name) is not None)


def _keep_keys(pairs: Pairs, keys: Any) -> None:
    if not isinstance(keys, list):
        raise RunError("keep_keys needs a list of keys")
    kept = set(values.texts(keys))
    values.remove(pairs, lambda name: name not in kept)


def _keep_matching_keys(pairs: Pairs, text: Any) -> None:
    found = pattern(_text(text))
    values.remove(pairs, lambda name: found.search(name) is None)


def _replace_all_patterns(pairs: Pairs, mode: Any, text: Any, replacement: Any) -> None:
    found, put = pattern(_text(text)), replacer(_text(replacement))
    if mode == "value":
        for pair in pairs:
            if pair.value.WhichOneof("value") == "string_value":
                pair.value.string_value = found.sub(put, pair.value.string_value)
    elif mode == "key":
        for pair in pairs:
            pair.key = found.sub(put, pair.key)
        _last_of_doubles(pairs)
    else:
        raise RunError(f'replace_all_patterns needs the mode "key" or "value", not {mode!r}')


def _last_of_doubles(pairs: Pairs) -> None:
    seen: set[str] = set()
    for at in range(len(pairs) - 1, -1, -1):
        key = pairs[at].key
        if key in seen:
            del pairs[at]
        seen.add(key)


def _truncate_all(pairs: Pairs, limit: Any) -> None:
    if not isinstance(limit, int) or limit < 0:
        raise RunError("truncate_all needs a length of at least 0")
    for pair in pairs:
        if pair.value.WhichOneof("value") == "string_value":
            text = pair.value.string_value
            if len(text) > limit:
                pair.value.string_value = text[:limit]


def _limit(pairs: Pairs, limit: Any, priority: Any) -> None:
    if not isinstance(limit, int) or limit < 0:
        raise RunError("limit needs a number of at least 0")
    if not isinstance(priority, list) or len(priority) > limit:
        raise RunError("limit needs a list of no more priority keys than its number")
    names = [pair.key for pair in pairs]
    if len(names) <= limit:
        return
    kept = {name for name in names if name in values.texts(priority)}
    for name in names:
        if len(kept) >= limit:
            break
        kept.add(name)
    values.remove(pairs, lambda name: name not in kept)


def _merge_maps(pairs: Pairs, other: Any, strategy: Any) -> None:
    if not isinstance(other, dict):
        raise RunError("merge_maps needs a map to merge")
    if strategy not in ("insert", "update", "upsert"):
        raise RunError(f"merge_maps knows insert, update and upsert, not {strategy!r}")
    for key, value in other.items():
        there = values.find(pairs, key) is not None
        if strategy == "upsert" or there == (strategy == "update"):
            values.put(pairs, key, value)


MAP_EDITORS: Final[dict[str, tuple[int, Callable[..., None]]]] = {
    "delete_key": (2, _delete_key),
    "delete_matching_keys": (2, _delete_matching_keys),
    "keep_keys": (2, _keep_keys),
    "keep_matching_keys": (2, _keep_matching_keys),
    "limit": (3, _limit),
    "merge_maps": (3, _merge_maps),
    "replace_all_patterns": (4, _replace_all_patterns),
    "truncate_all": (2, _truncate_all),
}
"""Editors whose first argument is a map."""

VALUE_EDITORS: Final = {"set": 2, "replace_pattern": 3}
"""Editors whose first argument is a path that can be set."""


def replaced(value: Any, text: Any, replacement: Any) -> Any:
    """What `replace_pattern` makes of a value; one that is no text is left alone."""
    if not isinstance(value, str):
        return value
    return pattern(_text(text)).sub(replacer(_text(replacement)), value)


def editor_names() -> Iterable[str]:
    """All editors."""
    return sorted({*MAP_EDITORS, *VALUE_EDITORS})
