"""The operator's rules: checked with their places, applied, explained, and memories rebuilt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from tests.collector.test_cli import call
from tests.exporters import remembering
from tests.exporters.test_rederive import fill, memories, telemetry
from tests.telemetry import request, shop_traces

from engram.collector import cli, config, explain, rules
from engram.collector.roles.collect import engine_settings
from engram.exporters.control import ControlServer
from engram.exporters.engine import Engine
from engram.exporters.errors import BadRequest, ConfigError, NotFound
from engram.exporters.home import Home
from engram.exporters.otlp.wire import OFFICIAL_REQUEST
from engram.exporters.rules import Rules
from engram.exporters.rules.load import load
from engram.exporters.rules.words import document
from engram.exporters.signals import Signal

ROOT = Path(__file__).parents[2]
PIPELINES = """
receivers: {otlp: }
processors: {redaction: }
service:
  pipelines:
    traces: {receivers: [otlp], processors: [redaction], exporters: [memory]}
    logs: {receivers: [otlp], processors: [redaction], exporters: [memory]}
    metrics: {receivers: [otlp], processors: [redaction], exporters: [memory]}
"""
MINE = r"""
rules:
  - name: order_log
    type: order_accepted
    signal: log
    when: {value: body_text, matches: '^order \d+ accepted$'}
    title: ["Accepted: {body_text}"]
    scope: [trace_id]
    key: [[span_id, content_hash]]
"""


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No home or configuration of the developer's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENGRAM_HOME", raising=False)
    monkeypatch.delenv("ENGRAM_CONFIG", raising=False)


@pytest.fixture
def engram(capsys: pytest.CaptureFixture[str]) -> object:
    """Runs a command in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(arguments)
        done = capsys.readouterr()
        return code, done.out, done.err

    return run


def write(memory: str, mine: str = "") -> config.Config:
    """`otel-config.yaml` here with these settings of the memory exporter; and `mine.yaml`."""
    Path("otel-config.yaml").write_text(f"exporters:\n  memory:\n{memory}{PIPELINES}")
    Path("mine.yaml").write_text(mine)
    return config.load(Path("otel-config.yaml").resolve())


def problems(memory: str, mine: str = "") -> list[str]:
    """What is wrong, without the folder."""
    with pytest.raises(ConfigError) as caught:
        rules.check(write(memory, mine))
    return [problem.replace(f"{Path.cwd()}/", "") for problem in caught.value.problems]


def test_every_problem_has_its_place() -> None:
    """All of both files at once, each with file, line, path, and what to do."""
    found = problems(
        """    rules_file: mine.yaml
    disabled: [api_cal, order_log]
    rules:
      - name: slow
        type: Slow Thing
        signal: spam
        when:
          - {value: duratoin_ns, at_least: 5}
          - {value: name, matches: '(?=x)'}
        title: ["{name}", {frist: name}]
        importance: 7
      - {name: request_intent, importance: 0.9}
      - 5
""".replace("      - 5\n", "      - {type: x}\n"),
        MINE + "  - {name: order_log, type: x, signal: log, when: [], title: [x]}\nrulez: []\n",
    )
    expected = [
        "mine.yaml:11: rulez: unknown key, did you mean 'rules'?",
        "mine.yaml:10: rules[1]: a second rule 'order_log', the first is in mine.yaml:3: rules[0]",
        "otel-config.yaml:4: exporters.memory.disabled[0]: no built-in rule 'api_cal', did you "
        "mean 'api_call'?",
        "otel-config.yaml:4: exporters.memory.disabled[1]: 'order_log' is a rule of your own",
        "otel-config.yaml:7: exporters.memory.rules[0].type: 'Slow Thing': a type has lower-case",
        "otel-config.yaml:13: exporters.memory.rules[0].importance: 7 is not between 0 and 1",
        "otel-config.yaml:8: exporters.memory.rules[0].signal: unknown signal 'spam'; did you mean "
        "'span'?",
        "otel-config.yaml:11: exporters.memory.rules[0].when[1].matches: not a pattern",
        "otel-config.yaml:12: exporters.memory.rules[0].title[1]: unknown key 'frist'; did you",
        "otel-config.yaml:14: exporters.memory.rules[1]: missing: type, signal, when, title; a "
        "rule that takes the place of a built-in one is a whole rule (to switch it off, list it",
        "otel-config.yaml:15: exporters.memory.rules[2]: missing: name, signal, when, title",
        "otel-config.yaml:10: exporters.memory.rules[0].when[0].value: unknown source 'duratoin_ns'"
        "; did you mean 'duration_ns'?",
    ]
    for text in expected:
        assert any(one.startswith(text) for one in found), (text, found)
    assert len(found) == len(expected) + 1  # `frist` is no operation, either


