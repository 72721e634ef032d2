"""How long recall takes: search with filters, context windows and endpoint memory, by the clock.

    python bench/recall_speed.py --home DIR [--rows 100000] [--times 120]

The home is made when it is not there: memories as `bench/index.py` makes them (prompts, answers,
errors), with all columns, tags, and among each 400 a solution, a decision, and a request of an
operation. All of them have index rows of their own. The query's embedding is part of each time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from index import START, rows, sentences

from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_sql, connect, set_options
from engram.exporters.lake.schema import statements
from engram.learning.recall import Recall, Scope

STEP = 2_000_000
DAY = 86_400_000_000_000


def memories(count: int) -> Iterator[dict[str, Any]]:
    """Memories with all columns that recall reads."""
    rng = random.Random(5)
    said = sentences()
    for n, row in enumerate(rows(count, said)):
        more: dict[str, Any] = {"attributes": "{}", "outcome": None, "subject": None,
                                "duration_ns": None, "trace_id": f"{n // 8:032x}",
                                "tags": [f"tag-{n % 50}", str(row["service_name"])]}  # fmt: skip
        kind = n % 400
        if kind == 7:
            more |= {"type": "error_solution", "source": "mark", "outcome": "ok",
                     "subject": "ValueError", "title": f"Fix for ValueError: {rng.choice(said)}",
                     "attributes": json.dumps({"error_type": "ValueError", "tried": 5,
                                               "worked": 4})}  # fmt: skip
        elif kind == 11:
            more |= {"type": "business_decision", "source": "mark", "subject": "refund",
                     "outcome": rng.choice(("ok", "error")), "title": "refund: yes",
                     "attributes": json.dumps({"decision": "refund", "chosen": "yes",
                                               "options": ["yes", "no"], "confidence": 0.7,
                                               "outcome_success": True})}  # fmt: skip
        elif kind in (13, 17, 19):
            operation = f"GET /things/{n % 20}"
            more |= {"type": "request_outcome", "subject": operation[4:], "outcome": "ok",
                     "title": f"{operation} → 200 in 12 ms", "duration_ns": 12_000_000,
                     "attributes": json.dumps({"method": "GET", "route": operation[4:],
                                               "status": 200})}  # fmt: skip
        yield row | more


def fill(home: Home, count: int, commit: int = 540) -> None:
    """A lake with `count` memories in the order of their time."""
    home.create()
    lake = connect(threads=2)
    lake.execute(attach_sql(home, read_only=False))
    lake.execute("USE lake")
    set_options(lake)
    for sql in statements("tables"):
        lake.execute(sql)
    set_options(lake, "memories")
    made = memories(count)
    for start in range(0, count, 50_000):
        part = list(itertools.islice(made, 50_000))
        table = pa.Table.from_pylist(part)
        table = table.append_column("collector", pa.array(["c"] * len(part)))
        numbers = [n // commit + 1 for n in range(start, start + len(part))]
        lake.register("fresh", table.append_column("sequence", pa.array(numbers)))
        lake.execute("INSERT INTO memories BY NAME SELECT * FROM fresh ORDER BY sequence")
        lake.unregister("fresh")
    lake.close()


def index(home: Home) -> None:
    """Index all of it."""
    from engram.learning.indexer import Indexer

    indexer = Indexer(home)
    while indexer.step():
        pass
    indexer.close()


def measured(name: str, times: int, call: Callable[[int], Any]) -> None:
    """Print the times of a call."""
    taken, cpu = [], time.process_time()
    for number in range(times):
        began = time.perf_counter()
        call(number)
        taken.append((time.perf_counter() - began) * 1000)
    cpu = (time.process_time() - cpu) / times * 1000
    taken.sort()
    p50, p95 = taken[times // 2], taken[int(times * 0.95)]
    print(f"{name:32} p50 {p50:7.1f}  p95 {p95:7.1f}  max {taken[-1]:7.1f}  cpu {cpu:7.1f} ms",
          flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=120)
    parser.add_argument("--only", help="ways whose names begin so")
    parser.add_argument("--index", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    home = Home(options.home)
    if options.index:
        index(home)
        return
    if not home.catalog.exists():
        fill(home, options.rows)
        command = [sys.executable, __file__, "--home", str(options.home), "--index"]
        subprocess.run(command, check=True)
    rng = random.Random(3)
    said = sentences()
    asked = [" ".join(rng.choice(said).split()[: rng.randrange(2, 10)]) for _ in range(200)]
    asked = [one for one in asked if any(map(str.isalpha, one))]
    end = START + options.rows * STEP
    recall = Recall(home, clock=lambda: end)
    recall.search("warm up")

    def question(number: int) -> str:
        return asked[number % len(asked)]

    def search(**more: Any) -> Callable[[int], Any]:
        return lambda n: recall.search(question(n), **more)

    user = Scope(user_id="user-7")
    ways: dict[str, Callable[[int], Any]] = {
        "search": search(),
        "search, explained": search(explain=True),
        "search, one type": search(types=["system_error"]),
        "search, a user": search(scope=user),
        "search, service and since": search(
            scope=Scope(service="service-3"), since_ns=end - (end - START) // 4
        ),
        "search, tag": search(tags=["tag-7"]),
        "recent, a user": lambda n: recall.recent(scope=user, limit=20),
    }
    session = Scope(session_id=f"session-{options.rows // 40 - 1}")
    ways["context window, a user"] = lambda n: recall.context_window(
        scope=user, query=question(n), max_tokens=4000
    )
    ways["context window, a session"] = lambda n: recall.context_window(
        scope=session, query=question(n), max_tokens=4000
    )
    ways["endpoint, warm"] = lambda n: recall.endpoint_memory(f"GET /things/{n % 3}")
    print(f"{options.rows:,} memories")
    for name, call in ways.items():
        if options.only and not name.startswith(options.only):
            continue
        call(0)
        measured(name, options.times, call)
    recall.close()


if __name__ == "__main__":
    main()
