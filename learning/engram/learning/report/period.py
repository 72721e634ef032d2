"""The days that a report is about, and those that it compares them with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, Self

HOUR: Final = 3600 * 10**9
DAY: Final = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Period:
    """Whole days in UTC, as far as they have passed; times in ns."""

    first: date
    days: int
    since: int
    until: int
    """Not in it. Of a day that is not over: now."""
    whole: bool
    """Whether it is over."""

    @classmethod
    def of(cls, first: date, days: int, now: int) -> Self:
        """So many days from the first one."""
        since = midnight(first)
        end = since + days * DAY
        return cls(first, days, since, max(since, min(end, now)), end <= now)

    @property
    def shift(self) -> int:
        """How long before it lies what it is compared with: the same hours of the day, or week."""
        return self.days * DAY

    @property
    def before(self) -> int:
        """Begin of what it is compared with; that ends at `until - shift`."""
        return self.since - self.shift

    @property
    def slot(self) -> int:
        """What one bar of a plot stands for: an hour of a day, a day of a week."""
        return HOUR if self.days == 1 else DAY

    @property
    def slots(self) -> int:
        """Bars of a plot."""
        return self.days * DAY // self.slot

    @property
    def name(self) -> str:
        """As people say it."""
        if self.days == 1:
            return self.first.isoformat()
        return f"{self.first.isoformat()} to {self.last.isoformat()}"

    @property
    def last(self) -> date:
        """The last day."""
        return self.first + timedelta(days=self.days - 1)

    @property
    def word(self) -> str:
        """`day` or `week`."""
        return "day" if self.days == 1 else "week"

    @property
    def other(self) -> str:
        """What it is compared with, as people say it."""
        return f"the {self.word} before"


def midnight(day: date) -> int:
    """Its begin in UTC, in ns."""
    return (day - date(1970, 1, 1)).days * DAY


def day_of(moment: int) -> date:
    """The day of a moment in UTC."""
    return datetime.fromtimestamp(moment // 10**9, UTC).date()


__all__ = ["DAY", "HOUR", "Period", "day_of", "midnight"]
