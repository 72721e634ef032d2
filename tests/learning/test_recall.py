"""Recall: what comes back, a page at a time, and from whom."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.learning.lake import Lake, memory

from engram.exporters.errors import BadRequest, NotFound
from engram.exporters.home import Home
from engram.learning.indexer import Indexer
from engram.learning.recall import Recall, Scope


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


@pytest.fixture
def recall(home: Home) -> Iterator[Recall]:
    """Its recall."""
    recall = Recall(home)
    yield recall
    recall.close()


def test_found_items_tell_what_the_lake_says(home: Home, lake: Lake, recall: Recall) -> None:
    """In the order of their scores; why, where it was asked for."""
    lake.commit(memory("a", "Checkout failed", "the payment provider refused the connection"))
    lake.commit(memory("b", "Nightly report", "all numbers are fine"))
    indexer = Indexer(home)
    while indexer.step():
        pass
    indexer.close()
    found = recall.search("payment connection refused", explain=True)
    assert found.items[0].title == "Checkout failed"
    assert found.items[0].content == "the payment provider refused the connection"
    assert found.items[0].why["matched"]
    assert found.explanation["mode"] == "hybrid"
    assert not recall.search("payment", scope=Scope(service="nobody")).items
    assert recall.get(found.items[0].id).title == "Checkout failed"


def test_pages_tell_each_memory_once(lake: Lake, recall: Recall) -> None:
    """Newest first, also those of one moment."""
    lake.commit(*(memory(f"m{at}", f"memory {at}", "said") for at in range(7)))
    seen, cursor = list[str](), None
    while True:
        page = recall.recent(limit=3, cursor=cursor)
        seen += [item.title for item in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert sorted(seen) == [f"memory {at}" for at in range(7)]


def test_what_cannot_be_meant_is_refused(lake: Lake, recall: Recall) -> None:
    """With words."""
    lake.commit(memory("a", "one", "said"))
    with pytest.raises(BadRequest, match="cursor"):
        recall.recent(cursor="!")
    with pytest.raises(BadRequest, match="limit"):
        recall.recent(limit=0)
    with pytest.raises(NotFound, match="no memory"):
        recall.get("0" * 24)
