"""The grammar of `otel-config.yaml`: what is understood, and how a mistake is told."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engram.collector import config as config_module
from engram.collector.component import Kind
from engram.collector.config import (
    DEFAULT_FILE,
    ComponentId,
    Config,
    duration,
    find_file,
    load,
    parse,
    size,
)
from engram.collector.effective import effective
from engram.collector.exporters.settings import OtlpHttp
from engram.collector.registry import (
    FACTORIES,
    Api,
    Batch,
    Cors,
    HttpServer,
    MemoryExporter,
    OtlpReceiver,
    Redaction,
    is_loopback,
    split_endpoint,
)
from engram.exporters.errors import ConfigError, NotFound

ROOT = Path(__file__).parents[2]

SERVICE = """
service:
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [memory]}
    logs: {receivers: [otlp], processors: [batch], exporters: [memory]}
    metrics: {receivers: [otlp], processors: [batch], exporters: [memory]}
"""
LEAST = "receivers: {otlp: }\nprocessors: {batch: }\nexporters: {memory: }\n" + SERVICE


def read(text: str, **environ: str) -> Config:
    """The configuration of a text."""
    return parse(text, Path("x.yaml"), environ)


def problems(text: str, **environ: str) -> list[str]:
    """What is wrong with a text."""
    with pytest.raises(ConfigError) as caught:
        read(text, **environ)
    return caught.value.problems


def body(kind: str, name: str, text: str) -> str:
    """The least configuration with one component's body replaced."""
    return LEAST.replace(f"{kind}: {{{name}: }}", f"{kind}:\n  {name}: {text}")


def test_shipped_default_is_the_documented_one() -> None:
    """The file in the wheel and the one at the root are the same bytes."""
    assert DEFAULT_FILE.read_bytes() == (ROOT / "otel-config.yaml").read_bytes()


def test_default_file_says_the_defaults() -> None:
    """Every value in the default file equals the default of its settings class."""
    config = load(DEFAULT_FILE, {})
    for kind, components in config.components.items():
        for at, settings in components.items():
            (factory,) = [one for one in FACTORIES if (one.kind, one.type) == (kind, at.type)]
            assert settings == factory.config()


def test_default_file_shows_every_type() -> None:
    """No component type is hidden from a reader of the default file; its examples are valid."""
    text = re.sub(r"^  # (\w+: \{)", r"  \1", DEFAULT_FILE.read_text(), flags=re.MULTILINE)
    config = parse(text, DEFAULT_FILE, {})
    shown = {(kind, at.type) for kind, found in config.components.items() for at in found}
    assert shown == {(factory.kind, factory.type) for factory in FACTORIES}


def test_reference_holds_every_key() -> None:
    """`docs/configuration.md` has a row for each key of each component."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    for factory in FACTORIES:
        assert f"### `{factory.type}`" in text
        for one in fields(factory.config):
            assert f"`{one.name}`" in text or f"`{one.name}." in text


def test_null_bodies_are_defaults() -> None:
    """`otlp:` alone opens both doors with the default settings."""
    config = read(LEAST)
    assert config.settings(Kind.RECEIVER, "otlp", OtlpReceiver) == OtlpReceiver()
    assert config.settings(Kind.EXPORTER, "memory", MemoryExporter) == MemoryExporter()


def test_cors_is_the_collectors_and_off_by_default() -> None:
    """`http.cors` has the Collector's keys; what is no origin is a problem with its path."""
    listed = "{protocols: {http: {cors: {allowed_origins: ['http://a'], max_age: 60}}}}"
    receiver = read(body("receivers", "otlp", listed)).settings(Kind.RECEIVER, "otlp", OtlpReceiver)
    assert receiver is not None
    assert receiver.protocols.http is not None
    cors = receiver.protocols.http.cors
    assert cors == Cors(allowed_origins=("http://a",), max_age=60)
    assert OtlpReceiver().protocols.http == HttpServer(cors=None)
    with pytest.raises(
        ConfigError, match=r"http\.cors\.allowed_origins.*'a\.example' is no origin"
    ):
        read(body("receivers", "otlp", listed.replace("http://a", "a.example")))


def test_unlisted_protocol_is_off() -> None:
    """`protocols: {http:}` opens only HTTP, as in the Collector."""
    config = read(body("receivers", "otlp", "{protocols: {http: }}"))
    receiver = config.settings(Kind.RECEIVER, "otlp", OtlpReceiver)
    assert receiver is not None
    assert receiver.protocols.grpc is None
    assert receiver.protocols.http is not None


