"""`engram`: what Engram learns about itself, and which of its settings it tries, keeps, takes back.

`work` reads what roles told, `said` makes statements of a day, `trials` decides about settings,
`ledger` turns the runs of jobs into what is told of an hour, `applied` puts decisions in force.
"""

from engram.learning.jobs.itself.job import JOB, NAME, About

__all__ = ["JOB", "NAME", "About"]
