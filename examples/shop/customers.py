"""Customers of the shop: the same ones in every run.

    python customers.py http://127.0.0.1:8000 --seconds 15 --seed 7

Every way through the shop is taken at least once, the rest by the dice.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

Ask = tuple[str, str, Any]
"""Method, path and body of a request."""

HEADERS = {"x-github-event": "payment", "content-type": "application/json"}


def all_of_it(dice: random.Random) -> Iterator[Ask]:
    """Every way once."""
    yield "GET", "/", None
    yield "GET", "/articles/tea", None
    yield "GET", "/articles/unicorn", None
    yield "GET", "/search?q=te", None
    yield "GET", "/search?q=t", None
    for number in range(4):
        yield "POST", "/orders", {"sku": "tea", "quantity": number + 1, "customer": "ada"}
    yield "POST", "/orders", {"sku": "cup", "quantity": 3, "customer": "ada"}
    yield "POST", "/orders", {"sku": "teapot", "quantity": 1, "customer": "bob"}
    yield "POST", "/orders", {"sku": "unicorn", "customer": "bob"}
    yield "POST", "/orders", {"sku": 5, "quantity": "many"}
    yield "GET", "/orders/ada", None
    thread = f"talk-{dice.randrange(10**6)}"
    yield "POST", "/assistant", {"question": "What does a teapot cost?", "thread": thread}
    thread += "-refund"
    yield "POST", "/assistant", {"question": "Can I have my money back?", "thread": thread}
    yield "POST", f"/assistant/{thread}/decision?yes=true", None
    yield "POST", "/webhooks/payment", {"event": "charge.settled", "id": dice.randrange(10**6)}
    yield "POST", "/reports", None


def some(dice: random.Random) -> Ask:
    """One by the dice: mostly orders."""
    customer = dice.choice(("ada", "bob", "cy"))
    kind = dice.randrange(20)
    if kind < 11:
        sku = dice.choices(("tea", "coffee", "cup", "teapot"), (6, 4, 2, 1))[0]
        order = {"sku": sku, "quantity": dice.randint(1, 4), "customer": customer}
        return "POST", "/orders", order
    if kind < 14:
        return "GET", f"/orders/{customer}", None
    if kind < 16:
        return "GET", f"/articles/{dice.choice(('tea', 'cup', 'unicorn'))}", None
    if kind < 18:
        return "GET", f"/search?q={dice.choice(('te', 'co', 't'))}", None
    if kind < 19:
        question = f"What does a {dice.choice(('cup', 'teapot'))} cost?"
        thread = f"talk-{dice.randrange(10**6)}"
        return "POST", "/assistant", {"question": question, "thread": thread}
    return "POST", "/webhooks/payment", {"event": "charge.settled", "id": dice.randrange(10**6)}


def send(shop: str, ask: Ask) -> int:
    """The status of the answer."""
    method, path, body = ask
    data = None if body is None else json.dumps(body).encode()
    headers = HEADERS if "/webhooks/" in path else {"content-type": "application/json"}
    request = urllib.request.Request(shop + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def shopping(
    shop: str, seconds: float, seed: int = 7, between: Callable[[float], None] | None = None
) -> dict[int, int]:
    """Every way once, then customers by the dice; answers by status.

    `between` is called after each request with the seconds that have passed.
    """
    dice = random.Random(seed)
    begun = time.monotonic()
    statuses: dict[int, int] = {}
    asks = all_of_it(dice)
    while True:
        ask = next(asks, None)
        passed = time.monotonic() - begun
        if ask is None:
            if passed > seconds:
                return statuses
            ask = some(dice)
            time.sleep(0.03)
        status = send(shop, ask)
        statuses[status] = statuses.get(status, 0) + 1
        if between is not None:
            between(passed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shop")
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    print(shopping(options.shop, options.seconds, options.seed))
