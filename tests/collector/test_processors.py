"""The processors: what they change, drop and count, and that a replay does it again."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.durability import load
from tests.telemetry import attributes

from engram.collector.config import ENGINE_TYPES, Config, parse
from engram.collector.ottl import values
from engram.collector.processors.chain import for_memory
from engram.collector.processors.sampling import bucket, kept_buckets
from engram.collector.roles.collect import engine_settings
from engram.exporters import own
from engram.exporters.engine import Engine
from engram.exporters.errors import ConfigError
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_read_only
from engram.exporters.otlp.wire import OFFICIAL_REQUEST
from engram.exporters.signals import Encoding, Process, Signal


def config(processors: str, order: str, logs: str | None = None) -> Config:
    """A configuration whose pipelines list these processors."""
    own = order if logs is None else logs
    engines = ", ".join(one for one in order.split(", ") if one in ENGINE_TYPES)
    return parse(
        f"""
receivers: {{otlp: }}
processors:
  batch: {{timeout: 50ms}}
  redaction:
  memory_limiter:
{processors}
exporters: {{memory: }}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [batch, {order}], exporters: [memory]}}
    logs: {{receivers: [otlp], processors: [batch, {own}], exporters: [memory]}}
    metrics: {{receivers: [otlp], processors: [batch, {engines}], exporters: [memory]}}
""",
        Path("x.yaml"),
        {},
    )


def chain(processors: str, order: str, logs: str | None = None) -> Process:
    """What stands before the decoder."""
    found = for_memory(config(processors, order, logs))
    assert found is not None
    return found


def spans(*names: str, **more: Any) -> Any:
    """A request of spans with these names, each with attribute `n`, in one resource."""
    request = OFFICIAL_REQUEST[Signal.TRACES]()
    resource = request.resource_spans.add()
    resource.resource.attributes.extend(attributes({"service.name": "shop", "env": "dev"}))
    scope = resource.scope_spans.add()
    for number, name in enumerate(names):
        trace, span = load.ids(name)
        one = scope.spans.add(name=name, trace_id=trace, span_id=span, kind=2)
        one.attributes.extend(attributes({"n": number, **more}))
    return request


def run(process: Process, request: Any, signal: Signal = Signal.TRACES) -> tuple[Any, Any]:
    """The request behind the processors, and what was dropped."""
    done = process(signal, request.SerializeToString())
    assert process(signal, request.SerializeToString()).body == done.body
    return OFFICIAL_REQUEST[signal].FromString(done.body), dict(done.dropped)


def records(request: Any) -> list[Any]:
    """All spans or log records of a request."""
    outer = request.resource_spans if hasattr(request, "resource_spans") else request.resource_logs
    return [
        one
        for resource in outer
        for scope in (
            resource.scope_spans if hasattr(resource, "scope_spans") else resource.scope_logs
        )
        for one in (scope.spans if hasattr(scope, "spans") else scope.log_records)
    ]


# -- each processor --------------------------------------------------------------------------------


ACTIONS = """
  attributes:
    actions:
      - {key: env, value: prod, action: insert}
      - {key: n, value: 7, action: update}
      - {key: none, value: 7, action: update}
      - {key: copy, from_attribute: url, action: upsert}
      - {key: absent, from_attribute: nothing, action: upsert}
      - {key: url, pattern: '/users/(?P<user>\\d+)/(?<what>\\w+)', action: extract}
      - {key: user, action: convert, converted_type: int}
      - {pattern: '^mail', action: hash}
      - {key: url, action: delete}
"""


def test_attributes_actions() -> None:
    """All seven actions, in their order."""
    done, _ = run(chain(ACTIONS, "attributes"), spans("a", url="/users/42/edit", mail="a@b.c"))
    found = values.as_dict(records(done)[0].attributes)
    assert found == {
        "n": 7,
        "mail": hashlib.sha256(b"a@b.c").hexdigest(),
        "env": "prod",
        "copy": "/users/42/edit",
        "user": 42,
        "what": "edit",
    }


def test_attributes_include_and_exclude() -> None:
    """Only what matches `include`, and not what matches `exclude`, is changed."""
    text = """
  attributes:
    include:
      {match_type: regexp, span_names: ['^a'], services: [shop], span_kinds: [SPAN_KIND_SERVER]}
    exclude: {match_type: strict, attributes: [{key: n, value: 1}]}
    actions: [{key: seen, value: true, action: upsert}]
