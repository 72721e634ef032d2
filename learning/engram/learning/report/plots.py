"""Small plots as SVG, made here: bars for the period, a line for the one before.

Colours come from the page (`currentColor` and custom properties), so that one drawing fits a light
and a dark page, and paper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from html import escape
from typing import Final

from engram.learning.report.model import Chart
from engram.learning.report.period import Period
from engram.learning.report.words import number

_WIDTH: Final = 480
_HEIGHT: Final = 110
_LEFT: Final = 44
_BOTTOM: Final = 16
_TOP: Final = 6


def svg(chart: Chart, period: Period) -> str:
    """The plot. What it says besides is in its title and in the title of each bar."""
    return "".join(_parts(chart, period))


def _parts(chart: Chart, period: Period) -> Iterator[str]:
    unit = f" {chart.unit}" if chart.unit else ""
    most = max((one for one in (*chart.values, *chart.before) if one is not None), default=0.0)
    top = most or 1.0
    slots = max(1, len(chart.values))
    step = (_WIDTH - _LEFT) / slots
    floor = _HEIGHT - _BOTTOM

    def height(value: float) -> float:
        return (floor - _TOP) * value / top

    yield (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(chart.title)}, at most {number(most)}{unit}">'
    )
    for value, words in ((top, f"{number(most)}{unit}"), (top / 2, ""), (0.0, "0")):
        y = floor - height(value)
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
        if words:
            yield f'<text x="{_LEFT - 4}" y="{y + 3:.1f}" text-anchor="end">{escape(words)}</text>'
    for at, value_ in enumerate(chart.values):
        if value_ is None:
            continue
        tall = max(height(value_), 1.0 if value_ else 0.0)
        yield (
            f'<rect class="bar" x="{_LEFT + at * step + 0.5:.1f}" y="{floor - tall:.1f}" '
            f'width="{max(step - 1, 1):.1f}" height="{tall:.1f}">'
            f"<title>{escape(slot_name(period, at))}: {number(value_)}{unit}</title></rect>"
        )
    yield from _line(chart, step, floor, height)
    every = max(1, slots // 8)
    for at in range(0, slots, every):
        yield (
            f'<text x="{_LEFT + (at + 0.5) * step:.1f}" y="{_HEIGHT - 3}" '
            f'text-anchor="middle">{escape(slot_name(period, at, short=True))}</text>'
        )
    yield "</svg>"


def _line(
    chart: Chart, step: float, floor: float, height: Callable[[float], float]
) -> Iterator[str]:
    run: list[str] = []
    for at, value in enumerate((*chart.before, None)):
        if value is not None:
            run.append(f"{_LEFT + (at + 0.5) * step:.1f},{floor - height(value):.1f}")
            continue
        if len(run) == 1:  # a line of one point would not be seen
            x, y = run[0].split(",")
            yield f'<circle class="before" cx="{x}" cy="{y}" r="1.5"/>'
        elif run:
            yield f'<polyline class="before" points="{" ".join(run)}"/>'
        run = []


def slot_name(period: Period, at: int, *, short: bool = False) -> str:
    """What a bar stands for."""
    if period.days == 1:
        return f"{at}" if short else f"{at:02}:00 to {at + 1:02}:00 UTC"
    day = period.first + timedelta(days=at)
    return f"{day:%a}" if short else f"{day:%A} {day.isoformat()}"


__all__ = ["slot_name", "svg"]
