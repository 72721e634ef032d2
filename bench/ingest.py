"""How fast a real collector takes spans, how long until they can be queried, and what it costs.

    python bench/ingest.py [--spans 200000] [--senders 4] [--protocol http|grpc] [--no-redaction]

Starts `engram collect` with the default rules and redaction in a process of its own. A second
process sends requests of 512 spans (`bench/telemetry.py`, built and gzipped beforehand), a third
asks the lake for its newest span every 200 ms; how long ago that one was sent is the lag. Phases:

0. 100,000 spans at 10,000 a second: the lag of a collector that keeps up; it is warm after that
1. send everything, wait until the lake has it: rates, acknowledgements, lag, CPU of ingest
2. compact with nothing else to do: CPU of maintenance, and the size of what is stored
3. send a fifth more while compaction runs: acknowledgements under maintenance

The floor is the same records, decoded beforehand, inserted into a fresh DuckLake as Arrow: what any
collector has to pay for such a store. Compare CPU and ratios; wall times are of this machine today.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import json
import multiprocessing
import os
import queue
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from engram.exporters.home import Home

sys.path.insert(0, str(Path(__file__).parent))
from telemetry import (  # type: ignore[import-not-found, unused-ignore]
    BATCH,
    EPOCH_NS,
    requests,
)

_ENGRAM: Final = [
    sys.executable, "-c", "from engram.collector.cli import main; raise SystemExit(main())",
]  # fmt: skip
Work = queue.SimpleQueue[tuple[float, int, bytes]]
_PACED: Final = 100_000
_PACE: Final = 10_000
"""Spans a second, a fifth of what the collector manages."""
_POLL_S: Final = 0.2
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_EXPORT: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


# -- the collector under test ----------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Collector:
    """A collect process, and what /proc says of it and its children."""

    home: Home
    redaction: bool = True
    ports: dict[str, int] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        import engram.collector

        text = (Path(engram.collector.__file__).parent / "default-config.yaml").read_text()
        self.ports = {"grpc": free_port(), "http": free_port()}
        text = text.replace("127.0.0.1:4317", f"127.0.0.1:{self.ports['grpc']}")
        text = text.replace("127.0.0.1:4318", f"127.0.0.1:{self.ports['http']}")
        text = re.sub(r"compact_interval: \S+", "compact_interval: 24h", text)
        if not self.redaction:
            text = text.replace(", redaction]", "]")
        self.home.root.mkdir(parents=True, exist_ok=True)
        config = self.home.root / "bench-config.yaml"
        config.write_text(text)
        arguments = ["collect", "--home", str(self.home.root), "--config", str(config)]
        log = (self.home.root / "collect.log").open("wb")
        self.process = subprocess.Popen([*_ENGRAM, *arguments], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((self.home.root / "collect.log").read_text())
            time.sleep(0.05)
        while not self.ask("status").get("ready"):
            time.sleep(0.05)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.ports["http"])) == 0

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)

    def ask(self, command: str, **more: Any) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(600)
            control.connect(str(self.home.control))
            control.sendall(json.dumps({"command": command, **more}).encode() + b"\n")
            answer: dict[str, Any] = json.loads(control.makefile().readline())
        if "error" in answer:
            raise SystemExit(f"{command}: {answer['error']}")
        return answer

    def _tree(self) -> list[int]:
        assert self.process is not None
        found, rest = [], [self.process.pid]
        while rest:
            pid = rest.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                rest += map(int, task.read_text().split())
        return found

    def cpu_s(self) -> float:
        return sum(_cpu_s(pid) for pid in self._tree())

    def peak_mb(self) -> float:
        peaks = [
            re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
            for pid in self._tree()
        ]
        return sum(int(peak[1]) for peak in peaks if peak) / 1024


def _cpu_s(pid: int) -> float:
    """User and system time of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


# -- the generator ---------------------------------------------------------------------------------