"""
    done, _ = run(chain(text, "attributes"), spans("a0", "a1", "b2"))
    seen = [values.find(one.attributes, "seen") is not None for one in records(done)]
    assert seen == [True, False, False]


def test_resource_actions() -> None:
    """The resource is changed once for all its records."""
    text = """
  resource:
    attributes: [{key: env, value: prod, action: upsert}, {key: service.name, action: delete}]
"""
    done, _ = run(chain(text, "resource"), spans("a", "b"))
    assert values.as_dict(done.resource_spans[0].resource.attributes) == {"env": "prod"}


def test_filter_drops_and_counts() -> None:
    """Any condition drops; scopes and resources that are empty by it go too."""
    text = """
  filter: {traces: {span: ['name == "b"', 'attributes["n"] == 2']}}
"""
    process = chain(text, "filter")
    done, dropped = run(process, spans("a", "b", "c"))
    assert [one.name for one in records(done)] == ["a"]
    assert dropped == {"filter": 2}
    done = process(Signal.TRACES, spans("b").SerializeToString())
    assert (done.body, dict(done.dropped)) == (b"", {"filter": 1})


def test_filter_resources_events_points() -> None:
    """Conditions on a resource drop all of it; events and points can be dropped alone."""
    text = """
  filter:
    traces: {resource: ['attributes["env"] == "none"'], spanevent: ['name == "x"']}
    logs: {log_record: ['severity_number < SEVERITY_NUMBER_WARN']}
    metrics: {datapoint: ['value_int > 2'], metric: ['name == "gone"']}
"""
    process = for_memory(parse(_with_metrics(text), Path("x.yaml"), {}))
    assert process is not None
    request = spans("a")
    span = records(request)[0]
    span.events.add(name="x")
    span.events.add(name="y")
    done, dropped = run(process, request)
    assert [one.name for one in records(done)[0].events] == ["y"]
    assert dropped == {"filter": 1}
    request = OFFICIAL_REQUEST[Signal.METRICS]()
    found = request.resource_metrics.add().scope_metrics.add().metrics
    found.add(name="gone").gauge.data_points.add(as_int=1)
    found.add(name="empty").gauge.data_points.add(as_int=3)
    kept = found.add(name="kept").gauge.data_points
    kept.add(as_int=1)
    kept.add(as_int=3)
    done, dropped = run(process, request, Signal.METRICS)
    assert dropped == {"filter": 3}
    assert [one.name for one in done.resource_metrics[0].scope_metrics[0].metrics] == ["kept"]


def _with_metrics(text: str) -> str:
    own = "{receivers: [otlp], processors: [filter], exporters: [memory]}"
    return f"""
receivers: {{otlp: }}
processors:
{text}
exporters: {{memory: }}
service: {{pipelines: {{traces: {own}, logs: {own}, metrics: {own}}}}}
"""


def test_transform_in_order_with_conditions() -> None:
    """Statements run one after the other; a group's conditions are joined by or."""
    text = r"""
  transform:
    trace_statements:
      - set(span.attributes["at"], resource.attributes["env"])
      - context: span
        conditions: ['name == "a"', 'name == "b"']
        statements:
          - set(attributes["was"], name)
          - replace_pattern(name, "^(.)$$", "<$$1>")
      - statements: ['set(resource.attributes["env"], "gone")']
"""
    done, dropped = run(chain(text, "transform"), spans("a", "b", "c"))
    assert [one.name for one in records(done)] == ["<a>", "<b>", "c"]
    assert values.as_dict(records(done)[0].attributes) == {"n": 0, "at": "dev", "was": "a"}
    assert values.as_dict(done.resource_spans[0].resource.attributes)["env"] == "gone"
    assert dropped == {}


