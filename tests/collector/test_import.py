"""`engram import`: every form of OTLP file, once, whatever else is in it."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf import json_format
from tests.telemetry import batches, request, shop_traces

from engram.collector import cli, control
from engram.collector.otlp_files import MOST, OtlpFile, Record
from engram.collector.otlp_survey import survey
from engram.exporters.control import ControlServer
from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.errors import BadRequest, Overloaded
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_read_only
from engram.exporters.otlp.json import to_protobuf
from engram.exporters.otlp.wire import OFFICIAL_REQUEST
from engram.exporters.signals import Encoding, Signal

RECORDS = dict(zip(Signal, shop_traces(6), strict=True))
COUNTS = {str(signal): len(records) for signal, records in RECORDS.items()}
REQUESTS = [
    (signal, request(signal, batch))
    for signal, records in RECORDS.items()
    for batch in batches(records, 4)
]
_IDS = {"traceId", "spanId", "parentSpanId"}


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No home or configuration of the developer's leaks in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENGRAM_HOME", raising=False)
    monkeypatch.delenv("ENGRAM_CONFIG", raising=False)


def as_json(signal: Signal, body: bytes, indent: int | None = None) -> bytes:
    """A request in OTLP/JSON, as the Collector writes it."""
    message = OFFICIAL_REQUEST[signal].FromString(body)
    made = json_format.MessageToDict(message, use_integers_for_enums=True)

    def fix(value: Any) -> None:
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            if key in _IDS:
                value[key] = base64.b64decode(one).hex()
            elif isinstance(one, dict | list):
                fix(one)

    fix(made)
    return json.dumps(made, indent=indent).encode()


def framed(bodies: list[bytes]) -> bytes:
    """Each body behind its length."""
    return b"".join(len(body).to_bytes(4, "big") + body for body in bodies)


def zstd(data: bytes) -> bytes:
    """One zstd frame."""
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(data)
    return bytes(out.getvalue())


def jsonl(requests: list[tuple[Signal, bytes]]) -> bytes:
    """One request a line."""
    return b"".join(as_json(*one) + b"\n" for one in requests)


FORMS = {
    "lines.jsonl": lambda: jsonl(REQUESTS),
    "lines.jsonl.gz": lambda: gzip.compress(jsonl(REQUESTS)),
    "lines.jsonl.zst": lambda: zstd(jsonl(REQUESTS)),
    "several-members.gz": lambda: b"".join(gzip.compress(jsonl([one])) for one in REQUESTS),
    "windows.json": lambda: b"\xef\xbb\xbf" + jsonl(REQUESTS).replace(b"\n", b"\r\n\r\n"),
    "pretty.json": lambda: b"\n".join(as_json(*one, indent=2) for one in REQUESTS),
    "glued.json": lambda: b" ".join(as_json(*one) for one in REQUESTS),
    "framed.pb": lambda: framed([body for _, body in REQUESTS]),
    "framed.pb.gz": lambda: gzip.compress(framed([body for _, body in REQUESTS])),
    "framed-zstd": lambda: framed([zstd(body) for _, body in REQUESTS]),
    "framed-zstd-json": lambda: framed([zstd(as_json(*one)) for one in REQUESTS]),
}


def read(path: Path) -> list[Record]:
    """The records of a file."""
    file = OtlpFile(str(path))
    try:
        return list(file.records())
    finally:
        file.close()


@pytest.mark.parametrize("form", FORMS)
def test_forms(tmp_path: Path, form: str) -> None:
    """Each form gives the requests that were put into it, in order, with their signals."""
    path = tmp_path / form
    path.write_bytes(FORMS[form]())
    found = read(path)
    assert [record.problem for record in found] == [""] * len(REQUESTS)
    assert [record.signal for record in found] == [signal for signal, _ in REQUESTS]
    for record, (signal, body) in zip(found, REQUESTS, strict=True):
        raw = to_protobuf(signal, record.body, MOST) if record.is_json else record.body
        assert OFFICIAL_REQUEST[signal].FromString(raw) == OFFICIAL_REQUEST[signal].FromString(body)


def test_a_request_of_its_own(tmp_path: Path) -> None:
    """A file that is one request, in protobuf, whatever its first length looks like."""
    path = tmp_path / "one"
    for signal, body in REQUESTS:
        path.write_bytes(body)
        assert [(one.signal, one.body) for one in read(path)] == [(signal, body)]
    message = OFFICIAL_REQUEST[Signal.LOGS]()
    scope = message.resource_logs.add().scope_logs.add()
    scope.log_records.add(time_unix_nano=1).body.string_value = "x" * 100
    for size in range(60, 160):  # the second byte passes by "{", "[" and white space
        scope.log_records[0].body.string_value = "x" * size
        path.write_bytes(message.SerializeToString())
        assert [one.signal for one in read(path)] == [Signal.LOGS], size
    path.write_bytes(b"\n" + as_json(*REQUESTS[0]))
    assert [one.signal for one in read(path)] == [Signal.TRACES]


def test_bad_records_have_their_place(tmp_path: Path) -> None:
    """What cannot be read is said with line or byte, and what follows is read."""
    path = tmp_path / "f"
    good = as_json(*REQUESTS[0])
    path.write_bytes(b"\n".join([good, b"{broken", b'{"msg": "a log of mine"}', b"{}", good, b""]))
    found = read(path)
    assert [(one.where, bool(one.problem)) for one in found] == [
        ("line 1", False), ("line 2", True), ("line 3", True), ("line 4", False), ("line 5", False),
    ]  # fmt: skip
    assert "no JSON" in found[1].problem
    assert "no OTLP" in found[2].problem
    path.write_bytes(b"{broken\n" + good + b"\n")
    assert [bool(one.problem) for one in read(path)] == [True, False]
    body = REQUESTS[0][1]
    path.write_bytes(framed([body, b"\xff" * 9, body]) + b"\0\0\1\0rest")
    found = read(path)
    assert [bool(one.problem) for one in found] == [False, True, False, True]
    assert found[1].where == f"byte {len(body) + 4}"
    assert "too early" in found[3].problem
    for text, wanted in (
        (b"time,level,msg\n1,2,3\n", "neither OTLP in JSON nor in protobuf"),
        (b"[1, 2]", "a list"),
        (gzip.compress(jsonl(REQUESTS))[:-30], "cannot be read any further"),
    ):
        path.write_bytes(text)
        assert wanted in read(path)[-1].problem
    path.write_bytes(b"")
    assert read(path) == []


def test_long_lines_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line over the limit costs no memory and hides no line behind it."""
    monkeypatch.setattr("engram.collector.otlp_files.MOST", 20_000)
    good = as_json(*REQUESTS[0])
    path = tmp_path / "f"
    path.write_bytes(good + b"\n" + b"{" + b" " * 3_000_000 + b"\n" + good + b"\n")
    assert [bool(one.problem) for one in read(path)] == [False, True, False]


