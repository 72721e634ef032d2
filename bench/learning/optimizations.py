"""Whether the job `optimizations` finds what is planted, and nothing else; what a pass costs.

    python bench/learning/optimizations.py [--seeds 20] [--spans 1000000]

Each seed makes a day of a shop: for each kind of waste some endpoints that have it, with sizes,
shares of runs and values by the dice, and for each kind endpoints that look alike and are in order
(`ALIKE` says why). Recall is of the planted patterns, precision of what was said. `clean` is the
same day with the look-alikes alone. Then a lake of so many spans, mostly in order: seconds of CPU
and the peak of memory of a first pass and of five minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import polars as pl

from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_read_only, attach_sql, connect
from engram.exporters.lake.schema import prepare
from engram.learning.jobs.optimizations import JOB
from engram.learning.jobs.window import Window

MS: Final = 10**6
S: Final = 1000 * MS
DAY: Final = 86_400 * S
T0: Final = 1_790_000_000 * S

COLUMNS: Final = {
    "trace_id": pl.String, "span_id": pl.String, "parent_span_id": pl.String, "name": pl.String,
    "kind": pl.Int32, "start_time_unix_nano": pl.Int64, "end_time_unix_nano": pl.Int64,
    "status_code": pl.Int32, "attributes": pl.String, "service_name": pl.String,
    "resource": pl.String, "http_request_method": pl.String, "http_route": pl.String,
    "http_response_status_code": pl.Int32, "server_address": pl.String, "error_type": pl.String,
    "db_system_name": pl.String, "gen_ai_operation_name": pl.String,
    "gen_ai_request_model": pl.String,
}  # fmt: skip


class Trace:
    """One run of an endpoint: calls, one after the other unless told otherwise."""

    def __init__(self, dice: random.Random, service: str, route: str, began: int) -> None:
        self.dice, self.service, self.route = dice, service, route
        self.id = f"{dice.getrandbits(128):032x}"
        self.root = f"{dice.getrandbits(64):016x}"
        self.at = self.began = began
        self.end = began
        self.rows: list[dict[str, Any]] = []
        self.asked = f"/{route.strip('/').split('/')[0]}/{dice.randrange(10**6)}"
        self.wait(0.5)

    def wait(self, ms: float) -> None:
        """The app's own time, in ms, give or take."""
        self.at += int(ms * MS * self.dice.uniform(0.6, 1.6))

    def span(self, name: str, ms: float, *, kind: int = 3, failed: bool = False,
             at: int | None = None, **more: Any) -> int:  # fmt: skip
        """A span that begins now, or `at`, and moves the clock if it is now; its end."""
        attributes = more.pop("attributes", {})
        began = self.at if at is None else at
        ended = began + max(1000, int(ms * MS * self.dice.lognormvariate(0, 0.2)))
        self.rows.append({
            "trace_id": self.id, "span_id": f"{self.dice.getrandbits(64):016x}",
            "parent_span_id": self.root, "name": name, "kind": kind,
            "start_time_unix_nano": began, "end_time_unix_nano": ended,
            "status_code": 2 if failed else 0, "attributes": json.dumps(attributes),
            "service_name": self.service, **more,
        })  # fmt: skip
        self.end = max(self.end, ended)
        if at is None:
            self.at = ended
            self.wait(0.05)
        return ended

    def query(self, text: str, ms: float = 2.0, **more: Any) -> int:
        """A query."""
        return self.span(text.split()[0], ms, db_system_name="postgresql",
                         attributes={"db.query.text": text}, **more)  # fmt: skip

    def get(self, path: str, ms: float = 20.0, status: int = 200, method: str = "GET",
            host: str = "inner", **more: Any) -> int:  # fmt: skip
        """A call of another service."""
        return self.span(method, ms, http_request_method=method, server_address=host,
                         http_response_status_code=status, failed=status >= 400,
                         attributes={"url.full": f"http://{host}{path}"}, **more)  # fmt: skip

    def chat(self, prompt: str, answer: str = "", ms: float = 800.0, tokens: int = 900,
             cached: int | None = None, captured: bool = True, out: int = 80,
             **more: Any) -> int:  # fmt: skip
        """A call of a model."""
        said: dict[str, Any] = {"gen_ai.usage.input_tokens": tokens,
                                "gen_ai.usage.output_tokens": out}  # fmt: skip
        if captured:
            said |= {"gen_ai.input.messages": prompt,
                     "gen_ai.output.messages": answer or f"{self.dice.random()}"}  # fmt: skip
        if cached is not None:
            said["gen_ai.usage.cache_read.input_tokens"] = cached
        return self.span("chat m-1", ms, gen_ai_operation_name="chat", gen_ai_request_model="m-1",
                         attributes=said, **more)  # fmt: skip

    def tool(self, name: str, given: str, got: str, ms: float = 120.0) -> int:
        """A call of a tool."""
        return self.span(f"execute_tool {name}", ms, kind=1, gen_ai_operation_name="execute_tool",
                         attributes={"gen_ai.tool.name": name, "gen_ai.tool.call.arguments": given,
                                     "gen_ai.tool.call.result": got})  # fmt: skip

    def closed(self) -> list[dict[str, Any]]:
        """All rows, the request's own among them."""
        self.wait(1)
        root = {
            "trace_id": self.id, "span_id": self.root, "name": f"GET {self.route}", "kind": 2,
            "start_time_unix_nano": self.began, "end_time_unix_nano": max(self.at, self.end),
            "status_code": 0, "service_name": self.service, "http_request_method": "GET",
            "http_route": self.route, "http_response_status_code": 200,
            "attributes": json.dumps({"url.path": self.asked}),
        }  # fmt: skip
        return [root, *self.rows]


