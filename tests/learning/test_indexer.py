"""The indexer: from a lake that grows, changes, hides and comes back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.learning.lake import START, Lake, memory

from engram.exporters.embedding.codes import DIMS
from engram.exporters.embedding.static import StaticEmbedder
from engram.exporters.errors import StoreError
from engram.exporters.home import Home
from engram.exporters.index import IndexWriter, read_state
from engram.exporters.index_read import IndexReader
from engram.exporters.words import words
from engram.learning import indexer as indexer_module
from engram.learning.indexer import Indexer

EMBEDDER = StaticEmbedder(DIMS)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home that was never used."""
    return Home(tmp_path / "home")


@pytest.fixture
def lake(home: Home) -> Iterator[Lake]:
    """Its lake."""
    lake = Lake(home)
    yield lake
    lake.close()


def found(home: Home, text: str) -> list[str]:
    """Ids of the memories found by words, sorted."""
    reader = IndexReader(home, EMBEDDER.embedder_id)
    return sorted(match.memory_id for match in reader.matches(words(text), None, 100))


def everything(home: Home) -> list[tuple[Any, ...]]:
    """All rows of the index."""
    reader = IndexReader(home, EMBEDDER.embedder_id)
    return sorted(map(str, reader._table.to_arrow().to_pylist()))  # type: ignore[arg-type]


def drain(indexer: Indexer) -> int:
    """Step until nothing is new."""
    total = 0
    for _ in range(100):
        written = indexer.step()
        total += written
        if not written:
            return total
    raise AssertionError("never done")


def test_nothing_to_index_is_no_error(home: Home) -> None:
    """Without a lake, without its tables, with an empty one."""
    indexer = Indexer(home)
    assert indexer.step() == 0
    lake = Lake(home)
    assert indexer.step() == 0
    lake.commit(memory("a", "late news"))
    assert drain(indexer) == 1
    indexer.close()
    indexer.close()
    lake.close()


def test_memories_are_found_after_a_step(home: Home, lake: Lake) -> None:
    """What was committed is indexed once, and a quiet lake costs no rows."""
    a, b = memory("a", "disk full"), memory("b", "queue stuck")
    lake.commit(a, b)
    indexer = Indexer(home)
    assert drain(indexer) == 2
    assert indexer.step() == 0
    assert found(home, "disk") == [a["id"]]
    lake.commit(c := memory("c", "disk broken"))
    assert drain(indexer) == 1
    assert found(home, "disk") == sorted([a["id"], c["id"]])


def test_a_changed_memory_replaces_its_row(home: Home, lake: Lake) -> None:
    """A merge gives a new sequence, so the row is written again under its id."""
    lake.commit(memory("a", "banana split"))
    indexer = Indexer(home)
    drain(indexer)
    lake.commit(memory("a", "cherry cake"))
    assert drain(indexer) == 1
    assert found(home, "banana") == []
    assert len(found(home, "cherry")) == 1


def test_title_and_content_are_searched(home: Home, lake: Lake) -> None:
    """Words of either find it."""
    lake.commit(memory("a", "Checkout failed", "the payment provider said no"))
    indexer = Indexer(home)
    drain(indexer)
    assert len(found(home, "checkout")) == len(found(home, "payment")) == 1


def test_volume_types_share_a_row(home: Home, lake: Lake) -> None:
    """One row per type, service and masked title, standing for the oldest memory; none: no row."""
    requests = [
        memory(f"r{n}", f"GET /items took {n}ms", type="request_outcome", index_as="template",
               time_unix_nano=START - n)
        for n in range(50)
    ]  # fmt: skip
    other = requests[7] | {"id": "other", "service_name": "mail"}
    lake.commit(*requests[:30], other, memory("n", "not indexed items", index_as="none"))
    indexer = Indexer(home)
    assert drain(indexer) == 2
    lake.commit(*requests[30:])
    assert drain(indexer) == 1  # older ones came: the row changes, and is still one
    lake.commit(memory("late", "GET /items took 77ms", type="request_outcome", index_as="template"))
    assert drain(indexer) == 0
    assert found(home, "items") == sorted([requests[49]["id"], "other"])
    assert found(home, "indexed") == []


def test_sequences_are_counted_per_collector(home: Home, lake: Lake) -> None:
    """A second collector that starts at 1 is not hidden by the first one's numbers."""
    for n in range(5):
        lake.commit(memory(f"a{n}", "banana"))
    indexer = Indexer(home)
    drain(indexer)
    lake.sequence = 0
    lake.commit(memory("b", "cherry"), collector="c2")
    assert drain(indexer) == 1
    state = read_state(home)
    assert state is not None
    assert state["watermarks"] == {"c1": 5, "c2": 1}