@pytest.mark.parametrize(
    ("mine", "expected"),
    [
        ("rules: 5", "mine.yaml:1: rules: must be a list"),
        ("- a", "mine.yaml: must be a mapping with the keys rules and disabled"),
        ("a: [", "mine.yaml:1: not valid YAML"),
        ("rules: []\nrules: []", "mine.yaml:2: rules: given twice, first in line 1"),
        ("rules: &a [*a]", "mine.yaml: cannot be read"),
        (MINE.replace("'^order \\d+ accepted$'", "2026-01-01"), "rules[0].when.matches: not a"),
        (MINE + "    exclusive: 'no'\n", "exclusive: must be true or false"),
        (
            MINE.replace("title: [", "importance: {choose: [{when: [], is: '=x'}]}\n    title: ["),
            "mine.yaml:3: rules[0]: fails on a log record: ",
        ),
    ],
)  # fmt: skip
def test_a_rules_file_that_is_wrong(mine: str, expected: str) -> None:
    """Each mistake is told, none is a traceback; what fails only when it runs is found as well."""
    found = problems("    rules_file: mine.yaml\n", mine)
    assert any(expected in problem for problem in found), found


def test_no_such_file() -> None:
    """A rules file that is not there is a problem of the configuration."""
    assert problems("    rules_file: other.yaml\n") == [
        "other.yaml: there is no such file; rules_file names it"
    ]


def version_of(memory: str, mine: str = "") -> str:
    """The version of the effective rules."""
    made = write(memory, mine)
    rules.check(made)
    return Rules.load([dict(rule) for rule in rules.rules_of(made)]).version


def test_the_version_is_of_the_content() -> None:
    """It changes with any rule, and not with where a rule is written."""
    none = version_of("    retention: 0\n")
    assert none == Rules.load().version
    file = version_of("    rules_file: mine.yaml\n", MINE)
    inline = "".join(f"    {line}\n" for line in MINE.strip().splitlines())
    assert file == version_of(inline)
    changed = version_of(inline.replace("Accepted", "Taken"))
    off = version_of("    disabled: [api_call]\n")
    assert off == version_of("    rules_file: mine.yaml\n", "disabled: [api_call]")
    assert len({none, file, changed, off}) == 4


def test_the_assistant_has_the_name_of_the_setting() -> None:
    """Turns of the agent of this name, special characters and all, are the assistant's."""
    none = version_of("    retention: 0\n")
    assert version_of("    assistant: aurea\n") == none, "in any case"
    made = Rules.load([dict(one) for one in rules.rules_of(write("    assistant: Nova (2.0)\n"))])
    assert made.version != none

    def turns(rules_: Rules, agent: str) -> int:
        said = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": agent,
                "gen_ai.conversation.id": "c"}  # fmt: skip
        found = remembering.made_of([remembering.request([remembering.span(said)])], rules_)
        return sum(type_ == "aurea_conversation" for type_ in found["type"])

    assert [turns(made, name) for name in ("NOVA (2.0)", "AUREA", "Nova 2x0")] == [1, 0, 0]
    assert turns(Rules.load(), "AUREA") == 1
    with pytest.raises(ConfigError, match="must be the name of an agent"):
        write("    assistant: ' '\n")


