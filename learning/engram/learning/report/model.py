"""What a report consists of, before anybody decides how it looks.

Texts hold words of others (titles of errors, names of models): whoever renders them escapes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engram.learning.report.period import Period


@dataclass(frozen=True, slots=True)
class Statement:
    """One sentence, the number of observations behind it, and memories that show it."""

    text: str
    n: int
    evidence: tuple[str, ...] = ()
    detail: str = ""
    """More of it, in small print."""
    mark: str = ""
    """A word in front: new, back, up, down ..."""
    importance: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """Cells as text, and memories that show it."""

    cells: tuple[str, ...]
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """Numbers side by side. The first column is a name, the others are aligned to the right."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    more: int = 0
    """Rows that were left out."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report. Without statements it was quiet, and `quiet` says so."""

    key: str
    title: str
    statements: tuple[Statement, ...] = ()
    tables: tuple[Table, ...] = ()
    quiet: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """One value a slot, and those of the period before; None where there was nothing."""

    title: str
    unit: str
    values: tuple[float | None, ...]
    before: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A day or a week."""

    period: Period
    headline: tuple[Statement, ...]
    """The sentences to read when there is time for no more."""
    sections: tuple[Section, ...]
    charts: tuple[Chart, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """What the reader should know about how complete it is."""


__all__ = ["Chart", "Report", "Row", "Section", "Statement", "Table"]
