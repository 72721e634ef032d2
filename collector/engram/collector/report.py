"""`engram report`: the learnings of a day or a week, as markdown, HTML or JSON."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engram.exporters.errors import BadRequest, StoreError
from engram.exporters.home import Home

if TYPE_CHECKING:
    import polars as pl

    from engram.learning.report import Report


def report(home: Home, day: str | None, *, week: bool = False, now: int | None = None) -> Report:
    """The report of a day (yesterday, or today when there is nothing of it), or of seven up to it.

    Raises:
        BadRequest: `day` is no day, or one to come.
        NotFound: this home has no lake.
    """
    import duckdb

    from engram.collector import query
    from engram.learning.jobs import JOBS, Runner
    from engram.learning.report import Period, build, day_to_tell

    moment = time.time_ns() if now is None else now
    asked = None if day is None else _day(day)
    with query.reader(home) as lake:

        def read(sql: str, values: Sequence[Any] = ()) -> pl.DataFrame:
            frame: pl.DataFrame = lake.execute(sql, list(values)).pl()
            return frame

        try:
            last = asked or day_to_tell(read, moment)
            days = 7 if week else 1
            period = Period.of(last - timedelta(days=days - 1), days, moment)
            if period.until <= period.since:
                raise BadRequest(f"{last.isoformat()} has not begun")
            return build(read, period, Runner(home, JOBS).ledger)
        except duckdb.CatalogException as error:
            raise StoreError(f"nothing is stored in {home.root} yet: {error}") from error


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise BadRequest(f"{text!r} is no day; write 2026-11-22") from error


def write_html(told: Report, file: str, base_url: str) -> Path:
    """The report as a file of its own; where it is."""
    from engram.learning.report import html

    path = Path(file)
    path.write_text(html(told, base_url), encoding="utf-8")
    return path


def facts(told: Report) -> dict[str, Any]:
    """For programs."""
    made = asdict(told)
    made["period"] = {
        "first": told.period.first.isoformat(), "last": told.period.last.isoformat(),
        "since": told.period.since, "until": told.period.until, "whole": told.period.whole,
    }  # fmt: skip
    return made


__all__ = ["facts", "report", "write_html"]
