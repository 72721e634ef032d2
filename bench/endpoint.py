"""What `Depends(endpoint_memory())` costs a request: warm, cold, and when nobody answers.

    python bench/endpoint.py [--requests 3000]

Two routes of one FastAPI application, called in turn without sockets: with the dependency and
without. `serve` is a real one, over a home with two hours of requests. Goal: 5 ms, or step aside.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from telemetry import Telemetry

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.collector.resting import Serving

from engram.exporters.signals import Encoding, Signal
from engram.instrumentation import endpoint_memory

KNOWN: Counter[bool] = Counter()


def application(remember: Callable[..., Any]) -> FastAPI:
    """One route that asks memory, and one that does not."""
    app = FastAPI()

    @app.get("/with/{n}")
    async def with_memory(
        n: int, known: Annotated[dict[str, Any], Depends(remember)]
    ) -> dict[str, Any]:
        return {"n": n, "known": bool(known)}

    @app.get("/without/{n}")
    async def without(n: int) -> dict[str, Any]:
        return {"n": n, "known": False}

    return app


async def ask(app: FastAPI, path: str) -> tuple[float, float]:
    """Seconds by the clock and of CPU of one request."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        assert message.get("status", 200) == 200
        KNOWN[b'"known":true' in message.get("body", b"")] += 1

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
             "path": path, "raw_path": path.encode(), "query_string": b"", "headers": [],
             "scheme": "http", "server": ("test", 80), "client": ("test", 1),
             "root_path": ""}  # fmt: skip
    began, cpu = time.perf_counter(), time.thread_time()
    await app(scope, receive, send)
    return time.perf_counter() - began, time.thread_time() - cpu


def told(name: str, seconds: list[tuple[float, float]]) -> float:
    """Print a line; the median."""
    walls = [1e3 * one for one, _ in seconds]
    p99 = quantiles(walls, n=100)[98] if len(walls) > 2 else max(walls)
    cpu = 1e3 * sum(one for _, one in seconds) / len(seconds)
    print(f"{name:32} p50 {median(walls):6.3f}  p99 {p99:6.3f}  max {max(walls):7.3f}  "
          f"cpu {cpu:6.3f} ms")  # fmt: skip
    return median(walls)


async def measured(url: str, requests: int, what: str) -> None:
    """The first request, and many after it."""
    os.environ["ENGRAM_API"] = url
    KNOWN.clear()
    app = application(endpoint_memory(service="shop"))
    await ask(app, "/without/0")
    told(f"{what}, the first request", [await ask(app, "/with/0")])
    await asyncio.sleep(3)
    pairs = [(await ask(app, f"/without/{n}"), await ask(app, f"/with/{n}"))
             for n in range(requests)]  # fmt: skip
    without = told(f"{what}, without it", [one for one, _ in pairs])
    more = told(f"{what}, with it", [one for _, one in pairs]) - without
    print(f"  more at the median: {more:.3f} ms; something was known {KNOWN[True]:,} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        serving = Serving(Path(folder) / "home")
        assert serving.engine is not None
        for _ in range(40):
            body = Telemetry(1).traces(512).SerializeToString()
            serving.engine.admit(Signal.TRACES, body, Encoding.IDENTITY).result(60)
        serving.engine.wait_committed(serving.engine.end, 60)
        asyncio.run(measured(f"http://127.0.0.1:{serving.port}", options.requests, "serve answers"))
        serving.close()
    asyncio.run(measured("http://127.0.0.1:9", options.requests, "nobody answers"))


if __name__ == "__main__":
    main()
