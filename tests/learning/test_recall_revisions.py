"""Changes of memories, what took whose place, and what was known at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.learning.lake import START, Lake, memory

from engram.exporters.home import Home
from engram.learning.indexer import Indexer
from engram.learning.recall import Recall

HOUR = 3600 * 10**9


class World:
    """A lake with its index and recall, at a time."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.lake = Lake(home)
        self.now = START + 1000 * HOUR
        self.recall = Recall(home, clock=lambda: self.now)
        self._changes = 0

    def remember(self, *memories: dict[str, Any]) -> list[str]:
        """Store and index; the ids."""
        self.lake.commit(*memories)
        indexer = Indexer(self.home)
        while indexer.step():
            pass
        indexer.close()
        return [one["id"] for one in memories]

    def change(self, target: str, action: str, hours: float = 1, **fields: Any) -> None:
        """A revision; not indexed, as the next search may come before that."""
        self._changes += 1
        more = {name: fields.pop(name) for name in ("trust",) if name in fields}
        self.lake.commit(
            memory(f"change{self._changes}", f"{action} {target}", type="memory_revision",
                   source="mark", time_unix_nano=START + int(hours * HOUR),
                   attributes=json.dumps({"target": target, "action": action, **fields}), **more)
        )  # fmt: skip

    def found(self, query: str, **more: Any) -> list[str]:
        """Titles of an answer."""
        return [one.title for one in self.recall.search(query, **more).items]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A new one."""
    world = World(Home(tmp_path / "home"))
    yield world
    world.recall.close()
    world.lake.close()


def test_hidden_memories_are_left_out_until_they_are_shown(world: World) -> None:
    """Of searches and lists; `get` and `history` tell them."""
    (id_,) = world.remember(memory("a", "The wifi password is on the fridge", type="ai_insight"))
    world.change(id_, "hide", reason="private", actor="Anna")
    assert world.found("wifi password") == []
    assert world.recall.recent().items == ()
    assert world.recall.get(id_).hidden
    first, second = world.recall.history(id_)
    assert not first.hidden
    assert (second.why["action"], second.why["actor"], second.why["reason"]) == (
        "hide", "Anna", "private",
    )  # fmt: skip
    world.change(id_, "show", hours=2)
    assert world.found("wifi password") == ["The wifi password is on the fridge"]


def test_an_edit_is_found_by_its_new_words_and_keeps_the_old_ones(world: World) -> None:
    """Although the index knows only what was first written."""
    (id_,) = world.remember(
        memory("a", "The office is in Bonn", type="ai_insight", tags=["place"],
               attributes=json.dumps({"floor": 2}))
    )  # fmt: skip
    world.change(id_, "edit", title="The headquarters moved to Lyon", content="since May",
                 tags=["place", "new"], meta_data={"floor": 3})  # fmt: skip
    (one,) = world.recall.search("headquarters Lyon").items
    assert (one.id, one.content, one.tags, one.meta_data["floor"], one.edited) == (
        id_, "since May", ("new", "place"), 3, True,
    )  # fmt: skip
    assert world.found("headquarters Lyon", types=["system_error"]) == []
    assert world.found("headquarters Lyon", tags=["new"]) == ["The headquarters moved to Lyon"]
    assert [one.title for one in world.recall.history(id_)] == [
        "The office is in Bonn", "The headquarters moved to Lyon",
    ]  # fmt: skip
    world.change(id_, "restore", hours=2)
    assert world.recall.get(id_).title == "The office is in Bonn"


def test_of_two_changes_the_newer_counts_whichever_came_first(world: World) -> None:
    """By the time of the event."""
    (id_,) = world.remember(memory("a", "Tea at four", type="ai_insight"))
    world.change(id_, "edit", hours=5, title="Tea at five")
    world.change(id_, "edit", hours=3, title="Tea at three")
    world.change(id_, "pin", hours=2)
    world.change(id_, "unpin", hours=1)
    one = world.recall.get(id_)
    assert (one.title, one.pinned) == ("Tea at five", True)


@pytest.mark.parametrize("trust", ["browser", "unknown", None])
def test_anybody_can_write_into_a_page(world: World, trust: str | None) -> None:
    """So a change from there is none."""
    (id_,) = world.remember(memory("a", "Refunds need a receipt", type="ai_insight"))
    world.change(id_, "hide", trust=trust)
    world.change(id_, "edit", title="Refund everybody", trust=trust)
    assert world.found("refunds receipt") == ["Refunds need a receipt"]


def preference(key: str, value: str, hours: float, **more: Any) -> dict[str, Any]:
    """A preference of Anna's about colours."""
    return memory(
        key, f"theme: {value}", type="user_preference", source="mark", user_id="anna",
        subject="preference:theme", time_unix_nano=START + int(hours * HOUR),
        attributes=json.dumps({"preference": "theme", "value": value}),
    ) | more  # fmt: skip


