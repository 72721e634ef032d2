"""What the search index costs: bytes and CPU a row, rows a second, search times, memory.

    python bench/index.py [--rows 10000 100000] [--home DIR]

Rows are what 8 spans leave (2.16 of them): a prompt of 1000 characters, an answer of 500, and 0.16
errors of 550, from docstring sentences of the standard library, so words are as varied as prose is.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import random
import re
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_sql, connect, set_options

START = 1_790_000_000_000_000_000


def sentences() -> list[str]:
    """Sentences of docstrings."""
    found: set[str] = set()
    for path in Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"):
        if re.search(r"/(test|tests|lib2to3|idlelib|site-packages)/", str(path)):
            continue
        try:
            tree = ast.parse(path.read_text("utf-8", "replace"))
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                for one in re.split(r"(?<=[.!?])\s+|\n\s*\n", ast.get_docstring(node) or ""):
                    one = re.sub(r"\s+", " ", one).strip()
                    if 25 < len(one) < 240:
                        found.add(one)
    return sorted(found)


def rows(count: int, said: list[str]) -> Iterator[dict[str, object]]:
    """Memories."""
    rng = random.Random(7)

    def text(length: int) -> str:
        parts: list[str] = []
        while sum(map(len, parts)) < length:
            parts.append(rng.choice(said))
        return " ".join(parts)[:length]

    for n in range(count):
        kind = n % 216
        if kind < 100:
            type_, content = "user_interaction", text(1000)
        elif kind < 200:
            type_, content = "ai_response", text(500)
        else:
            type_, content = "system_error", f"ValueError: kaboom {n}\n{text(530)}"
        yield {
            "id": f"{rng.getrandbits(96):024x}", "type": type_, "index_as": "memory",
            "time_unix_nano": START + n * 2_000_000, "title": content[:120], "content": content,
            "service_name": f"service-{n % 5}", "user_id": f"user-{rng.randrange(500)}",
            "session_id": f"session-{n // 40}", "source": "span", "trust": "app",
            "importance": 0.75 if type_ == "system_error" else 0.3,
        }  # fmt: skip


def fill(home: Home, count: int, commit: int = 540) -> None:
    """A lake with `count` memories in commits of one second at 2,000 spans/s, merged."""
    home.create()
    lake = connect(threads=2)
    lake.execute(attach_sql(home, read_only=False))
    lake.execute("USE lake")
    set_options(lake)
    made = rows(count, sentences())
    for start in range(0, count, 100_000):
        part = list(itertools.islice(made, 100_000))
        table = pa.Table.from_pylist(part)
        table = table.append_column("collector", pa.array(["c"] * len(part)))
        numbers = [n // commit + 1 for n in range(start, start + len(part))]
        lake.register("fresh", table.append_column("sequence", pa.array(numbers)))
        if not start:
            lake.execute("CREATE TABLE memories AS SELECT * FROM fresh LIMIT 0")
            set_options(lake, "memories")
        lake.execute("INSERT INTO memories SELECT * FROM fresh ORDER BY sequence")
        lake.unregister("fresh")
    lake.close()


def rss() -> int:
    """Resident megabytes now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20