Make = Callable[[Trace, random.Random, int], None]
"""What an endpoint does; the number tells its copies apart."""


def several(low: int, high: int, do: Callable[[Trace, random.Random, int], object]) -> Make:
    """Some times."""

    def make(trace: Trace, dice: random.Random, copy: int) -> None:
        for number in range(dice.randint(low, high)):
            do(trace, dice, number)

    return make


def _shards(trace: Trace, dice: random.Random, copy: int) -> None:
    at = trace.at
    trace.at = max(trace.query(f"SELECT part FROM shard WHERE tenant = {n}", 20, at=at)
                   for n in range(8))  # fmt: skip


def _different(trace: Trace, dice: random.Random, copy: int) -> None:
    for table in ("users", "carts", "prices", "stock", "offers", "banners", "visits"):
        trace.query(f"SELECT * FROM {table} WHERE id = {dice.randrange(10**6)}", 9)


def _transaction(trace: Trace, dice: random.Random, copy: int) -> None:
    for _ in range(6):
        trace.query("BEGIN", 1)
        trace.query("COMMIT", 9)


def _pages(trace: Trace, dice: random.Random, copy: int) -> None:
    for page in range(dice.randint(6, 9)):
        trace.get(f"/v1/all?page={page}", 30)


def _polling(trace: Trace, dice: random.Random, copy: int) -> None:
    job = dice.randrange(10**6)
    for _ in range(dice.randint(5, 8)):
        trace.get(f"/jobs/{job}", 8)
        trace.wait(800)


def _parts(trace: Trace, dice: random.Random, copy: int) -> None:
    at = trace.at  # what a page shows at once
    trace.at = max(trace.get(f"/{part}/{trace.asked[-2:]}", 60, at=at)
                   for part in ("head", "list", "side", "foot", "ads", "chat"))  # fmt: skip


def _written(trace: Trace, dice: random.Random, copy: int) -> None:
    for _ in range(4):
        trace.query("SELECT count(*) FROM basket WHERE owner = 'ann'", 12)
        trace.query(f"UPDATE basket SET n = {dice.randrange(99)}", 3)