def test_a_newer_statement_about_the_same_subject_takes_the_place(world: World) -> None:
    """The older stays, says by which, and ranks below; others are not touched."""
    old, new, *_ = world.remember(
        preference("a", "dark and quiet", 1), preference("b", "light", 2),
        preference("c", "dark", 1, user_id="otto"),
        preference("d", "large", 3, subject="preference:font", title="font: large"),
    )  # fmt: skip
    found = {one.id: one for one in world.recall.search("theme dark quiet").items}
    assert next(iter(found)) != old
    assert found[old].superseded_by == new
    assert found[new].superseded_by is None
    assert sum(one.superseded_by is not None for one in found.values()) == 1
    assert world.recall.get(old).superseded_by == new
    # Even where only the older one matches, the answer begins with what holds now.
    assert world.found("theme dark quiet", limit=1) == ["theme: light"]


def test_who_is_trusted_less_takes_nobodys_place(world: World) -> None:
    """And what is only reported by telemetry tells no state."""
    (old, *_) = world.remember(
        preference("a", "dark", 1), preference("b", "light", 2, trust="browser"),
        preference("c", "pink", 3, source="log"),
    )  # fmt: skip
    assert world.recall.get(old).superseded_by is None


def test_a_change_can_say_what_took_the_place(world: World) -> None:
    """Of any type; and take it back."""
    old, new = world.remember(
        memory("a", "Deploy on Fridays", type="business_decision"),
        memory("b", "Never deploy on Fridays", type="business_decision"),
    )
    world.change(old, "supersede", by=new)
    assert world.found("deploy on fridays")[0] == "Never deploy on Fridays"
    assert world.recall.get(old).superseded_by == new
    world.change(old, "restore", hours=2)
    assert world.recall.get(old).superseded_by is None


def test_an_answer_as_of_a_time_is_the_one_of_then(world: World) -> None:
    """No later memory, no later change, no later statement; and what held then."""
    old, _, hidden, *_ = world.remember(
        preference("a", "dark", 1), preference("b", "light", 10),
        memory("c", "theme of the party", type="ai_insight", time_unix_nano=START + HOUR),
        memory("d", "theme of the week", type="ai_insight", time_unix_nano=START + HOUR,
               valid_from=START + HOUR, valid_to=START + 7 * HOUR),
    )  # fmt: skip
    world.change(hidden, "hide", hours=9)
    then = world.recall.search("theme", as_of_ns=START + 5 * HOUR).items
    assert {one.title for one in then} == {
        "theme: dark", "theme of the party", "theme of the week",
    }  # fmt: skip
    assert all(one.superseded_by is None for one in then)
    now = {one.title for one in world.recall.search("theme").items}
    assert now == {"theme: dark", "theme: light"}
    assert world.recall.get(old, as_of_ns=START + 5 * HOUR).superseded_by is None
    listed = world.recall.recent(as_of_ns=START + 5 * HOUR).items
    assert "theme: light" not in {one.title for one in listed}


def test_revisions_are_not_memories_to_be_found(world: World) -> None:
    """Unless they are asked for by their type."""
    (id_,) = world.remember(memory("a", "Cats sleep a lot", type="ai_insight"))
    world.remember(
        memory("r", "edit of cats sleep", type="memory_revision", source="mark",
               attributes=json.dumps({"target": id_, "action": "pin"}))
    )  # fmt: skip
    assert world.found("cats sleep") == ["Cats sleep a lot"]
    assert world.found("cats sleep", types=["memory_revision"]) == ["edit of cats sleep"]
    assert [one.title for one in world.recall.recent().items] == ["Cats sleep a lot"]
