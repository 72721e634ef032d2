"""Enrichment: what a trace knows reaches its memories, in whatever order it arrives."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.learning.home import Collecting
from tests.telemetry import STACK, T0, attributes, span_id, trace_id

from engram.exporters import own
from engram.exporters.ask import NotRunning, ask
from engram.exporters.errors import EngramError
from engram.exporters.home import Home
from engram.exporters.merge import PRIORITISED
from engram.exporters.signals import Signal
from engram.learning import enrich
from engram.learning.enrich import Enricher, Patch, request
from engram.learning.indexer import Indexer
from engram.learning.inherit import NOTHING, Found
from engram.learning.search import search

TRACES = itertools.count(1000)
"""Traces of the home that most tests share."""

_MS = 1_000_000
ROOT, MIDDLE, CHILD, AGENT, MODEL, OTHER = 1, 2, 3, 4, 5, 6
_ERROR = {
    "exception.type": "TimeoutError",
    "exception.message": "gateway did not answer within 3000 ms",
    "exception.stacktrace": STACK,
}


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[Collecting]:
    """A home that was never used."""
    made = Collecting(Home(tmp_path / "home"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collecting]:
    """One home for many traces."""
    made = Collecting(Home(tmp_path_factory.mktemp("enrich") / "home"))
    yield made
    made.close()


def span(trace: int, own_id: int, parent: int | None, name: str, **more: Any) -> Span:
    """A span of 100 ms."""
    made = Span(
        trace_id=trace_id(trace), span_id=span_id(own_id), name=name, kind=more.pop("kind", 1),
        parent_span_id=span_id(parent) if parent else b"", start_time_unix_nano=T0 + own_id * _MS,
        end_time_unix_nano=T0 + 100 * _MS,
    )  # fmt: skip
    made.attributes.extend(attributes(more.pop("says", {})))
    assert not more
    return made


def failing(trace: int, own_id: int = CHILD, parent: int | None = MIDDLE) -> Span:
    """A call that fails with an exception event, and knows no user."""
    made = span(trace, own_id, parent, "charge", kind=3)
    made.status.code = Status.STATUS_CODE_ERROR
    made.events.add(name="exception", time_unix_nano=T0 + 50 * _MS, attributes=attributes(_ERROR))
    return made


def log(trace: int, of: int, said: str, **more: Any) -> LogRecord:
    """A log of a span."""
    made = LogRecord(
        time_unix_nano=T0 + 51 * _MS, trace_id=trace_id(trace), span_id=span_id(of),
        severity_number=more.pop("severity", SeverityNumber.SEVERITY_NUMBER_INFO),
        event_name=more.pop("event", ""), attributes=attributes(more.pop("says", {})),
    )  # fmt: skip
    made.body.string_value = said
    assert not more
    return made


def story(trace: int, *, root_knows: bool = True, another: bool = False) -> list[Any]:
    """A request of u1 that asks a model and fails; `another` user appears beside the way up."""
    whose = {"user.id": "u1", "session.id": "s1"}
    chat = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "m-1", "gen_ai.response.id": "resp"}  # fmt: skip
    messages = {
        "gen_ai.input.messages": json.dumps([{"role": "user", "content": "Where is my order?"}]),
        "gen_ai.output.messages": json.dumps([{"role": "assistant", "content": "Sent."}]),
    }
    records = [
        span(trace, ROOT, None, "POST /orders", kind=2,
             says={"http.request.method": "POST", "http.route": "/orders",
                   **(whose if root_knows else {})}),
        span(trace, MIDDLE, ROOT, "place", says={} if root_knows else whose),
        failing(trace),
        log(trace, MIDDLE, "order failed", severity=17, says=_ERROR),
        span(trace, AGENT, ROOT, "invoke_agent", says={"gen_ai.operation.name": "invoke_agent",
                                                       "gen_ai.conversation.id": "c1"}),
        span(trace, MODEL, AGENT, "chat m-1", kind=3, says=chat),
        log(trace, MODEL, "", event="gen_ai.client.inference.operation.details",
            says=chat | messages),
    ]  # fmt: skip
    if another:
        records.append(span(trace, OTHER, ROOT, "notify", says={"user.id": "u2"}))
    return records


_COMPARED = (
    "type, time_unix_nano, end_time_unix_nano, title, content, importance, tags, service_name, "
    "user_id, session_id, conversation_id, subject, fingerprint, outcome, duration_ns, span_id, "
    "attributes, index_as, len(sources), source, trust, ranks, rules_version"
)


def final(collecting: Collecting, trace: int) -> list[tuple[Any, ...]]:
    """The rows of a trace, without what tells one trace from another."""
    return collecting.rows(
        f"SELECT {_COMPARED} FROM memories WHERE trace_id = ? ORDER BY ALL",
        [trace_id(trace).hex()],
    )


def settle(collecting: Collecting, enricher: Enricher) -> int:
    """Enrich until nothing changes."""
    total = 0
    for _ in range(10):
        sent = enricher.step()
        total += sent
        collecting.commit()
        if not sent and enricher.step() == 0:
            return total
    raise AssertionError("never done")


def users(collecting: Collecting, trace: int) -> dict[str, tuple[Any, ...]]:
    """{type: (user, session, conversation)} of what is kept by itself."""
    rows = collecting.rows(
        "SELECT type, user_id, session_id, conversation_id FROM memories "
        "WHERE trace_id = ? AND index_as = 'memory'",
        [trace_id(trace).hex()],
    )
    assert len(rows) == len({row[0] for row in rows})
    return {row[0]: row[1:] for row in rows}


# ------------------------------------------------------------------------------- the order


def test_any_order_gives_the_same_rows(shared: Collecting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Child error, model call and root with user arrive in any order and split: one result.

    Near passes look at nothing older than their commits, as if hours lay between these, and
    the enricher dies between two of them.
    """
    monkeypatch.setattr(enrich, "_NEAR_BACK_S", 0.0)
    ours = "system_error", "ai_response", "user_interaction"
    # Beside the way up from the model call, and no root that says: rather none than another's.
    unclear = {"system_error": "u1", "ai_response": "", "user_interaction": ""}

    def sent(batches: list[list[int]], **how: bool) -> list[tuple[Any, ...]]:
        trace = next(TRACES)
        records = story(trace, **how)
        enricher = Enricher(shared.home, deep_s=0)
        for at, batch in enumerate(batches):
            shared.send(*(records[one] for one in batch))
            enricher.step()
            if at == len(batches) // 2:
                enricher.close()
                enricher = Enricher(shared.home, deep_s=0)
        settle(shared, enricher)
        enricher.close()
        return final(shared, trace)

    @cache
    def at_once(root_knows: bool, another: bool) -> list[tuple[Any, ...]]:
        size = len(story(0, another=another))
        rows = sent([list(range(size))], root_knows=root_knows, another=another)
        found = {row[0]: row[8] for row in rows if row[17] == "memory"}
        wanted = unclear if another and not root_knows else dict.fromkeys(ours, "u1")
        assert found == wanted
        assert {row[9:11] for row in rows if row[17] == "memory"} == {("s1", "c1")}
        return rows

    @settings(max_examples=6, deadline=None, database=None)
    @given(st.booleans(), st.booleans(), st.data())
    def any_order(root_knows: bool, another: bool, data: st.DataObject) -> None:
        order = data.draw(st.permutations(range(len(story(0, another=another)))))
        cuts = sorted(data.draw(st.sets(st.integers(1, len(order) - 1), min_size=1, max_size=5)))
        bounds = zip([0, *cuts], [*cuts, len(order)], strict=True)
        batches = [order[low:high] for low, high in bounds]
        how = {"root_knows": root_knows, "another": another}
        assert sent(batches, **how) == at_once(root_knows, another)

    any_order()


