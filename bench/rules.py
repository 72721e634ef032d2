"""What the rules cost per span: CPU over batches of 4096 spans of ordinary traces.

    python bench/rules.py [--rounds N]

A trace has 8 spans: 1 server, 1 internal, 4 database clients, 1 HTTP client, 1 LLM call
(1000-character prompt, 500-character answer); 2 % of the spans carry an exception with its stack.
The bar is 6 us CPU with all rules on.

    python bench/rules.py --each

What each rule costs: its condition on 1,000 spans of the shop (`bench/telemetry.py`), and one
memory it makes (of 1,000 equal records from `tests/exporters/test_types.py`).
A rule whose attributes no record of a batch has costs nothing: it is left out when the rules are
compiled for the batch's columns.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl

from engram.exporters.merge import merge_frame
from engram.exporters.metrics import metric_frame
from engram.exporters.otlp.decode import Decoder, Records
from engram.exporters.otlp.values import NoRedaction
from engram.exporters.rules import Kind, Rules
from engram.exporters.rules.compile import Compiler, Plan, run
from engram.exporters.signals import Signal

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

STACK = (
    "Traceback (most recent call last):\n"
    + "".join(
        f'  File "/venv/lib/python3.11/site-packages/l{i}.py", line {i}, in call\n    await app()\n'
        for i in range(25)
    )
    + '  File "/app/app.py", line 14, in boom\n    raise ValueError("x")\nValueError: kaboom 17\n'
)


def batch(seed: int, size: int = 4096) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Spans, and the exceptions on them."""
    rows = []
    events = []
    for i in range(size):
        trace, place = divmod(i, 8)
        tid = f"{seed:016x}{trace:016x}"
        attrs: dict[str, str] = {}
        kind, name = 1, "work"
        if place == 0:
            kind, name = 2, "GET /items/{id}"
            attrs = {
                "http.request.method": "GET" if trace % 3 else "POST",
                "http.route": f"/items{trace % 20}/{{id}}",
                "url.path": f"/items{trace % 20}/{i}",
                "http.response.status_code": "200" if trace % 10 else "500",
                "server.address": "127.0.0.1",
                "client.address": "10.0.0.7",
                "user_agent.original": "curl/8.1",
            }
        elif place in (2, 3, 4, 5):
            kind, name = 3, "SELECT items"
            attrs = {"db.system.name": "postgresql", "server.address": "db"}
        elif place == 6:
            kind, name = 3, "GET"
            attrs = {
                "http.request.method": "GET",
                "url.full": f"https://api{trace % 9}.example.com/v1/things/{i}?q=1",
                "http.response.status_code": "200",
                "server.address": f"api{trace % 9}.example.com",
            }
        elif place == 7:
            kind, name = 3, "chat gpt-x"
            prompt = (f'Please tell me about number {i} and its "friends". ' * 30)[:1000]
            answer = (f"It is a fine number, as numbers such as {i} go. " * 20)[:500]
            attrs = {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": "gpt-x",
                "gen_ai.response.model": "gpt-x-0",
                "gen_ai.response.id": f"c{seed}-{i}",
                "gen_ai.usage.input_tokens": "250",
                "gen_ai.usage.output_tokens": "120",
                "gen_ai.response.finish_reasons": '["stop"]',
                "gen_ai.conversation.id": f"T{trace % 50}",
                "gen_ai.input.messages": json.dumps(
                    [{"role": "user", "parts": [{"type": "text", "content": prompt}]}]
                ),
                "gen_ai.output.messages": json.dumps(
                    [
                        {
                            "role": "assistant",
                            "parts": [{"type": "text", "content": answer}],
                            "finish_reason": "stop",
                        }
                    ]
                ),
            }
        start = 1_790_000_000_000_000_000 + i * 1000
        failed = i % 50 == 0
        row: dict[str, object] = {
            "trace_id": tid,
            "span_id": f"{i:016x}",
            "parent_span_id": None,
            "name": name,
            "kind": kind,
            "start_time_unix_nano": start,
            "end_time_unix_nano": start + 1_000_000 * (i % 90),
            "status_code": 2 if failed else 0,
            "status_message": f"ValueError: kaboom {i}" if failed else "",
            "service_name": "shop",
            "scope_name": "fastapi",
            "attributes": json.dumps(attrs),
            "content_hash": seed * 1_000_000 + i,
            "res:telemetry.sdk.language": "python",
            "res:service.instance.id": "i-1",
        }
        row |= {f"attr:{k}": v for k, v in attrs.items()}
        rows.append(row)
        if failed:
            event: dict[str, object] = {
                "trace_id": tid,
                "span_id": row["span_id"],
                "parent_span_id": None,
                "name": "exception",
                "time_unix_nano": start,
                "attributes": "{}",
                "service_name": "shop",
                "scope_name": "fastapi",
                "content_hash": row["content_hash"],
                "attr:exception.type": "ValueError",
                "attr:exception.message": f"kaboom {i}",
                "attr:exception.stacktrace": STACK + str(i),
                "span.name": name,
                "span.kind": kind,
                "span.status_code": 2,
                "span.status_message": "",
                "span.attributes": "{}",
                "res:service.instance.id": "i-1",
            }
            events.append(event | {f"span.attr:{k}": v for k, v in attrs.items()})
    types = {
        "content_hash": pl.UInt64,
        "kind": pl.Int32,
        "status_code": pl.Int32,
        "span.kind": pl.Int32,
    }
    return tuple(  # type: ignore[return-value]
        pl.DataFrame(r, infer_schema_length=None).with_columns(
            pl.col(k).cast(t) for k, t in types.items() if k in r[0]
        )
        for r in (rows, events)
    )