def test_error_modes() -> None:
    """A statement that fails on a record: propagate refuses the request, ignore goes on."""
    text = """
  transform:
    error_mode: %s
    trace_statements:
      - {context: span, statements: ['set(attributes["x"], 1 / attributes["n"])', 'set(name, "z")']}
"""
    done, _ = run(chain(text % "ignore", "transform"), spans("a", "b"))
    assert [one.name for one in records(done)] == ["z", "z"]
    assert values.find(records(done)[1].attributes, "x").int_value == 1
    with pytest.raises(Exception, match="processor transform: division by zero"):
        chain(text % "propagate", "transform")(Signal.TRACES, spans("a").SerializeToString())


def test_order_is_as_configured() -> None:
    """A filter before a transform sees the old name, behind it the new one."""
    text = """
  filter: {traces: {span: ['name == "new"']}}
  transform: {trace_statements: ['set(span.name, "new")']}
"""
    assert run(chain(text, "filter, transform"), spans("a"))[1] == {}
    done = chain(text, "transform, filter")(Signal.TRACES, spans("a").SerializeToString())
    assert (done.body, dict(done.dropped)) == (b"", {"filter": 1})


def test_redaction_keeps_its_place() -> None:
    """What stands behind redaction sees no secret, so it cannot copy one to where it shows."""
    text = """
  transform:
    trace_statements: ['set(span.attributes["note"], Concat([span.attributes["password"]], ""))']
"""
    secret = spans("a", password="hunter2")
    behind, _ = run(chain(text, "redaction, transform"), secret)
    assert values.find(records(behind)[0].attributes, "note").string_value == "[redacted]"
    before, _ = run(chain(text, "transform, redaction"), secret)
    assert values.find(records(before)[0].attributes, "note").string_value == "hunter2"


def test_nothing_is_paid_without_processors() -> None:
    """Redaction, batch and the memory limiter alone make no chain."""
    assert for_memory(config("", "memory_limiter, redaction")) is None
    assert engine_settings(config("", "redaction")).process is None


def test_text_that_is_no_utf8_passes() -> None:
    """A sender's broken text gets replacement characters, and the request goes on."""
    body = spans("a", mark="MARK").SerializeToString().replace(b"MARK", b"M\xff\xfeK")
    text = "\n  filter: {traces: {span: ['name == \"b\"']}}\n"
    done = chain(text, "filter")(Signal.TRACES, body)
    found = records(OFFICIAL_REQUEST[Signal.TRACES].FromString(done.body))[0]
    assert values.find(found.attributes, "mark").string_value == "M\ufffd\ufffdK"
    assert found.trace_id == load.ids("a")[0]


# -- the sampler -----------------------------------------------------------------------------------


def test_sampler_hashes_as_the_collector() -> None:
    """FNV-1a, 32 bits, the seed first (its published vector for `foobar`), and float32 shares."""
    assert bucket(bytes(4), 0) != bucket(bytes(4), 1)
    assert bucket(b"ar", int.from_bytes(b"foob", "little")) == 0xBF9CF968 & 0x3FFF
    assert (kept_buckets(100), kept_buckets(50), kept_buckets(0), kept_buckets(250)) == (
        16384, 8192, 0, 16384,
    )  # fmt: skip
    assert kept_buckets(0.001) == 0
    assert kept_buckets(1) == 163


SAMPLER = """
  probabilistic_sampler:
    {sampling_percentage: 30, hash_seed: 22, fail_closed: false, sampling_priority: important}
"""


