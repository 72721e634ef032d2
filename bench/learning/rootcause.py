"""Root causes: how often the right component is first, and how often silence is kept.

    python bench/learning/rootcause.py PETSHOP_FOLDER

PETSHOP_FOLDER holds, by kind of traffic, `graph.csv`, `noissue/metrics.csv` and
`train/*/{metrics.csv, target.json}`. The time without issue is what went before; where it is
missing, that of low traffic. Runs without issue are stretches of the second half of it, as long as
an issue. Also on call graphs made here, with a fault that spreads upwards, and without any.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engram.learning.rootcause import rank_causes

Floats = NDArray[np.float64]
Metrics = dict[str, dict[str, Floats]]
LENGTH = 5


def main() -> None:
    folder = Path(sys.argv[1])
    verbose = "-v" in sys.argv
    for own in (True, False):
        hits: Counter[str] = Counter()
        spent = 0.0
        for issue in sorted(folder.glob("*/train/*")):
            has = (issue.parents[1] / "noissue").exists()
            if own and not has:
                continue
            usual = issue.parents[1] if has else folder / "low_traffic"
            said = json.loads((issue / "target.json").read_text())
            before, normal = load(usual / "noissue/metrics.csv")
            during, bad = load(issue / "metrics.csv")
            times = np.concatenate((np.arange(len(before)), len(before) + np.arange(len(during))))
            joined = join(normal, bad, len(before), len(during))
            began = time.perf_counter()
            found = rank_causes(
                graph(issue.parents[1] / "graph.csv"),
                300.0 * times,
                joined,
                [300.0 * len(before), 300.0 * times[-1]],
                said["target"]["node"],
            )
            spent = max(spent, time.perf_counter() - began)
            names = [name for name, _ in found.ranked]
            rank = names.index(said["root_cause"]["node"]) + 1
            hits.update({"n": 1, "1": rank == 1, "3": rank <= 3, "clear": not found.unclear})
            if verbose:
                print(issue, said["target"]["metric"], rank, found.unclear, found.ranked[:4])
        print(
            f"{'own baseline' if own else 'all'}: {hits['n']} issues, "
            f"top-1 {hits['1'] / hits['n']:.3f}, top-3 {hits['3'] / hits['n']:.3f}, "
            f"clear {hits['clear'] / hits['n']:.3f}, slowest {spent:.3f} s"
        )
    silent = []
    for usual in sorted(folder.glob("*/noissue/metrics.csv")):
        stamps, normal = load(usual)
        edges = graph(usual.parents[1] / "graph.csv")
        for start in range(len(stamps) // 2, len(stamps) - LENGTH, LENGTH):
            cut = slice(0, start + LENGTH)
            part = {a: {b: v[cut] for b, v in of.items()} for a, of in normal.items()}
            window = [stamps[start], stamps[start + LENGTH - 1]]
            silent.append(rank_causes(edges, stamps[cut], part, window, "PetSite").unclear)
    print(f"without issue: silent in {np.mean(silent):.3f} of {len(silent)}")
    made()


def load(path: Path) -> tuple[Floats, Metrics]:
    """Times, and series by component and metric."""
    with path.open() as source:
        rows = list(csv.reader(source))
    head = next(at for at, row in enumerate(rows) if row[0] == "unix_timestamp")
    values = np.array([[float(cell or "nan") for cell in row] for row in rows[head + 1 :]])
    found: Metrics = {}
    for at in range(1, len(rows[0])):
        found.setdefault(rows[0][at], {})[f"{rows[1][at]}_{rows[2][at]}"] = values[:, at]
    return values[:, 0], found


def graph(path: Path) -> list[tuple[str, str]]:
    """The edges of a matrix: a caller a row, a callee a column."""
    with path.open() as source:
        head, *rows = csv.reader(source)
    return [
        (row[0], head[at]) for row in rows for at in range(1, len(row)) if float(row[at] or 0) > 0
    ]


def join(first: Metrics, then: Metrics, before: int, during: int) -> Metrics:
    """One after the other; what is in one only is unknown in the other."""
    found: Metrics = {}
    for name in {**first, **then}:
        one, other = first.get(name, {}), then.get(name, {})
        found[name] = {
            metric: np.concatenate(
                (
                    one.get(metric, np.full(before, np.nan)),
                    other.get(metric, np.full(during, np.nan)),
                )
            )
            for metric in {**one, **other}
        }
    return found


def made() -> None:
    """Random layered graphs: a component slows or fails, and its callers with it."""
    hits: Counter[str] = Counter()
    for seed in range(100):
        random = np.random.default_rng(seed)
        size = 15
        edges = [(str(int(random.integers(0, one))), str(one)) for one in range(1, size)]
        edges += [(str(a), str(a + int(random.integers(1, size - a)))) for a in range(0, 10, 2)]
        length, start, culprit = 300, 288, int(random.integers(1, size))
        own = random.gamma(4, 10, (size, 1)) * np.exp(0.1 * random.standard_normal((size, length)))
        bad = random.random() < 0.5
        errors = random.binomial(500, 0.004, (size, length)) / 5.0
        for fault in (False, True):
            slow, failed = own.copy(), errors.copy()
            if fault and bad:
                slow[culprit, start + 3 :] += 200
            elif fault:
                failed[culprit, start + 3 :] += 8
            for one in range(size - 1, -1, -1):
                for callee in {int(b) for a, b in edges if int(a) == one}:
                    slow[one] += 0.7 * slow[callee]
                    failed[one] += 0.7 * (failed[callee] - errors[callee])
            metrics = {
                str(n): {"latency": slow[n], "availability": 100 - failed[n]} for n in range(size)
            }
            found = rank_causes(edges, np.arange(length), metrics, [start, length], "0")
            names = [name for name, _ in found.ranked]
            if fault:
                rank = names.index(str(culprit)) + 1
                hits.update({"1": rank == 1, "3": rank <= 3, "clear": not found.unclear})
            else:
                hits["silent"] += found.unclear
    print(
        f"made here, of 100: top-1 {hits['1']}, top-3 {hits['3']}, clear {hits['clear']}, "
        f"silent without fault {hits['silent']}"
    )


if __name__ == "__main__":
    main()
