"""`engram learn`: keeps the index, enriches memories and runs the jobs until told to stop."""

from __future__ import annotations

import logging
import os
import threading
import time

from engram.collector.alerts import settings_of
from engram.collector.component import Kind
from engram.collector.config import Config
from engram.collector.itself import settings_of as settings_of_itself
from engram.collector.roles.process import Supervised, set_up_log, stop_event
from engram.exporters.home import Home
from engram.learning.alerts.alerter import Alerter
from engram.learning.enrich import Enricher
from engram.learning.indexer import Indexer
from engram.learning.jobs import Runner, process
from engram.learning.jobs.itself.ledger import Hourly
from engram.learning.limits import Limits
from engram.learning.reindex import Requests, only_writer

_LOG = logging.getLogger("engram.learn")

_LEAVE_S = 4.0


def run(home: Home, supervised: Supervised, config: Config) -> int:
    """Run the indexer, the enricher, the jobs and their alerts; the exit code.

    Raises:
        HomeBusy: another process keeps this home's index.
    """
    set_up_log(config.log_level)
    stop = stop_event(supervised)
    home.create()
    with only_writer(home):
        indexer = Indexer(home, model=os.environ.get("ENGRAM_MODEL"))
        enricher = threading.Thread(target=_enrich, args=(home, stop), name="enricher", daemon=True)
        supervised.ready({})
        _LOG.info("keeping the index of %s", home.root)
        enricher.start()
        ran = threading.Event()
        jobs = threading.Thread(
            target=_jobs, args=(home, config, stop, ran), name="jobs", daemon=True
        )
        jobs.start()
        alerts = threading.Thread(
            target=_alerts, args=(home, config, stop, ran), name="alerts", daemon=True
        )
        alerts.start()
        indexer.run(stop, Requests(home).step)
        enricher.join(_LEAVE_S)
        ran.set()
        jobs.join(_LEAVE_S)
        alerts.join(_LEAVE_S)
    return 0


def _jobs(home: Home, config: Config, stop: threading.Event, ran: threading.Event) -> None:
    try:
        limits = config.settings(Kind.EXTENSION, "predictions", Limits)
        about = settings_of_itself(config)
        hourly = Hourly(home) if about.record else None

        def after() -> None:
            ran.set()
            if hourly is not None:
                hourly.tell(Runner(home, ()).ledger, time.time_ns())

        process.loop(home, stop, limits=limits, about=about, after=after)
    except Exception:  # the index goes on without
        _LOG.exception("jobs stopped; they begin again when learn is started again")
        raise


def _alerts(home: Home, config: Config, stop: threading.Event, ran: threading.Event) -> None:
    settings = settings_of(config)
    if not settings.any_hook:
        return
    try:
        Alerter(home, settings).loop(stop, ran)
    except Exception:  # the index and the jobs go on without
        _LOG.exception("alerts stopped; they begin again when learn is started again")
        raise


def _enrich(home: Home, stop: threading.Event) -> None:
    try:
        Enricher(home).run(stop)
    except Exception:  # the index goes on without
        _LOG.exception("enrichment stopped; it begins again when learn is started again")
        raise
