"""docs/sql.md: every query on the page runs, and finds something in a lake of the shop."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.telemetry import T0, request, shop_traces

from engram.collector import query
from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.home import Home
from engram.exporters.lake.attach import EXTENSIONS, _extension_file
from engram.exporters.signals import Encoding, Signal

PAGE = (Path(__file__).parents[1] / "docs" / "sql.md").read_text()
QUERIES = re.findall(r"^### (.+?)\n(?:(?!^#).)*?^```sql\n(.+?)^```", PAGE, re.DOTALL | re.MULTILINE)
_TIMES = ("time_unix_nano", "start_time_unix_nano", "end_time_unix_nano")


def moved(record: Any, by: int) -> Any:
    """The record at another time."""
    for name in _TIMES:
        if getattr(record, name, 0):
            setattr(record, name, getattr(record, name) + by)
    for event in getattr(record, "events", ()):
        moved(event, by)
    if hasattr(record, "sum"):
        for point in record.sum.data_points:
            moved(point, by)
    return record


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The home `./.engram` of a directory: thirty requests of the shop, up to an hour ago."""
    home = Home(tmp_path_factory.mktemp("docs") / ".engram")
    engine = Engine(home, EngineSettings(commit_interval_s=0.05))
    engine.start()
    try:
        now = time.time_ns() - 3_600_000_000_000
        for signal, records in zip(Signal, shop_traces(30), strict=True):
            body = request(signal, [moved(one, now - T0) for one in records])
            engine.admit(signal, body, Encoding.IDENTITY).result(10)
        engine.wait_committed(engine.end, 30)
    finally:
        engine.shutdown(20)
    return home


@pytest.fixture(scope="module")
def lake(home: Home) -> Iterator[duckdb.DuckDBPyConnection]:
    """The lake as `engram sql` has it."""
    with query.reader(home) as connection:
        yield connection


def answers(lake: duckdb.DuckDBPyConnection, text: str) -> list[dict[str, Any]]:
    """The rows of a query."""
    result = query.run(lake, text)
    return [dict(zip(result.columns, row, strict=True)) for row in result.rows]


def test_every_block_is_found() -> None:
    """Each block of SQL stands under a heading of its own, and there are a dozen and more."""
    assert len(QUERIES) == PAGE.count("```sql\n") >= 12
    assert len({title for title, _ in QUERIES}) == len(QUERIES)


@pytest.mark.parametrize(("title", "text"), QUERIES, ids=[title for title, _ in QUERIES])
def test_query(lake: duckdb.DuckDBPyConnection, title: str, text: str) -> None:
    """It runs, gives rows, and has no column that is nothing but NULL."""
    rows = answers(lake, text)
    assert rows, title
    for column in rows[0]:
        assert any(row[column] is not None for row in rows), (title, column)


def test_some_answers(lake: duckdb.DuckDBPyConnection) -> None:
    """Spot checks: what is said is so."""
    named = dict(QUERIES)
    (failure,) = answers(lake, next(text for title, text in QUERIES if "by fingerprint" in title))
    assert (failure["failures"], failure["services"]) == (10, ["shop"])
    (model,) = answers(lake, named["Tokens and cost by model"])
    assert (model["calls"], model["input_tokens"], model["output_tokens"]) == (30, 330, 150)
    assert model["dollars"] == round((330 * 0.25 + 150 * 2) / 1e6, 4)
    tree = answers(lake, named["A trace as a tree"])
    assert [row["span"] for row in tree] == ["POST /orders", "  POST", "  chat m-1"]
    before = answers(lake, named["The last failure, and what happened before it in its trace"])
    assert {row["what"] for row in before} >= {"span", "memory: api_call"}
    assert all(row["ms_before"] >= 0 for row in before)
    counter = answers(lake, named["A gauge or counter over time"])
    assert sum(row["total"] or 0 for row in counter) == 29
    session = answers(lake, named["All that happened in a user's session"])
    assert {"request_outcome", "ai_response"} <= {row["type"] for row in session}


def test_from_your_own_duckdb(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines for other DuckDBs work as they stand, but for the download of extensions."""
    (python,) = re.findall(r"^```python\n(.+?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (cli,) = re.findall(r"^```\n(INSTALL.+?)^```", PAGE, re.DOTALL | re.MULTILINE)
    install = "INSTALL ducklake; INSTALL sqlite; LOAD ducklake"
    load = "; ".join(f"LOAD '{_extension_file(name)}'" for name in EXTENSIONS)
    assert install in python
    assert install in cli
    monkeypatch.chdir(home.root.parent)
    out = io.StringIO()
    with redirect_stdout(out):
        exec(python.replace(install, load), {})
    assert "shape: (10, 3)" in out.getvalue()
    with duckdb.connect() as connection:
        assert len(connection.execute(cli.replace(install, load)).fetchall()) == 5
