"""CPU of a FastAPI request: bare, under OpenTelemetry's own distribution, under `engram run`.

    python bench/app.py [--requests 3000] [--rounds 5]

Each round starts the three one after the other on the same core, warms up, and reads the CPU time
of the server process before and after N requests over kept-alive connections. A receiver that only
reads stands in for the collector, so its work is not in the figures. The goal: engram / plain ≤ 1.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent
APP = """
import logging
from fastapi import FastAPI
from pydantic import BaseModel
app = FastAPI()
log = logging.getLogger("shop")
class Order(BaseModel):
    item: str
    count: int = 1
@app.get("/items/{number}")
async def item(number: int, q: str = ""):
    return {"number": number, "q": q}
@app.post("/orders")
async def order(order: Order):
    log.warning("order of %s", order.item)
    return {"item": order.item}
"""
SINK = """
import asyncio, sys
async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            lines = head.lower().split(b"\\r\\n")
            size = next(int(l.split(b":")[1]) for l in lines if l.startswith(b"content-length"))
            await reader.readexactly(size)
            writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 0\\r\\n\\r\\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError): pass
    finally: writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
asyncio.run(main())
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def load(port: int, requests: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    body = json.dumps({"item": "tea", "count": 3})
    for i in range(requests):
        if i % 2:
            connection.request("POST", "/orders", body, {"content-type": "application/json"})
        else:
            connection.request("GET", f"/items/{i}?q=x")
        connection.getresponse().read()
    connection.close()


def measure(how: str, folder: Path, sink: int, requests: int) -> float:
    port = free_port()
    server = [str(BIN / "uvicorn"), "app:app", "--port", str(port), "--no-access-log"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    endpoint = f"http://127.0.0.1:{sink}"
    if how == "engram":
        server = [str(BIN / "engram"), "run", "--endpoint", endpoint, "--", *server]
    elif how == "plain":
        server = [str(BIN / "opentelemetry-instrument"), *server]
        environment |= {
            "OTEL_PYTHON_DISTRO": "distro", "OTEL_PYTHON_CONFIGURATOR": "configurator",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_SERVICE_NAME": "app",
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        }  # fmt: skip
    process = subprocess.Popen(
        server, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            try:
                load(port, 1)
                break
            except OSError:
                time.sleep(0.1)
        load(port, 300)
        watched = psutil.Process(process.pid)
        before = watched.cpu_times()
        load(port, requests)
        time.sleep(1.5)  # what waits to be sent belongs to the bill
        after = watched.cpu_times()
    finally:
        process.terminate()
        process.wait()
    return (after.user + after.system - before.user - before.system) / requests * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found: dict[str, list[float]] = {"bare": [], "plain": [], "engram": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "app.py").write_text(APP)
        port = free_port()
        sink = subprocess.Popen([sys.executable, "-c", SINK, str(port)])
        time.sleep(0.5)
        try:
            for _ in range(options.rounds):
                for how, figures in found.items():
                    figures.append(measure(how, folder, port, options.requests))
        finally:
            sink.terminate()
            sink.wait()
    for how, figures in found.items():
        each = [round(figure) for figure in figures]
        print(f"{how:8} {statistics.median(figures):7.0f} µs CPU a request", each)
    ratios = [e / p for e, p in zip(found["engram"], found["plain"], strict=True)]
    print(f"engram / plain: {statistics.median(ratios):.2f}", [round(r, 2) for r in ratios])


if __name__ == "__main__":
    main()
