"""The words of a text as they are searched: identifiers split and whole, stems, no stop words.

The same function makes the words of a memory and of a query, so the index compares them as they
are and an explanation can say exactly which of them matched.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

WORDS_VERSION: Final = "w2"
"""Part of the index's identity: a change below is a change of what is found."""

MAX_CHARS: Final = 4_000
"""Characters of a text whose words are searched."""

_MAX_WORD: Final = 40
_MIN_WHOLE: Final = 5

_TOKEN: Final = re.compile(r"\w+(?:(?:[./\\]|::)\w+)*")
"""A word, an identifier, or a path of them: dotted names, module paths, routes."""

_NAME: Final = re.compile(r"\w+")
_PART: Final = re.compile(r"[^\W_]+")
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_VOLATILE: Final = re.compile(r"[0-9](?:.*[0-9]){3}", re.DOTALL)
"""Four digits or more: an address, a time, an id. Its parts are searched, not the whole."""

_STOP: Final = """
a about after again all also am an and any are as at be because been before being both but by can
could did do does for from had has have he her his how i if in into is it its just me more most my
no nor not of on or other our out over own same she should so some such than that the their them
then there these they this those to too under until up very was we were what when where which while
who whom why will with would you your
"""
_STOP_WORDS: Final = frozenset(_STOP.split())


@dataclass(frozen=True, slots=True)
class Terms:
    """The distinct words of a text."""

    parts: frozenset[str]
    """Stems of ordinary words and of the parts of identifiers."""
    wholes: frozenset[str]
    """Identifiers and paths as one word, without case and separators. They are rare, so a text that
    has the whole one outranks those that only have its parts."""

    def __iter__(self) -> Iterator[str]:
        yield from sorted(self.parts | self.wholes)


def terms(text: str) -> Terms:
    """The words of the first `MAX_CHARS` characters of a text."""
    parts: set[str] = set()
    wholes: set[str] = set()
    for token in set(_TOKEN.findall(text[:MAX_CHARS])):
        of_token = _terms_of(token)
        parts.update(of_token[0])
        wholes.update(of_token[1])
    return Terms(frozenset(parts), frozenset(wholes))


def asked(query: str) -> Terms:
    """The words of a query: also each word as it was typed, as it may be a whole identifier."""
    found = terms(query)
    typed = {one.lower() for one in _PART.findall(query[:MAX_CHARS])} - _STOP_WORDS
    whole = {one for one in typed if _MIN_WHOLE <= len(one) <= _MAX_WORD}
    return Terms(found.parts, found.wholes | (whole - found.parts))


def words(text: str) -> list[str]:
    """The distinct words of a text, parts and wholes, sorted.

    Sorted and distinct is 10 % fewer bytes a row, stems another 16 %; how often a word is repeated
    says little here.
    """
    return list(terms(text))


@lru_cache(maxsize=65_536)
def _terms_of(token: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Parts and wholes of one token. Tokens repeat: a text of 740 characters costs 50 us."""
    parts: list[str] = []
    wholes: list[str] = []
    names = _NAME.findall(token)
    for name in names:
        pieces = _pieces(name)
        parts += pieces
        if len(pieces) > 1:
            wholes += _whole(name)
    if len(names) > 1:
        wholes += _whole(token)
    stems = _stemmer().stemWords(
        [one for one in parts if one not in _STOP_WORDS and len(one) <= _MAX_WORD]
    )
    return tuple(one for one in stems if len(one) > 1 or one.isdigit()), tuple(wholes)


def _pieces(name: str) -> list[str]:
    pieces: list[str] = []
    for part in _PART.findall(name):
        if part.islower() or part.isupper() or part.istitle() or part.isdigit():
            pieces.append(part.lower())
        else:
            pieces.extend(one.lower() for one in _HUMP.split(part))
    return pieces


def _whole(name: str) -> list[str]:
    whole = "".join(_PART.findall(name)).lower()
    if _MIN_WHOLE <= len(whole) <= _MAX_WORD and not _VOLATILE.search(whole):
        return [whole]
    return []


_LOCAL: Final = threading.local()


def _stemmer() -> Any:
    """A stemmer of this thread: one may not be shared."""
    if not hasattr(_LOCAL, "stemmer"):
        import Stemmer

        _LOCAL.stemmer = Stemmer.Stemmer("english")
    return _LOCAL.stemmer


__all__ = ["MAX_CHARS", "WORDS_VERSION", "Terms", "asked", "terms", "words"]
