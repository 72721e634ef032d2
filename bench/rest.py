"""How long REST takes: search with filters, a list, a context window, over a real socket.

    python bench/rest.py HOME [--times 200] [--clients 1]
    python bench/recall_speed.py --home HOME --rows 100000     makes one

A server in a process of its own, as `engram serve` is. Every question is another one, embedding
included; filters are a type, a service or a user, in turn. The answer's 95th hundredth counts: of
the first questions after the start, and of as many others later, when more of the lake is kept.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import resource
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_read_only

SERVE = """
import sys, threading
from pathlib import Path
from engram.collector.registry import Api
from engram.collector.roles.process import Supervised
from engram.collector.roles.serve import run
from engram.exporters.home import Home
settings = Api(endpoint=f"127.0.0.1:{sys.argv[2]}", rate_per_minute=10**9)
run(Home(Path(sys.argv[1])), settings, Supervised())
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def memory_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


def questions(home: Home, count: int) -> list[dict[str, str]]:
    with attach_read_only(home) as lake:
        rows = lake.execute(
            "SELECT content, type, service_name, user_id FROM lake.memories USING SAMPLE 2000"
        ).fetchall()
        (number,) = lake.execute("SELECT count(*) FROM lake.memories").fetchone() or (0,)
    print(f"{number:,} memories")
    rng, made = random.Random(3), []
    for n in range(count):
        content, type_, service, user = rng.choice(rows)
        found = re.findall(r"[a-z]{4,}", content.lower())
        words = rng.sample(found, 3) if len(found) >= 3 else ["what", "failed"]
        asked = {"q": " ".join(words), "limit": "10"}
        match n % 3:
            case 0:
                asked["type"] = type_
            case 1 if service:
                asked |= {"service": service, "type": type_}
            case _ if user:
                asked["user_id"] = user
        made.append(asked)
    return made


def told(name: str, times: list[float]) -> None:
    ordered = sorted(times)
    p50, p95 = (ordered[int(len(ordered) * share)] * 1000 for share in (0.5, 0.95))
    print(f"{name:24} p50 {p50:7.1f} ms   p95 {p95:7.1f} ms   n {len(times)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home")
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--clients", type=int, default=1)
    given = parser.parse_args()
    home, port = Home(Path(given.home).resolve()), free_port()
    asked = questions(home, 2 * given.times)
    server = subprocess.Popen([sys.executable, "-c", SERVE, str(home.root), str(port)])
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False)
    try:
        for _ in range(300):
            try:
                client.get("/livez")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        print(f"idle {memory_mb(server.pid):.0f} MB")
        begun = time.perf_counter()
        client.get("/api/v1/openapi.json")
        took = time.perf_counter() - begun
        print(f"application loaded in {took:.2f} s: {memory_mb(server.pid):.0f} MB")
        for one in asked[:10]:
            client.get("/api/v1/search", params=one).raise_for_status()

        def ask(path: str, params: dict[str, str], body: dict[str, object] | None = None) -> float:
            begun = time.perf_counter()
            answer = (
                client.get(path, params=params) if body is None else client.post(path, json=body)
            )
            answer.raise_for_status()
            return time.perf_counter() - begun

        def cpu() -> float:
            fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        for name, some in (
            ("search, after the start", asked[: given.times]),
            ("search, later", asked[given.times :]),
        ):
            before = cpu()
            with ThreadPoolExecutor(given.clients) as pool:
                times = list(pool.map(lambda one: ask("/api/v1/search", one), some))
            told(name, times)
            print(f"{'':24} server CPU {(cpu() - before) / len(some) * 1000:.1f} ms each")
        told("livez", [ask("/livez", {}) for _ in range(given.times)])
        told("memories, newest 20", [ask("/api/v1/memories", {}) for _ in asked[:100]])
        bodies = [{"user_id": one.get("user_id"), "query": one["q"]} for one in asked[:60]]
        told("context window", [ask("/api/v1/context", {}, one) for one in bodies])
        print(f"at the end {memory_mb(server.pid):.0f} MB")
    finally:
        server.terminate()
        server.wait(20)
    print(f"client CPU {resource.getrusage(resource.RUSAGE_SELF).ru_utime:.1f} s")


if __name__ == "__main__":
    main()
