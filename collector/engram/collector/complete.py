"""What Tab offers at the SQL prompt: names of this lake first, then functions and keywords."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

if TYPE_CHECKING:
    import duckdb

COMMANDS: Final = (
    ".exit", ".help", ".limit", ".mode", ".quit", ".schema", ".tables", ".types",
)  # fmt: skip
_WORD: Final = re.compile(r"[\w.]*$")
_IN_TABLES: Final = re.compile(r"\b(from|join|describe|summarize|table)\s+[\w.]*$", re.IGNORECASE)
_IN_TYPE: Final = re.compile(r"\btype\s*(?:=|in\s*\()(?:\s*'\w+'\s*,)*\s*'(\w*)$", re.IGNORECASE)
_ALIAS: Final = re.compile(
    r"\b(?:from|join)\s+(?:lake\.)?(\w+)(?:\s+(?:as\s+)?(?!on\b|where\b|join\b|using\b)(\w+))?",
    re.IGNORECASE,
)


class LakeCompleter(Completer):
    """Completes from a lake's own catalogue, which is read once, at the first Tab."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._columns: dict[str, list[str]] | None = None
        self._functions: list[str] = []
        self._keywords: list[str] = []
        self._types: list[str] = []

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterator[Completion]:
        """What the word before the cursor may become."""
        before = document.text_before_cursor
        columns = self._catalogue()
        if before.lstrip().startswith("."):
            yield from self._for_command(before.lstrip(), columns)
            return
        quoted = _IN_TYPE.search(before)
        if quoted:
            yield from _matching(quoted[1], self._types, "memory type")
            return
        match = _WORD.search(before)
        word = match[0] if match else ""
        owner, dot, part = word.rpartition(".")
        if dot:
            table = self._aliases(document.text).get(owner.lower(), owner)
            names = columns.get(table) or sorted({c for all_ in columns.values() for c in all_})
            yield from _matching(part, sorted(columns) if owner == "lake" else names, "column")
            return
        if _IN_TABLES.search(before):
            yield from _matching(word, sorted(columns), "table")
            return
        if not word:
            return
        yield from _distinct(self._anything(document.text, word, columns))

    def _anything(
        self, text: str, word: str, columns: dict[str, list[str]]
    ) -> Iterator[Completion]:
        used = [table for table in self._aliases(text).values() if table in columns]
        near = dict.fromkeys(c for table in used or columns for c in columns[table])
        yield from _matching(word, near, "column")
        yield from _matching(word, (t for t in sorted(columns) if t not in near), "table")
        yield from _matching(word, self._keywords, "keyword", upper=not word.islower())
        yield from _matching(word, self._functions, "function", end="(")

    def _for_command(self, before: str, columns: dict[str, list[str]]) -> Iterator[Completion]:
        name, space, rest = before.partition(" ")
        if not space:
            yield from _matching(name, COMMANDS, "")
        elif name == ".schema":
            yield from _matching(rest.lstrip(), sorted(columns), "table")
        elif name == ".mode":
            from engram.collector.shell import MODES

            yield from _matching(rest.lstrip(), MODES, "")

    @staticmethod
    def _aliases(text: str) -> dict[str, str]:
        """Names that stand for a table in this statement."""
        found: dict[str, str] = {}
        for table, alias in _ALIAS.findall(text):
            found[table.lower()] = table
            if alias:
                found[alias.lower()] = table
        return found

    def _catalogue(self) -> dict[str, list[str]]:
        if self._columns is not None:
            return self._columns
        columns: dict[str, list[str]] = {}
        rows = self._connection.execute(
            "SELECT table_name, column_name FROM duckdb_columns() WHERE database_name = 'lake' "
            "ORDER BY table_name, column_index"
        ).fetchall()
        for table, column in rows:
            columns.setdefault(table, []).append(column)
        self._functions = [
            row[0]
            for row in self._connection.execute(
                "SELECT DISTINCT function_name FROM duckdb_functions() "
                "WHERE function_name SIMILAR TO '[a-z][a-z0-9_]*' ORDER BY 1"
            ).fetchall()
        ]
        self._keywords = [
            row[0]
            for row in self._connection.execute(
                "SELECT keyword_name FROM duckdb_keywords() ORDER BY 1"
            ).fetchall()
        ]
        self._types = [
            row[0]
            for row in self._connection.execute(
                "SELECT DISTINCT type FROM memories WHERE type IS NOT NULL ORDER BY 1"
            ).fetchall()
        ]
        self._columns = columns
        return columns


def _distinct(found: Iterable[Completion]) -> Iterator[Completion]:
    """Each text once: a column's name may be a keyword too."""
    seen: set[str] = set()
    for one in found:
        text = one.text.lower()
        if text not in seen:
            seen.add(text)
            yield one


def _matching(
    word: str, names: Iterable[str], what: str, *, end: str = "", upper: bool = False
) -> Iterator[Completion]:
    start = word.lower()
    for name in names:
        if name.lower().startswith(start) and name.lower() != start:
            text = (name.upper() if upper else name) + end
            yield Completion(text, start_position=-len(word), display=name, display_meta=what)
