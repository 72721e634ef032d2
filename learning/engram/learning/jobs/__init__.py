"""Jobs: pure functions from frames of the lake to insights, run every five minutes.

`runner` knows when, `insight` how what was found goes back in as OTLP; every other module is a job.
"""

from __future__ import annotations

from typing import Final

from engram.learning.itself import OFF, Itself
from engram.learning.jobs import (
    agents,
    causes,
    decisions,
    errors,
    itself,
    journeys,
    logs,
    optimizations,
    performance,
    predictions,
    report,
    solutions,
)
from engram.learning.jobs.insight import Insight
from engram.learning.jobs.runner import Job, Run, Runner
from engram.learning.jobs.window import Window
from engram.learning.limits import Limits

JOBS: Final[tuple[Job, ...]] = (
    errors.JOB,
    solutions.JOB,
    logs.JOB,
    performance.JOB,
    causes.JOB,
    predictions.JOB,
    optimizations.JOB,
    decisions.JOB,
    journeys.JOB,
    agents.JOB,
    itself.JOB,
    report.JOB,
)
"""In the order in which they run: the report is made of what the others said."""


def configured(limits: Limits | None, about: Itself = OFF) -> tuple[Job, ...]:
    """The jobs, with the limits that were set, and with what may be changed of Engram itself."""
    made: list[Job] = []
    for job in JOBS:
        if isinstance(job, predictions.Predictions):
            made.append(predictions.Predictions(limits))
        else:
            made.append(itself.About(about) if isinstance(job, itself.About) else job)
    return tuple(made)


__all__ = ["JOBS", "Insight", "Job", "Run", "Runner", "Window", "configured"]