def test_pages_hold_whole_commits(home: Home, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog is read in pages; a commit larger than a page is read whole."""
    monkeypatch.setattr(indexer_module, "_PAGE", 10)
    for n, size in enumerate((4, 4, 4, 25, 1)):
        lake.commit(*(memory(f"{n}-{m}", f"banana {n} {m}") for m in range(size)))
    indexer = Indexer(home)
    assert [indexer.step() for _ in range(5)] == [8, 4, 25, 1, 0]
    assert len(found(home, "banana")) == 38


def test_a_deleted_index_is_made_again_while_running(home: Home, lake: Lake) -> None:
    """The rebuild finds the same rows; deleting takes the watermark along."""
    lake.commit(*(memory(f"m{n}", f"banana {n}") for n in range(20)))
    lake.commit(
        *(memory(f"r{n}", f"took {n}ms", index_as="template", time_unix_nano=START + n)
          for n in range(9))
    )  # fmt: skip
    indexer = Indexer(home)
    drain(indexer)
    before = everything(home)
    shutil.rmtree(home.index)
    assert drain(indexer) == 21
    assert everything(home) == before
    lake.commit(memory("x", "after the rebuild"))
    assert drain(indexer) == 1


def test_rows_without_a_watermark_are_written_again_without_harm(
    home: Home, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Death between upsert and watermark repeats rows: the same rows."""
    lake.commit(*(memory(f"m{n}", f"banana {n}") for n in range(20)))
    dying = Indexer(home)
    with monkeypatch.context() as patch:
        patch.setattr(IndexWriter, "save", lambda self: (_ for _ in ()).throw(StoreError("died")))
        with pytest.raises(StoreError, match="died"):
            dying.step()
    before = everything(home)
    assert len(before) == 20
    indexer = Indexer(home)
    assert drain(indexer) == 20
    assert everything(home) == before


def test_kill_at_any_moment_loses_and_doubles_nothing(home: Home, lake: Lake) -> None:
    """Kill -9 while it indexes, several times; then the index is whole."""
    for n in range(30):
        lake.commit(*(memory(f"{n}-{m}", f"banana {n} {m}") for m in range(40)))
    code = (
        "import sys, threading\nfrom pathlib import Path\n"
        "from engram.exporters.home import Home\nfrom engram.learning import indexer\n"
        "indexer._PAGE = 100\nindexer.POLL_S = 0.01\n"
        "print('up', flush=True)\n"
        "indexer.Indexer(Home(Path(sys.argv[1]))).run(threading.Event())"
    )
    for wait in (1.6, 2.0, 2.4):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(home.root)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    indexer = Indexer(home)
    drain(indexer)
    assert len(everything(home)) == 1200
    indexer.close()
    assert len(everything(home)) == 1200


def test_an_unreadable_lake_is_an_error_to_try_again_after(home: Home, lake: Lake) -> None:
    """A broken catalogue raises StoreError, and the next step works when it is whole again."""
    lake.commit(memory("a", "banana"))
    lake.close()
    whole = home.catalog.read_bytes()
    home.catalog.write_bytes(b"not a database" * 100)
    indexer = Indexer(home)
    with pytest.raises(StoreError, match="cannot read the lake"):
        indexer.step()
    home.catalog.write_bytes(whole)
    assert drain(indexer) == 1


def test_delete_takes_memories_out(home: Home, lake: Lake) -> None:
    """By memory id."""
    lake.commit(a := memory("a", "banana"), memory("b", "banana"))
    indexer = Indexer(home)
    drain(indexer)
    indexer.delete([a["id"]])
    assert len(found(home, "banana")) == 1


def test_run_follows_the_lake_and_stops(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started before the lake exists, it indexes what comes within the lag, and ends when told."""
    monkeypatch.setattr(indexer_module, "POLL_S", 0.05)
    stop = threading.Event()
    thread = threading.Thread(target=Indexer(home).run, args=(stop,))
    thread.start()
    try:
        time.sleep(0.2)
        lake = Lake(home)
        lake.commit(memory("a", "banana"))
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            state = read_state(home)
            if state and state["watermarks"]:
                break
            time.sleep(0.05)
        assert len(found(home, "banana")) == 1
        lake.close()
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