def test_ids_with_names() -> None:
    """A component may be called `type/name`, and pipelines may mean that one."""
    text = LEAST.replace("{batch: }", "{batch/slow: {timeout: 5s}}").replace(
        "[batch]", "[batch/slow]"
    )
    batch = read(text).settings(Kind.PROCESSOR, "batch", Batch)
    assert batch == Batch(timeout=timedelta(seconds=5))


def test_unused_components_are_legal_and_do_not_run() -> None:
    """What no pipeline lists is checked and left alone."""
    config = read(LEAST + "extensions: {api: {endpoint: '127.0.0.1:1'}}\n")
    assert config.api is None
    assert ComponentId("api") in config.components[Kind.EXTENSION]
    assert config.used(Kind.EXTENSION) == ()


def test_extension_runs_when_listed() -> None:
    """An extension runs by being named in the service."""
    text = LEAST.replace("service:", "extensions: {api: }\nservice:\n  extensions: [api]")
    assert read(text).api == Api()


def test_all_problems_at_once_in_order_of_lines() -> None:
    """One run tells everything that is wrong, each with file, line, path and the nearest name."""
    found = problems(
        """\
receivers:
  otlp:
    protocols:
      htpp: {}
      grpc: {endpoint: "0.0.0.0"}
procesors: {}
exporters:
  memroy:
  debug: {verbosity: loud}
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [memory]}
    logs: {receivers: [otlp]}
    trace: {}
"""
    )
    expected = [
        (4, "receivers.otlp.protocols.htpp: unknown key, did you mean 'http'?"),
        (5, "grpc.endpoint: '0.0.0.0' is no endpoint"),
        (6, "procesors: unknown key, did you mean 'processors'?"),
        (8, "unknown exporter 'memroy', did you mean 'memory'?"),
        (9, "must be one of basic, normal, detailed, not 'loud'"),
        (11, "no pipeline for metrics"),
        (12, "'memory' is not declared in exporters, did you mean 'memroy'?"),
        (13, "needs at least one exporter"),
        (14, "unknown signal 'trace', did you mean 'traces'?"),
    ]
    for text, (line, words) in zip(found, expected, strict=True):
        assert text.startswith(f"x.yaml:{line}: ")
        assert words in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (body("processors", "batch", "{timeout: 3}"), "must be a duration such as 200ms"),
        (body("processors", "batch", "{timeout: 1ms}"), "batch.timeout: must be between"),
        (body("processors", "batch", "{send_batch_size: many}"), "must be a whole number"),
        (body("processors", "batch", "{send_batch_size: true}"), "must be a whole number"),
        (body("processors", "batch", "{send_batch_size: 0}"), "is too small"),
        (body("processors", "batch", "[1]"), "must be a mapping, not a list"),
        (body("exporters", "memory", "{path: 7}"), "must be text, not 7"),
        (body("exporters", "memory", "{rules: {}}"), "must be a list, not a mapping"),
        (body("exporters", "memory", "{rules: [1]}"), "rules[0]: must be a mapping, not 1"),
        (body("receivers", "otlp", "{protocols: {http: {endpoint: ':4318'}}}"), "no endpoint"),
        (
            LEAST + "extensions: {health_check: {endpoint: '192.168.1.2:13133'}}\n",
            "health_check.endpoint: '192.168.1.2:13133' is reachable from other machines",
        ),
        (
            body("receivers", "otlp", "{protocols: {http: {max_request_body_size: 9parsec}}}"),
            "must be a size such as",
        ),
        (LEAST.replace("[otlp]", "[otlp/a]"), "'otlp/a' is not declared in receivers"),
        (LEAST + "connectors: {forward: }\n", "unknown connector 'forward' (supported: none)"),
        ("", "is empty"),
        ("- a\n", "is empty or no mapping"),
        ("a: [", "not valid YAML"),
        ("a: &x [*x]\nservice:\n", "an alias that contains itself"),
        (LEAST.replace(SERVICE, ""), "service is missing"),
        (LEAST.replace("[otlp]", "otlp", 1), "must be a list of receivers"),
        (LEAST.replace("[otlp]", "[otlp, otlp]", 1), "'otlp' is listed twice"),
        (LEAST + "    traces/2: {receivers: [otlp], exporters: [memory]}\n", "fills it"),
        (
            LEAST.replace("[memory]", "[debug]", 1).replace("{memory: }", "{memory: , debug: }"),
            "no pipeline of traces lists the memory exporter",
        ),
        (
            LEAST.replace(
                "{batch: }", "{batch: , probabilistic_sampler: {sampling_percentage: 9}}"
            )[::-1].replace("[batch]"[::-1], "[batch, probabilistic_sampler]"[::-1], 1)[::-1],
            "processors[1]: probabilistic_sampler samples traces and logs, no metrics",
        ),
        (LEAST + "  telemetry: {logs: {level: loud}}\n", "telemetry.logs.level: must be one of"),
        (LEAST + "extensions: {zpages: }\n", "unknown extension 'zpages'"),
        (LEAST + "extensions: {health_check: {path: up}}\n", "must begin with /"),
        (body("exporters", "memory", '{path: "${env:A:-${env:B}}"}'), "a ${ without its }"),
    ],
)
def test_mistakes_are_named(text: str, expected: str) -> None:
    """Each kind of mistake is told in words that say what to write."""
    assert any(expected in one for one in problems(text)), problems(text)