def test_config_validate_checks_rules(engram: object) -> None:
    """`engram config validate` tells problems of rules, with exit code 2."""
    write("    disabled: [nothing]\n")
    code, _, err = call(engram, "config", "validate")
    assert code == 2
    assert "no built-in rule 'nothing'" in err


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home filled under the built-in rules."""
    home = Home(tmp_path / "home")
    fill(home.root, *telemetry(3, 100))
    return home


def test_rederive(engram: object, home: Home, tmp_path: Path) -> None:
    """The configuration's rules, by this process or by the collector that runs."""
    made = write("    rules_file: mine.yaml\n    disabled: [api_call]\n", MINE)
    at = ("--home", str(home.root))
    before = memories(home.root)
    code, out, _ = call(engram, "rederive", *at, "--dry-run")
    assert code == 0
    assert "3 would be added (order_accepted 3)" in out
    assert "3 would be removed (api_call 3)" in out
    assert memories(home.root) == before
    truth = tmp_path / "truth"
    fill(truth, *telemetry(3, 100), rules=[dict(rule) for rule in rules.rules_of(made)])
    engine = Engine(home, engine_settings(made))
    engine.start()
    control = ControlServer(engine)
    control.start()
    try:
        code, out, err = call(engram, "rederive", *at, "--json", "--type", "order_accepted")
        assert code == 0, err
        assert json.loads(out)["types"] == {"order_accepted": {"added": 3}}
        code, out, err = call(engram, "rederive", *at)
        assert code == 0, err
        assert "3 removed (api_call 3)" in out
        assert memories(home.root) == memories(truth)
        write("    rules_file: mine.yaml\n", MINE)
        code, _, err = call(engram, "rederive", *at)
        assert code == 2
        assert "restart the collector" in err
    finally:
        control.shutdown()
        engine.shutdown(10)
    code, out, err = call(engram, "rederive", *at, "--since", "1d")
    assert code == 0, err
    assert "3 added (api_call 3)" in out
    for wrong in ("soon", "99999999999d"):
        assert call(engram, "rederive", *at, "--since", wrong)[0] == 2
    assert call(engram, "rederive", "--home", str(tmp_path / "none"))[0] == 3


def test_rederive_of_a_busy_home(engram: object, home: Home) -> None:
    """A home that another process writes to, without a control socket, is left alone."""
    write("    disabled: [api_call]\n")
    engine = Engine(home)
    engine.start()
    try:
        code, _, err = call(engram, "rederive", "--home", str(home.root))
        assert code == 4
        assert "written by another process" in err
    finally:
        engine.shutdown(10)


def test_list(engram: object) -> None:
    """Built-in rules, replaced and switched off ones, and the operator's own."""
    replaced = MINE.replace("order_log", "system_event")
    write("    rules_file: mine.yaml\n    disabled: [api_call]\n", replaced + MINE[8:])
    code, out, err = call(engram, "rules", "list", "--json")
    assert code == 0, err
    origin = {one["name"]: one["origin"] for one in json.loads(out)}
    assert origin["request_intent"] == "built-in"
    assert origin["api_call"] == "switched off"
    assert origin["system_event"] == "yours, for the built-in one"
    assert origin["order_log"] == "yours"
    code, out, _ = call(engram, "rules", "list")
    assert "api_call → api_call  (span; switched off)" in out
    assert "when kind is 2 (server)" in out


def explained(engram: object, *arguments: str) -> list[dict[str, Any]]:
    """Records as explained."""
    code, out, err = call(engram, "rules", "explain", *arguments, "--json")
    assert code == 0, err
    found: list[dict[str, Any]] = json.loads(out)["records"]
    return found


def why(record: dict[str, Any], rule: str) -> str:
    """Why a rule made nothing of a record."""
    (miss,) = [miss for miss in record["not_made"] if miss["rule"] == rule]
    text: str = miss["why"]
    return text


def test_explain_a_trace(engram: object, home: Home) -> None:
    """What is explained is what is stored; each rule that made nothing says why."""
    write("    rules_file: mine.yaml\n    disabled: [system_event]\n", MINE)
    trace = f"{0xACE << 64 | 2:032x}"
    records = explained(engram, trace, "--home", str(home.root), "--all")
    assert len(records) == 9
    stored = {id_: row for id_, row in memories(home.root).items() if row["trace_id"] == trace}
    made = {memory["id"]: memory for record in records for memory in record["made"]}
    assert {id_ for id_, memory in made.items() if memory["stored"]} == stored.keys()
    assert [m["type"] for m in made.values() if not m["stored"]] == ["order_accepted"]
    (server,) = [r for r in records if r["name"] == "POST /orders"]
    assert [m["rule"] for m in server["made"]] == ["request_intent", "request_outcome"]
    assert why(server, "api_call") == "kind is 2 (server), not 3 (client)"
    assert why(server, "order_log") == "takes log records"
    assert "has own_exception ('TimeoutError'), and must not" in why(server, "system_error")
    (out,) = [r for r in records if r["name"] == "POST"]
    assert [m["rule"] for m in out["made"]] == ["api_call"]
    (said,) = [r for r in records if r["name"] == "order 2 accepted"]
    assert "severity_number is 9 (INFO), not at least 17 (ERROR)" in why(said, "system_error")
    short = explained(engram, trace, "--home", str(home.root))
    assert all(len(record["not_made"]) <= 3 for record in short)
    code, text, _ = call(engram, "rules", "explain", trace, "--home", str(home.root))
    assert code == 0
    assert "+ order_accepted " in text
    assert "engram rederive rebuilds them" in text
    assert call(engram, "rules", "explain", "f" * 32, "--home", str(home.root))[0] == 3


