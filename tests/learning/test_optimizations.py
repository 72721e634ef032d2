"""The job `optimizations`: planted wastes, what looks like them, their end and their return."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.learning.home import Collecting
from tests.telemetry import T0, attributes

from engram.exporters.home import Home
from engram.exporters.signals import Signal
from engram.learning.jobs import Runner, Window
from engram.learning.jobs.optimizations import JOB
from engram.learning.jobs.optimizations.names import named
from engram.learning.jobs.optimizations.reading import BUCKET, DAY, EACH, FIRST, HOUR, MS, period
from engram.learning.jobs.optimizations.savings import Interval, difference, per_run

S = 1000 * MS


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[Collecting]:
    """A home that was never used."""
    made = Collecting(Home(tmp_path / "home"))
    yield made
    made.close()


class Trace:
    """A run of an endpoint; its calls follow each other."""

    def __init__(self, dice: random.Random, entry: str, began: int) -> None:
        self.dice, self.entry, self.began, self.at = dice, entry, began, began + MS
        self.id, self.root = dice.randbytes(16), dice.randbytes(8)
        self.spans: list[Span] = []
        self.number = dice.randrange(10**6)

    def call(self, name: str, ms: float, facts: dict[str, Any], *, kind: int = 3,
             failed: bool = False, at: int | None = None) -> None:  # fmt: skip
        """One call, now or at some time."""
        began = self.at if at is None else at
        ended = began + int(ms * MS * self.dice.uniform(0.9, 1.1))
        made = Span(
            trace_id=self.id, span_id=self.dice.randbytes(8), parent_span_id=self.root, name=name,
            kind=kind, start_time_unix_nano=began, end_time_unix_nano=ended,  # type: ignore[arg-type]
            attributes=attributes(facts),
        )  # fmt: skip
        if failed:
            made.status.code = 2  # type: ignore[assignment]
        self.spans.append(made)
        self.at = max(self.at, ended + MS // 20) if at is None else max(self.at, ended)

    def query(self, text: str, ms: float = 6, **more: Any) -> None:
        """A query."""
        facts = {"db.system.name": "postgresql", "db.query.text": text}
        self.call(text.split()[0], ms, facts, **more)

    def get(self, path: str, ms: float = 20, status: int = 200, **more: Any) -> None:
        """A call of another service."""
        facts = {"http.request.method": "GET", "url.full": f"http://inner{path}",
                 "server.address": "inner", "http.response.status_code": status}  # fmt: skip
        self.call("GET", ms, facts, failed=status >= 400, **more)

    def chat(self, prompt: str | None, answer: str = "", ms: float = 300, cached: int = 0,
             tokens: int = 900, out: int = 0, **more: Any) -> None:  # fmt: skip
        """A call of a model; without a prompt nothing of it was captured."""
        facts: dict[str, Any] = {
            "gen_ai.operation.name": "chat", "gen_ai.request.model": "m-1",
            "gen_ai.usage.input_tokens": tokens, "gen_ai.usage.cache_read.input_tokens": cached,
        }  # fmt: skip
        if out:
            facts["gen_ai.usage.output_tokens"] = out
        if prompt is not None:
            facts |= {"gen_ai.input.messages": prompt,
                      "gen_ai.output.messages": answer or str(self.dice.random())}  # fmt: skip
        self.call("chat m-1", ms, facts, **more)

    def tool(self, name: str, given: str, got: str, ms: float = 90) -> None:
        """A call of a tool."""
        facts = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name,
                 "gen_ai.tool.call.arguments": given, "gen_ai.tool.call.result": got}  # fmt: skip
        self.call(f"execute_tool {name}", ms, facts, kind=1)

    def closed(self) -> list[Span]:
        """All spans."""
        made = Span(
            trace_id=self.id, span_id=self.root, name=f"GET /{self.entry}/{{id}}", kind=2,  # type: ignore[arg-type]
            start_time_unix_nano=self.began, end_time_unix_nano=self.at + MS,
            attributes=attributes({
                "http.request.method": "GET", "http.route": f"/{self.entry}/{{id}}",
                "url.path": f"/{self.entry}/{self.number}",
            }),
        )  # fmt: skip
        return [made, *self.spans]


def send(collecting: Collecting, traces: list[Trace], version: str = "1.0") -> None:
    """Traces of a release."""
    body = ExportTraceServiceRequest()
    one = body.resource_spans.add()
    one.resource.attributes.extend(attributes({"service.name": "shop", "service.version": version}))
    one.scope_spans.add().spans.extend(span for trace in traces for span in trace.closed())
    collecting.admit(Signal.TRACES, body.SerializeToString())
    collecting.commit()


Do = Callable[[Trace, random.Random], object]


def runs(entry: str, do: Do, count: int = 30, share: float = 1.0, begins: int = T0,
         apart: int = 20 * S) -> list[Trace]:  # fmt: skip
    """Runs of an endpoint, of which a share does it."""
    dice = random.Random(f"{entry} {begins}")
    made = []
    for number in range(count):
        trace = Trace(dice, entry, begins + number * apart)
        trace.query("SELECT * FROM visitor WHERE id = ?", 2)
        if dice.random() < share:
            do(trace, dice)
        made.append(trace)
    return made


def times(count: int, step: Callable[[Trace, random.Random, int], object]) -> Do:
    """Several times."""

    def do(trace: Trace, dice: random.Random) -> None:
        for number in range(count):
            step(trace, dice, number)

    return do


def _storm(trace: Trace, dice: random.Random) -> None:
    for _ in range(5):
        trace.get("/pay/1", 15, 503)


def _polite(trace: Trace, dice: random.Random) -> None:
    for number in range(4):
        trace.get("/pay/1", 15, 503)
        trace.at += 200 * MS * 3**number


def _again(trace: Trace, dice: random.Random) -> None:
    for _ in range(4):
        trace.query(f"SELECT value FROM settings WHERE tenant = {trace.number}", 12)


def _written(trace: Trace, dice: random.Random) -> None:
    for number in range(4):
        trace.query(f"SELECT value FROM settings WHERE tenant = {trace.number}", 12)
        trace.query(f"UPDATE settings SET value = {number} WHERE tenant = 3", 3)


def _row(trace: Trace, dice: random.Random) -> None:
    for part in ("prices", "stock", "ratings"):
        trace.get(f"/{part}/{trace.number}", 120)


def _needs(trace: Trace, dice: random.Random) -> None:
    trace.get(f"/account/{trace.number}", 150)
    trace.get(f"/balance/{dice.randrange(10**6)}", 150)


def _at_once(trace: Trace, dice: random.Random) -> None:
    at = trace.at
    for part in ("prices", "stock", "ratings"):
        trace.get(f"/{part}/{trace.number}", 120, at=at)
    for shard in range(6):
        trace.query(f"SELECT part FROM shard WHERE number = {shard}", 30, at=at)


def _prompt(trace: Trace, dice: random.Random) -> None:
    text = str(dice.random())
    trace.chat(text)
    trace.chat(text)


def _vote(trace: Trace, dice: random.Random) -> None:
    text, at = str(dice.random()), trace.at
    for _ in range(3):
        trace.chat(text, at=at)


def _tool(trace: Trace, dice: random.Random) -> None:
    city = str(dice.random())
    for _ in range(2):
        trace.tool("weather", city, f"rain in {city}")
        trace.chat(str(dice.random()))


def _long(cached: int) -> Do:
    return lambda trace, dice: trace.chat(
        "rule " * 2000 + str(dice.random()), tokens=2200, cached=cached
    )


def _messages(*texts: str) -> str:
    return json.dumps(
        [{"role": "user", "parts": [{"type": "text", "content": text}]} for text in texts]
    )


def _words(dice: random.Random, count: int) -> str:
    return " ".join(f"w{dice.randrange(10**6)}" for _ in range(count))


def _pasted(trace: Trace, dice: random.Random) -> None:
    page = _words(dice, 1200)
    trace.chat(_messages("read this", page, "and", page), tokens=5000)


def _grows(trace: Trace, dice: random.Random) -> None:
    texts: list[str] = []
    for turn in range(4):
        texts += [_words(dice, 500), "yes"]
        trace.chat(_messages(*texts), tokens=1500 * (turn + 1), out=100, cached=900)


def _sized(tokens: Callable[[random.Random, bool], float],
           out: Callable[[bool], float] = lambda large: 200, every: int = 5) -> Do:  # fmt: skip
    def do(trace: Trace, dice: random.Random) -> None:
        large = trace.began // (20 * S) % every == 0
        trace.chat(None, tokens=int(tokens(dice, large)),
                   out=int(out(large) * dice.uniform(0.9, 1.1)))  # fmt: skip

    return do


def _checks(trace: Trace, dice: random.Random) -> None:
    name = f"{dice.random()}"
    trace.tool("unit_tests", name, "1 failed")
    trace.tool("edit_file", f"{dice.random()}", "done")
    trace.tool("unit_tests", name, "1 failed")


PLANTED: dict[str, tuple[str, Do, float]] = {
    "orders": (
        "n_plus_one", times(8, lambda t, d, n: t.query("SELECT p FROM a WHERE id = ?")), 0.5
    ),
    "names": ("n_plus_one", times(8, lambda t, d, n: t.get(f"/users/{d.randrange(10**6)}")), 1.0),
    "settings": ("repeated_call", _again, 1.0),
    "payment": ("retry_storm", _storm, 0.4),
    "overview": ("serial_calls", _row, 1.0),
    "search": ("slow_query", lambda t, d: t.query(f"SELECT * FROM b WHERE t = '{d.random()}'",
                                                  d.choice((300, 900))), 1.0),
    "rates": ("cacheable", lambda t, d: t.tool("rate", str(d.randrange(4)), "3"), 1.0),
    "ask": ("same_prompt", _prompt, 1.0),
    "agent": ("same_tool_call", _tool, 1.0),
    "rules": ("context_sent_again", _long(0), 1.0),
    "pasted": ("context_twice", _pasted, 1.0),
    "heavy": (
        "oversize_context", _sized(lambda d, large: (30_000 if large else 2_000) * d.uniform(
            0.8, 1.2)), 1.0),
}  # fmt: skip

ALIKE: dict[str, Do] = {
    "few": times(4, lambda t, d, n: t.query("SELECT p FROM a WHERE id = ?", 9)),
    "tables": times(8, lambda t, d, n: t.query(f"SELECT * FROM {'abcdefgh'[n]}x WHERE id = ?", 9)),
    "pages": times(8, lambda t, d, n: t.get(f"/all?page={n}")),
    "written": _written,
    "polite": _polite,
    "missing": times(4, lambda t, d, n: t.get(f"/thing/{d.randrange(10**6)}", 9, 404)),
    "needs": _needs,
    "once": _at_once,
    "quick": lambda t, d: t.query("SELECT * FROM b WHERE t = ?", 300),
    "now": lambda t, d: t.tool("now", "{}", str(d.random())),
    "vote": _vote,
    "unseen": times(3, lambda t, d, n: t.chat(None)),
    "kept": _long(2000),
    "grows": _grows,
    "spread": _sized(lambda d, large: 2000 * d.lognormvariate(0, 1.2)),
    "better": _sized(
        lambda d, large: 30_000 if large else 2_000, lambda large: 900 if large else 200
    ),
    "halves": _sized(lambda d, large: 30_000 if large else 2_000, every=2),
    "checks": _checks,
}


def said(collecting: Collecting) -> list[dict[str, Any]]:
    """What the lake has of the job."""
    rows = collecting.rows(
        "SELECT id, title, content, attributes FROM lake.optimization "
        "WHERE json_extract_string(attributes, '$.job') = 'optimizations' ORDER BY time, id"
    )
    return [
        {"id": id_, "title": title, "content": content, **json.loads(facts)}
        for id_, title, content, facts in rows
    ]


def step(collecting: Collecting, now: int) -> int:
    """A run of the job over everything; how much it said."""
    (run,) = Runner(collecting.home, [JOB], clock=lambda: now).step()
    assert not run.error
    collecting.commit()
    return run.insights


def test_what_is_planted_is_found_and_nothing_else(collecting: Collecting) -> None:
    """Each kind once, with its numbers and evidence; what looks like it is left alone; once."""
    send(collecting, [t for name, do in ALIKE.items() for t in runs(name, do)])
    assert step(collecting, T0 + HOUR) == 0, said(collecting)
    send(
        collecting,
        [t for name, (_, do, share) in PLANTED.items() for t in runs(name, do, share=share)],
    )
    step(collecting, T0 + HOUR)
    found = said(collecting)
    assert {(one["entry"], one["kind"]) for one in found} == {
        (f"GET /{name}/{{id}}", kind) for name, (kind, _, _) in PLANTED.items()
    }
    known = {row[0] for row in collecting.rows("SELECT id FROM lake.memories")}
    traces = {row[0] for row in collecting.rows("SELECT trace_id FROM lake.spans")}
    for one in found:
        assert one["state"] == "found"
        assert one["runs"] == 30
        assert 5 <= one["n"] <= 30
        assert one["per_run_low"] <= one["per_run"] <= one["per_run_high"]
        assert one["per_run"] > 0
        assert one["evidence"]
        assert set(one["evidence"]) <= known
        assert set(one["traces"]) <= traces
    of = {one["entry"].split("/")[1]: one for one in found}
    assert of["overview"]["per_run"] == pytest.approx(240, rel=0.1)  # two of three calls of 120
    assert of["orders"]["per_run"] == pytest.approx(0.5 * 42, rel=0.5)
    assert of["rules"]["unit"] == "tokens"
    assert "could run at once" in of["overview"]["title"]
    before = collecting.rows("SELECT id FROM lake.memories ORDER BY id")
    assert step(collecting, T0 + HOUR) == 0
    assert collecting.rows("SELECT id FROM lake.memories ORDER BY id") == before


LOOP = times(10, lambda t, d, n: t.query("SELECT p FROM a WHERE id = ?", 6))
ONE = times(1, lambda t, d, n: t.query("SELECT p FROM a WHERE id IN (?)", 7))


def test_its_end_is_measured_and_its_return_is_told(collecting: Collecting) -> None:
    """A fix in a release: what it saved, on how many runs; silence before that; then it is back."""
    send(collecting, runs("orders", LOOP, 60))
    step(collecting, T0 + HOUR)
    (found,) = said(collecting)
    # Nobody orders: that is no fix. Nor are a few runs.
    assert step(collecting, T0 + 5 * HOUR) == 0
    send(collecting, runs("orders", ONE, 8, begins=T0 + 6 * HOUR), "2.0")
    assert step(collecting, T0 + 7 * HOUR) == 0
    send(collecting, runs("orders", ONE, 120, begins=T0 + 8 * HOUR), "2.0")
    assert step(collecting, T0 + 10 * HOUR) == 1
    gone = said(collecting)[-1]
    assert (gone["state"], gone["estimate"]) == ("gone", "held")
    assert (gone["version_before"], gone["version"]) == ("1.0", "2.0")
    assert gone["n_before"] == 60
    assert gone["n_after"] == gone["clean_runs"] == 128
    saved = 10 * 6.05 - 7.05  # calls, and the 0.05 ms after each
    assert gone["median_saved_ms_low"] <= saved <= gone["median_saved_ms_high"]
    assert gone["median_saved_ms_high"] - gone["median_saved_ms_low"] < 3
    assert found["id"] in gone["evidence"]
    assert step(collecting, T0 + 10 * HOUR) == 0
    send(collecting, runs("orders", LOOP, 20, begins=T0 + 11 * HOUR), "3.0")
    assert step(collecting, T0 + 12 * HOUR) == 1
    back = said(collecting)[-1]
    assert (back["state"], back["version"], back["n"]) == ("back", "3.0", 20)
    assert step(collecting, T0 + 12 * HOUR) == 0


def test_a_fix_that_brings_nothing_is_said_to(collecting: Collecting) -> None:
    """The loop is gone, and what replaced it takes as long."""
    send(collecting, runs("orders", LOOP, 60))
    step(collecting, T0 + HOUR)
    same = times(1, lambda t, d, n: t.query("SELECT p FROM a WHERE id IN (?)", 60))
    send(collecting, runs("orders", same, 120, begins=T0 + 2 * HOUR))
    assert step(collecting, T0 + 4 * HOUR) == 1
    gone = said(collecting)[-1]
    assert gone["estimate"] in ("less", "unclear", "slower")
    assert abs(gone["median_saved_ms"]) < 5


def test_it_is_said_again_when_its_size_changed(collecting: Collecting) -> None:
    """Three times as much is news, a tenth more is not."""
    send(collecting, runs("orders", LOOP, 40))
    step(collecting, T0 + HOUR)
    more = times(11, lambda t, d, n: t.query("SELECT p FROM a WHERE id = ?", 6))
    send(collecting, runs("orders", more, 40, begins=T0 + HOUR))
    assert step(collecting, T0 + 2 * HOUR) == 0
    much = times(40, lambda t, d, n: t.query("SELECT p FROM a WHERE id = ?", 6))
    send(collecting, runs("orders", much, 60, begins=T0 + 3 * HOUR))
    assert step(collecting, T0 + 4 * HOUR) == 1
    assert [one["state"] for one in said(collecting)] == ["found", "changed"]
    assert step(collecting, T0 + 4 * HOUR) == 0


def test_what_was_mended_before_anybody_asked_is_no_news(collecting: Collecting) -> None:
    """A first look at a past that has ended."""
    send(collecting, runs("orders", LOOP, 60))
    send(collecting, runs("orders", ONE, 200, begins=T0 + HOUR))
    assert step(collecting, T0 + 4 * HOUR) == 0


def test_the_app_tries_something_for_it(collecting: Collecting) -> None:
    """A registered optimization of the same operation is named, and its verdict is evidence."""
    body = ExportLogsServiceRequest()
    record = body.resource_logs.add().scope_logs.add().log_records.add(
        time_unix_nano=T0, event_name="engram.optimization"
    )  # fmt: skip
    record.attributes.extend(attributes({
        "optimization": "one query", "operation": "GET /orders/{id}", "state": "helps",
    }))  # fmt: skip
    collecting.admit(Signal.LOGS, body.SerializeToString())
    send(collecting, runs("orders", LOOP, 30))
    step(collecting, T0 + HOUR)
    (found,) = said(collecting)
    assert (found["registered"], found["registered_state"]) == ("one query", "helps")
    ((verdict,),) = collecting.rows(
        "SELECT id FROM lake.optimization WHERE json_contains(attributes, '\"one query\"') "
        "AND json_extract_string(attributes, '$.job') IS NULL"
    )
    assert verdict in found["evidence"]
    assert "'one query'" in found["content"]


# -- parts -----------------------------------------------------------------------------------------


def test_a_look_goes_back_as_far_as_it_may() -> None:
    """A quiet home by a week, a busy one by its newest spans, and always its own window."""

    def read(per_bucket: int) -> Callable[..., pl.DataFrame]:
        def rows(sql: str, values: Any) -> pl.DataFrame:
            begin, end = (one // BUCKET for one in values)
            data = [(bucket, per_bucket) for bucket in range(end - 1, begin - 1, -1)]
            return pl.DataFrame(data, schema=["bucket", "spans"], orient="row")

        return rows

    now = 1000 * DAY
    each = Window(now - BUCKET, now)
    assert period(read(10), each).since == now - 7 * DAY
    assert period(read(EACH // 10), each).since == now - 10 * BUCKET
    assert period(read(FIRST // 10), Window(0, now)).since == now - 10 * BUCKET
    assert period(read(10 * FIRST), Window(0, now)).since == now - BUCKET
    missed = Window(now - 4 * BUCKET, now)
    assert period(read(EACH), missed).since == now - 4 * BUCKET


@pytest.mark.parametrize(
    ("text", "operation", "seen", "reads"),
    [
        ("SELECT a\n FROM b WHERE id = 7", "SELECT a FROM b WHERE id = ?", True, True),
        ("SELECT a FROM b WHERE id IN (1, 2, 3)", "SELECT a FROM b WHERE id IN (?)", True, True),
        ("SELECT a FROM b WHERE n = 'it''s'", "SELECT a FROM b WHERE n = ?", True, True),
        ("SELECT a FROM b WHERE id = ?", "SELECT a FROM b WHERE id = ?", False, True),
        ("SELECT a FROM b WHERE id = $1", "SELECT a FROM b WHERE id = $?", False, True),
        ("SELECT a FROM b WHERE id = %(id)s", "SELECT a FROM b WHERE id = %(id)s", False, True),
        ("SELECT a FROM b WHERE id = :id", "SELECT a FROM b WHERE id = :id", False, True),
        ("SELECT a FROM b FOR UPDATE", "SELECT a FROM b FOR UPDATE", True, False),
        ("UPDATE b SET a = 2", "UPDATE b SET a = ?", True, False),
    ],
)
def test_names_of_queries(text: str, operation: str, seen: bool, reads: bool) -> None:
    """Without its values, and whether they can be seen."""
    row = {"family": "db", "name": "q", "statement": text, "url": None, "template": None,
           "method": None, "host": None, "rpc": None, "parameters": None}  # fmt: skip
    texts = ("statement", "url", "template", "method", "host", "rpc", "parameters")
    (made,) = named(
        pl.DataFrame([row], schema_overrides=dict.fromkeys(texts, pl.String))
    ).to_dicts()
    assert made["operation"] == operation
    assert (made["exact"] is not None) == seen
    assert made["reads"] == reads


def test_intervals_hold_what_they_promise() -> None:
    """The mean that was drawn from is in 95 % of them, within what 150 trials can tell."""
    dice = random.Random(4)
    inside = 0
    for _ in range(150):
        wasted = [dice.uniform(20, 60) for _ in range(200) if dice.random() < 0.3]
        made = per_run(wasted, 200)
        inside += made.low <= 0.3 * 40 <= made.high
    assert 0.88 <= inside / 150 <= 0.995
    inside = 0
    for _ in range(150):
        before = [dice.gauss(100, 20) for _ in range(80)]
        after = [dice.gauss(90, 20) for _ in range(80)]
        inside += difference(before, after).low <= 10 <= difference(before, after).high
    assert inside / 150 >= 0.88
    assert per_run([5.0] * 10, 10) == Interval(5.0, 5.0, 5.0)