def test_duplicate_keys_are_errors() -> None:
    """YAML keeps the last of two equal keys in silence; a configuration must not."""
    found = problems(LEAST + "exporters: {memory: }\n")
    assert len(found) == 1
    assert "exporters: given twice, first in line 3" in found[0]


def test_merge_keys_and_anchors_work() -> None:
    """YAML's own means of reuse are not duplicates."""
    text = body("processors", "batch", "&b\n    timeout: 2s").replace(
        "exporters:", "  batch/2: {<<: *b, send_batch_size: 5}\nexporters:", 1
    )
    made = read(text).components[Kind.PROCESSOR][ComponentId("batch", "2")]
    assert made == Batch(timeout=timedelta(seconds=2), send_batch_size=5)


def test_sdk_configuration_is_recognised() -> None:
    """The other otel-config.yaml, the SDK's declarative one, gets a message of its own."""
    (only,) = problems('file_format: "1.0"\ntracer_provider: {}\n')
    assert "OTEL_CONFIG_FILE" in only
    assert "Collector's grammar" in only


def test_environment() -> None:
    """Variables fill whole values with their type, parts of text, and have defaults."""
    text = body("processors", "batch", '{send_batch_size: "${env:N}", timeout: "${T:-2s}"}')
    text = text.replace("{memory: }", '{memory: {path: "${env:DIR}/$$x${NO:-}"}}')
    config = read(text, N="512", DIR="/d")
    batch = config.settings(Kind.PROCESSOR, "batch", Batch)
    assert batch == Batch(send_batch_size=512, timeout=timedelta(seconds=2))
    memory = config.settings(Kind.EXPORTER, "memory", MemoryExporter)
    assert memory == MemoryExporter(path="/d/$x")


def test_environment_for_text_stays_text() -> None:
    """A variable that looks like a number is text where text is wanted."""
    text = LEAST.replace("{memory: }", '{memory: {path: "${env:P}"}}')
    memory = read(text, P="0123").settings(Kind.EXPORTER, "memory", MemoryExporter)
    assert memory == MemoryExporter(path="0123")


def test_environment_problems() -> None:
    """An unset variable is one problem, not two; another scheme is told."""
    found = problems(body("processors", "batch", '{send_batch_size: "${env:N}"}'))
    assert len(found) == 1
    assert "the environment variable N is not set" in found[0]
    found = problems(LEAST.replace("{memory: }", '{memory: {path: "${file:x}"}}'))
    assert "${file:x} is not understood" in found[0]


def test_redaction_keeps_patterns_and_checks_them() -> None:
    """Patterns arrive as written (`$$` is a dollar) and a broken one is a problem."""
    text = LEAST.replace("{batch: }", '{batch: , redaction: {blocked_values: ["^a$$", "b"]}}')
    made = read(text).components[Kind.PROCESSOR][ComponentId("redaction")]
    assert made == Redaction(blocked_values=("^a$", "b"))
    found = problems(LEAST.replace("{batch: }", '{batch: , redaction: {blocked_values: ["("]}}'))
    assert "processors.redaction.blocked_values[0]: '(' is no regular expression" in found[0]


