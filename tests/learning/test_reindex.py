"""Rebuilding the index: beside the old one, by whoever may write, and never half."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.learning.lake import Lake, memory

from engram.exporters.errors import HomeBusy, ModelUnavailable, NotFound, StoreError
from engram.exporters.home import Home
from engram.exporters.index import IndexWriter, current_table, read_state
from engram.learning import indexer as indexer_module
from engram.learning.indexer import Indexer
from engram.learning.reindex import Progress, Rebuild, Requests, only_writer, reindex
from engram.learning.search import Searcher


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home that was never used."""
    return Home(tmp_path / "home")


@pytest.fixture
def lake(home: Home) -> Iterator[Lake]:
    """Its lake, with an index of twenty memories in pages of five."""
    lake = Lake(home)
    for page in range(4):
        lake.commit(*(memory(f"{page}-{n}", f"banana {page} {n}") for n in range(5)))
    indexer = Indexer(home)
    while indexer.step():
        pass
    indexer.close()
    yield lake
    lake.close()


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of five, so that twenty memories are several."""
    monkeypatch.setattr(indexer_module, "_PAGE", 5)


def tables(home: Home) -> list[str]:
    """The tables that are there."""
    return sorted(path.stem for path in home.index.glob("*.lance"))


def test_searches_go_on_while_it_is_built(home: Home, lake: Lake) -> None:
    """In the old table until the new one is whole; an open searcher moves by itself."""
    searcher = Searcher(home)
    before = searcher.search("banana", limit=50)
    rebuild = Rebuild(home)
    said = []
    while True:
        progress = rebuild.step()
        said.append((progress.state, progress.read, progress.total))
        assert searcher.search("banana", limit=50) == before
        if progress.state == "done":
            break
        assert current_table(home) == "memories"
    assert said == [*(("building", n, 20) for n in (5, 10, 15, 20)), ("done", 20, 20)]
    assert tables(home) == [current_table(home)] == ["memories-2"]
    lake.commit(memory("new", "banana bread"))
    indexer = Indexer(home)
    assert indexer.step() == 1
    assert len(searcher.search("banana", limit=50)) == 21
    indexer.close()
    searcher.close()


def test_a_kill_in_the_middle_leaves_the_old_index(home: Home, lake: Lake) -> None:
    """Kill -9 after the first pages; the next rebuild starts clean."""
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from engram.exporters.home import Home\nfrom engram.learning import indexer\n"
        "from engram.learning.reindex import Rebuild, only_writer\n"
        "indexer._PAGE = 5\nhome = Home(Path(sys.argv[1]))\n"
        "with only_writer(home):\n"
        "    rebuild = Rebuild(home)\n    rebuild.step()\n    rebuild.step()\n"
        "    print('half', flush=True)\n    time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(home.root)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"half\n"
    with pytest.raises(HomeBusy), only_writer(home):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert tables(home) == ["memories", "memories-2"]
    assert current_table(home) == "memories"
    searcher = Searcher(home)
    assert len(searcher.search("banana", limit=50)) == 20
    done = reindex(home, None, lambda _: None)
    assert (done.state, done.read) == ("done", 20)
    assert tables(home) == ["memories-2"]
    assert len(searcher.search("banana", limit=50)) == 20
    searcher.close()


def test_learn_does_it_when_it_runs(home: Home, lake: Lake) -> None:
    """It is asked by a file, builds between its own steps, and says how far it is."""
    stop = threading.Event()

    def learn() -> None:
        with only_writer(home):
            ready.set()
            Indexer(home).run(stop, Requests(home).step)

    ready = threading.Event()
    thread = threading.Thread(target=learn)
    thread.start()
    try:
        assert ready.wait(10)
        said: list[Progress] = []
        done = reindex(home, None, said.append)
        assert (done.state, done.read, done.total) == ("done", 20, 20)
        assert said[-1] == done
        with pytest.raises(StoreError, match="no model folder"):
            reindex(home, "/no/such/model", said.append)
        assert current_table(home) == "memories-2"
        again = reindex(home, "builtin", said.append)
        assert again.state == "done"
        assert current_table(home) == "memories-3"
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
    assert read_state(home)


def test_a_model_that_cannot_be_loaded_changes_nothing(home: Home, lake: Lake) -> None:
    """The error says what to give instead, and the old index stays."""
    with pytest.raises(ModelUnavailable, match="give a folder"):
        reindex(home, "no such model", lambda _: None)
    with pytest.raises(ModelUnavailable, match="neither modules"):
        reindex(home, str(home.root), lambda _: None)
    assert tables(home) == ["memories"]


def test_another_format_is_rebuilt(home: Home, lake: Lake) -> None:
    """An index that this Engram refuses is replaced by reindex, as its error says."""
    state = home.index / "memories.lance" / "_engram.json"
    state.write_text(state.read_text().replace("+6x3+", "+5x5+"))
    with pytest.raises(StoreError, match="engram reindex"):
        IndexWriter(home, "static")
    reindex(home, None, lambda _: None)
    searcher = Searcher(home)
    assert len(searcher.search("banana", limit=50)) == 20
    searcher.close()


def test_nothing_to_rebuild_from(tmp_path: Path) -> None:
    """A home without a lake."""
    with pytest.raises(NotFound, match="no lake"):
        reindex(Home(tmp_path), None, lambda _: None)
