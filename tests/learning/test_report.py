"""The report of a day: what it says, that chance is no news, and that words stay words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.learning.days import DAY, HOUR, MIDNIGHT, asked, event, raised, traffic
from tests.learning.home import Collecting

from engram.collector import cli
from engram.exporters.home import Home
from engram.exporters.memories import memory_id
from engram.learning.jobs import Runner
from engram.learning.jobs.errors import Errors
from engram.learning.jobs.report import Reports
from engram.learning.report import Period, Report, build, html, markdown
from engram.learning.report.period import day_of

TODAY = Period.of(day_of(MIDNIGHT), 1, MIDNIGHT + 2 * DAY)


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[Collecting]:
    """A home that was never used."""
    made = Collecting(Home(tmp_path / "home"))
    yield made
    made.close()


def told(collecting: Collecting, period: Period = TODAY) -> Report:
    """The report of what is in the lake."""

    def read(sql: str, values: Sequence[Any] = ()) -> pl.DataFrame:
        collecting.rows("SELECT 1")
        frame: pl.DataFrame = collecting.reader.execute(sql, list(values)).pl()
        return frame

    return build(read, period)


def learn(collecting: Collecting, *jobs: Any, now: int = MIDNIGHT + 2 * DAY) -> None:
    """Run jobs as `learn` would."""
    runs = Runner(collecting.home, list(jobs), clock=lambda: now).step()
    assert [run.error for run in runs] == [""] * len(runs)
    collecting.commit()


def section(report: Report, key: str) -> Any:
    """One part of it."""
    return next(one for one in report.sections if one.key == key)


def test_an_error_is_told_with_its_numbers(collecting: Collecting) -> None:
    """What is new comes first, with how often, whom it hit, in which version, and its evidence."""
    yesterday = [raised(MIDNIGHT - DAY + n * HOUR, "OldError") for n in range(20)]
    today = [raised(MIDNIGHT + n * HOUR, "OldError") for n in range(20)]
    fresh = [raised(MIDNIGHT + n * HOUR, "NewError", user=f"u{n % 3}") for n in range(6)]
    collecting.send(*yesterday, *today, *fresh)
    learn(collecting, Errors())
    report = told(collecting)
    first = section(report, "errors").statements[0]
    assert first.mark == "new"
    assert "NewError" in first.text
    assert "6 times, 3 users, version 1.0" in first.text
    assert first.n == 6
    insight = collecting.rows("SELECT id, attributes FROM lake.ai_insight WHERE title LIKE '%New%'")
    assert first.evidence[0] == insight[0][0]
    assert set(first.evidence[1:]) <= set(json.loads(insight[0][1])["evidence"])
    assert len(first.evidence) > 1
    assert first in report.headline
    table = section(report, "errors").tables[0]
    assert [row.cells[1:3] for row in table.rows] == [("20", "20"), ("6", "0")]
    assert "no change" in table.rows[0].cells[3]
    for id_ in {one for row in table.rows for one in row.evidence}:
        assert collecting.rows("SELECT 1 FROM lake.system_error WHERE id = ?", [id_])


def test_what_did_not_change_is_not_told_as_a_change(collecting: Collecting) -> None:
    """Two days of one distribution differ by chance; twice as slow and failing does not."""
    collecting.send(*traffic(MIDNIGHT - DAY, failing=0.02, seed=1))
    collecting.send(*traffic(MIDNIGHT, failing=0.02, seed=2))
    same = section(told(collecting), "requests")
    assert [one.mark for one in same.statements] == [""] * 4
    assert all("no change that can be told" in one.text for one in same.statements)
    assert same.statements[0].text.startswith("960 requests, before 960")
    collecting.send(*traffic(MIDNIGHT + DAY, an_hour=60, ms=40, failing=0.1, seed=3))
    other = Period.of(day_of(MIDNIGHT + DAY), 1, MIDNIGHT + 3 * DAY)
    report = told(collecting, other)
    assert [one.mark for one in section(report, "requests").statements] == ["up"] * 4
    assert {one.mark for one in report.headline} == {"up"}
    row = section(report, "operations").tables[0].rows[0]
    assert row.cells[0] == "shop GET /orders"
    assert "up (" in row.cells[5]
    assert row.evidence
    chart = report.charts[0]
    assert chart.values == (60.0,) * 24
    assert chart.before == (40.0,) * 24


def test_a_burst_is_no_change_of_the_day(collecting: Collecting) -> None:
    """Sixty failures in one minute of 960 requests: one event, not sixty."""
    collecting.send(*traffic(MIDNIGHT - DAY, failing=0.02, seed=1))
    collecting.send(*traffic(MIDNIGHT, failing=0.02, seed=2))
    collecting.send(*(asked(MIDNIGHT + 5 * HOUR + n, failed=True) for n in range(60)))
    failed = section(told(collecting), "requests").statements[1]
    assert "no change that can be told" in failed.text


def test_a_quiet_day_says_so(collecting: Collecting) -> None:
    """Every part is there and says that there was nothing."""
    collecting.send(*(asked(MIDNIGHT - DAY + n) for n in range(3)))
    report = told(collecting)
    assert not report.headline
    text = markdown(report)
    assert "A quiet day" in text
    assert "No error." in text
    assert "No request was answered; the day before there were 3." in text
    for one in report.sections:
        assert one.statements or one.tables or one.quiet, one.key
    assert "A quiet day" in html(report)


class _Strict(HTMLParser):
    """What tags and attributes there are, and that each tag is closed."""

    VOID = frozenset(("meta",))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


EVIL = "</title><script>alert(1)</script><img src=x onerror=a()> [x](javascript:a) `|\u202e"


def test_recalled_words_are_no_markup(collecting: Collecting) -> None:
    """What an app says, in any place of the report, stays text; the file needs nothing else."""
    collecting.send(raised(MIDNIGHT, "Bad</b>Error", EVIL))
    collecting.send(*(asked(MIDNIGHT + n, route=EVIL) for n in range(30)))
    found = event(
        "ai_insight", MIDNIGHT + 5, EVIL, id="x", job=f"j{EVIL}", importance=0.9,
        **{"engram.tags": ["job:j", f"state:{EVIL}"], "evidence": [EVIL, "javascript:a"], "n": 3},
    )  # fmt: skip
    collecting.send(found)
    learn(collecting, Errors())
    report = told(collecting)
    page = html(report, "http://127.0.0.1:4319")
    strict = _Strict()
    strict.feed(page)
    strict.close()
    assert not strict.open
    assert not strict.tags & {"script", "img", "link", "iframe", "object", "form"}
    for tag, name, value in strict.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert re.fullmatch(r"http://127\.0\.0\.1:4319/api/memories/[0-9a-f]+", value), tag
    assert "alert(1)" in page  # it is told, as text
    assert "\u202e" not in page
    text = markdown(report)
    assert "<script>" not in text.replace("\\<", "")
    assert not re.search(r"(?<!\\)\]\(javascript", text)
    assert "url(" not in page
    assert "@import" not in page


def test_a_job_that_nobody_knew_is_told(collecting: Collecting) -> None:
    """Any job's insights have a place, by importance; those of known jobs in theirs."""
    for n, (type_, job, title) in enumerate(
        (
            ("ai_insight", "tides", "High tide"),
            ("ai_insight", "predictions", "Disk is full in 3 days"),
            ("optimization", "whatever", "N+1 in GET /cart"),
            ("error_solution", "solutions", "Raise the pool's limit"),
        )
    ):
        tags = {"engram.tags": [f"job:{job}", "state:said"]}
        collecting.send(
            event(type_, MIDNIGHT + n, title, id=str(n), job=job, importance=0.8, n=7, **tags)
        )
    collecting.send(event("ai_insight", MIDNIGHT, "My own", id="own"))  # of the app, not of a job
    report = told(collecting)
    places = {
        one.key: [it.text for it in one.statements[:-1]]
        for one in report.sections
        if one.statements and one.key != "engram"
    }
    assert places == {
        "predictions": ["Disk is full in 3 days"],
        "optimizations": ["N+1 in GET /cart"],
        "solutions": ["Raise the pool's limit"],
        "job:tides": ["High tide"],
    }
    assert section(report, "predictions").statements[0].n == 7
    totals = [one.text for one in section(report, "predictions").statements[1:]]
    assert totals == ["1 statement in all, the day before there were 0."]


