"""Engram under load is killed again and again; nothing acknowledged is lost or doubled.

    python bench/crash.py [--kills N] [--seed N] [--roles]

Two senders send again what was not acknowledged, so every unknown outcome is a possible duplicate.
`--roles` kills one of `engram up` at a time: collect, learn, serve, or the supervisor itself.
Small intervals keep commits and compactions under way at most moments.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.durability.crash import run, run_roles

from engram.exporters.home import Home


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--roles", action="store_true")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        if options.roles:
            figures = run_roles(home, Path(folder), options.kills, seed=options.seed)
        else:
            figures = run(home, options.kills, seed=options.seed)
    rows = {
        **{f"kills: {moment}": n for moment, n in sorted(figures.kills.items())},
        "kills": figures.kills.total(), "records acknowledged": figures.acked,
        "requests sent again": figures.resent, "records stored": figures.stored,
        "lost": figures.lost, "doubled": figures.doubled, "quarantined": figures.quarantined,
        "catalogue problems": len(figures.catalogue), "seconds": round(time.monotonic() - started),
    }  # fmt: skip
    for name, value in rows.items():
        print(f"{name:24} {value:>10}")
    print(*figures.catalogue[:5], sep="\n")
    return 1 if figures.lost or figures.doubled or figures.quarantined or figures.catalogue else 0


if __name__ == "__main__":
    sys.exit(main())
