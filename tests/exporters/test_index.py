"""The LanceDB index: rows, filters, folding, identity."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from engram.exporters import index as index_module
from engram.exporters import index_read
from engram.exporters.embedding.codes import DIMS, pack
from engram.exporters.embedding.static import StaticEmbedder
from engram.exporters.errors import NotFound, StoreError
from engram.exporters.home import Home
from engram.exporters.index import STATE_FILE, IndexWriter, schema, table_dir, template_id
from engram.exporters.index_read import Filter, IndexReader, Match
from engram.exporters.words import words

EMBEDDER = StaticEmbedder(DIMS)
ID = EMBEDDER.embedder_id


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home without anything in it."""
    home = Home(tmp_path / "home")
    home.create()
    return home


def rows(texts: dict[str, str], **columns: object) -> pa.Table:
    """Index rows of {id: text}."""
    codes = pack(EMBEDDER.embed(list(texts.values())))
    given = {"type": "system_error", "time_unix_nano": 1} | columns
    made = []
    for field in schema():
        if field.name == "id":
            made.append(pa.array(list(texts)))
        elif field.name == "search_text":
            made.append(pa.array([" ".join(words(text)) for text in texts.values()]))
        elif field.name == "vector":
            made.append(
                pa.FixedSizeListArray.from_arrays(pa.array(codes.reshape(-1)), codes.shape[1])
            )
        else:
            made.append(pa.array([given.get(field.name)] * len(texts), type=field.type))
    return pa.Table.from_arrays(made, schema=schema())


def find(home: Home, text: str, only: Filter | None = None, *, vector: bool = False) -> list[Match]:
    """Matches by words (or by vector), best first."""
    found = IndexReader(home, ID).matches(
        [] if vector else words(text), EMBEDDER.embed([text])[0] if vector else None, 10, only
    )
    return sorted(found, key=lambda match: -(match.vector_score if vector else match.text_score))


def ids(matches: list[Match]) -> list[str]:
    """Their ids."""
    return [match.id for match in matches]


def test_importing_the_packages_imports_no_lancedb() -> None:
    """LanceDB starts threads and takes a second: only who opens an index pays."""
    code = (
        "import sys, engram.exporters, engram.learning, engram.exporters.index, "
        "engram.learning.indexer, engram.learning.search\n"
        "assert not {'lancedb', 'duckdb', 'polars', 'numpy', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ConnectionRefusedError", ["connect", "connectionrefusederror", "error", "refus"]),
        ("max_pool_size", ["max", "maxpoolsize", "pool", "size"]),
        (
            "kafka.errors.NoBrokers",
            ["broker", "error", "kafka", "kafkaerrorsnobrokers", "nobrokers"],
        ),
        (
            "HTTPServer parseJSONBody",
            ["bodi", "http", "httpserver", "json", "pars", "parsejsonbody", "server"],
        ),
        (
            "/api/v1/orders at 10.2.33.4:5432",
            ["10", "2", "33", "4", "5432", "api", "apiv1orders", "order", "v1"],
        ),
        ("connections connected", ["connect"]),
        ("order A17 A17 was 5", ["5", "a17", "order"]),
        ("the of and", []),
        ("x" * 41, []),
    ],
)
def test_words_are_split_distinct_and_without_stop_words(text: str, expected: list[str]) -> None:
    """Identifiers are searched by their parts and whole; what changes each time has no whole."""
    assert words(text) == expected


def test_rows_are_found_by_words_and_by_vector(home: Home) -> None:
    """Written rows are there at once, folded or not."""
    writer = IndexWriter(home, ID)
    writer.upsert(rows({"a": "ConnectionRefusedError from database", "b": "the queue is full"}))
    for _ in range(2):
        assert ids(find(home, "database connections")) == ["a"]
        assert ids(find(home, "message backlog queue", vector=True))[0] == "b"
        writer.finish()


def test_an_upsert_replaces_the_row(home: Home) -> None:
    """After a change the old words are not found, before and after folding."""
    writer = IndexWriter(home, ID)
    writer.upsert(rows({"a": "banana", "b": "apple"}))
    writer.finish()
    writer.upsert(rows({"a": "cherry"}))
    for _ in range(2):
        assert find(home, "banana") == []
        assert ids(find(home, "cherry")) == ["a"]
        assert ids(find(home, "apple")) == ["b"]
        assert writer.rows == 2
        writer.finish()


