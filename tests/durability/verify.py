"""Cuts the power in a recorded life, starts again on what is left, and compares."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tests.durability.disk import CUTS, Disk, build, read_trace, restore
from tests.durability.load import NAME_SQL
from tests.durability.workload import QUIET

from engram.exporters.engine import Engine
from engram.exporters.home import Home
from engram.exporters.lake.attach import attach_read_only
from engram.exporters.memories import INGEST_COLUMNS

REPOSITORY = Path(__file__).parents[2]
Record = tuple[str, str]
"""(table, name)."""


def record(folder: Path) -> tuple[Path, Home]:
    """Run the workload once under the shim: the trace, and the home that it left undisturbed."""
    library = build(folder)
    disk, trace = folder / "disk", folder / "trace"
    disk.mkdir()
    environment = os.environ | {
        "LD_PRELOAD": str(library), "POWERCUT_ROOT": str(disk), "POWERCUT_TRACE": str(trace),
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    script = REPOSITORY / "tests/durability/workload.py"
    done = subprocess.run(
        [sys.executable, str(script), str(disk / "home")],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return trace, Home(disk / "home")


@dataclass(slots=True)
class Stored:
    """What a home holds, by name."""

    records: Counter[Record] = field(default_factory=Counter)
    hashes: dict[Record, int] = field(default_factory=dict)
    memories: dict[str, dict[str, Any]] = field(default_factory=dict)
    doubled: list[str] = field(default_factory=list)
    """Ids of memories with more than one row."""


def stored(home: Home) -> Stored:
    """Read it as any reader would."""
    found = Stored()
    with contextlib.closing(attach_read_only(home)) as db:
        for table, column in NAME_SQL.items():
            for name, hash_ in db.execute(f"SELECT {column}, content_hash FROM {table}").fetchall():
                key = (table, name.strip('"').replace("event c", "event-c"))
                found.records[key] += 1
                found.hashes[key] = hash_
        rows = db.execute("SELECT * FROM memories").to_arrow_table().to_pylist()
    for row in rows:
        if row["id"] in found.memories:
            found.doubled.append(row["id"])
        found.memories[row["id"]] = {k: v for k, v in row.items() if k not in INGEST_COLUMNS}
    return found


@dataclass(frozen=True, slots=True)
class Cut:
    """One power cut: before event `at` of the trace, of which `kept` reached the disk."""

    at: int
    kind: str
    step: str
    sync: int
    """Syncs before it."""

    acked: frozenset[Record]
    found: dict[PurePosixPath, bytes | None]

    def __str__(self) -> str:
        return f"{self.kind} after sync {self.sync} (event {self.at}, in {self.step})"


def syncs(trace: Path) -> int:
    """How many sync points a life has."""
    return sum(1 for event in read_trace(trace) if event.op == "sync")


def cuts(
    trace: Path, root: Path, chosen: set[int] | None = None, kinds: tuple[str, ...] = CUTS
) -> Iterator[Cut]:
    """Every different disk before each sync (of `chosen`, or all) and at the end, each once.

    That is enough: `nothing` and `removed` change at syncs only, and for the other kinds the moment
    before a sync is when most is waiting. Disks that are equal with equal promises are tried once.
    """
    disk = Disk(root)
    seen: set[tuple[str, int]] = set()
    sync = 0
    events = list(read_trace(trace))
    for at, event in enumerate([*events, None]):
        if event is None or event.op == "sync":
            if chosen is None or sync in chosen:
                notes = disk.notes
                acked = frozenset(
                    (words[1], name)
                    for words in (note.split() for note in notes)
                    if words[0] == "ack"
                    for name in words[2:]
                )
                step = next((n[5:] for n in reversed(notes) if n.startswith("step")), "start")
                for kind in kinds:
                    found = disk.after(kind, random.Random(f"{at} {kind}"))
                    key = (_digest(found), len(acked))
                    if key not in seen:
                        seen.add(key)
                        yield Cut(at, kind, step, sync, acked, found)
            sync += 1
        if event is not None:
            disk.play(event)


def _digest(found: dict[PurePosixPath, bytes | None]) -> str:
    digest = hashlib.blake2b()
    for path, content in sorted(found.items()):
        digest.update(f"{path}\0{content is None}\0{len(content or b'')}\0".encode())
        digest.update(content or b"")
    return digest.hexdigest()


def problems(cut: Cut, folder: Path, truth: Stored) -> list[str]:
    """Restore what the cut left, start on it, and say what is not as it was promised."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    restore(cut.found, folder)
    home = Home(folder / "home")
    engine = Engine(home, QUIET)
    try:
        engine.start()
        engine.wait_committed(engine.end, 30)
    except Exception as error:
        return [f"does not start again: {error!r}"]
    finally:
        engine.shutdown(30)
    quarantined = list(home.quarantine.iterdir()) if home.quarantine.exists() else []
    found = [f"quarantined {path.name}" for path in quarantined]
    found += [f"log damage: {text}" for text in engine._wal.damaged if cut.kind != "torn"]
    return found + compare(stored(home), cut.acked, truth) + catalogue_problems(home)


def compare(now: Stored, acked: frozenset[Record], truth: Stored) -> list[str]:
    """Lost, doubled, invented, and memories that are not those of the records."""
    found = [f"lost {key}" for key in sorted(acked) if not now.records[key]]
    found += [f"stored {n} times: {key}" for key, n in now.records.items() if n > 1]
    found += [f"invented {key}" for key in now.records if key not in truth.records]
    found += [f"memory {id_} has several rows" for id_ in now.doubled]
    there = {now.hashes[key] for key in now.records if key in now.hashes}
    for id_, whole in truth.memories.items():
        sources = sorted(there & set(whole["sources"]))
        memory = now.memories.get(id_)
        if sources and memory is None:
            found.append(f"memory {id_} ({whole['type']}) is lost")
        elif memory is not None and memory["sources"] != sources:
            found.append(f"memory {id_} knows the sources {memory['sources']}, not {sources}")
        elif memory is not None and sources == whole["sources"] and memory != whole:
            found.append(f"memory {id_} differs: {memory} is not {whole}")
    found += [f"invented memory {id_}" for id_ in now.memories if id_ not in truth.memories]
    return found


def catalogue_problems(home: Home) -> list[str]:
    """What SQLite says of the catalogue; files that it names and are not there, or the reverse."""
    with contextlib.closing(sqlite3.connect(home.catalog)) as db:
        check = db.execute("PRAGMA integrity_check").fetchall()
        named = {
            path
            for table in ("data_file", "delete_file")
            for (path,) in db.execute(f"SELECT path FROM ducklake_{table}")
        }
        scheduled = {
            p for (p,) in db.execute("SELECT path FROM ducklake_files_scheduled_for_deletion")
        }
    there = {path.name: path for path in home.data.rglob("*.parquet")}
    names = {Path(path).name for path in named}
    found = [] if check == [("ok",)] else [f"catalogue: {check}"]
    found += [f"the catalogue names {name}, which is missing" for name in names - there.keys()]
    orphans = there.keys() - names - {Path(path).name for path in scheduled}
    found += [f"orphan {name}" for name in orphans]
    return found