def test_spans_and_logs_of_a_trace_are_decided_alike() -> None:
    """A share of the traces stays, whole, with their logs; the traceless by `fail_closed`."""
    process = chain(SAMPLER, "probabilistic_sampler")
    names = [f"t{number}" for number in range(400)]
    kept = {one.name for one in records(run(process, spans(*names))[0])}
    assert 80 < len(kept) < 160
    request = OFFICIAL_REQUEST[Signal.LOGS]()
    found = request.resource_logs.add().scope_logs.add().log_records
    for name in names:
        found.add(trace_id=load.ids(name)[0], severity_text=name)
    found.add(severity_text="no trace")
    found.add(severity_text="vip").attributes.extend(attributes({"important": 100}))
    found.add(trace_id=load.ids(max(kept))[0], severity_text="off").attributes.extend(
        attributes({"important": 0})
    )
    done, dropped = run(process, request, Signal.LOGS)
    assert {one.severity_text for one in records(done)} == kept | {"no trace", "vip"}
    assert dropped == {"probabilistic_sampler": 400 - len(kept) + 1}


def test_sampling_priority_of_spans() -> None:
    """`sampling.priority` decides before the hash."""
    process = chain(
        "\n  probabilistic_sampler: {sampling_percentage: 0}\n", "probabilistic_sampler"
    )
    assert len(records(run(process, spans("a", **{"sampling.priority": 1}))[0])) == 1
    full = chain("\n  probabilistic_sampler: {sampling_percentage: 100}\n", "probabilistic_sampler")
    assert (
        full(Signal.TRACES, spans("a", **{"sampling.priority": 0}).SerializeToString()).body == b""
    )


def test_what_engram_says_of_itself_passes() -> None:
    """An enrichment belongs to a memory that was kept: no sampler and no filter may drop it."""
    for process in (
        chain("\n  probabilistic_sampler: {sampling_percentage: 0}\n", "probabilistic_sampler"),
        chain("\n  filter: {logs: {log_record: ['severity_number < 9']}}\n", "filter"),
    ):
        request = OFFICIAL_REQUEST[Signal.LOGS]()
        for name in ("app", own.SCOPE):
            scope = request.resource_logs.add().scope_logs.add()
            scope.scope.name = name
            scope.log_records.add(trace_id=load.ids("t")[0], event_name=name)
        done, dropped = run(process, request, Signal.LOGS)
        assert [one.event_name for one in records(done)] == [own.SCOPE]
        assert sum(dropped.values()) == 1


# -- in the engine ---------------------------------------------------------------------------------


@contextlib.contextmanager
def engine(root: Path, parsed: Config) -> Iterator[Engine]:
    """An engine as `collect` makes it."""
    made = Engine(Home(root), engine_settings(parsed))
    made.start()
    try:
        yield made
    finally:
        made.shutdown(20)


def stored(root: Path, table: str = "spans") -> Counter[str]:
    """Names of what is stored."""
    with contextlib.closing(attach_read_only(Home(root))) as lake:
        return Counter(name for (name,) in lake.execute(f"SELECT name FROM {table}").fetchall())


BOTH = """
  filter: {traces: {span: ['name == "b"']}}
  transform: {trace_statements: ['set(span.name, Concat([span.name, "!"], ""))']}
"""


def test_dropped_records_are_counted_and_a_replay_is_the_same(tmp_path: Path) -> None:
    """Rows come out as processed; a re-send is found, and status says what an operator dropped."""
    parsed = config(BOTH, "filter, transform, redaction", logs="redaction")
    with engine(tmp_path / "h", parsed) as running:
        for _ in range(2):
            body = spans("a", "b", "c").SerializeToString()
            sent = running.admit(Signal.TRACES, body, Encoding.IDENTITY).result(10)
            running.wait_committed(sent.position, 20)
        whole = running.admit(Signal.TRACES, spans("b").SerializeToString(), Encoding.IDENTITY)
        running.wait_committed(whole.result(10).position, 20)
        status = running.status()
    assert stored(tmp_path / "h") == {"a!": 1, "c!": 1}
    assert status["dropped"] == {"filter": 3}
    assert status["duplicates"] == 2