def test_deleted_rows_are_gone(home: Home) -> None:
    """By words and by vector."""
    writer = IndexWriter(home, ID)
    writer.upsert(rows({"a": "banana bread", "it's": "apple pie"}))
    writer.finish()
    writer.delete(["it's", "nothing"])
    writer.delete([])
    assert find(home, "apple") == []
    assert ids(find(home, "apple pie", vector=True)) in ([], ["a"])
    assert writer.rows == 1


def test_filters_apply_before_the_search(home: Home) -> None:
    """Thousands of better rows of another kind do not push the wanted one out."""
    writer = IndexWriter(home, ID)
    writer.upsert(rows({f"n{n}": "disk full" for n in range(300)}, service_name="noise"))
    writer.upsert(
        rows({"a": "disk full of logs"}, service_name="o'hare", user_id="u", session_id="s",
             type="odd", time_unix_nano=50)
    )  # fmt: skip
    for only in (
        Filter(service="o'hare"), Filter(user_id="u"), Filter(session_id="s"),
        Filter(types=["odd", "other"]), Filter(since_ns=50), Filter(since_ns=2, until_ns=51),
    ):  # fmt: skip
        assert ids(find(home, "disk full", only)) == ["a"]
        assert ids(find(home, "disk full", only, vector=True)) == ["a"]
    for only in (Filter(types=[]), Filter(service="' OR 1=1 --"), Filter(since_ns=51)):
        assert find(home, "disk full", only) == []
        assert find(home, "disk full", only, vector=True) == []
    assert Filter().given == {}


