"""What the shop does beside its requests: a catalogue to fetch, mails to send."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor

import faults
import httpx
from apscheduler.schedulers.background import BackgroundScheduler

log = logging.getLogger("shop.jobs")

OUTSIDE = os.environ.get("SHOP_OUTSIDE", "http://127.0.0.1:8001")
SYNC_S = float(os.environ.get("SHOP_SYNC_S", "5"))

mailers = ThreadPoolExecutor(2, thread_name_prefix="mail")
scheduler = BackgroundScheduler()


def sync_catalogue() -> None:
    """Fetch what the supplier has."""
    broken = "?broken" if faults.planted("bad_catalogue") else ""
    answer = httpx.get(f"{OUTSIDE}/catalogue{broken}", timeout=5)
    articles = answer.json()["articles"]
    log.info("the supplier has %d articles", len(articles))


def send_mail(order: int, customer: str) -> None:
    """Say thank you."""
    if order % 3 == 0 and faults.planted("lost_task"):
        raise ConnectionError(f"the mail server did not take the mail to {customer}")
    log.info("mailed %s about order %d", customer, order)


def thank(order: int, customer: str) -> None:
    """Mail in a thread; nobody waits for it."""
    mailers.submit(send_mail, order, customer)


def start() -> None:
    """Start the clock."""
    scheduler.add_job(sync_catalogue, "interval", seconds=SYNC_S, id="sync_catalogue")
    scheduler.start()


def stop() -> None:
    """Stop it, and send the mails that are left."""
    scheduler.shutdown(wait=False)
    mailers.shutdown()
