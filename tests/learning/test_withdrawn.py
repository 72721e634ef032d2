"""The index after memories were rebuilt: what a new one of the same lake would be."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.exporters.test_rederive import OTHER, fill, rebuild, telemetry
from tests.learning.test_indexer import drain, everything

from engram.exporters.home import Home
from engram.exporters.index import IndexWriter
from engram.learning.indexer import Indexer

_NOT_INDEXED: dict[str, Any] = {
    "name": "ai_response", "type": "ai_response", "signal": ["span", "log"],
    "when": "inference", "title": ["{model}"], "index_as": "none",
    "scope": [["trace_id", "service_name"]],
    "key": [["attr:gen_ai.response.id", "span_id", "content_hash"]],
}  # fmt: skip
_TEMPLATE = {**_NOT_INDEXED, "index_as": "template"}
_OWN_ROW: dict[str, Any] = {**OTHER[2], "index_as": "memory"}


def index(home: Home) -> None:
    """Index all there is."""
    indexer = Indexer(home)
    drain(indexer)
    indexer.close()


@pytest.mark.parametrize(
    "rules", [OTHER, [_NOT_INDEXED], [_TEMPLATE], [_OWN_ROW]],
    ids=["removed-and-retitled", "not-indexed", "row-to-template", "template-to-row"],
)  # fmt: skip
def test_the_index_follows(tmp_path: Path, rules: list[dict[str, Any]]) -> None:
    """Removed and changed memories leave the index; it equals one made anew."""
    home = Home(tmp_path / "home")
    fill(home.root, *telemetry(6, 100))
    index(home)
    before = everything(home)
    rebuild(home.root, rules)
    index(home)
    followed = everything(home)
    shutil.rmtree(home.index)
    index(home)
    assert followed == everything(home)
    assert followed != before


def test_an_indexer_that_runs_follows_too(tmp_path: Path) -> None:
    """The same with the indexer open, which remembers templates."""
    home = Home(tmp_path / "home")
    fill(home.root, *telemetry(6, 100))
    indexer = Indexer(home)
    drain(indexer)
    assert "api_call" in str(everything(home))
    rebuild(home.root, OTHER)
    drain(indexer)
    assert "api_call" not in str(everything(home))
    rebuild(home.root, [])
    drain(indexer)
    assert "api_call" in str(everything(home))
    indexer.close()
    followed = everything(home)
    shutil.rmtree(home.index)
    index(home)
    assert followed == everything(home)


def test_killed_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash after rows were removed and before that was noted: all is done again."""
    home = Home(tmp_path / "home")
    fill(home.root, *telemetry(6, 100))
    index(home)
    rebuild(home.root, OTHER)
    with monkeypatch.context() as patch:
        patch.setattr(IndexWriter, "withdraw", _withdraw_and_die)
        with pytest.raises(KeyboardInterrupt):
            drain(Indexer(home))
    index(home)
    followed = everything(home)
    shutil.rmtree(home.index)
    index(home)
    assert followed == everything(home)


_withdraw = IndexWriter.withdraw


def _withdraw_and_die(self: IndexWriter, ids: list[str]) -> None:
    _withdraw(self, ids)
    raise KeyboardInterrupt
