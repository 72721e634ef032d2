"""Optimizations: what is done too often, too late or for nothing, what that costs, and its end.

`reading` says how far a look goes back, `names` what a call is called; `repeats`, `serial`, `slow`
and `models` are the detectors, `find` makes patterns of what they found, `savings` intervals,
`verify` judges an end, `said` has the words, `job` what is said when.
"""

from __future__ import annotations

from engram.learning.jobs.optimizations.job import JOB, Optimizations

__all__ = ["JOB", "Optimizations"]
