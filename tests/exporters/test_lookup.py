"""Memories straight from the lake's files are those that SQL finds."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from engram.exporters import machine
from engram.exporters.home import Home
from engram.exporters.lake import lookup as lookups
from engram.exporters.lake import rowgroups
from engram.exporters.lake.attach import attach_read_only, attach_sql, connect
from engram.exporters.lake.lookup import FILES, Lookup, signature
from engram.exporters.lake.rowgroups import RowGroups
from engram.exporters.lake.schema import statements
from engram.learning.recall.rows import LakeReader

COLUMNS = ("id", "type", "time_unix_nano", "title", "content", "tags", "user_id", "importance",
           "attributes", "valid_to", "subject")  # fmt: skip
TYPES = ("ai_response", "system_error", "request_outcome")


class Lake:
    """A home's lake with a writer of its own, and a reader with one lookup all along."""

    def __init__(self, home: Home) -> None:
        home.create()
        self.home = home
        self.random = random.Random(7)
        self.count = 0
        self.writer = connect()
        self.writer.execute(attach_sql(home, read_only=False))
        self.writer.execute("USE lake")
        for sql in statements("tables"):
            self.writer.execute(sql)
        self.writer.execute("CALL lake.set_option('parquet_row_group_size', '2048')")
        self.reader = attach_read_only(home)
        self.listings = 0
        self.ever: list[tuple[str, int | None]] = []
        self.lookup = Lookup(self._files, lambda: signature(home))

    def _files(self) -> list[tuple[str, str | None]]:
        self.listings += 1
        return self.reader.execute(FILES).fetchall()

    def add(self, count: int) -> None:
        """Memories in a file of their own, some of the same moment and one without a time."""
        rows: list[dict[str, Any]] = []
        for number in range(self.count, self.count + count):
            at = None if number % 500 == 99 else 1_000 + number // 3 * 10
            rows.append({
                "id": f"{number * 7919 % 100_003:024x}", "type": self.random.choice(TYPES),
                "time_unix_nano": at, "title": f"title {number}",
                "content": "said " * (number % 9),
                "tags": [f"tag-{number % 4}"] * (number % 3),
                "user_id": f"user-{number % 11}" if number % 5 else None,
                "importance": number % 10 / 10, "attributes": "{}", "collector": "c",
                "sequence": number,
            })  # fmt: skip
        self.count += count
        self.ever += [(row["id"], row["time_unix_nano"]) for row in rows]
        self.writer.register("fresh", pa.Table.from_pylist(rows))
        self.writer.execute("INSERT INTO memories BY NAME SELECT * FROM fresh")
        self.writer.unregister("fresh")

    def agrees(self) -> None:
        """By id and time, and the newest of some, the lookup says what SQL says."""
        asked = [*self.random.sample(self.ever, 40), ("f" * 24, 1_000)]
        ids = [one[0] for one in asked]
        listed = ", ".join(f"'{one}'" for one in ids)
        told = self.reader.execute(
            f"SELECT {', '.join(COLUMNS)} FROM memories "
            f"WHERE id IN ({listed}) AND time_unix_nano IS NOT NULL"
        ).fetchall()
        found = self.lookup.rows(ids, [one[1] for one in asked if one[1] is not None], COLUMNS)
        assert found == {row[0]: row for row in told}
        tag = f"tag-{self.random.randrange(5)}"
        wanted = self.reader.execute(
            "SELECT time_unix_nano FROM memories WHERE list_contains(tags, ?) AND type = ? "
            "AND time_unix_nano IS NOT NULL ORDER BY 1", [tag, TYPES[1]],
        ).fetchall()  # fmt: skip
        moments = self.lookup.moments([tag], most=100_000, only={"type": [TYPES[1]]})
        assert moments is not None
        assert moments.tolist() == [0, *(row[0] for row in wanted)]
        user, kind = f"user-{self.random.randrange(11)}", self.random.choice(TYPES)
        until = self.random.choice((1 << 62, 1_000 + self.count))
        for limit in (1, 7, 300):
            wanted = self.reader.execute(
                f"SELECT {', '.join(COLUMNS)} FROM memories WHERE user_id = ? AND type <> ? "
                "AND time_unix_nano BETWEEN 1050 AND ? ORDER BY time_unix_nano DESC, id LIMIT ?",
                [user, kind, until, limit],
            ).fetchall()
            assert wanted == self.lookup.newest(
                COLUMNS, limit=limit, only={"user_id": [user]}, without={"type": [kind]},
                since_ns=1050, until_ns=until,
            )  # fmt: skip


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    """An empty lake."""
    made = Lake(Home(tmp_path / "home"))
    yield made
    made.lookup.close()
    made.reader.close()
    made.writer.close()


def test_what_is_read_is_what_sql_finds_through_every_change_of_the_files(lake: Lake) -> None:
    """Commits, deletes, updates, merges and a new column change which files there are."""
    lake.add(5_000)
    lake.agrees()
    lake.add(60)
    lake.agrees()
    lake.writer.execute("DELETE FROM memories WHERE sequence % 13 = 5")
    lake.agrees()
    lake.writer.execute("DELETE FROM memories WHERE sequence % 17 = 3")
    lake.agrees()
    lake.writer.execute("UPDATE memories SET title = 'changed', type = 'x' WHERE sequence % 19 = 4")
    lake.agrees()
    lake.add(40)
    lake.writer.execute("CALL ducklake_merge_adjacent_files('lake')")
    lake.agrees()
    lake.writer.execute("ALTER TABLE memories ADD COLUMN later VARCHAR")
    lake.add(10)
    lake.agrees()
    one = lake.reader.execute("SELECT id, time_unix_nano FROM memories LIMIT 1").fetchone()
    assert one is not None
    assert lake.lookup.rows([one[0]], [one[1]], ("later",)) == {one[0]: (None,)}