def test_explain_files(engram: object, tmp_path: Path) -> None:
    """OTLP in protobuf, JSON and JSON lines is explained alike, redacted, and stored nowhere."""
    write("    disabled: [request_outcome]\n")
    spans, logs, metrics = shop_traces(3)
    told = []
    for signal, records in (
        (Signal.TRACES, spans), (Signal.LOGS, logs), (Signal.METRICS, metrics),
    ):  # fmt: skip
        body = request(signal, records)
        text = as_json(signal, body)
        (tmp_path / "t.pb").write_bytes(body)
        (tmp_path / "t.json").write_text(json.dumps(text, indent=1))
        (tmp_path / "t.jsonl").write_text(f"{json.dumps(text)}\n\n")
        for name in ("t.json", "t.jsonl"):
            assert [*explain.requests_of(tmp_path / name)] == [(signal, body)]
        assert [*explain.requests_of(tmp_path / "t.pb")] == [(signal, body)]
        told.append(explained(engram, str(tmp_path / "t.json")))
        assert told[-1] == explained(engram, str(tmp_path / "t.pb"))
    server = told[0][0]
    assert "switches it off" in why(server, "request_outcome")
    assert {m["rule"] for record in told[1] for m in record["made"]} >= {"ai_response"}
    made_of_metrics = {m["type"] for record in told[2] for m in record["made"]}
    assert made_of_metrics == {"performance_metric"}
    assert not (tmp_path / ".engram").exists()


def as_json(signal: Signal, body: bytes) -> Any:
    """OTLP/JSON: as protobuf's, with ids in hex."""
    import base64

    def hex_ids(value: Any) -> Any:
        if isinstance(value, list):
            return [hex_ids(one) for one in value]
        if isinstance(value, dict):
            return {
                key: base64.b64decode(one).hex()
                if key in ("traceId", "spanId", "parentSpanId")
                else hex_ids(one)
                for key, one in value.items()
            }
        return value

    return hex_ids(json_format.MessageToDict(OFFICIAL_REQUEST[signal].FromString(body)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"hello", "neither OTLP in JSON nor in protobuf"),
        (b"\x0a\x05ab", "no OTLP request in protobuf"),
        (b"{]", "line 1: this is no JSON"),
        (b'{"a": 1}', "no resourceSpans"),
        (b"[1]", "OTLP is one object a request"),
        (b'{"resourceSpans": 5}', r"at \$\.resourceSpans"),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "x"}]}]}]}', "hexadecimal"),
        (b'{"resourceSpans":' + b"[" * 99999, "nested too deeply"),
    ],
)  # fmt: skip
def test_files_that_are_no_otlp(content: bytes, words: str, tmp_path: Path) -> None:
    """They are refused, with what is wrong."""
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(BadRequest, match=words):
        [*explain.requests_of(tmp_path / "f")]
    with pytest.raises(NotFound):
        [*explain.requests_of(tmp_path / "none")]


def test_explain_asks_for_something(engram: object) -> None:
    """Without a trace or file, or with what is neither, it says what it wants."""
    assert call(engram, "rules", "explain")[0] == 2
    code, _, err = call(engram, "rules", "explain", "nothing-here")
    assert code == 3
    assert "32 hex digits" in err


def test_the_table_of_types_is_up_to_date() -> None:
    """docs/types.md is what `engram rules table` prints."""
    text = (ROOT / "docs/types.md").read_text()
    assert text == document(load()), "make docs writes it again"


def test_the_example_of_the_docs() -> None:
    """The rules in docs/rules.md are right, and make what they say."""
    text = (ROOT / "docs/rules.md").read_text()
    example = text.split("```yaml\n")[1].split("```")[0]
    Path("otel-config.yaml").write_text(example + PIPELINES)
    Path("my-rules.yaml").write_text(MINE.replace("order_log", "another"))
    made = config.load(Path("otel-config.yaml").resolve())
    rules.check(made)
    names = [rule["name"] for rule in rules.rules_of(made)]
    assert names == ["another", "order_accepted", "system_event"]