def decoded(requests: list[tuple[Signal, bytes]], rules: Rules) -> dict[Kind, pl.DataFrame]:
    """The frames of some requests, by kind."""
    decoder = Decoder(NoRedaction(), rules.wanted, rules.resource_wanted)
    for signal, body in requests:
        decoder.add(signal, body)
    records: Records = decoder.finish()
    frames: dict[Kind, pl.DataFrame] = {
        "span": records.span_frame,
        "span_event": records.event_frame,
        "log": records.log_frame,
        "metric": metric_frame(records.metrics, rules.wanted, rules.resource_wanted),
    }
    return {kind: frame for kind, frame in frames.items() if frame.height}


def best(work: Callable[[], object], records: int, rounds: int) -> float:
    """The least CPU of some rounds, in microseconds a record."""
    least = 1e9
    for _ in range(rounds):
        started = time.process_time()
        work()
        least = min(least, time.process_time() - started)
    return least / records * 1e6


def _filtered(plan: Plan, frame: pl.DataFrame) -> pl.DataFrame:
    return frame if plan.mask is True else frame.filter(plan.mask)


def each(rules: Rules, rounds: int) -> None:
    """Print what each rule costs."""
    from telemetry import requests
    from tests.exporters.remembering import request
    from tests.exporters.test_metrics import counter
    from tests.exporters.test_types import MADE

    loaded = rules._rules
    mix = decoded([(Signal.TRACES, body) for body in requests(16384)], rules)["span"]
    conditions = {
        plan.rule.name: best(
            lambda: mix.select(plan.mask.alias("x")),  # noqa: B023 - called at once
            mix.height,
            rounds,
        )
        for plan in Compiler(loaded, "span", frozenset(mix.columns)).plans()
        if isinstance(plan.mask, pl.Expr)
    }
    memory: dict[str, float] = {}
    examples = [([case.record] * 1000, case.resource, case.scope) for case in MADE]
    series = [counter([(0, 1, 1)], attrs={"k": number})[0] for number in range(1000)]
    for records, resource, scope in [*examples, (series, {}, "lib")]:
        frames = decoded([request(records, resource, scope)], rules)
        for kind, frame in frames.items():
            for plan in Compiler(loaded, kind, frozenset(frame.columns)).plans():
                rows = _filtered(plan, frame)
                if rows.height and (out := run(plan, rows)) is not None:
                    cost = best(lambda: run(plan, rows), out.height, rounds)  # noqa: B023
                    memory[plan.rule.name] = max(memory.get(plan.rule.name, 0.0), cost)
    print("rule                      condition, us/1,000 spans   memory, us")
    for rule in loaded.rules:
        condition = conditions.get(rule.name)
        shown = "not compiled" if condition is None else f"{condition * 1000:.0f}"
        print(f"{rule.name:26} {shown:>24} {memory.get(rule.name, float('nan')):12.1f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--each", action="store_true", help="what each rule costs")
    options = parser.parse_args()
    rounds = options.rounds
    rules = Rules.load()
    if options.each:
        each(rules, min(rounds, 7))
        return
    batches = [batch(seed) for seed in range(1, rounds + 2)]
    started = time.process_time()
    rules.apply(batches[0][0], "span")
    rules.apply(batches[0][1], "span_event")
    print(f"first batch, with compiling: {(time.process_time() - started) * 1e3:.1f} ms CPU")
    cpu, wall, made, spans = 0.0, 0.0, 0, 0
    merging = 0.0
    best = 1e9
    for frame, events in batches[1:]:
        c, w = time.process_time(), time.perf_counter()
        a = rules.apply(frame, "span")
        b = rules.apply(events, "span_event")
        once = time.process_time() - c
        cpu, wall = cpu + once, wall + time.perf_counter() - w
        best = min(best, once / frame.height)
        made += a.height + b.height
        spans += frame.height
        c = time.process_time()
        merge_frame(pl.concat([a, b]))
        merging += time.process_time() - c
    print(
        f"rules: {cpu / spans * 1e6:.2f} us CPU/span (best batch {best * 1e6:.2f}), "
        f"{wall / spans * 1e6:.2f} us wall, {made / spans:.2f} memories/span, "
        f"{cpu / made * 1e6:.1f} us CPU/memory"
    )
    print(f"merge_frame: {merging / spans * 1e6:.2f} us CPU/span")


if __name__ == "__main__":
    main()