def test_a_root_that_is_late(shared: Collecting) -> None:
    """The child is remembered first; its user comes with the root, and nothing is there twice."""
    trace = next(TRACES)
    enricher = Enricher(shared.home)
    settle(shared, enricher)
    root, *rest = story(trace)
    shared.send(*rest)
    settle(shared, enricher)
    assert users(shared, trace)["system_error"] == (None, None, "c1")
    shared.send(root)
    assert settle(shared, enricher) == 3
    assert users(shared, trace)["system_error"] == ("u1", "s1", "c1")
    assert enricher.step() == 0
    again = Enricher(shared.home, deep_s=0)
    again._marks = {"near": {}, "deep": {}}
    before = final(shared, trace), shared.rows("SELECT count(*) FROM logs")
    assert settle(shared, again) == 0, "looking at all of it again finds nothing new"
    assert (final(shared, trace), shared.rows("SELECT count(*) FROM logs")) == before


def test_a_trace_without_root(shared: Collecting) -> None:
    """What the rest of the trace says is taken, for as long as it says one thing."""
    trace = next(TRACES)
    enricher = Enricher(shared.home, deep_s=0)
    shared.send(failing(trace), span(trace, OTHER, 99, "endpoint", says={"user.id": "u7"}))
    settle(shared, enricher)
    assert users(shared, trace)["system_error"][0] == "u7"
    shared.send(span(trace, AGENT, 99, "other", says={"enduser.id": "u8"}))
    settle(shared, enricher)
    assert users(shared, trace)["system_error"][0] == "", "two, and nobody says whose it is"


