"""Numbers and names as words."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence


def number(value: float) -> str:
    """A count with separators; three digits where it is no whole number."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def counted(n: float, word: str, many: str = "") -> str:
    """`1 request`, `2 requests`."""
    return f"{number(n)} {word if n == 1 else many or word + 's'}"


def percent(share: float) -> str:
    """A share in percent: as many digits as tell it from 0 and 100."""
    value = 100 * share
    if value in (0, 100):
        return f"{value:.0f} %"
    if value < 1 or value > 99:
        return f"{value:.2f} %"
    return f"{value:.1f} %"


def duration(ms: float) -> str:
    """Milliseconds as people say them."""
    if ms < 1:
        return f"{ms * 1000:.0f} µs"
    if ms < 1000:
        return f"{ms:.3g} ms" if ms < 100 else f"{ms:.0f} ms"
    seconds = ms / 1000
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.3g} h" if seconds < 48 * 3600 else f"{seconds / 86400:.3g} days"


def times(ratio: float) -> str:
    """A ratio as a change: `+12 %`, `-4 %`; `2.1 times` from twice on."""
    if not math.isfinite(ratio):
        return "any number of times"
    if ratio >= 2:
        return f"{ratio:.1f} times"
    return f"{100 * (ratio - 1):+.0f} %".replace("-", "\u2212")


def clean(text: object, most: int = 200) -> str:
    """Words of others in one line: no control characters, nothing that turns the reading order."""
    kept = "".join(
        " " if one.isspace() else one
        for one in str(text or "")
        if one.isspace() or unicodedata.category(one) not in ("Cc", "Cf", "Cs", "Co", "Cn")
    )
    line = " ".join(kept.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def listed(names: Sequence[str], most: int = 3) -> str:
    """`a, b and 2 more`."""
    shown = [clean(one, 60) for one in names[:most]]
    more = len(names) - len(shown)
    if more > 0:
        return f"{', '.join(shown)} and {more} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


__all__ = ["clean", "counted", "duration", "listed", "number", "percent", "times"]
