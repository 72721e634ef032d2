"""A report of a period, from the lake: numbers by SQL, sentences by what they say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

from engram.learning.report import choices, errors, llm, own, predictions, requests, work
from engram.learning.report.ask import ask
from engram.learning.report.insights import PLACES, REPORT, Said, place, said, simple, statements
from engram.learning.report.model import Report, Section, Statement
from engram.learning.report.period import DAY, Period, day_of, midnight
from engram.learning.report.words import clean

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read, Run

_HEADLINES: Final = 6


def build(
    read: Read, period: Period, runs: Sequence[Run] | None = None, *, brief: bool = False
) -> Report:
    """The report. `runs` is the ledger of the jobs, where it is at hand.

    In brief it has no tables, and asks for nothing that only they need: a third of the cost.
    """
    found = said(read, period)
    of: dict[str, list[Said]] = defaultdict(list)
    for one in found:
        if not one.facts.get("muted"):  # said in silence: counted, and no news
            of[place(one)].append(one)
    earlier = period.first - timedelta(days=period.days)
    then: dict[str, list[Said]] = defaultdict(list)
    for one in said(read, Period.of(earlier, period.days, period.until - period.shift)):
        then[place(one)].append(one)
    traffic = requests.Traffic(read, period)
    calls = llm.Calls(read, period)
    sections = [
        errors.section(read, period, of["errors"], brief=brief),
        requests.section(read, period, traffic),
        requests.slowest(read, period, statements(of["operations"]), brief=brief),
        llm.section(read, period, calls, statements(of["llm"]), brief=brief),
        choices.section(read, period, statements(of["decisions"]), brief=brief),
        work.section(read, period, statements(of["work"]), brief=brief),
        predictions.section(read, period, of[predictions.KEY], then[predictions.KEY]),
        *(
            simple(key, title, of[key], quiet, then[key], period.other)
            for key, title, quiet in (
                ("causes", "Causes", "No incident was looked into."),
                ("optimizations", "Optimisations", "Nothing to make faster or cheaper was found."),
                ("solutions", "Solutions", "No solution was tried, and none proved itself."),
            )
        ),
        *(
            simple(
                key, f"Noticed by the job {clean(key[4:], 40)}", some, "", then[key], period.other
            )
            for key, some in sorted(of.items())
            if key not in PLACES.values() and key.startswith("job:")
        ),
        own.section(read, period, found, runs or ()),
    ]
    return Report(
        period,
        headline(sections),
        tuple(sections),
        (*requests.charts(traffic), *calls.chart()),
        tuple(own.notes(period, found, runs)),
    )


def headline(sections: Sequence[Section]) -> tuple[Statement, ...]:
    """What to read when there is time for no more: what jobs found important, and what moved."""
    found = [one for section in sections for one in section.statements]
    important = sorted(
        (one for one in found if one.importance >= 0.7), key=lambda one: -one.importance
    )
    moved = [one for one in found if not one.importance and one.mark]
    return tuple([*important[:_HEADLINES], *moved][:_HEADLINES])


def day_to_tell(read: Read, now: int) -> date:
    """Yesterday in UTC; today when there is nothing of yesterday."""
    today = day_of(now)
    yesterday = today - timedelta(days=1)
    return yesterday if something(read, yesterday) else today


def something(read: Read, day: date) -> bool:
    """Whether anything of a day is stored, but what Engram said of days before."""
    since = midnight(day)
    rows = ask(
        read,
        """
        SELECT EXISTS (FROM lake.memories
                WHERE time_unix_nano >= $since AND time_unix_nano < $until
                    AND NOT list_contains(tags, $own))
            OR EXISTS (FROM lake.spans
                WHERE start_time_unix_nano >= $since AND start_time_unix_nano < $until) AS there
        """,
        since=since,
        until=since + DAY,
        own=f"job:{REPORT}",
    )
    return bool(rows["there"][0])


__all__ = ["build", "day_to_tell", "headline", "something"]