def _resolvers(trace: Trace, dice: random.Random, copy: int) -> None:
    for _ in range(dice.randint(6, 15)):
        own, at = f"{dice.getrandbits(64):016x}", trace.at
        trace.query("SELECT n FROM field WHERE id = ?", 8, parent_span_id=own)
        trace.span("resolve", (trace.at - at) / MS, kind=1, at=at, span_id=own)


def _inner(trace: Trace, dice: random.Random, *, at_once: bool) -> None:
    at = trace.at
    for _ in range(7):
        own = f"{dice.getrandbits(64):016x}"
        ends = trace.span("GET /inner", 40, kind=2, at=at, span_id=own, http_request_method="GET",
                          http_route="/inner")  # fmt: skip
        asked = at + int(MS * dice.uniform(0.1, 2 if not at_once else 25))
        trace.query("SELECT v FROM visitor WHERE id = ?", 6, at=asked, parent_span_id=own)
        trace.at = max(trace.at, ends)
        at = at + MS // 10 if at_once else trace.at + MS


def _again(trace: Trace, dice: random.Random, copy: int) -> None:
    key = dice.randrange(10**6)
    for _ in range(dice.randint(3, 7)):
        if copy % 2:
            trace.query(f"SELECT name FROM settings{copy} WHERE tenant = {key}", 12)
        else:
            trace.get(f"/settings/{key}", 25, host=f"inner{copy}")
        trace.wait(2)


def _twice(trace: Trace, dice: random.Random, copy: int) -> None:
    for _ in range(2):
        trace.get("/session/7", 30)


def _vote_get(trace: Trace, dice: random.Random, copy: int) -> None:
    at = trace.at  # hedged requests
    trace.at = max(trace.get("/quote/1", 40, at=at + n * MS) for n in range(3))


def _storm(trace: Trace, dice: random.Random, copy: int) -> None:
    path = f"/pay/{dice.randrange(10**6)}"
    for _ in range(dice.randint(3, 8)):
        trace.get(path, 15, 503, method="POST", host=f"pay{copy}")
        trace.wait(3)


def _polite(trace: Trace, dice: random.Random, copy: int) -> None:
    for number in range(dice.randint(3, 5)):
        trace.get("/pay/1", 15, 503, method="POST")
        trace.wait(200 * 3**number)


def _once_more(trace: Trace, dice: random.Random, copy: int) -> None:
    for status in (503, 503, 200):
        trace.get("/pay/1", 15, status, method="POST")


def _missing(trace: Trace, dice: random.Random, copy: int) -> None:
    for _ in range(4):
        trace.get(f"/thing/{dice.randrange(10**7)}", 15, 404)


def _row(trace: Trace, dice: random.Random, copy: int) -> None:
    number = trace.asked.rsplit("/", 1)[1]
    if copy % 2:
        trace.query(f"SELECT * FROM person WHERE id = {number}", 3)
    for part in ("prices", "stock", "ratings")[: dice.randint(2, 3)] if copy % 3 else (
        "weather", "news", "traffic"
    ):  # fmt: skip
        trace.get(f"/{part}/{number}" if copy % 3 else f"/{part}", 180, host=f"{part}{copy}")


def _needs(trace: Trace, dice: random.Random, copy: int) -> None:
    trace.get(f"/account/{trace.asked.rsplit('/', 1)[1]}", 150, host="account")
    trace.get(f"/balance/{dice.randrange(10**6)}", 150, host="balance")


def _works(trace: Trace, dice: random.Random, copy: int) -> None:
    trace.get("/rules", 150, host="rules")
    trace.wait(90)
    trace.get("/prices", 150, host="prices")


def _orders(trace: Trace, dice: random.Random, copy: int) -> None:
    trace.get("/reserve", 150, method="POST", host="stock")
    trace.get("/charge", 150, method="POST", host="pay")


def _quick(trace: Trace, dice: random.Random, copy: int) -> None:
    trace.get("/flags", 12, host="flags")
    trace.get("/who", 12, host="who")


