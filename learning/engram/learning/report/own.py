"""What Engram did itself: what it stored, what it concluded, and whether its jobs ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from engram.learning.report.ask import ask, limits
from engram.learning.report.insights import Said
from engram.learning.report.model import Section, Statement
from engram.learning.report.period import HOUR, Period
from engram.learning.report.words import clean, counted, number

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read, Run


def section(read: Read, period: Period, of: Sequence[Said], runs: Sequence[Run]) -> Section:
    """By the lake's commits, the insights and, where it is at hand, the ledger of the jobs."""
    row = ask(
        read,
        """
        SELECT count(*) AS commits, sum(spans) AS spans, sum(logs) AS logs, sum(metrics) AS metrics,
            sum(memories) AS memories, sum(duplicates) AS duplicates
        FROM lake.commits WHERE recorded_at >= $since AND recorded_at < $until
        """,
        **limits(period),
    ).to_dicts()[0]
    statements = []
    if row["commits"]:
        stored = ", ".join(
            counted(int(row[name] or 0), name[:-1]) for name in ("spans", "logs", "metrics")
        )
        again = int(row["duplicates"] or 0)
        text = f"Stored {stored} in {counted(row['commits'], 'commit')}, and made "
        text += counted(int(row["memories"] or 0), "memory", "memories") + " of them"
        text += f"; {number(again)} came twice and were stored once." if again else "."
        statements.append(Statement(text, int(row["commits"])))
    if of:
        by_job = Counter(one.job for one in of)
        told = ", ".join(f"{clean(job, 40)} {n}" for job, n in by_job.most_common())
        statements.append(
            Statement(
                f"Concluded {counted(len(of), 'thing')}: {told}.",
                len(of), tuple(one.id for one in of[:3]),
            )
        )  # fmt: skip
    statements += _ran(period, runs)
    return Section(
        "engram", "What Engram did", tuple(statements), quiet="It stored nothing and ran no job."
    )


def _ran(period: Period, runs: Sequence[Run]) -> list[Statement]:
    mine = [one for one in runs if period.since <= one.began * 1e9 < period.until]
    if not mine:
        return []
    failed = [one for one in mine if one.error]
    text = f"Of the last runs that are written down, {number(len(mine))} were then; "
    if failed:
        worst = failed[-1]
        text += f"{number(len(failed))} failed, last {worst.job}: {clean(worst.error)}."
    else:
        text += "none failed."
    return [Statement(text, len(mine))]


def notes(period: Period, of: Sequence[Said], runs: Sequence[Run] | None) -> list[str]:
    """What the reader should know about how complete the report is."""
    told = []
    if not period.whole:
        at = datetime.fromtimestamp(period.until // 10**9, UTC).strftime("%H:%M")
        told.append(
            f"The {period.word} is not over: this is what came until {at} UTC, compared with the "
            f"same hours of {period.other}."
        )
    if runs is not None:
        seen: dict[str, int] = {}
        for run in runs:
            if not run.error:
                seen[run.job] = max(seen.get(run.job, 0), run.until)
        if not seen and not of:
            told.append("The jobs have not run yet, so nothing is concluded: engram jobs run")
        elif seen and min(seen.values()) < period.until - HOUR:
            late = sorted(job for job, until in seen.items() if until < period.until - HOUR)
            told.append(f"Not all jobs have seen all of it ({', '.join(late)}): engram jobs run")
    return told


__all__ = ["notes", "section"]