def size(path: Path) -> int:
    """Bytes of all files under a directory."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def drain(home: Home) -> None:
    """In a process of its own: index all, and say what it cost."""
    from engram.learning.indexer import Indexer

    indexer = Indexer(home)
    cpu, wall, done = time.process_time(), time.perf_counter(), 0
    while written := indexer.step():
        done += written
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    running = size(home.index)
    cpu_close = time.process_time()
    indexer.close()
    print(json.dumps({
        "rows": done, "rows_per_s": round(done / wall),
        "cpu_s_per_1000": round(cpu / done * 1000, 3),
        "close_cpu_s": round(time.process_time() - cpu_close, 2),
        "bytes_per_row_running": round(running / done),
        "bytes_per_row": round(size(home.index) / done, 1),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }))  # fmt: skip


def idle(home: Home) -> None:
    """In a process of its own: memory and CPU of an indexer with nothing to do."""
    from engram.learning.indexer import Indexer

    stop = threading.Event()
    thread = threading.Thread(target=Indexer(home).run, args=(stop,))
    thread.start()
    time.sleep(4)
    cpu = time.process_time()
    time.sleep(5)
    cpu = time.process_time() - cpu
    print(json.dumps({"idle_rss_mb": rss(), "idle_cpu_percent": round(cpu / 5 * 100, 2)}))
    stop.set()
    thread.join()


def steady(home: Home) -> None:
    """In a process of its own: 540 more rows a second for 20 s on top of what is there."""
    from engram.learning.indexer import Indexer

    lake = connect(threads=1)
    lake.execute(attach_sql(home, read_only=False))
    last = lake.execute("SELECT max(sequence) FROM lake.memories").fetchone()
    assert last is not None
    fresh = list(rows(540 * 20, sentences()))
    tables = []
    for n in range(20):
        part = pa.Table.from_pylist(fresh[n * 540 : n * 540 + 540])
        part = part.set_column(
            0, "id", pa.array([f"{n:04}{one[4:]}" for one in part["id"].to_pylist()])
        )
        part = part.append_column("collector", pa.array(["c"] * 540))
        tables.append(part.append_column("sequence", pa.array([last[0] + n + 1] * 540)))
    indexer = Indexer(home)
    indexer.step()
    spent, worst, lags = 0.0, 0.0, []
    for part in tables:
        began = time.perf_counter()
        lake.register("fresh", part)
        lake.execute("INSERT INTO lake.memories BY NAME SELECT * FROM fresh")
        committed = time.perf_counter()
        cpu = time.process_time()
        indexer.step()
        spent += time.process_time() - cpu
        lags.append(time.perf_counter() - committed)
        time.sleep(max(0.0, 1 - (time.perf_counter() - began)))
    worst = max(lags)
    print(json.dumps({
        "steady_cpu_percent": round(spent / 20 * 100, 1), "worst_step_s": round(worst, 2),
        "steady_rss_mb": rss(), "steady_index_mb": round(size(home.index) / 1e6, 1),
    }))  # fmt: skip
    indexer.close()
    lake.close()


def searching(home: Home) -> None:
    """In a process of its own: times of a kept searcher, unfiltered and filtered."""
    from engram.learning.search import Searcher

    rng = random.Random(3)
    said = sentences()
    asked = [" ".join(rng.choice(said).split()[: rng.randrange(2, 10)]) for _ in range(120)]
    searcher = Searcher(home)
    searcher.search("warm up")
    for name, more in (("search", {}), ("filtered", {"types": ["system_error"]})):
        times, cpu = [], time.process_time()
        for query in asked:
            began = time.perf_counter()
            searcher.search(query, **more)  # type: ignore[arg-type]
            times.append((time.perf_counter() - began) * 1000)
        times.sort()
        print(json.dumps({
            f"{name}_p50_ms": round(times[60], 1), f"{name}_p95_ms": round(times[114], 1),
            f"{name}_cpu_ms": round((time.process_time() - cpu) / len(asked) * 1000, 1),
        }))  # fmt: skip
    print(json.dumps({"searcher_rss_mb": rss()}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--home", type=Path, help="a place to work in")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        {"drain": drain, "idle": idle, "search": searching, "steady": steady}[options.part](
            Home(options.home)
        )
        return
    for count in options.rows:
        root = Path(tempfile.mkdtemp(prefix="engram-bench-", dir=options.home))
        fill(Home(root), count)
        print(f"{count} rows")
        for part in ("drain", "search", "idle", "steady"):
            # Each in a process of its own, so that one's memory is not another's.
            subprocess.run(
                [sys.executable, __file__, "--part", part, "--home", str(root)], check=True
            )
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
