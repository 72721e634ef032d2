"""Queries with names for their values, over what a job reads with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from engram.learning.report.period import Period

if TYPE_CHECKING:
    import polars as pl

    from engram.learning.jobs.runner import Read

_NAME: Final = re.compile(r"\$([a-z_]+)")


def ask(read: Read, sql: str, **values: Any) -> pl.DataFrame:
    """Rows of a query in which `$name` stands for a value; values that it has not are left out."""
    used: list[str] = []

    def place(name: re.Match[str]) -> str:
        if name[1] not in used:
            used.append(name[1])
        return f"${used.index(name[1]) + 1}"

    return read(_NAME.sub(place, sql), [values[name] for name in used])


def limits(period: Period) -> dict[str, int]:
    """The times of a period and the one before, as parameters."""
    return {
        "since": period.since, "until": period.until, "before": period.before,
        "before_until": period.until - period.shift,
    }  # fmt: skip


__all__ = ["ask", "limits"]