def test_survey_tells_signals_by_their_records() -> None:
    """The least of each signal is told apart; counts are spans, logs and metric points."""
    traces = OFFICIAL_REQUEST[Signal.TRACES]()
    traces.resource_spans.add().scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=b"s" * 8)
    logs = OFFICIAL_REQUEST[Signal.LOGS]()
    logs.resource_logs.add().scope_logs.add().log_records.add().body.string_value = "x"
    metrics = OFFICIAL_REQUEST[Signal.METRICS]()
    one = (
        metrics.resource_metrics.add()
        .scope_metrics.add()
        .metrics.add(name="sixteen.letters.", unit="1", description="8letters")
    )
    one.histogram.data_points.add()
    one.histogram.data_points.add()
    for message, wanted in (
        (traces, (Signal.TRACES, 1)), (logs, (Signal.LOGS, 1)), (metrics, (Signal.METRICS, 2)),
    ):  # fmt: skip
        assert survey(message.SerializeToString()) == wanted
    assert survey(b"") == (None, 0)
    with pytest.raises(ValueError, match="past the end"):
        survey(b"\x0a\x50abc")


def stored(home: Home) -> dict[str, int]:
    """Rows of each table."""
    with contextlib.closing(attach_read_only(home)) as db:
        names = {"spans": "traces", "logs": "logs", "metrics": "metrics"}
        return {
            name: int((db.execute(f"SELECT count(*) FROM {table}").fetchone() or (0,))[0])
            for table, name in names.items()
        }


def run(capsys: pytest.CaptureFixture[str], home: Path, *arguments: Any) -> tuple[int, Any, str]:
    """`engram import --json` in this process: exit code, facts, stderr."""
    capsys.readouterr()
    code = cli.main(["--home", str(home), "--json", "import", *map(str, arguments)])
    done = capsys.readouterr()
    return code, json.loads(done.out) if done.out else None, done.err


def test_alone_and_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a collector the home is opened; another form of the same stores nothing new."""
    lines, frames = tmp_path / "lines.jsonl", tmp_path / "framed.pb"
    lines.write_bytes(FORMS["lines.jsonl"]())
    frames.write_bytes(FORMS["framed.pb"]())
    code, facts, err = run(capsys, tmp_path / "home", lines)
    assert (code, err) == (0, "")
    assert {name: facts[name] for name in COUNTS} == COUNTS
    assert (facts["requests"], facts["stored_before"], facts["bad"]) == (len(REQUESTS), 0, 0)
    code, facts, err = run(capsys, tmp_path / "home", frames, lines)
    assert (code, facts["stored_before"]) == (0, 2 * sum(COUNTS.values()))
    assert stored(Home(tmp_path / "home")) == COUNTS


def test_stored_before_the_recent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is too old to be remembered as stored is found in the lake when an import was large."""
    path = tmp_path / "framed.pb"
    path.write_bytes(FORMS["framed.pb"]())
    assert run(capsys, tmp_path / "home", path)[0] == 0
    monkeypatch.setattr(
        "engram.exporters.recent.RecentHashes.new", lambda self, hashes: hashes == hashes
    )
    monkeypatch.setattr("engram.collector.import_._RECENT", 10)
    code, facts, _ = run(capsys, tmp_path / "home", path)
    assert code == 0
    assert facts["stored_before"] >= sum(COUNTS.values())
    assert stored(Home(tmp_path / "home")) == COUNTS


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[Engine]:
    """A home whose collector runs, with the control socket only."""
    engine = Engine(Home(tmp_path / "home"), EngineSettings(commit_interval_s=0.05))
    engine.start()
    server = ControlServer(engine)
    server.start()
    yield engine
    server.shutdown()
    engine.shutdown(20)