def test_models_decisions_and_work_are_told(collecting: Collecting) -> None:
    """Calls and tokens with the cost that the telemetry says, outcomes, runs, states, pages."""
    chat: dict[str, Any] = {
        "gen_ai.operation.name": "chat", "gen_ai.request.model": "m-1",
        "gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 10,
    }  # fmt: skip
    spans = []
    for n in range(30):
        cost: dict[str, Any] = {"gen_ai.usage.cost": 0.25} if n < 20 else {}
        made = asked(MIDNIGHT + n * HOUR // 2, 500, **chat, **cost)
        made.kind = Span.SPAN_KIND_CLIENT
        if n == 7:
            made.status.code = Status.STATUS_CODE_ERROR
        spans.append(made)
    collecting.send(*spans)
    work = [
        event("workflow_state", MIDNIGHT + n, "Automation mail", subject="mail", id=f"mail{n}",
              outcome="error" if n < 3 else "ok", error_type="SMTPError", state="x",
              duration_ms=20.0)
        for n in range(12)
    ]  # fmt: skip
    for n in range(4):
        for at, state in enumerate(("new", "paid")):
            when = MIDNIGHT + n + at * HOUR
            work.append(
                event("workflow_state", when, "order", workflow="order", state=state, run=str(n))
            )

    def later(n: int) -> str:
        at = (MIDNIGHT - 3 * DAY + (n + 2) * HOUR) // 10**9
        return datetime.fromtimestamp(at, UTC).isoformat()

    for n in range(20):
        known = {"outcome": "ok" if n % 4 else "error", "outcome_at": later(n)} if n < 16 else {}
        work.append(
            event("business_decision", MIDNIGHT - 3 * DAY + n * HOUR, "loan: yes", subject="loan",
                  id=f"d{n}", decision="loan", chosen="yes", confidence=0.9, **known)
        )  # fmt: skip
    work.append(
        event("business_decision", MIDNIGHT + 23 * HOUR, "loan: no", subject="loan",
              decision="loan", chosen="no", id="today")
    )  # fmt: skip
    work.append(
        event("business_decision", MIDNIGHT - DAY, "move: yes", subject="move", decision="move",
              chosen="yes", id="promised", due="2026-09-22T12:00:00+00:00")
    )  # fmt: skip
    for session in ("a", "b", "c"):
        for at, path in enumerate(("/", "/cart")):
            view = event("x", MIDNIGHT + at, **{"session.id": session, "url.path": path})
            view.event_name = "browser.navigation"
            work.append(view)
    collecting.send(*work)
    report = told(collecting)
    llm = section(report, "llm")
    texts = [one.text for one in llm.statements]
    assert texts[0].startswith("30 calls: ")
    assert texts[1] == "3,300 tokens (3,000 in, 300 out)."
    assert texts[2].startswith("5 in cost, as the telemetry says it of 20 of 30 calls")
    assert texts[3].startswith("1 of 30 calls failed: 3.3 % (95 % interval 0.59 % to 16.7 %)")
    assert llm.tables[0].rows[0].cells[:3] == ("m-1", "30", "0")
    assert report.charts[-1].title == "Tokens of models"
    assert report.charts[-1].values[0] == 220
    decisions = section(report, "decisions")
    texts = [one.text for one in decisions.statements]
    assert texts[0] == "1 decision was made, the day before 1."
    assert texts[1:] == [
        "4 outcomes of loan due; nine of ten are known after 2 h.",
        "1 outcome of move due.",
    ]
    option = decisions.tables[0].rows[0].cells
    assert option[:2] == ("loan: yes", "16")
    assert option[2].startswith("75.0 % (")
    assert option[3:] == ("90.0 %", "0.210")
    assert decisions.tables[1].rows[0].cells[:3] == ("80 to 100 %", "16", "90.0 %")
    work_ = section(report, "work")
    assert work_.statements[0].text.startswith(
        "12 runs of 1 workflow, job or sync ended, 3 failed: 25.0 %"
    )
    runs, states, ways = work_.tables
    assert runs.rows[0].cells[:3] == ("mail", "12", "0")
    assert runs.rows[0].cells[4:] == ("20 ms", "20 ms", "SMTPError")
    assert [row.cells[0] for row in states.rows] == ["order: new", "order: paid"]
    assert states.rows[0].cells[2:] == ("60 min", "60 min", "0")
    assert states.rows[1].cells[4] == "4"
    assert [row.cells for row in ways.rows] == [
        ("/ → /cart", "3", "100 %"), ("/cart → (left)", "3", "100 %"),
    ]  # fmt: skip
    for one in report.sections:
        for table in one.tables:
            assert all(row.evidence for row in table.rows), table.caption


def test_a_day_that_is_over_is_kept(collecting: Collecting) -> None:
    """Once, in short, two hours after it; not of a day without a record, and not of itself."""
    collecting.send(*(raised(MIDNIGHT + n * HOUR, f"Error{n}", "x" * 400) for n in range(20)))
    runner = Runner(collecting.home, [Errors(), Reports()], clock=lambda: MIDNIGHT + DAY)
    runner.step()
    collecting.commit()
    kept = "SELECT title, content, epoch_ns(time), attributes->>'$.date' FROM lake.ai_insight "
    kept += "WHERE list_contains(tags, 'job:report')"
    assert collecting.rows(kept) == []
    learn(collecting, Reports(), now=MIDNIGHT + DAY + 3 * HOUR)
    rows = collecting.rows(kept)
    assert len(rows) == 1
    title, content, when, date = rows[0]
    assert (title, date, when) == ("Learnings of 2026-09-22", "2026-09-22", MIDNIGHT + DAY - 1)
    said, _, fields = content.partition("\njob: report")
    assert len(said) <= 2_000 + len(title) + 1
    assert fields
    assert "20 errors of 20 kinds" in content
    learn(collecting, Reports(), now=MIDNIGHT + 5 * DAY)
    Runner(collecting.home, [Reports()], clock=lambda: MIDNIGHT + 5 * DAY).step(since=0)
    collecting.commit()
    assert collecting.rows(kept) == rows
    report = told(collecting, Period.of(day_of(MIDNIGHT + DAY), 1, MIDNIGHT + 9 * DAY))
    assert not report.headline


def test_predictions_are_open_or_scored(collecting: Collecting) -> None:
    """The decided have a Brier score, the open ones a deadline; silent ones are no sentence."""
    records = []
    for n, (day, sure, verdict, muted) in enumerate(
        ((-9, 0.9, "hit", False), (-8, 0.8, "miss", False), (-2, 0.7, "", False),
         (-2, 0.6, "", True), (0, 0.5, "", False))
    ):  # fmt: skip
        tags = {"engram.tags": ["job:predictions", "state:predicted"]}
        records.append(
            event("ai_insight", MIDNIGHT + day * DAY + n, f"Disk {n} fills", id=f"p{n}", n=99,
                  job="predictions", importance=0.8, probability=sure, muted=muted,
                  deadline_ns=MIDNIGHT + 3 * DAY, **tags)
        )  # fmt: skip
        if verdict:
            made = memory_id("ai_insight", "", f"id:p{n}")
            records.append(
                event("ai_insight", MIDNIGHT - DAY + n, f"It was a {verdict}", id=f"o{n}",
                      job="predictions", prediction=made, verdict=verdict, **tags)
            )  # fmt: skip
    collecting.send(*records)
    texts = [(one.mark, one.text) for one in section(told(collecting), "predictions").statements]
    assert texts == [
        ("predicted", "Disk 4 fills"),
        ("", "1 statement in all, the day before there were 2."),
        ("open", "Disk 2 fills (until 2026-09-25 00:00 UTC, probability 70.0 %)"),
        ("", "Of 2 predictions of four weeks that are decided 1 came true: 50.0 % (95 % interval "
             "9.5 % to 90.5 %); Brier score 0.325."),
    ]  # fmt: skip


# -- the command -----------------------------------------------------------------------------------


def test_the_command(
    collecting: Collecting, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Markdown, a file of HTML, JSON; a week; a day that is none."""
    collecting.send(*traffic(MIDNIGHT, an_hour=2))
    home, file = str(collecting.home.root), tmp_path / "report.html"
    day = ["--home", home, "report", "--date", "2026-09-22"]
    assert cli.main(day) == 0
    out = capsys.readouterr().out
    assert out.startswith("# Learnings of 2026-09-22\n")
    assert "48 requests" in out
    assert "(http://127.0.0.1:4319/api/memories/" in out
    assert cli.main([*day, "--html", str(file), "--base-url", "https://e.test/"]) == 0
    assert str(file) in capsys.readouterr().err
    assert 'href="https://e.test/api/memories/' in file.read_text()
    assert cli.main(["--json", *day, "--week"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["period"]["first"] == "2026-09-16"
    assert len(told["charts"][0]["values"]) == 7
    assert cli.main([*day[:3], "--date", "soon"]) == 2
    assert "is no day" in capsys.readouterr().err
    assert cli.main([*day[:3], "--date", "2999-01-01"]) == 2
    assert cli.main(day[:3]) == 0  # nothing of yesterday: today
    assert "is not over" in capsys.readouterr().out


def test_an_empty_home_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No lake, and a lake without a record: a sentence."""
    assert cli.main(["--home", str(tmp_path), "report"]) == 3
    assert "no lake" in capsys.readouterr().err
    empty = Collecting(Home(tmp_path / "empty"))
    try:
        code = cli.main(["--home", str(empty.home.root), "report"])
    finally:
        empty.close()
    done = capsys.readouterr()
    assert "Traceback" not in done.err
    assert code in (0, 3)
    assert "quiet" in done.out or "no lake" in done.err
