"""A shop for tea. It knows nothing of Engram, nor of OpenTelemetry.

    engram run -- uvicorn --app-dir examples/shop app:app

and everything it does becomes memory: requests, orders, mails in threads, a job on a clock, an
assistant of LangGraph, a page. `faults.py` says what is wrong with it.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import assistant
import faults
import httpx
import jobs
import stock
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

log = logging.getLogger("shop")

ENGRAM = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open and close."""
    stock.fill()
    jobs.start()
    async with httpx.AsyncClient(base_url=jobs.OUTSIDE, timeout=5) as outside:
        app.state.outside = outside
        yield
    jobs.stop()


app = FastAPI(title="shop", version=faults.version(), lifespan=lifespan)


class Order(BaseModel):
    """What a customer wants."""

    sku: str
    quantity: int = 1
    customer: str = "anonymous"


class Question(BaseModel):
    """What a customer asks."""

    question: str
    thread: str


class PaymentDeclined(Exception):
    """The payment provider said no."""


class OutOfStock(Exception):
    """The warehouse did not say yes."""


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    """The page."""
    text = (Path(__file__).parent / "page.html").read_text()
    broken = "true" if faults.planted("broken_page") else "false"
    return text.replace("{engram}", ENGRAM).replace("{broken}", broken)


@app.get("/articles/{sku}")
def article(sku: str) -> dict[str, Any]:
    """Price of an article."""
    found = stock.article(sku)
    if found is None:
        raise HTTPException(404, f"no {sku} in this shop")
    return {"sku": found.sku, "price": found.price}


@app.get("/search")
def search(q: str) -> list[str]:
    """Articles by a word."""
    return stock.search(q)


@app.post("/orders")
async def order(order: Order, request: Request) -> dict[str, Any]:
    """Take an order: is it there, is it paid, then write it down."""
    price = stock.PRICES.get(order.sku)
    if price is None:
        log.warning("order for unknown article %s", order.sku)
        raise HTTPException(404, f"no {order.sku} in this shop")
    outside: httpx.AsyncClient = request.app.state.outside
    await in_stock(outside, order.sku)
    total = price * order.quantity
    await charge(outside, order.customer, total)
    number = stock.buy(order.customer, order.sku, order.quantity, total)
    jobs.thank(number, order.customer)
    log.info("order %d: %d %s for %s", number, order.quantity, order.sku, order.customer)
    return {"order": number, "total": total}


async def in_stock(outside: httpx.AsyncClient, sku: str) -> None:
    """Ask the warehouse, and again when it has no time."""
    busy = "?busy" if faults.planted("retries") else ""
    for _ in range(5):
        answer = await outside.get(f"/stock/{sku}{busy}")
        if answer.status_code == 200:
            return
    raise OutOfStock(f"the warehouse does not say whether it has a {sku}")


async def charge(outside: httpx.AsyncClient, customer: str, total: int) -> None:
    """Take the money."""
    amount = total * 100 if faults.planted("declined") else total
    answer = await outside.post("/charge", json={"customer": customer, "amount": amount})
    if answer.status_code != 200:
        raise PaymentDeclined(f"card of {customer} was declined: {answer.json()['error']}")


@app.get("/orders/{customer}")
def orders(customer: str) -> list[dict[str, Any]]:
    """What a customer bought."""
    return stock.orders_of(customer)


@app.post("/assistant")
async def ask(question: Question) -> dict[str, Any]:
    """Ask the assistant."""
    return await assistant.ask(question.question, question.thread)


@app.post("/assistant/{thread}/decision")
async def decide(thread: str, *, yes: bool) -> dict[str, Any]:
    """What a person says to a question of the assistant."""
    return await assistant.resume(thread, yes=yes)


@app.post("/webhooks/payment")
async def paid(request: Request) -> dict[str, bool]:
    """The payment provider tells us something."""
    told = await request.json()
    log.info("payment provider: %s", told.get("event"))
    return {"ok": True}


@app.post("/reports", status_code=202)
async def report(tasks: BackgroundTasks) -> dict[str, str]:
    """Count the orders, after the answer."""
    tasks.add_task(count_orders)
    return {"status": "on its way"}


def count_orders() -> None:
    """How many orders there are."""
    log.info("%d orders of the web", len(stock.orders_of("web")))