def _report(trace: Trace, dice: random.Random, copy: int) -> None:
    trace.wait(9000)
    trace.query("SELECT sum(total) FROM sales WHERE day = 3", 560)
    trace.wait(9000)


def _kept(trace: Trace, dice: random.Random, copy: int) -> None:
    number = dice.randrange(12)
    if copy % 2:
        trace.tool(f"rate{copy}", f'{{"of": {number}}}', f"{number * 3}", 200)
    else:
        trace.chat(f"translate {copy} {number}", f"{number}", 900)


def _rate(trace: Trace, dice: random.Random, copy: int) -> None:
    trace.tool("price_now", f'{{"of": {dice.randrange(12)}}}', f"{dice.random()}", 200)


def _fast(trace: Trace, dice: random.Random, copy: int) -> None:
    trace.tool("add", f"[{dice.randrange(3)}]", "3", 2)


def _prompt(trace: Trace, dice: random.Random, copy: int) -> None:
    text = f"question {dice.random()}"
    for _ in range(dice.randint(2, 3)):
        trace.chat(text, ms=500)


def _vote(trace: Trace, dice: random.Random, copy: int) -> None:
    text, at = f"question {dice.random()}", trace.at
    trace.at = max(trace.chat(text, at=at + n * MS) for n in range(3))


def _talk(trace: Trace, dice: random.Random, copy: int) -> None:
    text = f"begin {dice.random()}"
    for _ in range(4):
        text += f" {dice.random()}"
        trace.chat(text)


def _silent(trace: Trace, dice: random.Random, copy: int) -> None:
    for _ in range(3):
        trace.chat("", captured=False)


def _tool_twice(trace: Trace, dice: random.Random, copy: int) -> None:
    given = f'{{"city": "{dice.random()}"}}'
    got = f"{dice.random()}"
    for _ in range(dice.randint(2, 4)):
        trace.tool(f"weather{copy}", given, got)
        trace.chat(f"and now? {dice.random()}", ms=300)


def _clock(trace: Trace, dice: random.Random, copy: int) -> None:
    for _ in range(3):
        trace.tool("clock", "{}", f"{dice.random()}")


def _long(cached: int | None, same: bool = True) -> Make:
    def make(trace: Trace, dice: random.Random, copy: int) -> None:
        start = f"{copy} " if same else f"{dice.random()} "
        trace.chat(start + "rule " * 3000 + f"{dice.random()}", tokens=3100, cached=cached)

    return make


def _messages(*texts: str) -> str:
    return json.dumps([{"role": "user", "parts": [{"type": "text", "content": text}]}
                       for text in texts])  # fmt: skip


def _words(dice: random.Random, count: int) -> str:
    return " ".join(f"w{dice.randrange(10**6)}" for _ in range(count))


