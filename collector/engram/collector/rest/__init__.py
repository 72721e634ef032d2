"""REST `/api/v1`: what programs ask and write, on the port of `engram serve`.

`door` stands in front and is all that an idle process loads; `app` is the FastAPI application,
imported by the first request; one module for each group of routes. Everything that is asked goes to
`engram.learning.recall`, everything that is written goes to the collector as OTLP.
"""

from __future__ import annotations

from engram.collector.rest.door import Door

__all__ = ["Door"]
