"""What of a code base leaves a memory, read from its source: `engram audit`.

Standard library only; the code is parsed, never imported. What was never seen at run time is
a question to a lake, and asked elsewhere (`engram.collector.seen`).
"""

from .findings import Finding, Kind, Report, Verdict
from .read import audit
from .show import lines

__all__ = ["Finding", "Kind", "Report", "Verdict", "audit", "lines"]
