"""SQL for strangers: agents, REST clients and a web page may ask, and can only read.

`statement` decides what may be asked, `confine` takes from the worker process what it could do
harm with, `worker` is that process, and `pool` starts, times and ends it.
"""

from __future__ import annotations

from engram.collector.sandbox.limits import Limits, Result, TooExpensive
from engram.collector.sandbox.pool import Sandbox

__all__ = ["Limits", "Result", "Sandbox", "TooExpensive"]
