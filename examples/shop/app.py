"""A small shop. It knows nothing of Engram: only FastAPI, httpx, logging and the OpenTelemetry API.

Run it under OpenTelemetry's own launcher, and everything it does becomes memory:

    opentelemetry-instrument uvicorn --app-dir examples/shop app:app
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from typing import Any

import httpx
from fastapi import FastAPI, HTTPException, Request
from opentelemetry import trace
from opentelemetry._logs import LogRecord, get_logger
from pydantic import BaseModel

log = logging.getLogger("shop")
log.setLevel(logging.INFO)
tracer = trace.get_tracer("shop.assistant")
events = get_logger("shop.assistant")

app = FastAPI(title="shop")

PRICES = {"tea": 4, "coffee": 7, "teapot": 39}
STOCK = {"tea": 500, "coffee": 500, "teapot": 3}
SELF = os.environ.get("SHOP_URL", "http://127.0.0.1:8000")


class Order(BaseModel):
    """What a customer wants."""

    item: str
    quantity: int = 1
    customer: str = "anonymous"


class PaymentDeclined(Exception):
    """The payment provider said no."""


@app.get("/items/{item}")
async def item(item: str) -> dict[str, Any]:
    """Price and stock."""
    if item not in PRICES:
        raise HTTPException(404, f"no {item} in this shop")
    return {"item": item, "price": PRICES[item], "stock": STOCK[item]}


@app.post("/orders")
async def order(order: Order, request: Request) -> dict[str, Any]:
    """Take an order: ask the warehouse (ourselves, over HTTP), then decide about a discount."""
    async with httpx.AsyncClient(base_url=SELF) as warehouse:
        answer = await warehouse.get(f"/items/{order.item}")
    if answer.status_code == 404:
        log.warning("order for unknown item %s", order.item)
        raise HTTPException(404, answer.json()["detail"])
    found = answer.json()
    total = found["price"] * order.quantity
    discount = 10 if total >= 100 else 0
    if discount:
        log.info(
            "Approved 10 %% discount for %s, order total %d",
            order.customer,
            total,
            extra={
                "engram.memory.type": "business_decision",
                "engram.title": f"10 % discount for {order.customer}",
                "decision": "approve discount",
                "reason": "order total of 100 or more",
                "amount": total,
                "user.id": order.customer,
            },
        )
    log.info("order of %d %s by %s", order.quantity, order.item, order.customer)
    return {"total": total * (100 - discount) // 100, "discount": discount}


@app.post("/payments/{customer}")
async def pay(customer: str) -> None:
    """Always declined: the failing route."""
    raise PaymentDeclined(f"card of {customer} was declined by the payment provider")


@app.get("/report")
async def report() -> dict[str, Any]:
    """The slow route."""
    await asyncio.sleep(1.2)
    log.info("stock report took its time")
    return {"stock": STOCK}


@app.get("/import")
async def import_catalogue() -> dict[str, str]:
    """A failure that is caught and logged, as careful programs do."""
    try:
        json.loads("{not a catalogue")
    except json.JSONDecodeError:
        log.exception("supplier catalogue could not be parsed")
    return {"status": "kept the old catalogue"}


@app.get("/ask")
async def ask(q: str) -> dict[str, str]:
    """An assistant. The model is canned; the telemetry is what official instrumentations send."""
    answer = "Yes: tea and coffee are here tomorrow, a teapot takes three days."
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "canned-1",
        "gen_ai.response.model": "canned-1",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": len(q.split()),
        "gen_ai.usage.output_tokens": len(answer.split()),
    }
    with tracer.start_as_current_span(
        "chat canned-1", kind=trace.SpanKind.CLIENT, attributes=attributes
    ) as span:
        await asyncio.sleep(0.05)
        span_id = trace.format_span_id(span.get_span_context().span_id)
        span.set_attribute("gen_ai.response.id", f"canned-{span_id}")
        events.emit(
            LogRecord(
                event_name="gen_ai.client.inference.operation.details",
                attributes={
                    **attributes,
                    "gen_ai.response.id": f"canned-{span_id}",
                    "gen_ai.input.messages": _message("user", q),
                    "gen_ai.output.messages": _message("assistant", answer),
                },
            )
        )
    return {"answer": answer}


def _message(role: str, text: str) -> list[dict[str, Any]]:
    return [{"role": role, "parts": [{"type": "text", "content": text}]}]