def test_files_are_listed_once_a_commit(lake: Lake) -> None:
    """Asking for the files costs 5 ms; what has not changed is not asked for."""
    lake.add(100)
    lake.agrees()
    seen = lake.listings
    for _ in range(5):
        lake.agrees()
    assert lake.listings == seen
    lake.add(10)
    lake.agrees()
    assert lake.listings == seen + 1


def test_a_budget_bounds_what_is_kept_and_changes_nothing(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit is read again."""
    monkeypatch.setattr(rowgroups, "NARROW", 1)
    lake.lookup = Lookup(lake._files, lambda: signature(lake.home), kept=1)
    lake.add(9_000)
    for _ in range(3):
        lake.agrees()
    assert [len(shelf._kept) for shelf in (lake.lookup._groups._whole,
                                           lake.lookup._groups._narrow)] == [1, 1]  # fmt: skip


def test_what_is_at_hand_is_told_and_nothing_is_read_for_the_rest(lake: Lake) -> None:
    """Nothing before it was asked for; then what SQL says."""
    lake.add(3_000)
    asked = [one for one in lake.ever if one[1] is not None][:5]
    ids, times = [one[0] for one in asked], [one[1] for one in asked if one[1] is not None]
    assert lake.lookup.rows(ids, times, COLUMNS, kept=True) == {}
    found = lake.lookup.rows(ids, times, COLUMNS)
    assert len(found) == 5
    assert lake.lookup.rows(ids, times, COLUMNS, kept=True) == found
    assert lake.lookup.rows(ids, times, (*COLUMNS, "outcome"), kept=True) == {}


@pytest.mark.parametrize(
    ("memory", "kept"), [(0, 128 << 20), (4 << 30, 256 << 20), (64 << 30, 1 << 30)]
)
def test_what_is_kept_is_a_sixteenth_of_the_memory_there_is(
    monkeypatch: pytest.MonkeyPatch, memory: int, kept: int
) -> None:
    """At least and at most `KEPT`."""
    monkeypatch.setattr(rowgroups, "memory_bytes", lambda: memory)
    assert RowGroups(list, lambda: None)._whole._budget == kept


def test_the_memory_of_a_container_is_what_it_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what the machine has; `max` and files that are not there are no limit."""
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "_LIMITS", (str(limit), str(tmp_path / "none")))
    there = machine.memory_bytes()
    assert there > 1 << 28
    limit.write_text("max\n", encoding="ascii")
    assert machine.memory_bytes() == there
    limit.write_text("134217728\n", encoding="ascii")
    assert machine.memory_bytes() == 1 << 27


def test_a_file_that_is_not_there_is_an_error_and_is_forgotten(lake: Lake) -> None:
    """Who asked can ask SQL; the next question starts anew."""
    lake.add(10)
    one = lake.reader.execute("SELECT id, time_unix_nano FROM memories LIMIT 1").fetchone()
    assert one is not None
    paths = [("/nowhere/gone.parquet", None)]
    lookup = Lookup(lambda: paths or lake._files(), lambda: None)
    with pytest.raises(OSError, match="cannot read memories"):
        lookup.rows([one[0]], [one[1]], ("id",))
    paths.clear()
    assert lookup.rows([one[0]], [one[1]], ("id",)) == {one[0]: (one[0],)}


def test_where_too_much_would_be_read_sql_answers_the_same(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan of the whole lake is what SQL is better at."""
    lake.add(9_000)
    reader = LakeReader(lake.home)
    asked: dict[str, Any] = {
        "only": {"user_id": ["user-3"]}, "without": {"type": [TYPES[0]]}, "since_ns": 2_000,
        "hidden": [f"{8_998 * 7919 % 100_003:024x}"],
    }  # fmt: skip
    straight = reader.newest(4_000, **asked)
    monkeypatch.setattr(lookups, "_COLD", 0)
    reader.close()
    asked_sql: list[str] = []
    ask = reader.ask

    def noted(sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        asked_sql.append(sql)
        return ask(sql, values)

    monkeypatch.setattr(reader, "ask", noted)
    assert reader.newest(4_000, **asked) == straight
    assert len(straight) > 100
    assert any("ORDER BY time_unix_nano DESC" in sql for sql in asked_sql)
    reader.close()


def test_several_threads_may_ask_while_memories_come(lake: Lake) -> None:
    """Files come and the reader is asked by four threads."""
    from concurrent.futures import ThreadPoolExecutor

    lake.add(3_000)
    reader = LakeReader(lake.home)
    there = lake.reader.execute(
        "SELECT id, time_unix_nano FROM memories WHERE time_unix_nano IS NOT NULL"
    ).fetchall()

    def ask(seed: int) -> None:
        some = random.Random(seed).sample(there, 20)
        found = reader.at([one[0] for one in some], [one[1] for one in some])
        assert found.keys() == {one[0] for one in some}
        assert len(reader.newest(5, only={"type": [TYPES[1]]})) == 5

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, seed) for seed in range(40)]
        for _ in range(5):
            lake.add(20)
        for one in asked:
            one.result(timeout=60)
    reader.close()
    assert isinstance(lake.writer, duckdb.DuckDBPyConnection)