def test_pipelines_of_one_home_agree() -> None:
    """Signals commit together, so a processor or home of one pipeline only is refused, clearly."""
    whole = "metrics: {receivers: [otlp], processors: [batch]"
    found = problems(LEAST.replace(whole, "metrics: {receivers: [otlp]"))
    assert len(found) == 1
    assert "pipelines.metrics.processors: must list the same as in traces (batch)" in found[0]
    two = LEAST.replace("{memory: }", "{memory: , memory/b: }")
    found = problems(two[::-1].replace("[memory]"[::-1], "[memory/b]"[::-1], 1)[::-1])
    assert "pipelines.metrics.exporters: must list the same as in traces (memory)" in found[0]


def test_debug_may_be_in_one_pipeline() -> None:
    """The debug exporter is free: it stores nothing."""
    text = LEAST.replace("{memory: }", "{memory: , debug: }")
    text = text.replace("[memory]", "[memory, debug]", 1)
    assert [str(at) for at in read(text).used(Kind.EXPORTER)] == ["memory", "debug"]


def test_files_merge_in_order(tmp_path: Path) -> None:
    """Mappings merge, everything else is replaced, lists too; an empty file changes nothing."""
    first, second, third = (tmp_path / f"{name}.yaml" for name in ("a", "b", "c"))
    first.write_text(
        body("processors", "batch", "{send_batch_size: 5, timeout: 2s}") + "extensions: {api: }\n"
    )
    second.write_text(
        "processors: {batch: {timeout: 3s}, redaction: {blocked_values: [a, b]}}\n"
        "exporters: {memory: {path: '${env:UNSET}'}}\n"
        "service: {extensions: [api]}\n"
    )
    third.write_text(
        "processors: {redaction: {blocked_values: [c]}}\nexporters: {memory: {path: /here}}\n"
    )
    empty = tmp_path / "empty.yaml"
    empty.write_text("# nothing\n")
    config = load([first, second, third, empty], {}, ["processors.batch.send_batch_size=9"])
    batch = config.settings(Kind.PROCESSOR, "batch", Batch)
    assert batch == Batch(send_batch_size=9, timeout=timedelta(seconds=3))
    made = config.components[Kind.PROCESSOR][ComponentId("redaction")]
    assert made == Redaction(blocked_values=("c",))
    assert config.settings(Kind.EXPORTER, "memory", MemoryExporter) == MemoryExporter(path="/here")
    assert config.api == Api()
    assert config.files == (first, second, third, empty)


def test_problems_of_several_files_and_settings(tmp_path: Path) -> None:
    """Each problem is told where it was said last: file and line, or the setting."""
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text(body("processors", "batch", "{timeout: x, send_batch_size: y}"))
    second.write_text("\nprocessors:\n  batch:\n    timeout: z\n")
    with pytest.raises(ConfigError) as caught:
        load([first, second], {}, ["service.telemetry.logs.level=loud", "nonsense"])
    size_problem, timeout, level, nonsense = caught.value.problems
    assert size_problem.startswith(f"{first}:3: processors.batch.send_batch_size: must be")
    assert timeout.startswith(f"{second}:4: processors.batch.timeout: must be")
    assert timeout.endswith("not 'z'")
    assert level.startswith("--set service.telemetry.logs.level: service.telemetry.logs.level: ")
    assert nonsense == "--set nonsense: write --set key.key=value"


def test_set_adds_whole_components() -> None:
    """A setting can make a section that no file has, and its value is YAML with the environment."""
    document = load(
        DEFAULT_FILE,
        {"SIZE": "77"},
        [
            "exporters.debug/more.verbosity=detailed",
            "processors.batch.send_batch_size=${env:SIZE}",
            "service::pipelines::traces::exporters=[memory, debug/more]",
        ],
    )
    assert [str(at) for at in document.used(Kind.EXPORTER)] == ["memory", "debug/more"]
    batch = document.settings(Kind.PROCESSOR, "batch", Batch)
    assert batch is not None
    assert batch.send_batch_size == 77


def test_headers_stay_text() -> None:
    """A token that looks like a number is sent as it was written."""
    text = LEAST.replace("{memory: }", "{memory: , otlphttp: {endpoint: 'http://a', headers: H}}")
    text = text.replace("H}", "{a: '${env:A}', b: 12, c: true}}")
    made = read(text, A="0123").components[Kind.EXPORTER][ComponentId("otlphttp")]
    assert isinstance(made, OtlpHttp)
    assert made.headers == {"a": "0123", "b": "12", "c": "true"}
    assert "headers.a: must be text" in problems(text.replace("'${env:A}'", "[1]"))[0]