def test_words_asked_for_twice_are_looked_up_once_and_never_stale(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another filter of the same words asks LanceDB no more; a write in between does."""
    writer = IndexWriter(home, ID)
    writer.upsert(rows({f"n{n}": "disk full" for n in range(300)}, service_name="a"))
    reader, asked = IndexReader(home, ID), list[int]()
    looked_up = IndexReader._fts

    def counted(self: IndexReader, text: str, limit: int, where: str | None) -> Any:
        asked.append(limit)
        return looked_up(self, text, limit, where)

    monkeypatch.setattr(IndexReader, "_fts", counted)
    for only in (Filter(service="a"), Filter(until_ns=2), None):
        assert len(reader.matches(["disk", "full"], None, 200, only)) == 200
    assert len(asked) == 1
    assert len(reader.matches(["disk", "full"], None, 400)) == 300
    writer.upsert(rows({"new": "disk full"}, service_name="b"))
    assert len(reader.matches(["disk", "full"], None, 400)) == 301
    assert len(asked) == 3


@pytest.mark.parametrize("few", [0, 8_000])
def test_few_rows_that_pass_are_found_however_they_are_asked_for(
    home: Home, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """Among the best of all, asked again until enough pass, or as a list of rows."""
    monkeypatch.setattr(index_read, "_FEW", few)
    monkeypatch.setattr(index_read, "_AT_FIRST", 60)
    writer = IndexWriter(home, ID)
    writer.upsert(rows({f"n{n}": "disk full" for n in range(900)}, service_name="noise"))
    writer.upsert(rows({f"a{n}": "disk full of old logs" for n in range(30)}, service_name="a"))
    found = IndexReader(home, ID).matches(words("disk full"), None, 200, Filter(service="a"))
    assert len(found) >= 200 // index_read._SHARE
    assert {one.service for one in found} == {"a"}


def test_a_row_without_vector_is_found_by_words_only(home: Home) -> None:
    """Text that embeds to nothing has no place among the vectors."""
    writer = IndexWriter(home, ID)
    writer.upsert(rows({"a": "12345", "b": "database"}))
    assert ids(find(home, "12345")) == ["a"]
    assert "a" not in ids(find(home, "database", vector=True))


def test_template_rows_keep_the_oldest_memory(home: Home) -> None:
    """Whatever the order, the same memory stands for a template."""
    writer = IndexWriter(home, ID)
    for memory, time_ns in (("m2", 20), ("m3", 30), ("m1", 10), ("m0", 10), ("m9", 99)):
        writer.add_templates(rows({"t": "GET <n>"}, memory_id=memory, time_unix_nano=time_ns))
    assert [match.memory_id for match in find(home, "get")] == ["m0"]
    assert writer.rows == 1


def test_template_ids_ignore_volatile_tokens() -> None:
    """Type, service and masked title; nothing else."""
    one = template_id("request_outcome", "shop", "GET /items/17 → 200 in 12ms")
    assert one == template_id("request_outcome", "shop", "GET /items/99 → 200 in 7ms")
    assert one != template_id("request_outcome", "shop", "GET /items/17 → 500 in 12ms")
    assert one != template_id("request_outcome", "shop", "GET /orders/17 → 200 in 12ms")
    assert template_id("a", "s", "took 5ms")[0] == template_id("a", "s", "took 6ms")[0]
    assert template_id("a", "s", "took 5ms")[0] != template_id("b", "s", "took 5ms")[0]
    assert template_id("a", None, None)[0] != template_id("a", "s", None)[0]


def test_another_embedder_is_refused_and_named(home: Home) -> None:
    """Vectors of two models are never mixed; the error says what to do."""
    IndexWriter(home, ID)
    for opened in (IndexWriter, IndexReader):
        with pytest.raises(StoreError, match="engram reindex"):
            opened(home, "other-model")


def test_no_index_is_not_found(home: Home) -> None:
    """Reading before `learn` ever ran says so."""
    with pytest.raises(NotFound, match="engram learn"):
        IndexReader(home, ID)


def test_watermarks_are_in_the_table_and_survive_folding(home: Home) -> None:
    """Deleting the index deletes how far it had read; folding does not."""
    writer = IndexWriter(home, ID)
    writer.upsert(rows({"a": "x1"}))
    writer.watermarks["c1"] = 7
    writer.save()
    writer.finish()
    assert IndexWriter(home, ID).watermarks == {"c1": 7}
    shutil.rmtree(home.index)
    assert not writer.alive
    fresh = IndexWriter(home, ID)
    assert fresh.watermarks == {}
    assert fresh.rows == 0


def test_a_half_made_index_is_made_again(home: Home) -> None:
    """A table whose state was never written (a crash while making it) is not trusted."""
    IndexWriter(home, ID).upsert(rows({"a": "banana"}))
    (table_dir(home) / STATE_FILE).unlink()
    assert IndexWriter(home, ID).rows == 0


def test_an_unreadable_state_says_what_to_do(home: Home) -> None:
    """A broken state file is an operator's error, not a traceback."""
    IndexWriter(home, ID)
    (table_dir(home) / STATE_FILE).write_text("{")
    with pytest.raises(StoreError, match="delete"):
        IndexWriter(home, ID)


def test_versions_and_files_stay_bounded(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of small writes leave a handful of files."""
    monkeypatch.setattr(index_module, "_WRITES", 16)
    writer = IndexWriter(home, ID)
    most = 0
    for n in range(100):
        writer.upsert(rows({f"r{n}": f"text number {n}"}))
        writer.maintain()
        most = max(most, len(list((table_dir(home) / "data").iterdir())))
    writer.finish()
    assert len(list((table_dir(home) / "data").iterdir())) == 1
    assert len(list((table_dir(home) / "_versions").glob("*.manifest"))) <= 2
    assert most <= 120
    assert writer.rows == 100
    assert writer.maintain(idle=True) is False


def test_a_reader_survives_folding_under_it(home: Home) -> None:
    """An open reader sees what is written and folded later."""
    writer = IndexWriter(home, ID)
    writer.upsert(rows({"a": "banana"}))
    reader = IndexReader(home, ID)
    vector = EMBEDDER.embed(["banana"])[0]
    assert ids(reader.matches(["banana"], vector, 5)) == ["a"]
    writer.upsert(rows({"b": "banana split"}))
    writer.finish()
    assert sorted(ids(reader.matches(["banana"], vector, 5))) == ["a", "b"]


def test_the_state_is_json_a_person_can_read(home: Home) -> None:
    """Identity and watermarks."""
    IndexWriter(home, ID)
    state = json.loads((table_dir(home) / STATE_FILE).read_text())
    assert state["identity"].startswith(ID)
    assert state["watermarks"] == {}