def test_to_the_running_collector(
    tmp_path: Path,
    collecting: Engine,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The collector of the home takes the files, and knows what it took over a socket before."""
    monkeypatch.setattr("engram.collector.import_._RECENT", 10)  # also looks in the lake itself
    for signal, body in REQUESTS[:2]:
        collecting.admit(signal, body, Encoding.IDENTITY).result(10)
    bad = json.loads(as_json(*REQUESTS[0]))
    bad["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["spanId"] = "00"
    path = tmp_path / "lines.jsonl"
    lines = [jsonl(REQUESTS), json.dumps(bad).encode(), b"\n{no", b'\n{"resourceLogs": 1}\n']
    path.write_bytes(b"".join(lines))
    code, facts, err = run(capsys, collecting.home.root, path)
    assert code == 1
    assert (facts["bad"], facts["rejected"]) == (2, 1)
    assert facts["stored_before"] == 8 + 3
    assert facts["traces"] == COUNTS["traces"] + 3
    assert f"lines.jsonl: line {len(REQUESTS) + 1}: 1 span(s) without a valid id" in err
    assert f"lines.jsonl: line {len(REQUESTS) + 2}: this is no JSON" in err
    assert f"lines.jsonl: line {len(REQUESTS) + 3}: " in err
    assert "$.resourceLogs" in err
    assert stored(collecting.home) == COUNTS


def test_the_collector_says_why_not(collecting: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nonsense and what is too large can never be taken; a full collector can take it later."""
    home, body = collecting.home, REQUESTS[0][1]
    with pytest.raises(BadRequest, match="not an OTLP traces request"):
        control.admit(home, Signal.TRACES, b"\xff" * 20)
    settings = replace(collecting.settings, max_request_bytes=1000)
    monkeypatch.setattr(collecting, "settings", settings)
    with pytest.raises(BadRequest, match="over the limit of 1000 bytes"):
        control.admit(home, Signal.TRACES, body * 3000)
    monkeypatch.undo()

    def full(*_: Any, **__: Any) -> Any:
        raise Overloaded("no room", 7.0)

    monkeypatch.setattr(collecting, "admit", full)
    with pytest.raises(Overloaded, match="no room") as caught:
        control.admit(home, Signal.TRACES, body)
    assert caught.value.retry_after_s == 7.0


def test_strict_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--strict ends at the first bad record; what stood before it is stored."""
    path = tmp_path / "lines.jsonl"
    path.write_bytes(jsonl(REQUESTS[:1]) + b"{no\n" + jsonl(REQUESTS[1:]))
    code, facts, err = run(capsys, tmp_path / "home", "--strict", path)
    assert (code, facts) == (1, None)
    assert "line 2: this is no JSON" in json.loads(err)["error"]["message"]
    assert stored(Home(tmp_path / "home"))["traces"] == 4


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there stops before anything is written; a directory is none; 4 is busy."""
    home, path = tmp_path / "home", tmp_path / "f"
    path.write_bytes(jsonl(REQUESTS[:1]))
    code, _, err = run(capsys, home, path, tmp_path / "nowhere")
    assert (code, home.exists()) == (3, False)
    assert "no such file" in err
    assert run(capsys, home, tmp_path)[0] == 2
    path.write_text("".join(f"{{bad {n}\n" for n in range(30)))
    code, facts, err = run(capsys, home, path)
    assert (code, facts["bad"]) == (1, 30)
    assert len(err.splitlines()) == 11
    assert "and 20 more problems" in err
    engine = Engine(Home(home))
    engine.start()
    try:
        code, _, err = run(capsys, home, path)
    finally:
        engine.shutdown(20)
    assert code == 4
    assert "written by another process" in err


def test_from_stdin(tmp_path: Path) -> None:
    """`-` reads a stream, compressed or not."""
    done = subprocess.run(
        [sys.executable, "-m", "engram.collector.cli", "--home", "home", "import", "-"],
        input=gzip.compress(jsonl(REQUESTS)), capture_output=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"traces         {COUNTS['traces']}\n" in done.stdout.decode()
    assert stored(Home(tmp_path / "home")) == COUNTS