def test_effective_configuration_masks_secrets() -> None:
    """What is shown is merged, expanded and with defaults, and holds no secret."""
    text = LEAST.replace("{memory: }", "{memory: , otlphttp: HTTP}").replace(
        "HTTP",
        "{endpoint: 'https://user:hunter2@host:1', headers: {x-key: hunter2, a: '${env:T}'}}",
    )
    text = text.replace(
        "{batch: }",
        "{batch: , attributes: {actions: [{key: api_key, value: hunter2, action: upsert},"
        "{key: plain, value: seen, action: upsert}]}}",
    )
    shown = effective(read(text, T="hunter2"))
    assert "hunter2" not in json.dumps(shown)
    assert shown["exporters"]["otlphttp"]["endpoint"] == "https://****@host:1"
    assert shown["processors"]["attributes"]["actions"][1]["value"] == "seen"
    assert shown["processors"]["batch"] == {"send_batch_size": 16384, "timeout": "1s"}
    assert shown["service"]["pipelines"]["logs"]["exporters"] == ["memory"]


def test_effective_configuration_reads_back(tmp_path: Path) -> None:
    """What `config validate` prints is a configuration, and the same one."""
    config = load(DEFAULT_FILE, {})
    again = parse(yaml.safe_dump(effective(config), sort_keys=False), tmp_path / "x.yaml", {})
    assert again.components == config.components
    assert again.pipelines == config.pipelines


def test_examples_of_the_reference_are_valid() -> None:
    """Every YAML block of `docs/configuration.md` is a configuration."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        parse(block, Path("docs/configuration.md"), {"BACKUP_TOKEN": "x"})


def test_find_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Argument, ENGRAM_CONFIG, working directory, built-in: the first that is there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENGRAM_CONFIG", raising=False)
    assert find_file() == DEFAULT_FILE
    local = tmp_path / "otel-config.yaml"
    local.write_text(LEAST)
    assert find_file() == local
    other = tmp_path / "other.yaml"
    other.write_text(LEAST)
    monkeypatch.setenv("ENGRAM_CONFIG", str(other))
    assert find_file() == other
    assert find_file(local) == local
    with pytest.raises(NotFound, match="nowhere"):
        find_file("nowhere.yaml")


def test_unreadable_file(tmp_path: Path) -> None:
    """A file that is no text is a configuration problem, not a crash."""
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(path)


@given(st.text(max_size=200) | st.text(alphabet="{}[]:,-&*!|>'\"%@`#?\n ab$", max_size=60))
def test_no_text_crashes_the_reader(text: str) -> None:
    """Any text is a configuration or a ConfigError."""
    with contextlib.suppress(ConfigError):
        assert isinstance(read(text), Config)


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=900)))
def test_durations_in_milliseconds(value: timedelta) -> None:
    """Every whole number of milliseconds reads back."""
    milliseconds = value // timedelta(milliseconds=1)
    assert duration(f"{milliseconds}ms") == timedelta(milliseconds=milliseconds)


def test_durations_and_sizes() -> None:
    """Go's durations with days, and binary and decimal sizes."""
    assert duration("1h30m") == timedelta(minutes=90)
    assert duration("1.5s") == timedelta(seconds=1.5)
    assert duration("30d") == timedelta(days=30)
    assert duration(0) == timedelta(0)
    assert size("64MiB") == 64 * 1024 * 1024
    assert size("2 kB") == 2000
    assert size(17) == 17
    for wrong in ("", "5", "s", "1x", "-1s", None, True, "9" * 30 + "d"):
        with pytest.raises(ValueError, match=r".*"):
            duration(wrong)
    for wrong in ("", "MiB", "1.5MiB", None, True):
        with pytest.raises(ValueError, match=r".*"):
            size(wrong)


def test_endpoints() -> None:
    """Hosts, ports, and which of them only this machine can reach."""
    assert split_endpoint("127.0.0.1:4318") == ("127.0.0.1", 4318)
    assert split_endpoint("[::1]:0") == ("::1", 0)
    for wrong in ("4318", "host", "a:b", "::1:4318", "h:70000", ""):
        with pytest.raises(ValueError, match="endpoint"):
            split_endpoint(wrong)
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.8.8.8", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.x")))


def test_module_is_light() -> None:
    """Reading a configuration needs YAML and no part of the engine."""
    names = set(vars(config_module))
    assert "duckdb" not in names
    assert "polars" not in names
