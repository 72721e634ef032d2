"""`engram learn`: keeps the search index from the lake until told to stop."""

from __future__ import annotations

import logging

from engram.collector.roles.process import Supervised, set_up_log, stop_event
from engram.exporters.home import Home
from engram.learning.indexer import Indexer

_LOG = logging.getLogger("engram.learn")


def run(home: Home, supervised: Supervised, log_level: str = "info") -> int:
    """Run the indexer; the exit code."""
    set_up_log(log_level)
    stop = stop_event(supervised)
    indexer = Indexer(home)
    supervised.ready({})
    _LOG.info("keeping the index of %s", home.root)
    indexer.run(stop)
    return 0