def test_other_spellings(shared: Collecting) -> None:
    """Names that only the rules read come by the memory that was made of them."""
    trace = next(TRACES)
    says = {
        "gen_ai.operation.name": "chat", "gen_ai.request.model": "m-1", "thread_id": "t3",
        "traceloop.association.properties.user_id": "u3",
        "traceloop.association.properties.session_id": "s3",
    }  # fmt: skip
    shared.send(failing(trace), span(trace, MODEL, ROOT, "chat", kind=3, says=says))
    settle(shared, Enricher(shared.home))
    assert users(shared, trace)["system_error"] == ("u3", "s3", "t3")


def test_where_the_ranks_are() -> None:
    """The place of the ranks in SQL is their place in the order of merging."""
    at = own.RANKS_AT - 1
    assert PRIORITISED[at : at + 3] == own.INHERITED


def test_volume_types_are_left_alone(shared: Collecting) -> None:
    """A memory that shares its index row gets no event: it would double what it costs."""
    trace = next(TRACES)
    call = span(trace, CHILD, ROOT, "GET", kind=3, says={"http.request.method": "GET"})
    shared.send(call, span(trace, ROOT, None, "job", says={"user.id": "u1"}))
    settle(shared, Enricher(shared.home))
    assert users(shared, trace) == {}
    assert shared.rows(
        "SELECT count(*) FROM memories WHERE trace_id = ? AND user_id IS NOT NULL",
        [trace_id(trace).hex()],
    ) == [(0,)]


# ------------------------------------------------------------------------------- the way back


def test_what_is_sent_is_a_log_and_nothing_else(collecting: Collecting) -> None:
    """An enrichment is a row of `logs` under our scope, adds no memory, no source and no tag."""
    collecting.send(failing(1))
    before = collecting.rows("SELECT id, tags, sources, title, trust FROM memories ORDER BY id")
    collecting.send(span(1, ROOT, None, "job", says={"user.id": "u1"}))
    settle(collecting, Enricher(collecting.home))
    after = "SELECT id, tags, sources, title, trust FROM memories ORDER BY id"
    assert collecting.rows(after) == before
    assert collecting.rows("SELECT scope_name, service_name, event_name, user_id FROM logs") == [
        (own.SCOPE, own.SERVICE, own.ENRICHMENT, "u1")
    ]


def test_the_record_itself_is_believed_before_the_trace(shared: Collecting) -> None:
    """A record that says its own user takes the place of what was inferred, without a trace."""
    trace = next(TRACES)
    shared.send(failing(trace), span(trace, ROOT, None, "job", says={"user.id": "u1"}))
    settle(shared, Enricher(shared.home))
    assert users(shared, trace)["system_error"][0] == "u1"
    shared.send(log(trace, CHILD, "failed", severity=17, says=_ERROR | {"user.id": "u5"}))
    settle(shared, Enricher(shared.home))
    assert users(shared, trace)["system_error"][0] == "u5"
    which = "WHERE trace_id = ?", [trace_id(trace).hex()]
    ((ranks,),) = shared.rows(f"SELECT ranks FROM memories {which[0]}", which[1])
    assert ranks[own.RANKS_AT - 1] == "4"


def test_a_memory_that_is_gone_stays_gone(collecting: Collecting) -> None:
    """An enrichment whose memory is not there makes none; one that names nonsense neither."""
    found = Found(("u1", None, None), ("-", "", ""))
    for id_ in ("0" * 24, "nonsense"):
        collecting.admit(Signal.LOGS, request([Patch((id_,), T0, found)]))
    collecting.commit()
    assert collecting.rows("SELECT count(*) FROM memories") == [(0,)]
    assert collecting.rows("SELECT count(*) FROM logs") == [(2,)]


def test_an_old_memory_is_found(shared: Collecting, monkeypatch: pytest.MonkeyPatch) -> None:
    """A memory that the writer has forgotten about is merged and not written beside itself."""
    trace = next(TRACES)
    shared.send(failing(trace))
    lake: list[Any] = []
    shared.engine._in_committer(lake.append, time.monotonic() + 20)
    monkeypatch.setattr(lake[0]._recent_ids, "new", lambda hashes: hashes == hashes)
    shared.engine._in_committer(lambda lake: lake._forget_frames(), time.monotonic() + 20)
    shared.send(span(trace, ROOT, None, "job", says={"user.id": "u1"}))
    settle(shared, Enricher(shared.home))
    assert users(shared, trace)["system_error"][0] == "u1"


