"""A report as markdown. Words of others cannot become markup: what could be is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from engram.learning.report.model import Chart, Report, Section, Statement, Table
from engram.learning.report.words import clean, number

BASE_URL: Final = "http://127.0.0.1:4319"
"""Where `engram serve` answers."""

_MARKUP: Final = re.compile(r"([\\`*_\[\]<>|~#&])")
_BARS: Final = "▁▂▃▄▅▆▇█"


def markdown(report: Report, base_url: str = BASE_URL) -> str:
    """The report."""
    return "\n".join(_lines(report, base_url.rstrip("/"))) + "\n"


def summary(report: Report, most: int) -> str:
    """The report in so many characters: the headline, the numbers of each part, more that fits."""
    lines = [f"- {sentence(one)}" for one in report.headline]
    if not lines:
        lines = [f"A quiet {report.period.word}: nothing new, nothing that changed."]
    rest = [
        (section.title, one)
        for section in report.sections
        for one in section.statements
        if one not in report.headline
    ]
    rest.sort(key=lambda it: it[1].importance > 0)
    lines += [f"- {escaped(title)}: {sentence(one)}" for title, one in rest]
    kept: list[str] = []
    for line in lines:
        if sum(map(len, kept)) + len(kept) + len(line) <= most:
            kept.append(line)
    return "\n".join(kept)


def _lines(report: Report, base: str) -> Iterator[str]:
    yield f"# Learnings of {'the week ' if report.period.days > 1 else ''}{report.period.name}"
    yield ""
    for note in report.notes:
        yield f"> {escaped(note)}"
        yield ""
    if report.headline:
        for one in report.headline:
            yield f"- {sentence(one, base)}"
    else:
        yield "A quiet " + report.period.word + ": nothing new, nothing that changed."
    yield ""
    for section in report.sections:
        yield from _section(section, base)
    if report.charts:
        yield "## By the hour" if report.period.days == 1 else "## By the day"
        yield ""
        for chart in report.charts:
            yield f"- {_sparks(chart)}"
        yield ""


def _section(section: Section, base: str) -> Iterator[str]:
    yield f"## {escaped(section.title)}"
    yield ""
    if not section.statements and not section.tables:
        yield escaped(section.quiet)
        yield ""
        return
    for one in section.statements:
        yield f"- {sentence(one, base)}"
        if one.detail:
            yield f"  {escaped(one.detail)}"
    if section.statements:
        yield ""
    for table in section.tables:
        yield from _table(table, base)


def sentence(one: Statement, base: str = "") -> str:
    """One line: its mark, its words, n and, with a base, links to what shows it."""
    mark = f"**{escaped(one.mark)}** " if one.mark else ""
    links = _links(one.evidence, base) if base else ""
    return f"{mark}{escaped(one.text)} (n = {number(one.n)}{'; ' + links if links else ''})"


def _links(ids: Sequence[str], base: str) -> str:
    return " ".join(f"[{escaped(one[:6])}]({base}/api/memories/{one})" for one in _safe(ids))


def _safe(ids: Sequence[str]) -> list[str]:
    return [one for one in ids if one.isalnum() and one.isascii()]


def _table(table: Table, base: str) -> Iterator[str]:
    yield escaped(table.caption)
    yield ""
    yield "| " + " | ".join([*map(escaped, table.columns), "evidence"]) + " |"
    yield "|---|" + "---:|" * (len(table.columns) - 1) + "---|"
    for row in table.rows:
        yield "| " + " | ".join([*map(escaped, row.cells), _links(row.evidence, base)]) + " |"
    if table.more:
        yield ""
        yield f"and {number(table.more)} more"
    yield ""


def _sparks(chart: Chart) -> str:
    most = max((one for one in chart.values if one is not None), default=0)
    bars = "".join(
        " " if one is None else _BARS[min(7, int(8 * one / most)) if most else 0]
        for one in chart.values
    )
    unit = f" {chart.unit}" if chart.unit else ""
    return f"{escaped(chart.title)}: `{bars}` (most: {number(most)}{unit})"


def escaped(text: str) -> str:
    """Words of others, as words."""
    return _MARKUP.sub(r"\\\1", clean(text, 1_000))


__all__ = ["BASE_URL", "escaped", "markdown", "sentence", "summary"]
