"""`engram learn`: keeps the search index from the lake until told to stop."""

from __future__ import annotations

import logging
import os

from engram.collector.roles.process import Supervised, set_up_log, stop_event
from engram.exporters.home import Home
from engram.learning.indexer import Indexer
from engram.learning.reindex import Requests, only_writer

_LOG = logging.getLogger("engram.learn")


def run(home: Home, supervised: Supervised, log_level: str = "info") -> int:
    """Run the indexer; the exit code.

    Raises:
        HomeBusy: another process keeps this home's index.
    """
    set_up_log(log_level)
    stop = stop_event(supervised)
    home.create()
    with only_writer(home):
        indexer = Indexer(home, model=os.environ.get("ENGRAM_MODEL"))
        supervised.ready({})
        _LOG.info("keeping the index of %s", home.root)
        indexer.run(stop, Requests(home).step)
    return 0
