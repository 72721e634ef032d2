"""The subset of OTTL: what each part does, and how a mistake is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.telemetry import attributes

from engram.collector.ottl import (
    CONTEXTS,
    OttlError,
    RunError,
    compile_condition,
    compile_statement,
    contexts_of,
    deepest,
    rows,
    values,
)
from engram.exporters.otlp.wire import OFFICIAL_REQUEST
from engram.exporters.signals import Signal


def traces() -> Any:
    """One span with one event."""
    request = OFFICIAL_REQUEST[Signal.TRACES]()
    resource = request.resource_spans.add(schema_url="s1")
    resource.resource.attributes.extend(attributes({"service.name": "shop", "host": "h"}))
    scope = resource.scope_spans.add()
    scope.scope.name, scope.scope.version = "lib", "1.2"
    span = scope.spans.add(
        name="GET /users/42",
        kind=2,
        trace_id=bytes(range(16)),
        span_id=bytes(range(8)),
        start_time_unix_nano=10,
        end_time_unix_nano=30,
    )
    span.attributes.extend(attributes({"a": "one two", "n": 3, "f": 0.5, "b": True}))
    values.put(span.attributes, "list", ["x", "y"])
    values.put(span.attributes, "map", {"k": {"deep": "v"}, "n": 1})
    span.status.code = 2
    span.events.add(name="exception", time_unix_nano=20).attributes.extend(attributes({"e": "E"}))
    return request


def logs() -> Any:
    """One log record with a body that is a map."""
    request = OFFICIAL_REQUEST[Signal.LOGS]()
    record = (
        request.resource_logs.add()
        .scope_logs.add()
        .log_records.add(severity_number=17, severity_text="ERROR", event_name="paid")
    )
    values.write(record.body, {"msg": "no", "items": [1, 2]})
    return request


def metrics() -> Any:
    """A sum and a gauge."""
    request = OFFICIAL_REQUEST[Signal.METRICS]()
    found = request.resource_metrics.add().scope_metrics.add().metrics
    total = found.add(name="requests", unit="1")
    total.sum.is_monotonic, total.sum.aggregation_temporality = True, 2
    total.sum.data_points.add(as_int=5).attributes.extend(attributes({"route": "/"}))
    found.add(name="load").gauge.data_points.add(as_double=0.5)
    return request


MADE = {Signal.TRACES: traces, Signal.LOGS: logs, Signal.METRICS: metrics}


def holds(condition: str, context: str = "span", signal: Signal = Signal.TRACES) -> bool:
    """Whether a condition holds on the first row of a context."""
    first = next(rows(context, signal, MADE[signal]()))
    return compile_condition(condition, context)(first)


def after(statement: str, context: str = "span", signal: Signal = Signal.TRACES) -> Any:
    """The first row of a context after a statement."""
    request = MADE[signal]()
    first = next(rows(context, signal, request))
    compile_statement(statement, context)(first)
    return first


@pytest.mark.parametrize(
    "condition",
    [
        'name == "GET /users/42"',
        'span.name == "GET /users/42"',
        'attributes["a"] == "one two" and attributes["n"] == 3',
        'attributes["n"] >= 3.0 and attributes["n"] < 3.5',
        'attributes["none"] == nil and attributes["a"] != nil',
        'attributes["a"] == "x" or kind == SPAN_KIND_SERVER',
        'not (attributes["a"] == "x" or kind == SPAN_KIND_CLIENT)',
        'attributes["b"] == true and attributes["n"] != true',
        'attributes["n"] != "3" and not attributes["n"] < "9"',
        'attributes["map"]["k"]["deep"] == "v"',
        'attributes["list"][1] == "y" and attributes["list"][7] == nil',
        'attributes["list"] == ["x", "y"]',
        'attributes["map"]["k"] == {"deep": "v"}',
        "status.code == STATUS_CODE_ERROR",
        "end_time_unix_nano - start_time_unix_nano > 2 * (5 + 4)",
        "(1 + 2) * 3 == 9 and -7 / 2 == -3",
        "trace_id == TraceID(0x000102030405060708090a0b0c0d0e0f)",
        'trace_id.string == "000102030405060708090a0b0c0d0e0f"',
        'parent_span_id.string == ""',
        'resource.attributes["service.name"] == "shop" and resource.schema_url == "s1"',
        'instrumentation_scope.name == "lib" and scope.version == "1.2"',
        r'IsMatch(name, "^GET /users/\\d+$")',
        'IsMatch(attributes["n"], "^3$") and not IsMatch(attributes["none"], ".*")',
        'HasPrefix(name, "GET") and HasSuffix(name, "42")',
        'IsString(attributes["a"]) and IsInt(attributes["n"]) and IsDouble(attributes["f"])',
        'IsBool(attributes["b"]) and IsMap(attributes["map"]) and IsList(attributes["list"])',
        'not IsInt(attributes["b"])',
        'Len(attributes["list"]) == 2 and Len(name) == 13',
        'Int("12") == 12 and Int("x") == nil and Double("1.5") == 1.5 and String(3) == "3"',
        'Concat([name, attributes["n"], nil], "|") == "GET /users/42|3|<nil>"',
        'ConvertCase("HelloWorld", "snake") == "hello_world"',
        'Substring("abcdef", 1, 3) == "bcd"',
        'SHA256("a") == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"',
        'true and not false and "a\\tb\\u00e9" == "a\tbé"',
    ],
)
def test_conditions_on_spans(condition: str) -> None:
    """Each of these holds, and its opposite does not."""
    assert holds(condition)
    assert not holds(f"not ({condition})")


@pytest.mark.parametrize(
    ("condition", "context", "signal"),
    [
        ('name == "exception" and event_index == 0', "spanevent", Signal.TRACES),
        ('span.kind == 2 and attributes["e"] == "E"', "spanevent", Signal.TRACES),
        ('body["msg"] == "no" and body["items"][1] == 2', "log", Signal.LOGS),
        ('IsMatch(body, "msg") and event_name == "paid"', "log", Signal.LOGS),
        ("severity_number >= SEVERITY_NUMBER_ERROR", "log", Signal.LOGS),
        ("SEVERITY_NUMBER_WARN4 == 16 and SEVERITY_NUMBER_FATAL == 21", "log", Signal.LOGS),
        ("type == METRIC_DATA_TYPE_SUM and is_monotonic == true", "metric", Signal.METRICS),
        ('metric.name == "requests" and value_int == 5', "datapoint", Signal.METRICS),
        ("value_double == nil and count == nil", "datapoint", Signal.METRICS),
        ("aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE", "metric", Signal.METRICS),
        ('attributes["host"] == "h"', "resource", Signal.TRACES),
        ('name == "lib"', "scope", Signal.TRACES),
    ],
)
def test_conditions_elsewhere(condition: str, context: str, signal: Signal) -> None:
    """Every context has its own fields, and sees those around it."""
    assert holds(condition, context, signal)


@pytest.mark.parametrize(
    ("statement", "path", "expected"),
    [
        ('set(name, "x")', "name", "x"),
        ('set(name, "x") where kind == 1', "name", "GET /users/42"),
        ('set(name, attributes["none"])', "name", "GET /users/42"),
        ('set(attributes["new"], [1, {"k": true}])', 'attributes["new"]', [1, {"k": True}]),
        ('set(attributes["map"]["k"]["deep"], 2)', 'attributes["map"]["k"]["deep"]', 2),
        ('set(attributes["x"]["y"], 2)', 'attributes["x"]', {"y": 2}),
        ('set(attributes["list"][0], "z")', 'attributes["list"]', ["z", "y"]),
        ('set(attributes, {"only": 1})', "attributes", {"only": 1}),
        ("set(status.code, STATUS_CODE_OK)", "status.code", 1),
        ("set(span_id, SpanID(0x0102030405060708))", "span_id.string", "0102030405060708"),
        ('set(resource.attributes["host"], "i")', 'resource.attributes["host"]', "i"),
        ('delete_key(attributes, "a")', 'attributes["a"]', None),
        ('delete_key(attributes["map"], "n")', 'attributes["map"]', {"k": {"deep": "v"}}),
        ('delete_matching_keys(attributes, "^.$")', 'Len(attributes)', 2),
        ('keep_keys(attributes, ["a", "zz"])', "attributes", {"a": "one two"}),
        ('keep_matching_keys(attributes, "^a")', "attributes", {"a": "one two"}),
        (r'replace_pattern(name, "/(\\d+)", "/{$1}")', "name", "GET /users/{42}"),
        (r'replace_pattern(name, "(?<id>\\d+)", "${id}$$")', "name", "GET /users/42$"),
        ('replace_pattern(attributes["n"], "3", "4")', 'attributes["n"]', 3),
        ('replace_all_patterns(attributes, "value", "two", "2")', 'attributes["a"]', "one 2"),
        ('replace_all_patterns(attributes, "key", "^a$", "c")', 'attributes["c"]', "one two"),
        ("truncate_all(attributes, 3)", 'attributes["a"]', "one"),
        ('limit(attributes, 2, ["list"])', "attributes", {"a": "one two", "list": ["x", "y"]}),
        ('merge_maps(attributes, {"a": 1, "z": 2}, "insert")', 'attributes["a"]', "one two"),
        ('merge_maps(attributes, {"a": 1, "z": 2}, "upsert")', 'attributes["z"]', 2),
    ],
)  # fmt: skip
def test_editors(statement: str, path: str, expected: Any) -> None:
    """What each editor leaves behind."""
    row = after(statement)
    probe = compile_statement(f'set(attributes["probe"], {path})', "span")
    probe(row)
    found = values.find(row.span.attributes, "probe")
    assert (None if found is None else values.read(found)) == expected


def test_editors_of_logs_and_points() -> None:
    """Bodies are edited in place, and points of any kind have values."""
    row = after('set(body["msg"], "yes")', "log", Signal.LOGS)
    assert values.read(row.log.body) == {"msg": "yes", "items": [1, 2]}
    assert after('delete_key(body, "items")', "log", Signal.LOGS).log.body.kvlist_value.values
    assert values.read(after("set(body, 5)", "log", Signal.LOGS).log.body) == 5
    assert after("set(value_int, 7)", "datapoint", Signal.METRICS).datapoint.as_int == 7
    assert after('set(metric.unit, "s")', "datapoint", Signal.METRICS).metric.unit == "s"


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ('set(attributes["list"][9], 1)', "no item 9"),
        ('set(attributes["a"]["k"], 1)', "holds no map where 'k' is set"),
        ("set(name, 1)", "name cannot be 1"),
        ("set(attributes, 1)", "only be set to a map"),
        ('set(attributes["x"], attributes["a"] + 1)', "needs numbers"),
        ('set(attributes["x"], 1 / 0)', "division by zero"),
        ("set(trace_id, 0x01)", "must be 16 bytes"),
        ('set(attributes["x"], 9223372036854775808)', "does not fit"),
        ('set(attributes["x"], Substring(name, 3, 99))', "past the end"),
    ],
)
def test_what_cannot_be_done_with_a_record(statement: str, expected: str) -> None:
    """A statement that does not fit a record says so, and leaves the attribute as it was."""
    request = traces()
    before = request.SerializeToString(deterministic=True)
    row = next(rows("span", Signal.TRACES, request))
    with pytest.raises(RunError, match=expected):
        compile_statement(statement, "span")(row)
    if "attributes" not in expected and "does not fit" not in expected:
        assert request.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("foo(name, 1)", 1, "foo is no editor of the subset"),
        ('replace_patern(name, "a", "b")', 1, "did you mean replace_pattern?"),
        ("Concat([name], name)", 1, "is no editor: editors are in lower case"),
        ("set(name)", 1, "set takes 2 arguments, not 1"),
        ('set(name, "a" where', 15, "here must be ',' or ')', not 'where'"),
        ('set(name, "a") whre true', 16, "'whre' is too much"),
        ("set(names, 1)", 5, "span has no field 'names' (supported: attributes,"),
        ("set(log.body, 1)", 5, "log.body cannot be seen from the context span"),
        ('set(name["x"], 1)', 10, "name is no map"),
        ("set(attributes[0], 1)", 16, "its keys are texts"),
        ('set(name, IsMatch(name, "("))', 25, "'(' is no regular expression"),
        ('set(name, Concatt([name], ""))', 11, "did you mean Concat?"),
        ('set(name, "\\d")', 12, "\\d is no escape; write \\\\d"),
        ("set(trace_id.string, name)", 5, "can only be read"),
        ("set(name, set(name, 1))", 11, "is an editor (lower case) and stands alone"),
        ('set(name, "a") where name', 22, "this alone is no condition"),
        ('set(name, "a") where Len(name)', 22, "Len alone is no condition"),
        ('set(name, "a") where kind == SPAN_KIND_SERV', 30, "did you mean SPAN_KIND_SERVER?"),
        ("set(name, 'a')", 11, "texts are in double quotes"),
        ('set(name, "a)', 11, "a text that does not end"),
        ("limit(attributes, n=1)", 20, "arguments by name are not supported"),
        ("set(name, 0x123)", 11, "two hexadecimal digits each"),
        ('set("name", 1)', 5, "the first argument of set must be a path"),
        ("set(name, @)", 11, "'@' is not understood"),
        ("set(name, attributes[name])", 22, "a key must be a text"),
        ("set(name, and)", 11, "here must be a value, not 'and'"),
        ("", 1, "here must be an editor"),
        (f"set(name, {'(' * 99}1)", 61, "nested too deeply"),
    ],
)
def test_mistakes_are_told_with_their_column(text: str, column: int, expected: str) -> None:
    """Whatever is not in the subset is refused, with where and what."""
    with pytest.raises(OttlError) as caught:
        compile_statement(text, "span")
    assert expected in str(caught.value)
    assert caught.value.column == column
    assert str(caught.value).startswith(f"column {column}: ")


def test_contexts_are_inferred_from_prefixes() -> None:
    """The deepest context that is named is where a statement runs."""
    order = CONTEXTS[Signal.TRACES]
    both = contexts_of('set(span.name, "x") where resource.attributes["a"] == 1', statement=True)
    assert deepest(both, order) == "span"
    only = contexts_of('set(resource.attributes["a"], 1)', statement=True)
    assert deepest(only, order) == "resource"
    assert deepest({"log"}, order) is None
    with pytest.raises(OttlError, match=r"column 5: whose name is not said.*span\.name"):
        contexts_of('set(name, "x")', statement=True)


_WORDS = st.sampled_from(
    ["set", "(", ")", "name", ",", '"x"', "where", "and", "not", "==", "attributes", '["a"]', "1",
     "-", "{", "}", ":", "IsMatch", ".", "nil", "0x", "\\", '"', "é"]
)  # fmt: skip


@given(st.lists(_WORDS, max_size=14).map(" ".join) | st.text(max_size=60))
def test_no_text_crashes_the_parser(text: str) -> None:
    """Any text is a statement or an OttlError whose column is inside it."""
    for compile_ in (compile_statement, compile_condition):
        error: OttlError | None = None
        try:
            compile_(text, "span")
        except OttlError as caught:
            error = caught
        assert error is None or 1 <= error.column <= len(text) + 1
