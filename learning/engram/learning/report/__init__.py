"""The learnings of a day or a week: what changed, with numbers, intervals and evidence.

`build` asks the lake, `markdown` and `html` say it. Nothing here is kept: the job `report` keeps
the markdown of each day that is over.
"""

from __future__ import annotations

from engram.learning.report.build import build, day_to_tell, something
from engram.learning.report.html import html
from engram.learning.report.markdown import markdown, summary
from engram.learning.report.model import Report, Section, Statement
from engram.learning.report.period import Period

__all__ = [
    "Period", "Report", "Section", "Statement", "build", "day_to_tell", "html", "markdown",
    "something", "summary",
]  # fmt: skip
