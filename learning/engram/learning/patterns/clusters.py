"""Masked texts that belong to one pattern.

Texts of equal length in words are compared column by column. In each text the words that are
equally frequent in their columns are most likely written by the same line of code; the largest such
set is the text's skeleton, and texts of one skeleton are one cluster but for the columns that
remain. Such a column is a value when too many words stand in it, and else a choice that the
programmer wrote down (`startup` or `shutdown`), which makes patterns of their own.

The frequencies of words as parts of one pattern are the idea of Brain (Yu et al., IEEE Transactions
on Services Computing 2023); how columns are judged, lists are folded and shapes absorbed is ours.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from engram.learning.patterns.masks import WILDCARD

_MARK: Final = "\x00"

WORDS: Final = 3
"""So many plain words in a column may be choices; more are values."""

SUBJECTS: Final = 12
"""Likewise for the first column, the subject of a message, and for words in capitals, states."""

NAMES: Final = 1
"""Likewise for names with dots, digits, dashes or slashes in them: two are values already."""

_LONGEST: Final = 400
"""Words of a text that are looked at; what is behind them counts as one value."""

_SPLIT: Final = re.compile(r"[^\s=:,;()\[\]{}\"'<>|]+|[=:,;()\[\]{}\"'<>|]")
_SAYS: Final = re.compile(r"\w")
_WORD: Final = re.compile(r"[^\W\d_]+[.!]?$|\W+$")
_CAPITALS: Final = re.compile(r"[A-Z][A-Z_]+[.!]?$")
_AROUND: Final = ",.;:"

Words = tuple[str, ...]


def clusters(texts: Iterable[str]) -> dict[str, str]:
    """The template of each masked text. Equal templates are one pattern."""
    words = {text: _words(text) for text in sorted(set(texts))}
    of_length: dict[int, list[Words]] = defaultdict(list)
    first: dict[Words, str] = {}
    for text, split in words.items():
        if split not in first:
            first[split] = text
            of_length[len(split)].append(split)
    templates: dict[Words, str] = {}
    for rows in of_length.values():
        for cluster, values in _of_length(rows):
            template = _template(first[cluster[0]], values)
            templates.update(dict.fromkeys(cluster, template))
    absorbed = _absorbed(set(templates.values()))
    return {text: absorbed[templates[split]] for text, split in words.items()}


# -- words -----------------------------------------------------------------------------------------


def _words(text: str) -> Words:
    """Words and punctuation; whatever has a value in it is one value, and lists are folded."""
    out: list[str] = []
    for word in _SPLIT.findall(text):
        if _MARK in word:
            if out and out[-1] == _MARK:
                continue
            if len(out) > 1 and out[-1] in (",", ":", ";") and out[-2] == _MARK:
                out.pop()
                continue
            word = _MARK
        out.append(word)
        if len(out) == _LONGEST:
            out[-1] = _MARK
            break
    return tuple(_folded(out)) if _MARK in out else tuple(out)


def _folded(words: list[str]) -> list[str]:
    """`a 1 a 2 a 3` is a list of unknown length: one of its items stands for all."""
    for size in (2, 3):
        folded, at = [], 0
        while at < len(words):
            item, times = words[at : at + size], 1
            if _MARK in item:
                while words[at + times * size : at + (times + 1) * size] == item:
                    times += 1
            if times > 1:
                folded += item
                at += times * size
            else:
                folded.append(words[at])
                at += 1
        words = folded
    return words


# -- columns ---------------------------------------------------------------------------------------


def _of_length(rows: list[Words]) -> Iterable[tuple[list[Words], frozenset[int]]]:
    """Clusters of texts of one length, with the columns that are values."""
    frequency = [Counter(column) for column in zip(*rows, strict=True)]
    skeletons: dict[object, list[Words]] = defaultdict(list)
    for row in rows:
        columns: dict[int, list[int]] = defaultdict(list)
        for at, word in enumerate(row):
            if word != _MARK and _SAYS.search(word):
                columns[frequency[at][word]].append(at)
        if columns:
            best = max(columns, key=lambda times: (len(columns[times]), times))
            skeletons[best, tuple((at, row[at]) for at in columns[best])].append(row)
        else:
            skeletons[None].append(row)
    for alike in skeletons.values():
        values, choices = _judged(alike)
        by_choice: dict[Words, list[Words]] = defaultdict(list)
        for row in alike:
            by_choice[tuple(row[at] for at in choices)].append(row)
        for cluster in by_choice.values():
            yield cluster, values


def _judged(rows: list[Words]) -> tuple[frozenset[int], list[int]]:
    """Which columns of some texts are values, and which are choices."""
    values, choices = set(), []
    for at, column in enumerate(zip(*rows, strict=True)):
        found = set(column)
        if len(found) == 1:
            if _MARK in found:
                values.add(at)
        elif _MARK in found or len(found) > _most(found, at):
            values.add(at)
        else:
            choices.append(at)
    return frozenset(values), choices


def _most(found: set[str], at: int) -> int:
    if at == 0 or all(map(_CAPITALS.match, found)):
        return SUBJECTS
    return WORDS if all(map(_WORD.match, found)) else NAMES


# -- templates -------------------------------------------------------------------------------------


def _template(text: str, values: frozenset[int]) -> str:
    """The text with wildcards for its values; spaces stay as they are, folded lists go."""
    want = _words(text)
    out: list[str] = []
    at = end = 0
    for found in _SPLIT.finditer(text):
        if at == len(want):
            break
        word = _MARK if _MARK in found[0] else found[0]
        if word != want[at]:
            continue
        out += (text[end : found.start()] if not out or end else "", word)
        if at in values:
            out[-1] = _MARK
        at, end = at + 1, found.end()
    return re.sub(r"\x00(?:[\s,:;]*\x00)*", WILDCARD, "".join(out)).strip()


def _absorbed(templates: set[str]) -> dict[str, str]:
    """A template that is another's with a shaped value (`LOCAL(<*>)`) where that has a bare one."""
    shapes: dict[Words, list[tuple[Words, str]]] = defaultdict(list)
    for template in sorted(templates):
        words = tuple(word.strip(_AROUND) for word in template.split())
        shapes[tuple(WILDCARD if WILDCARD in word else word for word in words)].append(
            (words, template)
        )
    found = {template: template for template in templates}
    for shape, alike in shapes.items():
        if len(alike) == 1:
            continue
        bare = [
            (words, template)
            for words, template in alike
            if WILDCARD in words and any(map(_SAYS.search, shape))  # else it absorbs everything
        ]
        for words, template in alike:
            for general, into in bare:
                if general != words and _holds(general, words, shape):
                    found[template] = into
                    break
    return found


def _holds(general: Sequence[str], words: Sequence[str], shape: Words) -> bool:
    return all(
        one == other or (kind == WILDCARD and one == WILDCARD)
        for one, other, kind in zip(general, words, shape, strict=True)
    )


__all__ = ["NAMES", "SUBJECTS", "WORDS", "clusters"]
