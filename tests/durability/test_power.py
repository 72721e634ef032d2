"""Power cuts. `bench/power.py` tries every one of them; here is a sample."""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path, PurePosixPath

import pytest
from tests.durability.disk import CUTS, Disk, File, read_trace
from tests.durability.verify import (
    Cut,
    Stored,
    catalogue_problems,
    cuts,
    problems,
    record,
    stored,
    syncs,
)

from engram.exporters.home import Home

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is Linux's")

_SAMPLE = 25


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Home, Stored]:
    """One recorded life: its trace, its home, and what that home holds."""
    trace, home = record(tmp_path_factory.mktemp("power"))
    return trace, home, stored(home)


def test_the_model_is_the_disk(life: tuple[Path, Home, Stored]) -> None:
    """The trace misses nothing: played to its end it gives the very files that are there."""
    trace, home, _ = life
    disk = Disk(home.root.parent)
    for event in read_trace(trace):
        disk.play(event)
    modelled = disk.after("all", random.Random(0))
    real = {PurePosixPath(path.relative_to(disk.root)): path for path in home.root.rglob("*")}
    assert set(real) == set(modelled) - {PurePosixPath("."), PurePosixPath("home")}
    for name, path in real.items():
        assert modelled[name] == (None if path.is_dir() else path.read_bytes()), name


def test_the_life_is_worth_cutting(life: tuple[Path, Home, Stored]) -> None:
    """It has merges, compactions, removals, segment rolls, and ends whole."""
    trace, home, truth = life
    events = list(read_trace(trace))
    names = [f"{event.op} {event.path.name}" for event in events]
    assert any(len(memory["sources"]) > 1 for memory in truth.memories.values())
    assert sum(name.startswith("crea ducklake-") for name in names) > 4
    assert sum(n.startswith("unli") and n.endswith(".parquet") for n in names) > 20
    assert sum(n.startswith("unli") and n.endswith(".wal") for n in names) > 3
    assert set(truth.records.values()) == {1}
    assert truth.doubled == []
    assert catalogue_problems(home) == []


def test_no_cut_loses_or_doubles(life: tuple[Path, Home, Stored], tmp_path: Path) -> None:
    """Whatever the disk kept of the unsynced, every acknowledged record is there once."""
    trace, home, truth = life
    points = syncs(trace)
    chance = random.Random(20)
    chosen = {chance.randrange(points + 1) for _ in range(_SAMPLE)}
    tried: list[Cut] = []
    disks = list(cuts(trace, home.root.parent, chosen))
    for cut in chance.sample(disks, min(_SAMPLE, len(disks))):
        tried.append(cut)
        assert problems(cut, tmp_path / "after", truth) == [], str(cut)
    assert len(tried) >= _SAMPLE // 2
    assert len(Counter(cut.kind for cut in tried)) >= 4


def test_an_unsynced_file_is_lost() -> None:
    """The model itself drops what was not synced, and keeps what was."""
    file = File()
    file.write(0, b"synced")
    file.sync()
    file.write(6, b" or not")
    kept = {cut: file.after(cut, random.Random(1)) for cut in CUTS}
    assert kept["nothing"] == kept["names"] == b"synced"
    assert kept["zeros"] == b"synced" + bytes(7)
    assert kept["all"] == b"synced or not"


def test_a_log_that_is_not_synced_is_caught(
    life: tuple[Path, Home, Stored], tmp_path: Path
) -> None:
    """The check can fail: without the log's syncs, acknowledged records are lost."""
    trace, home, truth = life
    root = home.root.parent
    last = max((c for c in cuts(trace, root, kinds=("nothing",))), key=lambda c: len(c.acked))
    found = {p: b"" if p.suffix == ".wal" else b for p, b in last.found.items()}
    lake = {p: b for p, b in found.items() if "lake" not in p.parts}
    broken = type(last)(last.at, last.kind, last.step, last.sync, last.acked, lake)
    assert any(text.startswith("lost") for text in problems(broken, tmp_path / "after", truth))