def test_a_request_that_a_processor_cannot_do_is_quarantined(tmp_path: Path) -> None:
    """It is kept aside with the reason, and the requests beside it are stored."""
    text = """
  transform: {trace_statements: ['set(span.attributes["x"], 1 / span.attributes["n"])']}
"""
    with engine(tmp_path / "h", config(text, "transform", logs="")) as running:
        bad = spans("bad").SerializeToString()  # its first n is 0
        good = spans("good")
        records(good)[0].attributes[0].value.int_value = 1
        running.admit(Signal.TRACES, bad, Encoding.IDENTITY).result(10)
        done = running.admit(Signal.TRACES, good.SerializeToString(), Encoding.IDENTITY).result(10)
        running.wait_committed(done.position, 20)
        assert running.status()["quarantined"] == 1
    assert stored(tmp_path / "h") == {"good": 1}
    kept = [one for one in (tmp_path / "h" / "quarantine").iterdir() if one.suffix != ".json"]
    assert [one.read_bytes() for one in kept] == [bad]
    assert "division by zero" in kept[0].with_suffix(kept[0].suffix + ".json").read_text()


# -- problems --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("filter: {traces: {span: ['nam == 1']}}", "filter.traces.span[0]: column 1: span has no"),
        ("filter: ", "drops nothing"),
        ("filter: {traces: {spn: []}}", "filter.traces.spn: unknown key, did you mean 'span'?"),
        ("filter: {error_mode: loud}", "must be one of propagate, ignore, silent"),
        ("transform: {trace_statements: ['set(name, 1)']}", "[0]: column 5: whose name is not"),
        ("transform: {log_statements: ['set(span.name, \"\")']}", "logs have the contexts"),
        ("transform: {trace_statements: [{context: log, statements: []}]}", "context: must be one"),
        ("transform: {trace_statements: [{contex: span}]}", "[0].contex: unknown key"),
        (
            "transform: {trace_statements: [{context: span, conditions: ['x'], statements: "
            "['set(name, \"\")', 'set(name, \"a\")']}]}",
            "trace_statements[0].conditions[0]: column 1",
        ),
        ("transform: {trace_statements: [3]}", "must be a statement"),
        ("transform: ", "does nothing"),
        ("attributes: ", "actions is missing"),
        ("attributes: {actions: [{key: a}]}", "actions[0]: upsert needs either value or from_attr"),
        ("attributes: {actions: [{key: a, action: extract, pattern: a}]}", "no named group"),
        ("attributes: {actions: [{key: a, action: convert}]}", "converted_type: is for convert"),
        ("attributes: {actions: [{action: delete, pattern: '('}]}", "is no regular expression"),
        ("resource: {attributes: [{key: a, action: delet}]}", "must be one of insert, update"),
        ("probabilistic_sampler: {sampling_percentage: many}", "must be a number, not 'many'"),
        ("probabilistic_sampler: ", "sampling_percentage is missing"),
        (
            "probabilistic_sampler: {sampling_percentage: 1, mode: proportional}",
            "only hash_seed is supported",
        ),
        (
            "probabilistic_sampler: {sampling_percentage: 1, attribute_source: record}",
            "from_attribute: is needed",
        ),
    ],
)
def test_mistakes_are_named_with_their_place(text: str, expected: str) -> None:
    """Every mistake in a processor is told with file, line, path and column."""
    with pytest.raises(ConfigError) as caught:
        config(f"  {text}", "redaction")
    assert any(expected in one for one in caught.value.problems), caught.value.problems
    assert all(one.startswith("x.yaml:") for one in caught.value.problems)


def test_the_line_of_a_statement_is_told() -> None:
    """A mistake deep in a list points to its own line."""
    text = """
  transform:
    trace_statements:
      - context: span
        statements:
          - set(name, "a")
          - sett(name, "a")
"""
    with pytest.raises(ConfigError) as caught:
        config(text, "redaction")
    (problem,) = caught.value.problems
    place = "processors.transform.trace_statements[0].statements[1]"
    assert problem.startswith(f"x.yaml:13: {place}: column 1: sett is no editor")
