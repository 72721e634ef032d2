"""`engram jobs`: what the jobs are, how they went, and running them now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from engram.collector.rederive import since as instant
from engram.exporters.home import Home
from engram.exporters.itself.settings import PACE
from engram.learning.jobs import JOBS, Run, Runner, configured

if TYPE_CHECKING:
    from engram.collector.config import Config


def listed(home: Home) -> list[dict[str, Any]]:
    """Every job with how its last run went."""
    runner = Runner(home, JOBS)
    return [
        {"job": job.name, "about": job.about, **_told(runner.last(job.name))} for job in runner.jobs
    ]


def run(
    home: Home, name: str | None, since: str | None, config: Config | None = None
) -> list[dict[str, Any]]:
    """Run one job or all of them; how it went.

    Raises:
        BadRequest: `since` is no time.
        NotFound: there is no such job.
    """
    from engram.collector.component import Kind
    from engram.collector.itself import settings_of
    from engram.learning.itself import OFF
    from engram.learning.limits import Limits

    limits = config.settings(Kind.EXTENSION, "predictions", Limits) if config else None
    runner = Runner(home, configured(limits, settings_of(config) if config else OFF))
    runs = runner.step([name] if name else [], since=None if since is None else instant(since))
    return [{"job": one.job, **_told(one)} for one in runs]


def _told(run: Run | None) -> dict[str, Any]:
    if run is None:
        return {"insights": None}
    began = datetime.fromtimestamp(run.began, UTC).isoformat(timespec="seconds")
    told = {**asdict(run), "began": began}
    del told["job"]
    return told | {"error": run.error or None}


def changed(home: Home) -> Iterator[str]:
    """What Engram changed of itself, for people to read; nothing where all is as configured."""
    from engram.exporters.itself.settings import Settings

    for name, one in Settings(home).chosen().items():
        how = f"tried in turns with {one.old:g}" if one.trial else f"was {one.old:g}"
        unit = "rounds of five minutes" if name.startswith(PACE) else "s"
        yield f"Engram changed {name}: every {one.value:g} {unit} ({how}; docs/jobs/itself.md)"


def lines(told: Sequence[dict[str, Any]]) -> Iterator[str]:
    """For people to read."""
    for one in told:
        if one["insights"] is None:
            how = "never run"
        elif one["error"]:
            how = f"failed: {one['error']}"
        else:
            how = f"{one['insights']} insights in {one['seconds']:.1f} s, {one['began']}"
        about = f"  ({one['about']})" if one.get("about") else ""
        yield f"{one['job']:14} {how}{about}"


__all__ = ["changed", "lines", "listed", "run"]
