"""The power is cut at every sync of a short life, in six ways; what was acknowledged is there once.

    python bench/power.py [--every N]

Every cut is a disk of its own (see `tests/durability/disk.py`); a new engine starts on it and is
compared with the promises made before the cut.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests.durability.verify import Cut, Stored, cuts, problems, record, stored, syncs  # noqa: E402

_TRUTH: dict[Path, Stored] = {}


def judge(job: tuple[Cut, Path, Path]) -> tuple[str, str, int, list[str]]:
    cut, folder, home_root = job
    from engram.exporters.home import Home

    truth = _TRUTH.get(home_root)
    if truth is None:
        truth = _TRUTH[home_root] = stored(Home(home_root))
    own = folder / f"cut-{multiprocessing.current_process().pid}"
    return str(cut), cut.kind, len(cut.acked), problems(cut, own, truth)


def jobs(
    trace: Path, home: Path, folder: Path, chosen: set[int] | None
) -> Iterator[tuple[Cut, Path, Path]]:
    for cut in cuts(trace, home.parent, chosen):
        yield cut, folder, home


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=int, default=1, help="every N-th sync only")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trace, home = record(folder)
        points = syncs(trace)
        chosen = set(range(0, points + 1, options.every)) if options.every > 1 else None
        tried: Counter[str] = Counter()
        bad: Counter[str] = Counter()
        lost = doubled = 0
        with multiprocessing.get_context("spawn").Pool(
            options.workers, maxtasksperchild=100
        ) as pool:
            work = jobs(trace, home.root, folder, chosen)
            for what, kind, _, found in pool.imap_unordered(judge, work):
                tried[kind] += 1
                if tried.total() % 100 == 0:
                    print(f"{tried.total()} disks", file=sys.stderr, flush=True)
                if found:
                    bad[kind] += 1
                    lost += sum(text.startswith("lost") for text in found)
                    doubled += sum(text.startswith("stored") for text in found)
                    print(f"{what}: {len(found)} problems: {found[:3]}", flush=True)
    print(f"{points} syncs; different disks tried:")
    print(f"{'cut':10} {'disks':>8} {'with problems':>14}")
    for kind, n in sorted(tried.items()):
        print(f"{kind:10} {n:8} {bad[kind]:14}")
    print(f"{'all':10} {tried.total():8} {bad.total():14}   records lost {lost}, doubled {doubled}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