def _http_send(port: int, work: Work) -> Iterator[list[Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
    for number, body in _take(work):
        while True:
            sent, started = time.time_ns(), time.perf_counter()
            connection.request("POST", "/v1/traces", body, headers)
            response = connection.getresponse()
            response.read()
            if response.status == 200:
                break
            if response.status not in (429, 503):
                raise RuntimeError(f"status {response.status}")
            time.sleep(float(response.headers.get("Retry-After", "0.2")))
        yield [number, sent, time.perf_counter() - started]


def _grpc_send(port: int, work: Work) -> Iterator[list[Any]]:
    import grpc

    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        export = channel.unary_unary(_EXPORT)
        for number, body in _take(work):
            sent, started = time.time_ns(), time.perf_counter()
            export(body, timeout=60, compression=grpc.Compression.Gzip, wait_for_ready=True)
            yield [number, sent, time.perf_counter() - started]


def _take(work: Work) -> Iterator[tuple[int, bytes]]:
    """What is left to send, each when it is due."""
    while True:
        try:
            due, number, body = work.get_nowait()
        except queue.Empty:
            return
        time.sleep(max(0.0, due - time.monotonic()))
        yield number, body


def generate(pipe: Connection, spans: int, senders: int, protocol: str, port: int) -> None:
    """Build all requests; then send each (first, last, spans a second) and tell how it went."""
    raw = list(requests(spans))
    bodies = [gzip.compress(body, 6) for body in raw] if protocol == "http" else raw
    pipe.send({"requests": len(bodies), "raw": sum(map(len, raw)), "sent": sum(map(len, bodies))})
    del raw
    send = _http_send if protocol == "http" else _grpc_send
    while (job := pipe.recv()) is not None:
        first, last, rate = job
        work: Work = queue.SimpleQueue()
        start = time.monotonic()
        for number in range(first, last):
            due = start + (number - first) * BATCH / rate if rate else start
            work.put((due, number, bodies[number]))
        done: list[list[Any]] = []
        failed: list[str] = []

        def run(
            work: Work = work,
            done: list[list[Any]] = done,
            failed: list[str] = failed,
        ) -> None:
            try:
                for one in send(port, work):
                    done.append(one)
            except Exception as error:
                failed.append(repr(error))

        cpu, started = time.process_time(), time.perf_counter()
        threads = [threading.Thread(target=run) for _ in range(senders)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pipe.send(
            {
                "done": done,
                "failed": failed,
                "wall_s": time.perf_counter() - started,
                "cpu_s": time.process_time() - cpu,
            }
        )


# -- the reader ------------------------------------------------------------------------------------


def watch(pipe: Connection, root: str) -> None:
    """Ask for the newest span every 200 ms until told to stop; tell when, which, how long."""
    from engram.exporters.lake import attach_read_only

    seen: list[tuple[int, int, float]] = []
    with attach_read_only(Home(Path(root)), threads=1) as connection:
        pipe.send("ready")
        while not pipe.poll(_POLL_S):
            started = time.perf_counter()
            row = connection.execute("SELECT max(start_time_unix_nano) FROM spans").fetchone()
            newest = (row[0] - EPOCH_NS) // 1_000_000_000 if row and row[0] is not None else -1
            seen.append((time.time_ns(), newest, time.perf_counter() - started))
    pipe.send(seen)


# -- the floor -------------------------------------------------------------------------------------


def floor(pipe: Connection, spans: int) -> None:
    """CPU seconds to insert the same records as Arrow, 16,384 rows a transaction."""
    import pyarrow as pa

    from engram.exporters.lake.attach import attach_sql, connect
    from engram.exporters.lake.schema import prepare
    from engram.exporters.otlp.decode import Decoder
    from engram.exporters.otlp.values import NoRedaction
    from engram.exporters.signals import Signal

    decoder, tables = Decoder(NoRedaction()), []
    bodies = list(requests(spans))
    for at in range(0, len(bodies), 32):
        for body in bodies[at : at + 32]:
            decoder.add(Signal.TRACES, body)
        table = decoder.finish().spans
        ones = pa.array([1] * len(table), pa.int64())
        table = table.append_column("collector", pa.array(["c"] * len(table)))
        tables.append(table.append_column("sequence", ones).append_column("recorded_at", ones))
    folder = tempfile.mkdtemp(prefix="floor-")
    home = Home(Path(folder))
    home.create()
    connection = connect(threads=1)
    connection.execute(attach_sql(home, read_only=False))
    connection.execute("USE lake")
    connection.execute("CALL lake.set_option('parquet_compression', 'zstd')")
    prepare(connection)
    cpu = time.process_time()
    for table in tables:
        connection.register("batch", table)
        connection.execute("INSERT INTO spans SELECT * FROM batch")
        connection.unregister("batch")
    pipe.send((time.process_time() - cpu, sum(map(len, tables))))
    connection.close()
    shutil.rmtree(folder)


# -- all of it -------------------------------------------------------------------------------------


def _child(target: Any, *arguments: Any) -> tuple[Connection, Any]:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=target, args=(theirs, *arguments), daemon=True
    )
    process.start()
    return ours, process


def _bytes(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def _ms(values: list[float]) -> str:
    if not values:
        return "-"
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"{statistics.median(ordered) * 1e3:.1f} / {p99 * 1e3:.1f} ms"


def measure(options: argparse.Namespace, home: Home) -> dict[str, str]:
    more = options.spans // 5
    collector = Collector(home, redaction=options.redaction)
    collector.start()
    port = collector.ports[options.protocol]
    generator, _ = _child(
        generate, options.spans + more + _PACED, options.senders, options.protocol, port
    )
    try:
        built = generator.recv()
        reader, _ = _child(watch, str(home.root))
        reader.recv()
        paced = _PACED // BATCH
        generator.send((0, paced, _PACE))
        calm = generator.recv()
        collector.ask("flush", timeout_s=600)
        last = paced - (-options.spans // BATCH)
        spans = (last - paced) * BATCH
        before = collector.cpu_s()
        started = time.perf_counter()
        generator.send((paced, last, 0))
        sent = generator.recv()
        collector.ask("flush", timeout_s=600)
        committed_s = time.perf_counter() - started
        ingest_cpu = collector.cpu_s() - before
        status = collector.ask("status")
        time.sleep(2 * _POLL_S)
        reader.send(None)
        seen = reader.recv()
        collector.ask("compact", grace_s=0)
        compact_cpu = collector.cpu_s() - before - ingest_cpu
        sizes = {
            "home": _bytes(home.root), "lake": _bytes(home.lake), "catalogue": _bytes(home.lake) -
            _bytes(home.data), "wal": _bytes(home.wal),
        }  # fmt: skip
        tables = {
            name: sum(_bytes(p) for p in home.data.rglob(name) if p.is_dir())
            for name in ("spans", "memories")
        }
        generator.send((last, built["requests"], 0))
        compactions = 0
        while not generator.poll():
            collector.ask("compact", grace_s=0)
            compactions += 1
        under = generator.recv()
        generator.send(None)
        collector.ask("flush", timeout_s=600)
        peak = collector.peak_mb()
        stored = _count(home)
    finally:
        collector.stop()
    for one in (calm, sent, under):
        if one["failed"]:
            raise SystemExit(f"senders failed: {one['failed']}")
    expected = built["requests"] * BATCH
    if stored["spans"] != expected:
        raise SystemExit(f"{stored['spans']} spans stored, {expected} acknowledged")
    pipe, process = _child(floor, min(options.spans, 100_000))
    floor_cpu, floor_rows = pipe.recv()
    process.join()
    calm_lags, lags = _lags(seen, calm["done"]), _lags(seen, sent["done"])
    queries = [took for now, n, took in seen if n >= 0]
    per = 100_000 / spans
    more_spans = len(under["done"]) * BATCH
    total = expected - more_spans
    floor_us = floor_cpu / floor_rows * 1e6
    ours_us = ingest_cpu / spans * 1e6
    return {
        "spans": f"{total - spans:,} calm, {spans:,}, {more_spans:,} under compaction; "
        f"{built['raw'] / expected:.0f} B each, {built['sent'] / expected:.0f} B as sent",
        "memories": f"{stored['memories']:,} ({stored['memories'] / stored['spans']:.2f} a span)",
        "commits": f"{status['commits']}",
        "acknowledged spans/s": f"{spans / sent['wall_s']:,.0f}",
        "queryable spans/s": f"{spans / committed_s:,.0f}",
        "CPU-s of collect per 100k spans, ingest": f"{ingest_cpu * per:.2f}",
        "CPU-s of collect per 100k spans, with maintenance": (
            f"{ingest_cpu * per + compact_cpu / total * 1e5:.2f}"
        ),
        "CPU-s of the generator per 100k spans": f"{sent['cpu_s'] * per:.2f}",
        "floor: CPU-s per 100k spans, insert of the same Arrow": f"{floor_us / 10:.2f}",
        "floor / ingest": f"{floor_us / ours_us:.2f}",
        f"ack p50 / p99 at {_PACE:,} spans/s": _ms([took for _, _, took in calm["done"]]),
        "ack p50 / p99 while overrun": _ms([took for _, _, took in sent["done"]]),
        f"ack p50 / p99 during {compactions} compactions": _ms(
            [took for _, _, took in under["done"]]
        ),
        f"lag p50 / p99 at {_PACE:,} spans/s": _ms(calm_lags),
        "lag p50 / p99 while overrun": _ms(lags),
        "the reader's query p50 / p99": _ms(queries),
        "peak RSS of collect": f"{peak:.0f} MB",
        **{
            f"bytes a span, {name}": f"{size / total:.0f}"
            for name, size in {**sizes, **tables}.items()
        },
    }


def _lags(seen: list[tuple[int, int, float]], done: list[list[Any]]) -> list[float]:
    """Ages of the newest span that can be queried, until the last one is."""
    times = {number: sent for number, sent, _ in done}
    newest, begin = max(times), sorted(times.values())[1]
    return [
        (now - times[number]) / 1e9
        for now, number, _ in seen
        if number in times and number != newest and now > begin
    ]


def _count(home: Home) -> dict[str, int]:
    from engram.exporters.lake import attach_read_only

    with attach_read_only(home) as connection:
        found = {}
        for name in ("spans", "memories"):
            row = connection.execute(f"SELECT count(*) FROM {name}").fetchone()
            found[name] = int(row[0]) if row else 0
        return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spans", type=int, default=200_000)
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--protocol", choices=("http", "grpc"), default="http")
    parser.add_argument("--no-redaction", dest="redaction", action="store_false")
    parser.add_argument("--keep", action="store_true", help="keep the home")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="ingest-"))
    try:
        table = measure(options, Home(root))
    finally:
        if options.keep:
            print(f"kept {root}")
        else:
            shutil.rmtree(root)
    what = f"{options.protocol}, {options.senders} senders"
    print(f"| {what}{'' if options.redaction else ', no redaction'} | |\n|---|---:|")
    for name, value in table.items():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