def test_nobody_collects(shared: Collecting) -> None:
    """While collect is away nothing is lost: the watermark waits, and so does the enricher."""
    trace = next(TRACES)
    shared.send(*story(trace))
    shared.control.shutdown()
    enricher = Enricher(shared.home)
    with pytest.raises(NotRunning):
        enricher.step()
    shared.control.start()
    assert settle(shared, Enricher(shared.home)) > 0
    assert users(shared, trace)["system_error"] == ("u1", "s1", "c1")


def test_catching_up_in_slices(collecting: Collecting, monkeypatch: pytest.MonkeyPatch) -> None:
    """After days off it is looked at commit by commit, and the watermark moves with each slice."""
    monkeypatch.setattr(enrich, "_SLICE", 3)
    for trace in range(1, 7):
        collecting.send(*story(trace))
    enricher = Enricher(collecting.home)
    stop = threading.Event()
    stop.set()
    enricher.step(stop)
    kept = json.loads((collecting.home.root / "learn" / "enrich.json").read_text())
    (mark,) = kept["near"].values()
    assert 0 < mark < 6
    settle(collecting, Enricher(collecting.home))
    for trace in range(1, 7):
        assert users(collecting, trace)["system_error"] == ("u1", "s1", "c1")


def test_damaged_watermarks(shared: Collecting) -> None:
    """What a power cut left of the file is worth looking at all again."""
    trace = next(TRACES)
    path = shared.home.root / "learn" / "enrich.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"near": [')
    shared.send(*story(trace))
    assert settle(shared, Enricher(shared.home)) > 0


def test_nothing_is_no_error(tmp_path: Path) -> None:
    """A home without a lake is waited for, without a file made in it."""
    enricher = Enricher(Home(tmp_path / "none"))
    assert enricher.step() == 0
    enricher.close()
    assert not (tmp_path / "none").exists()


def test_idle_costs_nothing(shared: Collecting, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing is committed, nothing is asked."""
    trace = next(TRACES)
    shared.send(*story(trace))
    enricher = Enricher(shared.home)
    settle(shared, enricher)

    def never(*_: Any) -> Any:
        raise AssertionError("asked")

    monkeypatch.setattr(enricher, "_ask", never)
    assert enricher.step() == 0


def test_the_index_learns_the_user(shared: Collecting) -> None:
    """An enriched memory is indexed again, so search by user finds it."""
    trace = next(TRACES)
    indexer = Indexer(shared.home)
    shared.send(*story(trace)[1:])
    while indexer.step():
        pass

    def found(**only: Any) -> set[str]:
        hits = search(
            shared.home, "gateway did not answer", types=["system_error"], limit=100, **only
        )
        return {hit.id for hit in hits}

    before = found(user_id="u1")
    shared.send(story(trace)[0])
    settle(shared, Enricher(shared.home))
    assert users(shared, trace)["system_error"] == ("u1", "s1", "c1")
    while indexer.step():
        pass
    (mine,) = found(user_id="u1") - before
    assert mine in found(session_id="s1")
    indexer.close()


# ------------------------------------------------------------------------------- processes


def test_append_by_the_control_socket(shared: Collecting) -> None:
    """What is no OTLP is refused in words, and nothing of it is logged."""
    for name, body in (("logs", b"\x00"), ("x", b""), ("logs", b"\x0a\xff")):
        with pytest.raises(EngramError, match="append: "):
            ask(shared.home, "append", timeout_s=9.0, signal=name, body=body)
    assert shared.engine.end == shared.engine.committed


_LEARN = """
import sys, threading
from engram.exporters.home import Home
from engram.learning import enrich
enrich.NEAR_S = 0.05
print("up", flush=True)
enrich.Enricher(Home.find(sys.argv[1]), deep_s=0.2).run(threading.Event())
"""


def test_killed_at_any_time(collecting: Collecting) -> None:
    """An enricher that is killed again and again ends with the rows of one that was not."""
    for trace in range(1, 5):
        root, *rest = story(trace)
        collecting.send(*rest)
        with subprocess.Popen(
            [sys.executable, "-c", _LEARN, str(collecting.home.root)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            if trace % 2:
                process.stdout.readline()
            collecting.send(root)
            os.kill(process.pid, signal.SIGKILL)
    settle(collecting, Enricher(collecting.home, deep_s=0))
    collecting.send(*story(50))
    settle(collecting, Enricher(collecting.home))
    for trace in range(1, 5):
        assert final(collecting, trace) == final(collecting, 50)


def test_request_is_deterministic() -> None:
    """The same finding is the same bytes, so a repeated one is dropped as a re-send."""
    found = Found(("u1", None, "c1"), ("-", "", "0"))
    patch = Patch(("ab" * 12, "cd" * 12), T0, found)
    assert request([patch]) == request([patch])
    assert request([Patch(("ab" * 12,), -5, Found(NOTHING, ("", "", "")))])
