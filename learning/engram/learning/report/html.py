"""A report as one HTML file: no script, nothing from elsewhere, readable on a phone and on paper.

All text is escaped here, once, where it becomes markup. A policy in the page forbids everything
but its own styles, should an error of ours ever let something through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from engram.learning.report.markdown import BASE_URL
from engram.learning.report.model import Report, Section, Statement, Table
from engram.learning.report.plots import svg
from engram.learning.report.words import clean, number

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --line: #d9d9e0;
  --page: #fdfdfc; --bar: #3e63dd; --old: #ad5700; --bad: #c62a2f; --good: #18794e; }
@media (prefers-color-scheme: dark) { :root { --ink: #edeef0; --soft: #b0b4ba; --line: #363a3f;
  --page: #111113; --bar: #849dff; --old: #ffb224; --bad: #ff9592; --good: #4cc38a; } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; color: var(--ink);
  background: var(--page); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; margin: .5rem 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem;
  border-bottom: 1px solid var(--line) }
ul { padding-left: 1.2rem; margin: .5rem 0 } li { margin: .35rem 0 }
a { color: var(--bar); font-family: ui-monospace, monospace; font-size: .8rem }
small, .n, figcaption, .note { color: var(--soft); font-size: .85rem }
small { display: block }
.mark { font-size: .75rem; font-weight: 600; padding: 0 .4rem; border: 1px solid currentColor;
  border-radius: 1rem } .bad { color: var(--bad) } .good { color: var(--good) }
.table { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: .85rem }
th, td { text-align: right; padding: .25rem .5rem; border-bottom: 1px solid var(--line);
  vertical-align: top; font-variant-numeric: tabular-nums }
.s { white-space: nowrap } th, td:not(:first-child), td a { overflow-wrap: normal }
th:first-child, td:first-child { text-align: left; min-width: 9rem }
caption { text-align: left; color: var(--soft); padding: .25rem .5rem }
.plots { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)) }
figure { margin: 0 } svg { width: 100%; height: auto; display: block }
svg text { fill: var(--soft); font: 9px system-ui, sans-serif } .grid { stroke: var(--line) }
.bar { fill: var(--bar) } polyline.before { fill: none; stroke: var(--old); stroke-width: 1.5 }
circle.before { fill: var(--old) }
@media print { body { max-width: none; padding: 0; font-size: 11px }
  section, figure, tr { break-inside: avoid } h2 { break-after: avoid } a { color: inherit } }
"""

_BAD: Final = frozenset(("new", "back", "spike"))
_GOOD: Final = frozenset(("gone", "resolved", "proven", "verified", "hit"))
_SHORT: Final = 12
_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


def html(report: Report, base_url: str = BASE_URL) -> str:
    """The report."""
    return "".join(_parts(report, base_url.rstrip("/")))


def _parts(report: Report, base: str) -> Iterator[str]:
    period = report.period
    title = f"Learnings of {'the week ' if period.days > 1 else ''}{period.name}"
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body><main>"
        f"<h1>{escape(title)}</h1>\n"
    )
    for note in report.notes:
        yield f'<p class="note">{_text(note)}</p>\n'
    if report.headline:
        yield from _list(report.headline, base, details=False)
    else:
        yield f"<p>A quiet {period.word}: nothing new, nothing that changed.</p>\n"
    for section in report.sections:
        yield from _section(section, base)
    if report.charts:
        yield f"<section><h2>By the {'hour' if period.days == 1 else 'day'}</h2>"
        yield f'<p class="note">Bars: {_text(period.name)} (UTC). Line: {_text(period.other)}.</p>'
        yield '<div class="plots">\n'
        for chart in report.charts:
            caption = f"{chart.title} ({chart.unit})" if chart.unit else chart.title
            yield f"<figure><figcaption>{_text(caption)}</figcaption>"
            yield f"{svg(chart, period)}</figure>\n"
        yield "</div></section>\n"
    yield "</main></body></html>\n"


def _section(section: Section, base: str) -> Iterator[str]:
    key = re.sub(r"[^a-z0-9]+", "-", section.key[:60])
    yield f'<section id="{key}"><h2>{_text(section.title)}</h2>\n'
    if not section.statements and not section.tables:
        yield f"<p>{_text(section.quiet)}</p>"
    if section.statements:
        yield from _list(section.statements, base)
    for table in section.tables:
        yield from _table(table, base)
    yield "</section>\n"


def _list(statements: Sequence[Statement], base: str, *, details: bool = True) -> Iterator[str]:
    yield "<ul>\n"
    for one in statements:
        kind = "bad" if one.mark in _BAD else "good" if one.mark in _GOOD else ""
        mark = f'<span class="mark {kind}">{_text(one.mark)}</span> ' if one.mark else ""
        detail = f"<small>{_text(one.detail)}</small>" if details and one.detail else ""
        links = _links(one.evidence, base)
        yield (
            f'<li>{mark}{_text(one.text)} <span class="n">n = {number(one.n)}</span> '
            f"{links}{detail}</li>\n"
        )
    yield "</ul>\n"


def _links(ids: Sequence[str], base: str) -> str:
    return " ".join(
        f'<a href="{escape(base)}/api/memories/{escape(one)}">{escape(one[:6])}</a>'
        for one in ids
        if one.isalnum() and one.isascii()
    )


def _table(table: Table, base: str) -> Iterator[str]:
    more = f" And {number(table.more)} more." if table.more else ""
    yield f'<div class="table"><table><caption>{_text(table.caption)}{more}</caption><thead><tr>'
    yield "".join(f"<th>{_text(one)}</th>" for one in (*table.columns, "evidence"))
    yield "</tr></thead><tbody>\n"
    for row in table.rows:
        # A number and its unit stay in one line.
        cells = "".join(
            f"<td{' class=s' if len(one) <= _SHORT else ''}>{_text(one)}</td>" for one in row.cells
        )
        yield f"<tr>{cells}<td>{_links(row.evidence, base)}</td></tr>\n"
    yield "</tbody></table></div>\n"


def _text(text: str) -> str:
    return escape(clean(text, 1_000))


__all__ = ["html"]
