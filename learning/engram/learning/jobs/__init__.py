"""Jobs: pure functions from frames of the lake to insights, run every five minutes.

`runner` knows when, `insight` how what was found goes back in as OTLP; every other module is a job.
"""

from __future__ import annotations

from typing import Final

from engram.learning.jobs import errors, predictions
from engram.learning.jobs.insight import Insight
from engram.learning.jobs.runner import Job, Run, Runner
from engram.learning.jobs.window import Window

JOBS: Final[tuple[Job, ...]] = (errors.JOB, predictions.JOB)
"""In the order in which they run."""

__all__ = ["JOBS", "Insight", "Job", "Run", "Runner", "Window"]
