"""The audit of a code base made for it: exactly these findings, and no others."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.interop.collecting import collecting

from engram.collector import seen
from engram.instrumentation.audit import Kind, Report, Verdict, audit, lines
from engram.instrumentation.audit.instrumented import BASE

SHOP = Path(__file__).parent / "audit" / "shop"
EXPECTED = """
graph.py:10 llm zero_code openai.OpenAI.embeddings.create (gpt-5)
graph.py:18 node zero_code act
graph.py:18 node zero_code plan
graph.py:25 node zero_code step
graph.py:29 node zero_code flow
jobs.py:11 job zero_code celery mail
jobs.py:15 job zero_code celery sweep
jobs.py:16 decision none flag new-sweep
jobs.py:20 job zero_code scheduled_job tick
jobs.py:23 job zero_code add_job mail
llm.py:25 llm zero_code openai.AsyncOpenAI.responses.create (gpt-5)
llm.py:26 llm zero_code langchain_openai.ChatOpenAI.bind_tools.invoke
llm.py:31 llm zero_code openai.OpenAI.chat.completions.create (gpt-5)
llm.py:32 llm zero_code anthropic.Anthropic.messages.stream (claude-5)
llm.py:34 llm partial httpx.post
llm.py:36 llm partial litellm.completion (x/y)
llm.py:37 llm partial openai.OpenAI.images.generate
old.py:12 route explicit DELETE /admin/users
old.py:17 route none GET /old
old.py:24 route none ANY books/<int:id>/
old.py:25 route none GET /s/{x:int}
orders.py:14 route zero_code POST /orders/{order_id:int}/refund
orders.py:15 job partial create_task notify
orders.py:16 job explicit Thread index
orders.py:17 job explicit submit index
orders.py:28 decision explicit approve_refund
orders.py:35 decision none choose_carrier
orders.py:43 decision none select_plan
orders.py:52 except explicit except LookupError
orders.py:54 except partial except OSError
orders.py:56 except partial except Exception
web.py:15 route zero_code GET /
web.py:20 route zero_code WEBSOCKET /live
web.py:25 route zero_code GET|POST /api/v1/ping
web.py:26 job zero_code add_task tidy
web.py:31 except none suppress OSError
web.py:38 except zero_code except KeyError
web.py:44 except none except TypeError
"""


def told(report: Report) -> list[str]:
    """The findings as the lines of `EXPECTED`."""
    return [f"{one.file}:{one.line} {one.kind} {one.verdict} {one.name}" for one in report.findings]


def command(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """`engram audit` in a process."""
    done = subprocess.run(
        [sys.executable, "-m", "engram.collector.cli", "audit", *arguments],
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == code, done.stderr
    return done


def test_every_place_is_found_and_nothing_else() -> None:
    """File, line, kind and verdict of all of them; near misses are not in the list."""
    assert told(audit(SHOP, instrumented=BASE)) == EXPECTED.strip().splitlines()


def test_what_needs_nothing_says_nothing() -> None:
    """Whoever leaves no memory or a part of one is told what to do, the others not."""
    for one in audit(SHOP, instrumented=BASE).findings:
        assert one.why
        assert bool(one.do) == (one.verdict in (Verdict.NONE, Verdict.PARTIAL)), one


def test_an_instrumentation_that_is_installed_counts() -> None:
    """With Flask's instrumentation, its routes leave a memory."""
    report = audit(SHOP / "old.py", instrumented=BASE | {"flask"})
    by_name = {one.name: one.verdict for one in report.findings}
    assert by_name["GET /old"] is Verdict.ZERO_CODE
    assert by_name["ANY books/<int:id>/"] is Verdict.NONE


def test_coverage_counts_a_part_as_half() -> None:
    """Per kind and in all; None where there is nothing."""
    report = audit(SHOP, instrumented=BASE)
    assert report.coverage(Kind.NODE) == 100.0
    assert report.coverage(Kind.LLM) == pytest.approx(100 * (5 + 3 * 0.5) / 8)
    assert report.coverage(Kind.EXCEPT) == 50.0
    assert Report().coverage() is None