def _pasted(trace: Trace, dice: random.Random, copy: int) -> None:
    page = _words(dice, dice.randint(700, 1500))
    texts = [_words(dice, dice.randint(20, 300)), *[page] * dice.randint(2, 3), "go on"]
    dice.shuffle(texts)
    asked = _messages(*texts)
    trace.chat(asked, tokens=len(asked) // 4)


def _history_twice(trace: Trace, dice: random.Random, copy: int) -> None:
    texts: list[str] = []
    for _ in range(3):  # what was said is appended again, with all that was before
        texts += [*texts, _words(dice, dice.randint(300, 600))]
        asked = _messages(*texts)
        trace.chat(asked, tokens=len(asked) // 4)


def _growing(trace: Trace, dice: random.Random, copy: int) -> None:
    texts: list[str] = []
    for _ in range(dice.randint(3, 6)):
        texts += [_words(dice, dice.randint(200, 600)), "yes", "yes"]
        asked = _messages(*texts)
        trace.chat(asked, tokens=len(asked) // 4)


def _short_twice(trace: Trace, dice: random.Random, copy: int) -> None:
    rule = _words(dice, 100)
    asked = _messages(rule, _words(dice, 900), rule)
    trace.chat(asked, tokens=len(asked) // 4)


def _sized(sizes: Callable[[random.Random, bool], float],
           out: Callable[[random.Random, bool], float], share: float = 0.15,
           fails: tuple[float, float] = (0.03, 0.03)) -> Make:  # fmt: skip
    """Calls of some sizes, few large; how they answer and fail, the usual ones first."""

    def make(trace: Trace, dice: random.Random, copy: int) -> None:
        large = dice.random() < share
        trace.chat("", captured=False, tokens=int(sizes(dice, large)), out=int(out(dice, large)),
                   failed=dice.random() < fails[large])  # fmt: skip

    return make


def _two(
    usual: float, large: float, spread: float = 0.25
) -> Callable[[random.Random, bool], float]:
    return lambda d, big: (large if big else usual) * d.lognormvariate(0, spread)


def _checks(trace: Trace, dice: random.Random, copy: int) -> None:
    given = f"{dice.random()}"
    for _ in range(3):
        trace.tool("unit_tests", given, "1 failed")
        trace.tool(dice.choice(("edit_file", "write", "applyPatch")), f"{dice.random()}", "ok")


def _sends(trace: Trace, dice: random.Random, copy: int) -> None:
    for _ in range(3):
        trace.tool("send_reminder", "{}", "ok")


def _other_arguments(trace: Trace, dice: random.Random, copy: int) -> None:
    for _ in range(4):
        trace.tool("search", f"{dice.random()}", "nothing found")


PLANTED: Final[dict[str, Make]] = {
    "n_plus_one": several(6, 20, lambda t, d, n: t.query("SELECT a FROM b WHERE id = ?", 6)),
    "n_plus_one/values": several(6, 20, lambda t, d, n: t.query(
        f"SELECT name FROM person WHERE id = {d.randrange(10**7)}", 6)),
    "n_plus_one/http": several(6, 20, lambda t, d, n: t.get(
        f"/users/{d.randrange(10**6)}/name", 14)),
    "n_plus_one/insert": several(6, 20, lambda t, d, n: t.query(
        "INSERT INTO line VALUES (%s, %s)", 6)),
    "n_plus_one/resolvers": _resolvers,
    "repeated_call": _again,
    "retry_storm": _storm,
    "serial_calls": _row,
    "slow_query": lambda t, d, c: t.query(f"SELECT * FROM big{c} WHERE text LIKE '%{d.random()}%'",
                                          d.choice((200, 700, 1500, 3000))) and None,
    "cacheable": _kept,
    "same_prompt": _prompt,
    "same_tool_call": _tool_twice,
    "context_sent_again": _long(0),
    "context_twice": _pasted,
    "context_twice/history": _history_twice,
    "oversize_context": _sized(_two(2_000, 25_000), _two(200, 200)),
    "oversize_context/cut": _sized(_two(1_500, 90_000), _two(200, 120), fails=(0.02, 0.2)),
}  # fmt: skip

ALIKE: Final[dict[str, Make]] = {
    "four queries": several(2, 4, lambda t, d, n: t.query("SELECT a FROM b WHERE id = ?", 9)),
    "at once, of shards": _shards,
    "inner requests in a row": lambda t, d, c: _inner(t, d, at_once=False),
    "inner requests at once": lambda t, d, c: _inner(t, d, at_once=True),
    "seven different queries": _different,
    "transactions": _transaction,
    "pages": _pages,
    "polling": _polling,
    "parts of a page, at once": _parts,
    "read again after writing": _written,
    "twice": _twice,
    "hedged": _vote_get,
    "polite retries": _polite,
    "two retries that helped": _once_more,
    "many that are missing": _missing,
    "needs the answer": _needs,
    "work in between": _works,
    "writes in a row": _orders,
    "quick calls in a row": _quick,
    "one in 200 slow": lambda t, d, c: t.query("SELECT * FROM big WHERE id = ?",
                                               900 if d.random() < 0.005 else 20) and None,
    "not slow enough": lambda t, d, c: t.query("SELECT * FROM big WHERE id = ?", 300) and None,
    "slow, in a long job": _report,
    "another answer each time": _rate,
    "not worth a cache": _fast,
    "a vote": _vote,
    "a conversation": _talk,
    "nothing captured": _silent,
    "a tool that tells the time": _clock,
    "cached by the provider": _long(2900),
    "nothing known of the cache": _long(None),
    "long and new": _long(0, same=False),
    "grows": _growing,
    "a short text twice": _short_twice,
    "sizes that vary": _sized(_two(2_000, 2_000, 0.8), _two(200, 200)),
    "sizes that vary much": _sized(_two(2_000, 2_000, 1.6), _two(200, 200)),
    "turns of conversations": _sized(lambda d, b: 1_500 * (1 + int(d.expovariate(0.2))),
                                     _two(200, 200)),
    "long ones answer more": _sized(_two(2_000, 25_000), _two(200, 600)),
    "long ones fail less": _sized(_two(2_000, 25_000), _two(200, 200), 0.15, (0.3, 0.0)),
    "two uses": _sized(_two(2_000, 25_000), _two(200, 200), 0.5),
    "large, but little": _sized(_two(300, 2_500), _two(200, 200)),
    "checks after a change": _checks,
    "a tool that does something": _sends,
    "a tool with other arguments": _other_arguments,
}  # fmt: skip


def day(
    seed: int, *, planted: bool, runs: int = 120
) -> tuple[list[dict[str, Any]], set[tuple[str, str]]]:
    """Rows of a day, and (kind, entry) of what is planted in it."""
    dice = random.Random(seed)
    rows: list[dict[str, Any]] = []
    truth: set[tuple[str, str]] = set()
    for number, (name, make) in enumerate([*PLANTED.items(), *ALIKE.items()]):
        is_planted = name in PLANTED
        if is_planted and not planted:
            continue
        for copy in range(2 if is_planted else 1):
            copy += 2 * dice.randrange(2)
            service, route = f"service-{number % 7}", f"/{_word(number)}{_word(copy)}/{{id}}"
            share = dice.choice((0.15, 0.5, 1.0)) if is_planted else 1.0
            if name.split("/")[0] in ("slow_query", "cacheable", "oversize_context"):
                share = 1.0
            for _ in range(runs if share > 0.2 else 3 * runs):
                trace = Trace(dice, service, route, T0 + dice.randrange(DAY))
                if name in ("cacheable", "context_sent_again", "cached by the provider",
                            "nothing known of the cache", "long and new"):  # fmt: skip
                    trace = Trace(dice, service, route, T0 + dice.randrange(DAY // 12))
                trace.query("SELECT * FROM visitor WHERE id = ?", 2)
                if dice.random() < share:
                    make(trace, dice, copy)
                rows += trace.closed()
            if is_planted:
                truth.add((name.split("/")[0], f"GET {route}"))
    dice.shuffle(rows)
    return rows, truth


def _word(number: int) -> str:
    return "".join(chr(97 + int(digit)) for digit in str(number + 100))


def stored(home: Home, rows: list[dict[str, Any]]) -> None:
    """A lake with these spans."""
    home.create()
    lake = connect(threads=2, memory_limit="1GB")
    lake.execute(attach_sql(home, read_only=False))
    lake.execute("USE lake")
    prepare(lake)
    frame = pl.DataFrame(rows, schema=COLUMNS).with_columns(  # noqa: F841 - named in the SQL
        pl.lit('{"service.version":"1.0"}').alias("resource")
    )
    lake.execute("INSERT INTO lake.spans BY NAME SELECT * FROM frame ORDER BY start_time_unix_nano")
    lake.close()


def reading(home: Home, memory: str = "512MB") -> tuple[Callable[..., pl.DataFrame], Any]:
    """As the runner reads."""
    lake = attach_read_only(home, threads=1, memory_limit=memory)

    def read(sql: str, values: Any = ()) -> pl.DataFrame:
        return lake.execute(sql, list(values)).pl()

    return read, lake


def said(rows: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """(kind, entry) of what the job says of a lake."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        stored(home, rows)
        read, lake = reading(home)
        found = JOB.run(read, Window(0, T0 + DAY + S))
        pairs = {(str(one.facts["kind"]), str(one.facts["entry"])) for one in found}
        lake.close()
        return pairs


def quality(seeds: int) -> None:
    hits, planted, wrong, clean = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for seed in range(seeds):
        rows, truth = day(seed, planted=True)
        found = said(rows)
        for kind, _ in truth:
            planted[kind] += 1
        for kind, _ in found & truth:
            hits[kind] += 1
        for kind, entry in found - truth:
            wrong[kind] += 1
            print(f"wrong (seed {seed}): {kind} {entry}")
        for kind, entry in truth - found:
            print(f"missed (seed {seed}): {kind} {entry}")
        for kind, entry in said(day(seed + 10_000, planted=False)[0]):
            clean[kind] += 1
            print(f"in a clean day (seed {seed}): {kind} {entry}")
    print("| kind | planted | recall | said | precision | said of clean days |")
    print("|---|---:|---:|---:|---:|---:|")
    for kind in dict.fromkeys(name.split("/")[0] for name in PLANTED):
        told = hits[kind] + wrong[kind]
        recall = hits[kind] / max(1, planted[kind])
        print(f"| `{kind}` | {planted[kind]} | {recall:.3f} | {told} | "
              f"{hits[kind] / max(1, told):.3f} | {clean[kind]} |")  # fmt: skip


def cost(spans: int) -> None:
    """Of processes of their own, so that the peak is theirs."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        _filled(home, spans)
        for since in ("0", "300"):
            subprocess.run([sys.executable, __file__, "--measure", folder, since], check=True)


def _filled(home: Home, spans: int) -> None:
    rows = day(1, planted=True, runs=20)[0]
    rows += [row for seed in range(2, 6) for row in day(seed, planted=False)[0]]
    stored(home, rows)
    writer = connect(threads=2, memory_limit="1GB")
    writer.execute(attach_sql(home, read_only=False))
    copies = max(2, round(spans / len(rows)))
    writer.execute(
        "INSERT INTO lake.spans SELECT * EXCLUDE (n) REPLACE (md5(trace_id || n) AS trace_id, "
        "start_time_unix_nano + n * 10000019 AS start_time_unix_nano, "
        "end_time_unix_nano + n * 10000019 AS end_time_unix_nano) "
        f"FROM lake.spans, range(1, {copies}) AS t(n) ORDER BY start_time_unix_nano"
    )
    writer.close()


def _peak() -> float:
    """MB, of this process since it began: what its parent had does not count."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(folder: str, seconds: int) -> None:
    read, lake = reading(Home(Path(folder) / "home"))
    total = int(read("SELECT count(*) AS n FROM lake.spans")["n"][0])
    ends = int(read("SELECT max(end_time_unix_nano) AS n FROM lake.spans")["n"][0]) + 1
    before = _peak()
    began = time.process_time()
    found = list(JOB.run(read, Window(ends - seconds * S if seconds else 0, ends)))
    used = time.process_time() - began
    peak = _peak()
    name = "five minutes" if seconds else "a first pass"
    print(f"{name} over a lake of {total:,} spans: {used:.1f} s of CPU, peak {peak:,.0f} MB "
          f"({before:,.0f} before), {len(found)} insights")  # fmt: skip
    lake.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--spans", type=int, default=0)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure[0], int(options.measure[1]))
        return
    if options.seeds:
        quality(options.seeds)
    if options.spans:
        cost(options.spans)


if __name__ == "__main__":
    main()
