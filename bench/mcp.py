"""What a huge trace and a comparison cost an agent's server: CPU seconds, memory, tokens.

    python bench/mcp.py [spans]

One trace of so many spans (100,000) in a fresh lake, summarised twice; then 20,000 spans of it
compared with 20,000 others.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

from engram.collector.mcp import comparing, traces
from engram.collector.mcp.reader import Reader
from engram.collector.mcp.text import recalled, tokens
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_sql, connect
from engram.exporters.lake.schema import prepare


def main(spans: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        home.create()
        with connect() as lake:
            lake.execute(attach_sql(home, read_only=False))
            lake.execute("USE lake")
            prepare(lake)
            lake.execute(
                "INSERT INTO spans BY NAME SELECT repeat('ab', 16) AS trace_id, "
                "printf('%016x', i) AS span_id, "
                "CASE WHEN i > 0 THEN printf('%016x', i // 8) END AS parent_span_id, "
                "'operation ' || (i % 300) AS name, 'service-' || (i % 20) AS service_name, "
                "1790000000000000000 + i * 1000 AS start_time_unix_nano, "
                "1790000000000000000 + i * 1000 + hash(i) % 10000000 AS end_time_unix_nano, "
                "CASE WHEN i % 50 = 0 THEN 2 ELSE 0 END AS status_code, hash(i) AS content_hash, "
                "json_object('user.id', 'u' || i % 500, 'region', 'r' || i % 5, "
                "'version', CASE WHEN i % 50 = 0 THEN '2' ELSE '1' END, 'n', i)::VARCHAR "
                'AS attributes, \'{"host.name": "a"}\' AS resource '
                f"FROM range({spans}) AS r(i)"
            )
        reader = Reader(home)
        for name in ("first", "again"):
            cpu = time.process_time()
            told = recalled(traces.trace(reader, "ab" * 16), 5_000)
            spent = time.process_time() - cpu
            print(f"trace of {spans:,} spans, {name}: {spent:.2f} CPU s, {tokens(told):,} tokens")
        cpu = time.process_time()
        told = recalled(comparing.compare(reader, "status=ok", "status=error"), 3_000)
        print(f"compare: {time.process_time() - cpu:.2f} CPU s, {tokens(told):,} tokens")
        print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MB")
        reader.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