def test_tests_and_environments_are_skipped(tmp_path: Path) -> None:
    """A virtual environment never, tests only when asked."""
    body = "try:\n    x()\nexcept Exception:\n    pass\n"
    for name in ("a.py", "tests/b.py", "test_c.py", "odd/lib/d.py", ".git/e.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(body)
    (tmp_path / "odd/pyvenv.cfg").touch()
    assert [one.file for one in audit(tmp_path).findings] == ["a.py"]
    every = [one.file for one in audit(tmp_path, tests=True).findings]
    assert every == ["a.py", "test_c.py", "tests/b.py"]


def test_what_cannot_be_parsed_is_said(tmp_path: Path) -> None:
    """Broken syntax, a null byte, another encoding: reported, and the rest goes on."""
    (tmp_path / "broken.py").write_text("def broken(:\n")
    (tmp_path / "null.py").write_bytes(b"x = '\0'\n")
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nx = '\xe9'\n")
    (tmp_path / "deep.py").write_text("x = " + "(" * 3000 + ")" * 3000)
    (tmp_path / "fine.py").write_text("def decide(x):\n    return x\n")
    report = audit(tmp_path)
    assert [file for file, _ in report.unread] == ["broken.py", "deep.py", "null.py"]
    assert told(report) == ["fine.py:1 decision none decide"]
    assert any("broken.py: SyntaxError" in line for line in lines(report))


def test_names_that_turn_in_circles_end(tmp_path: Path) -> None:
    """Imports and assignments of one another are followed a few steps, not for ever."""
    (tmp_path / "a.py").write_text("from b import x\ny = x\nx = y\nx.create(model='m')\n")
    (tmp_path / "b.py").write_text("from a import y as x\ndef f(): return f()\nf().invoke()\n")
    assert told(audit(tmp_path)) == []


def test_names_that_lead_to_many_others_end(tmp_path: Path) -> None:
    """Each name is found out once, however many ways lead to it."""
    body = "".join(f"n{at} = n{at + 1}.a or n{at + 2}.b\nn{at} = n{at + 2}.c\n" for at in range(40))
    (tmp_path / "a.py").write_text(body + "n0.create(model='m')\n" * 50)
    assert told(audit(tmp_path)) == []


def test_a_thousand_files(tmp_path: Path) -> None:
    """Many files with names that lead across them, each finding at its place."""
    (tmp_path / "base.py").write_text("from openai import OpenAI\nclient = OpenAI()\n")
    for at in range(1000):
        before = f"m{at - 1}" if at % 10 else "base"
        (tmp_path / f"m{at}.py").write_text(
            f"from {before} import client\n\ndef ask(x):\n"
            "    return client.responses.create(model='m', input=x)\n" + "\nx = [1, 2]" * 50
        )
    report = audit(tmp_path, instrumented=BASE)
    assert report.files == 1001
    assert len(report.findings) == 1000
    assert {(one.line, one.verdict) for one in report.findings} == {(4, Verdict.ZERO_CODE)}


def test_exit_codes() -> None:
    """0, 1 below the coverage that is asked for, 2 for wrong usage, 3 for no such path."""
    facts = json.loads(command("--json", str(SHOP)).stdout)
    assert facts["kinds"]["node"] == {
        "found": 4,
        "zero_code": 4,
        "explicit": 0,
        "partial": 0,
        "none": 0,
        "coverage": 100.0,
    }
    low = command("--min-coverage", "99", str(SHOP), code=1)
    assert "less than 99 %" in low.stderr
    assert "web.py:31  except  suppress OSError" in low.stdout
    command("--min-coverage", "10", str(SHOP))
    command("--min-coverage", "101", str(SHOP), code=2)
    command(str(SHOP / "nowhere"), code=3)


def test_bare_install_audits(tmp_path: Path) -> None:
    """Without DuckDB and the server's packages it works; with a home it says what is missing."""
    script = (
        "import sys\n"
        "for name in ('duckdb', 'polars', 'pyarrow', 'yaml', 'google.protobuf'):\n"
        "    sys.modules[name] = None\n"
        "from engram.collector.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )

    def run(*arguments: str) -> Any:
        return subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60
        )

    assert run("audit", str(SHOP)).returncode == 0
    home = tmp_path / "home"
    (home / "lake").mkdir(parents=True)
    (home / "lake" / "catalog.sqlite").touch()
    done = run("--home", str(home), "audit", str(SHOP))
    assert done.returncode == 1
    assert 'pip install "engram[server]"' in done.stderr


def test_never_seen_at_run_time(tmp_path: Path) -> None:
    """A route, a model and a job that the lake has are seen, with their time; the others never."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    now = time.time_ns()
    for at, (kind, name, attributes) in enumerate(
        [
            (2, "POST", {"http.route": "/orders/{order_id}/refund", "http.request.method": "POST"}),
            (2, "GET", {"http.route": "/api/v1/ping", "http.request.method": "DELETE"}),
            (3, "chat", {"gen_ai.operation.name": "chat", "gen_ai.request.model": "claude-5"}),
            (5, "run/shop.jobs.mail", {"celery.action": "run"}),
        ]
    ):
        span = spans.add(name=name, kind=kind, start_time_unix_nano=now, end_time_unix_nano=now + 1)
        span.trace_id, span.span_id = bytes([at + 1] * 16), bytes([at + 1] * 8)
        for key, value in attributes.items():
            span.attributes.add(key=key).value.string_value = value
    with collecting(tmp_path / "home") as running:
        import urllib.request

        asked = urllib.request.Request(
            f"http://127.0.0.1:{running.http_port}/v1/traces",
            data=request.SerializeToString(),
            headers={"content-type": "application/x-protobuf"},
        )
        with urllib.request.urlopen(asked, timeout=20) as answer:
            assert answer.status == 200
        running.engine.wait_committed(running.engine.end, 20)
        found = seen.seen(running.engine.home, audit(SHOP, instrumented=BASE))
        done = command("--json", "--home", str(tmp_path / "home"), str(SHOP))
    names = {one.finding.name for one in found if one.last_ns is not None}
    assert names == {
        "POST /orders/{order_id:int}/refund",
        "anthropic.Anthropic.messages.stream (claude-5)",
        "celery mail",
        "add_job mail",
    }
    assert {one.last_ns for one in found} == {now, None}
    never = [one["name"] for one in json.loads(done.stdout)["run_time"] if not one["last_seen"]]
    assert "GET|POST /api/v1/ping" in never
    assert "act" in never
